//! One application message, written for many receivers.
//!
//! [`Outgoing`] is what all receivers get, [`Head`] what differs. Nothing is written that neither the publisher nor the
//! subscription set.

use crate::{PacketId, QoS, Version, wire};

/// A message on its way out, the same for every receiver.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// Application message, any bytes.
    pub payload: &'a [u8],
    /// From [`crate::Properties::write_forwardable`]; checked properties in wire form.
    pub forwarded: &'a [u8],
    /// Seconds that the message has left, if it ever expires.
    pub message_expiry: Option<u32>,
}

/// What differs from receiver to receiver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// Whether this is a re-delivery; only with QoS above 0.
    pub dup: bool,
    /// Quality of service of this delivery.
    pub qos: QoS,
    /// Retain flag of this delivery.
    pub retain: bool,
    /// Present exactly when `qos` is not 0.
    pub packet_id: Option<PacketId>,
    /// The topic alias on this connection, and whether the topic is sent with it. Ignored before 5.0.
    pub alias: Option<(u16, bool)>,
    /// Identifiers of the matching subscriptions, each 1..=268435455. Ignored before 5.0.
    pub subscription_ids: &'a [u32],
}

/// Appends the PUBLISH.
///
/// Panics if the topic is longer than 65535 bytes or the packet longer than MQTT can say, 268435460 bytes; check with
/// [`encoded_len`] against the limit of the receiver first.
pub fn encode(message: &Outgoing<'_>, head: &Head<'_>, version: Version, out: &mut Vec<u8>) {
    let lengths = Lengths::of(message, head, version);
    out.reserve(lengths.total());
    lengths.write_head(message, head, version, out);
    out.extend_from_slice(message.payload);
}

/// Appends all of the PUBLISH before its payload, for a vectored write that brings the payload from elsewhere. Limits as [`encode`].
pub fn encode_head(message: &Outgoing<'_>, head: &Head<'_>, version: Version, out: &mut Vec<u8>) {
    Lengths::of(message, head, version).write_head(message, head, version, out);
}

/// The bytes that [`encode`] appends.
pub fn encoded_len(message: &Outgoing<'_>, head: &Head<'_>, version: Version) -> usize {
    Lengths::of(message, head, version).total()
}

struct Lengths {
    remaining: usize,
    properties: usize,
}

impl Lengths {
    #[inline]
    fn of(message: &Outgoing<'_>, head: &Head<'_>, version: Version) -> Lengths {
        let topic = sent_topic(message, head, version).len();
        let packet_id = if head.packet_id.is_some() { 2 } else { 0 };
        let mut remaining = 2 + topic + packet_id + message.payload.len();
        let mut properties = 0;
        if version.is_v5() {
            properties = message.forwarded.len();
            if message.message_expiry.is_some() {
                properties += 5;
            }
            if head.alias.is_some() {
                properties += 3;
            }
            for &id in head.subscription_ids {
                properties += 1 + wire::variable_len(id);
            }
            remaining += variable_len(properties) + properties;
        }
        Lengths {
            remaining,
            properties,
        }
    }

    fn total(&self) -> usize {
        1 + variable_len(self.remaining) + self.remaining
    }

    #[inline]
    fn write_head(
        &self,
        message: &Outgoing<'_>,
        head: &Head<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) {
        debug_assert_eq!(
            head.packet_id.is_some(),
            head.qos != QoS::AtMostOnce,
            "packet id and QoS [MQTT-2.2.1-2]"
        );
        debug_assert!(
            !head.dup || head.qos != QoS::AtMostOnce,
            "DUP and QoS 0 [MQTT-3.3.1-2]"
        );
        out.push(0x30 | u8::from(head.dup) << 3 | (head.qos as u8) << 1 | u8::from(head.retain));
        write_variable(self.remaining, out);
        wire::write_bytes(sent_topic(message, head, version).as_bytes(), out);
        if let Some(id) = head.packet_id {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        if version.is_v5() {
            self.write_properties(message, head, out);
        }
    }

    #[inline]
    fn write_properties(&self, message: &Outgoing<'_>, head: &Head<'_>, out: &mut Vec<u8>) {
        use crate::property::id;
        write_variable(self.properties, out);
        if let Some(seconds) = message.message_expiry {
            out.push(id::MessageExpiry);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        if let Some((alias, _)) = head.alias {
            let [high, low] = alias.to_be_bytes();
            out.extend_from_slice(&[id::TopicAlias, high, low]);
        }
        for &subscription in head.subscription_ids {
            out.push(id::SubscriptionId);
            wire::write_variable(subscription, out);
        }
        out.extend_from_slice(message.forwarded);
    }
}

fn sent_topic<'a>(message: &Outgoing<'a>, head: &Head<'_>, version: Version) -> &'a str {
    match head.alias {
        Some((_, false)) if version.is_v5() => "",
        _ => message.topic,
    }
}

fn variable_len(len: usize) -> usize {
    wire::variable_len(u32::try_from(len).unwrap_or(u32::MAX))
}

fn write_variable(len: usize, out: &mut Vec<u8>) {
    wire::write_variable(u32::try_from(len).unwrap_or(u32::MAX), out);
}
