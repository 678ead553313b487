//! A cluster without threads and sockets: nodes, the store that they share, the ensemble, the links between them, and queues that a scheduler empties one
//! item at a time.
//!
//! [`Fleet::ready`] lists what can be moved, [`Fleet::step`] moves one thing, [`Fleet::advance`] lets time pass. What each node does with what it gets is what
//! `campanile-server` does around the same machines.

mod cut;
mod ensemble;
mod links;
mod member;
pub mod sabotage;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use campanile_backends::{Config as StoreConfig, Reader, Request, memory::Disk};
use campanile_broker::{
    cluster::membership::Drain,
    config::Config,
    effects::Ticket,
    ids::{Generation, Millis, ShardId},
    mail::{ClusterMail, Mail},
    store::StoreError,
};
use campanile_push::store as push;

pub use self::{cut::Cut, ensemble::SESSION_MS, member::Member};
use self::{
    ensemble::{Agent, Ensemble},
    links::Links,
    sabotage::{Sabotage, Saboteur},
    store::{SharedStore, StoreLink},
};
use crate::{
    rng::Rng,
    shards::{Knowing, Step},
};

/// How long a link may be silent before its ends take it for lost.
const SILENCE_MS: u64 = 3000;
/// How long a node waits for an answer of the store.
const ANSWER_MS: u64 = 2000;
/// How often the leader has removed what has expired.
const SWEEP_MS: u64 = 1000;

/// What a cluster is made with.
#[derive(Clone)]
pub struct FleetConfig {
    /// Nodes.
    pub nodes: usize,
    /// Shards of each.
    pub shards: u8,
    /// Rules of the broker.
    pub broker: Config,
    /// Rules of the store.
    pub store: StoreConfig,
    /// Who knows whom a push is for.
    pub audiences: Knowing,
    /// How far each node's clock is ahead, milliseconds.
    pub skews_ms: Vec<u64>,
    /// Seed of identifiers, hash tables, and what chance decides within.
    pub seed: u64,
    /// Removals of a sweep at most.
    pub sweep_limit: u32,
    /// A bug to build in.
    pub sabotage: Option<Sabotage>,
    /// Print what happens.
    pub trace: bool,
}

impl Default for FleetConfig {
    fn default() -> FleetConfig {
        FleetConfig {
            nodes: 2,
            shards: 2,
            broker: Config::default(),
            store: StoreConfig::default(),
            audiences: Knowing::default(),
            skews_ms: Vec::new(),
            seed: 1,
            sweep_limit: 1000,
            sabotage: None,
            trace: false,
        }
    }
}

/// Who is to get the answer of a request.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A shard.
    Shard(ShardId, Ticket),
    /// The hub.
    Hub(u64),
    /// The API.
    Api(u64),
    /// Who removes what has expired.
    Sweeper,
}

/// Something that can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// Something within the shards of a node.
    Shards(usize, Step),
    /// Mail of a shard to its hub.
    Mail(usize, ShardId),
    /// What a node learns of its links.
    Event(usize),
    /// What a node learns of the ensemble.
    News(usize),
    /// A node's requests leave for the store as a batch.
    Send(usize),
    /// A batch reaches the store.
    Arrive(usize),
    /// A batch that its node has given up reaches the store.
    ArriveLate(usize),
    /// All commits become safe.
    Sync,
    /// The answers of a batch reach the node.
    Return(usize),
    /// A read is carried out, by place in the waiting list.
    Read(usize, usize),
    /// What was read arrives, by place in the waiting list.
    Page(usize, usize),
    /// A message between two nodes arrives.
    Peer(usize, usize),
}

impl Move {
    /// Whether it has to do with the store.
    pub fn is_of_store(self) -> bool {
        matches!(
            self,
            Move::Send(_) | Move::Arrive(_) | Move::Sync | Move::Return(_) | Move::Read(..)
        )
    }
}

