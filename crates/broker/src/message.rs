//! An application message, shared by all who are to get it.

use bytes::Bytes;
use campanile_mqtt::QoS;
use std::sync::Arc;

use crate::ids::{MessageId, Millis};

/// What a message is, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Published by an MQTT client, or by the broker for one (a will).
    Publish,
    /// Pushed through the API; goes to `push/in` of its devices, and their acknowledgements are receipts.
    Push,
}

/// An application message. Immutable; topic, properties and payload share one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Stable identity; of a push, the push's id.
    pub id: MessageId,
    /// Published by a client or pushed through the API.
    pub kind: Kind,
    /// As published. A receiver gets at most this and what its subscription grants.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// After this time nobody is sent it any more.
    pub expires_at: Option<Millis>,
    /// The client that published it, for No Local; `None` for pushes and `$SYS`.
    pub publisher: Option<Arc<str>>,
    /// Of a push: whom it is for, in a language that only [`Audiences`](crate::audience::Audiences) knows. `None`: everybody who gets it.
    pub audience: Option<Bytes>,
    topic_bytes: u32,
    property_bytes: u32,
    bytes: Box<[u8]>,
}

impl Message {
    /// A message of a valid topic name, forwardable properties in wire form, and a payload.
    ///
    /// Quality of service 0, not retained, without expiry, publisher and audience: set the fields.
    pub fn new(
        id: MessageId,
        kind: Kind,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> Message {
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        Message {
            id,
            kind,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            publisher: None,
            audience: None,
            topic_bytes: topic.len() as u32,
            property_bytes: properties.len() as u32,
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.topic_bytes as usize]).expect("made from a &str")
    }

    /// The properties that travel with it, in wire form: what [`campanile_mqtt::publish::Outgoing`] calls `forwarded`.
    pub fn properties(&self) -> &[u8] {
        &self.bytes[self.topic_bytes as usize..][..self.property_bytes as usize]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.topic_bytes as usize + self.property_bytes as usize..]
    }

    /// Bytes of topic, properties, payload and audience; what quotas count.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.audience.as_ref().map_or(0, Bytes::len)
    }

    /// Whether its time has run out.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Seconds left, rounded up, for the Message Expiry Interval of a copy sent now.
    pub fn seconds_left(&self, now: Millis) -> Option<u32> {
        self.expires_at
            .map(|at| u32::try_from(at.since(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Message({} {:?} {:?} {} B)",
            self.id,
            self.topic(),
            self.qos,
            self.payload().len()
        )
    }
}
