//! What happens because time passes, or because a socket has room again.

use campanile_mqtt::Reason;

use super::{Phase, Shard, cluster::Cluster, live_in};
use crate::{
    access::Identity,
    ids::{ConnId, Millis},
};

/// Keep-alives and connect timeouts are looked at this often.
const SWEEP_MS: u64 = 1000;

impl Shard {
    /// Call when the time of [`Shard::next_deadline`] has come; calling more often is harmless.
    pub fn on_tick(&mut self, now: Millis) {
        self.now = now;
        if self.save_due.is_some_and(|due| due <= now) {
            self.save_progress();
        }
        self.publish_due_wills();
        self.take_turns();
        self.restamp_some();
        for conn in std::mem::take(&mut self.unfinished_replays) {
            if self.slot_of(conn).is_some() {
                self.pump(conn.slot);
            }
        }
        if self.sweep_due <= now {
            self.sweep_due = Millis(now.0 + SWEEP_MS);
            self.sweep_silent();
            self.sweep_unnamed();
            self.sweep_expired();
            self.repeat_unwritten();
            self.read_profiles_again();
            for conn in std::mem::take(&mut self.retry) {
                if self.slot_of(conn).is_some() {
                    self.pump(conn.slot);
                }
            }
        }
    }

    /// When [`Shard::on_tick`] is needed next.
    pub fn next_deadline(&self) -> Option<Millis> {
        let is_due = self.stats.connections > 0 || !self.unwritten.is_empty();
        let sweep = is_due.then_some(self.sweep_due);
        let stamps = self.cluster.as_ref().and_then(Cluster::next_deadline);
        let at_once = (!self.unfinished_replays.is_empty()).then_some(self.now);
        [
            self.save_due,
            self.wills.next(),
            self.turns_due,
            stamps,
            sweep,
            at_once,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How many seconds of silence a client may have: one and a half times its keep-alive [MQTT-3.1.2-22].
    pub(super) fn set_patience(&mut self, slot: u32, keep_alive: u16) {
        let heard = &mut self.heard[slot as usize];
        heard.patience = (u32::from(keep_alive) * 3).div_ceil(2);
        heard.at = (self.now.0 / 1000) as u32;
    }

    fn sweep_silent(&mut self) {
        let now = (self.now.0 / 1000) as u32;
        for slot in 0..self.heard.len() {
            let heard = self.heard[slot];
            let silent = heard.patience > 0 && now.saturating_sub(heard.at) > heard.patience;
            // Who is not read cannot be heard.
            if silent && !self.is_unread(slot) {
                self.stats.keep_alive_timeouts += 1;
                self.refuse(
                    slot as u32,
                    Reason::KeepAliveTimeout,
                    "nothing was heard for too long",
                );
            }
        }
    }

    /// Whether a connection waits for the store or other shards.
    fn is_unread(&self, slot: usize) -> bool {
        match self.conns[slot].as_ref().map(|conn| &conn.phase) {
            Some(Phase::Live(live)) => live.paused,
            _ => true,
        }
    }

    /// Closes connections that have not come through to their CONNACK in time.
    fn sweep_unnamed(&mut self) {
        let patience = u64::from(self.config.connect_timeout_seconds) * 1000;
        for slot in 0..self.conns.len() {
            let since = match &self.conns[slot] {
                Some(conn) => match &conn.phase {
                    Phase::New { since, .. } => *since,
                    Phase::Authenticating(connecting) => connecting.since,
                    _ => continue,
                },
                None => continue,
            };
            if self.now.since(since) > patience {
                self.close(slot as u32, true);
            }
        }
    }

    /// Has the connection end with its credentials.
    pub(super) fn note_expiry(&mut self, conn: ConnId, identity: &Identity) {
        if let Some(at) = expiry_of(identity) {
            self.expiring.insert((at, conn));
        }
    }

    /// The connection ends before them, or has got others.
    pub(super) fn forget_expiry(&mut self, conn: ConnId, identity: &Identity) {
        if let Some(at) = expiry_of(identity) {
            self.expiring.remove(&(at, conn));
        }
    }

    /// Closes connections whose credentials have ended.
    fn sweep_expired(&mut self) {
        while let Some(&(at, conn)) = self.expiring.first() {
            if at > self.now {
                return;
            }
            self.expiring.pop_first();
            if self.slot_of(conn).is_some() {
                self.stats.credentials_expired += 1;
                let text = "the credentials have expired; connect with new ones";
                self.refuse(conn.slot, Reason::MaximumConnectTime, text);
            }
        }
    }

    /// Has a client's replay tried again within a second.
    pub(super) fn retry_later(&mut self, conn: ConnId) {
        self.retry.push(conn);
    }

    /// The socket took less than it was given: `pending_bytes` wait in the driver. Until [`Shard::on_writable`], only control packets are written.
    pub fn on_blocked(&mut self, conn: ConnId, _pending_bytes: usize) {
        if self.slot_of(conn).is_some()
            && let Some((_, live)) = live_in(&mut self.conns, conn.slot)
        {
            live.blocked = true;
        }
    }

    /// All pending bytes of a blocked connection were written.
    pub fn on_writable(&mut self, conn: ConnId, now: Millis) {
        self.now = now;
        if self.slot_of(conn).is_none() {
            return;
        }
        if let Some((_, live)) = live_in(&mut self.conns, conn.slot) {
            live.blocked = false;
            self.pump(conn.slot);
        }
    }
}

fn expiry_of(identity: &Identity) -> Option<Millis> {
    identity.device.as_ref()?.expires_at
}
