//! Which properties may stand where, and which values they may have. MQTT 5.0 section 2.2.2.

use super::{DecodeError, Reader};
use crate::Properties;
use crate::property::{Kind, id, kind};

/// A packet type, or the will, as far as properties go.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// A bit per identifier.
    allowed: u64,
    /// The rule about other properties.
    rule: &'static str,
}

const fn set(ids: &[u8]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < ids.len() {
        bits |= 1 << ids[index];
        index += 1;
    }
    bits
}

const MESSAGE: u64 = set(&[
    id::PayloadFormat,
    id::MessageExpiry,
    id::ContentType,
    id::ResponseTopic,
    id::CorrelationData,
    id::UserProperty,
]);
const AUTHENTICATION: u64 = set(&[id::AuthMethod, id::AuthData, id::UserProperty]);
const LIMITS: u64 = set(&[
    id::SessionExpiry,
    id::ReceiveMaximum,
    id::MaximumPacketSize,
    id::TopicAliasMaximum,
]);
const ANSWER: u64 = set(&[id::ReasonString, id::UserProperty]);

/// What may stand more than once in a PUBLISH; elsewhere only user properties may.
const REPEATABLE_IN_PUBLISH: u64 = set(&[id::UserProperty, id::SubscriptionId]);
const REPEATABLE: u64 = set(&[id::UserProperty]);

macro_rules! places {
    ($($name:ident $text:literal $allowed:expr;)*) => {
        $(pub(super) const $name: Place = Place {
            allowed: $allowed,
            rule: concat!("is not a property of ", $text, ", section 2.2.2.2"),
        };)*
    };
}

places! {
    CONNECT "CONNECT" AUTHENTICATION | LIMITS | set(&[id::RequestProblemInformation, id::RequestResponseInformation]);
    WILL "a will" MESSAGE | set(&[id::WillDelay]);
    CONNACK "CONNACK" AUTHENTICATION | LIMITS | ANSWER | set(&[
        id::AssignedClientId, id::ServerKeepAlive, id::ResponseInformation, id::ServerReference, id::MaximumQoS,
        id::RetainAvailable, id::WildcardSubscriptionAvailable, id::SubscriptionIdsAvailable, id::SharedSubscriptionAvailable,
    ]);
    PUBLISH "PUBLISH" MESSAGE | set(&[id::TopicAlias, id::SubscriptionId]);
    ACK "PUBACK, PUBREC, PUBREL and PUBCOMP" ANSWER;
    SUBSCRIBE "SUBSCRIBE" set(&[id::SubscriptionId, id::UserProperty]);
    SUBACK "SUBACK" ANSWER;
    UNSUBSCRIBE "UNSUBSCRIBE" set(&[id::UserProperty]);
    UNSUBACK "UNSUBACK" ANSWER;
    DISCONNECT "DISCONNECT" ANSWER | set(&[id::SessionExpiry, id::ServerReference]);
    AUTH "AUTH" AUTHENTICATION | ANSWER;
    ANYWHERE "any packet" u64::MAX;
}

/// Reads property length and properties.
#[inline]
pub(super) fn properties<'a>(
    reader: &mut Reader<'a>,
    place: Place,
) -> Result<Properties<'a>, DecodeError> {
    let len = reader.variable("property length")? as usize;
    if len == 0 {
        return Ok(Properties::EMPTY);
    }
    let block = reader.take(len, "properties")?;
    check(block, place)?;
    Ok(Properties::checked(block))
}

/// Checks a block on its own, without knowing where it belongs.
pub(crate) fn check_properties(block: &[u8]) -> Result<(), DecodeError> {
    check(block, ANYWHERE)
}

