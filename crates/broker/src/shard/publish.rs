//! PUBLISH in: check it, route it to live subscribers, have it kept where somebody may need it later, acknowledge it in order.

use bytes::Bytes;
use campanile_mqtt::{
    AckKind, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS, Reason,
    encode_ack, session::Verdict as InboundVerdict, topic,
};

use super::{
    Pending, Shard, Violation,
    conn::PendingAck,
    devices::{REGISTRATION_TOPIC, SYNC_TOPIC},
    late::Late,
    routing::{Incoming, Routed},
};
use crate::{
    effects::{Content, Statement, Ticket},
    ids::ConnId,
    store::{self, Command, LogKind, Outcome, Received, Sender, StoreError, Tell},
};

/// Where a device tells the push domain what became of its pushes. What is published here is for the server alone: nobody gets it by a subscription, and it is
/// not retained.
pub(super) const TOLD_TOPIC: &str = "push/ack";

/// Whether a topic belongs to the server: clients must not publish to it.
pub(super) fn reserved_name(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    matches!(first, "$SYS" | "$share" | "$queue") || matches!(name, "push/in" | "push/ctl")
}

/// Whether what is published there is for the server alone.
pub(super) fn told_name(name: &str) -> bool {
    matches!(name, TOLD_TOPIC | REGISTRATION_TOPIC | SYNC_TOPIC)
}

impl Shard {
    pub(super) fn on_publish(&mut self, slot: u32, packet: Publish<'_>) -> Result<(), Violation> {
        let qos = packet.qos;
        self.stats.publishes_in[qos as usize] += 1;
        self.stats.publish_bytes_in[qos as usize] += packet.payload.len() as u64;
        let mut topic_buffer = std::mem::take(&mut self.scratch.topic);
        let mut properties = std::mem::take(&mut self.scratch.properties);
        properties.clear();
        let result = self.publish(slot, &packet, &mut topic_buffer, &mut properties);
        self.scratch.topic = topic_buffer;
        self.scratch.properties = properties;
        result
    }

    pub(super) fn publish(
        &mut self,
        slot: u32,
        packet: &Publish<'_>,
        topic_buffer: &mut String,
        properties: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let (max_payload, max_qos) = (self.config.max_payload_bytes, self.config.max_qos);
        let retain_available = self.config.retain_available;
        let live = self.live_mut(slot).expect("the caller looked");
        let mut name = packet.topic;
        if let Some(alias) = packet.properties.topic_alias() {
            let resolved = live
                .aliases_in
                .resolve(alias, packet.topic)
                .map_err(|error| Violation::new(error.reason(), error.to_string()))?;
            if packet.topic.is_empty() {
                topic_buffer.clear();
                topic_buffer.push_str(resolved);
                name = topic_buffer;
            }
        }
        if packet.properties.subscription_ids().next().is_some() {
            let text = "subscription id: a client must not send one in a PUBLISH [MQTT-3.3.4-6]";
            return Err(Violation::new(Reason::ProtocolError, text));
        }
        if packet.payload.len() > max_payload as usize {
            let text = format!(
                "payload of {} bytes: larger than {max_payload}",
                packet.payload.len()
            );
            return Err(Violation::new(Reason::PacketTooLarge, text));
        }
        if packet.qos > max_qos {
            let text = format!(
                "qos {}: this server serves up to {} [MQTT-3.2.2-11]",
                packet.qos as u8, max_qos as u8
            );
            return Err(Violation::new(Reason::QoSNotSupported, text));
        }
        if packet.retain && !retain_available {
            let text = "retain: this server does not retain messages [MQTT-3.2.2-14]";
            return Err(Violation::new(Reason::RetainNotSupported, text));
        }
        if let Some(packet_id) = packet.packet_id {
            match live.inbound.on_publish(packet_id, packet.qos) {
                InboundVerdict::New => {}
                InboundVerdict::Duplicate => {
                    self.on_duplicate(slot, packet_id);
                    return Ok(());
                }
                InboundVerdict::QuotaExceeded => {
                    let text = "receive maximum: exceeded [MQTT-3.3.4-9]";
                    return Err(Violation::new(Reason::ReceiveMaximumExceeded, text));
                }
            }
        }
        if let Some((reason, text)) = self.forbidden(slot, name, packet) {
            self.acknowledge(slot, packet.packet_id, packet.qos, reason, text);
            return Ok(());
        }
        if told_name(name) {
            match name {
                TOLD_TOPIC => self.tell(slot, packet),
                REGISTRATION_TOPIC => self.state(slot, packet, Content::Registration),
                _ => self.state(slot, packet, Content::Sync),
            }
            return Ok(());
        }
        packet.properties.write_forwardable(properties);
        let live = self.live(slot).expect("the caller looked");
        let app = live.app;
        let now = self.now;
        let mut incoming = Incoming {
            topic: name,
            forwarded: properties,
            payload: packet.payload,
            qos: packet.qos,
            retain: packet.retain,
            expires_at: packet
                .properties
                .message_expiry()
                .map(|seconds| now.plus_seconds(seconds)),
            publisher: Some(live.client_id.clone()),
            shared: None,
        };
        self.accept(slot, app, packet.packet_id, &mut incoming);
        Ok(())
    }

