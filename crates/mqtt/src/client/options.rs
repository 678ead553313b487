//! What a client is, and what it asks of a server.

use super::RequestError;
use crate::{PropertiesBuf, Property, QoS, Version, Will, topic};

/// The largest packet that MQTT can say.
pub(super) const LARGEST_PACKET_BYTES: u32 = 268_435_460;

/// What a client says in CONNECT, and its own bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Default 5.0.
    pub version: Version,
    /// Client identifier; empty asks the server for one, which 3.1 does not know and 3.1.1 only with a clean start.
    pub client_id: String,
    /// Seconds between packets; 0 switches pings off. Default 60.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<String>,
    /// Password or token; before 5.0 only with a user name.
    pub password: Option<Vec<u8>>,
    /// What the server publishes when the connection ends badly.
    pub will: Option<WillMessage>,
    /// Seconds that the session outlives the connection; `u32::MAX` for ever. Before 5.0 a session ends with its connection if that had a clean start,
    /// and else never. Default 0.
    pub session_expiry: u32,
    /// QoS 1 and 2 messages that the server may have under way, 1..=65535, enforced in 5.0. Default 64.
    pub receive_maximum: u16,
    /// Bytes of a packet that the server may send, up to 268435460. Default 1 MiB.
    pub maximum_packet_size: u32,
    /// Topic aliases that the server may use. Default 16.
    pub topic_alias_maximum: u16,
    /// Topic aliases to use where the server allows that many. Default 16.
    pub topic_aliases_out: u16,
    /// Further properties of CONNECT: user properties, request of response or problem information.
    pub properties: PropertiesBuf,
    /// Enhanced authentication, 5.0 only.
    pub authentication: Option<Authentication>,
    /// Whether an earlier process had a session, so that the server may still have it although this client knows no details. Default false.
    pub has_session: bool,
    /// QoS 1 and 2 messages of this client under way; the smaller of this and the server's receive maximum holds. Default 64.
    pub send_window: u16,
    /// Bytes that may wait to be written before requests are refused as [`RequestError::Busy`]. Default 1 MiB.
    pub maximum_output_bytes: usize,
    /// How long CONNACK and PINGRESP may take. Default 20 s.
    pub response_timeout_ms: u64,
}

/// A will, as in CONNECT.
#[derive(Clone, Debug, Default)]
pub struct WillMessage {
    /// A valid topic name.
    pub topic: String,
    /// Any bytes, up to 65535.
    pub payload: Vec<u8>,
    /// It is published with.
    pub qos: QoS,
    /// Whether it becomes the retained message of its topic.
    pub retain: bool,
    /// Will properties.
    pub properties: PropertiesBuf,
}

/// How enhanced authentication begins. MQTT 5.0 section 4.12.
#[derive(Clone)]
pub struct Authentication {
    /// Such as `SCRAM-SHA-256`.
    pub method: String,
    /// What the client says first, if anything.
    pub data: Option<Vec<u8>>,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authentication({:?})", self.method)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            version: Version::V5,
            client_id: String::new(),
            keep_alive: 60,
            username: None,
            password: None,
            will: None,
            session_expiry: 0,
            receive_maximum: 64,
            maximum_packet_size: 1 << 20,
            topic_alias_maximum: 16,
            topic_aliases_out: 16,
            properties: PropertiesBuf::new(),
            authentication: None,
            has_session: false,
            send_window: 64,
            maximum_output_bytes: 1 << 20,
            response_timeout_ms: 20_000,
        }
    }
}

impl Options {
    /// Checks the rules of CONNECT that concern a client.
    pub(super) fn check(&self, clean_start: bool) -> Result<(), RequestError> {
        let invalid = RequestError::invalid;
        check_text("client identifier", &self.client_id)?;
        if self.client_id.is_empty() && !self.version.is_v5() {
            if self.version == Version::V31 {
                return Err(invalid(
                    "client identifier",
                    "",
                    "must have 1 to 23 characters in MQTT 3.1",
                ));
            }
            if !clean_start {
                return Err(invalid(
                    "client identifier",
                    "",
                    "needs a clean session if it is empty [MQTT-3.1.3-7]",
                ));
            }
        }
        if let Some(username) = &self.username {
            check_text("user name", username)?;
        }
        if let Some(password) = &self.password {
            check_length("password", password)?;
            if self.username.is_none() && !self.version.is_v5() {
                return Err(invalid(
                    "password",
                    "",
                    "needs a user name before MQTT 5.0 [MQTT-3.1.2-22]",
                ));
            }
        }
        if let Some(will) = &self.will {
            topic::validate_name(&will.topic)
                .map_err(|error| invalid("will topic", &will.topic, error.rule()))?;
            check_length("will payload", &will.payload)?;
        }
        if let Some(authentication) = &self.authentication {
            if !self.version.is_v5() {
                return Err(invalid(
                    "authentication method",
                    &authentication.method,
                    "needs MQTT 5.0",
                ));
            }
            check_text("authentication method", &authentication.method)?;
            check_length(
                "authentication data",
                authentication.data.as_deref().unwrap_or_default(),
            )?;
        }
        if self.receive_maximum == 0 {
            return Err(invalid(
                "receive maximum",
                "0",
                "must not be 0, section 3.1.2.11.3",
            ));
        }
        if self.maximum_packet_size == 0 {
            return Err(invalid(
                "maximum packet size",
                "0",
                "must not be 0, section 3.1.2.11.4",
            ));
        }
        Ok(())
    }

    /// The CONNECT properties that differ from the default that they stand for, in 5.0.
    pub(super) fn connect_properties(&self) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if !self.version.is_v5() {
            return properties;
        }
        if self.session_expiry > 0 {
            properties.push(Property::SessionExpiry(self.session_expiry));
        }
        if self.receive_maximum < u16::MAX {
            properties.push(Property::ReceiveMaximum(self.receive_maximum));
        }
        if self.maximum_packet_size < LARGEST_PACKET_BYTES {
            properties.push(Property::MaximumPacketSize(self.maximum_packet_size));
        }
        if self.topic_alias_maximum > 0 {
            properties.push(Property::TopicAliasMaximum(self.topic_alias_maximum));
        }
        properties.extend(self.properties.as_properties().iter());
        if let Some(authentication) = &self.authentication {
            properties.push(Property::AuthMethod(&authentication.method));
            if let Some(data) = &authentication.data {
                properties.push(Property::AuthData(data));
            }
        }
        properties
    }
}

impl WillMessage {
    pub(super) fn as_will(&self) -> Will<'_> {
        Will {
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.as_properties(),
            topic: &self.topic,
            payload: &self.payload,
        }
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), RequestError> {
    check_length(what, text.as_bytes())?;
    if text.contains('\0') {
        return Err(RequestError::invalid(
            what,
            text,
            "must not contain U+0000 [MQTT-1.5.4-2]",
        ));
    }
    Ok(())
}

fn check_length(what: &'static str, bytes: &[u8]) -> Result<(), RequestError> {
    if bytes.len() > usize::from(u16::MAX) {
        let rule = "must not be longer than 65535 bytes, section 1.5.4";
        return Err(RequestError::invalid(what, "", rule));
    }
    Ok(())
}
