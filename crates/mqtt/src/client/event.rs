//! What a client tells its owner.

use super::Failure;
use crate::{PacketId, PropertiesBuf, QoS, Reason};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server accepted the connection.
    Connected {
        /// Whether the session of before goes on; if not, subscribe anew.
        session_present: bool,
        /// All of CONNACK; what limits this client is in [`super::Client::limits`] too.
        properties: PropertiesBuf,
    },
    /// The server refused the connection, which is closing.
    Refused {
        /// Why; before 5.0 from its return code.
        reason: Reason,
        /// All of CONNACK.
        properties: PropertiesBuf,
    },
    /// Enhanced authentication: answer with [`super::Client::authenticate`].
    Challenge {
        /// Authentication data, as the method means it.
        data: Vec<u8>,
    },
    /// [`super::Client::reauthenticate`] succeeded.
    ReAuthenticated {
        /// Authentication data, as the method means it.
        data: Vec<u8>,
    },
    /// A message arrived. Acknowledged, if it has to be, with the next output.
    Message(Message),
    /// The exchange of a published message is over, and so is its packet identifier.
    Published {
        /// As [`super::Client::publish`] returned it.
        packet_id: PacketId,
        /// Whether the server took it; before 5.0 always [`Reason::Success`].
        reason: Reason,
        /// Of the PUBACK, PUBREC or PUBCOMP.
        properties: PropertiesBuf,
    },
    /// The server lost the session, or no longer takes such messages: whether this one arrived is not known, and it will not be sent again.
    Dropped {
        /// As [`super::Client::publish`] returned it.
        packet_id: PacketId,
    },
    /// SUBACK.
    Subscribed {
        /// As [`super::Client::subscribe`] returned it.
        packet_id: PacketId,
        /// What was granted, or why not, by filter.
        granted: Vec<Result<QoS, Reason>>,
        /// All of SUBACK.
        properties: PropertiesBuf,
    },
    /// UNSUBACK.
    Unsubscribed {
        /// As [`super::Client::unsubscribe`] returned it.
        packet_id: PacketId,
        /// By filter; before 5.0 all [`Reason::Success`].
        reasons: Vec<Reason>,
        /// All of UNSUBACK.
        properties: PropertiesBuf,
    },
    /// The server ended the connection, which is closing. 5.0 only.
    Disconnected {
        /// Why.
        reason: Reason,
        /// All of DISCONNECT.
        properties: PropertiesBuf,
    },
    /// This end gave up the connection, which is closing: the server broke a rule or did not answer.
    Failed(Failure),
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic; an alias is resolved.
    pub topic: String,
    /// Any bytes.
    pub payload: Vec<u8>,
    /// Of this delivery.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Whether it may have arrived before.
    pub dup: bool,
    /// All of PUBLISH, with subscription identifiers and alias.
    pub properties: PropertiesBuf,
}
