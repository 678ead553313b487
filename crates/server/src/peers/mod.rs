//! Links to the other nodes of a cluster, on tokio.
//!
//! Start at [`Links`]: the node tells it who the peers are, sends [`PeerMessage`]s, and hears [`LinkEvent`]s. Between two nodes there is one connection,
//! dialed by the one with the smaller generation; `keeper` owns the tasks that dial and accept, `hello` decides whether two nodes understand each
//! other, [`wire`] is the schema, `convert` translates, `queue` bounds what waits, `link` reads and writes.
//!
//! A link keeps the order of what is sent and loses nothing while it is up. Either end may break it at any time: what was under way is lost then, and the
//! node starts anew with [`LinkEvent::Up`]. Links carry no promises, so nothing is repeated here: what must not be lost is in the store.
//!
//! **Without TLS everybody who reaches the address can pose as a node**: it then belongs into a network that only nodes are in. With [`PeerTls`]
//! both ends show a certificate of the cluster's authority.

mod accept;
mod convert;
mod dial;
mod events;
mod figures;
mod frame;
mod hello;
mod keeper;
mod link;
mod queue;
mod table;
#[cfg(test)]
mod tests;
mod tls;
pub mod wire;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use campanile_broker::{cluster::peer::PeerMessage, ids::Generation};
use tokio::{runtime::Handle, task::JoinHandle};

pub use self::{
    events::LinkEvents,
    figures::{Counts, Figures, LinkFigures, PeerFigures},
    link::DownReason,
    tls::PeerTls,
};
use self::{figures::Counters, hello::Dialect, link::Known, table::Table};
use crate::net::tls::TlsError;

/// How links are made. Every bound is per peer unless it says otherwise.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Where peers are listened for. Port 0: any that is free.
    pub listen: SocketAddr,
    /// Mutual TLS. Without it, see the module's warning.
    pub tls: Option<PeerTls>,
    /// Something is said at least this often.
    pub heartbeat: Duration,
    /// A peer that says nothing for so long is down; so is a handshake that takes longer. At least two heartbeats.
    pub silence: Duration,
    /// Larger frames are neither read nor sent. Must be larger than the largest message of a client or push by some KiB.
    pub frame_bytes_max: usize,
    /// Messages that wait for being sent.
    pub queue_messages_max: usize,
    /// Their bytes, about.
    pub queue_bytes_max: usize,
    /// Events that wait for the node, of all peers together.
    pub events_max: usize,
    /// Bytes of the messages in them, about.
    pub events_bytes_max: usize,
}

impl Default for PeerConfig {
    fn default() -> PeerConfig {
        PeerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            frame_bytes_max: 16 << 20,
            queue_messages_max: 262_144,
            queue_bytes_max: 64 << 20,
            events_max: 4096,
            events_bytes_max: 32 << 20,
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// Its name.
    pub name: Arc<str>,
    /// This run of it. [`Generation::ALONE`]: not registered yet; there are no links until [`Links::set_own`].
    pub generation: Generation,
    /// Version of the program, for people: what it can say is [`wire::VERSION`].
    pub version: Arc<str>,
    /// Name of the cluster. Nodes of another one are refused.
    pub cluster: Arc<str>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// This run of it.
    pub generation: Generation,
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It follows what was queued before it.
    Queued,
    /// There is no link, or the link was ended since the message must not be missing and there was no room for it.
    NoLink,
    /// It was dropped and counted, since there was no room for it; nobody was promised that it arrives.
    Full,
}

/// What happened on the links. Of one peer: up, messages, down, in this order; nothing of a link follows its end.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// There is a link. It takes messages already: those of other threads may go out before what the node sends first.
    Up {
        /// The peer.
        generation: Generation,
        /// Its name.
        name: Arc<str>,
        /// The version of the protocol that both speak.
        protocol: u32,
        /// What both can do beside, as bits.
        capabilities: u64,
    },
    /// There is none any more.
    Down {
        /// The peer.
        generation: Generation,
        /// Why.
        reason: DownReason,
    },
    /// The peer says something.
    Message {
        /// The peer.
        generation: Generation,
        /// What. A [`Member`](campanile_broker::mail::Member) in it lives at the peer: its shard is 0.
        message: PeerMessage,
    },
}

