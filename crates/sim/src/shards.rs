//! The shards of a node, the wires of its clients, and the mail between them, without a store.
//!
//! What the shards ask of the store, and what they say to the cluster, is taken out by whoever owns them: [`node`](crate::node) or
//! [`fleet`](crate::fleet).

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use campanile_backends::audiences::LiveAudiences;
use campanile_broker::{
    access::Access,
    audience::{Audiences, Words},
    config::Config,
    effects::{Origin, Ticket},
    ids::{AppId, ConnId, Generation, IdSource, Millis, ShardId},
    mail::Mail,
    shard::{Setup, Shard},
    store::{Command, Outcome, Page, Query, Recovery, StoreError},
};

use crate::sabotage::Saboteur;

/// What shards are made with.
pub struct ShardsConfig {
    /// How many.
    pub count: u8,
    /// Rules of the broker.
    pub broker: Config,
    /// Who may do what.
    pub access: Arc<dyn Access>,
    /// Who knows whom a push is for.
    pub audiences: Knowing,
    /// Seed of identifiers and hash tables.
    pub seed: u64,
    /// See [`Setup::cluster`].
    pub cluster: Option<Generation>,
}

/// Who knows whom a push is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knowing {
    /// [`Words`], which tests can write.
    #[default]
    Words,
    /// The push domain.
    Product,
}

impl Knowing {
    fn audiences(self) -> Box<dyn Audiences> {
        match self {
            Knowing::Words => Box::new(Words::default()),
            Knowing::Product => Box::new(LiveAudiences::default()),
        }
    }
}

/// A queue of the shards that has something to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// To a shard from outside: mail and answers, in order.
    Post(ShardId),
    /// From a shard to another.
    Mail(ShardId, ShardId),
    /// Bytes from a client that its shard has not taken.
    Input(u32),
}

/// Something for a shard.
pub enum Letter {
    /// Mail.
    Mail(Mail),
    /// The answer to a command.
    Outcome(Ticket, Result<Outcome, StoreError>),
    /// The answer to a query.
    Page(Ticket, Result<Page, StoreError>),
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

/// See the module.
pub struct Shards {
    /// Current time.
    pub now: Millis,
    access: Arc<dyn Access>,
    ids: Arc<IdSource>,
    machines: Vec<Shard>,
    post: Vec<VecDeque<Letter>>,
    mail: Vec<Vec<VecDeque<Mail>>>,
    wires: Vec<Wire>,
    /// Wires that may be used again.
    free: Vec<usize>,
    /// Writes that nobody has taken out.
    pub commands: Vec<(ShardId, Ticket, Command)>,
    /// Reads that nobody has taken out.
    pub queries: Vec<(ShardId, Ticket, Query)>,
    /// From a shard to the node's hub, or to a peer that stands among the shards; taken out by the node.
    pub outward: Vec<(ShardId, ShardId, Mail)>,
    pub(crate) saboteur: Option<Saboteur>,
}

impl Shards {
    /// Shards that know what the store recovered.
    pub fn new(config: ShardsConfig, recovery: &Recovery, now: Millis) -> Shards {
        let ids = Arc::new(IdSource::new(config.seed ^ now.0));
        let broker = Arc::new(config.broker);
        let shard = |id| {
            let setup = Setup {
                id: ShardId(id),
                count: config.count,
                config: broker.clone(),
                access: config.access.clone(),
                audiences: config.audiences.audiences(),
                ids: ids.clone(),
                seed: config.seed,
                cluster: config.cluster,
            };
            Shard::new(setup, recovery, now)
        };
        let count = usize::from(config.count);
        let queues = || (0..count).map(|_| VecDeque::new()).collect();
        Shards {
            now,
            machines: (0..config.count).map(shard).collect(),
            access: config.access.clone(),
            ids: ids.clone(),
            post: (0..count).map(|_| VecDeque::new()).collect(),
            mail: (0..count).map(|_| queues()).collect(),
            wires: Vec::new(),
            free: Vec::new(),
            commands: Vec::new(),
            queries: Vec::new(),
            outward: Vec::new(),
            saboteur: None,
        }
    }

    /// How many.
    pub fn count(&self) -> u8 {
        self.machines.len() as u8
    }

    /// The shards, to look at their figures.
    pub fn machines(&self) -> &[Shard] {
        &self.machines
    }

    /// Source of message ids.
    pub fn ids(&self) -> Arc<IdSource> {
        self.ids.clone()
    }

    /// Something for a shard, behind what waits for it.
    pub fn post(&mut self, to: ShardId, letter: Letter) {
        self.post[usize::from(to.0)].push_back(letter);
    }

    /// Something for every shard.
    pub fn post_all(&mut self, mail: &Mail) {
        for queue in &mut self.post {
            queue.push_back(Letter::Mail(mail.clone()));
        }
    }

