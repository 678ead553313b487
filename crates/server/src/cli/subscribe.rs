//! `campanile sub`: prints the messages that arrive.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use campanile_mqtt::client::{Event, Message};
use campanile_mqtt::{
    Properties, PropertiesBuf, Property, QoS, Reason, RetainHandling, SubscriptionOptions, Version,
};
use serde::Serialize;

use super::mqtt_connection::{
    ConnectArgs, Connection, Lost, describe, lost_by, parse_qos, random_hex,
};

/// Print messages as they arrive
///
/// Subscribes and prints each message, by default its payload and a line break. Without --topic it subscribes to nothing and
/// prints what the broker sends by itself, as to a device: pushes arrive on "push/in".
///
/// A message is acknowledged after it was printed. The exit code is 0 when --count messages have arrived or --wait is over, 1 when
/// fewer than --count have, the broker refused, or the connection was lost.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SubArgs {
    /// Topic filter; may be repeated. "+" stands for one level, "#" for all that follow, "$share/GROUP/FILTER" shares the messages
    /// among the clients of a group.
    #[arg(short, long = "topic", value_name = "FILTER")]
    pub topics: Vec<String>,

    /// Highest quality of service of the messages.
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,

    /// Exit after so many messages.
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Exit after so many seconds.
    #[arg(short = 'W', long, value_name = "SECONDS")]
    pub wait: Option<u64>,

    /// Go on with the session of this client identifier if there is one, and keep it on exit: what arrives meanwhile is printed next time.
    #[arg(long, requires = "client_id", overrides_with = "clean")]
    pub no_clean: bool,

    /// Begin with an empty session (default).
    #[arg(long)]
    pub clean: bool,

    /// Seconds that the broker keeps the session after the end (MQTT 5); 86400 with --no-clean, else 0.
    #[arg(long, value_name = "SECONDS", requires = "client_id")]
    pub session_expiry: Option<u32>,

    /// Connect again when the connection is lost, or to where the broker says.
    #[arg(long)]
    pub reconnect: bool,

    /// One JSON object per line: topic, payload (or payload_base64 if it is not UTF-8), qos, retain, dup, properties.
    #[arg(long, conflicts_with = "verbose")]
    pub json: bool,

    /// Topic and payload instead of the payload alone; tell of the connection on the standard error.
    #[arg(short, long)]
    pub verbose: bool,

    #[command(flatten)]
    options: FilterOptions,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// How the subscriptions want their messages.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Subscription options (MQTT 5)")]
struct FilterOptions {
    /// Not what this client itself publishes.
    #[arg(long)]
    no_local: bool,

    /// Keep the retain flag as it was published.
    #[arg(long)]
    retain_as_published: bool,

    /// When to send kept messages.
    #[arg(long, value_enum, default_value = "always", value_name = "WHEN")]
    retain_handling: Retained,

