//! Messages out: now if there is room, later from memory if not.

use std::sync::Arc;

use campanile_mqtt::{
    AckKind, PacketId, Property, QoS, Reason, encode_ack,
    publish::{self, Head, Outgoing},
};

use super::{
    Pending, Shard, attached_in,
    conn::{Live, Queued, Tag, TagSource},
    leave::NO_PUSH,
    live_in,
    routing::Incoming,
};
use crate::{
    ids::{ConnId, MessageId, Millis, Offset},
    lane::Lane,
    message::{Kind, Message},
    outbox::Outbox,
    stats::Stats,
    store::{Command, InboxItem, Query, Source, Unfinished},
};

/// What came of an attempt to write a PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// It is larger than the client allows; it counts as delivered [MQTT-3.1.2-25].
    TooLarge,
}

/// How a message goes to one client.
pub(super) struct Delivery<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<PacketId>,
    pub subscription_ids: &'a [u32],
}

impl Shard {
    /// Sends a message that is being routed to a live subscriber, or queues it.
    pub(super) fn deliver(
        &mut self,
        slot: u32,
        incoming: &mut Incoming<'_>,
        qos: QoS,
        retain: bool,
        subscription_ids: &[u32],
    ) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if live.blocked || live.has_queue() || qos > QoS::AtMostOnce && live.outbound.free() == 0 {
            let (ids, now) = (self.ids.clone(), self.now);
            let queued = Queued {
                message: incoming.shared_message(|| ids.next(now)).clone(),
                qos,
                retain,
                subscription_ids: subscription_ids.iter().copied().collect(),
                shared: None,
                keeper: None,
            };
            return self.enqueue(slot, queued, 0);
        }
        if incoming.payload.len() >= LARGE_PAYLOAD_BYTES {
            let (ids, now) = (&self.ids, self.now);
            incoming.shared_message(|| ids.next(now));
        }
        let outgoing = incoming.outgoing(self.now);
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => live.outbound.send(qos, MEMORY),
        };
        let delivery = Delivery {
            qos,
            retain,
            dup: false,
            packet_id,
            subscription_ids,
        };
        if write_publish(
            live,
            &mut self.outbox,
            &mut self.stats,
            &outgoing,
            &delivery,
            incoming.shared.as_ref(),
        ) == Sent::TooLarge
        {
            give_back(live, packet_id, qos);
        }
    }

    /// Sends a message from memory, or queues it.
    pub(super) fn send_or_queue(&mut self, slot: u32, queued: Queued) {
        self.send_or_queue_within(slot, queued, 0);
    }

    /// As [`Shard::send_or_queue`]. `allowance`: so many more may wait than usual, whatever their size: they are kept in memory anyway.
    pub(super) fn send_or_queue_within(&mut self, slot: u32, queued: Queued, allowance: usize) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            // A member of a group is one before it hears that it is connected.
            return match attached_in(&mut self.conns, slot) {
                Some(_) if queued.shared.is_some() => self.enqueue(slot, queued, allowance),
                _ => self.done_with_shared(queued.keeper),
            };
        };
        if live.blocked
            || live.has_queue()
            || queued.qos > QoS::AtMostOnce && live.outbound.free() == 0
        {
            return self.enqueue(slot, queued, allowance);
        }
        self.send_queued(slot, queued);
    }

    fn enqueue(&mut self, slot: u32, queued: Queued, allowance: usize) {
        let (max_messages, max_bytes) = (
            self.config.max_queued_messages,
            self.config.max_queued_bytes,
        );
        let Some(live) = attached_in(&mut self.conns, slot) else {
            return;
        };
        let rare = live.rare();
        let bytes = queued.message.size_bytes();
        if rare.queue.len() >= max_messages as usize + allowance
            || allowance == 0 && rare.queued_bytes + bytes > max_bytes as usize
        {
            self.stats.dropped_queue_full += 1;
            return self.done_with_shared(queued.keeper);
        }
        rare.queued_bytes += bytes;
        rare.queue.push_back(queued);
        self.stats.queued_messages += 1;
        self.stats.queued_bytes += bytes as u64;
    }

    /// Sends from memory; the caller has seen that there is room.
    fn send_queued(&mut self, slot: u32, queued: Queued) {
        let now = self.now;
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if queued.message.is_expired(now) {
            self.stats.dropped_expired += 1;
            return self.done_with_shared(queued.keeper);
        }
        let push = receipt_of(&queued.message);
        let tag = Tag {
            source: TagSource::Memory,
            offset: Offset(0),
            push,
        };
        let packet_id = match queued.qos {
            QoS::AtMostOnce => None,
            qos => live.outbound.send(qos, tag),
        };
        let delivery = Delivery {
            qos: queued.qos,
            retain: queued.retain,
            dup: false,
            packet_id,
            subscription_ids: &queued.subscription_ids,
        };
        let mut properties = Vec::new();
        let outgoing = outgoing_of(&queued.message, Offset(0), now, &mut properties);
        if write_publish(
            live,
            &mut self.outbox,
            &mut self.stats,
            &outgoing,
            &delivery,
            Some(&queued.message),
        ) == Sent::TooLarge
        {
            give_back(live, packet_id, queued.qos);
            return self.done_with_shared(queued.keeper);
        }
        match (packet_id, &queued.shared) {
            (Some(packet_id), Some(_)) => live.rare().shared.push((packet_id, queued)),
            // Nobody acknowledges it.
            _ => self.done_with_shared(queued.keeper),
        }
    }

    /// Sends what waits in memory, as far as there is room.
    fn pump_queue(&mut self, slot: u32) {
        loop {
            let Some((_, live)) = live_in(&mut self.conns, slot) else {
                return;
            };
            let room = live.outbound.free() > 0;
            let blocked = live.blocked;
            let Some(rare) = &mut live.rare else { return };
            let Some(next) = rare.queue.front() else {
                return;
            };
            if blocked || next.qos > QoS::AtMostOnce && !room {
                return;
            }
            let queued = rare.queue.pop_front().expect("just seen");
            rare.queued_bytes -= queued.message.size_bytes();
            self.stats.queued_messages -= 1;
            self.stats.queued_bytes -= queued.message.size_bytes() as u64;
            self.send_queued(slot, queued);
        }
    }

    /// Sends whatever waits for a client: unfinished exchanges first, then pushes, topics, and what is in memory; campaigns among them, by their lanes.
    pub(super) fn pump(&mut self, slot: u32) {
        if !self.continue_resend(slot) {
            return;
        }
        self.pump_pushes(slot);
        self.pump_campaigns(slot, Lane::High);
        self.pump_campaigns(slot, Lane::Normal);
        self.pump_low_share(slot);
        self.pump_topics(slot);
        self.pump_queue(slot);
        self.pump_campaigns(slot, Lane::Low);
    }

    /// Begins a session's service after its CONNACK.
    pub(super) fn take_up(&mut self, conn: ConnId, unfinished: Vec<Unfinished>) {
        if self.answered(conn).is_none() {
            return;
        }
        let client = self.key_of(self.live(conn.slot).expect("just seen"));
        let (_, mut live) = self.take_live(conn.slot);
        self.note_lag(&mut live);
        self.put_live(conn.slot, live);
        self.take_up_campaigns(conn.slot);
        let is_stored = |u: &&Unfinished| !matches!(u.source, Source::Campaign(_));
        let places: Vec<(Source, Offset)> = unfinished
            .iter()
            .filter(|u| !u.released)
            .filter(is_stored)
            .map(|u| (u.source, u.offset))
            .collect();
        if unfinished.is_empty() || places.is_empty() {
            return self.pump(conn.slot);
        }
        let live = self.live_mut(conn.slot).expect("just seen");
        live.rare().resend = Some(Vec::new());
        live.rare().resend_reading = true;
        self.query(Query::Entries { client, places }, Pending::Resend(conn));
    }

    /// Entries may have come between a client's claim and its CONNACK.
    pub(super) fn note_lag(&self, live: &mut Live) {
        let app = &self.apps[usize::from(live.app)];
        if !live.push.position.lagging && live.push.position.read < app.push_tail.end() {
            live.push.position.lagging = true;
            live.push.replay.get_or_insert_default();
        }
        for (stream, tail) in live.topics.iter_mut().zip(&app.topic_tails) {
            stream.position.lagging |= stream.position.read < tail.end();
        }
    }

    /// The messages of unfinished exchanges were read.
    pub(super) fn on_resend_page(
        &mut self,
        conn: ConnId,
        items: Vec<((Source, Offset), InboxItem)>,
    ) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let rare = live.rare();
        rare.resend_reading = false;
        rare.resend = Some(items);
        self.pump(conn.slot);
    }

    /// Takes unfinished exchanges of an earlier connection up again, in their order. Whether all are.
    fn continue_resend(&mut self, slot: u32) -> bool {
        loop {
            let now = self.now;
            let Some((conn, live)) = live_in(&mut self.conns, slot) else {
                return false;
            };
            if live.rare.as_ref().is_some_and(|rare| rare.resend_reading) {
                return false;
            }
            let Some(unfinished) = live.outbound.poll_resend() else {
                let all = live.outbound.resends_left() == 0;
                if let Some(rare) = live.rare.as_mut().filter(|_| all) {
                    rare.resend = None;
                }
                return all;
            };
            let packet_id = unfinished.packet_id;
            if unfinished.released {
                let version = live.version;
                self.stats.packets_out += 1;
                self.outbox.write(conn, |out| {
                    encode_ack(out, version, AckKind::PubRel, packet_id, Reason::Success);
                });
                continue;
            }
            let tag = unfinished.tag;
            let source = match tag.source {
                TagSource::Log(log) => Some(Source::Log(log)),
                TagSource::Inbox => Some(Source::Inbox),
                TagSource::Memory | TagSource::Campaign => None,
            };
            let of_campaign = match tag.source {
                TagSource::Campaign => self.campaign_item(slot, tag.push),
                _ => None,
            };
            let Some((_, live)) = live_in(&mut self.conns, slot) else {
                return false;
            };
            let item = live.rare.as_ref().and_then(|rare| {
                let items = rare.resend.as_ref()?;
                items
                    .iter()
                    .find(|(place, _)| Some(place.0) == source && place.1 == tag.offset)
            });
            // What was sent does not expire [MQTT-4.3.3-7] [MQTT-4.4.0-1]. A push of QoS 1 does: it may never have left the socket of a lost connection, and
            // whoever set its time to live does not want it later.
            let is_void = |item: &InboxItem| {
                unfinished.qos == QoS::AtLeastOnce
                    && item.message.kind == Kind::Push
                    && item.message.is_expired(now)
            };
            let campaigns = &self.apps[usize::from(live.app)].campaigns;
            if tag.source == TagSource::Campaign && !campaigns.has_heard_of(tag.push) {
                // The node of the earlier connection has. The device has its turn again when this one hears of it, if it is not long over.
                give_back(live, Some(packet_id), unfinished.qos);
                self.consider_what_is_behind(slot);
                continue;
            }
            let item = item
                .map(|(_, item)| item.clone())
                .filter(|item| !campaigns.is_ended(&item.message))
                .or(of_campaign)
                .filter(|item| !is_void(item));
            match item {
                Some(item) => self.resend(slot, packet_id, unfinished.qos, tag, item),
                // Expired or trimmed.
                None => {
                    self.stats.dropped_expired += 1;
                    self.give_up(slot, packet_id, unfinished.qos, tag);
                }
            }
        }
    }

    /// Ends an exchange of an earlier connection whose message is not to be sent again. The client may have a QoS 2 message and wait for its PUBREL: would
    /// the identifier just be used again, it would take the next message for a repetition.
    fn give_up(&mut self, slot: u32, packet_id: PacketId, qos: QoS, tag: Tag) {
        let Some((conn, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if qos != QoS::ExactlyOnce {
            give_back(live, Some(packet_id), qos);
            return self.finished(slot, tag, false);
        }
        let push = NO_PUSH;
        live.outbound.retag(packet_id, Tag { push, ..tag });
        let _ = live.outbound.on_pubrec(packet_id, true);
        let version = live.version;
        self.stats.packets_out += 1;
        self.outbox.write(conn, |out| {
            encode_ack(out, version, AckKind::PubRel, packet_id, Reason::Success);
        });
    }

    fn resend(&mut self, slot: u32, packet_id: PacketId, qos: QoS, tag: Tag, item: InboxItem) {
        let now = self.now;
        let (mut retain, mut ids) = (item.retain, item.subscription_ids);
        if let (TagSource::Log(_), Kind::Publish) = (tag.source, item.message.kind) {
            match self.effective(slot, &item.message, true) {
                Some(found) => (retain, ids) = (found.retain, found.subscription_ids),
                None => (retain, ids) = (false, Default::default()),
            }
        }
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        live.outbound.retag(
            packet_id,
            Tag {
                push: receipt_of(&item.message),
                ..tag
            },
        );
        let mut properties = Vec::new();
        let outgoing = outgoing_of(&item.message, tag.offset, now, &mut properties);
        let delivery = Delivery {
            qos,
            retain,
            dup: true,
            packet_id: Some(packet_id),
            subscription_ids: &ids,
        };
        if write_publish(
            live,
            &mut self.outbox,
            &mut self.stats,
            &outgoing,
            &delivery,
            Some(&item.message),
        ) == Sent::TooLarge
        {
            self.give_up(slot, packet_id, qos, tag);
        }
    }

    /// Saves the identifiers of QoS 2 messages of a durable session, which are sent once that is done.
    pub(super) fn save_and_send(&mut self, slot: u32, items: Vec<(PacketId, Queued, Offset)>) {
        if items.is_empty() {
            return;
        }
        let conn = self.live(slot).expect("the caller looked").conn;
        let progress = self.progress_of_slot(slot);
        self.command(Command::Progress(progress), Pending::Send { conn, items });
    }

    /// The identifiers are saved.
    pub(super) fn on_saved(&mut self, conn: ConnId, items: Vec<(PacketId, Queued, Offset)>) {
        let now = self.now;
        let mut has_room = false;
        for (packet_id, queued, offset) in items {
            if self.slot_of(conn).is_none() {
                return;
            }
            let Some((_, live)) = live_in(&mut self.conns, conn.slot) else {
                return;
            };
            let Some(unfinished) = live.outbound.get(packet_id) else {
                continue;
            };
            let mut properties = Vec::new();
            let outgoing = outgoing_of(&queued.message, offset, now, &mut properties);
            let delivery = Delivery {
                qos: queued.qos,
                retain: queued.retain,
                dup: false,
                packet_id: Some(packet_id),
                subscription_ids: &queued.subscription_ids,
            };
            if write_publish(
                live,
                &mut self.outbox,
                &mut self.stats,
                &outgoing,
                &delivery,
                Some(&queued.message),
            ) == Sent::TooLarge
            {
                give_back(live, Some(packet_id), queued.qos);
                self.finished(conn.slot, unfinished.tag, false);
                has_room = true;
            }
        }
        if has_room {
            self.pump(conn.slot);
        }
    }
}

/// Tag of a message that is nowhere but in memory.
pub(super) const MEMORY: Tag = Tag {
    source: TagSource::Memory,
    offset: Offset(0),
    push: NO_PUSH,
};

/// The push that an acknowledgement of the message is a receipt of.
pub(super) fn receipt_of(message: &Message) -> MessageId {
    match message.kind {
        Kind::Push => message.id,
        Kind::Publish => NO_PUSH,
    }
}

/// Ends an exchange that was never begun on the wire, or cannot go on.
pub(super) fn give_back(live: &mut Live, packet_id: Option<PacketId>, qos: QoS) {
    let Some(packet_id) = packet_id else { return };
    if qos == QoS::AtLeastOnce {
        let _ = live.outbound.on_puback(packet_id);
    } else {
        let _ = live.outbound.on_pubrec(packet_id, false);
    }
}

/// The message as it goes out. A push carries its id and place as user properties, put into `properties`.
pub(super) fn outgoing_of<'a>(
    message: &'a Arc<Message>,
    offset: Offset,
    now: Millis,
    properties: &'a mut Vec<u8>,
) -> Outgoing<'a> {
    let mut forwarded = message.properties();
    if message.kind == Kind::Push {
        properties.clear();
        Property::UserProperty(("id", &message.id.to_string())).write(properties);
        if offset > Offset(0) {
            Property::UserProperty(("position", &offset.0.to_string())).write(properties);
        }
        forwarded = properties;
    }
    Outgoing {
        topic: message.topic(),
        payload: message.payload(),
        forwarded,
        message_expiry: message.seconds_left(now),
    }
}