    /// Why a publish is not carried out although the connection goes on.
    pub(super) fn forbidden(
        &self,
        slot: u32,
        name: &str,
        packet: &Publish<'_>,
    ) -> Option<(Reason, &'static str)> {
        let live = self.live(slot)?;
        if topic::levels(name) > usize::from(self.config.max_topic_levels) {
            return Some((Reason::TopicNameInvalid, "the topic has too many levels"));
        }
        if reserved_name(name) {
            return Some((
                Reason::NotAuthorized,
                "the topic is reserved for the server",
            ));
        }
        if told_name(name) {
            // A device may always speak for itself, as it may always get its pushes.
            return None;
        }
        if !self
            .access
            .may_publish(&live.identity, &live.client_id, name)
        {
            return Some((
                Reason::NotAuthorized,
                "the client may not publish to this topic",
            ));
        }
        if packet.retain && !packet.payload.is_empty() {
            let retained = &self.apps[usize::from(live.app)].retained;
            if retained.len() >= self.config.max_retained as usize && !retained.contains(name) {
                return Some((Reason::QuotaExceeded, "too many retained messages"));
            }
        }
        None
    }

    /// A checked message of a client: route it, keep it if need be, acknowledge it.
    pub(super) fn accept(
        &mut self,
        slot: u32,
        app: u16,
        packet_id: Option<PacketId>,
        incoming: &mut Incoming<'_>,
    ) {
        if self.is_blind(slot, incoming.qos) {
            let text = "the store cannot be read; try again later";
            return self.refuse_to_keep(slot, packet_id, incoming.qos, text);
        }
        let exactly_once = incoming.qos == QoS::ExactlyOnce;
        let live = self.live(slot).expect("the caller looked");
        let epoch = live.epoch;
        let received = (exactly_once && live.is_durable()).then(|| Received {
            client: self.key_of(live),
            epoch,
            packet_id: packet_id.expect("QoS 2 has an identifier"),
        });
        // A QoS 2 message that must be kept reaches nobody before it is: a repetition after a failure would be a second one. Nor does one that
        // comes after such a message.
        let overtakes = self.late.has(app, &live.client_id);
        let must_keep = received.is_some() || overtakes;
        let late =
            exactly_once && (must_keep || incoming.retain || self.needs_store(app, incoming.topic));
        let mut routed = if late {
            self.plan(app, incoming)
        } else {
            self.route(app, incoming)
        };
        let matched = routed.matched;
        let chosen = std::mem::take(&mut routed.chosen);
        let keep = self.keep(app, incoming, routed, exactly_once && must_keep);
        let Some(mut publish) = keep else {
            if late {
                self.route_live(app, incoming, &chosen);
            }
            self.stats.unrouted += u64::from(!matched);
            let reason = if matched {
                Reason::Success
            } else {
                Reason::NoMatchingSubscribers
            };
            self.acknowledge(slot, packet_id, incoming.qos, reason, "");
            return;
        };
        publish.received = received;
        publish.sender = packet_id.map(|_| self.sender(slot));
        let message = publish.message.clone();
        let qos = incoming.qos;
        let ticket = self.have_kept(slot, packet_id, qos, Command::Publish(publish));
        if let Some(ticket) = ticket.filter(|_| late) {
            self.late.wait(
                ticket,
                Late {
                    app,
                    message,
                    chosen,
                },
            );
        }
    }

    fn sender(&self, slot: u32) -> Sender {
        let live = self.live(slot).expect("the caller looked");
        Sender {
            shard: self.id,
            conn: live.conn,
            hears_refusals: live.version.is_v5(),
        }
    }

    /// What a device tells the push domain.
    fn tell(&mut self, slot: u32, packet: &Publish<'_>) {
        let live = self.live(slot).expect("the caller looked");
        let tell = Command::Tell(Tell {
            client: self.key_of(live),
            ordinal: live.ordinal,
            payload: Bytes::copy_from_slice(packet.payload),
        });
        self.have_kept(slot, packet.packet_id, packet.qos, tell);
    }

