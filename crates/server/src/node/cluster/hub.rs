//! The thread of the hub: letters in, the hub's effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    mem::take,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use campanile_backends::{
    Reply, Request,
    worker::{ReadMailbox, StoreMailbox},
    zookeeper::ZooKeeperMembership,
};
use campanile_broker::{
    cluster::{
        hub::{Counted, Effects, Found, Hub, HubStats},
        membership::Membership,
        peer::{Imagined, Load, PeerMessage},
    },
    effects::Ticket,
    ids::{AppId, ClientKey, Generation, Millis, Offset, ShardId},
    mail::Mail,
    store::{Notice, Outcome, Page, StoreError},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{
    net::{driver::Shared, mailbox::Letter},
    node::{
        store::{Postman, Tag, outcome_of_broker, too_busy},
        totals::totals,
    },
    peers::{LinkEvent, LinkEvents, Links, Peer, Sent},
};

/// Letters that are taken in one turn.
const TURN: usize = 1024;
/// Letters that may wait before what peers say must wait too.
const BUSY: usize = 65_536;
/// How often to look whether a busy hub has caught up.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// One thing for the hub.
#[derive(Debug)]
pub enum HubLetter {
    /// The store has carried out a batch.
    Commit {
        /// What it announces.
        notices: Vec<Notice>,
        /// The answers.
        replies: Vec<(Tag, Result<Reply, StoreError>)>,
        /// Answers that wait until all nodes know what they changed.
        changed: Vec<(usize, AppId, Offset)>,
    },
    /// From a shard, to the hub or to a peer that stands among the shards.
    Mail(Vec<(ShardId, Mail)>),
    /// The store's answer to a read of the hub.
    Page(u64, Result<Page, StoreError>),
    /// What happened on the links, in order.
    Links(Vec<LinkEvent>),
    /// What the nodes agree on has changed.
    Membership(Arc<Membership>),
    /// Where is a client connected?
    Ask {
        /// Who.
        client: ClientKey,
        /// Its connection is closed, too.
        kick: bool,
        /// Gets the answer.
        answer: oneshot::Sender<Found>,
    },
    /// For how many connected devices would a push be?
    Count {
        /// The push.
        imagined: Imagined,
        /// Gets the answer.
        answer: oneshot::Sender<Counted>,
    },
    /// The end.
    Stop,
}

impl HubLetter {
    /// How many letters it counts for.
    fn things(&self) -> usize {
        match self {
            HubLetter::Links(events) => events.len(),
            _ => 1,
        }
    }
}

/// The way to the hub; clones are the same one. Not bounded by itself: while many letters wait, drivers do not read their sockets, and what peers say waits in
/// their links.
#[derive(Clone, Debug)]
pub struct HubMailbox {
    letters: Sender<HubLetter>,
    waiting: Arc<AtomicUsize>,
}

impl HubMailbox {
    /// A mailbox, what comes out of it, and how much waits in it.
    pub fn new(waiting: Arc<AtomicUsize>) -> (HubMailbox, Receiver<HubLetter>) {
        let (letters, receiver) = channel();
        (HubMailbox { letters, waiting }, receiver)
    }

    /// Posts a letter.
    pub fn post(&self, letter: HubLetter) {
        self.waiting.fetch_add(letter.things(), Ordering::Relaxed);
        // Once the hub has ended, nobody needs to know.
        let _ = self.letters.send(letter);
    }

    fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > BUSY
    }
}

/// Takes what the links and the ensemble say to the hub, as long as the node lives.
pub fn forward(
    runtime: &Handle,
    hub: HubMailbox,
    mut events: LinkEvents,
    mut membership: watch::Receiver<Arc<Membership>>,
) {
    let links = hub.clone();
    runtime.spawn(async move {
        while let Some(event) = events.recv().await {
            while links.is_busy() {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            // Under load each wake-up of the hub brings it all that has come meanwhile.
            let mut several = vec![event];
            while several.len() < TURN
                && let Some(event) = events.try_recv()
            {
                several.push(event);
            }
            links.post(HubLetter::Links(several));
        }
    });
    runtime.spawn(async move {
        while membership.changed().await.is_ok() {
            let now = membership.borrow_and_update().clone();
            hub.post(HubLetter::Membership(now));
        }
    });
}

/// What of the hub others see.
#[derive(Debug, Default)]
pub struct Shown(Mutex<(HubStats, Vec<Generation>)>);

impl Shown {
    /// Its counters.
    pub fn stats(&self) -> HubStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Linked peers.
    pub fn linked(&self) -> Vec<Generation> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.1.clone()
    }
}

