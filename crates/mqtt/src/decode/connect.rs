//! CONNECT and CONNACK.

use super::acks::{check_flags, reason};
use super::properties::{self, properties};
use super::{DecodeError, Reader};
use crate::{ConnAck, Connect, Properties, QoS, Reason, Version, Will};

/// Protocol name and level.
pub(super) fn version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = reader.text("protocol name")?;
    let level = reader.u8("protocol level")?;
    // The top bit marks the connection of a bridge between servers, by a convention outside of the standard, and is not accepted.
    match (name, level) {
        ("MQIsdp", 3) => Ok(Version::V31),
        ("MQTT", 4) => Ok(Version::V311),
        ("MQTT", 5) => Ok(Version::V5),
        ("MQTT" | "MQIsdp", _) => {
            let rule = "must be 3 (MQIsdp), 4 or 5 (MQTT) [MQTT-3.1.2-2]";
            Err(
                DecodeError::new(Reason::UnsupportedProtocolVersion, "protocol level", rule)
                    .number(level.into()),
            )
        }
        _ => {
            let rule = "must be \"MQTT\" [MQTT-3.1.2-1]";
            Err(
                DecodeError::new(Reason::UnsupportedProtocolVersion, "protocol name", rule)
                    .text(name),
            )
        }
    }
}

/// The connect flags, section 3.1.2.3.
#[derive(Clone, Copy)]
struct Flags {
    clean_start: bool,
    /// Quality of service and retain flag of the will.
    will: Option<(QoS, bool)>,
    password: bool,
    username: bool,
}

impl Flags {
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Flags, DecodeError> {
        let byte = reader.u8("connect flags")?;
        let wrong = |rule| Err(DecodeError::malformed("connect flags", rule).number(byte.into()));
        let bit = |index: u8| byte & 1 << index != 0;
        if bit(0) {
            return wrong("bit 0 is reserved and must be 0 [MQTT-3.1.2-3]");
        }
        let will_qos = byte >> 3 & 0b11;
        let will = match (bit(2), QoS::from_bits(will_qos)) {
            (false, _) if will_qos != 0 => {
                return wrong("the will QoS must be 0 without a will [MQTT-3.1.2-11]");
            }
            (false, _) if bit(5) => {
                return wrong("will retain must be 0 without a will [MQTT-3.1.2-13]");
            }
            (false, _) => None,
            (true, None) => return wrong("the will QoS must not be 3 [MQTT-3.1.2-12]"),
            (true, Some(qos)) => Some((qos, bit(5))),
        };
        let flags = Flags {
            clean_start: bit(1),
            will,
            password: bit(6),
            username: bit(7),
        };
        if flags.password && !flags.username && !version.is_v5() {
            return wrong("before 5.0 a password needs a user name [MQTT-3.1.2-22]");
        }
        Ok(flags)
    }
}

pub(super) fn connect<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    minimal: bool,
) -> Result<Connect<'a>, DecodeError> {
    let version = version(reader)?;
    check_flags(flags, 0, version)?;
    if version.is_v5() && !minimal {
        return Err(DecodeError::long_length());
    }
    let flags = Flags::read(reader, version)?;
    let keep_alive = reader.u16("keep alive")?;
    let properties = if version.is_v5() {
        properties(reader, properties::CONNECT)?
    } else {
        Properties::EMPTY
    };
    let client_id = client_id(reader, flags.clean_start, version)?;
    let will = match flags.will {
        Some((qos, retain)) => Some(will(reader, qos, retain, version)?),
        None => None,
    };
    // In 3.1 the remaining length takes precedence over the flags: what they announce may be missing, section 3.1 there.
    let present =
        |flag: bool, reader: &Reader<'_>| flag && !(version == Version::V31 && reader.is_empty());
    let username = if present(flags.username, reader) {
        Some(reader.text("user name")?)
    } else {
        None
    };
    let password = if present(flags.password, reader) {
        Some(reader.binary("password")?)
    } else {
        None
    };
    let clean_start = flags.clean_start;
    Ok(Connect {
        version,
        clean_start,
        keep_alive,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

fn client_id<'a>(
    reader: &mut Reader<'a>,
    clean_start: bool,
    version: Version,
) -> Result<&'a str, DecodeError> {
    let what = "client identifier";
    let id = reader.text(what)?;
    let rule = match version {
        Version::V31 => "must not be empty in 3.1",
        Version::V311 if !clean_start => {
            "must not be empty without clean session [MQTT-3.1.3-7] of 3.1.1"
        }
        Version::V311 | Version::V5 => return Ok(id),
    };
    if id.is_empty() {
        return Err(DecodeError::new(Reason::ClientIdentifierNotValid, what, rule).text(id));
    }
    Ok(id)
}

fn will<'a>(
    reader: &mut Reader<'a>,
    qos: QoS,
    retain: bool,
    version: Version,
) -> Result<Will<'a>, DecodeError> {
    let properties = if version.is_v5() {
        properties(reader, properties::WILL)?
    } else {
        Properties::EMPTY
    };
    let topic = reader.topic_name("will topic", false)?;
    let payload = reader.binary("will payload")?;
    Ok(Will {
        qos,
        retain,
        properties,
        topic,
        payload,
    })
}

pub(super) fn connack<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<ConnAck<'a>, DecodeError> {
    check_flags(flags, 0, version)?;
    let acknowledge = reader.u8("connect acknowledge flags")?;
    if acknowledge > 1 && version != Version::V31 {
        let rule = "bits 7 to 1 are reserved and must be 0 [MQTT-3.2.2-1]";
        return Err(
            DecodeError::malformed("connect acknowledge flags", rule).number(acknowledge.into())
        );
    }
    // 3.1 knows no session present; the byte is reserved there.
    let session_present = acknowledge == 1 && version != Version::V31;
    let code = reader.u8("reason code of a CONNACK")?;
    let (reason, properties) = if version.is_v5() {
        let rule = "must be one of its reason codes [MQTT-3.2.2-8]";
        let reason = reason(code, "reason code of a CONNACK", CONNACK_REASONS, rule)?;
        (reason, properties(reader, properties::CONNACK)?)
    } else {
        let reason = Reason::from_connect_return_code(code).ok_or_else(|| {
            DecodeError::protocol("return code of a CONNACK", "must be 0..=5, section 3.2.2.3")
                .number(code.into())
        })?;
        (reason, Properties::EMPTY)
    };
    if session_present && reason != Reason::Success {
        let rule = "must be 0 when the connection is refused [MQTT-3.2.2-6]";
        return Err(DecodeError::protocol("session present", rule).number(1));
    }
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

const CONNACK_REASONS: &[Reason] = &[
    Reason::Success,
    Reason::UnspecifiedError,
    Reason::MalformedPacket,
    Reason::ProtocolError,
    Reason::ImplementationSpecificError,
    Reason::UnsupportedProtocolVersion,
    Reason::ClientIdentifierNotValid,
    Reason::BadUserNameOrPassword,
    Reason::NotAuthorized,
    Reason::ServerUnavailable,
    Reason::ServerBusy,
    Reason::Banned,
    Reason::BadAuthenticationMethod,
    Reason::TopicNameInvalid,
    Reason::PacketTooLarge,
    Reason::QuotaExceeded,
    Reason::PayloadFormatInvalid,
    Reason::RetainNotSupported,
    Reason::QoSNotSupported,
    Reason::UseAnotherServer,
    Reason::ServerMoved,
    Reason::ConnectionRateExceeded,
];
