//! A node without threads and sockets: shards, a model store, and queues between them that a scheduler empties one item at a time.
//!
//! Everything that happens between two shards, a shard and the store, or a shard and a connection is an item in a queue. [`Node::ready`] lists the queues that
//! are not empty, [`Node::step`] moves the first item of one. A conversation test [settles](Node::settle) the node after each act; the simulation picks queues by
//! a seed, and may crash the node between any two steps.
//!
//! The store works as on a real disk: a commit is visible to reads at once, but it can be lost until it is synced, and only then are its notices and answers
//! delivered.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use campanile_backends::{
    Backend, Config as StoreConfig, Reader, Reply, Request,
    memory::{Disk, Memory},
};
use campanile_broker::{
    access::{Access, Open},
    config::Config,
    effects::{Origin, Ticket},
    ids::{AppId, ConnId, IdSource, Millis, ShardId},
    mail::Mail,
    shard::{Setup, Shard},
    store::{Command, Notice, Outcome, Page, Query, StoreError},
};
use campanile_push::store as push;

use crate::sabotage::{Sabotage, Saboteur};

/// What a node is made with.
#[derive(Clone)]
pub struct NodeConfig {
    /// Number of shards.
    pub shards: u8,
    /// Rules of the broker.
    pub broker: Config,
    /// Rules of the store.
    pub store: StoreConfig,
    /// Who may do what.
    pub access: Arc<dyn Access>,
    /// Seed of identifiers and hash tables.
    pub seed: u64,
    /// A bug to build in, to see that it is found.
    pub sabotage: Option<Sabotage>,
    /// Removals of a sweep at most.
    pub sweep_limit: u32,
    /// Print what is asked of the store, and what it answers.
    pub trace: bool,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            shards: 2,
            broker: Config::default(),
            store: StoreConfig::default(),
            access: Arc::new(Open),
            seed: 1,
            sabotage: None,
            sweep_limit: 1000,
            trace: false,
        }
    }
}

/// A queue that has something to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Requests to the store: a step commits everything that waits, as one batch.
    Commit,
    /// Commits that are not on disk: a step makes all of them durable and hands over their notices and answers.
    Sync,
    /// A read of the store, by place in the waiting list.
    Read(usize),
    /// What was read, on its way to its shard, by place in the waiting list.
    Page(usize),
    /// From the store to a shard: notices and outcomes, in order.
    FromStore(ShardId),
    /// From a shard to another.
    Mail(ShardId, ShardId),
    /// Bytes from a client that its shard has not taken.
    Input(u32),
}

enum Answer {
    Notice(Notice),
    Outcome(Ticket, Result<Outcome, StoreError>),
    Page(Ticket, Result<Page, StoreError>),
}

/// A commit that is not on disk.
struct Unannounced {
    notices: Vec<Notice>,
    replies: Vec<(Asker, Result<Reply, StoreError>)>,
}

/// A connection as the network sees it.
#[derive(Debug, Default)]
struct Wire {
    id: Option<ConnId>,
    use_count: u32,
    shard: u8,
    origin: Option<Origin>,
    /// From the client, not consumed.
    input: Vec<u8>,
    /// To the client, not taken.
    output: Vec<u8>,
    paused: bool,
    /// There are bytes that the shard has not been offered.
    fresh: bool,
    closed: bool,
}

/// A push that the API sent, by the number that [`Node::push`] gave.
type PushAnswer = (u64, Result<push::Outcome, StoreError>);

/// See the module.
pub struct Node {
    config: NodeConfig,
    /// Current time.
    pub now: Millis,
    ids: Arc<IdSource>,
    shards: Vec<Shard>,
    store: Memory,
    reader: Arc<dyn Reader>,
    requests: VecDeque<(Asker, Request)>,
    unannounced: Vec<Unannounced>,
    queries: Vec<(ShardId, Ticket, Query)>,
    pages: Vec<(ShardId, Ticket, Result<Page, StoreError>)>,
    from_store: Vec<VecDeque<Answer>>,
    mail: Vec<Vec<VecDeque<Mail>>>,
    wires: Vec<Wire>,
    /// Wires that may be used again.
    free: Vec<usize>,
    pushes_answered: Vec<PushAnswer>,
    next_push: u64,
    /// The disk cannot be read.
    is_unreadable: bool,
    saboteur: Option<Saboteur>,
}

