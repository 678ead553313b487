//! The middle of a node that is a member of a cluster: between its shards, the store and its peers, as a machine without IO.
//!
//! What the store commits for this node comes in with [`Hub::on_commit`], what other nodes commit comes from them ([`Hub::on_peer`]) or, a little later,
//! from the store itself ([`Hub::on_page`]): a [`Sequencer`] per log puts it into order, so that the shards see each log without a gap, as on a node
//! alone. Peers stand among the shards under numbers of their own; what shards say to those, and to [`ShardId::HUB`], comes in
//! with [`Hub::on_mail`].
//!
//! Nothing here must arrive: a peer that is not linked reads it from the store. What must be known by all before somebody is answered (a new filter of
//! a durable session) waits for the linked peers, and for the others until they doubt what they know by themselves ([`LEASE_MS`]): those that the ensemble
//! lists, or, if it does not answer this node, whoever there may be by now. A node that has just registered doubts until those that it found have heard of it.

mod counts;
mod gone;
mod interest;
mod peers;
mod polls;
mod sequencer;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
    sync::Arc,
};

use self::counts::Counting;
pub use self::{counts::Counted, sequencer::Sequencer};
use self::{
    gone::Graveyard,
    interest::LocalInterest,
    peers::{Kept, Peers},
    polls::AppState,
    waits::{Then, Waits},
};
use super::{
    membership::Membership,
    peer::{Answer, Connected, PeerMessage},
};
use crate::{
    ids::{AppId, ClientKey, Generation, Millis, Offset, ShardId},
    mail::{ClusterMail, Interest, Mail},
    shard::Shard,
    store::{Command, Notice, Outcome, Query, StoreError},
};

/// How often an app's news are read from the store.
pub const POLL_MS: u64 = 250;
/// How long a node may trust what it knows of durable subscriptions after it has read them. Others wait as long for a node that does not answer.
pub const LEASE_MS: u64 = 1000;
/// How long others wait for such a node: clocks do not all tick alike.
const LEASE_WAIT_MS: u64 = LEASE_MS + LEASE_MS / 10;
/// How long a peer may take to answer before it is not waited for any more.
const PEER_WAIT_MS: u64 = 1000;
/// A machine that stood still for so long does not trust what it was told before.
const STANDSTILL_MS: u64 = 1000;
/// Clients of a dead node that are looked at in one commit.
const VOIDED_AT_ONCE: u32 = 500;
/// Messages of shared subscriptions that are kept until a member at a peer has them; beyond, they are sent without being kept.
const MAX_KEPT: usize = 65_536;

/// What the hub wants done.
#[derive(Debug)]
pub struct Effects<H> {
    /// To the node's shards, in order.
    pub letters: Vec<(ShardId, Mail)>,
    /// To peers, in order for each.
    pub peers: Vec<(Generation, PeerMessage)>,
    /// Reads. The answer goes to [`Hub::on_page`].
    pub queries: Vec<(u64, Query)>,
    /// Writes. The answer goes to [`Hub::on_outcome`].
    pub commands: Vec<(u64, Command)>,
    /// Answers of the store that may be passed on, after the letters.
    pub ready: Vec<H>,
    /// The store's clock: when it was asked, and what it said.
    pub clock: Option<(Millis, Millis)>,
    /// Answers to [`Hub::ask`].
    pub found: Vec<(u64, Found)>,
    /// Answers to [`Hub::count`].
    pub counted: Vec<Counted>,
}

/// What became of [`Hub::ask`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The connections that the client has, by their nodes: while it moves, two may answer.
    pub connections: Vec<(Generation, Connected)>,
    /// Nodes that did not answer in time: linked ones, or this one.
    pub silent: Vec<Generation>,
}

