//! Packets from the server. What breaks a rule ends the connection, in 5.0 with a reason.

use std::mem;

use super::{Client, Event, Failure, Message, Phase, Request};
use crate::session::{AliasesIn, AliasesOut, Inbound, Outbound, PubRec, Verdict};
use crate::{
    Ack, AckKind, Auth, ConnAck, Disconnect, Packet, PacketId, Properties, PropertiesBuf, Publish,
    QoS, Reason, Split, SubAck, UnsubAck, Version, split,
};

impl Client {
    /// Bytes that the transport brought, in whatever pieces. Ignored while the connection is closing.
    pub fn handle_bytes(&mut self, bytes: &[u8], now_ms: u64) {
        let mut input = mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut done = 0;
        while matches!(self.phase, Phase::Connecting | Phase::Connected) {
            match self.handle_frame(&input[done..], now_ms) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(failure) => self.fail(failure, now_ms),
            }
        }
        input.drain(..done);
        if !input.is_empty() {
            self.input = input;
        }
    }

    /// Handles the packet that `input` begins with: its length, 0 if it is not complete.
    fn handle_frame(&mut self, input: &[u8], now_ms: u64) -> Result<usize, Failure> {
        match split(input, self.options.maximum_packet_size)? {
            Split::NeedMore { .. } => Ok(0),
            Split::Packet { total_len, .. } => {
                let packet = Packet::decode(&input[..total_len], self.options.version)?;
                match self.phase {
                    Phase::Connected => self.on_packet(packet, now_ms)?,
                    _ => self.on_first_packet(packet, now_ms)?,
                }
                Ok(total_len)
            }
        }
    }

    /// The server broke a rule: in 5.0 it is told so.
    fn fail(&mut self, failure: Failure, now_ms: u64) {
        if self.options.version.is_v5() {
            let (reason, properties) = (failure.reason, Properties::EMPTY);
            self.send(
                Packet::Disconnect(Disconnect { reason, properties }),
                now_ms,
            );
        }
        self.close(failure);
    }

    fn on_first_packet(&mut self, packet: Packet<'_>, now_ms: u64) -> Result<(), Failure> {
        match packet {
            Packet::ConnAck(connack) => self.on_connack(&connack, now_ms),
            Packet::Auth(auth) if auth.reason == Reason::ContinueAuthentication => {
                self.check_method(auth.properties)?;
                self.challenge(auth.properties);
                Ok(())
            }
            _ => Err(Failure::protocol(
                "the first packet of a server must be CONNACK [MQTT-3.2.0-1]",
            )),
        }
    }

    fn on_connack(&mut self, connack: &ConnAck<'_>, now_ms: u64) -> Result<(), Failure> {
        let properties: PropertiesBuf = connack.properties.iter().collect();
        if connack.reason.is_error() {
            let reason = connack.reason;
            self.events.push_back(Event::Refused { reason, properties });
            self.phase = Phase::Closing;
            return Ok(());
        }
        // 3.1 does not say whether there is a session: the server has it if this client has.
        let session_present = match self.options.version {
            Version::V31 => self.has_session,
            _ => connack.session_present,
        };
        if session_present && !self.has_session {
            return Err(Failure::protocol(
                "the server goes on with a session that this client does not have [MQTT-3.2.2-4]",
            ));
        }
        if self.options.authentication.is_some() {
            self.check_method(connack.properties)?;
        }
        self.has_session = true;
        self.limits = self.limits.granted(connack.properties);
        if let Some(assigned) = connack.properties.assigned_client_id() {
            self.options.client_id = assigned.to_owned();
        }
        self.begin_session(session_present);
        self.keep_alive.start(self.limits.keep_alive);
        self.phase = Phase::Connected;
        self.events.push_back(Event::Connected {
            session_present,
            properties,
        });
        self.resend(now_ms);
        Ok(())
    }

    fn begin_session(&mut self, session_present: bool) {
        let window = self.limits.receive_maximum.min(self.options.send_window);
        // Before 5.0 the server does not know the limit.
        let receive_maximum = match self.options.version.is_v5() {
            true => self.options.receive_maximum,
            false => u16::MAX,
        };
        if !session_present {
            let lost = mem::replace(&mut self.outbound, Outbound::new(window));
            self.events
                .extend(lost.unfinished().map(|unfinished| Event::Dropped {
                    packet_id: unfinished.packet_id,
                }));
            self.kept.clear();
            self.inbound = Inbound::new(receive_maximum);
        }
        self.outbound.reconnect(window);
        self.inbound.reconnect(receive_maximum);
        self.aliases_in = AliasesIn::new(self.options.topic_alias_maximum);
        let aliases_out = self.limits.topic_alias_maximum;
        self.aliases_out = AliasesOut::new(aliases_out.min(self.options.topic_aliases_out));
    }

    fn on_packet(&mut self, packet: Packet<'_>, now_ms: u64) -> Result<(), Failure> {
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, now_ms)?,
            Packet::PubAck(ack) => self.on_puback(&ack, now_ms),
            Packet::PubRec(ack) => self.on_pubrec(&ack, now_ms),
            Packet::PubRel(ack) => self.on_pubrel(ack.packet_id, now_ms),
            Packet::PubComp(ack) => self.on_pubcomp(&ack, now_ms),
            Packet::SubAck(suback) => self.on_suback(&suback)?,
            Packet::UnsubAck(unsuback) => self.on_unsuback(&unsuback)?,
            Packet::PingResp => self.keep_alive.on_answer(),
            Packet::Disconnect(disconnect) if self.options.version.is_v5() => {
                self.on_disconnect(&disconnect);
            }
            Packet::Auth(auth) => self.on_auth(&auth)?,
            Packet::ConnAck(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect(_) => {
                return Err(Failure::protocol(
                    "a server must not send such a packet now, section 2.1.2",
                ));
            }
        }
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish<'_>, now_ms: u64) -> Result<(), Failure> {
        let topic = match publish.properties.topic_alias() {
            None => publish.topic,
            Some(alias) => self
                .aliases_in
                .resolve(alias, publish.topic)
                .map_err(|error| Failure::new(error.reason(), error.to_string()))?,
        };
        let message = Message {
            topic: topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties.iter().collect(),
        };
        let Some(packet_id) = publish.packet_id else {
            self.events.push_back(Event::Message(message));
            return Ok(());
        };
        match self.inbound.on_publish(packet_id, publish.qos) {
            Verdict::New => self.events.push_back(Event::Message(message)),
            Verdict::Duplicate => {}
            Verdict::QuotaExceeded => {
                return Err(Failure::new(
                    Reason::ReceiveMaximumExceeded,
                    "the server sent more messages than the receive maximum allows [MQTT-3.3.4-9]",
                ));
            }
        }
        let kind = match publish.qos {
            QoS::ExactlyOnce => AckKind::PubRec,
            _ => {
                self.unwritten_pubacks += 1;
                AckKind::PubAck
            }
        };
        self.send_ack(kind, packet_id, Reason::Success, now_ms);
        Ok(())
    }

    // Acknowledgements without an exchange are ignored: before 5.0 they follow a packet that was sent twice.

    fn on_puback(&mut self, ack: &Ack<'_>, now_ms: u64) {
        if self.outbound.on_puback(ack.packet_id).is_ok() {
            self.finish(ack, now_ms);
        }
    }

    fn on_pubrec(&mut self, ack: &Ack<'_>, now_ms: u64) {
        let packet_id = ack.packet_id;
        let reason = match self.outbound.on_pubrec(packet_id, !ack.reason.is_error()) {
            PubRec::Released(()) => {
                self.kept.remove(&packet_id);
                Reason::Success
            }
            PubRec::AlreadyReleased => Reason::Success,
            PubRec::Ended(()) => return self.finish(ack, now_ms),
            // There is nothing to release if the server refused it.
            PubRec::Unknown if ack.reason.is_error() => return,
            PubRec::Unknown => Reason::PacketIdentifierNotFound,
        };
        self.send_ack(AckKind::PubRel, packet_id, reason, now_ms);
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>, now_ms: u64) {
        if self.outbound.on_pubcomp(ack.packet_id).is_some() {
            // By its PUBREC the server has taken the message; "packet identifier not found" says that an earlier PUBREL has arrived.
            let taken = Ack {
                reason: Reason::Success,
                ..ack.clone()
            };
            self.finish(&taken, now_ms);
        }
    }

    fn finish(&mut self, ack: &Ack<'_>, now_ms: u64) {
        self.kept.remove(&ack.packet_id);
        self.events.push_back(Event::Published {
            packet_id: ack.packet_id,
            reason: ack.reason,
            properties: ack.properties.iter().collect(),
        });
        self.resend(now_ms);
    }

    fn on_pubrel(&mut self, packet_id: PacketId, now_ms: u64) {
        let reason = match self.inbound.on_pubrel(packet_id) {
            true => Reason::Success,
            false => Reason::PacketIdentifierNotFound,
        };
        self.inbound.finish_qos2(packet_id);
        self.send_ack(AckKind::PubComp, packet_id, reason, now_ms);
    }

    fn on_suback(&mut self, suback: &SubAck<'_>) -> Result<(), Failure> {
        let packet_id = suback.packet_id;
        let filters = suback.codes.len();
        self.answer(packet_id, Request::Subscribe { filters })?;
        let granted = suback.codes.iter().map(|&code| match QoS::from_bits(code) {
            Some(qos) => Ok(qos),
            None => Err(Reason::from_code(code).unwrap_or(Reason::UnspecifiedError)),
        });
        self.events.push_back(Event::Subscribed {
            packet_id,
            granted: granted.collect(),
            properties: suback.properties.iter().collect(),
        });
        Ok(())
    }

    fn on_unsuback(&mut self, unsuback: &UnsubAck<'_>) -> Result<(), Failure> {
        let packet_id = unsuback.packet_id;
        let filters = match self.requests.get(&packet_id) {
            Some(&Request::Unsubscribe { filters }) if !self.options.version.is_v5() => filters,
            _ => unsuback.codes.len(),
        };
        self.answer(packet_id, Request::Unsubscribe { filters })?;
        let mut reasons: Vec<_> = unsuback
            .codes
            .iter()
            .map(|&code| Reason::from_code(code).unwrap_or(Reason::UnspecifiedError))
            .collect();
        reasons.resize(filters, Reason::Success);
        self.events.push_back(Event::Unsubscribed {
            packet_id,
            reasons,
            properties: unsuback.properties.iter().collect(),
        });
        Ok(())
    }

    /// Ends a request if the answer is of its kind and length.
    fn answer(&mut self, packet_id: PacketId, answered: Request) -> Result<(), Failure> {
        if self.requests.get(&packet_id) != Some(&answered) {
            return Err(Failure::protocol(format!(
                "answer to packet {packet_id}: fits no request, or not the number of its filters \
                 [MQTT-3.8.4-2] [MQTT-3.8.4-6]"
            )));
        }
        self.requests.remove(&packet_id);
        self.outbound.release(packet_id);
        Ok(())
    }

    fn on_auth(&mut self, auth: &Auth<'_>) -> Result<(), Failure> {
        self.check_method(auth.properties)?;
        match auth.reason {
            Reason::Success => {
                let data = auth.properties.auth_data().unwrap_or_default().to_vec();
                self.events.push_back(Event::ReAuthenticated { data });
            }
            Reason::ContinueAuthentication => self.challenge(auth.properties),
            _ => {
                return Err(Failure::protocol(
                    "only a client begins a re-authentication [MQTT-3.15.2-1]",
                ));
            }
        }
        Ok(())
    }

    fn challenge(&mut self, auth: Properties<'_>) {
        let data = auth.auth_data().unwrap_or_default().to_vec();
        self.events.push_back(Event::Challenge { data });
    }

    fn check_method(&self, properties: Properties<'_>) -> Result<(), Failure> {
        let chosen = self.options.authentication.as_ref();
        if properties.auth_method() != chosen.map(|authentication| &*authentication.method) {
            return Err(Failure::protocol(
                "the server must use the authentication method of CONNECT [MQTT-4.12.0-5]",
            ));
        }
        Ok(())
    }

    fn on_disconnect(&mut self, disconnect: &Disconnect<'_>) {
        self.events.push_back(Event::Disconnected {
            reason: disconnect.reason,
            properties: disconnect.properties.iter().collect(),
        });
        self.output.clear();
        self.phase = Phase::Closing;
    }
}
