//! A node without threads and sockets: shards, a model store, and queues between them that a scheduler empties one item at a time.
//!
//! Everything that happens between two shards, a shard and the store, or a shard and a connection is an item in a queue. [`Node::ready`] lists the queues that
//! are not empty, [`Node::step`] moves the first item of one. A conversation test [settles](Node::settle) the node after each act; the simulation picks queues by
//! a seed, and may crash the node between any two steps.
//!
//! The store works as on a real disk: a commit is visible to reads at once, but it can be lost until it is synced, and only then are its notices and answers
//! delivered.

use std::{collections::VecDeque, sync::Arc};

use campanile_backends::{
    Backend, Config as StoreConfig, Reader, Reply, Request,
    memory::{Disk, Memory},
    order::Broken,
};
use campanile_broker::{
    access::{Access, Open},
    config::Config,
    effects::Ticket,
    ids::{IdSource, Millis, ShardId},
    mail::Mail,
    shard::Shard,
    store::{Command, Notice, Outcome, Page, Query, StoreError},
};
use campanile_push::store as push;

use crate::{
    sabotage::{Sabotage, Saboteur},
    shards::{Knowing, Letter, Shards, ShardsConfig, Step},
};

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
    /// Who knows whom a push is for.
    pub audiences: Knowing,
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
            audiences: Knowing::default(),
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

/// A commit that is not on disk.
struct Unannounced {
    notices: Vec<Notice>,
    replies: Vec<(Asker, Result<Reply, StoreError>)>,
}

/// A push that the API sent, by the number that [`Node::push`] gave.
type PushAnswer = (u64, Result<push::Outcome, StoreError>);

/// See the module.
pub struct Node {
    config: NodeConfig,
    /// Current time.
    pub now: Millis,
    shards: Shards,
    store: Memory,
    reader: Arc<dyn Reader>,
    requests: VecDeque<(Asker, Request)>,
    broken: Broken,
    unannounced: Vec<Unannounced>,
    queries: Vec<(ShardId, Ticket, Query)>,
    pages: Vec<(ShardId, Ticket, Result<Page, StoreError>)>,
    pushes_answered: Vec<PushAnswer>,
    next_push: u64,
    /// The disk cannot be read.
    is_unreadable: bool,
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
        let setup = ShardsConfig {
            count: config.shards,
            broker: config.broker.clone(),
            access: config.access.clone(),
            audiences: config.audiences,
            seed: config.seed,
            cluster: None,
        };
        let mut shards = Shards::new(setup, &recovery, now);
        shards.saboteur = config.sabotage.map(Saboteur::new);
        Node {
            now,
            shards,
            reader: store.reader(),
            store,
            requests: VecDeque::new(),
            broken: Broken::default(),
            unannounced: Vec::new(),
            queries: Vec::new(),
            pages: Vec::new(),
            pushes_answered: Vec::new(),
            next_push: 0,
            is_unreadable: false,
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
        self.shards.machines()
    }

    /// Source of message ids.
    pub fn ids(&self) -> Arc<IdSource> {
        self.shards.ids()
    }

    /// The node dies at once; of the commits that were not synced, the first `keep` reached the disk.
    pub fn crash(self, keep: usize) -> Disk {
        self.store.crash(keep)
    }

    /// A client connects, through a shard. The number of its wire.
    pub fn connect(&mut self, shard: u8) -> usize {
        let wire = self.shards.connect(shard);
        self.take_requests();
        wire
    }

    /// Lets the number of a wire that is [closed](Node::is_closed) be used for another connection.
    pub fn forget(&mut self, wire: usize) {
        self.shards.forget(wire);
    }

    /// Whether bytes of a client wait for their shard.
    pub fn has_input(&self, wire: usize) -> bool {
        self.shards.has_input(wire)
    }

    /// Bytes of a client arrive; its shard takes them at a step of [`Queue::Input`].
    pub fn send(&mut self, wire: usize, bytes: &[u8]) {
        self.shards.send(wire, bytes);
    }