/// Payloads from this size on are referred to, not copied, where the message is shared.
pub(super) const LARGE_PAYLOAD_BYTES: usize = 4096;

/// Writes a PUBLISH, with a topic alias if the client takes them. `message`: where the payload is from, if that is shared.
pub(super) fn write_publish(
    live: &mut Live,
    outbox: &mut Outbox,
    stats: &mut Stats,
    outgoing: &Outgoing<'_>,
    delivery: &Delivery<'_>,
    message: Option<&Arc<Message>>,
) -> Sent {
    let version = live.version;
    let mut head = Head {
        dup: delivery.dup,
        qos: delivery.qos,
        retain: delivery.retain,
        packet_id: delivery.packet_id,
        alias: None,
        subscription_ids: delivery.subscription_ids,
    };
    if live.max_packet_bytes != u32::MAX {
        // With an alias it may be three bytes longer.
        let len = publish::encoded_len(outgoing, &head, version) + 3;
        if len > live.max_packet_bytes as usize {
            stats.dropped_too_large += 1;
            return Sent::TooLarge;
        }
    }
    if version.is_v5() {
        head.alias = live.aliases_out.assign(outgoing.topic);
    }
    stats.packets_out += 1;
    stats.publishes_out[delivery.qos as usize] += 1;
    stats.publish_bytes_out[delivery.qos as usize] += outgoing.payload.len() as u64;
    match message.filter(|_| outgoing.payload.len() >= LARGE_PAYLOAD_BYTES) {
        Some(message) => {
            outbox.write(live.conn, |out| {
                publish::encode_head(outgoing, &head, version, out)
            });
            outbox.write_payload(live.conn, message);
        }
        None => {
            outbox.write(live.conn, |out| {
                publish::encode(outgoing, &head, version, out)
            });
        }
    }
    Sent::Yes
}
