//! Writing packets.
//!
//! Packets are written as they are; the rules that the decoder checks are the caller's duty here. Values that do not fit
//! their length fields are broken invariants and panic.

use crate::publish::{Head, Outgoing};
use crate::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, Publish, Reason, SubAck,
    Subscribe, SubscribeFilters, UnsubAck, Unsubscribe, Version, publish, wire,
};

/// The four packets that acknowledge a PUBLISH, by their first byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum AckKind {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

/// Appends an acknowledgement without properties; before 5.0 without reason too.
#[inline]
pub fn encode_ack(
    out: &mut Vec<u8>,
    version: Version,
    kind: AckKind,
    packet_id: PacketId,
    reason: Reason,
) {
    let [high, low] = packet_id.get().to_be_bytes();
    if version.is_v5() && reason != Reason::Success {
        out.extend_from_slice(&[kind as u8, 3, high, low, reason.code()]);
    } else {
        out.extend_from_slice(&[kind as u8, 2, high, low]);
    }
}

/// Appends a PINGRESP.
#[inline]
pub fn encode_ping_resp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

impl Packet<'_> {
    /// Appends the packet in its shortest form. A CONNECT is written in its own version.
    ///
    /// What the version cannot say is left out: properties, reasons, subscription options but QoS. An AUTH before 5.0 is nothing.
    ///
    /// Panics if a string or binary value is longer than 65535 bytes, or the packet longer than 268435460.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(connect) => frame(0x10, out, |out| write_connect(connect, out)),
            Packet::ConnAck(connack) => {
                frame(0x20, out, |out| write_connack(connack, version, out))
            }
            Packet::Publish(publish) => write_publish(publish, version, out),
            Packet::PubAck(ack) => write_ack(ack, AckKind::PubAck, version, out),
            Packet::PubRec(ack) => write_ack(ack, AckKind::PubRec, version, out),
            Packet::PubRel(ack) => write_ack(ack, AckKind::PubRel, version, out),
            Packet::PubComp(ack) => write_ack(ack, AckKind::PubComp, version, out),
            Packet::Subscribe(subscribe) => {
                frame(0x82, out, |out| write_subscribe(subscribe, version, out))
            }
            Packet::SubAck(suback) => frame(0x90, out, |out| write_suback(suback, version, out)),
            Packet::Unsubscribe(unsubscribe) => frame(0xA2, out, |out| {
                write_unsubscribe(unsubscribe, version, out)
            }),
            Packet::UnsubAck(unsuback) => {
                frame(0xB0, out, |out| write_unsuback(unsuback, version, out))
            }
            Packet::PingReq => out.extend_from_slice(&[0xC0, 0]),
            Packet::PingResp => encode_ping_resp(out),
            Packet::Disconnect(Disconnect { reason, properties }) => {
                frame(0xE0, out, |out| {
                    write_tail(*reason, *properties, version, out)
                });
            }
            Packet::Auth(Auth { reason, properties }) if version.is_v5() => {
                frame(0xF0, out, |out| {
                    write_tail(*reason, *properties, version, out)
                });
            }
            Packet::Auth(_) => debug_assert!(false, "AUTH before 5.0"),
        }
    }
}

/// Appends first byte, remaining length and what `body` writes.
fn frame(first_byte: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    // Most bodies are short, so one byte is left for the length; a longer one is moved to make room.
    out.extend_from_slice(&[first_byte, 0]);
    let start = out.len();
    body(out);
    let remaining = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    let extra = wire::variable_len(remaining) - 1;
    if extra == 0 {
        out[start - 1] = remaining as u8;
        return;
    }
    wire::write_variable(remaining, out);
    out[start..].rotate_right(extra + 1);
    // Now placeholder and length stand together; the length moves over the placeholder.
    out.remove(start - 1);
}

fn write_properties(properties: Properties<'_>, out: &mut Vec<u8>) {
    wire::write_variable(
        u32::try_from(properties.as_bytes().len()).unwrap_or(u32::MAX),
        out,
    );
    out.extend_from_slice(properties.as_bytes());
}

