//! What `pub` and `sub` need to know to connect.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::Context;
use campanile_mqtt::client::{Authentication, Options, WillMessage};
use campanile_mqtt::{PropertiesBuf, Property, QoS, Version};

use super::super::scram_client;

/// Where to connect, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// The broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS; without a port, 1883 or 8883.
    #[arg(
        long,
        env = "CAMPANILE_MQTT_URL",
        default_value = "mqtt://127.0.0.1:1883"
    )]
    pub url: Url,

    /// Client identifier. Left out, the broker assigns one; a stored session needs one.
    #[arg(short = 'i', long)]
    pub client_id: Option<String>,

    /// User name.
    #[arg(short, long, env = "CAMPANILE_MQTT_USERNAME")]
    pub username: Option<String>,

    /// Password or token. Other users of this machine can see arguments: prefer the variable or --password-file.
    #[arg(
        short = 'P',
        long,
        env = "CAMPANILE_MQTT_PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<Secret>,

    /// File with the password in its first line.
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,

    /// Proves the password without sending it (MQTT 5).
    #[arg(long, value_enum, requires = "username")]
    pub auth: Option<AuthMethod>,

    /// MQTT version.
    #[arg(
        short = 'V',
        long = "mqtt-version",
        value_enum,
        default_value = "5",
        value_name = "VERSION"
    )]
    pub version: MqttVersion,

    /// Seconds of silence before a ping; 0 for never.
    #[arg(short, long, default_value_t = 60, value_name = "SECONDS")]
    pub keep_alive: u16,

    /// Seconds to wait for the broker to accept the connection, and for each answer to a ping.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,

    /// PEM file with the authorities that may have signed the broker's certificate, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// PEM file with this client's certificate.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// PEM file with the private key of --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Topic of a message that the broker publishes if this client vanishes.
    #[arg(long, value_name = "TOPIC")]
    pub will_topic: Option<String>,

    /// Its payload.
    #[arg(long, value_name = "TEXT", requires = "will_topic")]
    pub will_message: Option<String>,

    /// Its quality of service.
    #[arg(long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    pub will_qos: QoS,

    /// Keep it for later subscribers.
    #[arg(long, requires = "will_topic")]
    pub will_retain: bool,

    /// Seconds between the loss of the connection and its publication (MQTT 5).
    #[arg(long, value_name = "SECONDS", requires = "will_topic")]
    pub will_delay: Option<u32>,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `mqtts`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Methods of enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMethod {
    /// RFC 7677.
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

/// Versions by the names that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MqttVersion {
    /// MQTT 3.1.
    #[value(name = "3.1")]
    V31,
    /// MQTT 3.1.1.
    #[value(name = "3.1.1", alias = "3", alias = "4")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5", alias = "5.0")]
    V5,
}

impl ConnectArgs {
    /// Options of the client, and the beginning of a SCRAM exchange if there is to be one.
    pub fn options(&self) -> anyhow::Result<(Options, Option<scram_client::ClientFirst>)> {
        let version = self.version();
        let password = self.read_password()?;
        let mut options = Options {
            version,
            client_id: self.client_id.clone().unwrap_or_default(),
            keep_alive: self.keep_alive,
            username: self.username.clone(),
            password: password.clone().map(String::into_bytes),
            will: self.will(),
            response_timeout_ms: self.timeout * 1000,
            maximum_packet_size: 268_435_460,
            ..Options::default()
        };
        if version == Version::V31 && options.client_id.is_empty() {
            // 3.1 has no assigned client identifiers, and at most 23 characters.
            options.client_id = format!("campanile-{}", &random_hex()?[..12]);
        }
        let mut scram = None;
        if let Some(AuthMethod::ScramSha256) = self.auth {
            let username = options.username.as_deref().unwrap_or_default();
            let password = password.context("--auth scram-sha-256 needs a password")?;
            let first = scram_client::ClientFirst::new(username, &password, &random_hex()?);
            options.password = None;
            options.authentication = Some(Authentication {
                method: scram_client::METHOD.to_owned(),
                data: Some(first.message().into_bytes()),
            });
            scram = Some(first);
        }
        Ok((options, scram))
    }

    /// The protocol version.
    pub fn version(&self) -> Version {
        match self.version {
            MqttVersion::V31 => Version::V31,
            MqttVersion::V311 => Version::V311,
            MqttVersion::V5 => Version::V5,
        }
    }

    fn read_password(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.password_file else {
            return Ok(self.password.as_ref().map(|Secret(text)| text.clone()));
        };
        let content = std::fs::read_to_string(path)
            .with_context(|| format!("password file {}", path.display()))?;
        Ok(Some(content.lines().next().unwrap_or_default().to_owned()))
    }

    fn will(&self) -> Option<WillMessage> {
        let delay = self.will_delay.map(Property::WillDelay);
        Some(WillMessage {
            topic: self.will_topic.clone()?,
            payload: self.will_message.clone().unwrap_or_default().into_bytes(),
            qos: self.will_qos,
            retain: self.will_retain,
            properties: delay.into_iter().collect::<PropertiesBuf>(),
        })
    }
}

/// 32 random hexadecimal digits.
pub fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("no random numbers from the system")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads 0, 1 or 2.
pub fn parse_qos(text: &str) -> Result<QoS, String> {
    let number: Option<u8> = text.parse().ok();
    number
        .and_then(QoS::from_bits)
        .ok_or_else(|| "quality of service is 0, 1 or 2".to_owned())
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("mqtts://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("mqtt://") {
            (false, rest)
        } else {
            return Err("write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS".to_owned());
        };
        if rest.contains('@') {
            return Err("give user and password with --username and --password".to_owned());
        }
        let default_port = if tls { 8883 } else { 1883 };
        let (host, port) = split_host(rest.trim_end_matches('/'), default_port)?;
        Ok(Url { tls, host, port })
    }
}

impl Url {
    /// The same kind of connection to a server reference of MQTT 5.0, `host[:port]`; of several the first.
    pub fn moved_to(&self, reference: &str) -> Option<Url> {
        let first = reference.split_whitespace().next()?;
        let (host, port) = split_host(first, self.port).ok()?;
        Some(Url {
            tls: self.tls,
            host,
            port,
        })
    }
}

/// Splits `host:port`, `[v6]:port` or `host`.
fn split_host(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest
                .split_once(']')
                .ok_or("\"]\" is missing after the address")?;
            (host, after.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("port {port:?}: must be 1..=65535")),
            Ok(port) => port,
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for (text, shown) in [
            ("mqtt://localhost", "mqtt://localhost:1883"),
            ("mqtts://b.example/", "mqtts://b.example:8883"),
            ("mqtt://[::1]:7", "mqtt://[::1]:7"),
            ("mqtts://10.0.0.1:99", "mqtts://10.0.0.1:99"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "localhost",
            "http://a",
            "mqtt://",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://u:p@a",
            "mqtt://[::1",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_moved_server_keeps_the_scheme() {
        let url: Url = "mqtts://a:99".parse().unwrap();
        let moved = |reference| url.moved_to(reference).map(|url| url.to_string());
        assert_eq!(moved("b:7 c:8").as_deref(), Some("mqtts://b:7"));
        assert_eq!(moved("b").as_deref(), Some("mqtts://b:99"));
        assert_eq!(moved(""), None);
    }
}
