//! SUBSCRIBE and UNSUBSCRIBE: into the routes of all shards and into the store, then the answer, then what is retained. MQTT 5.0 sections 3.8 to 3.11.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use campanile_mqtt::{
    Packet, PacketId, Properties, QoS, Reason, RetainHandling, SubAck, Subscribe,
    SubscriptionOptions, UnsubAck, Unsubscribe, Version, topic,
};
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::{
    Pending, Shard, Violation,
    conn::{Live, Phase, Position, Queued, Subscription, TopicStream, Welcome},
};
use crate::{
    ids::{ClientKey, ConnId, MessageId, Offset},
    lane::Lane,
    mail::{Interest, Member},
    routes::{FilterIx, Subscriber},
    store::{self, Command, InboxItem, StoreError, StoredSubscription},
};

/// Retained messages that one SUBSCRIBE brings, above which its further filters are refused; or all that there are, if those are more. Bounds the memory
/// that filters with many matches, or one filter many times, can cost.
const MAX_RETAINED_AT_ONCE: usize = 100_000;

/// An answer that waits for other shards and the store.
pub(super) struct Job {
    kind: JobKind,
    /// Answers still to come.
    waits: u32,
}

/// See [`Job`].
pub(super) enum JobKind {
    /// CONNACK.
    Welcome(ConnId),
    Subscribe {
        conn: ConnId,
        packet_id: PacketId,
        codes: Vec<Reason>,
        /// Retained messages that do not come through the inbox.
        retained: Vec<Queued>,
        client: ClientKey,
        added: Vec<Arc<str>>,
        /// The store is asked to keep them.
        stored: bool,
        /// It did not.
        failed: bool,
    },
    Unsubscribe {
        conn: ConnId,
        packet_id: PacketId,
        codes: Vec<Reason>,
        client: ClientKey,
        remove: Vec<Arc<str>>,
        /// The store is asked to forget them.
        stored: bool,
        /// It did not.
        failed: bool,
    },
    /// The answer to it.
    UnsubAck {
        conn: ConnId,
        packet_id: PacketId,
        codes: Vec<Reason>,
    },
}

/// A filter of a SUBSCRIBE that is granted.
struct Granted {
    /// As the client gave it.
    text: Arc<str>,
    /// Without `$share/...`.
    behind: Arc<str>,
    shared: bool,
    options: SubscriptionOptions,
}

impl Job {
    /// The connection that waits.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match &self.kind {
            JobKind::Welcome(conn)
            | JobKind::Subscribe { conn, .. }
            | JobKind::Unsubscribe { conn, .. }
            | JobKind::UnsubAck { conn, .. } => Some(*conn),
        }
    }
}