    /// Identifier that the messages of these subscriptions carry.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=268_435_455))]
    subscription_id: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Retained {
    Always,
    IfNew,
    Never,
}

const EXAMPLES: &str = "\
Examples:
  campanile sub -t 'sensors/+/temperature' -v
  campanile sub -t '#' -q 2 --json | jq .topic
  campanile sub -i my-phone -u my-phone -P secret -q 1 --no-clean     # as a device: prints its pushes
  campanile sub -t answers -n 1 -W 10 || echo 'no answer'
  campanile sub -t '$share/workers/jobs' -q 1 --reconnect";

/// How long a session is kept by `--no-clean` if nothing else is said.
const KEPT_SECONDS: u32 = 86_400;

/// How long a session is kept by `--reconnect` for this process to come back.
const RECONNECT_SECONDS: u32 = 120;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs the command.
pub fn run(args: SubArgs) -> anyhow::Result<ExitCode> {
    run_to(&args, &mut io::stdout().lock())
}

fn run_to(args: &SubArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let until = args
        .wait
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut printed = 0;
    let mut printer = Printer {
        args,
        out,
        printed: &mut printed,
    };
    match printer.run(until) {
        Ok(()) => {}
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error),
    }
    match args.count {
        Some(count) if printed < count => {
            eprintln!("time is over after {printed} of {count} messages");
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

struct Printer<'a> {
    args: &'a SubArgs,
    out: &'a mut dyn Write,
    printed: &'a mut u64,
}

impl Printer<'_> {
    /// Prints until there is enough or the time is over.
    fn run(&mut self, until: Option<Instant>) -> anyhow::Result<()> {
        let (mut connection, session_present) = self.open()?;
        self.begin(&mut connection, session_present)?;
        let mut pause = FIRST_PAUSE;
        loop {
            let before = *self.printed;
            let Err(error) = self.serve(&mut connection, until) else {
                self.close(connection);
                return Ok(());
            };
            if *self.printed > before {
                pause = FIRST_PAUSE;
            }
            if !self.reopen(&mut connection, error, &mut pause, until)? {
                return Ok(());
            }
        }
    }

    fn open(&self) -> anyhow::Result<(Connection, bool)> {
        let args = self.args;
        if args.session_expiry.is_some() && args.connect.version() != Version::V5 {
            bail!(
                "--session-expiry needs MQTT 5: before, a session ends with its connection or, with --no-clean, never"
            );
        }
        Connection::open(&args.connect, !args.no_clean, |options| {
            options.session_expiry = args.session_expiry.unwrap_or(match args.no_clean {
                true => KEPT_SECONDS,
                false if args.reconnect => RECONNECT_SECONDS,
                false => 0,
            });
            // What the process before this one has received, it has acknowledged; nothing else is to be known of it.
            options.has_session = args.no_clean;
        })
    }

    fn close(&self, connection: Connection) {
        let mut properties = PropertiesBuf::new();
        let args = self.args;
        if args.reconnect && args.session_expiry.is_none() && !args.no_clean {
            // What was kept for a reconnect is not needed any more.
            properties.push(Property::SessionExpiry(0));
        }
        connection.close(properties.as_properties());
    }

    /// Connects again after an error that may pass, at growing intervals; false if the time was over before.
    fn reopen(
        &mut self,
        connection: &mut Connection,
        mut error: anyhow::Error,
        pause: &mut Duration,
        until: Option<Instant>,
    ) -> anyhow::Result<bool> {
        loop {
            let text = format!("{error:#}");
            let lost = self.passing(error)?;
            self.tell(&text);
            let wake = Instant::now() + jittered(*pause)?;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            let end = until.map_or(wake, |until| until.min(wake));
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            if end < wake {
                return Ok(false);
            }
            match connection.reopen(&lost) {
                Ok(session_present) => {
                    self.begin(connection, session_present)?;
                    return Ok(true);
                }
                Err(again) => error = again,
            }
        }
    }

    /// What was lost, if it is worth another attempt; else the error.
    fn passing(&self, error: anyhow::Error) -> anyhow::Result<Lost> {
        if !self.args.reconnect {
            return Err(error);
        }
        match error.downcast::<Lost>() {
            Ok(lost) if lost.may_pass() => Ok(lost),
            Ok(lost) => Err(lost.into()),
            // A broker that was there and is away comes back.
            Err(other) => other.downcast::<io::Error>().map(Lost::Broken),
        }
    }

    /// Subscribes. A session that goes on may have other filters.
    fn begin(&mut self, connection: &mut Connection, session_present: bool) -> anyhow::Result<()> {
        let url = connection.url();
        let session = if session_present {
            "its session goes on"
        } else {
            "a new session"
        };
        self.tell(&format!("connected to {url}, {session}"));
        if self.args.topics.is_empty() {
            return Ok(());
        }
        let options = self.args.options.options(self.args.qos);
        let filters: Vec<_> = self
            .args
            .topics
            .iter()
            .map(|filter| (filter.as_str(), options))
            .collect();
        let mut properties = PropertiesBuf::new();
        if let Some(id) = self.args.options.subscription_id {
            properties.push(Property::SubscriptionId(id));
        }
        let now_ms = connection.now_ms();
        connection
            .client
            .subscribe(&filters, properties.as_properties(), now_ms)?;
        Ok(())
    }

    fn serve(&mut self, connection: &mut Connection, until: Option<Instant>) -> anyhow::Result<()> {
        loop {
            while let Some(event) = connection.poll_event() {
                self.on_event(event)?;
                if self.args.count.is_some_and(|count| *self.printed >= count) {
                    return Ok(());
                }
            }
            self.out.flush()?;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            connection.turn(until)?;
        }
    }

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Message(message) => {
                self.print(&message)?;
                *self.printed += 1;
            }
            Event::Subscribed {
                granted,
                properties,
                ..
            } => self.on_subscribed(&granted, &properties)?,
            Event::Dropped { .. } | Event::Published { .. } | Event::Unsubscribed { .. } => {}
            other => return Err(lost_by(other)),
        }
        Ok(())
    }

    fn on_subscribed(
        &self,
        granted: &[Result<QoS, Reason>],
        properties: &PropertiesBuf,
    ) -> anyhow::Result<()> {
        for (filter, granted) in self.args.topics.iter().zip(granted) {
            match granted {
                Ok(qos) => self.tell(&format!("subscribed to {filter:?} with QoS {}", *qos as u8)),
                Err(reason) => bail!(
                    "the broker refused the subscription to {filter:?}: {}",
                    describe(*reason, properties)
                ),
            }
        }
        Ok(())
    }

    fn print(&mut self, message: &Message) -> io::Result<()> {
        if self.args.json {
            serde_json::to_writer(&mut *self.out, &Line::of(message))?;
        } else {
            if self.args.verbose {
                write!(self.out, "{} ", message.topic)?;
            }
            self.out.write_all(&message.payload)?;
        }
        self.out.write_all(b"\n")
    }

    fn tell(&self, what: &str) {
        if self.args.verbose {
            eprintln!("{what}");
        }
    }
}

