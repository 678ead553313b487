//! One shard: its connections, sessions and subscriptions, as a machine.
//!
//! The driver feeds it bytes, mail, answers and the time, then takes [`Effects`] and the [`Outbox`]. Nothing here does IO, and nothing depends
//! on anything but what was fed, so that a simulation with a seed replays exactly.
//!
//! The way of a message: `packets` takes a PUBLISH apart, `publish` routes it to live subscribers and asks the store to keep it where that is needed,
//! `notices` takes what the store committed, `outgoing` and `replay` send it to durable sessions by cursor, `acks` moves the cursors.

mod acks;
mod audiences;
mod auth;
mod campaigns;
mod claim;
mod cluster;
mod conn;
mod connect;
mod devices;
mod doubt;
mod facts;
mod groups;
mod hand_over;
mod late;
mod leave;
mod notices;
mod outgoing;
mod packets;
mod publish;
mod refuse;
mod replay;
mod routing;
mod subscribe;
mod timers;
mod wills;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use campanile_mqtt::{PacketId, Reason};
use foldhash::fast::FixedState;

use crate::{
    access::Access,
    audience::Audiences,
    config::Config,
    effects::{Effects, Ticket},
    ids::{AppId, ClientKey, ConnId, Epoch, Generation, IdSource, Millis, Offset, ShardId},
    lane::Lane,
    mail::{Interest, Mail},
    message::Message,
    outbox::Outbox,
    retained::Retained,
    routes::{FilterIx, Routes},
    stats::Stats,
    store::{Claimed, Command, LogKind, Query, Recovery, StoreError, Will},
    tail::Tail,
};
use conn::{Conn, Live, Phase, Queued};
use subscribe::Job;

/// What a shard is made with.
pub struct Setup {
    /// Its number.
    pub id: ShardId,
    /// How many shards the node has, 1..=64.
    pub count: u8,
    /// Limits and policies.
    pub config: Arc<Config>,
    /// Authentication and authorisation.
    pub access: Arc<dyn Access>,
    /// Whom pushes are for.
    pub audiences: Box<dyn Audiences>,
    /// Message ids, shared by the node.
    pub ids: Arc<IdSource>,
    /// Seed for assigned client identifiers and hash tables.
    pub seed: u64,
    /// The node is a member of a cluster and known by this generation.
    pub cluster: Option<Generation>,
}

/// See the module.
pub struct Shard {
    id: ShardId,
    count: u8,
    config: Arc<Config>,
    access: Arc<dyn Access>,
    audiences: Box<dyn Audiences>,
    ids: Arc<IdSource>,
    seed: u64,
    /// Time of the current call.
    now: Millis,
    apps: Vec<App>,
    app_index: HashMap<AppId, u16, FixedState>,
    conns: Vec<Option<Conn>>,
    /// By slot: when the client was last heard, and after how many seconds of silence it is gone (0: never).
    heard: Vec<Heard>,
    effects: Effects,
    outbox: Outbox,
    stats: Stats,
    next_ticket: u64,
    pending: HashMap<Ticket, Pending, FixedState>,
    next_job: u64,
    jobs: HashMap<u64, Job, FixedState>,
    /// Of unanswered requests, what must be written sooner or later.
    facts: HashMap<Ticket, facts::Fact, FixedState>,
    /// What the store refused of that.
    unwritten: Vec<facts::Event>,
    /// Devices that began with a claim whose connection was gone, until the store knows it.
    beginnings: HashMap<ClientKey, Epoch, FixedState>,
    /// Connections with unsaved progress.
    dirty: Vec<ConnId>,
    save_due: Option<Millis>,
    /// Connections whose replay could not be read.
    retry: Vec<ConnId>,
    /// Connections whose replay goes on in the next turn, so that others have theirs.
    unfinished_replays: Vec<ConnId>,
    /// Clients, by app, whose profiles could not be read.
    unread_profiles: BTreeMap<u16, Vec<Arc<str>>>,
    sweep_due: Millis,
    /// Connections by the end of the credentials that they came with.
    expiring: BTreeSet<(Millis, ConnId)>,
    /// No device has its turn of a campaign before this.
    turns_due: Option<Millis>,
    wills: wills::Delayed,
    late: late::LateMessages,
    /// Figures under `$SYS`.
    sys: BTreeMap<Arc<str>, Arc<Message>>,
    assigned: u64,
    stopping: bool,
    cluster: Option<cluster::Cluster>,
    scratch: Scratch,
}