fn write_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let version = connect.version;
    wire::write_bytes(
        if version == Version::V31 {
            b"MQIsdp"
        } else {
            b"MQTT"
        },
        out,
    );
    let mut flags = u8::from(connect.clean_start) << 1
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.username.is_some()) << 7;
    if let Some(will) = &connect.will {
        flags |= 0b100 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    out.extend_from_slice(&[version as u8, flags]);
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    if version.is_v5() {
        write_properties(connect.properties, out);
    }
    wire::write_bytes(connect.client_id.as_bytes(), out);
    if let Some(will) = &connect.will {
        if version.is_v5() {
            write_properties(will.properties, out);
        }
        wire::write_bytes(will.topic.as_bytes(), out);
        wire::write_bytes(will.payload, out);
    }
    if let Some(username) = connect.username {
        wire::write_bytes(username.as_bytes(), out);
    }
    if let Some(password) = connect.password {
        wire::write_bytes(password, out);
    }
}

fn write_connack(connack: &ConnAck<'_>, version: Version, out: &mut Vec<u8>) {
    out.push((connack.session_present && version != Version::V31).into());
    if version.is_v5() {
        out.push(connack.reason.code());
        write_properties(connack.properties, out);
    } else {
        out.push(connack.reason.connect_return_code());
    }
}

fn write_publish(packet: &Publish<'_>, version: Version, out: &mut Vec<u8>) {
    let message = Outgoing {
        topic: packet.topic,
        payload: packet.payload,
        // All of them as they are: unlike a server, a packet forwards nothing.
        forwarded: packet.properties.as_bytes(),
        message_expiry: None,
    };
    let head = Head {
        dup: packet.dup,
        qos: packet.qos,
        retain: packet.retain,
        packet_id: packet.packet_id,
        alias: None,
        subscription_ids: &[],
    };
    publish::encode(&message, &head, version, out);
}

fn write_ack(ack: &Ack<'_>, kind: AckKind, version: Version, out: &mut Vec<u8>) {
    if ack.properties.is_empty() || !version.is_v5() {
        return encode_ack(out, version, kind, ack.packet_id, ack.reason);
    }
    frame(kind as u8, out, |out| {
        out.extend_from_slice(&ack.packet_id.get().to_be_bytes());
        write_tail(ack.reason, ack.properties, version, out);
    });
}

/// Reason and properties, with nothing at the end that can be left out.
fn write_tail(reason: Reason, properties: Properties<'_>, version: Version, out: &mut Vec<u8>) {
    if !version.is_v5() || reason == Reason::Success && properties.is_empty() {
        return;
    }
    out.push(reason.code());
    if !properties.is_empty() {
        write_properties(properties, out);
    }
}

fn write_subscribe(subscribe: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&subscribe.packet_id.get().to_be_bytes());
    if version.is_v5() {
        write_properties(subscribe.properties, out);
        out.extend_from_slice(subscribe.filters.as_bytes());
        return;
    }
    for (filter, options) in subscribe.filters.iter() {
        SubscribeFilters::write(
            filter,
            crate::SubscriptionOptions {
                qos: options.qos,
                ..Default::default()
            },
            out,
        );
    }
}

fn write_suback(suback: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&suback.packet_id.get().to_be_bytes());
    if version.is_v5() {
        write_properties(suback.properties, out);
        out.extend_from_slice(suback.codes);
    } else {
        out.extend(
            suback
                .codes
                .iter()
                .map(|&code| code.min(Reason::UnspecifiedError.code())),
        );
    }
}

fn write_unsubscribe(unsubscribe: &Unsubscribe<'_>, version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&unsubscribe.packet_id.get().to_be_bytes());
    if version.is_v5() {
        write_properties(unsubscribe.properties, out);
    }
    out.extend_from_slice(unsubscribe.filters.as_bytes());
}

fn write_unsuback(unsuback: &UnsubAck<'_>, version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&unsuback.packet_id.get().to_be_bytes());
    if version.is_v5() {
        write_properties(unsuback.properties, out);
        out.extend_from_slice(unsuback.codes);
    }
}
