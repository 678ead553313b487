//! What devices say of themselves, and what they are told: `push/reg`, `push/sync`, `push/ctl`.
//!
//! The broker does not read it. Statements go to whoever keeps the registry, as effects; the answer says what the device is told, and from where it is
//! replayed.

use std::sync::Arc;

use bytes::Bytes;
use campanile_mqtt::{QoS, Reason, Version};
use smallvec::SmallVec;

use super::{
    Pending, Shard,
    conn::{Live, Position, Queued, Replay},
};
use crate::{
    effects::{Content, Statement},
    ids::{ConnId, Offset},
    message::{Kind, Message},
    store::{LogKind, Outcome},
};

/// Where devices describe themselves.
pub(super) const REGISTRATION_TOPIC: &str = "push/reg";
/// Where devices say how far they have got.
pub(super) const SYNC_TOPIC: &str = "push/sync";
/// Where devices are told what is no push.
const CONTROL_TOPIC: &str = "push/ctl";

impl Live {
    /// Whether it is a device to its app: it has proven to be one, or is registered. Others are told nothing that they have not subscribed to.
    pub(super) fn is_device(&self) -> bool {
        self.identity.device.is_some() || self.has_profile
    }
}

impl Shard {
    /// A device has connected: it is registered by that, if it was not, and bound to the user that its credentials name.
    pub(super) fn state_connected(&mut self, live: &Live, profile: Option<Bytes>) {
        let Some(device) = &live.identity.device else {
            return;
        };
        if (profile.is_some() && !device.binds_user) || self.store_is_behind() {
            return;
        }
        let statement = Statement {
            client: self.key_of(live),
            identity: Some(device.clone()),
            content: Content::Connected { profile },
        };
        let ticket = self.ticket(Pending::Nobody);
        self.effects.statements.push((ticket, Box::new(statement)));
    }

    /// What a client is told beside its CONNACK.
    pub(super) fn greet(&mut self, slot: u32) {
        let most = self.config.max_keep_alive_seconds;
        let Some(live) = self.live(slot) else { return };
        // 5.0 clients have it from the CONNACK.
        let may_be_too_long = most > 0 && (live.keep_alive == 0 || live.keep_alive > most);
        if may_be_too_long && !live.version.is_v5() && live.is_device() {
            let text = format!(r#"{{"type":"keep_alive","seconds":{most}}}"#);
            self.tell_device(slot, text.as_bytes(), QoS::AtMostOnce);
        }
    }

    /// A client that cannot be told by a DISCONNECT is about to be sent to another node.
    pub(super) fn announce_move(&mut self, slot: u32) {
        let is_told = |live: &Live| live.version < Version::V5 && live.is_device();
        if !self.live(slot).is_some_and(is_told) {
            return;
        }
        let reference = self.server_reference(Reason::UseAnotherServer);
        // A reference is a host and a port, or a list of them: nothing in it needs to be escaped.
        let text = match reference.contains(['"', '\\']) || reference.is_empty() {
            true => r#"{"type":"move"}"#.to_owned(),
            false => format!(r#"{{"type":"move","server":"{reference}"}}"#),
        };
        self.tell_device(slot, text.as_bytes(), QoS::AtMostOnce);
    }

    /// Messages of a log were lost to a device before it had them.
    pub(super) fn tell_gap(&mut self, slot: u32, log: &str) {
        if self.live(slot).is_some_and(Live::is_device) {
            let text = format!(r#"{{"type":"gap","log":"{log}"}}"#);
            self.tell_device(slot, text.as_bytes(), QoS::AtLeastOnce);
        }
    }

    /// Publishes to one client on `push/ctl`. It is not kept: what is said here is true of this connection.
    pub(super) fn tell_device(&mut self, slot: u32, payload: &[u8], qos: QoS) {
        let id = self.ids.next(self.now);
        let mut message = Message::new(id, Kind::Publish, CONTROL_TOPIC, &[], payload);
        message.qos = qos;
        let queued = Queued {
            message: Arc::new(message),
            qos,
            retain: false,
            subscription_ids: SmallVec::new(),
            shared: None,
            keeper: None,
        };
        self.send_or_queue(slot, queued);
    }

    /// The registry's answer to what a device said, if it has one.
    pub(super) fn on_stated(&mut self, conn: ConnId, answer: Option<Outcome>) {
        if self.answered(conn).is_none() {
            return;
        }
        match answer {
            Some(Outcome::Told(text)) => self.tell_device(conn.slot, &text, QoS::AtLeastOnce),
            Some(Outcome::Sync(None)) => self.tell_position(conn.slot),
            Some(Outcome::Sync(Some(after))) => self.replay_pushes(conn.slot, after),
            _ => {}
        }
    }

    /// How far a device has got in the push log, for a later `push/sync`.
    fn tell_position(&mut self, slot: u32) {
        let Some(mut position) = self.live(slot).map(|live| live.push.position.clone()) else {
            return;
        };
        let Some(live) = self.live(slot) else { return };
        let end = self.apps[usize::from(live.app)].push_tail.end();
        let first = live.outbound.unfinished().filter_map(|under_way| {
            let is_push = under_way.tag.source == super::conn::TagSource::Log(LogKind::Push);
            is_push.then_some(under_way.tag.offset)
        });
        let done = super::replay::cursor(LogKind::Push, first.min(), &mut position, end).done;
        let text = format!(
            r#"{{"type":"position","log":"push","offset":"{}"}}"#,
            done.0
        );
        self.tell_device(slot, text.as_bytes(), QoS::AtLeastOnce);
    }

    /// A device has pushes up to a place, whatever it has acknowledged: it gets what comes after that. What is under way to it stays so.
    fn replay_pushes(&mut self, slot: u32, after: Offset) {
        let Some(live) = self.live(slot) else { return };
        let end = self.apps[usize::from(live.app)].push_tail.end();
        if after > end {
            // It has read a log that is not there any more: all that it can be sure of is that it does not know.
            self.tell_gap(slot, "push");
        }
        let live = self.live_mut(slot).expect("just seen");
        live.push.position = Position::at(after.min(end), end, Vec::new());
        let replay = live.push.replay.get_or_insert_with(Box::<Replay>::default);
        replay.log.clear();
        // What is being read now comes from the old place.
        replay.outdated = replay.reading;
        self.mark_dirty(slot);
        self.pump(slot);
    }
}
