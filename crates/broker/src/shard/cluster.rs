//! A shard of a node that is a member of a cluster: what the hub says, sessions that come from and go to other nodes, generations.

use std::{mem::take, sync::Arc};

use campanile_mqtt::{Reason, Version};

use super::{Elsewhere, Pending, Phase, Shard, hand_over::LastWords, live_in};
use crate::{
    cluster::peer::Connected,
    effects::Ticket,
    ids::{AppId, ClientKey, ConnId, Epoch, Generation, MessageId, Millis, Offset, ShardId},
    lane::{Lane, LaneSet},
    mail::{ClusterMail, Mail},
    routes::Routes,
    store::{
        Change, Claimed, Command, DurableMember, LogKind, Page, Previous, Query, Snapshot,
        StoreError, Will,
    },
    tail::Tail,
};

/// Sessions that are given a new generation in one go; the next ones follow after [`RESTAMP_PAUSE_MS`], so that the store is not flooded.
const RESTAMPED_AT_ONCE: usize = 500;
/// See [`RESTAMPED_AT_ONCE`].
const RESTAMP_PAUSE_MS: u64 = 50;
/// How long to wait before sessions are restamped that the store refused.
const RESTAMP_RETRY_MS: u64 = 1000;

/// How far the clocks of two nodes may be apart. They are set by the store's.
const CLOCK_MARGIN_MS: u64 = 2000;

/// What a shard knows of its cluster.
pub(super) struct Cluster {
    /// Whose the node's sessions are.
    generation: Generation,
    /// Until then no node can have a durable subscription that this shard does not route by.
    known_until: Millis,
    /// Connections whose messages wait for a look at the store.
    pub(super) looking: Vec<ConnId>,
    /// Wills that are due and wait for a look at the store, with since when.
    pub(super) wills_looking: Vec<(Millis, ClientKey, Will)>,
    /// What clients did last that have left.
    pub(super) last_words: LastWords,
    /// Connections whose sessions are of an earlier generation.
    unstamped: Vec<ConnId>,
    stamp_due: Option<Millis>,
    /// Where new clients are sent.
    draining: Option<Arc<str>>,
    /// Where the clients are sent that are being moved.
    reference: Arc<str>,
    /// Slot at which the next move begins to look.
    next_moved: u32,
}

impl Cluster {
    pub(super) fn new(generation: Generation) -> Cluster {
        Cluster {
            generation,
            known_until: Millis(0),
            looking: Vec::new(),
            wills_looking: Vec::new(),
            last_words: LastWords::default(),
            unstamped: Vec::new(),
            stamp_due: None,
            draining: None,
            reference: "".into(),
            next_moved: 0,
        }
    }

    /// When [`Shard::restamp_some`] is needed next.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.stamp_due
    }
}