    /// What was written to a client since the last call.
    pub fn take_output(&mut self, wire: usize) -> Vec<u8> {
        self.shards.take_output(wire)
    }

    /// Whether the node has closed a connection.
    pub fn is_closed(&self, wire: usize) -> bool {
        self.shards.is_closed(wire)
    }

    /// The client's end, or the network, cuts a connection.
    pub fn cut(&mut self, wire: usize) {
        self.shards.cut(wire);
        self.take_requests();
    }

    /// The socket of a client is full (or has room again).
    pub fn set_blocked(&mut self, wire: usize, blocked: bool) {
        self.shards.set_blocked(wire, blocked);
        self.take_requests();
    }

    /// Whether every request to the store is carried out and on disk.
    pub fn is_all_synced(&self) -> bool {
        self.requests.is_empty() && self.unannounced.is_empty()
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
        self.shards.tick(self.now);
        self.take_requests();
    }

    /// The node stops in an orderly way; the disk that it leaves.
    pub fn stop(mut self) -> Disk {
        self.begin_stop();
        self.into_disk()
    }

    /// The first half of an orderly stop: what was said last to the clients can be taken now.
    pub fn begin_stop(&mut self) {
        self.shards.stop();
        self.take_requests();
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
        ready.extend(self.shards.ready().map(|step| match step {
            Step::Post(shard) => Queue::FromStore(shard),
            Step::Mail(from, to) => Queue::Mail(from, to),
            Step::Input(wire) => Queue::Input(wire),
        }));
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
                self.shards.post(shard, Letter::Page(ticket, page));
            }
            Queue::FromStore(shard) => self.move_shards(Step::Post(shard)),
            Queue::Mail(from, to) => self.move_shards(Step::Mail(from, to)),
            Queue::Input(wire) => self.move_shards(Step::Input(wire)),
        }
    }

    fn move_shards(&mut self, step: Step) {
        self.shards.step(step);
        self.take_requests();
    }

    /// Takes what the shards ask of the store.
    fn take_requests(&mut self) {
        for (shard, ticket, command) in self.shards.commands.drain(..) {
            let asker = Asker::Shard(shard, ticket);
            self.requests.push_back((asker, Request::Broker(command)));
        }
        self.queries.append(&mut self.shards.queries);
    }

    /// Moves everything until nothing is left to move.
    pub fn settle(&mut self) {
        while let Some(&queue) = self.ready().first() {
            self.step(queue);
        }
    }

    /// Commits the first `limit` requests that wait, as one batch.
    pub fn commit(&mut self, limit: usize) {
        let count = self.requests.len().min(limit);
        let mut taken: Vec<(Asker, Request)> = self.requests.drain(..count).collect();
        if let Some(saboteur) = &mut self.shards.saboteur {
            saboteur.on_requests(&mut taken);
        }
        let mut admitted = self.broken.admit(taken);
        let batch = std::mem::take(&mut admitted.batch);
        let asked = self.config.trace.then(|| batch.clone());
        let committed = self.store.commit(batch);
        for (request, reply) in asked.iter().flatten().zip(&committed.replies) {
            println!("    {request:?} => {reply:?}");
        }
        let mut done = Unannounced {
            notices: committed.notices,
            replies: self.broken.settle(admitted, committed.replies),
        };
        let mut early = false;
        if let Some(saboteur) = &mut self.shards.saboteur {
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
                    self.shards.post(shard, Letter::Mail(Mail::Notice(notice)));
                }
                _ => self.shards.post_all(&Mail::Notice(notice)),
            }
        }
        for (asker, reply) in done.replies {
            match (asker, reply) {
                (Asker::Shard(shard, ticket), reply) => {
                    let outcome = reply.map(|reply| match reply {
                        Reply::Broker(outcome) => outcome,
                        Reply::Push(_) => unreachable!("shards send broker commands"),
                    });
                    self.shards.post(shard, Letter::Outcome(ticket, outcome));
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
                        self.shards.mail_home(home, ended);
                    }
                }
                (Asker::Sweeper, _) => {}
            }
        }
    }
}
