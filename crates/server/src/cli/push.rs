//! `campanile push`

mod http;
mod validate;

use std::{
    io::Read,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use self::{
    http::{Api, Response},
    validate::Validation,
};
use super::{complain, say};
use crate::{auth::random, config::parse_duration};

/// Pause between two looks at a report.
const POLL: Duration = Duration::from_millis(250);

/// Arguments of `campanile push`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The command ends once the push is accepted, which means durable; with --wait, once every device has it \
(exit code 1 if not all do). A push that may have been accepted although no answer came can be repeated safely with the idempotency key that is printed then.

Examples:
  campanile push --key KEY --device phone-1 --title Hello --body 'How are you?'
  campanile push --all --data '{\"reload\": true}' --ttl 10m          with CAMPANILE_KEY set
  campanile push --device a --device b --data @message.json --wait --json")]
#[command(group = clap::ArgGroup::new("audience").required(true).args(["all", "devices"]))]
pub struct PushArgs {
    /// The HTTP API of a node
    #[arg(long, env = "CAMPANILE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The app
    #[arg(long, env = "CAMPANILE_APP", default_value = "default")]
    app: String,
    /// API key of the app. Other users of this machine can see arguments: prefer the variable
    #[arg(long, env = "CAMPANILE_KEY", hide_env_values = true)]
    key: Key,
    /// Every device that has a session
    #[arg(long)]
    all: bool,
    /// A device, by its MQTT client id; may be repeated
    #[arg(long = "device", value_name = "CLIENT_ID")]
    devices: Vec<String>,
    /// Title of the notification
    #[arg(long)]
    title: Option<String>,
    /// Text of the notification
    #[arg(long)]
    body: Option<String>,
    /// A JSON object for the app; @FILE reads it from a file, @- from standard input
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// How long the push waits for devices that are away: "10m", "7d", or seconds; 0 is now or never
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<u64>,
    /// What it goes before: high overtakes what waits for a device, low waits for the others
    #[arg(long, value_name = "PRIORITY", value_parser = ["high", "normal", "low"])]
    priority: Option<String>,
    /// Takes the place of the undelivered push of the same key
    #[arg(long, value_name = "KEY")]
    collapse_key: Option<String>,
    /// What makes repeating this push harmless; made up if it is not given
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Sends nothing: says how many devices it would be for, how many of them are connected, and when it would be their turn
    #[arg(long, conflicts_with_all = ["wait", "idempotency_key"])]
    validate: bool,
    /// Waits until every device has the push, or it is over for those that have not
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration, requires = "wait")]
    wait_timeout: Duration,
    /// Prints the answer of the API as JSON: of the push, or with --wait its last report
    #[arg(long)]
    json: bool,
}

/// An API key that does not show up in debug output.
#[derive(Clone)]
struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl From<String> for Key {
    fn from(text: String) -> Key {
        Key(text)
    }
}

fn parse_ttl(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) => Ok(seconds),
        Err(_) => parse_duration(text).map(|duration| duration.as_secs()),
    }
}

#[derive(Serialize)]
struct Push<'a> {
    audience: Audience<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<Notification<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Audience<'a> {
    All(bool),
    Devices(&'a [String]),
}

#[derive(Serialize)]
struct Notification<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

#[derive(Default, PartialEq, Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
}

#[derive(Deserialize)]
struct Accepted {
    push_id: String,
    targeted: u64,
}

#[derive(Deserialize)]
struct Report {
    targeted: u64,
    delivered: u64,
    pending: u64,
    expired: u64,
    collapsed: u64,
    dropped: u64,
    recalled: u64,
    failed: u64,
}