/// The links of a node. Cheap to call, from any thread.
#[derive(Debug)]
pub struct Links {
    table: Arc<Table>,
    address: SocketAddr,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Links {
    /// Listens for peers. There are none until [`Links::set_peers`].
    pub fn start(
        config: PeerConfig,
        own: PeerIdentity,
        runtime: &Handle,
    ) -> io::Result<(Links, LinkEvents)> {
        Links::start_speaking(Dialect::OWN, config, own, runtime)
    }

    fn start_speaking(
        dialect: Dialect,
        config: PeerConfig,
        own: PeerIdentity,
        runtime: &Handle,
    ) -> io::Result<(Links, LinkEvents)> {
        let security = config.tls.as_ref().map(PeerTls::load);
        let security = security.transpose().map_err(io::Error::other)?;
        let refused = |error: io::Error| {
            let listen = config.listen;
            io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
        };
        let listener = std::net::TcpListener::bind(config.listen).map_err(refused)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (sink, events) = events::channel(config.events_max, config.events_bytes_max);
        let table = Arc::new(Table::new(own, dialect, config, security));
        let keeper = runtime.spawn(keeper::keep(table.clone(), listener, sink));
        let links = Links {
            table,
            address,
            keeper: Mutex::new(Some(keeper)),
        };
        Ok((links, events))
    }

    /// Where this node listens for peers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// This node has registered anew: all links end and are made anew. With [`Generation::ALONE`] they stay ended.
    pub fn set_own(&self, generation: Generation) {
        self.table.want(|wanted| wanted.own = generation);
    }

    /// Who the other nodes are. Links to those that are not listed any more have ended when this returns, though their
    /// [`LinkEvent::Down`] is yet to come. This node itself may be listed, and is passed over.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        self.table.want(|wanted| {
            let before = std::mem::take(&mut wanted.peers);
            let own = wanted.own;
            let others = peers.into_iter().filter(|peer| peer.generation != own);
            wanted.peers = others
                .map(|peer| {
                    let known = before.get(&peer.generation);
                    let known = known.filter(|known| known.peer == peer).cloned();
                    let known = known.unwrap_or_else(|| {
                        let counters = Counters::default();
                        Arc::new(Known { peer, counters })
                    });
                    (known.peer.generation, known)
                })
                .collect::<BTreeMap<_, _>>();
        });
    }

    /// Queues a message for a peer. Does not wait.
    pub fn send(&self, generation: Generation, message: PeerMessage) -> Sent {
        match self.table.links().get(&generation) {
            Some(link) => link.send(message),
            None => Sent::NoLink,
        }
    }

    /// Queues a message for every peer whose link is up, and says how many will get it.
    pub fn send_all(&self, message: &PeerMessage) -> usize {
        let links = self.table.links();
        let sent = links.values().map(|link| link.send(message.clone()));
        sent.filter(|sent| *sent == Sent::Queued).count()
    }

    /// The peers that can be sent something now, by generation.
    pub fn up(&self) -> Vec<Generation> {
        self.table.links().keys().copied().collect()
    }

    /// What there is to see.
    pub fn figures(&self) -> Figures {
        self.table.figures()
    }

    /// Reads certificate and key again, for links made from now on. With a mistake in the files all stays as it is.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        match &self.table.security {
            Some(security) => security.reload(),
            None => Ok(()),
        }
    }

    /// Ends all links at once, and waits for their tasks. The events end with it; there may be no [`LinkEvent::Down`].
    pub async fn stop(&self) {
        self.table.want(|wanted| wanted.stopping = true);
        let keeper = self.keeper.lock();
        let keeper = keeper
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(keeper) = keeper {
            // It was not aborted, and says itself what has failed.
            let _ = keeper.await;
        }
    }
}

impl Drop for Links {
    /// The tasks end by themselves soon.
    fn drop(&mut self) {
        self.table.want(|wanted| wanted.stopping = true);
    }
}
