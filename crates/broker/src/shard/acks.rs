//! Acknowledgements in: exchanges end, cursors move, receipts are written.

use campanile_mqtt::{
    Ack, AckKind, PacketId, Reason, encode_ack,
    session::{PubRec, Unfinished},
};

use super::{
    Pending, Shard,
    conn::{MAX_DONE_ABOVE, Tag, TagSource},
    leave::NO_PUSH,
    live_in,
};
use crate::{
    ids::{ConnId, Millis},
    mail::Keeper,
    store::{Command, LogKind, StoreError},
};

/// How long finished deliveries may wait until they are saved. A crash repeats at most what finished in this time.
const SAVE_DELAY_MS: u64 = 100;

impl Shard {
    pub(super) fn on_puback(&mut self, slot: u32, ack: Ack<'_>) {
        let live = self.live_mut(slot).expect("the caller looked");
        // An identifier that is not known is a repetition; nothing is owed for it.
        if let Ok(tag) = live.outbound.on_puback(ack.packet_id) {
            let keeper = forget_shared(live, ack.packet_id);
            self.done_with_shared(keeper);
            self.finished(slot, tag, true);
        }
        self.pump(slot);
    }

    pub(super) fn on_pubrec(&mut self, slot: u32, ack: Ack<'_>) {
        let live = self.live_mut(slot).expect("the caller looked");
        let (conn, durable) = (live.conn, live.is_durable());
        let answer = live
            .outbound
            .on_pubrec(ack.packet_id, !ack.reason.is_error());
        if matches!(answer, PubRec::Released(_) | PubRec::Ended(_)) {
            let keeper = forget_shared(live, ack.packet_id);
            self.done_with_shared(keeper);
        }
        match answer {
            PubRec::Released(tag) => {
                if durable && tag.source != TagSource::Memory {
                    // If PUBREL left before this is saved, a crash could send the message a second time.
                    let progress = self.progress_of_slot(slot);
                    let pending = Pending::PubRel {
                        conn,
                        packet_id: ack.packet_id,
                    };
                    self.command(Command::Progress(progress), pending);
                } else {
                    self.write_pubrel(conn, ack.packet_id, Reason::Success);
                }
            }
            PubRec::AlreadyReleased => self.write_pubrel(conn, ack.packet_id, Reason::Success),
            PubRec::Ended(tag) => {
                self.finished(slot, tag, true);
                self.pump(slot);
            }
            // A refusal that is repeated: nothing is to be released [MQTT-4.3.3-4].
            PubRec::Unknown if ack.reason.is_error() => {}
            PubRec::Unknown => {
                self.write_pubrel(conn, ack.packet_id, Reason::PacketIdentifierNotFound);
            }
        }
    }

    pub(super) fn on_pubcomp(&mut self, slot: u32, ack: Ack<'_>) {
        let live = self.live_mut(slot).expect("the caller looked");
        if let Some(tag) = live.outbound.on_pubcomp(ack.packet_id) {
            self.finished(slot, tag, true);
        }
        self.pump(slot);
    }

    pub(super) fn on_pubrel(&mut self, slot: u32, ack: Ack<'_>) {
        let live = self.live(slot).expect("the caller looked");
        let (conn, epoch) = (live.conn, live.epoch);
        if !live.inbound.on_pubrel(ack.packet_id) {
            return self.write_pubcomp(conn, ack.packet_id, Reason::PacketIdentifierNotFound);
        }
        if live.is_durable() {
            let client = self.key_of(live);
            let live = self.live_mut(slot).expect("just seen");
            if !live.rare().releasing.insert(ack.packet_id) {
                // Said again; the answer is under way.
                return;
            }
            let command = Command::ForgetReceived {
                client,
                epoch,
                packet_id: ack.packet_id,
            };
            self.command(
                command,
                Pending::PubComp {
                    conn,
                    packet_id: ack.packet_id,
                },
            );
            return;
        }
        let live = self.live_mut(slot).expect("just seen");
        live.inbound.finish_qos2(ack.packet_id);
        self.write_pubcomp(conn, ack.packet_id, Reason::Success);
    }

