//! Packets that say little: acknowledgements, pings, DISCONNECT and AUTH.

use super::properties::{self, properties};
use super::{DecodeError, Reader};
use crate::{Ack, Auth, Disconnect, Properties, Reason, Version};

/// What tells the four acknowledgements apart.
#[derive(Clone, Copy)]
pub(super) struct AckType {
    what: &'static str,
    flags: u8,
    reasons: &'static [Reason],
    reasons_rule: &'static str,
}

const RECEIVED: &[Reason] = &[
    Reason::Success,
    Reason::NoMatchingSubscribers,
    Reason::UnspecifiedError,
    Reason::ImplementationSpecificError,
    Reason::NotAuthorized,
    Reason::TopicNameInvalid,
    Reason::PacketIdentifierInUse,
    Reason::QuotaExceeded,
    Reason::PayloadFormatInvalid,
];
const RELEASED: &[Reason] = &[Reason::Success, Reason::PacketIdentifierNotFound];

pub(super) const PUBACK: AckType = AckType {
    what: "reason code of a PUBACK",
    flags: 0,
    reasons: RECEIVED,
    reasons_rule: "must be one of its reason codes [MQTT-3.4.2-1]",
};
pub(super) const PUBREC: AckType = AckType {
    what: "reason code of a PUBREC",
    flags: 0,
    reasons: RECEIVED,
    reasons_rule: "must be one of its reason codes [MQTT-3.5.2-1]",
};
pub(super) const PUBREL: AckType = AckType {
    what: "reason code of a PUBREL",
    flags: 0b0010,
    reasons: RELEASED,
    reasons_rule: "must be one of its reason codes [MQTT-3.6.2-1]",
};
pub(super) const PUBCOMP: AckType = AckType {
    what: "reason code of a PUBCOMP",
    flags: 0,
    reasons: RELEASED,
    reasons_rule: "must be one of its reason codes [MQTT-3.7.2-1]",
};

/// Checks the flags of a fixed header. 3.1 lets a client repeat PUBREL, SUBSCRIBE and UNSUBSCRIBE with the DUP flag.
#[inline]
pub(super) fn check_flags(flags: u8, expected: u8, version: Version) -> Result<(), DecodeError> {
    let dup = if version == Version::V31 && expected == 0b0010 {
        0b1000
    } else {
        0
    };
    if flags & !dup == expected {
        return Ok(());
    }
    let rule = if expected == 0 {
        "must be 0 in this packet [MQTT-2.1.3-1]"
    } else {
        "must be 2 in this packet [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]"
    };
    Err(DecodeError::malformed("flags of the fixed header", rule).number(flags.into()))
}

pub(super) fn ack<'a>(
    of: AckType,
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Ack<'a>, DecodeError> {
    check_flags(flags, of.flags, version)?;
    let packet_id = reader.packet_id()?;
    let (reason, properties) = if version.is_v5() {
        optional_tail(
            reader,
            of.what,
            of.reasons,
            of.reasons_rule,
            properties::ACK,
        )?
    } else {
        (Reason::Success, Properties::EMPTY)
    };
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

/// Reason and properties, both of which may be left out from the end.
#[inline]
fn optional_tail<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
    allowed: &[Reason],
    rule: &'static str,
    place: properties::Place,
) -> Result<(Reason, Properties<'a>), DecodeError> {
    if reader.is_empty() {
        return Ok((Reason::Success, Properties::EMPTY));
    }
    let reason = reason(reader.u8(what)?, what, allowed, rule)?;
    if reader.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    Ok((reason, properties(reader, place)?))
}

/// The reason of `code`, if it is one of `allowed`.
pub(super) fn reason(
    code: u8,
    what: &'static str,
    allowed: &[Reason],
    rule: &'static str,
) -> Result<Reason, DecodeError> {
    Reason::from_code(code)
        .filter(|reason| allowed.contains(reason))
        .ok_or_else(|| DecodeError::protocol(what, rule).number(code.into()))
}

pub(super) fn ping(flags: u8) -> Result<(), DecodeError> {
    check_flags(flags, 0, Version::V5)
}

pub(super) fn disconnect<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Disconnect<'a>, DecodeError> {
    check_flags(flags, 0, version)?;
    if !version.is_v5() {
        return Ok(Disconnect {
            reason: Reason::NormalDisconnection,
            properties: Properties::EMPTY,
        });
    }
    let rule = "must be one of its reason codes [MQTT-3.14.2-1]";
    let what = "reason code of a DISCONNECT";
    let (reason, properties) = optional_tail(
        reader,
        what,
        DISCONNECT_REASONS,
        rule,
        properties::DISCONNECT,
    )?;
    Ok(Disconnect { reason, properties })
}

/// Table of section 3.14.2.1, and 0x8C, which section 2.4 gives to DISCONNECT too.
const DISCONNECT_REASONS: &[Reason] = &[
    Reason::NormalDisconnection,
    Reason::DisconnectWithWill,
    Reason::UnspecifiedError,
    Reason::MalformedPacket,
    Reason::ProtocolError,
    Reason::ImplementationSpecificError,
    Reason::NotAuthorized,
    Reason::ServerBusy,
    Reason::ServerShuttingDown,
    Reason::BadAuthenticationMethod,
    Reason::KeepAliveTimeout,
    Reason::SessionTakenOver,
    Reason::TopicFilterInvalid,
    Reason::TopicNameInvalid,
    Reason::ReceiveMaximumExceeded,
    Reason::TopicAliasInvalid,
    Reason::PacketTooLarge,
    Reason::MessageRateTooHigh,
    Reason::QuotaExceeded,
    Reason::AdministrativeAction,
    Reason::PayloadFormatInvalid,
    Reason::RetainNotSupported,
    Reason::QoSNotSupported,
    Reason::UseAnotherServer,
    Reason::ServerMoved,
    Reason::SharedSubscriptionsNotSupported,
    Reason::ConnectionRateExceeded,
    Reason::MaximumConnectTime,
    Reason::SubscriptionIdentifiersNotSupported,
    Reason::WildcardSubscriptionsNotSupported,
];

pub(super) fn auth<'a>(flags: u8, reader: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
    check_flags(flags, 0, Version::V5)?;
    let allowed = [
        Reason::Success,
        Reason::ContinueAuthentication,
        Reason::ReAuthenticate,
    ];
    let rule = "must be one of its reason codes [MQTT-3.15.2-1]";
    // The short form of success has no place for the method that every other AUTH must name.
    let short = reader.is_empty();
    let (reason, properties) = optional_tail(
        reader,
        "reason code of an AUTH",
        &allowed,
        rule,
        properties::AUTH,
    )?;
    if !short && properties.auth_method().is_none() {
        return Err(DecodeError::protocol(
            "authentication method",
            "must be in an AUTH, section 3.15.2.2.2",
        ));
    }
    Ok(Auth { reason, properties })
}