impl Shard {
    pub(super) fn on_subscribe(
        &mut self,
        slot: u32,
        packet: Subscribe<'_>,
    ) -> Result<(), Violation> {
        let id = packet.properties.subscription_ids().next();
        let mut codes = Vec::new();
        let mut granted = Vec::new();
        let mut new = 0;
        for (filter, options) in packet.filters.iter() {
            if codes.len() >= self.config.max_subscriptions as usize {
                codes.push(Reason::QuotaExceeded);
                continue;
            }
            match self.grant(slot, filter, options, &mut new) {
                Ok(grant) => {
                    codes.push(match grant.options.qos {
                        QoS::AtMostOnce => Reason::GrantedQoS0,
                        QoS::AtLeastOnce => Reason::GrantedQoS1,
                        QoS::ExactlyOnce => Reason::GrantedQoS2,
                    });
                    granted.push((codes.len() - 1, grant));
                }
                Err(reason) => codes.push(reason),
            }
        }
        let (conn, mut live) = self.take_live(slot);
        let job = self.next_job;
        let since = self.subscribed_since();
        let mut waits = 0;
        let mut inbox = Vec::new();
        let mut retained = Vec::new();
        let mut stored = Vec::new();
        let mut added = Vec::new();
        let app = &self.apps[usize::from(live.app)];
        let most = MAX_RETAINED_AT_ONCE.max(app.retained.len() + self.sys.len());
        for (at, grant) in granted {
            let known = self.known(&live, &grant);
            if inbox.len() + retained.len() > most {
                codes[at] = Reason::QuotaExceeded;
                continue;
            }
            self.collect_retained(
                &live,
                &grant,
                id,
                known.is_none(),
                &mut inbox,
                &mut retained,
            );
            let stored_as = StoredSubscription {
                filter: grant.text.clone(),
                options: grant.options,
                id,
                since: known.map_or(since, |at| {
                    MessageId::first_at(live.subscriptions[at].since)
                }),
            };
            let ix = self.apps[usize::from(live.app)]
                .routes
                .intern(&grant.behind);
            let mut subscription = Shard::subscription_of(ix, &stored_as, grant.shared);
            subscription.counted = live.is_durable() && !grant.shared;
            waits += match known {
                Some(at) => {
                    subscription.counted = live.subscriptions[at].counted;
                    live.subscriptions[at] = subscription.clone();
                    self.re_enroll(slot, &live, &subscription, job)
                }
                None => {
                    push_exactly(&mut live.subscriptions, subscription.clone());
                    added.push(grant.text.clone());
                    self.start_topics(&mut live);
                    for stream in &mut live.topics {
                        stream.outdated |= stream.reading;
                    }
                    let counted = subscription.counted;
                    let told = if counted {
                        self.count_durable(live.app, ix, 1, job)
                    } else {
                        0
                    };
                    told + self.enroll(slot, &live, &subscription, job)
                }
            };
            self.stats.subscriptions += u64::from(known.is_none());
            stored.push(stored_as);
        }
        let durable = live.is_durable() && !stored.is_empty();
        let client = self.key_of(&live);
        let epoch = live.epoch;
        self.put_live(slot, live);
        let kind = JobKind::Subscribe {
            conn,
            packet_id: packet.packet_id,
            codes,
            retained,
            client: client.clone(),
            added,
            stored: durable,
            failed: false,
        };
        if durable {
            waits += 1;
            let live = self.live_mut(slot).expect("just put back");
            live.rare().pending_subscribes += 1;
            self.start_job(waits, kind);
            let change = store::Subscribe {
                client,
                epoch,
                add: stored,
                remove: Vec::new(),
                inbox,
            };
            self.command(Command::Subscribe(change), Pending::Job(job));
        } else {
            self.start_job(waits, kind);
        }
        Ok(())
    }

    /// Whether a filter is granted, with which options. `new`: how many before it in the same packet add a subscription.
    fn grant(
        &self,
        slot: u32,
        filter: &str,
        mut options: SubscriptionOptions,
        new: &mut usize,
    ) -> Result<Granted, Reason> {
        let live = self.live(slot).expect("the caller looked");
        let (behind, shared) = match topic::parse_shared(filter) {
            Ok(Some((_, behind))) => (behind, true),
            Ok(None) => (filter, false),
            Err(_) => return Err(Reason::TopicFilterInvalid),
        };
        if topic::levels(behind) > usize::from(self.config.max_topic_levels) {
            return Err(Reason::TopicFilterInvalid);
        }
        if !self
            .access
            .may_subscribe(&live.identity, &live.client_id, behind)
        {
            return Err(Reason::NotAuthorized);
        }
        if live.is_durable() && self.store_is_behind() {
            return Err(Reason::QuotaExceeded);
        }
        options.qos = options.qos.min(self.config.max_qos);
        let grant = Granted {
            text: filter.into(),
            behind: behind.into(),
            shared,
            options,
        };
        if self.known(live, &grant).is_none() {
            if live.subscriptions.len() + *new >= self.config.max_subscriptions as usize {
                return Err(Reason::QuotaExceeded);
            }
            *new += 1;
        }
        Ok(grant)
    }