    /// What a device says of itself, or of how far it has got.
    fn state(&mut self, slot: u32, packet: &Publish<'_>, content: fn(Bytes) -> Content) {
        if !self.has_room_in_store(slot, packet.packet_id, packet.qos) {
            return;
        }
        let live = self.live(slot).expect("the caller looked");
        let (conn, packet_id) = (live.conn, packet.packet_id);
        let statement = Statement {
            client: self.key_of(live),
            identity: live.identity.device.clone(),
            content: content(Bytes::copy_from_slice(packet.payload)),
        };
        let ticket = self.ticket(Pending::Statement { conn, packet_id });
        self.effects.statements.push((ticket, Box::new(statement)));
        self.owe_ack(slot, packet_id, packet.qos);
    }

    /// Asks the store for what a message needs before it is acknowledged. `None`: it was refused, as the store is behind.
    fn have_kept(
        &mut self,
        slot: u32,
        packet_id: Option<PacketId>,
        qos: QoS,
        command: Command,
    ) -> Option<Ticket> {
        if !self.has_room_in_store(slot, packet_id, qos) {
            return None;
        }
        let conn = self.live(slot).expect("the caller looked").conn;
        let retained = matches!(&command, Command::Publish(publish) if publish.retain);
        let pending = Pending::Publish {
            conn,
            packet_id,
            retained,
        };
        let ticket = self.command(command, pending);
        if retained {
            let live = self.live_mut(slot).expect("the caller looked");
            live.rare().pending_retained += 1;
        }
        self.owe_ack(slot, packet_id, qos);
        Some(ticket)
    }

    /// Whether the store can be asked for something that a message needs; if not, the message is refused.
    fn has_room_in_store(&mut self, slot: u32, packet_id: Option<PacketId>, qos: QoS) -> bool {
        let is_behind = self.store_is_behind();
        if is_behind {
            let text = "the store is behind; try again later";
            self.refuse_to_keep(slot, packet_id, qos, text);
        }
        !is_behind
    }

    /// A message is acknowledged once there is an answer.
    fn owe_ack(&mut self, slot: u32, packet_id: Option<PacketId>, qos: QoS) {
        let Some(packet_id) = packet_id else { return };
        let live = self.live_mut(slot).expect("the caller looked");
        live.rare().acks.push_back(PendingAck {
            packet_id,
            qos,
            ready: None,
        });
    }

    fn refuse_to_keep(&mut self, slot: u32, packet_id: Option<PacketId>, qos: QoS, text: &str) {
        self.stats.refused_store += 1;
        if packet_id.is_some() && !self.live(slot).is_some_and(|live| live.version.is_v5()) {
            // There is no way to say no: without an acknowledgement the client sends it again after a reconnect.
            self.refuse(slot, Reason::QuotaExceeded, text);
        } else {
            self.acknowledge(slot, packet_id, qos, Reason::QuotaExceeded, text);
        }
    }

    /// What the store is to do with a message, or `None` if nothing.
    pub(super) fn keep(
        &mut self,
        app: u16,
        incoming: &mut Incoming<'_>,
        routed: Routed,
        always: bool,
    ) -> Option<store::Publish> {
        let log = (!routed.durable.is_empty() && incoming.qos > QoS::AtMostOnce)
            .then(|| LogKind::Topic(self.partition(incoming.topic)));
        if log.is_none() && routed.inboxes.is_empty() && !incoming.retain && !always {
            return None;
        }
        let (ids, now) = (self.ids.clone(), self.now);
        Some(store::Publish {
            app: self.apps[usize::from(app)].id.clone(),
            message: incoming.shared_message(|| ids.next(now)).clone(),
            log,
            filters: routed.durable,
            inboxes: routed.inboxes,
            retain: incoming.retain,
            received: None,
            spends_will: None,
            sender: None,
        })
    }