/// What is around the hub in its node.
pub struct Surroundings {
    /// Shards and clock.
    pub shared: Arc<Shared>,
    /// The way to the store's thread.
    pub store: StoreMailbox<Tag>,
    /// The way to its readers.
    pub reads: ReadMailbox<(ShardId, Ticket)>,
    /// The hub's own mailbox.
    pub hub: HubMailbox,
    /// What comes out of it.
    pub letters: Receiver<HubLetter>,
    /// Is told if the hub dies.
    pub failed: tokio::sync::mpsc::UnboundedSender<String>,
}

/// The thread.
pub struct HubThread {
    mailbox: HubMailbox,
    ready: Receiver<()>,
    thread: JoinHandle<()>,
}

impl HubThread {
    /// Starts it.
    pub fn spawn(
        hub: Hub<(Tag, Result<Reply, StoreError>)>,
        node: Surroundings,
        links: Arc<Links>,
        zookeeper: Arc<ZooKeeperMembership>,
        shown: Arc<Shown>,
    ) -> io::Result<HubThread> {
        let mailbox = node.hub.clone();
        let (is_ready, ready) = channel();
        mailbox.post(HubLetter::Membership(zookeeper.membership()));
        let thread = std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || {
                let failed = node.failed.clone();
                let alarm = Alarm(failed);
                let mut office = Office {
                    postman: Postman::new(node.shared.clone()),
                    hub,
                    node,
                    links,
                    shown,
                    is_ready: Some(is_ready),
                    peers: BTreeMap::new(),
                    up: BTreeSet::new(),
                    lost: BTreeSet::new(),
                    zookeeper,
                    asked: BTreeMap::new(),
                    counts: BTreeMap::new(),
                    last_question: 0,
                };
                office.run();
                drop(alarm);
            })?;
        Ok(HubThread {
            mailbox,
            ready,
            thread,
        })
    }

    /// Waits until the hub knows what the store has of its apps. `false`: it does not yet.
    pub fn wait_ready(&self, patience: Duration) -> bool {
        self.ready.recv_timeout(patience).is_ok()
    }

    /// Ends it.
    pub fn stop(self) {
        self.mailbox.post(HubLetter::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the hub panicked");
        }
    }
}

/// Says so if the thread panics.
struct Alarm(tokio::sync::mpsc::UnboundedSender<String>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = "the hub panicked";
            tracing::error!(reason = failure, "the hub has died, the node must stop");
            let _ = self.0.send(failure.to_owned());
        }
    }
}

struct Office {
    hub: Hub<(Tag, Result<Reply, StoreError>)>,
    node: Surroundings,
    postman: Postman,
    links: Arc<Links>,
    shown: Arc<Shown>,
    is_ready: Option<Sender<()>>,
    /// Nodes that are or were members, as long as they are linked.
    peers: BTreeMap<Generation, Peer>,
    up: BTreeSet<Generation>,
    /// Nodes that were linked, are not, and are still said to be members.
    lost: BTreeSet<Generation>,
    zookeeper: Arc<ZooKeeperMembership>,
    asked: BTreeMap<u64, oneshot::Sender<Found>>,
    counts: BTreeMap<u64, oneshot::Sender<Counted>>,
    last_question: u64,
}