    /// Index of the client's subscription with the same filter.
    fn known(&self, live: &Live, grant: &Granted) -> Option<usize> {
        let ix = self.apps[usize::from(live.app)]
            .routes
            .find(&grant.behind)?;
        live.subscriptions.iter().position(|s| {
            s.filter == ix && s.shared.as_deref() == grant.shared.then_some(&*grant.text)
        })
    }

    /// A durable session's first subscription: its topic cursors start at the end of the logs.
    fn start_topics(&mut self, live: &mut Live) {
        if live.is_durable() && live.topics.is_empty() {
            for tail in &self.apps[usize::from(live.app)].topic_tails {
                let position = Position::at(tail.end(), tail.end(), Vec::new());
                live.topics.push(TopicStream {
                    position,
                    page: VecDeque::new(),
                    page_end: Offset::default(),
                    reading: false,
                    outdated: false,
                });
            }
        }
    }

    /// What is retained for a new subscription: durable sessions get QoS 1 and 2 through their inbox, all else goes out after the SUBACK.
    fn collect_retained(
        &self,
        live: &Live,
        grant: &Granted,
        id: Option<u32>,
        is_new: bool,
        inbox: &mut Vec<InboxItem>,
        direct: &mut Vec<Queued>,
    ) {
        let wanted = match grant.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted || grant.shared {
            return;
        }
        let mut found = self.apps[usize::from(live.app)]
            .retained
            .matching(&grant.behind, self.now);
        if grant.behind.starts_with("$SYS") {
            let matching = self
                .sys
                .iter()
                .filter(|(name, _)| topic::matches(&grant.behind, name));
            found.extend(matching.map(|(_, message)| message.clone()));
        }
        for message in found {
            if grant.options.no_local && message.publisher.as_ref() == Some(&live.client_id) {
                continue;
            }
            let qos = message.qos.min(grant.options.qos);
            let subscription_ids: SmallVec<[u32; 1]> = id.into_iter().collect();
            if live.is_durable() && qos > QoS::AtMostOnce {
                inbox.push(InboxItem {
                    lane: Lane::Normal,
                    message,
                    qos,
                    retain: true,
                    subscription_ids,
                });
            } else {
                direct.push(Queued {
                    message,
                    qos,
                    retain: true,
                    subscription_ids,
                    shared: None,
                    keeper: None,
                });
            }
        }
    }

    /// Puts a connected client's subscription into the routes. How many answers to wait for.
    pub(super) fn enroll(
        &mut self,
        slot: u32,
        live: &Live,
        subscription: &Subscription,
        job: u64,
    ) -> u32 {
        if subscription.shared.is_some() {
            return self.re_enroll(slot, live, subscription, job);
        }
        let routes = &mut self.apps[usize::from(live.app)].routes;
        let is_first = routes.subscribe(subscription.filter, subscriber(slot, subscription));
        let filter = routes.filter_mut(subscription.filter);
        // Whoever comes after the first must not be answered before the other shards know of that one.
        if !is_first && !self.jobs.contains_key(&filter.told.live) {
            return 0;
        }
        filter.told.live = job;
        let filter = filter.text.clone();
        self.announce(
            live.app,
            &Interest::Live {
                filter,
                present: true,
            },
            job,
        )
    }

    /// As [`Shard::enroll`], for one that is there already.
    fn re_enroll(&mut self, slot: u32, live: &Live, subscription: &Subscription, job: u64) -> u32 {
        match &subscription.shared {
            Some(text) => {
                let member = Some(self.member(live, subscription, true));
                self.set_member(
                    live.app,
                    subscription.filter,
                    text,
                    &live.client_id,
                    member,
                    job,
                )
            }
            None => {
                let routes = &mut self.apps[usize::from(live.app)].routes;
                routes.subscribe(subscription.filter, subscriber(slot, subscription));
                0
            }
        }
    }