    /// The store has forgotten a received identifier.
    pub(super) fn on_forgotten(
        &mut self,
        conn: ConnId,
        packet_id: PacketId,
        result: Result<(), StoreError>,
    ) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        live.rare().releasing.remove(&packet_id);
        match result {
            Ok(()) => {
                live.inbound.finish_qos2(packet_id);
                self.write_pubcomp(conn, packet_id, Reason::Success);
            }
            // PUBCOMP has no reason code for this: the client repeats PUBREL after a reconnect.
            Err(error) => {
                self.stats.refused_store += 1;
                self.refuse(conn.slot, Reason::UnspecifiedError, &error.to_string());
            }
        }
    }

    /// The store has saved that a message is released.
    pub(super) fn on_released(
        &mut self,
        conn: ConnId,
        packet_id: PacketId,
        result: Result<(), StoreError>,
    ) {
        if self.answered(conn).is_none() {
            return;
        }
        match result {
            Ok(()) => self.write_pubrel(conn, packet_id, Reason::Success),
            Err(error) => {
                self.stats.refused_store += 1;
                self.refuse(conn.slot, Reason::UnspecifiedError, &error.to_string());
            }
        }
    }

    fn write_pubrel(&mut self, conn: ConnId, packet_id: PacketId, reason: Reason) {
        self.write_plain_ack(conn, AckKind::PubRel, packet_id, reason);
    }

    fn write_pubcomp(&mut self, conn: ConnId, packet_id: PacketId, reason: Reason) {
        self.write_plain_ack(conn, AckKind::PubComp, packet_id, reason);
    }

    fn write_plain_ack(
        &mut self,
        conn: ConnId,
        kind: AckKind,
        packet_id: PacketId,
        reason: Reason,
    ) {
        let Some((_, live)) = live_in(&mut self.conns, conn.slot) else {
            return;
        };
        let version = live.version;
        self.stats.packets_out += 1;
        self.outbox.write(conn, |out| {
            encode_ack(out, version, kind, packet_id, reason)
        });
    }

    /// A delivery is over. `reached`: the client has it.
    pub(super) fn finished(&mut self, slot: u32, tag: Tag, reached: bool) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        match tag.source {
            TagSource::Memory => {}
            TagSource::Campaign => return self.campaign_over(slot, tag.push, reached),
            TagSource::Inbox => live
                .unsaved
                .get_or_insert_default()
                .inbox_done
                .push(tag.offset),
            TagSource::Log(log) => {
                let of_source = |u: &Unfinished<Tag>| u.tag.source == tag.source;
                let mut unfinished = live.outbound.unfinished().filter(of_source);
                // Of one source, messages are sent in ascending order, after those of an earlier connection.
                let lowest = match live.rare.as_ref().is_some_and(|rare| rare.has_resent) {
                    true => unfinished.min_by_key(|u| u.tag.offset),
                    false => unfinished.next(),
                };
                let lower = lowest.is_some_and(|u| u.tag.offset < tag.offset);
                let app = &self.apps[usize::from(live.app)];
                let (position, end) = match log {
                    LogKind::Push => (&mut live.push.position, app.push_tail.end()),
                    LogKind::Topic(partition) => {
                        let partition = usize::from(partition);
                        let position = &mut live.topics[partition].position;
                        (position, app.topic_tails[partition].end())
                    }
                };
                // What a client took up again from an earlier connection comes once more if the client lags, or if this node has not heard of it yet.
                let reached = position.reached(end);
                let ahead = tag.offset > reached;
                if (lower || ahead)
                    && let Err(at) = position.done_above.binary_search(&tag.offset)
                {
                    position.done_above.insert(at, tag.offset);
                }
                if position.done_above.len() >= MAX_DONE_ABOVE {
                    let done = lowest.map_or(u64::MAX, |u| u.tag.offset.0 - 1);
                    position
                        .done_above
                        .retain(|offset| offset.0 > done.min(reached.0));
                }
            }
        }
        if reached && tag.push != NO_PUSH {
            live.unsaved.get_or_insert_default().receipts.push(tag.push);
            self.stats.pushes_acknowledged += 1;
        }
        if tag.source != TagSource::Memory || tag.push != NO_PUSH {
            self.mark_dirty(slot);
        }
    }

    /// Has the progress of a client saved soon.
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let Some((conn, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if !live.dirty {
            live.dirty = true;
            self.dirty.push(conn);
            self.save_due
                .get_or_insert(Millis(self.now.0 + SAVE_DELAY_MS));
        }
    }

    /// Saves the progress of all clients that made any.
    pub(super) fn save_progress(&mut self) {
        if self.store_is_behind() {
            // More of the same would only wait; what it says is in memory.
            self.save_due = Some(Millis(self.now.0 + SAVE_DELAY_MS));
            return;
        }
        self.save_due = None;
        for conn in std::mem::take(&mut self.dirty) {
            if self.slot_of(conn).is_none() || self.live(conn.slot).is_none() {
                continue;
            }
            if let Some(live) = self.live_mut(conn.slot) {
                live.dirty = false;
            }
            let progress = self.progress_of_slot(conn.slot);
            self.command(Command::Progress(progress), Pending::Save(conn));
        }
    }
}

/// The receiver has a shared subscription's message: nobody else is to get it. Who keeps it.
fn forget_shared(live: &mut super::Live, packet_id: PacketId) -> Option<Keeper> {
    let rare = live.rare.as_mut()?;
    let at = rare.shared.iter().position(|(id, _)| *id == packet_id)?;
    rare.shared.remove(at).1.keeper
}