impl<H> Default for Effects<H> {
    fn default() -> Effects<H> {
        Effects {
            letters: Vec::new(),
            peers: Vec::new(),
            queries: Vec::new(),
            commands: Vec::new(),
            ready: Vec::new(),
            clock: None,
            found: Vec::new(),
            counted: Vec::new(),
        }
    }
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Entries that were read from the store because no peer had announced them in time.
    pub entries_read: u64,
    /// Times that a log ended before what was known of it: the store lost something.
    pub logs_went_back: u64,
    /// Times that an app's changes or notes were read anew as a whole.
    pub reloads: u64,
    /// Clients that were taken over from other nodes.
    pub taken_over: u64,
    /// Of those, how many whose node did not answer in time.
    pub taken_over_alone: u64,
    /// Messages for shared subscriptions that were sent to another member because a node was lost.
    pub redelivered: u64,
    /// Messages for shared subscriptions that were sent without being kept.
    pub not_kept: u64,
    /// Answers that waited until a node that is not linked must have doubted what it knew.
    pub lease_waits: u64,
    /// Clients of dead nodes that were put in order: requests to the store.
    pub voids: u64,
}

/// What waits in the hub now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Answers of shards and peers that others wait for.
    pub answers: usize,
    /// Answers of the store that wait until all nodes know what they changed.
    pub held: usize,
    /// Messages of shared subscriptions that are kept until a member at a peer has them.
    pub kept: usize,
    /// Questions of operators.
    pub asked: usize,
}

/// An answer of the store that waits until all nodes know a change.
#[derive(Debug)]
struct Held<H> {
    answer: H,
    app: AppId,
    offset: Offset,
    /// Nodes that are not linked doubt what they know by then.
    lease_over: Millis,
}

enum Request {
    Poll(AppId, Millis),
    Snapshot(AppId),
    Void(Generation),
}

/// See the module. `H` is an answer of the store with whoever waits for it; the hub only holds it back.
pub struct Hub<H> {
    shards: u8,
    partitions: u8,
    now: Millis,
    own: Generation,
    membership: Arc<Membership>,
    apps: BTreeMap<AppId, AppState>,
    peers: Peers,
    interest: LocalInterest,
    waits: Waits,
    held: Vec<Held<H>>,
    /// Messages for members at peers, the oldest first.
    kept: BTreeMap<u64, Kept>,
    graveyard: Graveyard,
    owners: BTreeSet<Generation>,
    owners_of: BTreeMap<AppId, Vec<Generation>>,
    told_known_until: Millis,
    requests: BTreeMap<u64, Request>,
    asked: BTreeMap<u64, Asked>,
    counts: BTreeMap<u64, Counting>,
    /// What it knew is not trusted before this.
    doubts_until: Millis,
    /// Members that were there before this node registered, and may not know yet that it is there: they do not wait for it.
    unaware: BTreeSet<Generation>,
    next_round: Millis,
    stats: HubStats,
    effects: Effects<H>,
}

/// A question about where a client is.
struct Asked {
    ticket: u64,
    waiting: Vec<Generation>,
    deadline: Millis,
    connections: Vec<(Generation, Connected)>,
}

impl Asked {
    /// Whoever has not answered by now is silent.
    fn end(self) -> (u64, Found) {
        let found = Found {
            connections: self.connections,
            silent: self.waiting,
        };
        (self.ticket, found)
    }
}

impl<H> Hub<H> {
    /// A hub of a node with `shards` shards that serves these apps, whose topic logs have so many partitions.
    pub fn new(
        shards: u8,
        partitions: u8,
        own: Generation,
        apps: impl IntoIterator<Item = AppId>,
        now: Millis,
    ) -> Hub<H> {
        assert!(
            (1..=ShardId::MAX_IN_CLUSTER).contains(&shards),
            "checked in the configuration"
        );
        let mut hub = Hub {
            shards,
            partitions: partitions.max(1),
            now,
            own,
            membership: Arc::default(),
            apps: BTreeMap::new(),
            peers: Peers::default(),
            interest: LocalInterest::default(),
            waits: Waits::default(),
            held: Vec::new(),
            kept: BTreeMap::new(),
            graveyard: Graveyard::default(),
            owners: BTreeSet::new(),
            owners_of: BTreeMap::new(),
            told_known_until: Millis(0),
            requests: BTreeMap::new(),
            asked: BTreeMap::new(),
            counts: BTreeMap::new(),
            doubts_until: Millis(0),
            unaware: BTreeSet::new(),
            next_round: now,
            stats: HubStats::default(),
            effects: Effects::default(),
        };
        for app in apps {
            hub.app(&app);
        }
        hub
    }