/// Who is to get the answer of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Shard(ShardId, Ticket),
    Api(u64),
    Sweeper,
}

impl Node {
    /// A node that starts on what is on a disk.
    pub fn start(config: NodeConfig, disk: Disk, now: Millis) -> Node {
        let mut store =
            Memory::open(disk, config.store.clone()).expect("the model's disk is readable");
        let recovery = store.recover(now).expect("the model's disk is readable");
        store.hold_syncs();
        let ids = Arc::new(IdSource::new(config.seed ^ now.0));
        let shard = |id| {
            let setup = Setup {
                id: ShardId(id),
                count: config.shards,
                config: Arc::new(config.broker.clone()),
                access: config.access.clone(),
                ids: ids.clone(),
                seed: config.seed,
                cluster: None,
            };
            Shard::new(setup, &recovery, now)
        };
        let count = usize::from(config.shards);
        let shards = (0..config.shards).map(shard).collect();
        let queues = || (0..count).map(|_| VecDeque::new()).collect();
        Node {
            now,
            shards,
            reader: store.reader(),
            store,
            ids,
            requests: VecDeque::new(),
            unannounced: Vec::new(),
            queries: Vec::new(),
            pages: Vec::new(),
            from_store: (0..count).map(|_| VecDeque::new()).collect(),
            mail: (0..count).map(|_| queues()).collect(),
            wires: Vec::new(),
            free: Vec::new(),
            pushes_answered: Vec::new(),
            next_push: 0,
            is_unreadable: false,
            saboteur: config.sabotage.map(Saboteur::new),
            config,
        }
    }

    /// The model store, to make it fail or to look into it.
    pub fn store(&mut self) -> &mut Memory {
        &mut self.store
    }

    /// Whether reads fail from now on.
    pub fn fail_reads(&mut self, fail: bool) {
        self.is_unreadable = fail;
    }