    fn member(&self, live: &Live, subscription: &Subscription, is_live: bool) -> Member {
        Member {
            shard: self.id,
            qos: subscription.options.qos,
            durable: live.is_durable(),
            live: is_live,
            epoch: live.epoch,
            subscription_id: subscription.id,
            retain_as_published: subscription.options.retain_as_published,
        }
    }

    /// Takes a subscription out of the routes; of a client that is away but `stays`, it remains as that of an absent one. One that is counted as durable goes on
    /// being so.
    pub(super) fn withdraw(
        &mut self,
        slot: u32,
        live: &Live,
        subscription: &Subscription,
        stays: bool,
        job: u64,
    ) -> u32 {
        self.stats.subscriptions -= 1;
        let app = live.app;
        if let Some(text) = &subscription.shared {
            let member = stays.then(|| self.member(live, subscription, false));
            return self.set_member(app, subscription.filter, text, &live.client_id, member, job);
        }
        let routes = &mut self.apps[usize::from(app)].routes;
        let was_last = routes.unsubscribe(subscription.filter, slot);
        let filter = routes.filter(subscription.filter).text.clone();
        if was_last {
            self.announce(
                app,
                &Interest::Live {
                    filter,
                    present: false,
                },
                0,
            );
        }
        self.apps[usize::from(app)].routes.tidy(subscription.filter);
        0
    }

    pub(super) fn on_unsubscribe(&mut self, slot: u32, packet: Unsubscribe<'_>) {
        let live = self.live(slot).expect("the caller looked");
        let (conn, epoch) = (live.conn, live.epoch);
        let mut codes = Vec::new();
        let mut remove: Vec<Arc<str>> = Vec::new();
        let mut seen = HashSet::with_hasher(FixedState::with_seed(self.seed));
        for filter in packet.filters.iter() {
            if seen.insert(filter) && self.position_of(live, filter).is_some() {
                remove.push(filter.into());
                codes.push(Reason::Success);
            } else {
                codes.push(Reason::NoSubscriptionExisted);
            }
        }
        let durable = live.is_durable() && !remove.is_empty();
        let client = self.key_of(live);
        let job = self.next_job;
        // They stay until the store has forgotten them: if it cannot, nothing has happened.
        let kind = JobKind::Unsubscribe {
            conn,
            packet_id: packet.packet_id,
            codes,
            client: client.clone(),
            remove: remove.clone(),
            stored: durable,
            failed: false,
        };
        if durable {
            let live = self.live_mut(slot).expect("just seen");
            live.rare().pending_unsubscribes += 1;
        }
        self.start_job(u32::from(durable), kind);
        if durable {
            let change = store::Subscribe {
                client,
                epoch,
                add: Vec::new(),
                remove,
                inbox: Vec::new(),
            };
            self.command(Command::Subscribe(change), Pending::Job(job));
        }
    }

    /// Index of the client's subscription with a filter as clients give it.
    fn position_of(&self, live: &Live, filter: &str) -> Option<usize> {
        let behind = match topic::parse_shared(filter) {
            Ok(Some((_, behind))) => behind,
            _ => filter,
        };
        let ix = self.apps[usize::from(live.app)].routes.find(behind)?;
        let shared = (behind != filter).then_some(filter);
        live.subscriptions
            .iter()
            .position(|s| s.filter == ix && s.shared.as_deref() == shared)
    }

    /// Takes subscriptions of a client away, be it still connected or not. How many answers to wait for under `job`.
    fn forget_subscriptions(
        &mut self,
        conn: ConnId,
        client: &ClientKey,
        filters: &[Arc<str>],
        job: u64,
    ) -> u32 {
        if self.answered(conn).is_none() {
            self.on_session_ended(client, filters);
            return 0;
        }
        let mut waits = 0;
        let (_, mut live) = self.take_live(conn.slot);
        for filter in filters {
            if let Some(at) = self.position_of(&live, filter) {
                let subscription = live.subscriptions.swap_remove(at);
                if subscription.counted {
                    self.count_durable(live.app, subscription.filter, -1, 0);
                }
                waits += self.withdraw(conn.slot, &live, &subscription, false, job);
            }
        }
        self.put_live(conn.slot, live);
        waits
    }