    /// What to do; the driver takes it (`std::mem::take`) after each call.
    pub fn effects(&mut self) -> &mut Effects<H> {
        &mut self.effects
    }

    /// Counters.
    pub fn stats(&self) -> HubStats {
        self.stats
    }

    /// What waits.
    pub fn waiting(&self) -> Waiting {
        Waiting {
            answers: self.waits.len(),
            held: self.held.len(),
            kept: self.kept.len(),
            asked: self.asked.len() + self.counts.len(),
        }
    }

    /// Whether everything is known that the node routes by: before, it must not serve.
    pub fn is_ready(&self) -> bool {
        self.apps.values().all(|app| app.is_loaded)
    }

    /// The store has carried out a batch. `changed`: answers, by their place, that wait until all nodes know what they changed.
    pub fn on_commit(
        &mut self,
        notices: Vec<Notice>,
        answers: Vec<H>,
        changed: &[(usize, AppId, Offset)],
        now: Millis,
    ) {
        self.begin(now);
        for notice in notices {
            self.on_own_notice(notice);
        }
        self.sync_changes();
        let mut changed = changed.iter().peekable();
        for (at, answer) in answers.into_iter().enumerate() {
            match changed.next_if(|(place, ..)| *place == at) {
                Some((_, app, offset)) => {
                    let lease_over = self.lease_over(app, *offset);
                    self.held.push(Held {
                        answer,
                        app: app.clone(),
                        offset: *offset,
                        lease_over,
                    });
                }
                None => self.effects.ready.push(answer),
            }
        }
        self.release_held();
    }