/// Buffers kept between calls, so that the hot path does not allocate.
#[derive(Default)]
struct Scratch {
    filters: Vec<FilterIx>,
    receivers: Vec<routing::Receiver>,
    properties: Vec<u8>,
    topic: String,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    /// Seconds since the epoch.
    at: u32,
    patience: u32,
}

/// A tenant as this shard sees it.
struct App {
    id: AppId,
    routes: Routes,
    retained: Retained,
    push_tail: Tail,
    topic_tails: Vec<Tail>,
    /// Slots of connected clients and of those whose CONNECT is being worked on.
    clients: HashMap<Arc<str>, u32, FixedState>,
    profiles: audiences::Profiles,
    campaigns: campaigns::Campaigns,
}

/// What a request's answer is for.
enum Pending {
    /// Nobody waits; a failure is counted.
    Nobody,
    Claim {
        conn: ConnId,
        client: ClientKey,
        expiry_seconds: u32,
        /// Waited for the client, and waits on if the claim fails.
        delayed_will: Option<Box<(Millis, Will)>>,
    },
    /// An incoming message is being kept.
    Publish {
        conn: ConnId,
        /// Of QoS 1 and 2.
        packet_id: Option<PacketId>,
        retained: bool,
    },
    /// A statement of a device is being taken.
    Statement {
        conn: ConnId,
        /// Of QoS 1 and 2.
        packet_id: Option<PacketId>,
    },
    PubComp {
        conn: ConnId,
        packet_id: PacketId,
    },
    PubRel {
        conn: ConnId,
        packet_id: PacketId,
    },
    /// QoS 2 messages whose identifiers are being saved.
    Send {
        conn: ConnId,
        items: Vec<(PacketId, Queued, Offset)>,
    },
    Job(u64),
    TopicPage {
        conn: ConnId,
        partition: u8,
    },
    PushPage(ConnId),
    /// Profiles of an app's clients.
    Profiles(u16, Vec<Arc<str>>),
    InboxPage(ConnId, Lane),
    Resend(ConnId),
    /// A connection's lazy save.
    Save(ConnId),
    /// The other node that had the client lets go of it.
    Elsewhere(Box<Elsewhere>),
    /// What it saved is being read.
    Reread(Box<Elsewhere>),
    /// The session is being given the node's new generation.
    Restamp(ConnId),
}

/// A client that was connected to another node when it was claimed.
struct Elsewhere {
    conn: ConnId,
    client: ClientKey,
    expiry_seconds: u32,
    claimed: Claimed,
}

/// A client broke the rules: what it is told before it is cut off.
#[derive(Debug)]
pub(crate) struct Violation {
    reason: Reason,
    text: String,
}

impl Violation {
    #[cold]
    fn new(reason: Reason, text: impl Into<String>) -> Violation {
        Violation {
            reason,
            text: text.into(),
        }
    }
}

/// How much one turn may write before the driver is asked to flush.
const TURN_BYTES: usize = 4 << 20;

impl Shard {
    /// A shard that knows what the store recovered. Every shard gets the whole recovery and takes its part.
    pub fn new(setup: Setup, recovery: &Recovery, now: Millis) -> Shard {
        let state = || FixedState::with_seed(setup.seed);
        let mut shard = Shard {
            id: setup.id,
            count: setup.count,
            config: setup.config,
            access: setup.access,
            audiences: setup.audiences,
            ids: setup.ids,
            seed: setup.seed,
            now,
            apps: Vec::new(),
            app_index: HashMap::with_hasher(state()),
            conns: Vec::new(),
            heard: Vec::new(),
            effects: Effects::default(),
            outbox: Outbox::default(),
            stats: Stats::default(),
            next_ticket: 0,
            pending: HashMap::with_hasher(state()),
            next_job: 1,
            jobs: HashMap::with_hasher(state()),
            facts: HashMap::with_hasher(state()),
            unwritten: Vec::new(),
            beginnings: HashMap::with_hasher(state()),
            dirty: Vec::new(),
            save_due: None,
            retry: Vec::new(),
            unfinished_replays: Vec::new(),
            unread_profiles: BTreeMap::new(),
            sweep_due: now,
            expiring: BTreeSet::new(),
            turns_due: None,
            wills: wills::Delayed::default(),
            late: late::LateMessages::default(),
            sys: BTreeMap::new(),
            assigned: 0,
            stopping: false,
            cluster: setup.cluster.map(cluster::Cluster::new),
            scratch: Scratch::default(),
        };
        shard.recover(recovery);
        shard
    }

