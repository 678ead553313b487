//! `campanile pub`: publishes messages and waits until the broker has taken them.

use std::{
    io::{BufRead, Read},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
};

use anyhow::Context;
use campanile_mqtt::client::{Event, Publication, RequestError};
use campanile_mqtt::{Properties, PropertiesBuf, Property, QoS, Reason};

use super::mqtt_connection::{ConnectArgs, Connection, describe, lost_by, parse_qos};

/// Publish a message
///
/// Connects, publishes, waits until the broker has taken every message (quality of service 1 and 2), and exits. The exit
/// code is 0 if all were taken, 1 if the broker refused one or the connection was lost.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PubArgs {
    /// Topic to publish to.
    #[arg(short, long)]
    pub topic: String,

    #[command(flatten)]
    source: Source,

    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once.
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,

    /// The broker keeps the message for later subscribers; an empty one deletes what it kept.
    #[arg(short, long)]
    pub retain: bool,

    /// Say what became of each message.
    #[arg(short, long)]
    pub verbose: bool,

    #[command(flatten)]
    properties: MessageProperties,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Where the payload comes from.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The payload.
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// File with the payload; "-" is the standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Publish each line of the standard input as a message of its own.
    #[arg(short, long)]
    lines: bool,

    /// An empty payload.
    #[arg(short = 'n', long)]
    empty: bool,
}

/// What a message says about itself.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Message properties (MQTT 5)")]
struct MessageProperties {
    /// A user property; may be repeated.
    #[arg(long = "user-property", value_name = "NAME=VALUE", value_parser = parse_pair)]
    user: Vec<(String, String)>,

    /// Media type of the payload, such as application/json.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Mark the payload as UTF-8 text.
    #[arg(long)]
    utf8: bool,

    /// Topic that an answer is expected on.
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,

    /// What the answer will carry to tell which request it is for.
    #[arg(long, value_name = "TEXT")]
    correlation_data: Option<String>,

    /// Seconds after which the message is worth nothing any more.
    #[arg(long, value_name = "SECONDS")]
    message_expiry: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  campanile pub -t greetings -m hello
  campanile pub -t config/lamp -f lamp.json -q 1 -r --content-type application/json
  tail -f app.log | campanile pub -t logs/app -l -q 1
  campanile pub -t config/lamp -n -r                       # delete what the broker kept
  campanile pub --url mqtts://broker.example --ca ca.pem -u ann --password-file pw --auth scram-sha-256 -t a -m b";

/// Runs the command.
pub fn run(args: PubArgs) -> anyhow::Result<ExitCode> {
    let properties = args.properties.encode(args.connect.version().is_v5())?;
    let fixed = args.source.read()?;
    let (mut connection, _) = Connection::open(&args.connect, true, |_| {})?;
    let (messages, lines) = sync_channel(256);
    match fixed {
        Some(payload) => messages.send(Ok(payload)).context("the channel is open")?,
        None => read_lines(messages.clone(), connection.waker()),
    }
    drop(messages);
    let mut session = Session {
        args: &args,
        properties,
        refused: 0,
        taken: 0,
    };
    let result = session.publish_all(&mut connection, &lines);
    connection.close(Properties::EMPTY);
    result?;
    if args.verbose {
        eprintln!("{} messages published", session.taken);
    }
    if session.refused > 0 {
        eprintln!("{} messages refused", session.refused);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

struct Session<'a> {
    args: &'a PubArgs,
    properties: PropertiesBuf,
    taken: u64,
    refused: u64,
}

impl Session<'_> {
    /// Publishes what comes through the channel until it ends and everything has been answered.
    fn publish_all(
        &mut self,
        connection: &mut Connection,
        lines: &Receiver<anyhow::Result<Vec<u8>>>,
    ) -> anyhow::Result<()> {
        let mut waiting: Option<Vec<u8>> = None;
        let mut ended = false;
        loop {
            while let Some(event) = connection.poll_event() {
                self.on_event(event)?;
            }
            while !ended {
                let payload = match waiting.take() {
                    Some(payload) => payload,
                    None => match lines.try_recv() {
                        Ok(payload) => payload?,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            ended = true;
                            break;
                        }
                    },
                };
                if !self.publish(connection, &payload)? {
                    waiting = Some(payload);
                    break;
                }
            }
            // If writing fails, the turn finds out why.
            let all_written = matches!(connection.write(), Ok(true));
            if ended && all_written && connection.client.unfinished().next().is_none() {
                return Ok(());
            }
            connection.turn(None)?;
        }
    }

