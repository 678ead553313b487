//! The end of a connection, and of a session.

use std::sync::Arc;

use campanile_mqtt::{QoS, topic};

use super::{
    Phase, Shard,
    conn::{Live, Queued},
};
use crate::{
    ids::{ClientKey, ConnId, Epoch, MessageId, Millis},
    mail::{Interest, Member},
    routes::FilterIx,
    store::{Claimed, Command, Progress, Release, StoredSubscription},
};

impl Shard {
    /// The peer closed, or the transport failed. Not called for connections that the shard closed or handed over itself.
    pub fn on_closed(&mut self, conn: ConnId, now: Millis) {
        self.now = now;
        if let Some(slot) = self.slot_of(conn) {
            self.leave(slot, true);
        }
    }

    /// Closes a connection after what was written to it. `with_will`: the client did not say goodbye.
    pub(super) fn close(&mut self, slot: u32, with_will: bool) {
        let Some(conn) = &self.conns[slot as usize] else {
            return;
        };
        self.effects.closes.push(conn.id);
        self.leave(slot, with_will);
    }

    /// Forgets a connection and releases its session.
    pub(super) fn leave(&mut self, slot: u32, with_will: bool) {
        let Some(conn) = self.conns[slot as usize].take() else {
            return;
        };
        self.heard[slot as usize].patience = 0;
        self.stats.connections -= 1;
        self.stats.disconnects += 1;
        match conn.phase {
            Phase::New { .. } | Phase::Authenticating(_) | Phase::Turning => {}
            Phase::Claiming(connecting) => {
                let app = connecting.app().clone();
                let client = ClientKey {
                    app,
                    client_id: connecting.client_id.clone(),
                };
                self.forget_client(&client, slot);
            }
            Phase::Announcing(mut live) => {
                self.note_lag(&mut live);
                self.release(slot, *live, with_will);
            }
            Phase::Live(live) => self.release(slot, *live, with_will),
        }
    }

    fn release(&mut self, slot: u32, mut live: Live, with_will: bool) {
        self.forget_expiry(live.conn, &live.identity);
        let client = self.key_of(&live);
        tracing::debug!(client_id = %client.client_id, app = %client.app, with_will, "disconnected");
        self.forget_client(&client, slot);
        if live.is_durable() {
            self.stats.durable_sessions_live -= 1;
        }
        let ended = self.detach(slot, &live, live.is_durable());
        let will = live.will.take().filter(|_| with_will);
        let progress = self.progress_of(&client, &mut live);
        self.keep_last_words(&progress);
        let will_at =
            will.map(|will| self.after_connection_loss(&client, *will, live.expiry_seconds));
        let expires_at = match live.expiry_seconds {
            u32::MAX => None,
            seconds => Some(self.now.plus_seconds(seconds)),
        };
        let release = Release {
            progress,
            expires_at,
            now: self.now,
            will_at,
        };
        self.command_end(Command::Release(release), client, ended);
        self.pass_on_all(&mut live);
    }

    /// What waits in memory for a client that has left: members of its shared subscriptions get theirs.
    pub(super) fn pass_on_all(&mut self, live: &mut Live) {
        let Some(rare) = live.rare.take() else {
            return;
        };
        self.stats.queued_messages -= rare.queue.len() as u64;
        self.stats.queued_bytes -= rare.queued_bytes as u64;
        let unsent = rare.queue.into_iter().map(|queued| (queued, false));
        let unacknowledged = rare.shared.into_iter().map(|(_, queued)| (queued, true));
        for (queued, was_sent) in unacknowledged.chain(unsent) {
            self.pass_on(live.app, queued, was_sent);
        }
    }

    /// Takes a client in service out of its slot, without a word to the store.
    pub(super) fn take_out(&mut self, slot: u32) -> Option<(ClientKey, Live)> {
        let conn = self.conns[slot as usize].take()?;
        let (id, phase) = (conn.id, conn.phase);
        let live = match phase {
            Phase::Live(live) => *live,
            Phase::Announcing(mut live) => {
                self.note_lag(&mut live);
                *live
            }
            phase => {
                self.conns[slot as usize] = Some(super::conn::Conn { id, phase });
                return None;
            }
        };
        self.effects.closes.push(id);
        self.heard[slot as usize].patience = 0;
        self.stats.connections -= 1;
        self.stats.disconnects += 1;
        if live.is_durable() {
            self.stats.durable_sessions_live -= 1;
        }
        self.forget_expiry(live.conn, &live.identity);
        let client = self.key_of(&live);
        self.forget_client(&client, slot);
        Some((client, live))
    }

    /// A member of a shared subscription left with a message: another one gets it, except a QoS 2 message that was sent, which must not go to a
    /// second client [MQTT-4.8.2-5].
    fn pass_on(&mut self, app: u16, queued: Queued, was_sent: bool) {
        let Some(shared) = &queued.shared else { return };
        if was_sent && queued.qos == QoS::ExactlyOnce {
            return self.done_with_shared(queued.keeper);
        }
        self.deliver_to_group(app, shared, &queued.message, None, queued.keeper);
    }

