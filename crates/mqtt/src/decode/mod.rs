//! Reading packets: strict, without copying, without allocating unless it fails.
//!
//! Both ends' packets are read. What depends on who sent a packet, or on what came before it, is for the caller to refuse.

mod acks;
mod connect;
mod error;
mod properties;
mod publish;
mod reader;
mod subscribe;

pub use error::DecodeError;
pub(crate) use properties::check_properties;

use reader::Reader;

use crate::{Connect, Packet, Reason, Version, wire};

/// Where the next packet in a byte stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The input ends within the packet.
    NeedMore {
        /// The input must grow to at least this many bytes to be worth another look: the packet's length once that is known.
        at_least: usize,
    },
    /// The whole packet is there.
    Packet {
        /// Packet type and flags.
        first_byte: u8,
        /// Bytes of the fixed header, 2..=5.
        header_len: usize,
        /// Bytes of the packet with its fixed header.
        total_len: usize,
    },
}

/// Finds the packet that `input` begins with, of at most `max_packet_bytes` with its fixed header.
///
/// Looks at the fixed header only: a packet that is too large is refused before its body arrived.
#[inline]
pub fn split(input: &[u8], max_packet_bytes: u32) -> Result<Split, DecodeError> {
    let [first_byte, after @ ..] = input else {
        return Ok(Split::NeedMore { at_least: 2 });
    };
    let Some((remaining, len)) = wire::read_variable(after) else {
        return if after.len() < 4 {
            Ok(Split::NeedMore {
                at_least: input.len() + 1,
            })
        } else {
            Err(DecodeError::malformed(
                "remaining length",
                "must be at most four bytes long, section 2.1.4",
            ))
        };
    };
    let header_len = 1 + len;
    let total_len = header_len + remaining as usize;
    if total_len > max_packet_bytes as usize {
        let rule = "must not be larger than the maximum that the receiver set [MQTT-3.1.2-24] [MQTT-3.2.2-15]";
        return Err(
            DecodeError::new(Reason::PacketTooLarge, "packet", rule).number(total_len as u32)
        );
    }
    if input.len() < total_len {
        return Ok(Split::NeedMore {
            at_least: total_len,
        });
    }
    Ok(Split::Packet {
        first_byte: *first_byte,
        header_len,
        total_len,
    })
}

impl<'a> Packet<'a> {
    /// Reads one whole packet, which [`split`] found.
    ///
    /// `version` is that of the connection; a CONNECT brings its own. Whether the packet may come from this end, and now, is
    /// not checked.
    pub fn decode(frame: &'a [u8], version: Version) -> Result<Packet<'a>, DecodeError> {
        let (first_byte, mut body, minimal) = open(frame)?;
        if !minimal && version.is_v5() && first_byte >> 4 != 1 {
            return Err(DecodeError::long_length());
        }
        let flags = first_byte & 0x0F;
        let reader = &mut body;
        let packet = match first_byte >> 4 {
            1 => Packet::Connect(connect::connect(flags, reader, minimal)?),
            2 => Packet::ConnAck(connect::connack(flags, reader, version)?),
            3 => return publish::publish(flags, body, version).map(Packet::Publish),
            4 => Packet::PubAck(acks::ack(acks::PUBACK, flags, reader, version)?),
            5 => Packet::PubRec(acks::ack(acks::PUBREC, flags, reader, version)?),
            6 => Packet::PubRel(acks::ack(acks::PUBREL, flags, reader, version)?),
            7 => Packet::PubComp(acks::ack(acks::PUBCOMP, flags, reader, version)?),
            8 => Packet::Subscribe(subscribe::subscribe(flags, reader, version)?),
            9 => Packet::SubAck(subscribe::suback(flags, reader, version)?),
            10 => Packet::Unsubscribe(subscribe::unsubscribe(flags, reader, version)?),
            11 => Packet::UnsubAck(subscribe::unsuback(flags, reader, version)?),
            12 => acks::ping(flags).map(|()| Packet::PingReq)?,
            13 => acks::ping(flags).map(|()| Packet::PingResp)?,
            14 => Packet::Disconnect(acks::disconnect(flags, reader, version)?),
            15 if version.is_v5() => Packet::Auth(acks::auth(flags, reader)?),
            other => {
                let rule = "is reserved in this version, section 2.1.2";
                return Err(DecodeError::malformed("packet type", rule).number(other.into()));
            }
        };
        reader.finish()?;
        Ok(packet)
    }
}

impl Connect<'_> {
    /// The version that a CONNECT packet asks for, even if the rest of it is malformed: the one to refuse it in.
    pub fn peek_version(frame: &[u8]) -> Option<Version> {
        let (first_byte, mut body, _) = open(frame).ok()?;
        if first_byte >> 4 != 1 {
            return None;
        }
        connect::version(&mut body).ok()
    }
}

/// Splits a whole packet into first byte and body; whether the remaining length took the fewest bytes.
#[inline]
fn open(frame: &[u8]) -> Result<(u8, Reader<'_>, bool), DecodeError> {
    let broken = || {
        DecodeError::malformed(
            "remaining length",
            "must be the number of bytes that follow, section 2.1.4",
        )
    };
    let (&first_byte, after) = frame.split_first().ok_or_else(broken)?;
    let (remaining, len) = wire::read_variable(after).ok_or_else(broken)?;
    let body = &after[len..];
    if body.len() != remaining as usize {
        return Err(broken());
    }
    Ok((
        first_byte,
        Reader::new(body),
        len == wire::variable_len(remaining),
    ))
}
