//! The options that say when.

use crate::{
    clock::TimeOfDay,
    fields::{Fields, invalid, shown, wrong_kind},
    json::Node,
    quiet::{MAX_QUIET_MINUTES, QuietHours, QuietPolicy},
    request::Invalid,
};

use super::{IfPast, LocalTime, MAX_PER_SECOND, MAX_TTL_SECONDS, Pace};

pub(super) fn pace(options: &mut Fields<'_>) -> Result<Option<Pace>, Invalid> {
    const AT: &str = "/options/pace";
    let Some(value) = options.take("pace") else {
        return Ok(None);
    };
    let mut fields = Fields::of(AT, value)?;
    let per_second = fields.whole("per_second", "a number of devices", 1..=MAX_PER_SECOND)?;
    let over = fields.whole("over", "a number of seconds", 1..=MAX_TTL_SECONDS)?;
    fields.no_others(&["per_second", "over"])?;
    match (per_second, over) {
        (Some(devices), None) => Ok(Some(Pace::PerSecond(devices))),
        (None, Some(seconds)) => Ok(Some(Pace::Over(seconds))),
        _ => Err(invalid(
            AT,
            "a pace is exactly one of {\"per_second\": devices} and {\"over\": seconds}",
        )),
    }
}

pub(super) fn local_time(options: &mut Fields<'_>) -> Result<Option<LocalTime>, Invalid> {
    const AT: &str = "/options/local_time";
    match options.take("local_time") {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(LocalTime {
            at: time_of_day(AT, text)?,
            date: None,
            if_past: IfPast::NextDay,
            superseded: None,
        })),
        Some(value @ Node::Object(_)) => {
            let mut fields = Fields::of(AT, value)?;
            let local = local_time_fields(&mut fields, "at")?;
            fields.no_others(&["at", "date", "if_past"])?;
            Ok(Some(local))
        }
        Some(other) => Err(wrong_kind(
            AT,
            "a time of day such as \"09:00\", or an object with \"at\"",
            other,
        )),
    }
}

/// A time of day in the field of that name, with `date` and `if_past` beside it.
pub(crate) fn local_time_fields(fields: &mut Fields<'_>, name: &str) -> Result<LocalTime, Invalid> {
    let at = required_time(fields, name)?;
    let date = match fields.text("date")? {
        None => None,
        // The parser takes more than dates, such as whole times.
        Some(text) => match text.parse() {
            Ok(date) if text.len() == 10 => Some(date),
            _ => {
                return Err(invalid(
                    &fields.at("date"),
                    format!("{} is no date such as \"2026-12-24\"", shown(text)),
                ));
            }
        },
    };
    let if_past = fields.word(
        "if_past",
        &[
            ("next_day", IfPast::NextDay),
            ("now", IfPast::Now),
            ("skip", IfPast::Skip),
        ],
    )?;
    let default = match date {
        Some(_) => IfPast::Now,
        None => IfPast::NextDay,
    };
    Ok(LocalTime {
        at,
        date,
        if_past: if_past.unwrap_or(default),
        superseded: None,
    })
}

pub(super) fn quiet_hours(options: &mut Fields<'_>) -> Result<Option<QuietHours>, Invalid> {
    const AT: &str = "/options/quiet_hours";
    let Some(value) = options.take("quiet_hours") else {
        return Ok(None);
    };
    let mut fields = Fields::of(AT, value)?;
    let from = required_time(&mut fields, "from")?;
    let to = required_time(&mut fields, "to")?;
    let policy = fields
        .word(
            "policy",
            &[("delay", QuietPolicy::Delay), ("drop", QuietPolicy::Drop)],
        )?
        .unwrap_or_default();
    fields.no_others(&["from", "to", "policy"])?;
    let quiet = QuietHours { from, to, policy };
    if !(1..=MAX_QUIET_MINUTES).contains(&quiet.minutes()) {
        return Err(invalid(
            AT,
            format!(
                "from {from} to {to} leaves less than an hour of the day: quiet hours last from a minute to 23 hours"
            ),
        ));
    }
    Ok(Some(quiet))
}

fn required_time(fields: &mut Fields<'_>, name: &str) -> Result<TimeOfDay, Invalid> {
    let at = fields.at(name);
    match fields.required(name, "a time of day such as \"09:00\"")? {
        Node::Text(text) => time_of_day(&at, text),
        other => Err(wrong_kind(&at, "a time of day, which is a string", other)),
    }
}

fn time_of_day(at: &str, text: &str) -> Result<TimeOfDay, Invalid> {
    text.parse()
        .map_err(|rule: crate::clock::BadTimeOfDay| invalid(at, format!("{}: {rule}", shown(text))))
}