    /// A claim succeeded whose connection is gone.
    pub(super) fn release_unwanted(
        &mut self,
        client: ClientKey,
        expiry_seconds: u32,
        claimed: &Claimed,
    ) {
        let expires_at = match expiry_seconds {
            u32::MAX => None,
            seconds => Some(self.now.plus_seconds(seconds)),
        };
        let ended = match &claimed.resumed {
            Some(resumed) if expiry_seconds == 0 => {
                let filters = resumed.subscriptions.iter().map(|s| s.filter.clone());
                filters.collect()
            }
            _ => Vec::new(),
        };
        // That it has begun is known to the store by now, and asked for no more. A claim that came in the meantime fences this release: it is told here.
        let memory = self.begun(&client.app, claimed.memory.as_ref(), claimed.begins);
        if memory.is_some() {
            self.beginnings.insert(client.clone(), claimed.epoch);
        }
        let progress = Progress {
            client: client.clone(),
            epoch: claimed.epoch,
            ordinal: claimed.ordinal,
            cursors: None,
            unfinished: None,
            inbox_done: Vec::new(),
            receipts: Vec::new(),
            settled: Vec::new(),
            memory,
        };
        self.keep_last_words(&progress);
        let release = Release {
            progress,
            expires_at,
            now: self.now,
            will_at: None,
        };
        self.command_end(Command::Release(release), client, ended);
    }

    pub(super) fn forget_client(&mut self, client: &ClientKey, slot: u32) {
        let app = self.app(&client.app);
        let clients = &mut self.apps[usize::from(app)].clients;
        if clients.get(&client.client_id) == Some(&slot) {
            clients.remove(&client.client_id);
        }
    }

    /// Puts a session's stored subscriptions into the routes. How many answers of other shards to wait for under `job`.
    pub(super) fn attach(
        &mut self,
        slot: u32,
        live: &mut Live,
        stored: &[StoredSubscription],
        job: u64,
    ) -> u32 {
        let mut waits = 0;
        for subscription in stored {
            let parsed = topic::parse_shared(&subscription.filter);
            let shared = matches!(parsed, Ok(Some(_)));
            let text = match parsed {
                Ok(Some((_, filter))) => filter.into(),
                _ => subscription.filter.clone(),
            };
            let ix = self.apps[usize::from(live.app)].routes.intern(&text);
            let mut subscription = Shard::subscription_of(ix, subscription, shared);
            subscription.counted = !shared;
            self.stats.subscriptions += 1;
            waits += self.enroll(slot, live, &subscription, job);
            super::subscribe::push_exactly(&mut live.subscriptions, subscription);
        }
        waits
    }

    /// Takes a leaving client's device out of the audiences, and its subscriptions out of the routes. Of a durable session they stay as interest of somebody who is away. Of one that ends now, the
    /// filters that still count are returned.
    pub(super) fn detach(&mut self, slot: u32, live: &Live, stays: bool) -> Vec<Arc<str>> {
        self.leave_audiences(slot, live);
        self.leave_campaigns(slot, live);
        let mut counted = Vec::new();
        for subscription in &live.subscriptions {
            if subscription.counted && !stays {
                let routes = &self.apps[usize::from(live.app)].routes;
                counted.push(routes.filter(subscription.filter).text.clone());
            }
            self.withdraw(slot, live, subscription, stays, 0);
        }
        counted
    }

    /// A durable session is no more: nothing needs to be kept for it.
    pub(super) fn on_session_ended(&mut self, client: &ClientKey, filters: &[Arc<str>]) {
        if self.cluster.is_some() {
            // The store announces what nobody wants any more.
            return;
        }
        let app = self.app(&client.app);
        for filter in filters {
            match topic::parse_shared(filter) {
                // The client may have joined the group anew before the word of the end came.
                Ok(Some(_)) if self.is_member(app, client, filter) => {}
                Ok(Some((_, behind))) => {
                    let ix = self.apps[usize::from(app)].routes.intern(&behind.into());
                    self.set_member(app, ix, filter, &client.client_id, None, 0);
                }
                _ => {
                    if let Some(ix) = self.apps[usize::from(app)].routes.find(filter) {
                        self.count_durable(app, ix, -1, 0);
                    }
                }
            }
            if let Some(ix) = self.apps[usize::from(app)].routes.find(filter) {
                self.apps[usize::from(app)].routes.tidy(ix);
            }
        }
    }

    /// Whether a client is connected and has a shared subscription.
    fn is_member(&self, app: u16, client: &ClientKey, filter: &Arc<str>) -> bool {
        let clients = &self.apps[usize::from(app)].clients;
        let live = clients
            .get(&client.client_id)
            .and_then(|&slot| self.live(slot));
        live.is_some_and(|live| {
            live.subscriptions
                .iter()
                .any(|s| s.shared.as_ref() == Some(filter))
        })
    }