    /// Whether a SUBSCRIBE or UNSUBSCRIBE must wait for what came before it on the connection.
    pub(super) fn must_wait(&mut self, slot: u32, is_subscribe: bool) -> bool {
        let live = self.live_mut(slot).expect("the caller looked");
        let waits = live.rare.as_ref().is_some_and(|rare| {
            // What was retained just before must be found.
            let for_retained = is_subscribe && rare.pending_retained > 0;
            let for_store = !is_subscribe && rare.pending_subscribes > 0;
            for_retained || for_store || rare.pending_unsubscribes > 0
        });
        live.paused |= waits;
        waits
    }

    /// The store has answered a SUBSCRIBE or UNSUBSCRIBE.
    fn settle_change(&mut self, conn: ConnId, is_subscribe: bool) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let Some(rare) = &mut live.rare else { return };
        let pending = match is_subscribe {
            true => &mut rare.pending_subscribes,
            false => &mut rare.pending_unsubscribes,
        };
        *pending = pending.saturating_sub(1);
        if std::mem::take(&mut live.paused) {
            self.effects.resume.push(conn);
        }
    }

    /// Takes a live connection's state out of its slot, so that it and the shard can be changed together. Put it back.
    pub(super) fn take_live(&mut self, slot: u32) -> (ConnId, Box<Live>) {
        let conn = self.conns[slot as usize].take().expect("the caller looked");
        match conn.phase {
            Phase::Live(live) => (conn.id, live),
            _ => unreachable!("the caller looked"),
        }
    }

    pub(super) fn put_live(&mut self, slot: u32, live: Box<Live>) {
        let id = live.conn;
        self.conns[slot as usize] = Some(super::conn::Conn {
            id,
            phase: Phase::Live(live),
        });
    }

    /// Begins to wait for answers under the next job number; with none to wait for, the job is done at once.
    pub(super) fn start_job(&mut self, waits: u32, kind: JobKind) {
        let job = self.next_job;
        self.next_job += 1;
        if waits == 0 {
            self.finish(kind);
        } else {
            self.jobs.insert(job, Job { kind, waits });
        }
    }

    /// One of a job's answers has come.
    pub(super) fn on_job_answer(&mut self, job: u64, result: Result<(), StoreError>) {
        let Some(waiting) = self.jobs.get_mut(&job) else {
            return;
        };
        if result.is_err() {
            self.stats.refused_store += 1;
            match &mut waiting.kind {
                JobKind::Subscribe { codes, failed, .. } => {
                    codes.fill(Reason::QuotaExceeded);
                    *failed = true;
                }
                JobKind::Unsubscribe { codes, failed, .. } => {
                    codes.fill(Reason::UnspecifiedError);
                    *failed = true;
                }
                JobKind::Welcome(_) | JobKind::UnsubAck { .. } => {}
            }
        }
        waiting.waits -= 1;
        if waiting.waits == 0 {
            let job = self.jobs.remove(&job).expect("just seen");
            self.finish(job.kind);
        }
    }

    fn finish(&mut self, kind: JobKind) {
        match kind {
            JobKind::Welcome(conn) => {
                let Some(slot) = self.slot_of(conn) else {
                    return;
                };
                let known = self.conns[slot as usize].take().expect("slot_of found it");
                let Phase::Announcing(mut live) = known.phase else {
                    self.conns[slot as usize] = Some(known);
                    return;
                };
                let Welcome { connack, resend } = *live
                    .rare
                    .as_mut()
                    .and_then(|rare| rare.welcome.take())
                    .expect("an announcing connection has its welcome");
                self.put_live(slot, live);
                self.begin(conn, &connack, resend);
            }
            JobKind::Subscribe {
                conn,
                packet_id,
                codes,
                retained,
                client,
                added,
                stored,
                failed,
            } => {
                if failed {
                    // The store did not keep them: they do not exist.
                    self.forget_subscriptions(conn, &client, &added, 0);
                }
                if stored {
                    self.settle_change(conn, true);
                }
                let bytes: Vec<u8> = codes.iter().map(|code| code.code()).collect();
                let text = explanation(&codes).unwrap_or_default();
                let encode = |version: Version, properties: Properties<'_>, out: &mut Vec<u8>| {
                    let codes = &bytes;
                    let packet = SubAck {
                        packet_id,
                        properties,
                        codes,
                    };
                    Packet::SubAck(packet).encode(version, out);
                };
                if !self.answer(conn, text, encode) {
                    return;
                }
                // All that is retained must come [MQTT-3.3.1-9], however small the client's window is.
                let allowance = retained.len();
                for queued in retained {
                    self.send_or_queue_within(conn.slot, queued, allowance);
                }
            }
            JobKind::Unsubscribe {
                conn,
                packet_id,
                codes,
                client,
                remove,
                stored,
                failed,
            } => {
                let job = self.next_job;
                // Of a group, the other shards choose the members.
                let waits = match failed {
                    true => 0,
                    false => self.forget_subscriptions(conn, &client, &remove, job),
                };
                if stored {
                    self.settle_change(conn, false);
                }
                if failed
                    && self
                        .answered(conn)
                        .is_some_and(|live| !live.version.is_v5())
                {
                    // There is no way to say no.
                    let text = "the store is unavailable";
                    return self.refuse(conn.slot, Reason::UnspecifiedError, text);
                }
                let answer = JobKind::UnsubAck {
                    conn,
                    packet_id,
                    codes,
                };
                self.start_job(waits, answer);
            }
            JobKind::UnsubAck {
                conn,
                packet_id,
                codes,
            } => {
                let bytes: Vec<u8> = codes.iter().map(|code| code.code()).collect();
                let encode = |version: Version, properties: Properties<'_>, out: &mut Vec<u8>| {
                    let codes = &bytes;
                    let packet = UnsubAck {
                        packet_id,
                        properties,
                        codes,
                    };
                    Packet::UnsubAck(packet).encode(version, out);
                };
                self.answer(conn, "", encode);
            }
        }
    }

    /// The filter's subscribers among live durable sessions; scratch for the notices.
    pub(super) fn durable_slots(&self, app: u16, filters: &[FilterIx], slots: &mut Vec<u32>) {
        for &ix in filters {
            let subscribers = &self.apps[usize::from(app)].routes.filter(ix).subscribers;
            slots.extend(subscribers.iter().filter(|s| s.durable).map(|s| s.slot));
        }
        slots.sort_unstable();
        slots.dedup();
    }
}

/// Words for the first refusal among the codes.
fn explanation(codes: &[Reason]) -> Option<&'static str> {
    codes
        .iter()
        .find(|code| code.is_error())
        .map(|code| match code {
            Reason::NotAuthorized => "a topic filter is not allowed for this client",
            Reason::TopicFilterInvalid => "a topic filter is malformed or has too many levels",
            Reason::QuotaExceeded => "too many subscriptions, or the store is unavailable",
            _ => "a topic filter was refused",
        })
}

/// Appends to a list that is short and long-lived: it does not grow ahead of its needs before it has eight elements.
pub(super) fn push_exactly<T>(list: &mut Vec<T>, element: T) {
    if list.len() < 8 {
        list.reserve_exact(1);
    }
    list.push(element);
}

fn subscriber(slot: u32, subscription: &Subscription) -> Subscriber {
    Subscriber {
        slot,
        subscription_id: subscription.id.unwrap_or(0),
        qos: subscription.options.qos,
        no_local: subscription.options.no_local,
        retain_as_published: subscription.options.retain_as_published,
        // Of a session that goes on for this connection only, what was counted is still kept in the log.
        durable: subscription.counted,
    }
}
