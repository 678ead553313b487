//! A node as a member of a cluster: its registration, its links to the others, and the thread of its [hub](campanile_broker::cluster::hub).
//!
//! [`Joined`] is a node that is registered and not yet serving, [`Member`] one that serves. `hub` is the thread, `desk` what operators see, `relief` moves
//! devices away.

mod desk;
mod hub;
mod relief;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use campanile_backends::zookeeper::{
    Error as MembershipError, ZooKeeperConfig, ZooKeeperMembership,
};
use campanile_broker::{
    cluster::{
        hub::Hub,
        membership::{Membership, NodeInfo},
        peer::Load,
    },
    ids::{AppId, Generation},
    mail::{ClusterMail, Mail},
};
use tokio::{runtime::Handle, sync::watch};

pub use self::hub::{HubLetter, HubMailbox};
pub(super) use self::{
    desk::{Desk, shown},
    hub::{HubThread, Surroundings},
    relief::relieve,
};
use super::NodeConfig;
use crate::{
    net::{clock::Clock, listener::Listening, mailbox::Letter},
    peers::{LinkEvents, Links, PeerConfig, PeerIdentity},
};

/// How often a node that cannot join says why.
const JOIN_REPORT: Duration = Duration::from_secs(10);

/// What a node needs to be a member.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: String,
    /// The ensemble.
    pub zookeeper: ZooKeeperConfig,
    /// Links.
    pub peers: PeerConfig,
    /// Where peers reach this node; `None`: where it listens.
    pub peer_advertise: Option<SocketAddr>,
    /// What devices are told to connect to; empty: where the listeners are.
    pub advertise: Vec<String>,
    /// The HTTP API for operators; "": where it listens, if others can reach that.
    pub http_advertise: String,
    /// Devices a second that are moved away if an order does not say.
    pub drain_rate: u32,
    /// Devices move to a node that has joined without being told to.
    pub rebalance_automatically: bool,
    /// Percent above its fair share at which a node moves devices away.
    pub rebalance_tolerance_percent: u8,
    /// How often it looks whether it should.
    pub rebalance_every: Duration,
}

/// Why a node cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Something about the ensemble.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The links.
    #[error("peers: {0}")]
    Links(io::Error),
}

/// A node that is registered.
pub(super) struct Joined {
    spec: ClusterSpec,
    zookeeper: Arc<ZooKeeperMembership>,
    membership: watch::Receiver<Arc<Membership>>,
    links: Arc<Links>,
    events: LinkEvents,
    /// This run of the node.
    pub generation: Generation,
}

/// The cluster's side of a node that serves.
pub(super) struct Member {
    /// Set once the node's parts are together.
    pub spec: ClusterSpec,
    pub zookeeper: Arc<ZooKeeperMembership>,
    pub links: Arc<Links>,
    pub hub: HubMailbox,
    pub figures: Arc<hub::Shown>,
}

/// Where the member is put once it serves.
pub(super) type MemberCell = OnceLock<Arc<Member>>;

/// What a node says of itself.
pub(super) fn presentation(
    node: &NodeConfig,
    spec: &ClusterSpec,
    listeners: &[Listening],
    http: Option<SocketAddr>,
    clock: &Clock,
) -> NodeInfo {
    let bound = listeners.iter().map(Listening::url);
    let addresses: Vec<String> = match spec.advertise.is_empty() {
        true => bound.collect(),
        false => spec.advertise.clone(),
    };
    let http = http.filter(|address| !address.ip().is_unspecified());
    let http_address = match spec.http_advertise.is_empty() {
        true => http.map_or_else(String::new, |address| format!("http://{address}")),
        false => spec.http_advertise.clone(),
    };
    NodeInfo {
        name: node.name.as_str().into(),
        // Known once it listens.
        peer_address: spec.peers.listen,
        addresses: addresses.into_iter().map(Into::into).collect(),
        http_address: http_address.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_ms: clock.started().as_millis() as u64,
        load: Load::default(),
        draining: false,
    }
}

impl Joined {
    /// Registers, and begins to listen for peers. Waits for the ensemble as long as it takes, and says so.
    pub fn join(
        spec: ClusterSpec,
        mut info: NodeInfo,
        runtime: &Handle,
    ) -> Result<Joined, JoinError> {
        let identity = PeerIdentity {
            name: info.name.clone(),
            generation: Generation::ALONE,
            version: info.version.clone(),
            cluster: spec.name.as_str().into(),
        };
        let (links, events) =
            Links::start(spec.peers.clone(), identity, runtime).map_err(JoinError::Links)?;
        info.peer_address = spec.peer_advertise.unwrap_or(links.address());
        let (zookeeper, membership) = {
            let _inside = runtime.enter();
            ZooKeeperMembership::start(spec.zookeeper.clone(), info)?
        };
        let generation = loop {
            match runtime.block_on(zookeeper.registered(JOIN_REPORT)) {
                Ok(generation) => break generation,
                Err(error @ MembershipError::NotRegistered { .. }) => {
                    tracing::warn!(%error, "cannot join the cluster yet");
                }
                Err(error) => return Err(error.into()),
            }
        };
        links.set_own(generation);
        tracing::info!(%generation, cluster = %spec.name, peers = %links.address(), "joined the cluster");
        Ok(Joined {
            spec,
            zookeeper: Arc::new(zookeeper),
            membership,
            links: Arc::new(links),
            events,
            generation,
        })
    }

    /// Starts the hub. It must know what the store has of the apps before the node serves: [`HubThread::wait_ready`].
    pub fn start(
        self,
        node: hub::Surroundings,
        apps: Vec<AppId>,
        partitions: u8,
        runtime: &Handle,
    ) -> io::Result<(Member, HubThread)> {
        let shards = node.shared.mailboxes.len() as u8;
        let machine = Hub::new(
            shards,
            partitions,
            self.generation,
            apps,
            node.shared.clock.now(),
        );
        let mailbox = node.hub.clone();
        let figures = Arc::new(hub::Shown::default());
        hub::forward(runtime, mailbox.clone(), self.events, self.membership);
        let thread = HubThread::spawn(
            machine,
            node,
            self.links.clone(),
            self.zookeeper.clone(),
            figures.clone(),
        )?;
        let member = Member {
            spec: self.spec,
            zookeeper: self.zookeeper,
            links: self.links,
            hub: mailbox,
            figures,
        };
        Ok((member, thread))
    }
}

impl Member {
    /// The node stops: clients are told where to go, and nobody is sent here any more.
    pub fn say_goodbye(&self, node: &super::Inner) {
        let membership = self.zookeeper.membership();
        let mut others = membership
            .nodes
            .values()
            .filter(|other| *other.info.name != *node.name && !other.info.draining);
        let reference = others.next().map_or_else(|| "".into(), relief::reference);
        for mailbox in &node.shared.mailboxes {
            let mail = ClusterMail::Draining(Some(reference.clone()));
            mailbox.post(Letter::Mail(Mail::Cluster(mail)));
        }
        self.zookeeper.update(|info| info.draining = true);
    }

    /// Leaves: the others see at once that this node is gone, and find its sessions released.
    pub async fn leave(&self) {
        self.zookeeper.stop().await;
        self.links.stop().await;
    }
}
