//! What the parts of the links share: who the peers are, and which links are up.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use campanile_broker::ids::Generation;
use tokio::sync::watch;

use super::{
    PeerConfig, PeerIdentity,
    events::EventSink,
    figures::{Counters, Figures, PeerFigures},
    hello::{Agreed, Dialect, Speaker},
    link::{Connection, DownReason, Known, Link, LinkLimits},
    tls::Security,
};

/// What the node wants of its links. Replaced as a whole.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// This node's generation.
    pub own: Generation,
    /// Other nodes, by generation.
    pub peers: BTreeMap<Generation, Arc<Known>>,
    /// Nothing any more.
    pub stopping: bool,
}

impl Wanted {
    /// Whether a link made under that generation to that peer may go on.
    pub fn covers(&self, own: Generation, known: &Arc<Known>) -> bool {
        let listed = self.peers.get(&known.peer.generation);
        !self.stopping && self.own == own && listed.is_some_and(|listed| Arc::ptr_eq(listed, known))
    }
}

/// The shared part.
#[derive(Debug)]
pub struct Table {
    /// Who this node is, but for its generation.
    pub identity: PeerIdentity,
    /// What it speaks.
    pub dialect: Dialect,
    /// Bounds.
    pub config: PeerConfig,
    /// TLS, if it is used.
    pub security: Option<Security>,
    /// What is wanted.
    pub wanted: watch::Sender<Wanted>,
    /// Links that take messages. Read for every message, so without a lock.
    links: ArcSwap<BTreeMap<Generation, Arc<Link>>>,
    /// Held by who changes `links`.
    changing: Mutex<()>,
    total: Arc<Counters>,
    /// Connections that never became links.
    pub handshakes_failed: AtomicU64,
}

impl Table {
    /// Without peers.
    pub fn new(
        identity: PeerIdentity,
        dialect: Dialect,
        config: PeerConfig,
        security: Option<Security>,
    ) -> Table {
        let wanted = Wanted {
            own: identity.generation,
            peers: BTreeMap::new(),
            stopping: false,
        };
        Table {
            identity,
            dialect,
            config,
            security,
            wanted: watch::Sender::new(wanted),
            links: ArcSwap::default(),
            changing: Mutex::new(()),
            total: Arc::default(),
            handshakes_failed: AtomicU64::new(0),
        }
    }

    /// The links that take messages.
    pub fn links(&self) -> arc_swap::Guard<Arc<BTreeMap<Generation, Arc<Link>>>> {
        self.links.load()
    }

    /// What this node says of itself.
    pub fn speaker(&self, own: Generation) -> Speaker {
        Speaker {
            name: self.identity.name.clone(),
            generation: own,
            program: self.identity.version.clone(),
            cluster: self.identity.cluster.clone(),
            dialect: self.dialect,
            frame_bytes_max: self.config.frame_bytes_max,
        }
    }

    /// Changes what is wanted, and ends the links that are not any more before it returns.
    pub fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_modify(change);
        for link in self.links.load().values() {
            self.close_unwanted(link);
        }
    }

    /// Serves a connection that both ends agreed on, until its link ends. An older link of the same peer ends first.
    pub async fn serve(
        &self,
        own: Generation,
        known: &Arc<Known>,
        agreed: Agreed,
        connection: Connection,
        events: &EventSink,
    ) {
        let limits = LinkLimits {
            silence: self.config.silence,
            heartbeat: self.config.heartbeat,
            frame_bytes_max: self.config.frame_bytes_max,
            queue_messages_max: self.config.queue_messages_max,
            queue_bytes_max: self.config.queue_bytes_max,
        };
        let total = self.total.clone();
        let link = Arc::new(Link::new(own, known.clone(), agreed, limits, total));
        while let Err(older) = self.insert(&link) {
            older.close(DownReason::Replaced);
            older.gone().await;
        }
        let seat = Seat {
            table: self,
            link: &link,
        };
        // Whoever changes what is wanted after this sees the link.
        self.close_unwanted(seat.link);
        seat.link.run(connection, events).await;
    }

    /// What was counted.
    pub fn figures(&self) -> Figures {
        let links = self.links.load();
        let wanted = self.wanted.borrow();
        let peers = wanted.peers.iter().map(|(generation, known)| PeerFigures {
            generation: *generation,
            name: known.peer.name.clone(),
            address: known.peer.address,
            link: links.get(generation).map(|link| link.figures()),
            counts: known.counters.counts(),
        });
        Figures {
            total: self.total.counts(),
            handshakes_failed: self.handshakes_failed.load(Ordering::Relaxed),
            peers: peers.collect(),
        }
    }

    fn close_unwanted(&self, link: &Link) {
        let reason = {
            let wanted = self.wanted.borrow();
            if wanted.covers(link.own, &link.known) {
                return;
            }
            match wanted.own == link.own {
                true => DownReason::Unlisted,
                false => DownReason::Reregistered,
            }
        };
        link.close(reason);
    }

    fn insert(&self, link: &Arc<Link>) -> Result<(), Arc<Link>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = BTreeMap::clone(&self.links.load());
        if let Some(older) = links.get(&link.generation()) {
            return Err(older.clone());
        }
        links.insert(link.generation(), link.clone());
        self.links.store(Arc::new(links));
        Ok(())
    }

    fn remove(&self, link: &Link) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = BTreeMap::clone(&self.links.load());
        links.remove(&link.generation());
        self.links.store(Arc::new(links));
    }
}

/// The place of a link among those that take messages. Left even if the link's task fails: the next one of that peer waits for it.
struct Seat<'a> {
    table: &'a Table,
    link: &'a Link,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.table.remove(self.link);
        self.link.finish();
    }
}
