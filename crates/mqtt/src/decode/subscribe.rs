//! SUBSCRIBE, UNSUBSCRIBE and their answers.

use super::acks::{check_flags, reason};
use super::properties::{self, Place, properties};
use super::{DecodeError, Reader};
use crate::{
    Properties, Reason, SubAck, Subscribe, SubscribeFilters, SubscriptionOptions, UnsubAck,
    Unsubscribe, UnsubscribeFilters, Version,
};

fn properties_of<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    version: Version,
) -> Result<Properties<'a>, DecodeError> {
    if version.is_v5() {
        properties(reader, place)
    } else {
        Ok(Properties::EMPTY)
    }
}

pub(super) fn subscribe<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Subscribe<'a>, DecodeError> {
    check_flags(flags, 0b0010, version)?;
    let packet_id = reader.packet_id()?;
    let properties = properties_of(reader, properties::SUBSCRIBE, version)?;
    if reader.is_empty() {
        let rule = "there must be at least one [MQTT-3.8.3-2]";
        return Err(DecodeError::protocol("topic filters of a SUBSCRIBE", rule));
    }
    let filters = SubscribeFilters(reader.take_rest());
    let mut list = Reader::new(filters.as_bytes());
    while !list.is_empty() {
        let filter = list.topic_filter()?;
        check_options(list.u8("subscription options")?, filter, version)?;
    }
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

fn check_options(byte: u8, filter: &str, version: Version) -> Result<(), DecodeError> {
    let what = "subscription options";
    let reserved = if version.is_v5() {
        0b1100_0000
    } else {
        0b1111_1100
    };
    if byte & reserved != 0 {
        return Err(
            DecodeError::malformed(what, "reserved bits must be 0 [MQTT-3.8.3-5]")
                .number(byte.into()),
        );
    }
    let Some(options) = SubscriptionOptions::from_byte(byte) else {
        let rule = "QoS and retain handling must be 0, 1 or 2, section 3.8.3.1";
        return Err(DecodeError::protocol(what, rule).number(byte.into()));
    };
    if options.no_local && filter.starts_with("$share/") {
        let rule = "no local must not be set on a shared subscription [MQTT-3.8.3-4]";
        return Err(DecodeError::protocol("topic filter", rule).text(filter));
    }
    Ok(())
}

pub(super) fn unsubscribe<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Unsubscribe<'a>, DecodeError> {
    check_flags(flags, 0b0010, version)?;
    let packet_id = reader.packet_id()?;
    let properties = properties_of(reader, properties::UNSUBSCRIBE, version)?;
    if reader.is_empty() {
        let rule = "there must be at least one [MQTT-3.10.3-2]";
        return Err(DecodeError::protocol(
            "topic filters of an UNSUBSCRIBE",
            rule,
        ));
    }
    let filters = UnsubscribeFilters(reader.take_rest());
    let mut list = Reader::new(filters.as_bytes());
    while !list.is_empty() {
        list.topic_filter()?;
    }
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

pub(super) fn suback<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<SubAck<'a>, DecodeError> {
    check_flags(flags, 0, version)?;
    let packet_id = reader.packet_id()?;
    let properties = properties_of(reader, properties::SUBACK, version)?;
    let (allowed, rule) = if version.is_v5() {
        (
            SUBACK_REASONS,
            "must be one of its reason codes [MQTT-3.9.3-2]",
        )
    } else {
        (SUBACK_RETURN_CODES, "must be 0, 1, 2 or 128 [MQTT-3.9.3-2]")
    };
    let codes = codes(reader, "reason code of a SUBACK", allowed, rule)?;
    Ok(SubAck {
        packet_id,
        properties,
        codes,
    })
}

pub(super) fn unsuback<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<UnsubAck<'a>, DecodeError> {
    check_flags(flags, 0, version)?;
    let packet_id = reader.packet_id()?;
    let properties = properties_of(reader, properties::UNSUBACK, version)?;
    let codes = if version.is_v5() {
        let rule = "must be one of its reason codes [MQTT-3.11.3-2]";
        codes(reader, "reason code of an UNSUBACK", UNSUBACK_REASONS, rule)?
    } else {
        &[]
    };
    Ok(UnsubAck {
        packet_id,
        properties,
        codes,
    })
}

fn codes<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
    allowed: &[Reason],
    rule: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let codes = reader.take_rest();
    if codes.is_empty() {
        return Err(DecodeError::protocol(
            what,
            "there must be one per topic filter [MQTT-3.9.3-1] [MQTT-3.11.3-1]",
        ));
    }
    for &code in codes {
        reason(code, what, allowed, rule)?;
    }
    Ok(codes)
}

const SUBACK_REASONS: &[Reason] = &[
    Reason::GrantedQoS0,
    Reason::GrantedQoS1,
    Reason::GrantedQoS2,
    Reason::UnspecifiedError,
    Reason::ImplementationSpecificError,
    Reason::NotAuthorized,
    Reason::TopicFilterInvalid,
    Reason::PacketIdentifierInUse,
    Reason::QuotaExceeded,
    Reason::SharedSubscriptionsNotSupported,
    Reason::SubscriptionIdentifiersNotSupported,
    Reason::WildcardSubscriptionsNotSupported,
];

/// The failure 0x80 came with 3.1.1; servers send it to 3.1 clients too.
const SUBACK_RETURN_CODES: &[Reason] = &[
    Reason::GrantedQoS0,
    Reason::GrantedQoS1,
    Reason::GrantedQoS2,
    Reason::UnspecifiedError,
];

const UNSUBACK_REASONS: &[Reason] = &[
    Reason::Success,
    Reason::NoSubscriptionExisted,
    Reason::UnspecifiedError,
    Reason::ImplementationSpecificError,
    Reason::NotAuthorized,
    Reason::TopicFilterInvalid,
    Reason::PacketIdentifierInUse,
];