    fn recover(&mut self, recovery: &Recovery) {
        for (app, log, end) in &recovery.log_ends {
            let app = self.app(app);
            let (entries, bytes) = (self.config.tail_entries, self.config.tail_bytes);
            let app = &mut self.apps[usize::from(app)];
            let tail = match log {
                LogKind::Push => &mut app.push_tail,
                LogKind::Topic(partition) => match app.topic_tails.get_mut(usize::from(*partition))
                {
                    Some(tail) => tail,
                    None => continue,
                },
            };
            *tail = Tail::new(*end, entries, bytes);
        }
        for (app, message) in &recovery.retained {
            let app = self.app(app);
            self.apps[usize::from(app)]
                .retained
                .set(message.topic().into(), message.clone());
        }
        for (client, subscriptions) in &recovery.sessions {
            let home = Shard::of_client(&client.app, &client.client_id, self.count);
            for subscription in subscriptions {
                self.recover_subscription(home, client, subscription);
            }
        }
        for (app, push, row) in &recovery.campaigns {
            let app = self.app(app);
            self.on_campaign(app, *push, Some(row.clone()));
        }
        for owed in &recovery.wills {
            if Shard::of_client(&owed.client.app, &owed.client.client_id, self.count) == self.id {
                self.recover_will(owed);
            }
        }
    }

    /// The shard that a client belongs to.
    pub fn of_client(app: &AppId, client_id: &str, count: u8) -> ShardId {
        use std::hash::{BuildHasher, Hash, Hasher};
        // Not keyed: all nodes and restarts must agree.
        let mut hasher = FixedState::with_seed(0x0043_616D_7061_6E69).build_hasher();
        app.as_str().hash(&mut hasher);
        client_id.hash(&mut hasher);
        ShardId((hasher.finish() % u64::from(count.max(1))) as u8)
    }