impl Shard {
    /// From the node's hub.
    pub(super) fn on_cluster_mail(&mut self, mail: ClusterMail) {
        match mail {
            ClusterMail::Generation(generation) => self.on_generation(generation),
            ClusterMail::KnownUntil(until) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.known_until = until;
                }
            }
            ClusterMail::Looked { app, asked } => self.on_looked(&app, asked),
            ClusterMail::Snapshot { app, snapshot } => self.on_snapshot(&app, &snapshot),
            ClusterMail::PeerGone(peer) => {
                for app in &mut self.apps {
                    app.routes.forget_peer(peer);
                }
            }
            ClusterMail::Sync { ticket } => self.mail_hub(ClusterMail::Synced { ticket }),
            ClusterMail::InboxWaits {
                client,
                entry,
                lane,
            } => self.on_inbox_waits(&client, entry, lane),
            ClusterMail::Recheck(client) => self.recheck(&client),
            ClusterMail::InboxesWait(app) => {
                let app = self.app(&app);
                let clients = &self.apps[usize::from(app)].clients;
                let slots: Vec<u32> = clients.values().copied().collect();
                for slot in slots {
                    self.look_into_inbox(slot, LaneSet::ALL);
                }
            }
            ClusterMail::Release {
                client,
                epoch,
                resumes,
                ticket,
            } => self.on_release(&client, epoch, resumes, ticket),
            ClusterMail::Released { ticket } => self.on_released_elsewhere(ticket),
            ClusterMail::Redeliver {
                app,
                message,
                filter,
            } => {
                let app = self.app(&app);
                self.deliver_to_group(app, &filter, &message, None, None);
            }
            ClusterMail::Move { count, reference } => self.move_away(count, reference),
            ClusterMail::Draining(draining) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.draining = draining;
                }
            }
            ClusterMail::WhereIs {
                client,
                ticket,
                kick,
            } => self.say_where(&client, ticket, kick),
            ClusterMail::HowMany { imagined, ticket } => {
                let live = self.count_live(&imagined);
                self.mail_hub(ClusterMail::ThisMany { ticket, live });
            }
            ClusterMail::ReleaseElsewhere { .. }
            | ClusterMail::SharedDone(_)
            | ClusterMail::Synced { .. }
            | ClusterMail::Look(_)
            | ClusterMail::ThisMany { .. }
            | ClusterMail::Here { .. } => unreachable!("the hub gets this"),
        }
    }

    pub(super) fn mail_hub(&mut self, mail: ClusterMail) {
        self.effects.mail.push((ShardId::HUB, Mail::Cluster(mail)));
    }

    /// Whose the sessions are that are claimed now.
    pub(super) fn generation(&self) -> Generation {
        self.cluster
            .as_ref()
            .map_or(Generation::ALONE, |cluster| cluster.generation)
    }

    /// Whether another node may have a durable subscription that is not known here: then every QoS 1 and 2 message is kept for it.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.known_until < self.now)
    }

    /// What a subscription that is made now begins with. In a cluster it is dated back by [`CLOCK_MARGIN_MS`]: the clocks of other nodes, whose messages
    /// it is to get, may be that much behind.
    pub(super) fn subscribed_since(&self) -> MessageId {
        match self.cluster {
            None => self.ids.next(self.now),
            Some(_) => MessageId::first_at(self.now.0.saturating_sub(CLOCK_MARGIN_MS) << 16),
        }
    }

    /// Where new clients are sent while the node drains.
    pub(super) fn draining(&self) -> Option<&Arc<str>> {
        self.cluster.as_ref()?.draining.as_ref()
    }

    /// The server reference that goes with a reason.
    pub(super) fn server_reference(&self, reason: Reason) -> Arc<str> {
        match (reason, &self.cluster) {
            (Reason::UseAnotherServer | Reason::ServerMoved, Some(cluster)) => {
                match (&cluster.draining, cluster.reference.is_empty()) {
                    (_, false) => cluster.reference.clone(),
                    (Some(draining), true) => draining.clone(),
                    (None, true) => self.config.server_reference.as_str().into(),
                }
            }
            (Reason::UseAnotherServer, None) => self.config.server_reference.as_str().into(),
            _ => "".into(),
        }
    }

    /// Takes what the cluster routes by, instead of what was known of it.
    fn on_snapshot(&mut self, app: &AppId, snapshot: &Snapshot) {
        let app = self.app(app);
        self.read_profiles(app, snapshot.changes);
        self.on_all_campaigns(app, &snapshot.campaigns);
        let (entries, bytes) = (self.config.tail_entries, self.config.tail_bytes);
        let app = &mut self.apps[usize::from(app)];
        app.routes.forget_peer(ShardId::STORE);
        app.retained = Default::default();
        for message in &snapshot.retained {
            app.retained.set(message.topic().into(), message.clone());
        }
        for filter in &snapshot.filters {
            app.routes.set_remote(filter, ShardId::STORE, true, true);
        }
        for (filter, client_id, member) in &snapshot.members {
            set_stored_member(&mut app.routes, filter, client_id, Some(*member));
        }
        for &(log, end) in &snapshot.log_ends {
            let tail = match log {
                LogKind::Push => Some(&mut app.push_tail),
                LogKind::Topic(partition) => app.topic_tails.get_mut(usize::from(partition)),
            };
            // Later ones continue what was announced.
            if let Some(tail) = tail.filter(|tail| tail.end() == Offset::default()) {
                *tail = Tail::new(end, entries, bytes);
            }
        }
    }

    /// Something changed in the store that is routed by.
    pub(super) fn on_change(&mut self, app: &AppId, offset: Offset, change: Change) {
        let index = self.app(app);
        let app = &mut self.apps[usize::from(index)];
        match change {
            Change::Retained { topic, message } => match message {
                Some(message) => app.retained.set(topic, message),
                None => app.retained.remove(&topic),
            },
            Change::Filter { filter, present } => {
                app.routes
                    .set_remote(&filter, ShardId::STORE, true, present);
            }
            Change::Member {
                filter,
                client_id,
                member,
            } => set_stored_member(&mut app.routes, &filter, &client_id, member),
            Change::Profile { client_id, profile } => {
                self.on_profile(index, &client_id, profile, offset);
            }
            Change::Campaign { push, row } => self.on_campaign(index, push, row),
        }
        self.note_change(index, offset);
    }

    /// The other node that has the client, if a claim says so.
    pub(super) fn elsewhere(&self, claimed: &Claimed) -> Option<Previous> {
        let own = self.cluster.as_ref()?.generation;
        claimed.previous.filter(|previous| {
            previous.generation != own && previous.generation != Generation::ALONE
        })
    }

    /// Asks the other node to let go of a client that was claimed here.
    pub(super) fn release_elsewhere(
        &mut self,
        previous: Previous,
        conn: ConnId,
        client: ClientKey,
        expiry_seconds: u32,
        claimed: Claimed,
    ) {
        let (epoch, resumes) = (claimed.epoch, claimed.resumed.is_some());
        let ticket = self.ticket(Pending::Elsewhere(Box::new(Elsewhere {
            conn,
            client: client.clone(),
            expiry_seconds,
            claimed,
        })));
        self.mail_hub(ClusterMail::ReleaseElsewhere {
            client,
            previous,
            epoch,
            resumes,
            ticket: ticket.0,
        });
    }

    fn on_released_elsewhere(&mut self, ticket: u64) {
        let Some(Pending::Elsewhere(elsewhere)) = self.pending.remove(&Ticket(ticket)) else {
            return;
        };
        if elsewhere.claimed.resumed.is_none() && elsewhere.expiry_seconds == 0 {
            return self.take_up_from_elsewhere(*elsewhere);
        }
        let query = Query::Session {
            client: elsewhere.client.clone(),
        };
        self.query(query, Pending::Reread(elsewhere));
    }

    /// The session as the other node left it.
    pub(super) fn on_reread(&mut self, mut elsewhere: Elsewhere, page: Result<Page, StoreError>) {
        let claimed = &mut elsewhere.claimed;
        match page {
            Ok(Page::Session(Some(session))) if session.epoch == claimed.epoch => {
                if let Some(resumed) = &mut claimed.resumed {
                    *resumed = session.state;
                }
                claimed.push_cursor = session.push_cursor;
                claimed.inbox_waiting = session.inbox_waiting;
                claimed.memory = session.memory;
            }
            // What the claim said is older: at worst something is repeated. Whoever claimed the session since fences this one.
            _ => {}
        }
        self.take_up_from_elsewhere(elsewhere);
    }

    fn take_up_from_elsewhere(&mut self, elsewhere: Elsewhere) {
        let Elsewhere {
            conn,
            client,
            expiry_seconds,
            claimed,
        } = elsewhere;
        let Some(slot) = self.slot_of(conn) else {
            return self.release_unwanted(client, expiry_seconds, &claimed);
        };
        self.welcome_claimed(slot, claimed);
    }

    /// The node is another one for the cluster, with the same connections.
    fn on_generation(&mut self, generation: Generation) {
        let connections = self.conns.iter().flatten();
        let serving = connections.filter_map(|conn| match &conn.phase {
            Phase::Live(_) | Phase::Announcing(_) | Phase::Claiming(_) => Some(conn.id),
            _ => None,
        });
        let serving: Vec<ConnId> = serving.collect();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.generation == generation {
            return;
        }
        cluster.generation = generation;
        cluster.unstamped = serving;
        cluster.stamp_due = Some(self.now);
        self.restamp_some();
    }

    /// Gives some of the sessions the node's generation.
    pub(super) fn restamp_some(&mut self) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.stamp_due.is_none_or(|due| due > now) {
            return;
        }
        let generation = cluster.generation;
        let mut unstamped = take(&mut cluster.unstamped);
        let later = unstamped.split_off(unstamped.len().min(RESTAMPED_AT_ONCE));
        cluster.stamp_due = (!later.is_empty()).then_some(Millis(now.0 + RESTAMP_PAUSE_MS));
        cluster.unstamped = later;
        for conn in unstamped {
            if self.slot_of(conn).is_none() {
                continue;
            }
            let conn_phase = self.conns[conn.slot as usize]
                .as_ref()
                .map(|conn| &conn.phase);
            let (client, epoch) = match conn_phase {
                Some(Phase::Live(live)) => (self.key_of(live), live.epoch),
                // Its claim may have named the old generation: it is looked at again.
                Some(Phase::Claiming(_) | Phase::Announcing(_)) => {
                    self.restamp_later(conn);
                    continue;
                }
                _ => continue,
            };
            let command = Command::Restamp {
                client,
                epoch,
                generation,
            };
            self.command(command, Pending::Restamp(conn));
        }
    }

    /// The store could not say whose a session is.
    pub(super) fn restamp_later(&mut self, conn: ConnId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.unstamped.push(conn);
            let retry = Millis(self.now.0 + RESTAMP_RETRY_MS);
            cluster.stamp_due = Some(cluster.stamp_due.map_or(retry, |due| due.min(retry)));
        }
    }

    /// Asks the store whose a session is: nobody could tell this node that another one has claimed it.
    fn recheck(&mut self, client: &ClientKey) {
        let generation = self.generation();
        let app = self.app(&client.app);
        let clients = &self.apps[usize::from(app)].clients;
        let Some(&slot) = clients.get(&client.client_id) else {
            return;
        };
        let Some(known) = &self.conns[slot as usize] else {
            return;
        };
        let conn = known.id;
        let Phase::Live(live) = &known.phase else {
            // The answer could come before its CONNACK has been sent.
            return self.restamp_later(conn);
        };
        let command = Command::Restamp {
            client: client.clone(),
            epoch: live.epoch,
            generation,
        };
        self.command(command, Pending::Restamp(conn));
    }

    fn on_inbox_waits(&mut self, client: &ClientKey, entry: Offset, lane: Lane) {
        let app = self.app(&client.app);
        let clients = &self.apps[usize::from(app)].clients;
        let Some(&slot) = clients.get(&client.client_id) else {
            return;
        };
        let known = match self.conns[slot as usize].as_ref().map(|conn| &conn.phase) {
            Some(Phase::Live(live) | Phase::Announcing(live)) => entry <= live.inbox_read(lane),
            _ => false,
        };
        if !known {
            self.look_into_inbox(slot, lane.into());
        }
    }

    /// Lanes of a client's inbox may have entries that nobody announced.
    pub(super) fn look_into_inbox(&mut self, slot: u32, lanes: LaneSet) {
        let phase = self.conns[slot as usize]
            .as_mut()
            .map(|conn| &mut conn.phase);
        match phase {
            Some(Phase::Claiming(connecting)) => connecting.inbox_noticed.add(lanes),
            Some(Phase::Announcing(live) | Phase::Live(live)) => {
                let replay = live.push.replay.get_or_insert_with(Default::default);
                replay.note(lanes);
            }
            _ => return,
        }
        if live_in(&mut self.conns, slot).is_some() {
            self.pump(slot);
        }
    }

    /// Sends clients to another node: those that have waited longest since the last move.
    fn move_away(&mut self, count: u32, reference: Arc<str>) {
        let slots = self.conns.len() as u32;
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.reference = reference;
        let start = cluster.next_moved;
        let mut left = count;
        for step in 0..slots {
            let slot = (start + step) % slots;
            if left == 0 {
                break;
            }
            if self.live(slot).is_some() {
                self.announce_move(slot);
                self.refuse(
                    slot,
                    Reason::UseAnotherServer,
                    "this server is being relieved",
                );
                self.stats.moved += 1;
                left -= 1;
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.next_moved = slot + 1;
            }
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.reference = "".into();
        }
    }

    /// Says where a client is connected, and closes the connection if it is to be kicked.
    fn say_where(&mut self, client: &ClientKey, ticket: u64, kick: bool) {
        let app = self.app(&client.app);
        let slot = self.apps[usize::from(app)].clients.get(&client.client_id);
        let found = slot.and_then(|slot| Some((*slot, self.connected(*slot)?)));
        let conn = found
            .as_ref()
            .and_then(|(slot, _)| Some(self.live(*slot)?.conn));
        let slot = found.as_ref().map(|(slot, _)| *slot);
        self.mail_hub(ClusterMail::Here {
            ticket,
            conn,
            connected: found.map(|(_, connected)| connected),
        });
        if let Some(slot) = slot.filter(|_| kick) {
            self.stats.kicked += 1;
            let text = "the app has ended this connection";
            self.refuse(slot, Reason::AdministrativeAction, text);
        }
    }

    fn connected(&self, slot: u32) -> Option<Connected> {
        let live = self.live(slot)?;
        let app = &self.apps[usize::from(live.app)];
        let tail = &app.push_tail;
        let position = &live.push.position;
        let filters = live.subscriptions.iter().map(|subscription| {
            let filter = &app.routes.filter(subscription.filter).text;
            subscription.shared.as_ref().unwrap_or(filter).clone()
        });
        Some(Connected {
            since: Millis(u64::from(live.since) * 1000),
            peer: None,
            filters: filters.take(Connected::MAX_FILTERS).collect(),
            behind: match position.lagging {
                true if tail.covers(position.read) => Some(tail.count_after(position.read) as u32),
                true => None,
                false => Some(0),
            },
            inbox_waits: live
                .push
                .replay
                .as_ref()
                .is_some_and(|replay| replay.waits_in_inbox()),
            epoch: live.epoch,
            protocol_level: match live.version {
                Version::V31 => 3,
                Version::V311 => 4,
                Version::V5 => 5,
            },
            subscriptions: live.subscriptions.len() as u32,
            in_flight: live.outbound.unfinished().count() as u32,
        })
    }
}

/// Sets a durable member of a shared subscription as the store knows it. One that is connected somewhere is known better by its node.
fn set_stored_member(
    routes: &mut Routes,
    filter: &Arc<str>,
    client_id: &Arc<str>,
    member: Option<DurableMember>,
) {
    let member = member.map(|member| crate::mail::Member {
        shard: ShardId::STORE,
        qos: member.qos,
        durable: true,
        live: false,
        epoch: Epoch(0),
        subscription_id: member.subscription_id,
        retain_as_published: member.retain_as_published,
    });
    routes.set_stored_member(filter, client_id, member);
}
