//! One type per control packet, for all versions. MQTT 5.0 section 3.
//!
//! Packets borrow from the bytes that they were decoded from. In versions before 5 `properties` is empty and reasons
//! are those that the packet implies.

use crate::{PacketId, Properties, QoS, Reason, Version};

/// A control packet.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The name in the standard, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Packet::Connect(_) => "CONNECT",
            Packet::ConnAck(_) => "CONNACK",
            Packet::Publish(_) => "PUBLISH",
            Packet::PubAck(_) => "PUBACK",
            Packet::PubRec(_) => "PUBREC",
            Packet::PubRel(_) => "PUBREL",
            Packet::PubComp(_) => "PUBCOMP",
            Packet::Subscribe(_) => "SUBSCRIBE",
            Packet::SubAck(_) => "SUBACK",
            Packet::Unsubscribe(_) => "UNSUBSCRIBE",
            Packet::UnsubAck(_) => "UNSUBACK",
            Packet::PingReq => "PINGREQ",
            Packet::PingResp => "PINGRESP",
            Packet::Disconnect(_) => "DISCONNECT",
            Packet::Auth(_) => "AUTH",
        }
    }
}

/// CONNECT, section 3.1.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// The version that the client asks for; it governs all packets that follow.
    pub version: Version,
    /// Clean Start (5.0) or Clean Session (before).
    pub clean_start: bool,
    /// Seconds between packets that the client promises; 0 switches the check off.
    pub keep_alive: u16,
    /// Properties of the connection.
    pub properties: Properties<'a>,
    /// Client identifier, 0..=65535 bytes; empty asks the server to assign one.
    pub client_id: &'a str,
    /// What the server publishes when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password or token; binary.
    pub password: Option<&'a [u8]>,
}

/// The will of a CONNECT, section 3.1.2.5 and 3.1.3.2.
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    /// Quality of service that it is published with.
    pub qos: QoS,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// Will properties.
    pub properties: Properties<'a>,
    /// A valid topic name.
    pub topic: &'a str,
    /// Will payload.
    pub payload: &'a [u8],
}

/// CONNACK, section 3.2.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server goes on with a stored session.
    pub session_present: bool,
    /// [`Reason::Success`] or why not; before 5.0 it travels as the nearest return code 0..=5, [`Reason::connect_return_code`].
    pub reason: Reason,
    /// What the server grants.
    pub properties: Properties<'a>,
}

/// PUBLISH, section 3.3.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Whether this is a re-delivery.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Topic name; empty in 5.0 when a topic alias stands for it.
    pub topic: &'a str,
    /// Present exactly when `qos` is not 0.
    pub packet_id: Option<PacketId>,
    /// Publish properties.
    pub properties: Properties<'a>,
    /// Application message, any bytes.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, sections 3.4 to 3.7.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Of the PUBLISH that it belongs to.
    pub packet_id: PacketId,
    /// [`Reason::Success`] before 5.0.
    pub reason: Reason,
    /// Reason string and user properties.
    pub properties: Properties<'a>,
}

/// How a subscription wants its messages, section 3.8.3.1. Before 5.0 only `qos` exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// Maximum quality of service.
    pub qos: QoS,
    /// Do not send back what this client itself published.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// What to do with retained messages at SUBSCRIBE.
    pub retain_handling: RetainHandling,
}

/// Retain Handling, section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at every SUBSCRIBE.
    #[default]
    Send = 0,
    /// Send them only if the subscription is new.
    SendIfNew = 1,
    /// Never send them.
    DoNotSend = 2,
}

/// SUBSCRIBE, section 3.8.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Answered by the SUBACK of the same identifier.
    pub packet_id: PacketId,
    /// Subscription identifier and user properties.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: SubscribeFilters<'a>,
}

/// SUBACK, section 3.9.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties.
    pub properties: Properties<'a>,
    /// One byte per filter, in order: the granted quality of service or a failure code. Before 5.0 a failure is 0x80.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE, section 3.10.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Answered by the UNSUBACK of the same identifier.
    pub packet_id: PacketId,
    /// User properties.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: UnsubscribeFilters<'a>,
}

/// UNSUBACK, section 3.11.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties.
    pub properties: Properties<'a>,
    /// One reason code per filter, in order; empty before 5.0.
    pub codes: &'a [u8],
}

/// DISCONNECT, section 3.14.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// [`Reason::NormalDisconnection`] before 5.0.
    pub reason: Reason,
    /// Session expiry interval, reason string, user properties, server reference.
    pub properties: Properties<'a>,
}

/// AUTH, section 3.15. 5.0 only.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: Reason,
    /// Method, data, reason string, user properties.
    pub properties: Properties<'a>,
}

/// The payload of a SUBSCRIBE, in its wire form, checked when it was decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubscribeFilters<'a>(pub(crate) &'a [u8]);

/// The payload of an UNSUBSCRIBE, in its wire form, checked when it was decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnsubscribeFilters<'a>(pub(crate) &'a [u8]);