    fn on_own_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Log {
                app,
                log,
                previous,
                entry,
                changes,
            } => {
                self.peers
                    .tell_all(&mut self.effects.peers, || PeerMessage::Log {
                        app: app.clone(),
                        log,
                        previous,
                        entry: entry.clone(),
                        changes,
                    });
                self.on_log(&app, log, previous, entry, changes);
            }
            Notice::Change {
                app,
                previous,
                offset,
                change,
            } => {
                self.peers
                    .tell_all(&mut self.effects.peers, || PeerMessage::Change {
                        app: app.clone(),
                        previous,
                        offset,
                        change: change.clone(),
                    });
                self.on_change(&app, previous, offset, change);
            }
            Notice::Inbox {
                client,
                owner,
                previous,
                entry,
                replaced,
            } => {
                if owner == self.own || owner == Generation::ALONE {
                    self.mail_home(
                        &client.clone(),
                        Mail::Notice(Notice::Inbox {
                            client,
                            owner,
                            previous,
                            entry,
                            replaced,
                        }),
                    );
                } else if self.peers.is_linked(owner) {
                    // Otherwise the owner finds a note in its mailbox.
                    let message = PeerMessage::Inbox {
                        client,
                        previous,
                        entry,
                        replaced,
                    };
                    self.effects.peers.push((owner, message));
                }
            }
            Notice::Instant {
                app,
                clients,
                message,
            } => {
                self.peers
                    .tell_all(&mut self.effects.peers, || PeerMessage::Instant {
                        app: app.clone(),
                        clients: clients.clone(),
                        message: message.clone(),
                    });
                self.mail_all(Mail::Notice(Notice::Instant {
                    app,
                    clients,
                    message,
                }));
            }
        }
    }

    /// From a shard: to the hub, or to a peer that stands among the shards.
    pub fn on_mail(&mut self, to: ShardId, mail: Mail, now: Millis) {
        self.begin(now);
        match mail {
            Mail::Interest {
                from,
                app,
                change,
                ticket,
            } => self.on_local_interest(from, app, change, ticket),
            Mail::InterestKnown { ticket } => {
                let then = self.waits.on_shard(ticket);
                self.follow(then);
            }
            Mail::Deliver { app, message } => {
                if let Some(peer) = self.peers.at(to) {
                    let message = PeerMessage::Deliver { app, message };
                    self.effects.peers.push((peer, message));
                }
            }
            Mail::DeliverShared {
                app,
                message,
                filter,
                client_id,
                keeper,
            } => {
                self.deliver_shared(to, Kept::new(app, message, filter), client_id);
                if let Some(keeper) = keeper {
                    // It is kept here now.
                    self.tell_keeper(keeper);
                }
            }
            Mail::Cluster(mail) => self.on_cluster_mail(mail),
            Mail::Notice(_) | Mail::Sys(_) | Mail::Ended(_) | Mail::Wills(_) | Mail::Dismiss(_) => {
                unreachable!("shards get this")
            }
        }
    }

    fn on_cluster_mail(&mut self, mail: ClusterMail) {
        match mail {
            ClusterMail::ReleaseElsewhere {
                client,
                previous,
                epoch,
                resumes,
                ticket,
            } => {
                let home = self.home(&client);
                self.stats.taken_over += 1;
                if !self.peers.is_linked(previous.generation) {
                    self.stats.taken_over_alone += 1;
                    return self.follow(Some(Then::Released(home, ticket)));
                }
                let own = self.waits.ticket();
                let message = PeerMessage::Release {
                    client,
                    epoch,
                    resumes,
                    ticket: own,
                };
                self.effects.peers.push((previous.generation, message));
                let then = self.waits.begin(
                    own,
                    0,
                    vec![previous.generation],
                    Some(Millis(self.now.0 + PEER_WAIT_MS)),
                    Then::Released(home, ticket),
                );
                self.follow(then);
            }
            ClusterMail::Look(app) => self.look(&app),
            ClusterMail::Released { ticket } => self.on_local_release(ticket),
            ClusterMail::SharedDone(keeper) => self.tell_keeper(keeper),
            ClusterMail::Synced { ticket } => {
                let then = self.waits.on_shard(ticket);
                self.follow(then);
            }
            ClusterMail::Here {
                ticket, connected, ..
            } => self.on_here(ticket, connected),
            ClusterMail::ThisMany { ticket, live } => self.on_shard_counted(ticket, live),
            _ => unreachable!("shards get this"),
        }
    }

    fn on_local_interest(&mut self, from: ShardId, app: AppId, change: Interest, ticket: u64) {
        let is_news = self.interest.note(from, &app, &change);
        if !is_news && ticket == 0 {
            return;
        }
        let linked = self.peers.linked();
        let own = match ticket {
            0 => 0,
            _ => self.waits.ticket(),
        };
        for &peer in &linked {
            let message = PeerMessage::Interest {
                app: app.clone(),
                change: change.clone(),
                ticket: own,
            };
            self.effects.peers.push((peer, message));
        }
        if ticket != 0 {
            let then = self.waits.begin(
                own,
                0,
                linked,
                Some(Millis(self.now.0 + PEER_WAIT_MS)),
                Then::InterestKnown(from, ticket),
            );
            self.follow(then);
        }
    }

    /// The store has answered a command of the hub.
    pub fn on_outcome(&mut self, ticket: u64, outcome: Result<Outcome, StoreError>, now: Millis) {
        self.begin(now);
        let Some(Request::Void(generation)) = self.requests.remove(&ticket) else {
            return;
        };
        let outcome = match outcome {
            Ok(Outcome::Voided(voided)) => {
                self.publish_wills(voided.wills);
                Ok(voided.more)
            }
            _ => Err(()),
        };
        self.graveyard.on_voided(generation, outcome, now);
        self.void_due();
    }

    /// Wills that nobody else publishes, of a sweep or a dead node.
    pub fn on_wills(&mut self, wills: Vec<crate::store::OwedWill>, now: Millis) {
        self.begin(now);
        self.publish_wills(wills);
    }

    fn publish_wills(&mut self, wills: Vec<crate::store::OwedWill>) {
        let mut homes: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        for will in wills {
            homes.entry(self.home(&will.client)).or_default().push(will);
        }
        for (home, wills) in homes {
            self.effects.letters.push((home, Mail::Wills(wills)));
        }
    }

    /// What the nodes agree on has changed.
    pub fn on_membership(&mut self, membership: Arc<Membership>, now: Millis) {
        self.begin(now);
        let registered = membership.own.is_some() && membership.own != self.membership.own;
        self.membership = membership;
        let nodes = self.membership.nodes.values();
        let members: BTreeSet<Generation> = nodes.map(|node| node.generation).collect();
        if registered {
            let own = self.membership.own;
            let others = members.iter().filter(|of| Some(**of) != own);
            let unlinked = others.filter(|of| !self.peers.is_linked(**of));
            self.unaware = unlinked.copied().collect();
        }
        self.unaware.retain(|of| members.contains(of));
        if let Some(own) = self.membership.own.filter(|own| *own != self.own) {
            self.own = own;
            self.mail_all(Mail::Cluster(ClusterMail::Generation(own)));
        }
        self.look_at_graves();
        self.release_held();
    }

    /// Asks where a client is connected. Answered in [`Effects::found`].
    /// If it is to be kicked, the connection is closed, too.
    pub fn ask(&mut self, ticket: u64, client: &ClientKey, kick: bool, now: Millis) {
        self.begin(now);
        let own = self.waits.ticket();
        let linked = self.peers.linked();
        self.asked.insert(
            own,
            Asked {
                ticket,
                waiting: linked.iter().copied().chain([self.own]).collect(),
                deadline: Millis(now.0 + PEER_WAIT_MS),
                connections: Vec::new(),
            },
        );
        self.ask_home(own, client.clone(), kick);
        for peer in linked {
            let question = match kick {
                true => super::peer::Question::Kick(client.clone()),
                false => super::peer::Question::WhereIs(client.clone()),
            };
            let message = PeerMessage::Ask {
                ticket: own,
                question,
            };
            self.effects.peers.push((peer, message));
        }
    }

    fn ask_home(&mut self, ticket: u64, client: ClientKey, kick: bool) {
        let home = self.home(&client);
        let question = ClusterMail::WhereIs {
            client,
            ticket,
            kick,
        };
        self.effects.letters.push((home, Mail::Cluster(question)));
    }

    fn on_here(&mut self, ticket: u64, connected: Option<Connected>) {
        if let Some((peer, theirs)) = self.peers.questions.remove(&ticket) {
            let message = PeerMessage::Answer {
                ticket: theirs,
                answer: Answer::Here(connected),
            };
            self.effects.peers.push((peer, message));
        } else {
            self.on_found(ticket, self.own, connected);
        }
    }

    fn on_found(&mut self, ticket: u64, node: Generation, connected: Option<Connected>) {
        let Some(asked) = self.asked.get_mut(&ticket) else {
            return;
        };
        asked.waiting.retain(|waiting| *waiting != node);
        asked
            .connections
            .extend(connected.map(|connected| (node, connected)));
        if asked.waiting.is_empty() {
            let asked = self.asked.remove(&ticket).expect("just seen");
            self.effects.found.push(asked.end());
        }
    }

    /// Call when the time of [`Hub::next_deadline`] has come; calling more often is harmless.
    pub fn on_tick(&mut self, now: Millis) {
        self.begin(now);
        let over = self.waits.on_time(now);
        for then in over {
            if matches!(then, Then::Released(..)) {
                self.stats.taken_over_alone += 1;
            }
            self.follow(Some(then));
        }
        let late: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.deadline <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for asked in late
            .into_iter()
            .filter_map(|ticket| self.asked.remove(&ticket))
        {
            self.effects.found.push(asked.end());
        }
        self.end_late_counts();
        self.release_held();
        self.poll_due();
        if self.next_round <= now {
            self.next_round = Millis(now.0 + POLL_MS);
            self.look_at_graves();
        }
    }

    /// When [`Hub::on_tick`] is needed next.
    pub fn next_deadline(&self) -> Millis {
        let polls = self.apps.values().filter_map(AppState::next_poll);
        let leases = self.held.iter().map(|held| held.lease_over);
        polls
            .chain(leases)
            .chain(self.waits.next_deadline())
            .chain(self.asked.values().map(|asked| asked.deadline))
            .chain(self.next_late_count())
            .chain([self.next_round])
            .min()
            .unwrap_or(self.next_round)
    }

    fn begin(&mut self, now: Millis) {
        if now.since(self.now) > STANDSTILL_MS {
            // While it stood still the others may have given it up: what it read before is old, and who it was is not certain.
            self.doubts_until = Millis(now.0 + LEASE_MS);
        }
        self.now = now;
    }

    /// Whether the ensemble counts this node as a member, and tells it who else is one.
    fn is_counted(&self) -> bool {
        self.membership.reachable && self.membership.own.is_some()
    }

    fn look_at_graves(&mut self) {
        if self.is_counted() {
            let peers = &self.peers;
            self.graveyard.note(
                &self.owners,
                &self.membership,
                self.own,
                |generation| peers.is_linked(generation),
                self.now,
            );
            self.void_due();
        }
    }

    fn void_due(&mut self) {
        if self.graveyard.is_empty() {
            return;
        }
        for generation in self.graveyard.due(&self.membership, self.now) {
            let ticket = self.waits.ticket();
            self.requests.insert(ticket, Request::Void(generation));
            self.stats.voids += 1;
            let command = Command::Void {
                generation,
                now: self.now,
                limit: VOIDED_AT_ONCE,
            };
            self.effects.commands.push((ticket, command));
        }
    }

    /// Passes on the answers whose changes everybody knows.
    fn release_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        // Whoever stood still, or is cut off from the ensemble, does not know who has come meanwhile.
        let knows_all = self.is_counted() && self.doubts_until <= self.now;
        let all_linked = knows_all && self.peers.unlinked(&self.membership, self.own) == 0;
        for held in take(&mut self.held) {
            let here = self
                .apps
                .get(&held.app)
                .is_some_and(|app| app.synced >= held.offset);
            let linked = self.peers.all_know(&held.app, held.offset);
            let is_over = held.lease_over <= self.now;
            if here && (is_over || linked && all_linked) {
                self.stats.lease_waits += u64::from(is_over);
                self.effects.ready.push(held.answer);
            } else {
                self.held.push(held);
            }
        }
    }

    fn follow(&mut self, then: Option<Then>) {
        match then {
            None => {}
            Some(Then::InterestKnown(shard, ticket)) => {
                self.effects
                    .letters
                    .push((shard, Mail::InterestKnown { ticket }));
            }
            Some(Then::PeerInterestKnown(peer, ticket)) => {
                let message = PeerMessage::InterestKnown { ticket };
                self.effects.peers.push((peer, message));
            }
            Some(Then::Released(shard, ticket)) => {
                let mail = Mail::Cluster(ClusterMail::Released { ticket });
                self.effects.letters.push((shard, mail));
            }
            Some(Then::Synced(app, offset)) => self.on_synced(&app, offset),
        }
    }

    fn home(&self, client: &ClientKey) -> ShardId {
        Shard::of_client(&client.app, &client.client_id, self.shards)
    }

    fn mail_home(&mut self, client: &ClientKey, mail: Mail) {
        let home = self.home(client);
        self.effects.letters.push((home, mail));
    }

    fn mail_all(&mut self, mail: Mail) {
        for shard in 1..self.shards {
            self.effects.letters.push((ShardId(shard), mail.clone()));
        }
        self.effects.letters.push((ShardId(0), mail));
    }
}
