//! The client's side of MQTT, as far as every scenario needs it.

use campanile_mqtt::{
    AckKind, Connect, Packet, PacketId, Properties, PropertiesBuf, Property, QoS, Reason, Split,
    Subscribe, SubscribeFilters, SubscriptionOptions, Version, encode_ack, split,
};

use super::{
    Crew, INBOX_BYTES, LinkId, Links, http,
    links::{Kind, Phase},
};

/// How long a session without clean start outlives its connection in 5.0: a day.
const SESSION_EXPIRY_SECONDS: u32 = 86_400;

impl Links {
    pub(super) fn on_connected<C: Crew>(&mut self, link: LinkId, crew: &mut C) {
        match &self.slot(link).kind {
            Kind::Http => {
                self.tick();
                self.on_welcome(link, crew);
            }
            Kind::Mqtt(_) => {
                self.slot(link).phase = Phase::Greeting;
                self.send_connect(link);
            }
        }
    }

    /// Handles all whole packets at the beginning of `input` and says how many bytes they took.
    pub(super) fn digest<C: Crew>(
        &mut self,
        link: LinkId,
        input: &[u8],
        crew: &mut C,
    ) -> Result<usize, String> {
        if matches!(self.slot(link).kind, Kind::Http) {
            return self.digest_http(link, input, crew);
        }
        let version = self.options().version;
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            let total = match split(rest, INBOX_BYTES as u32).map_err(|e| e.to_string())? {
                Split::NeedMore { .. } => break,
                Split::Packet { total_len, .. } => total_len,
            };
            let packet =
                Packet::decode(&rest[..total], version).map_err(|error| error.to_string())?;
            self.count_received();
            self.on_packet(link, packet, version, crew)?;
            used += total;
        }
        Ok(used)
    }

    fn digest_http<C: Crew>(
        &mut self,
        link: LinkId,
        input: &[u8],
        crew: &mut C,
    ) -> Result<usize, String> {
        let mut used = 0;
        while let Some(response) = http::parse(&input[used..])? {
            self.count_received();
            used += response.total_len;
            crew.on_response(self, link, response.status, response.body);
        }
        Ok(used)
    }

    #[inline]
    fn on_packet<C: Crew>(
        &mut self,
        link: LinkId,
        packet: Packet<'_>,
        version: Version,
        crew: &mut C,
    ) -> Result<(), String> {
        match packet {
            Packet::Publish(message) => {
                let ack = match message.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(AckKind::PubAck),
                    QoS::ExactlyOnce => Some(AckKind::PubRec),
                };
                if let (Some(kind), Some(id)) = (ack, message.packet_id) {
                    self.acknowledge(link, version, kind, id);
                }
                crew.on_message(self, link, &message);
            }
            Packet::PubRel(ack) => self.acknowledge(link, version, AckKind::PubComp, ack.packet_id),
            Packet::PubRec(ack) if !ack.reason.is_error() => {
                self.acknowledge(link, version, AckKind::PubRel, ack.packet_id);
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
                if ack.reason.is_error() {
                    self.fault(format!("a publish was refused: {}", ack.reason));
                }
                crew.on_acknowledged(self, link, ack.packet_id, ack.reason);
            }
            Packet::PingResp => crew.on_pong(self, link),
            Packet::ConnAck(connack) => {
                if self.slot(link).phase != Phase::Greeting {
                    return Err("unexpected CONNACK".into());
                }
                if connack.reason != Reason::Success {
                    return Err(format!("refused: {}", connack.reason));
                }
                if let Some(granted) = connack.properties.receive_maximum() {
                    self.limit_receive_maximum(granted);
                }
                self.slot(link).session_present = connack.session_present;
                if self.send_subscribe(link) {
                    self.slot(link).phase = Phase::Subscribing;
                } else {
                    self.on_welcome(link, crew);
                }
            }
            Packet::SubAck(suback) => {
                if self.slot(link).phase != Phase::Subscribing {
                    return Err("unexpected SUBACK".into());
                }
                if let Some(code) = suback.codes.iter().find(|&&code| code >= 0x80) {
                    return Err(format!("subscription refused with {code:#04x}"));
                }
                self.on_welcome(link, crew);
            }
            Packet::Disconnect(disconnect) => {
                return Err(format!("disconnected: {}", disconnect.reason));
            }
            other => return Err(format!("unexpected {other:?}")),
        }
        Ok(())
    }

    #[inline]
    fn acknowledge(&mut self, link: LinkId, version: Version, kind: AckKind, id: PacketId) {
        self.send(link, |out| {
            encode_ack(out, version, kind, id, Reason::Success)
        });
    }

    fn send_connect(&mut self, link: LinkId) {
        let version = self.options().version;
        let login = self.options().login.clone();
        let member = self.member_mut(link).clone();
        let mut properties = PropertiesBuf::new();
        if version.is_v5() && !member.clean_start {
            properties.push(Property::SessionExpiry(SESSION_EXPIRY_SECONDS));
        }
        let packet = Packet::Connect(Connect {
            version,
            clean_start: member.clean_start,
            keep_alive: member.keep_alive,
            properties: properties.as_properties(),
            client_id: &member.client_id,
            will: None,
            username: login.as_ref().map(|(name, _)| name.as_str()),
            password: login.as_ref().map(|(_, password)| password.as_bytes()),
        });
        self.send(link, |out| packet.encode(version, out));
    }

    /// Whether there was anything to subscribe to.
    fn send_subscribe(&mut self, link: LinkId) -> bool {
        let version = self.options().version;
        let mut filters = Vec::new();
        for (filter, qos) in &self.member_mut(link).subscriptions {
            let options = SubscriptionOptions {
                qos: *qos,
                ..Default::default()
            };
            SubscribeFilters::write(filter, options, &mut filters);
        }
        if filters.is_empty() {
            return false;
        }
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).expect("1 is not 0"),
            properties: Properties::EMPTY,
            filters: SubscribeFilters::trusted(&filters),
        });
        self.send(link, |out| packet.encode(version, out));
        true
    }
}