    /// What to do; the driver takes it (`std::mem::take`) at the end of a turn.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// What to write; the driver walks and clears it at the end of a turn.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.pending_requests = self.pending.len() as u64;
        stats.subscriptions_filters = self.apps.iter().map(|app| app.routes.len() as u64).sum();
        stats.retained_messages = self.apps.iter().map(|app| app.retained.len() as u64).sum();
        stats
    }

    /// Requests that the store has not answered; 0 after [`Shard::stop`] means that all is saved.
    pub fn pending_requests(&self) -> usize {
        self.pending.len()
    }

    /// Index of an app's state, made on first use.
    fn app(&mut self, id: &AppId) -> u16 {
        if let Some(&index) = self.app_index.get(id) {
            return index;
        }
        let index = self.apps.len() as u16;
        let (entries, bytes) = (self.config.tail_entries, self.config.tail_bytes);
        let tail = || Tail::new(Offset(0), entries, bytes);
        self.apps.push(App {
            id: id.clone(),
            routes: match self.cluster {
                Some(_) => Routes::of_cluster(),
                None => Routes::default(),
            },
            retained: Retained::default(),
            push_tail: tail(),
            topic_tails: (0..self.config.topic_partitions.max(1))
                .map(|_| tail())
                .collect(),
            clients: HashMap::with_hasher(FixedState::with_seed(self.seed)),
            profiles: audiences::Profiles::default(),
            campaigns: campaigns::Campaigns::default(),
        });
        self.app_index.insert(id.clone(), index);
        index
    }

    /// The partition of an app's topic log that a topic belongs to.
    fn partition(&self, topic: &str) -> u8 {
        use std::hash::{BuildHasher, Hasher};
        let count = self.config.topic_partitions.max(1);
        if count == 1 {
            return 0;
        }
        let mut hasher = FixedState::with_seed(0x746F_7069_6373).build_hasher();
        hasher.write(topic.as_bytes());
        (hasher.finish() % u64::from(count)) as u8
    }

    /// The slot of a connection that is still the one meant.
    fn slot_of(&self, conn: ConnId) -> Option<u32> {
        match self.conns.get(conn.slot as usize) {
            Some(Some(known)) if known.id == conn => Some(conn.slot),
            _ => None,
        }
    }

    fn live(&self, slot: u32) -> Option<&Live> {
        match self.conns.get(slot as usize)?.as_ref()?.phase {
            Phase::Live(ref live) => Some(live),
            _ => None,
        }
    }

    fn live_mut(&mut self, slot: u32) -> Option<&mut Live> {
        live_in(&mut self.conns, slot).map(|(_, live)| live)
    }

    /// The live connection that an answer is for, if it is still there.
    fn answered(&mut self, conn: ConnId) -> Option<&mut Live> {
        self.slot_of(conn)?;
        self.live_mut(conn.slot)
    }

    fn key_of(&self, live: &Live) -> ClientKey {
        ClientKey {
            app: self.apps[usize::from(live.app)].id.clone(),
            client_id: live.client_id.clone(),
        }
    }

    fn command(&mut self, command: Command, pending: Pending) -> Ticket {
        let ticket = self.ticket(pending);
        if let Command::Progress(progress) = &command {
            self.note_saving(ticket, progress);
        }
        self.effects.commands.push((ticket, command));
        ticket
    }

    fn query(&mut self, query: Query, pending: Pending) {
        let ticket = self.ticket(pending);
        self.effects.queries.push((ticket, query));
    }

    fn ticket(&mut self, pending: Pending) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.pending.insert(ticket, pending);
        ticket
    }

    /// Whether so much waits for the store that nothing may be added.
    fn store_is_behind(&self) -> bool {
        self.pending.len() >= self.config.max_pending_requests as usize
    }

    /// Tells all other shards. The number of answers to expect under this ticket (0: nobody waits).
    fn announce(&mut self, app: u16, change: &Interest, ticket: u64) -> u32 {
        let app = self.apps[usize::from(app)].id.clone();
        for other in (0..self.count)
            .map(ShardId)
            .filter(|&other| other != self.id)
        {
            let (change, app) = (change.clone(), app.clone());
            self.effects.mail.push((
                other,
                Mail::Interest {
                    from: self.id,
                    app,
                    change,
                    ticket,
                },
            ));
        }
        let mut answers = u32::from(self.count - 1);
        if self.cluster.is_some() {
            self.effects.mail.push((
                ShardId::HUB,
                Mail::Interest {
                    from: self.id,
                    app,
                    change: change.clone(),
                    ticket,
                },
            ));
            answers += 1;
        }
        answers
    }

    /// Counts a lazy request's failure. What it carried is repeated by later requests, or by the client after its next connect.
    fn on_lazy_failure(&mut self, error: &StoreError) {
        if *error != StoreError::Fenced {
            self.stats.refused_store += 1;
        }
    }
}

/// The client of a slot that is in the routes: one that is live, or is about to hear that it is connected.
fn attached_in(conns: &mut [Option<Conn>], slot: u32) -> Option<&mut Live> {
    match &mut conns.get_mut(slot as usize)?.as_mut()?.phase {
        Phase::Live(live) | Phase::Announcing(live) => Some(live),
        _ => None,
    }
}

/// The live connection in a slot, when other fields of the shard are borrowed too.
fn live_in(conns: &mut [Option<Conn>], slot: u32) -> Option<(ConnId, &mut Live)> {
    match conns.get_mut(slot as usize)?.as_mut()? {
        Conn {
            id,
            phase: Phase::Live(live),
        } => Some((*id, live)),
        _ => None,
    }
}