fn check(block: &[u8], place: Place) -> Result<(), DecodeError> {
    let may_repeat = if place.allowed & set(&[id::TopicAlias]) != 0 {
        REPEATABLE_IN_PUBLISH
    } else {
        REPEATABLE
    };
    let mut reader = Reader::new(block);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let id = reader.variable("property identifier")?;
        let kind = u8::try_from(id).ok().and_then(kind);
        let Some(kind) = kind.filter(|_| place.allowed & (1 << id) != 0) else {
            return Err(DecodeError::malformed("property", place.rule).number(id));
        };
        let bit = 1 << id;
        if seen & bit & !may_repeat != 0 {
            return Err(DecodeError::protocol(
                "property",
                "must not be there more than once, section 2.2.2.2",
            )
            .number(id));
        }
        seen |= bit;
        check_value(id as u8, kind, &mut reader)?;
    }
    if seen & set(&[id::AuthMethod, id::AuthData]) == set(&[id::AuthData]) {
        let rule = "must not be there without an authentication method, section 3.1.2.11.10";
        return Err(DecodeError::protocol("authentication data", rule));
    }
    Ok(())
}

fn check_value(id: u8, kind: Kind, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match kind {
        Kind::Flag => {
            let value = reader.u8("property")?;
            if value > 1 {
                return Err(
                    DecodeError::protocol(name(id), "must be 0 or 1, section 2.2.2.2")
                        .number(value.into()),
                );
            }
        }
        Kind::MaximumQoS => {
            let value = reader.u8("maximum QoS")?;
            if value > 1 {
                return Err(DecodeError::protocol(
                    "maximum QoS",
                    "must be 0 or 1, section 3.2.2.3.4",
                )
                .number(value.into()));
            }
        }
        Kind::Short => {
            let value = reader.u16("property")?;
            if value == 0 && matches!(id, id::ReceiveMaximum | id::TopicAlias) {
                return Err(zero(id));
            }
        }
        Kind::Long => {
            let value = reader.u32("property")?;
            if value == 0 && id == id::MaximumPacketSize {
                return Err(zero(id));
            }
        }
        Kind::Variable => {
            if reader.variable("subscription identifier")? == 0 {
                return Err(zero(id));
            }
        }
        Kind::Text if id == id::ResponseTopic => {
            response_topic(reader)?;
        }
        Kind::Text => {
            reader.text(name(id))?;
        }
        Kind::Binary => {
            reader.binary(name(id))?;
        }
        Kind::Pair => {
            reader.text("name of a user property")?;
            reader.text("value of a user property")?;
        }
    }
    Ok(())
}

/// A topic name; here the standard calls a wildcard a protocol error.
fn response_topic(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let text = reader.text("response topic")?;
    if crate::topic::has_wildcard(text) {
        let rule = "must not contain the wildcards \"+\" and \"#\" [MQTT-3.3.2-14]";
        return Err(DecodeError::protocol("response topic", rule).text(text));
    }
    if text.is_empty() {
        return Err(DecodeError::protocol(
            "response topic",
            "must not be empty [MQTT-4.7.3-1]",
        ));
    }
    Ok(())
}

#[cold]
fn zero(id: u8) -> DecodeError {
    let rule = match id {
        id::ReceiveMaximum => "must not be 0, section 3.1.2.11.3",
        id::MaximumPacketSize => "must not be 0, section 3.1.2.11.4",
        id::TopicAlias => "must not be 0 [MQTT-3.3.2-8]",
        _ => "must not be 0, section 3.8.2.1.2",
    };
    DecodeError::protocol(name(id), rule).number(0)
}

/// The names of the properties whose values can be wrong.
fn name(id: u8) -> &'static str {
    match id {
        id::PayloadFormat => "payload format indicator",
        id::ContentType => "content type",
        id::CorrelationData => "correlation data",
        id::SubscriptionId => "subscription identifier",
        id::AssignedClientId => "assigned client identifier",
        id::AuthMethod => "authentication method",
        id::AuthData => "authentication data",
        id::RequestProblemInformation => "request problem information",
        id::RequestResponseInformation => "request response information",
        id::ResponseInformation => "response information",
        id::ServerReference => "server reference",
        id::ReasonString => "reason string",
        id::ReceiveMaximum => "receive maximum",
        id::TopicAlias => "topic alias",
        id::RetainAvailable => "retain available",
        id::MaximumPacketSize => "maximum packet size",
        id::WildcardSubscriptionAvailable => "wildcard subscription available",
        id::SubscriptionIdsAvailable => "subscription identifiers available",
        id::SharedSubscriptionAvailable => "shared subscription available",
        _ => "property",
    }
}