impl Office {
    fn run(&mut self) {
        self.hub.on_tick(self.now());
        self.carry_out();
        loop {
            let now = self.now();
            let wait = Duration::from_millis(self.hub.next_deadline().since(now));
            let first = match self.node.letters.recv_timeout(wait) {
                Ok(letter) => Some(letter),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut taken = 0;
            let mut next = first;
            while let Some(letter) = next {
                taken += letter.things();
                if !self.on_letter(letter) {
                    self.carry_out();
                    return;
                }
                next = match taken < TURN {
                    true => self.node.letters.try_recv().ok(),
                    false => None,
                };
            }
            self.node.hub.waiting.fetch_sub(taken, Ordering::Relaxed);
            let now = self.now();
            if self.hub.next_deadline() <= now {
                self.hub.on_tick(now);
            }
            // Once for all letters of a turn: what it wakes is woken once.
            self.carry_out();
            let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
            *shown = (self.hub.stats(), self.up.iter().copied().collect());
        }
    }

    fn now(&self) -> Millis {
        self.node.shared.clock.now()
    }

    /// `false`: it is the last one.
    fn on_letter(&mut self, letter: HubLetter) -> bool {
        let now = self.now();
        match letter {
            HubLetter::Commit {
                notices,
                replies,
                changed,
            } => self.on_commit(notices, replies, changed, now),
            HubLetter::Mail(mail) => {
                for (to, mail) in mail {
                    self.hub.on_mail(to, mail, now);
                }
            }
            HubLetter::Page(ticket, page) => self.hub.on_page(ticket, page, now),
            HubLetter::Links(events) => {
                for event in events {
                    self.on_link(event, now);
                }
            }
            HubLetter::Membership(membership) => {
                // Links change at once: what was meant for those of before goes there.
                self.carry_out();
                self.on_membership(membership, now);
            }
            HubLetter::Ask {
                client,
                kick,
                answer,
            } => {
                self.last_question += 1;
                self.asked.insert(self.last_question, answer);
                self.hub.ask(self.last_question, &client, kick, now);
            }
            HubLetter::Count { imagined, answer } => {
                self.last_question += 1;
                self.counts.insert(self.last_question, answer);
                self.hub.count(self.last_question, &imagined, now);
            }
            HubLetter::Stop => return false,
        }
        true
    }

    fn on_commit(
        &mut self,
        notices: Vec<Notice>,
        replies: Vec<(Tag, Result<Reply, StoreError>)>,
        mut changed: Vec<(usize, AppId, Offset)>,
        now: Millis,
    ) {
        let mut own: Vec<(u64, Result<Outcome, StoreError>)> = Vec::new();
        let mut others = Vec::with_capacity(replies.len());
        let mut places = Vec::with_capacity(replies.len());
        for (tag, reply) in replies {
            places.push(others.len());
            match tag {
                Tag::Hub(ticket) => own.push((ticket, reply.map(outcome_of_broker))),
                tag => others.push((tag, reply)),
            }
        }
        // The hub's own answers wait for nobody.
        let is_own =
            |place: usize| places.get(place + 1).unwrap_or(&others.len()) == &places[place];
        changed.retain(|(place, ..)| !is_own(*place));
        for (place, ..) in &mut changed {
            *place = places[*place];
        }
        self.hub.on_commit(notices, others, &changed, now);
        for (ticket, outcome) in own {
            self.hub.on_outcome(ticket, outcome, now);
        }
    }

    fn on_link(&mut self, event: LinkEvent, now: Millis) {
        match event {
            LinkEvent::Up {
                generation, name, ..
            } => {
                tracing::debug!(peer = %name, %generation, "linked");
                // What was meant for the link of before must not begin this one.
                self.carry_out();
                self.up.insert(generation);
                if self.lost.remove(&generation) {
                    self.zookeeper.set_links_down(self.lost.clone());
                }
                self.hub.on_peer_up(generation, now);
            }
            LinkEvent::Down { generation, reason } => {
                tracing::debug!(%generation, %reason, "link lost");
                self.up.remove(&generation);
                self.lost.insert(generation);
                self.zookeeper.set_links_down(self.lost.clone());
                self.hub.on_peer_down(generation, now);
            }
            LinkEvent::Message {
                generation,
                message,
            } => {
                let load = match message {
                    PeerMessage::Ask { .. } => load(&self.node.shared),
                    _ => Load::default(),
                };
                self.hub.on_peer(generation, message, load, now);
            }
        }
    }

    fn on_membership(&mut self, membership: Arc<Membership>, now: Millis) {
        let own = membership.own;
        let listed = membership.nodes.values().map(|node| Peer {
            generation: node.generation,
            name: node.info.name.clone(),
            address: node.info.peer_address,
        });
        let listed: BTreeMap<Generation, Peer> =
            listed.map(|peer| (peer.generation, peer)).collect();
        // Who is only cut off from the ensemble stays linked.
        let up = &self.up;
        let kept = take(&mut self.peers)
            .into_iter()
            .filter(|(generation, _)| up.contains(generation));
        let mut peers: BTreeMap<Generation, Peer> = kept.collect();
        peers.extend(listed);
        self.lost.retain(|generation| {
            membership
                .nodes
                .values()
                .any(|node| node.generation == *generation)
        });
        self.peers = peers;
        if let Some(own) = own {
            self.links.set_own(own);
        }
        self.links.set_peers(self.peers.values().cloned().collect());
        self.hub.on_membership(membership, now);
    }

    fn carry_out(&mut self) {
        let Effects {
            letters,
            peers,
            queries,
            commands,
            ready,
            clock,
            found,
            counted,
        } = take(self.hub.effects());
        for (shard, mail) in letters {
            self.postman.take(shard, Letter::Mail(mail));
        }
        // Before the answers, so that whoever is answered finds the others informed.
        for (peer, message) in peers {
            if self.links.send(peer, message) == Sent::Full {
                tracing::debug!(%peer, "no room for a message that may be dropped");
            }
        }
        for swept in self.postman.answer(ready) {
            self.hub.on_wills(swept.wills, self.now());
        }
        self.submit(queries, commands);
        if let Some((asked, store)) = clock {
            self.follow(asked, store);
        }
        for (question, found) in found {
            if let Some(answer) = self.asked.remove(&question) {
                let _ = answer.send(found);
            }
        }
        for counted in counted {
            if let Some(answer) = self.counts.remove(&counted.ticket) {
                let _ = answer.send(counted);
            }
        }
        if self.hub.is_ready()
            && let Some(is_ready) = self.is_ready.take()
        {
            let _ = is_ready.send(());
        }
        if !self.hub.effects().letters.is_empty() || !self.hub.effects().commands.is_empty() {
            self.carry_out();
        }
    }

    fn submit(
        &mut self,
        queries: Vec<(u64, campanile_broker::store::Query)>,
        commands: Vec<(u64, campanile_broker::store::Command)>,
    ) {
        let now = self.now();
        let queries = queries
            .into_iter()
            .map(|(ticket, query)| ((ShardId::HUB, Ticket(ticket)), query));
        for ((_, ticket), _) in self.node.reads.submit(queries) {
            self.hub.on_page(ticket.0, Err(too_busy()), now);
        }
        let commands = commands
            .into_iter()
            .map(|(ticket, command)| (Tag::Hub(ticket), Request::Broker(command)));
        for (tag, _) in self.node.store.submit(commands) {
            if let Tag::Hub(ticket) = tag {
                self.hub.on_outcome(ticket, Err(too_busy()), now);
            }
        }
    }

    /// Sets the node's clock by the store's.
    fn follow(&self, asked: Millis, store: Millis) {
        let moment = Instant::now();
        let answered = self.node.shared.clock.at(moment);
        // The store looked at its clock about half way between.
        let on_the_way = Duration::from_millis(answered.since(asked) / 2);
        let store = Duration::from_millis(store.0) + on_the_way;
        self.node.shared.clock.follow(moment, store);
    }
}

/// How full a node is.
pub fn load(shared: &Shared) -> Load {
    let capacity: u64 = shared
        .listeners
        .iter()
        .map(|listener| listener.max_connections() as u64)
        .sum();
    Load {
        connections: totals(shared).shard.connections,
        capacity: capacity.min(shared.max_sockets as u64),
    }
}