    /// Mail for a shard, as if it came from itself.
    pub fn mail_home(&mut self, to: ShardId, mail: Mail) {
        self.mail[usize::from(to.0)][usize::from(to.0)].push_back(mail);
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
        self.machines[usize::from(shard)].on_accept(id, &origin, self.now);
        self.collect(shard);
        slot
    }

    /// Lets the number of a wire that is [closed](Shards::is_closed) be used for another connection.
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

    /// Bytes of a client arrive; its shard takes them at a step of [`Step::Input`].
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
            self.machines[usize::from(shard)].on_closed(id, self.now);
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
        let machine = &mut self.machines[usize::from(shard)];
        if blocked {
            machine.on_blocked(id, 1);
        } else {
            machine.on_writable(id, self.now);
        }
        self.collect(shard);
    }

    /// It is later.
    pub fn tick(&mut self, now: Millis) {
        self.now = now;
        for shard in 0..self.machines.len() {
            self.machines[shard].on_tick(now);
            self.collect(shard as u8);
        }
    }

    /// The shards say goodbye to everybody.
    pub fn stop(&mut self) {
        for shard in 0..self.machines.len() {
            self.machines[shard].stop(self.now);
            self.collect(shard as u8);
        }
    }

    /// Queues that have something to move.
    pub fn ready(&self) -> impl Iterator<Item = Step> {
        let ids = || (0..self.machines.len()).map(|id| ShardId(id as u8));
        let posts = ids()
            .filter(|id| !self.post[usize::from(id.0)].is_empty())
            .map(Step::Post);
        let mails = ids().flat_map(move |from| {
            let waiting =
                move |to: &ShardId| !self.mail[usize::from(from.0)][usize::from(to.0)].is_empty();
            ids().filter(waiting).map(move |to| Step::Mail(from, to))
        });
        let offered = |wire: &Wire| wire.fresh && !wire.paused && !wire.closed;
        let inputs = self
            .wires
            .iter()
            .enumerate()
            .filter(move |(_, wire)| offered(wire));
        posts
            .chain(mails)
            .chain(inputs.map(|(slot, _)| Step::Input(slot as u32)))
    }

    /// Moves the first item of a queue.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Post(ShardId(shard)) => {
                let letter = self.post[usize::from(shard)].pop_front();
                let machine = &mut self.machines[usize::from(shard)];
                match letter {
                    Some(Letter::Mail(mail)) => machine.on_mail(mail, self.now),
                    Some(Letter::Outcome(ticket, outcome)) => {
                        machine.on_outcome(ticket, outcome, self.now);
                    }
                    Some(Letter::Page(ticket, page)) => machine.on_page(ticket, page, self.now),
                    None => {}
                }
                self.collect(shard);
            }
            Step::Mail(ShardId(from), ShardId(to)) => {
                if let Some(mail) = self.mail[usize::from(from)][usize::from(to)].pop_front() {
                    self.machines[usize::from(to)].on_mail(mail, self.now);
                    self.collect(to);
                }
            }
            Step::Input(slot) => self.offer(slot as usize),
        }
    }

    fn offer(&mut self, slot: usize) {
        let wire = &mut self.wires[slot];
        let Some(id) = wire.id else { return };
        wire.fresh = false;
        let shard = wire.shard;
        let input = std::mem::take(&mut wire.input);
        let progress = self.machines[usize::from(shard)].on_bytes(id, &input, self.now);
        let wire = &mut self.wires[slot];
        wire.input = input[progress.consumed..].to_vec();
        wire.paused = progress.paused;
        wire.fresh = progress.flush;
        self.collect(shard);
    }

    /// Takes what a shard wants done.
    fn collect(&mut self, shard: u8) {
        let machine = &mut self.machines[usize::from(shard)];
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
        let id = ShardId(shard);
        let commands = effects.commands.into_iter();
        self.commands
            .extend(commands.map(|(ticket, command)| (id, ticket, command)));
        let queries = effects.queries.into_iter();
        self.queries
            .extend(queries.map(|(ticket, query)| (id, ticket, query)));
        // There is no registry here: whatever a device says of itself is fine.
        for (ticket, _) in effects.statements {
            let answer = Letter::Outcome(ticket, Ok(Outcome::Done));
            self.post[usize::from(shard)].push_back(answer);
        }
        for (to, mail) in effects.mail {
            if self
                .saboteur
                .as_mut()
                .is_some_and(|saboteur| saboteur.loses(&mail))
            {
                continue;
            }
            match self.mail[usize::from(shard)].get_mut(usize::from(to.0)) {
                Some(queue) => queue.push_back(mail),
                None => self.outward.push((id, to, mail)),
            }
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
            let verdict = self.access.authenticate_slowly(&request);
            self.machines[usize::from(shard)].on_verdict(conn, verdict, self.now);
            self.collect(shard);
        }
        for (conn, to) in effects.handovers {
            let wire = &mut self.wires[conn.slot as usize];
            wire.shard = to.0;
            wire.fresh = true;
            let origin = wire.origin.clone().expect("every wire has one");
            self.machines[usize::from(to.0)].on_accept(conn, &origin, self.now);
        }
    }
}
