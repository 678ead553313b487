//! A session that goes to another node: what it did here and is not saved goes with it.
//!
//! The other node has claimed it, and asks. If the client has left here before, its release may come too late for the store: so its last words are
//! kept until then. They are worth nothing once the client is claimed through this node again: others may have saved more since.

use std::collections::{HashMap, VecDeque};

use campanile_mqtt::Reason;
use foldhash::fast::FixedState;

use super::{Phase, Shard};
use crate::{
    ids::{ClientKey, ConnId, Epoch, Millis},
    mail::ClusterMail,
    store::{Command, Cursor, LogKind, Progress},
};

/// How long the last words of a client are kept. The node that claims it asks at once, and waits for a second.
const LAST_WORDS_KEPT_MS: u64 = 2000;
/// Of how many clients at most; beyond, what the first of them did last may be repeated.
const MAX_LAST_WORDS: usize = 1000;

/// What clients did last that have left.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    by_client: HashMap<ClientKey, (Millis, Progress), FixedState>,
    /// The oldest first; the client may have come back since.
    order: VecDeque<(Millis, ClientKey)>,
}

impl LastWords {
    fn keep(&mut self, progress: Progress, now: Millis) {
        while self.order.len() >= MAX_LAST_WORDS
            || (self.order.front()).is_some_and(|(at, _)| now.since(*at) > LAST_WORDS_KEPT_MS)
        {
            if let Some((at, client)) = self.order.pop_front()
                && self
                    .by_client
                    .get(&client)
                    .is_some_and(|(since, _)| *since == at)
            {
                self.by_client.remove(&client);
            }
        }
        self.order.push_back((now, progress.client.clone()));
        self.by_client
            .insert(progress.client.clone(), (now, progress));
    }

    fn take(&mut self, client: &ClientKey) -> Option<Progress> {
        self.by_client.remove(client).map(|(_, progress)| progress)
    }
}

impl Shard {
    /// Another node has claimed a client.
    pub(super) fn on_release(
        &mut self,
        client: &ClientKey,
        epoch: Epoch,
        resumes: bool,
        ticket: u64,
    ) {
        let app = self.app(&client.app);
        let slot = self.apps[usize::from(app)]
            .clients
            .get(&client.client_id)
            .copied();
        if let Some(slot) = slot {
            let phase = self.conns[slot as usize]
                .as_mut()
                .map(|conn| &mut conn.phase);
            match phase {
                Some(Phase::Live(live) | Phase::Announcing(live)) if live.epoch < epoch => {
                    return self.hand_over(slot, epoch, resumes, ticket);
                }
                // Its claim is under way: which of the two came first is seen from its epoch.
                Some(Phase::Claiming(connecting)) => {
                    connecting.outrun = connecting.outrun.max(epoch);
                }
                _ => {}
            }
        }
        let cluster = self.cluster.as_mut();
        let last_words = cluster.and_then(|cluster| cluster.last_words.take(client));
        match last_words.filter(|progress| progress.epoch < epoch) {
            // It has left here, and its release comes too late.
            Some(progress) => self.hand_over_progress(progress, epoch, resumes, ticket),
            None => self.mail_hub(ClusterMail::Released { ticket }),
        }
    }

    /// Closes a connection whose client another node has claimed, and saves under that claim's epoch what is not saved yet.
    fn hand_over(&mut self, slot: u32, epoch: Epoch, resumes: bool, ticket: u64) {
        self.stats.takeovers += 1;
        self.say_goodbye(
            slot,
            Reason::SessionTakenOver,
            "another connection uses this client id",
        );
        let Some((client, mut live)) = self.take_out(slot) else {
            return;
        };
        self.detach(slot, &live, live.is_durable());
        let progress = self.progress_of(&client, &mut live);
        self.pass_on_all(&mut live);
        self.hand_over_progress(progress, epoch, resumes, ticket);
    }

    fn hand_over_progress(
        &mut self,
        mut progress: Progress,
        epoch: Epoch,
        resumes: bool,
        ticket: u64,
    ) {
        progress.epoch = epoch;
        if !resumes {
            // The other session is a new one. The place in the push log is the device's.
            progress.unfinished = None;
            if let Some(cursors) = &mut progress.cursors {
                cursors.retain(|cursor: &Cursor| cursor.log == LogKind::Push);
            }
        }
        if says_nothing(&progress) {
            self.mail_hub(ClusterMail::Released { ticket });
        } else {
            self.command_hand_over(Command::HandOver(progress), ticket);
        }
    }

    /// A client has left: should its save come too late, whoever has claimed it will ask.
    pub(super) fn keep_last_words(&mut self, progress: &Progress) {
        let now = self.now;
        if let Some(cluster) = self.cluster.as_mut().filter(|_| !says_nothing(progress)) {
            cluster.last_words.keep(progress.clone(), now);
        }
    }

    /// A client is claimed through this node.
    pub(super) fn forget_last_words(&mut self, client: &ClientKey) {
        if let Some(cluster) = &mut self.cluster {
            cluster.last_words.take(client);
        }
    }

    /// The store says that a connection's session was claimed by another node.
    pub(super) fn lose(&mut self, conn: ConnId) {
        if self.answered(conn).is_none() {
            return;
        }
        self.stats.takeovers += 1;
        self.say_goodbye(
            conn.slot,
            Reason::SessionTakenOver,
            "another connection uses this client id",
        );
        if let Some((client, mut live)) = self.take_out(conn.slot) {
            // A receipt is a fact, and is taken whatever the epoch.
            let progress = self.progress_of(&client, &mut live);
            self.detach(conn.slot, &live, live.is_durable());
            self.pass_on_all(&mut live);
            self.keep_last_words(&progress);
            if !progress.receipts.is_empty() || !progress.settled.is_empty() {
                self.command_fact(Command::Progress(progress));
            }
        }
    }
}

fn says_nothing(progress: &Progress) -> bool {
    progress.cursors.is_none()
        && progress.inbox_done.is_empty()
        && progress.receipts.is_empty()
        && progress.settled.is_empty()
        && progress.memory.is_none()
}