    /// Whether there was room for it.
    fn publish(&mut self, connection: &mut Connection, payload: &[u8]) -> anyhow::Result<bool> {
        let publication = Publication {
            topic: &self.args.topic,
            payload,
            qos: self.args.qos,
            retain: self.args.retain,
            properties: self.properties.as_properties(),
        };
        let now_ms = connection.now_ms();
        match connection.client.publish(&publication, now_ms) {
            Ok(None) => self.taken += 1,
            Ok(Some(_)) => {}
            Err(RequestError::Busy) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Published {
                packet_id,
                reason,
                properties,
            } => {
                if reason.is_error() {
                    self.refused += 1;
                    let why = describe(reason, &properties);
                    eprintln!("the broker refused message {packet_id}: {why}");
                } else {
                    self.taken += 1;
                    if self.args.verbose {
                        let note = match reason {
                            Reason::NoMatchingSubscribers => "taken, nobody subscribes to it",
                            _ => "taken",
                        };
                        eprintln!("message {packet_id}: {note}");
                    }
                }
            }
            // What this client has not asked for does not concern it: a device's pushes, for one.
            Event::Message(_) | Event::Dropped { .. } => {}
            other => return Err(lost_by(other)),
        }
        Ok(())
    }
}

impl Source {
    /// The one payload, or `None` if every line is one.
    fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if let Some(message) = &self.message {
            return Ok(Some(message.clone().into_bytes()));
        }
        match &self.file {
            Some(path) if path.as_os_str() == "-" => {
                let mut payload = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut payload)
                    .context("standard input")?;
                Ok(Some(payload))
            }
            Some(path) => {
                let payload =
                    std::fs::read(path).with_context(|| format!("file {}", path.display()))?;
                Ok(Some(payload))
            }
            None if self.empty => Ok(Some(Vec::new())),
            None => Ok(None),
        }
    }
}

/// Reads on a thread of its own, since reading blocks while pings and acknowledgements go on. The channel bounds how far it is ahead;
/// the thread ends with the input or the process.
fn read_lines(messages: SyncSender<anyhow::Result<Vec<u8>>>, waker: std::sync::Arc<mio::Waker>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.context("standard input").map(|mut line| {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                line
            });
            let failed = line.is_err();
            if messages.send(line).is_err() || waker.wake().is_err() || failed {
                return;
            }
        }
        drop(messages);
        // If that fails, the connection is gone, and nobody waits.
        let _ = waker.wake();
    });
}

impl MessageProperties {
    fn encode(&self, is_v5: bool) -> anyhow::Result<PropertiesBuf> {
        let mut properties = PropertiesBuf::new();
        let texts = [
            &self.content_type,
            &self.response_topic,
            &self.correlation_data,
        ];
        let pairs = self.user.iter().flat_map(|(name, value)| [name, value]);
        for text in texts.into_iter().flatten().chain(pairs) {
            anyhow::ensure!(
                text.len() <= usize::from(u16::MAX) && !text.contains('\0'),
                "a property is at most 65535 bytes long and has no U+0000"
            );
        }
        if let Some(topic) = &self.response_topic {
            campanile_mqtt::topic::validate_name(topic)
                .map_err(|error| anyhow::anyhow!("response topic {topic:?}: {error}"))?;
        }
        if self.utf8 {
            properties.push(Property::PayloadFormat(true));
        }
        if let Some(seconds) = self.message_expiry {
            properties.push(Property::MessageExpiry(seconds));
        }
        if let Some(content_type) = &self.content_type {
            properties.push(Property::ContentType(content_type));
        }
        if let Some(topic) = &self.response_topic {
            properties.push(Property::ResponseTopic(topic));
        }
        if let Some(data) = &self.correlation_data {
            properties.push(Property::CorrelationData(data.as_bytes()));
        }
        for (name, value) in &self.user {
            properties.push(Property::UserProperty((name, value)));
        }
        anyhow::ensure!(
            is_v5 || properties.is_empty(),
            "message properties need MQTT 5: leave out --mqtt-version"
        );
        Ok(properties)
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::mqtt_connection::tests::{Broker, Step::*};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PubArgs,
    }