/// A node's place in the cluster, whether it runs or not.
struct Place {
    name: Arc<str>,
    skew_ms: u64,
    member: Option<Member>,
    store: StoreLink,
    /// Since when the store has not answered.
    waits_since: Option<Millis>,
    is_paused: bool,
    /// What does not get through between it and the ensemble.
    ensemble_cut: Option<Cut>,
    /// Since when nothing gets through to others, by place.
    silent_since: Vec<Option<Millis>>,
    /// Peers whose link was lost and that are still listed.
    lost: BTreeSet<Generation>,
    saboteur: Option<Saboteur>,
    next_sweep: Millis,
}

/// An answer to a push: the number that [`Fleet::push`] gave.
pub type PushAnswer = (u64, Result<push::Outcome, StoreError>);

/// See the module.
pub struct Fleet {
    config: FleetConfig,
    /// The time.
    pub now: Millis,
    rng: Rng,
    places: Vec<Place>,
    store: SharedStore,
    ensemble: Ensemble,
    links: Links,
    answers: Vec<PushAnswer>,
    next_push: u64,
    /// Batches of which a node does not know what became of them.
    unanswered: u64,
}

impl Fleet {
    /// A cluster whose nodes have all been started.
    pub fn new(config: FleetConfig, now: Millis) -> Fleet {
        let place = |at: usize| Place {
            name: format!("n{at}").into(),
            skew_ms: config.skews_ms.get(at).copied().unwrap_or(0),
            member: None,
            store: StoreLink::default(),
            waits_since: None,
            is_paused: false,
            ensemble_cut: None,
            silent_since: vec![None; config.nodes],
            lost: BTreeSet::new(),
            saboteur: config.sabotage.map(Saboteur::new),
            next_sweep: now,
        };
        let mut fleet = Fleet {
            now,
            rng: Rng::new(config.seed),
            places: (0..config.nodes).map(place).collect(),
            store: SharedStore::new(config.store.clone(), config.sabotage),
            ensemble: Ensemble::default(),
            links: Links::default(),
            answers: Vec::new(),
            next_push: 0,
            unanswered: 0,
            config,
        };
        for node in 0..fleet.places.len() {
            fleet.start(node);
        }
        fleet.look_around();
        fleet
    }

    /// How many nodes it has.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// A node, if it runs.
    pub fn member(&mut self, node: usize) -> Option<&mut Member> {
        self.places[node].member.as_mut()
    }

    /// A node, if it runs.
    pub fn look_at(&self, node: usize) -> Option<&Member> {
        self.places[node].member.as_ref()
    }

    /// Whether a node runs and is ready for clients.
    pub fn serves(&self, node: usize) -> bool {
        let place = &self.places[node];
        !place.is_paused && place.member.as_ref().is_some_and(|m| m.hub.is_ready())
    }

    /// Whether a node stands still.
    pub fn is_paused(&self, node: usize) -> bool {
        self.places[node].is_paused
    }

    /// A node's clock.
    pub fn clock(&self, node: usize) -> Millis {
        Millis(self.now.0 + self.places[node].skew_ms)
    }