impl FilterOptions {
    fn options(&self, qos: QoS) -> SubscriptionOptions {
        SubscriptionOptions {
            qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: match self.retain_handling {
                Retained::Always => RetainHandling::Send,
                Retained::IfNew => RetainHandling::SendIfNew,
                Retained::Never => RetainHandling::DoNotSend,
            },
        }
    }
}

/// A message as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    qos: u8,
    retain: bool,
    dup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<LineProperties<'a>>,
}

#[derive(Default, Serialize, PartialEq)]
struct LineProperties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_is_utf8: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expiry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscription_ids: Vec<u32>,
    /// Pairs, since a name may come more than once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn of(message: &'a Message) -> Line<'a> {
        let payload = std::str::from_utf8(&message.payload).ok();
        let properties = LineProperties::of(message.properties.as_properties());
        Line {
            topic: &message.topic,
            payload,
            payload_base64: payload.is_none().then(|| BASE64.encode(&message.payload)),
            qos: message.qos as u8,
            retain: message.retain,
            dup: message.dup,
            properties: Some(properties)
                .filter(|properties| *properties != LineProperties::default()),
        }
    }
}

impl<'a> LineProperties<'a> {
    fn of(properties: Properties<'a>) -> LineProperties<'a> {
        LineProperties {
            payload_is_utf8: properties.payload_format(),
            message_expiry: properties.message_expiry(),
            content_type: properties.content_type(),
            response_topic: properties.response_topic(),
            correlation_data_base64: properties
                .correlation_data()
                .map(|data| BASE64.encode(data)),
            subscription_ids: properties.subscription_ids().collect(),
            user_properties: properties.user_properties().collect(),
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Half of the pause to all of it, so that clients of a broker that was away do not return at once.
fn jittered(pause: Duration) -> anyhow::Result<Duration> {
    let random = u32::from_str_radix(&random_hex()?[..4], 16).context("hexadecimal digits")?;
    Ok(pause / 2 + pause / 2 * random / 0xFFFF)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::mqtt_connection::tests::{Broker, Step::*};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SubArgs,
    }

    fn subscribe(broker: &Broker, more: &[&str]) -> (anyhow::Result<ExitCode>, String) {
        let url = broker.url();
        let arguments = ["sub", "--url", &url]
            .into_iter()
            .chain(more.iter().copied());
        let args = Cli::try_parse_from(arguments).unwrap().args;
        let mut out = Vec::new();
        let result = run_to(&args, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn messages_beyond_the_count_are_not_acknowledged() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 00 00 00"),
            Reads("82 07 00 01 00 00 01 61 01"),
            Writes("90 04 00 01 00 01  32 07 00 01 61 00 01 00 78  32 07 00 01 61 00 02 00 79"),
            Reads("40 02 00 01 e0 00"),
        ]);
        let (result, out) = subscribe(&broker, &["-t", "a", "-q", "1", "-n", "1"]);
        assert_eq!((result.unwrap(), out.as_str()), (ExitCode::SUCCESS, "x\n"));
        broker.join();
    }

    #[test]
    fn device_prints_pushes_without_subscribing() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 01 00 00  30 0b 00 07 'push/in' 00 7b"),
            Reads("e0 00"),
        ]);
        let more = ["-i", "phone", "--no-clean", "-n", "1", "-v"];
        let (result, out) = subscribe(&broker, &more);
        assert_eq!(
            (result.unwrap(), out.as_str()),
            (ExitCode::SUCCESS, "push/in {\n")
        );
        broker.join();
    }

    #[test]
    fn json_tells_all() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 00 00 00"),
            Reads("82 07 00 01 00 00 01 61 00"),
            Writes("90 04 00 01 00 00  31 10 00 01 61 0b 0b 09 26 00 01 6b 00 01 76 01 01 ff"),
            Writes("30 05 00 01 61 00 22"),
            Reads("e0 00"),
        ]);
        let (result, out) = subscribe(&broker, &["-t", "a", "-n", "2", "--json"]);
        result.unwrap();
        assert_eq!(
            out,
            concat!(
                r#"{"topic":"a","payload_base64":"/w==","qos":0,"retain":true,"dup":false,"#,
                r#""properties":{"payload_is_utf8":true,"subscription_ids":[9],"user_properties":[["k","v"]]}}"#,
                "\n",
                r#"{"topic":"a","payload":"\"","qos":0,"retain":false,"dup":false}"#,
                "\n"
            )
        );
        broker.join();
    }

    #[test]
    fn refused_subscription_is_an_error() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 02 00 00"),
            Reads("82 06 00 01 00 01 61 00"),
            Writes("90 03 00 01 80"),
        ]);
        let (result, _) = subscribe(&broker, &["-V", "3.1.1", "-t", "a"]);
        let error = result.unwrap_err().to_string();
        assert_eq!(
            error,
            "the broker refused the subscription to \"a\": Unspecified error (0x80)"
        );
        broker.join();
    }

    #[test]
    fn too_few_messages_in_time_is_a_failure() {
        let broker = Broker::start([Reads("10"), Writes("20 03 00 00 00"), Reads("e0 00")]);
        let (result, _) = subscribe(&broker, &["-n", "1", "-W", "0"]);
        assert_eq!(result.unwrap(), ExitCode::FAILURE);
        broker.join();
    }

    #[test]
    fn lost_connection_is_an_error_unless_it_may_come_back() {
        let broker = Broker::start([Reads("10"), Writes("20 03 00 00 00")]);
        assert!(subscribe(&broker, &[]).0.is_err());
        broker.join();
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 00 00 00  e0 01 8b"),
            Closes,
            Reads("10"),
            Writes("20 03 01 00 00  30 05 00 01 61 00 22"),
            Reads("e0 07 00 05 11 00 00 00 00"),
        ]);
        let (result, out) = subscribe(&broker, &["-i", "c", "--reconnect", "-n", "1"]);
        assert_eq!((result.unwrap(), out.as_str()), (ExitCode::SUCCESS, "\"\n"));
        broker.join();
    }
}
