//! Sending messages, for the first time and again.

use super::{Client, Event, Phase, RequestError};
use crate::publish::{self, Head, Outgoing};
use crate::{AckKind, PacketId, Properties, PropertiesBuf, QoS, Reason, encode_ack, topic};

/// A message to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publication<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// Any bytes.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// Message properties, without a topic alias: the client uses aliases by itself. Ignored before 5.0.
    pub properties: Properties<'a>,
}

/// A message that may have to be sent again.
#[derive(Debug)]
pub(super) struct Kept {
    topic: Box<str>,
    payload: Box<[u8]>,
    qos: QoS,
    retain: bool,
    properties: PropertiesBuf,
}

impl Kept {
    fn as_publication(&self) -> Publication<'_> {
        Publication {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.as_properties(),
        }
    }
}

impl<'a> Publication<'a> {
    fn outgoing(&self) -> Outgoing<'a> {
        Outgoing {
            topic: self.topic,
            payload: self.payload,
            forwarded: self.properties.as_bytes(),
            message_expiry: None,
        }
    }

    fn head(&self) -> Head<'static> {
        Head {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            packet_id: None,
            alias: None,
            subscription_ids: &[],
        }
    }
}

impl Client {
    /// Sends a message. For QoS 1 and 2 its packet identifier, which [`Event::Published`] or [`Event::Dropped`] will
    /// name; it is sent again on later connections until then.
    pub fn publish(
        &mut self,
        publication: &Publication<'_>,
        now_ms: u64,
    ) -> Result<Option<PacketId>, RequestError> {
        if self.phase != Phase::Connected {
            return Err(RequestError::NotConnected);
        }
        topic::validate_name(publication.topic).map_err(|error| {
            RequestError::invalid("topic name", publication.topic, error.rule())
        })?;
        if publication.properties.topic_alias().is_some()
            || publication.properties.subscription_ids().next().is_some()
        {
            let rule =
                "must not have an alias of its own nor a subscription identifier [MQTT-3.3.4-6]";
            return Err(RequestError::invalid(
                "publication",
                publication.topic,
                rule,
            ));
        }
        self.check_granted(publication)?;
        if self.output.len() > self.options.maximum_output_bytes {
            return Err(RequestError::Busy);
        }
        let packet_id = match publication.qos {
            QoS::AtMostOnce => None,
            qos => Some(self.outbound.send(qos, ()).ok_or(RequestError::Busy)?),
        };
        self.write_publish(publication, packet_id, false, now_ms);
        if let Some(packet_id) = packet_id {
            let kept = Kept {
                topic: publication.topic.into(),
                payload: publication.payload.into(),
                qos: publication.qos,
                retain: publication.retain,
                properties: publication.properties.iter().collect(),
            };
            self.kept.insert(packet_id, kept);
        }
        Ok(packet_id)
    }

    /// Takes up what is unfinished from earlier connections, as far as the window goes.
    pub(super) fn resend(&mut self, now_ms: u64) {
        while let Some(unfinished) = self.outbound.poll_resend() {
            let packet_id = unfinished.packet_id;
            if unfinished.released {
                self.send_ack(AckKind::PubRel, packet_id, Reason::Success, now_ms);
                continue;
            }
            let Some(kept) = self.kept.remove(&packet_id) else {
                debug_assert!(false, "a message without PUBREC is kept");
                continue;
            };
            let publication = kept.as_publication();
            if self.check_granted(&publication).is_ok() {
                self.write_publish(&publication, Some(packet_id), true, now_ms);
                self.kept.insert(packet_id, kept);
            } else {
                // This server takes less than the one of before; the exchange cannot go on.
                self.end_exchange(packet_id);
                self.events.push_back(Event::Dropped { packet_id });
            }
        }
    }

    pub(super) fn send_ack(
        &mut self,
        kind: AckKind,
        packet_id: PacketId,
        reason: Reason,
        now_ms: u64,
    ) {
        let version = self.options.version;
        encode_ack(&mut self.output, version, kind, packet_id, reason);
        self.keep_alive.on_sent(now_ms);
    }

    fn end_exchange(&mut self, packet_id: PacketId) {
        if self.outbound.on_puback(packet_id).is_err() {
            self.outbound.on_pubrec(packet_id, false);
        }
    }

    /// Whether the server takes such a message.
    fn check_granted(&self, publication: &Publication<'_>) -> Result<(), RequestError> {
        if publication.qos > self.limits.maximum_qos {
            return Err(RequestError::unsupported(
                match publication.qos {
                    QoS::ExactlyOnce => "quality of service 2",
                    _ => "quality of service 1",
                },
                "[MQTT-3.2.2-11]",
            ));
        }
        if publication.retain && !self.limits.retain {
            return Err(RequestError::unsupported(
                "retained messages",
                "[MQTT-3.2.2-14]",
            ));
        }
        let head = Head {
            packet_id: PacketId::new(1).filter(|_| publication.qos != QoS::AtMostOnce),
            // The alias that takes the most room.
            alias: (self.limits.topic_alias_maximum > 0).then_some((1, true)),
            ..publication.head()
        };
        let version = self.options.version;
        let bytes = publish::encoded_len(&publication.outgoing(), &head, version);
        self.check_packet_size(bytes)
    }

    pub(super) fn check_packet_size(&self, bytes: usize) -> Result<(), RequestError> {
        let maximum = self.limits.maximum_packet_size;
        if bytes > maximum as usize {
            return Err(RequestError::TooLarge { bytes, maximum });
        }
        Ok(())
    }

    fn write_publish(
        &mut self,
        publication: &Publication<'_>,
        packet_id: Option<PacketId>,
        dup: bool,
        now_ms: u64,
    ) {
        let head = Head {
            dup,
            packet_id,
            alias: self.aliases_out.assign(publication.topic),
            ..publication.head()
        };
        let version = self.options.version;
        publish::encode(&publication.outgoing(), &head, version, &mut self.output);
        self.keep_alive.on_sent(now_ms);
    }
}