    /// Counts durable sessions of this shard with a filter, and tells the others of the first and the last.
    pub(super) fn count_durable(&mut self, app: u16, ix: FilterIx, by: i32, job: u64) -> u32 {
        if self.cluster.is_some() {
            // The store counts those of all nodes.
            return 0;
        }
        let bit = 1 << self.id.0;
        let filter = self.apps[usize::from(app)].routes.filter_mut(ix);
        let before = filter.durable_here;
        filter.durable_here = before.saturating_add_signed(by);
        let present = filter.durable_here > 0;
        // Whoever comes after the first must not be answered before the other shards know of that one.
        let must_wait = job != 0 && self.jobs.contains_key(&filter.told.durable);
        if present == (before > 0) && !must_wait {
            return 0;
        }
        filter.told.durable = job;
        if present {
            filter.durable |= bit;
        } else {
            filter.durable &= !bit;
        }
        let change = Interest::Durable {
            filter: filter.text.clone(),
            present,
        };
        self.announce(app, &change, job)
    }

    /// Sets or removes a member of a shared subscription here and at all other shards.
    pub(super) fn set_member(
        &mut self,
        app: u16,
        ix: FilterIx,
        text: &Arc<str>,
        client_id: &Arc<str>,
        member: Option<Member>,
        job: u64,
    ) -> u32 {
        let routes = &mut self.apps[usize::from(app)].routes;
        // Another node may have taken the client, and its word may have removed the filter that the connection here was enrolled under.
        let ix = match topic::parse_shared(text) {
            Ok(Some((_, behind))) if self.cluster.is_some() => routes.intern(&behind.into()),
            _ => ix,
        };
        if routes.may_say(ix, text, client_id, self.id, member.as_ref()) {
            routes.set_member(ix, text, client_id, member);
        }
        if !member.is_some_and(|member| member.live) {
            routes.tidy(ix);
        }
        let change = Interest::Member {
            filter: text.clone(),
            client_id: client_id.clone(),
            member,
        };
        self.announce(app, &change, job)
    }

    /// Takes a subscription that the store recovered, of a session that is away.
    pub(super) fn recover_subscription(
        &mut self,
        home: crate::ids::ShardId,
        client: &ClientKey,
        stored: &StoredSubscription,
    ) {
        // Messages with smaller ids would seem to be from before the subscription.
        self.ids.go_beyond(stored.since);
        let app = self.app(&client.app);
        let mine = home == self.id;
        let own_bit = 1 << self.id.0;
        let routes = &mut self.apps[usize::from(app)].routes;
        if let Ok(Some((_, behind))) = topic::parse_shared(&stored.filter) {
            let ix = routes.intern(&behind.into());
            let member = Member {
                shard: home,
                qos: stored.options.qos,
                durable: true,
                live: false,
                epoch: Epoch(0),
                subscription_id: stored.id,
                retain_as_published: stored.options.retain_as_published,
            };
            routes.set_member(ix, &stored.filter, &client.client_id, Some(member));
        } else if mine {
            let ix = routes.intern(&stored.filter);
            let filter = routes.filter_mut(ix);
            filter.durable_here += 1;
            filter.durable |= own_bit;
        } else {
            routes.set_remote(&stored.filter, home, true, true);
        }
    }

    /// Say goodbye to all (5.0: 0x8B), save and release every session. The node waits until nothing is pending, then stops.
    pub fn stop(&mut self, now: Millis) {
        self.now = now;
        self.stopping = true;
        for slot in 0..self.conns.len() as u32 {
            if self.conns[slot as usize].is_some() {
                self.refuse(slot, self.goodbye(), "the server is shutting down");
            }
        }
        self.publish_due_wills();
        self.repeat_unwritten();
    }

    /// The progress of a client that is not saved yet.
    pub(super) fn progress_of(&self, client: &ClientKey, live: &mut Live) -> Progress {
        let durable = live.is_durable();
        let unsaved = live.unsaved.as_deref().cloned().unwrap_or_default();
        Progress {
            client: client.clone(),
            epoch: live.epoch,
            ordinal: live.ordinal,
            cursors: durable.then(|| self.cursors_of(live)),
            unfinished: durable.then(|| Shard::unfinished_of(live)),
            inbox_done: unsaved.inbox_done,
            receipts: unsaved.receipts,
            settled: unsaved.settled,
            memory: live.campaigns.as_ref().and_then(|of| of.unsaved_memory()),
        }
    }

    /// As [`Shard::progress_of`]. There is no saving of exchanges without cursors: one that ended would be gone from the exchanges and
    /// not yet behind the cursor, and be sent again after a crash.
    pub(super) fn progress_of_slot(&mut self, slot: u32) -> Progress {
        let (_, mut live) = self.take_live(slot);
        let client = self.key_of(&live);
        let progress = self.progress_of(&client, &mut live);
        self.put_live(slot, live);
        progress
    }
}

/// Nothing yet: the id of a message that has none.
pub(super) const NO_PUSH: MessageId = MessageId(0);