    /// The store's answer for an incoming message.
    pub(super) fn on_kept(
        &mut self,
        ticket: Ticket,
        conn: ConnId,
        packet_id: Option<PacketId>,
        retained: bool,
        result: Result<Outcome, StoreError>,
    ) {
        for late in self.late.settle(ticket, result.is_ok()) {
            self.route_late(&late);
        }
        if result.is_err() {
            self.stats.refused_store += 1;
        }
        let Some(live) = self.answered(conn) else {
            return;
        };
        let rare = live.rare();
        if retained {
            rare.pending_retained -= 1;
        }
        let resume = std::mem::take(&mut live.paused);
        if let Some(packet_id) = packet_id {
            let reason = match &result {
                Ok(Outcome::Nothing | Outcome::Told(_)) => Reason::ImplementationSpecificError,
                Ok(_) => Reason::Success,
                Err(StoreError::Fenced) => Reason::SessionTakenOver,
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => Reason::QuotaExceeded,
            };
            let live = self.live_mut(conn.slot).expect("just seen");
            let acks = &mut live.rare().acks;
            if let Some(ack) = acks
                .iter_mut()
                .find(|ack| ack.ready.is_none() && ack.packet_id == packet_id)
            {
                ack.ready = Some(reason);
            }
            let sender = self.sender(conn.slot);
            if result.is_err_and(|error| sender.is_closed_by(&error)) {
                return self.refuse(conn.slot, Reason::QuotaExceeded, "the store is unavailable");
            }
            self.flush_acks(conn.slot);
        }
        if resume {
            self.effects.resume.push(conn);
        }
    }

    /// Acknowledges a message, after those that came before it [MQTT-4.6.0-2].
    pub(super) fn acknowledge(
        &mut self,
        slot: u32,
        packet_id: Option<PacketId>,
        qos: QoS,
        reason: Reason,
        text: &str,
    ) {
        let Some(packet_id) = packet_id else { return };
        let live = self.live_mut(slot).expect("the caller looked");
        if let Some(rare) = live.rare.as_mut().filter(|rare| !rare.acks.is_empty()) {
            rare.acks.push_back(PendingAck {
                packet_id,
                qos,
                ready: Some(reason),
            });
            return;
        }
        self.write_ack(slot, packet_id, qos, reason, text);
    }

    /// Sends the acknowledgements that wait for nothing any more.
    pub(super) fn flush_acks(&mut self, slot: u32) {
        while let Some(live) = self.live_mut(slot) {
            let Some(rare) = &mut live.rare else { return };
            let Some(PendingAck {
                packet_id,
                qos,
                ready: Some(reason),
            }) = rare.acks.front().copied()
            else {
                return;
            };
            rare.acks.pop_front();
            let text = match reason {
                Reason::QuotaExceeded => "the store is unavailable",
                Reason::ImplementationSpecificError => "the payload is not what the topic takes",
                _ => "",
            };
            self.write_ack(slot, packet_id, qos, reason, text);
        }
    }

    pub(super) fn write_ack(
        &mut self,
        slot: u32,
        packet_id: PacketId,
        qos: QoS,
        reason: Reason,
        text: &str,
    ) {
        let live = self.live_mut(slot).expect("the caller looked");
        let (conn, version) = (live.conn, live.version);
        // Before 5.0 a refusal cannot be said: the message is acknowledged and dropped [MQTT-3.3.5-2 in 3.1.1].
        let reason = if version.is_v5() {
            reason
        } else {
            Reason::Success
        };
        let kind = if qos == QoS::AtLeastOnce {
            live.inbound.finish_qos1();
            AckKind::PubAck
        } else {
            if reason.is_error() {
                live.inbound.on_pubrec_error(packet_id);
            }
            AckKind::PubRec
        };
        self.stats.packets_out += 1;
        let explained = live_explains(self.live(slot), text);
        if !explained {
            self.outbox.write(conn, |out| {
                encode_ack(out, version, kind, packet_id, reason)
            });
            return;
        }
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ReasonString(text));
        let properties: Properties<'_> = properties.as_properties();
        let ack = campanile_mqtt::Ack {
            packet_id,
            reason,
            properties,
        };
        let packet = if kind == AckKind::PubAck {
            Packet::PubAck(ack)
        } else {
            Packet::PubRec(ack)
        };
        self.outbox.write(conn, |out| packet.encode(version, out));
    }

    /// A QoS 2 message that arrived before: say so again, unless its first acknowledgement is still to come.
    pub(super) fn on_duplicate(&mut self, slot: u32, packet_id: PacketId) {
        let live = self.live_mut(slot).expect("the caller looked");
        let acks = live.rare.as_ref().map(|rare| &rare.acks);
        if acks.is_some_and(|acks| acks.iter().any(|ack| ack.packet_id == packet_id)) {
            return;
        }
        self.acknowledge(slot, Some(packet_id), QoS::ExactlyOnce, Reason::Success, "");
    }
}

/// Whether the client wants reason strings, and there is one.
fn live_explains(live: Option<&super::Live>, text: &str) -> bool {
    live.is_some_and(|live| {
        !text.is_empty()
            && live.version.is_v5()
            && live.problem_information
            && text.len() + 64 < live.max_packet_bytes as usize
    })
}
