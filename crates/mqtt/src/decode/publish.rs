use super::properties::{PUBLISH, properties};
use super::{DecodeError, Reader};
use crate::{Properties, Publish, QoS, Version};

#[inline]
pub(super) fn publish<'a>(
    flags: u8,
    mut reader: Reader<'a>,
    version: Version,
) -> Result<Publish<'a>, DecodeError> {
    let dup = flags & 0b1000 != 0;
    let retain = flags & 0b0001 != 0;
    let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or_else(|| {
        DecodeError::malformed("QoS of a PUBLISH", "must not be 3 [MQTT-3.3.1-4]").number(3)
    })?;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::malformed(
            "DUP flag",
            "must be 0 at QoS 0 [MQTT-3.3.1-2]",
        ));
    }
    let topic = reader.topic_name("topic name", version.is_v5())?;
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let properties = if version.is_v5() {
        properties(&mut reader, PUBLISH)?
    } else {
        Properties::EMPTY
    };
    if topic.is_empty() && properties.topic_alias().is_none() {
        let rule = "must not be empty without a topic alias, section 3.3.2.1";
        return Err(DecodeError::protocol("topic name", rule).text(topic));
    }
    let payload = reader.take_rest();
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
    })
}