    /// Reads of the store.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.reader.clone()
    }

    /// The shards, to look at their figures.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Source of message ids.
    pub fn ids(&self) -> Arc<IdSource> {
        self.ids.clone()
    }

    /// The node dies at once; of the commits that were not synced, the first `keep` reached the disk.
    pub fn crash(self, keep: usize) -> Disk {
        self.store.crash(keep)
    }

    /// A client connects, through a shard. The number of its wire.
    pub fn connect(&mut self, shard: u8) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.wires.push(Wire::default());
            self.wires.len() - 1
        });
        let use_count = self.wires[slot].use_count;
        let id = ConnId {
            slot: slot as u32,
            use_count,
        };
        let origin = Origin {
            listener: "test".into(),
            app: AppId::new("default"),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            secure: false,
        };
        self.wires[slot] = Wire {
            id: Some(id),
            use_count,
            shard,
            origin: Some(origin.clone()),
            ..Wire::default()
        };
        self.shards[usize::from(shard)].on_accept(id, &origin, self.now);
        self.collect(shard);
        slot
    }

    /// Lets the number of a wire that is [closed](Node::is_closed) be used for another connection.
    pub fn forget(&mut self, wire: usize) {
        let known = &mut self.wires[wire];
        debug_assert!(known.closed, "a wire that is in use was forgotten");
        if known.id.take().is_some() {
            known.use_count += 1;
            (known.input, known.output) = (Vec::new(), Vec::new());
            self.free.push(wire);
        }
    }

    /// Whether bytes of a client wait for their shard.
    pub fn has_input(&self, wire: usize) -> bool {
        let wire = &self.wires[wire];
        !wire.closed && !wire.input.is_empty()
    }

    /// Whether every request to the store is carried out and on disk.
    pub fn is_all_synced(&self) -> bool {
        self.requests.is_empty() && self.unannounced.is_empty()
    }

    /// Bytes of a client arrive; its shard takes them at a step of [`Queue::Input`].
    pub fn send(&mut self, wire: usize, bytes: &[u8]) {
        let wire = &mut self.wires[wire];
        if !wire.closed {
            wire.input.extend_from_slice(bytes);
            wire.fresh = true;
        }
    }

    /// What was written to a client since the last call.
    pub fn take_output(&mut self, wire: usize) -> Vec<u8> {
        std::mem::take(&mut self.wires[wire].output)
    }

    /// Whether the node has closed a connection.
    pub fn is_closed(&self, wire: usize) -> bool {
        self.wires[wire].closed
    }

    /// The client's end, or the network, cuts a connection.
    pub fn cut(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        if let (false, Some(id)) = (wire.closed, wire.id) {
            wire.closed = true;
            let shard = wire.shard;
            self.shards[usize::from(shard)].on_closed(id, self.now);
            self.collect(shard);
        }
    }

    /// The socket of a client is full (or has room again).
    pub fn set_blocked(&mut self, wire: usize, blocked: bool) {
        let Wire {
            id: Some(id),
            shard,
            closed: false,
            ..
        } = self.wires[wire]
        else {
            return;
        };
        let machine = &mut self.shards[usize::from(shard)];
        if blocked {
            machine.on_blocked(id, 1);
        } else {
            machine.on_writable(id, self.now);
        }
        self.collect(shard);
    }

    /// The API asks the store; the answer comes out of [`Node::take_push_answers`] under the number that is returned.
    pub fn push(&mut self, command: push::Command) -> u64 {
        self.next_push += 1;
        self.requests
            .push_back((Asker::Api(self.next_push), Request::Push(command)));
        self.next_push
    }

    /// Answers to pushes since the last call.
    pub fn take_push_answers(&mut self) -> Vec<PushAnswer> {
        std::mem::take(&mut self.pushes_answered)
    }

    /// Asks the store to remove what has expired.
    pub fn sweep(&mut self) {
        let sweep = Command::Sweep {
            now: self.now,
            limit: self.config.sweep_limit,
        };
        self.requests
            .push_back((Asker::Sweeper, Request::Broker(sweep)));
    }

    /// Time passes.
    pub fn advance(&mut self, ms: u64) {
        self.now = Millis(self.now.0 + ms);
        for shard in 0..self.shards.len() {
            self.shards[shard].on_tick(self.now);
            self.collect(shard as u8);
        }
    }

    /// The node stops in an orderly way; the disk that it leaves.
    pub fn stop(mut self) -> Disk {
        self.begin_stop();
        self.into_disk()
    }

    /// The first half of an orderly stop: what was said last to the clients can be taken now.
    pub fn begin_stop(&mut self) {
        for shard in 0..self.shards.len() {
            self.shards[shard].stop(self.now);
            self.collect(shard as u8);
        }
        self.settle();
    }

    /// The disk of a node that has stopped.
    pub fn into_disk(self) -> Disk {
        self.store.disk()
    }

    /// Queues that have something to move.
    pub fn ready(&self) -> Vec<Queue> {
        let mut ready = Vec::new();
        if !self.requests.is_empty() {
            ready.push(Queue::Commit);
        }
        if !self.unannounced.is_empty() {
            ready.push(Queue::Sync);
        }
        ready.extend((0..self.queries.len()).map(Queue::Read));
        ready.extend((0..self.pages.len()).map(Queue::Page));
        let ids = || (0..self.shards.len()).map(|id| ShardId(id as u8));
        ready.extend(
            ids()
                .filter(|id| !self.from_store[usize::from(id.0)].is_empty())
                .map(Queue::FromStore),
        );
        for from in ids() {
            let waiting =
                |to: &ShardId| !self.mail[usize::from(from.0)][usize::from(to.0)].is_empty();
            ready.extend(ids().filter(waiting).map(|to| Queue::Mail(from, to)));
        }
        let offered = |wire: &Wire| wire.fresh && !wire.paused && !wire.closed;
        let inputs = self
            .wires
            .iter()
            .enumerate()
            .filter(|(_, wire)| offered(wire));
        ready.extend(inputs.map(|(slot, _)| Queue::Input(slot as u32)));
        ready
    }

    /// Moves the first item of a queue that is [ready](Node::ready).
    pub fn step(&mut self, queue: Queue) {
        match queue {
            Queue::Commit => self.commit(usize::MAX),
            Queue::Sync => self.sync(),
            Queue::Read(at) => {
                let (shard, ticket, query) = self.queries.remove(at);
                let page = match self.is_unreadable {
                    true => Err(StoreError::Unavailable("the disk cannot be read".into())),
                    false => self.reader.read(&query),
                };
                if self.config.trace {
                    println!("    {query:?} => {page:?}");
                }
                self.pages.push((shard, ticket, page));
            }
            Queue::Page(at) => {
                let (shard, ticket, page) = self.pages.remove(at);
                self.from_store[usize::from(shard.0)].push_back(Answer::Page(ticket, page));
            }
            Queue::FromStore(ShardId(shard)) => {
                let answer = self.from_store[usize::from(shard)].pop_front();
                let machine = &mut self.shards[usize::from(shard)];
                match answer {
                    Some(Answer::Notice(notice)) => machine.on_mail(Mail::Notice(notice), self.now),
                    Some(Answer::Outcome(ticket, outcome)) => {
                        machine.on_outcome(ticket, outcome, self.now)
                    }
                    Some(Answer::Page(ticket, page)) => machine.on_page(ticket, page, self.now),
                    None => {}
                }
                self.collect(shard);
            }
            Queue::Mail(ShardId(from), ShardId(to)) => {
                if let Some(mail) = self.mail[usize::from(from)][usize::from(to)].pop_front() {
                    self.shards[usize::from(to)].on_mail(mail, self.now);
                    self.collect(to);
                }
            }
            Queue::Input(slot) => self.offer(slot as usize),
        }
    }

    /// Moves everything until nothing is left to move.
    pub fn settle(&mut self) {
        while let Some(&queue) = self.ready().first() {
            self.step(queue);
        }
    }

    fn offer(&mut self, slot: usize) {
        let wire = &mut self.wires[slot];
        let Some(id) = wire.id else { return };
        wire.fresh = false;
        let shard = wire.shard;
        let input = std::mem::take(&mut wire.input);
        let progress = self.shards[usize::from(shard)].on_bytes(id, &input, self.now);
        let wire = &mut self.wires[slot];
        wire.input = input[progress.consumed..].to_vec();
        wire.paused = progress.paused;
        wire.fresh = progress.flush;
        self.collect(shard);
    }

    /// Commits the first `limit` requests that wait, as one batch.
    pub fn commit(&mut self, limit: usize) {
        let count = self.requests.len().min(limit);
        let mut taken: Vec<(Asker, Request)> = self.requests.drain(..count).collect();
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.on_requests(&mut taken);
        }
        let (askers, batch): (Vec<Asker>, Vec<Request>) = taken.into_iter().unzip();
        let asked = self.config.trace.then(|| batch.clone());
        let committed = self.store.commit(batch);
        for (request, reply) in asked.iter().flatten().zip(&committed.replies) {
            println!("    {request:?} => {reply:?}");
        }
        let mut done = Unannounced {
            notices: committed.notices,
            replies: askers.into_iter().zip(committed.replies).collect(),
        };
        let mut early = false;
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.on_notices(&mut done.notices);
            early = saboteur.announces_early();
        }
        if early {
            return self.announce(done);
        }
        self.unannounced.push(done);
    }

    fn sync(&mut self) {
        self.store.sync();
        for done in std::mem::take(&mut self.unannounced) {
            self.announce(done);
        }
    }

    fn announce(&mut self, done: Unannounced) {
        for notice in done.notices {
            match &notice {
                Notice::Inbox { client, .. } => {
                    let shard =
                        Shard::of_client(&client.app, &client.client_id, self.config.shards);
                    self.from_store[usize::from(shard.0)].push_back(Answer::Notice(notice));
                }
                _ => {
                    for queue in &mut self.from_store {
                        queue.push_back(Answer::Notice(notice.clone()));
                    }
                }
            }
        }
        for (asker, reply) in done.replies {
            match (asker, reply) {
                (Asker::Shard(shard, ticket), reply) => {
                    let outcome = reply.map(|reply| match reply {
                        Reply::Broker(outcome) => outcome,
                        Reply::Push(_) => unreachable!("shards send broker commands"),
                    });
                    self.from_store[usize::from(shard.0)]
                        .push_back(Answer::Outcome(ticket, outcome));
                }
                (Asker::Api(number), reply) => {
                    let outcome = reply.map(|reply| match reply {
                        Reply::Push(outcome) => outcome,
                        Reply::Broker(_) => unreachable!("the API sends push commands"),
                    });
                    self.pushes_answered.push((number, outcome));
                }
                (Asker::Sweeper, Ok(Reply::Broker(Outcome::Swept(swept)))) => {
                    for (client, filters) in swept.ended {
                        let home =
                            Shard::of_client(&client.app, &client.client_id, self.config.shards);
                        let ended = Mail::Ended(vec![(client, filters)]);
                        self.mail[usize::from(home.0)][usize::from(home.0)].push_back(ended);
                    }
                }
                (Asker::Sweeper, _) => {}
            }
        }
    }

    /// Takes what a shard wants done.
    fn collect(&mut self, shard: u8) {
        let machine = &mut self.shards[usize::from(shard)];
        let effects = std::mem::take(machine.effects());
        let outbox = machine.outbox();
        for &conn in outbox.dirty() {
            let wire = &mut self.wires[conn.slot as usize];
            for slice in outbox.slices(conn) {
                if !wire.closed && wire.id == Some(conn) {
                    wire.output.extend_from_slice(slice);
                }
            }
        }
        outbox.clear();
        for (ticket, command) in effects.commands {
            self.requests.push_back((
                Asker::Shard(ShardId(shard), ticket),
                Request::Broker(command),
            ));
        }
        for (ticket, query) in effects.queries {
            self.queries.push((ShardId(shard), ticket, query));
        }
        for (to, mail) in effects.mail {
            if self
                .saboteur
                .as_mut()
                .is_some_and(|saboteur| saboteur.loses(&mail))
            {
                continue;
            }
            self.mail[usize::from(shard)][usize::from(to.0)].push_back(mail);
        }
        for conn in effects.closes {
            let wire = &mut self.wires[conn.slot as usize];
            wire.closed |= wire.id == Some(conn);
        }
        for conn in effects.resume {
            let wire = &mut self.wires[conn.slot as usize];
            if wire.id == Some(conn) {
                wire.paused = false;
                wire.fresh = !wire.input.is_empty();
            }
        }
        for (conn, request) in effects.authenticate {
            let verdict = self.config.access.authenticate_slowly(&request);
            self.shards[usize::from(shard)].on_verdict(conn, verdict, self.now);
            self.collect(shard);
        }
        for (conn, to) in effects.handovers {
            let wire = &mut self.wires[conn.slot as usize];
            wire.shard = to.0;
            wire.fresh = true;
            let origin = wire.origin.clone().expect("every wire has one");
            self.shards[usize::from(to.0)].on_accept(conn, &origin, self.now);
        }
    }
}