    fn publish(broker: &Broker, more: &[&str]) -> anyhow::Result<ExitCode> {
        let url = broker.url();
        let arguments = ["pub", "--url", &url]
            .into_iter()
            .chain(more.iter().copied());
        run(Cli::try_parse_from(arguments)?.args)
    }

    #[test]
    fn message_is_published_and_its_acknowledgement_awaited() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 00 00 00"),
            Reads("32 0e 00 01 61 00 01 07 26 00 01 6b 00 01 76 6d"),
            Writes("40 02 00 01"),
            Reads("e0 00"),
        ]);
        let more = ["-t", "a", "-m", "m", "-q", "1", "--user-property", "k=v"];
        assert_eq!(publish(&broker, &more).unwrap(), ExitCode::SUCCESS);
        broker.join();
    }

    #[test]
    fn refused_message_is_a_failure() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 03 00 00 00"),
            Reads("34 06 00 01 61 00 01 00"),
            Writes("50 03 00 01 87"),
            Reads("e0 00"),
        ]);
        let code = publish(&broker, &["-t", "a", "-n", "-q", "2"]).unwrap();
        assert_eq!(code, ExitCode::FAILURE);
        broker.join();
    }

    #[test]
    fn refused_connection_says_why() {
        for (version, connack) in [("5", "20 03 00 87 00"), ("3.1.1", "20 02 00 05")] {
            let broker = Broker::start([Reads("10"), Writes(connack)]);
            let error = publish(&broker, &["-V", version, "-t", "a", "-m", "m"]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the broker refused the connection: Not authorized (0x87)"
            );
            broker.join();
        }
    }

    #[test]
    fn connection_lost_before_the_acknowledgement_is_an_error() {
        let broker = Broker::start([
            Reads("10"),
            Writes("20 02 00 00"),
            Reads("32 06 00 01 61 00 01 6d"),
        ]);
        let more = ["-V", "3.1.1", "-t", "a", "-m", "m", "-q", "1"];
        let error = publish(&broker, &more).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        broker.join();
    }

    #[test]
    fn scram_proves_the_password_without_sending_it() {
        let broker = Broker::start([
            ReadsText("SCRAM-SHA-256"),
            ScramChallenge,
            ReadsText("p="),
            ScramOutcome("pencil"),
            Reads("30 05 00 01 61 00 6d"),
            Reads("e0 00"),
        ]);
        let more = [
            "-t",
            "a",
            "-m",
            "m",
            "-u",
            "user",
            "-P",
            "pencil",
            "--auth",
            "scram-sha-256",
        ];
        assert_eq!(publish(&broker, &more).unwrap(), ExitCode::SUCCESS);
        broker.join();
    }

    #[test]
    fn server_that_does_not_know_the_password_is_not_trusted() {
        let broker = Broker::start([
            ReadsText("SCRAM-SHA-256"),
            ScramChallenge,
            ReadsText("p="),
            ScramOutcome("other"),
        ]);
        let more = [
            "-t",
            "a",
            "-m",
            "m",
            "-u",
            "user",
            "-P",
            "pencil",
            "--auth",
            "scram-sha-256",
        ];
        assert!(publish(&broker, &more).is_err());
        broker.join();
    }

    #[test]
    fn arguments_exclude_each_other() {
        for more in [
            vec!["pub", "-t", "a"],
            vec!["pub", "-t", "a", "-m", "x", "-l"],
            vec!["pub", "-m", "x"],
            vec!["pub", "-t", "a", "-m", "x", "-q", "3"],
        ] {
            assert!(Cli::try_parse_from(&more).is_err(), "{more:?}");
        }
    }
}