    /// Reads of the store.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.store.reader()
    }

    /// How often a client was claimed, by whatever connection.
    pub fn claims(&self, client_id: &str) -> u64 {
        self.store.claims(client_id)
    }

    /// What is in the store.
    pub fn disk(&mut self) -> Disk {
        self.store.disk()
    }

    /// Whether commits could be lost.
    pub fn has_unsynced(&self) -> bool {
        self.store.has_unsynced()
    }

    /// Batches of which a node does not know what became of them, and take-overs whose other node did not answer: whatever was under way may be repeated.
    pub fn doubts(&self) -> u64 {
        let members = self.places.iter().filter_map(|place| place.member.as_ref());
        let alone: u64 = members
            .map(|member| member.hub.stats().taken_over_alone)
            .sum();
        self.unanswered + alone
    }

    /// A node starts, if the ensemble takes it.
    pub fn start(&mut self, node: usize) -> bool {
        if self.ensemble.is_down || self.places[node].ensemble_cut.is_some() {
            return false;
        }
        let (now, clock) = (self.now, self.clock(node));
        let place = &mut self.places[node];
        let generation = self.ensemble.register(&place.name, clock, now);
        let agent = Agent::new(place.name.clone(), generation, clock);
        let seed = self.config.seed ^ (generation.0 << 32) ^ node as u64;
        place.member = Some(Member::new(&self.config, agent, generation, seed, clock));
        place.is_paused = false;
        place.next_sweep = now;
        self.tick(node);
        true
    }

    /// A node dies; what it wrote and has left it may still arrive.
    pub fn crash(&mut self, node: usize) {
        let late = self.rng.chance(500);
        let place = &mut self.places[node];
        place.member = None;
        place.is_paused = false;
        place.store.crash(late);
        place.waits_since = None;
        place.lost.clear();
        self.links.crash(node);
    }

    /// A node stops in an orderly way: it says goodbye to its clients and saves what they did. [`Fleet::finish_stop`] ends it.
    pub fn begin_stop(&mut self, node: usize) {
        if let Some(member) = self.member(node) {
            member.shards.stop();
        }
        self.collect(node);
    }

    /// Whether a node that stops has saved everything.
    pub fn is_stopped(&self, node: usize) -> bool {
        self.places[node].member.as_ref().is_none_or(|member| {
            let machines = member.shards.machines();
            machines.iter().all(|shard| shard.pending_requests() == 0)
        })
    }

    /// The end of a node that has stopped.
    pub fn finish_stop(&mut self, node: usize) {
        let place = &self.places[node];
        if let Some(own) = place
            .member
            .as_ref()
            .and_then(|member| member.agent.membership().own)
            && Cut::lets_out(place.ensemble_cut)
            && !self.ensemble.is_down
        {
            let name = place.name.clone();
            self.ensemble.forget(&name, own);
        }
        self.crash(node);
    }

    /// A client connects to a node, through a shard. The number of its wire.
    pub fn connect(&mut self, node: usize, shard: u8) -> usize {
        let member = self.member(node).expect("it runs");
        let wire = member.shards.connect(shard);
        self.collect(node);
        wire
    }

    /// The client's end, or the network, cuts a connection.
    pub fn cut(&mut self, node: usize, wire: usize) {
        if let Some(member) = self.member(node) {
            member.shards.cut(wire);
        }
        self.collect(node);
    }

    /// The socket of a client is full (or has room again).
    pub fn set_blocked(&mut self, node: usize, wire: usize, blocked: bool) {
        if let Some(member) = self.member(node) {
            member.shards.set_blocked(wire, blocked);
        }
        self.collect(node);
    }

    /// Whether the ensemble does not list the run that a node takes itself for.
    pub fn is_unlisted(&self, node: usize) -> bool {
        let place = &self.places[node];
        let own = place.member.as_ref().map(|member| member.generation);
        let listed = self.ensemble.list();
        own != listed.get(&place.name).map(|node| node.generation)
    }

    /// A long time passes in which nothing happens.
    pub fn sleep(&mut self, ms: u64) {
        self.ensemble.is_down = true;
        self.now = Millis(self.now.0 + ms);
        self.ensemble.on_time(self.now);
        self.ensemble.is_down = false;
        self.advance(0);
    }

    /// What is in the store although nobody needs it once all clients have left and nothing is kept for them: records by the number of their table, without
    /// retained messages, the numbers and logs of the app, and mailboxes of nodes that run.
    pub fn leftovers(&mut self) -> BTreeMap<u8, usize> {
        const KEPT: &[u8] = &[0x01, 0x10, 0x12, 0x30, 0x32, 0x64, 0x65];
        const OF_NODES: &[u8] = &[0x61, 0x62, 0x63];
        let running: Vec<Generation> = self
            .places
            .iter()
            .filter_map(|place| Some(place.member.as_ref()?.generation))
            .collect();
        let mut left = BTreeMap::new();
        for (key, _) in self.store.disk().entries() {
            let table = key[0];
            let node = key[1..].first_chunk::<8>().copied().map(u64::from_be_bytes);
            let is_of_running = OF_NODES[1..].contains(&table)
                && node.is_some_and(|node| running.contains(&Generation(node)));
            if !KEPT.contains(&table) && !is_of_running {
                *left.entry(table).or_default() += 1;
            }
        }
        left
    }

    /// A node stands still, or goes on.
    pub fn set_paused(&mut self, node: usize, paused: bool) {
        self.places[node].is_paused = paused;
        if !paused {
            self.tick(node);
        }
    }

    /// Something keeps a node and the store apart, or does not any more.
    pub fn set_store_cut(&mut self, node: usize, cut: Option<Cut>) {
        self.places[node].store.cut = cut;
    }

    /// Something keeps a node and the ensemble apart, or does not any more.
    pub fn set_ensemble_cut(&mut self, node: usize, cut: Option<Cut>) {
        self.places[node].ensemble_cut = cut;
    }

    /// Something keeps two nodes apart, seen from the first, or does not any more.
    pub fn set_link_cut(&mut self, one: usize, other: usize, cut: Option<Cut>) {
        self.links.set_cut(one, other, cut);
    }

    /// The link between two nodes breaks, and can be made anew.
    pub fn break_link(&mut self, one: usize, other: usize) {
        self.links.disconnect(one, other);
    }

    /// The store does not answer, or does again.
    pub fn set_store_down(&mut self, down: bool) {
        self.store.is_down = down;
    }

    /// The ensemble does not answer, or does again.
    pub fn set_ensemble_down(&mut self, down: bool) {
        self.ensemble.is_down = down;
    }

    /// The store's primary is lost; its replica has the first `keep` in a thousand of what was not safe. Takes a second.
    pub fn fail_over(&mut self, keep: u64) {
        self.store.fail_over(keep);
        for node in 0..self.places.len() {
            if let Some(returned) = self.places[node].store.on_failover() {
                self.unanswered += 1;
                self.on_returned(node, returned);
            }
        }
    }

    /// Orders a node to send its clients elsewhere, or takes the order back.
    pub fn order_drain(&mut self, node: usize, drains: bool) {
        let name = self.places[node].name.clone();
        let drain = Drain {
            rate: 0,
            deadline_ms: 0,
        };
        self.ensemble.order_drain(&name, drains.then_some(drain));
    }

    /// A node sends some of its clients to another one.
    pub fn move_away(&mut self, node: usize, count: u32) {
        if let Some(member) = self.member(node) {
            let reference = "mqtt://elsewhere:1883".into();
            let mail = ClusterMail::Move { count, reference };
            member.shards.post_all(&Mail::Cluster(mail));
        }
    }

    /// The API of a node asks the store; the answer comes out of [`Fleet::take_push_answers`].
    pub fn push(&mut self, node: usize, command: push::Command) -> u64 {
        // The number says which node.
        self.next_push += self.places.len() as u64;
        let number = self.next_push + node as u64;
        let request = Request::Push(command);
        self.places[node].store.write(Asker::Api(number), request);
        number
    }

    /// Which node a push was sent through.
    pub fn node_of_push(&self, number: u64) -> usize {
        (number % self.places.len() as u64) as usize
    }

    /// Answers to pushes since the last call.
    pub fn take_push_answers(&mut self) -> Vec<PushAnswer> {
        std::mem::take(&mut self.answers)
    }

    /// Time passes.
    pub fn advance(&mut self, ms: u64) {
        self.now = Millis(self.now.0 + ms);
        self.ensemble.on_time(self.now);
        self.look_around();
        self.break_silent_links();
        self.make_links();
        for node in 0..self.places.len() {
            self.tick(node);
            self.lose_patience(node);
            self.sweep(node);
        }
    }

    /// A node's machines learn the time.
    fn tick(&mut self, node: usize) {
        let clock = self.clock(node);
        let place = &mut self.places[node];
        let Some(member) = place.member.as_mut().filter(|_| !place.is_paused) else {
            return;
        };
        member.shards.tick(clock);
        if member.hub.next_deadline() <= clock {
            member.hub.on_tick(clock);
        }
        self.carry_out(node);
    }

    /// The nodes read what the ensemble says.
    fn look_around(&mut self) {
        for place in &mut self.places {
            let Some(member) = place.member.as_mut().filter(|_| !place.is_paused) else {
                continue;
            };
            let lost = &place.lost;
            let news = member.agent.look(
                &mut self.ensemble,
                place.ensemble_cut,
                |generation| lost.contains(&generation),
                self.now,
            );
            member.news.extend(news);
        }
    }

    fn break_silent_links(&mut self) {
        for one in 0..self.places.len() {
            for other in one + 1..self.places.len() {
                let is_silent = self.links.is_cut(one, other)
                    || self.places[one].is_paused
                    || self.places[other].is_paused;
                let since = &mut self.places[one].silent_since[other];
                match is_silent {
                    false => *since = None,
                    true if self.now.since(*since.get_or_insert(self.now)) >= SILENCE_MS => {
                        self.links.disconnect(one, other);
                    }
                    true => {}
                }
                if !self.may_be_linked(one, other) {
                    self.links.disconnect(one, other);
                }
            }
        }
    }

    /// Whether a link that is up may stay: both run under the generations that it was made for, and neither has forgotten the other.
    fn may_be_linked(&self, one: usize, other: usize) -> bool {
        let Some((of_one, of_other)) = self.links.generations(one, other) else {
            return true;
        };
        let own = |node: usize| Some(self.places[node].member.as_ref()?.generation);
        own(one) == Some(of_one) && own(other) == Some(of_other)
    }

    fn make_links(&mut self) {
        for one in 0..self.places.len() {
            for other in one + 1..self.places.len() {
                let is_apart = self.links.is_cut(one, other)
                    || self.places[one].is_paused
                    || self.places[other].is_paused;
                if is_apart || self.links.is_up(one, other) {
                    continue;
                }
                let (Some(first), Some(second)) =
                    (&self.places[one].member, &self.places[other].member)
                else {
                    continue;
                };
                let pair = (first.generation, second.generation);
                if first.lists(pair.1) && second.lists(pair.0) {
                    self.links.connect((one, pair.0), (other, pair.1));
                }
            }
        }
    }

    /// A node that waits for the store in vain gives up.
    fn lose_patience(&mut self, node: usize) {
        let (now, is_down) = (self.now, self.store.is_down);
        let place = &mut self.places[node];
        let waits = (place.store.cut.is_some() || is_down) && place.store.is_waiting();
        if !waits || place.is_paused {
            place.waits_since = None;
            return;
        }
        let since = *place.waits_since.get_or_insert(now);
        if now.since(since) < ANSWER_MS {
            return;
        }
        place.waits_since = None;
        let (is_unsent, late) = (self.rng.chance(400), self.rng.chance(500));
        if let Some(returned) = place.store.give_up(is_unsent, late) {
            self.unanswered += 1;
            self.on_returned(node, returned);
        }
    }

    fn sweep(&mut self, node: usize) {
        let (now, clock, limit) = (self.now, self.clock(node), self.config.sweep_limit);
        let place = &mut self.places[node];
        let Some(member) = place.member.as_ref().filter(|_| !place.is_paused) else {
            return;
        };
        let leads = member.agent.membership().leader.as_ref() == Some(&place.name);
        if leads && place.next_sweep <= now {
            place.next_sweep = Millis(now.0 + SWEEP_MS);
            let sweep = campanile_broker::store::Command::Sweep { now: clock, limit };
            place.store.write(Asker::Sweeper, Request::Broker(sweep));
            if self.config.sabotage == Some(Sabotage::VoidTheLiving) {
                let void = campanile_broker::store::Command::Void {
                    generation: member.generation,
                    now: clock,
                    limit: 1000,
                };
                place.store.write(Asker::Sweeper, Request::Broker(void));
            }
        }
    }

    /// What can be moved.
    pub fn ready(&self) -> Vec<Move> {
        let mut ready = Vec::new();
        for (node, place) in self.places.iter().enumerate() {
            let is_down = self.store.is_down;
            if !is_down && Cut::lets_out(place.store.cut) && place.store.can_arrive() {
                ready.push(Move::Arrive(node));
            }
            if !is_down && place.store.can_arrive_late() {
                ready.push(Move::ArriveLate(node));
            }
            let Some(member) = place.member.as_ref().filter(|_| !place.is_paused) else {
                continue;
            };
            ready.extend(member.shards.ready().map(|step| Move::Shards(node, step)));
            ready.extend(member.waiting_mail().map(|shard| Move::Mail(node, shard)));
            if self.links.has_event(node) {
                ready.push(Move::Event(node));
            }
            if !member.news.is_empty() {
                ready.push(Move::News(node));
            }
            if place.store.can_send() {
                ready.push(Move::Send(node));
            }
            if !is_down && Cut::lets_in(place.store.cut) && place.store.can_return() {
                ready.push(Move::Return(node));
            }
            ready.extend((0..place.store.reads()).map(|at| Move::Read(node, at)));
            ready.extend(place.store.pages().map(|at| Move::Page(node, at)));
        }
        if self.store.has_unsynced() && !self.store.is_down {
            ready.push(Move::Sync);
        }
        let ways = self.links.under_way().into_iter();
        ready.extend(
            ways.filter(|(_, to)| self.places[*to].member.is_some())
                .map(|(from, to)| Move::Peer(from, to)),
        );
        ready
    }

    /// Moves one thing that is [ready](Fleet::ready).
    pub fn step(&mut self, step: Move) {
        let trace = self.config.trace;
        match step {
            Move::Shards(node, step) => {
                if let Some(member) = self.member(node) {
                    member.shards.step(step);
                }
                self.collect(node);
            }
            Move::Mail(node, shard) => self.on_mail(node, shard),
            Move::Event(node) => self.on_link_event(node),
            Move::News(node) => self.on_news(node),
            Move::Send(node) => {
                let limit = match self.rng.chance(300) {
                    true => self.rng.range(1, 4) as usize,
                    false => usize::MAX,
                };
                self.places[node].store.send(limit);
            }
            Move::Arrive(node) => self.places[node].store.arrive(&mut self.store, trace),
            Move::ArriveLate(node) => {
                let arrives = self.rng.chance(700);
                let store = Some(&mut self.store).filter(|_| arrives);
                self.places[node].store.arrive_late(store);
            }
            Move::Sync => {
                self.store.sync();
                for place in &mut self.places {
                    place.store.on_synced();
                }
            }
            Move::Return(node) => {
                if let Some(returned) = self.places[node].store.take_returned() {
                    self.on_returned(node, returned);
                }
            }
            Move::Read(node, at) => {
                let store = &self.store;
                self.places[node].store.carry_out_read(at, store, trace);
            }
            Move::Page(node, at) => self.on_page(node, at),
            Move::Peer(from, to) => self.links.carry(from, to),
        }
    }

    /// Moves everything until nothing is left to move.
    pub fn settle(&mut self) {
        let mut bound = 1_000_000;
        while let Some(&next) = self.ready().first() {
            self.step(next);
            bound -= 1;
            assert!(bound > 0, "the cluster never comes to rest: {next:?}");
        }
    }
}