pub(super) fn run(args: &PushArgs) -> anyhow::Result<ExitCode> {
    let document = document(args)?;
    let idempotency_key = match &args.idempotency_key {
        Some(key) => key.clone(),
        None => random::<16>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    };
    let api = Api::new(&args.url, &args.key.0)?;
    let path = format!("/v1/apps/{}/pushes", encode(&args.app));
    if args.validate {
        let response = api.post(&format!("{path}:validate"), &idempotency_key, document)?;
        let validation: Validation = read(&response)?;
        match args.json {
            true => say(response.text()),
            false => say(validation),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let response = api
        .post(&path, &idempotency_key, document)
        .map_err(|error| {
            let sent = error.may_have_arrived;
            let error = anyhow::Error::from(error);
            if sent {
                error.context(format!(
                    "no answer; to repeat it safely: --idempotency-key {idempotency_key}"
                ))
            } else {
                error
            }
        })?;
    let accepted: Accepted = read(&response)?;
    if !args.wait {
        if args.json {
            say(response.text());
        } else {
            say(format_args!(
                "push {} accepted, for {}",
                accepted.push_id,
                devices(accepted.targeted)
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        say(format_args!(
            "push {} accepted, for {}",
            accepted.push_id,
            devices(accepted.targeted)
        ));
    }
    let (report, text) = await_report(
        &api,
        &format!("{path}/{}", accepted.push_id),
        args.wait_timeout,
    )?;
    if args.json {
        say(text);
    } else {
        let Report {
            targeted,
            delivered,
            pending,
            expired,
            collapsed,
            dropped,
            recalled,
            failed,
        } = report;
        let rare = [("recalled", recalled), ("failed", failed)];
        let rare = rare.into_iter().filter(|(_, count)| *count > 0);
        let rare: String = rare
            .map(|(name, count)| format!(", {name} {count}"))
            .collect();
        say(format_args!(
            "delivered {delivered} of {targeted}, pending {pending}, expired {expired}, collapsed {collapsed}, dropped {dropped}{rare}"
        ));
    }
    Ok(if report.delivered == report.targeted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn document(args: &PushArgs) -> anyhow::Result<Vec<u8>> {
    let notification = (args.title.is_some() || args.body.is_some()).then_some(Notification {
        title: args.title.as_deref(),
        body: args.body.as_deref(),
    });
    let data = args.data.as_deref().map(read_data).transpose()?;
    ensure!(
        notification.is_some() || data.is_some(),
        "the push says nothing: give it --title, --body or --data"
    );
    let audience = if args.all {
        Audience::All(true)
    } else {
        Audience::Devices(&args.devices)
    };
    let options = Options {
        ttl: args.ttl,
        priority: args.priority.as_deref(),
        collapse_key: args.collapse_key.as_deref(),
    };
    let push = Push {
        audience,
        notification,
        data,
        options: (options != Options::default()).then_some(options),
    };
    Ok(serde_json::to_vec(&push)?)
}

/// JSON as it is, so that numbers stay what they are.
fn read_data(argument: &str) -> anyhow::Result<Box<RawValue>> {
    let text = match argument.strip_prefix('@') {
        None => argument.to_owned(),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("reading --data from standard input")?;
            text
        }
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("reading --data from {file}"))?
        }
    };
    let data = RawValue::from_string(text.trim().to_owned()).context("--data is not JSON")?;
    ensure!(
        data.get().starts_with('{'),
        "--data is not a JSON object, such as '{{\"order\": 7}}'"
    );
    Ok(data)
}

fn await_report(api: &Api, path: &str, patience: Duration) -> anyhow::Result<(Report, String)> {
    let deadline = Instant::now() + patience;
    loop {
        let response = api.get(path)?;
        let report: Report = read(&response)?;
        // However it ended: delivered, or cancelled by somebody else.
        if report.pending == 0 {
            return Ok((report, response.text().to_owned()));
        }
        if Instant::now() + POLL > deadline {
            complain("time is over");
            return Ok((report, response.text().to_owned()));
        }
        sleep(POLL);
    }
}

/// Reads a good answer; another one becomes an error with the words of its problem document.
fn read<T: for<'a> Deserialize<'a>>(response: &Response) -> anyhow::Result<T> {
    if response.is_success() {
        return serde_json::from_str(response.text()).with_context(|| {
            format!(
                "the answer is not that of a Campanile node: {}",
                response.text()
            )
        });
    }
    let problem: Value = serde_json::from_str(response.text()).unwrap_or_default();
    match (problem["code"].as_str(), problem["detail"].as_str()) {
        (Some(code), Some(detail)) => bail!(
            "the node refused with {} {code}: {detail}",
            response.status()
        ),
        _ => bail!("the answer is {}: {}", response.status(), response.text()),
    }
}

fn devices(count: u64) -> String {
    format!("{count} device{}", if count == 1 { "" } else { "s" })
}

/// Percent-encodes a segment of a path.
fn encode(segment: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    segment
        .bytes()
        .map(|byte| {
            if keep(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        push: PushArgs,
    }

    fn args(line: &[&str]) -> PushArgs {
        Line::try_parse_from(["push", "--key", "k"].iter().chain(line))
            .unwrap_or_else(|error| panic!("{error}"))
            .push
    }

    #[track_caller]
    fn check(line: &[&str], expected: &str) {
        assert_eq!(
            String::from_utf8(document(&args(line)).unwrap()).unwrap(),
            expected
        );
    }

    #[test]
    fn arguments_become_the_document() {
        check(
            &["--all", "--title", "Hi"],
            r#"{"audience":{"all":true},"notification":{"title":"Hi"}}"#,
        );
        check(
            &[
                "--device",
                "a",
                "--device",
                "b",
                "--data",
                r#"{"n": 1.10}"#,
                "--ttl",
                "10m",
            ],
            r#"{"audience":{"devices":["a","b"]},"data":{"n": 1.10},"options":{"ttl":600}}"#,
        );
        check(
            &["--all", "--body", "x", "--ttl", "0"],
            r#"{"audience":{"all":true},"notification":{"body":"x"},"options":{"ttl":0}}"#,
        );
        check(
            &[
                "--device",
                "a",
                "--body",
                "x",
                "--priority",
                "high",
                "--collapse-key",
                "k",
            ],
            r#"{"audience":{"devices":["a"]},"notification":{"body":"x"},"options":{"priority":"high","collapse_key":"k"}}"#,
        );
    }

    #[test]
    fn a_push_that_says_nothing_or_no_object_is_refused() {
        for line in [
            &["--all"][..],
            &["--all", "--data", "1"],
            &["--all", "--data", "{"],
            &["--all", "--data", "@/nowhere"],
        ] {
            assert!(document(&args(line)).is_err(), "{line:?}");
        }
    }

    #[test]
    fn names_are_encoded_and_keys_are_not_shown() {
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
        assert!(
            !format!(
                "{:?}",
                Line::try_parse_from(["push", "--key", "secret", "--all"])
                    .unwrap()
                    .push
            )
            .contains("secret")
        );
    }
}
