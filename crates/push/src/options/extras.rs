//! The options that say to how many, how often, and what else.

use std::collections::BTreeMap;

use crate::{
    fields::{Fields, invalid, shown, wrong_kind},
    frequency::{FrequencyCap, MAX_CAP_COUNT, MAX_CAP_SECONDS, MIN_CAP_SECONDS},
    json::{self, Node},
    request::{Invalid, Limits},
};

use super::{
    AutoHalt, MAX_KEY_BYTES, MAX_LABELS, MAX_TTL_SECONDS, MAX_URL_BYTES, Portion, Receipts,
};

/// A string of 1 to so many bytes without control characters.
pub(super) fn bounded(
    fields: &mut Fields<'_>,
    name: &str,
    most: usize,
) -> Result<Option<String>, Invalid> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    if (1..=most).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(Some(text.to_owned()));
    }
    Err(invalid(
        &fields.at(name),
        format!(
            "{} has {} bytes: \"{name}\" is 1 to {most} bytes without control characters",
            shown(text),
            text.len()
        ),
    ))
}

pub(super) fn frequency_cap(options: &mut Fields<'_>) -> Result<Option<FrequencyCap>, Invalid> {
    const AT: &str = "/options/frequency_cap";
    let Some(value) = options.take("frequency_cap") else {
        return Ok(None);
    };
    let mut fields = Fields::of(AT, value)?;
    let key = bounded(&mut fields, "key", MAX_KEY_BYTES)?;
    let count = fields.whole("count", "a number of pushes", 1..=MAX_CAP_COUNT)?;
    let per = fields.whole(
        "per",
        "a number of seconds",
        MIN_CAP_SECONDS..=MAX_CAP_SECONDS,
    )?;
    fields.no_others(&["key", "count", "per"])?;
    let (Some(key), Some(count), Some(per_seconds)) = (key, count, per) else {
        return Err(invalid(
            AT,
            "a frequency cap is {\"key\": what is counted, \"count\": pushes, \"per\": seconds}, all three",
        ));
    };
    Ok(Some(FrequencyCap {
        key,
        count,
        per_seconds,
    }))
}

pub(super) fn portion(options: &mut Fields<'_>) -> Result<Option<Portion>, Invalid> {
    const AT: &str = "/options/portion";
    let Some(value) = options.take("portion") else {
        return Ok(None);
    };
    let mut fields = Fields::of(AT, value)?;
    let percent = fields.required("percent", "how much of the audience goes first")?;
    let hundredths = ten_thousandths(
        &fields.at("percent"),
        percent,
        100.0,
        "a percentage from 0.01 to 100 with at most two decimals",
    )?;
    let hold_seconds = fields.whole("hold", "a number of seconds", 1..=MAX_TTL_SECONDS)?;
    let auto_halt = fields.take("auto_halt").map(auto_halt).transpose()?;
    fields.no_others(&["percent", "hold", "auto_halt"])?;
    Ok(Some(Portion {
        hundredths,
        hold_seconds,
        auto_halt,
    }))
}

fn auto_halt(value: &Node) -> Result<AutoHalt, Invalid> {
    const AT: &str = "/options/portion/auto_halt";
    let mut fields = Fields::of(AT, value)?;
    let rate = fields.required("error_rate", "the share of failures to stop above")?;
    let error_rate = ten_thousandths(
        &fields.at("error_rate"),
        rate,
        10_000.0,
        "a share from 0.0001 to 1 with at most four decimals",
    )?;
    let after = fields.whole("after", "a number of outcomes", 1..=1_000_000)?;
    fields.no_others(&["error_rate", "after"])?;
    Ok(AutoHalt {
        error_rate,
        after: after.unwrap_or(100),
    })
}

/// A decimal number that is 1..=10,000 when multiplied by `scale`.
fn ten_thousandths(at: &str, value: &Node, scale: f64, rule: &str) -> Result<u32, Invalid> {
    let number = match value {
        Node::Whole(number) => *number as f64,
        Node::Number(number) => *number,
        other => return Err(wrong_kind(at, rule, other)),
    };
    let parts = (number * scale).round();
    if (1.0..=10_000.0).contains(&parts) && (parts - number * scale).abs() < 1e-6 {
        Ok(parts as u32)
    } else {
        Err(invalid(
            at,
            format!("{number} is not possible: it is {rule}"),
        ))
    }
}

pub(super) fn receipts(options: &mut Fields<'_>) -> Result<Receipts, Invalid> {
    const AT: &str = "/options/receipts";
    const WORDS: &str =
        "\"delivered\" (always counted), \"displayed\", \"clicked\" and \"dismissed\"";
    let items = match options.take("receipts") {
        None => return Ok(Receipts::default()),
        Some(Node::List(items)) => items,
        Some(other) => return Err(wrong_kind(AT, &format!("an array of {WORDS}"), other)),
    };
    let mut wanted = Receipts {
        displayed: false,
        clicked: false,
        dismissed: false,
    };
    for (index, item) in items.iter().enumerate() {
        let at = format!("{AT}/{index}");
        let Node::Text(name) = item else {
            return Err(wrong_kind(&at, &format!("one of {WORDS}"), item));
        };
        match name.as_str() {
            "delivered" => {}
            "displayed" => wanted.displayed = true,
            "clicked" => wanted.clicked = true,
            "dismissed" => wanted.dismissed = true,
            other => {
                let detail = format!("{} is no receipt: there are {WORDS}", shown(other));
                return Err(invalid(&at, detail));
            }
        }
    }
    Ok(wanted)
}

pub(super) fn labels(options: &mut Fields<'_>) -> Result<BTreeMap<String, String>, Invalid> {
    const AT: &str = "/options/labels";
    let labels = match options.take("labels") {
        None => return Ok(BTreeMap::new()),
        Some(Node::Object(labels)) => labels,
        Some(other) => return Err(wrong_kind(AT, "an object of strings", other)),
    };
    if labels.len() > MAX_LABELS {
        let detail = format!("{} labels: a push has at most {MAX_LABELS}", labels.len());
        return Err(invalid(AT, detail));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in labels {
        let at = json::pointer_to(AT, name);
        let plain = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
        if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
            let detail = format!(
                "{} is no name of a label: it is 1 to 32 of a-z, 0-9, _, . and -",
                shown(name)
            );
            return Err(invalid(&at, detail));
        }
        match value {
            Node::Text(text) if text.len() <= 64 => checked.insert(name.clone(), text.clone()),
            Node::Text(text) => {
                let detail = format!("a label's value of {} bytes: it has at most 64", text.len());
                return Err(invalid(&at, detail));
            }
            other => return Err(wrong_kind(&at, "a string", other)),
        };
    }
    Ok(checked)
}

pub(super) fn callback_url(
    options: &mut Fields<'_>,
    limits: &Limits,
) -> Result<Option<String>, Invalid> {
    let Some(url) = options.text("callback_url")? else {
        return Ok(None);
    };
    let refused = |rule: &str| Err(invalid("/options/callback_url", rule));
    if url.len() > MAX_URL_BYTES {
        return refused(&format!(
            "a callback URL of {} bytes: it has at most {MAX_URL_BYTES}",
            url.len()
        ));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return refused(
            "a callback URL has visible ASCII characters only: encode the others as %XX",
        );
    }
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if limits.plain_callbacks => rest,
        _ if limits.plain_callbacks => {
            return refused("a callback URL begins with https:// or http://");
        }
        _ => return refused("a callback URL begins with https://"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return refused("a callback URL names a host");
    }
    if authority.contains('@') {
        return refused(
            "a callback URL carries no user name or password: callbacks are signed instead",
        );
    }
    if rest.contains('#') {
        return refused("a callback URL has no fragment (#..): it would not be sent");
    }
    Ok(Some(url.to_owned()))
}
