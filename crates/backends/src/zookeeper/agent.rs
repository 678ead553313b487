//! The task that keeps a node registered and its view of the cluster current, whatever happens to the ensemble.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use campanile_broker::{
    cluster::{
        belief::Belief,
        membership::{Membership, NodeInfo, Registered},
    },
    ids::{Generation, Millis},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use zookeeper_client::{Client, CreateMode, Error as Reason, SessionState};

use super::{
    Error, ZooKeeperConfig, layout, payload,
    plan::{self, Own, Step},
    tree::{Kind, Tree},
    view::View,
};

/// How often everything is read although no watch fired.
const RELIST: Duration = Duration::from_secs(5);

/// Between two writes of the registration: figures change all the time, and each write wakes every node.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two attempts to get a session.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(1);

/// After a read that failed although the session stands.
const RETRY: Duration = Duration::from_millis(50);

/// How long the ensemble may take to confirm a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct Agent {
    pub(super) config: Arc<ZooKeeperConfig>,
    pub(super) name: Arc<str>,
    /// Names this process across its sessions.
    pub(super) instance: String,
    pub(super) info: watch::Receiver<NodeInfo>,
    pub(super) links_down: watch::Receiver<BTreeSet<Generation>>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) membership: watch::Sender<Arc<Membership>>,
    pub(super) trouble: watch::Sender<Option<Error>>,
    /// For whoever wants to write; `None` while there is no session.
    pub(super) session: watch::Sender<Option<Client>>,
    pub(super) belief: Belief,
    pub(super) started: Instant,
    /// When the registration was last written.
    pub(super) updated: Option<Instant>,
    /// What was last complained about.
    pub(super) unreadable: BTreeSet<String>,
}

/// Where the waiting for a state of the session ended.
enum Turn {
    State(SessionState),
    Failed(Reason),
}

impl Agent {
    /// Until the stop is ordered, or whoever could order it is gone.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut backoff = *BACKOFF.start();
        loop {
            let connected = tokio::select! {
                biased;
                () = is_ordered(&mut stop) => return,
                connected = self.connect() => connected,
            };
            let error = match connected {
                Ok(client) => tokio::select! {
                    biased;
                    () = is_ordered(&mut stop) => return self.leave(client).await,
                    error = self.serve(&client) => {
                        // The ensemble served it: the next session is worth a quick attempt.
                        backoff = *BACKOFF.start();
                        error
                    }
                },
                Err(error) => error,
            };
            self.on_trouble(error);
            self.on_outage();
            self.session.send_replace(None);
            tokio::select! {
                biased;
                () = is_ordered(&mut stop) => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(*BACKOFF.end());
        }
    }

    /// A session with the persistent part of the tree in place.
    async fn connect(&self) -> Result<Client, Error> {
        let patience = 2 * self.config.session_timeout;
        let timed_out = |_| self.config.unreachable(Reason::Timeout);
        let client = timeout(patience, self.config.connect())
            .await
            .map_err(timed_out)??;
        let created = layout::create(&client, &self.config);
        timeout(patience, created).await.map_err(timed_out)??;
        let chroot = &self.config.chroot;
        client.chroot(chroot.as_str()).map_err(|_| Error::Invalid {
            key: "chroot",
            value: chroot.clone(),
            rule: "a path such as /campanile",
        })
    }

    /// Follows the cluster until the session is lost.
    async fn serve(&mut self, client: &Client) -> Error {
        let session = client.session_id();
        info!(node = %self.name, %session, "session with ZooKeeper");
        let mut states = client.state_watcher();
        let mut tree = Tree::new();
        self.session.send_replace(Some(client.clone()));
        loop {
            let turn = tokio::select! {
                biased;
                state = states.changed() => Turn::State(state),
                Err(reason) = self.follow(client, &mut tree) => Turn::Failed(reason),
            };
            // Events may have been missed, and what was asked may have been answered to nobody.
            tree.distrust();
            let is_alive = match turn {
                Turn::State(SessionState::SyncConnected) => true,
                Turn::State(SessionState::Disconnected) => self.reconnected(&mut states).await,
                Turn::State(_) => false,
                Turn::Failed(Reason::ConnectionLoss | Reason::Timeout) => {
                    tokio::time::sleep(RETRY).await;
                    match client.state() {
                        SessionState::Disconnected => self.reconnected(&mut states).await,
                        state => !state.is_terminated(),
                    }
                }
                Turn::Failed(reason) => return self.config.failure("", reason),
            };
            if !is_alive {
                return self.config.unreachable(Reason::SessionExpired);
            }
        }
    }

    /// Waits for the session to be connected again; says whether it lived to see it.
    async fn reconnected(&mut self, states: &mut zookeeper_client::StateWatcher) -> bool {
        self.on_trouble(self.config.unreachable(Reason::ConnectionLoss));
        self.on_outage();
        loop {
            match states.peek_state() {
                SessionState::SyncConnected => return true,
                state if state.is_terminated() => return false,
                _ => states.changed().await,
            };
        }
    }

    /// Keeps the tree, the registration and the published membership current. Ends only by an error.
    async fn follow(&mut self, client: &Client, tree: &mut Tree) -> Result<Infallible, Reason> {
        let mut relist = Instant::now() + RELIST;
        // A server may lag behind what another one told this node before.
        client.sync("/").await?;
        loop {
            tree.refresh(client).await?;
            let taken_by = self.work(client, tree).await?;
            let Some(trouble) = taken_by else {
                continue;
            };
            self.publish(client, tree, trouble);
            let read_at = self.belief.deadline().map(|at| self.instant(at));
            let read_at = read_at.map_or(relist, |at| at.min(relist));
            let wake_at = self
                .update_due(client, tree)
                .map_or(read_at, |at| at.min(read_at));
            tokio::select! {
                () = tree.changed() => {}
                Ok(()) = self.info.changed() => {}
                Ok(()) = self.links_down.changed() => {}
                () = sleep_until(wake_at) => {}
            }
            if Instant::now() >= read_at {
                tree.distrust();
                relist = Instant::now() + RELIST;
            }
        }
    }

    /// Does what is left to do about the own entries. `None`: something was done, look again; otherwise what stands in the way, if anything does.
    async fn work(
        &mut self,
        client: &Client,
        tree: &mut Tree,
    ) -> Result<Option<Option<Error>>, Reason> {
        let mut trouble = None;
        let mut is_done = true;
        for step in self.plan(client, tree) {
            let done = match step {
                Step::AwaitName {
                    session,
                    peer_address,
                } => {
                    trouble = Some(Error::NameTaken {
                        name: self.name.to_string(),
                        peer_address,
                        session,
                    });
                    continue;
                }
                Step::Update { .. } if self.next_update() > Instant::now() => continue,
                step => self.perform(client, tree, step).await,
            };
            is_done = false;
            match done {
                Ok(()) => {}
                // Somebody was quicker, or this server is behind: look again, at no less than what was refused.
                Err(Reason::NodeExists | Reason::NoNode | Reason::BadVersion) => {
                    client.sync("/").await?;
                    tree.distrust();
                }
                Err(reason) => return Err(reason),
            }
        }
        Ok(is_done.then_some(trouble))
    }

    async fn perform(
        &mut self,
        client: &Client,
        tree: &mut Tree,
        step: Step,
    ) -> Result<(), Reason> {
        debug!(node = %self.name, ?step, "registration");
        let acls = self.config.acls();
        let registration = Kind::Nodes.entry(&self.name);
        let kind = match step {
            Step::StandForLead | Step::RemoveCandidate { .. } => Kind::Leader,
            _ => Kind::Nodes,
        };
        tree.distrust_kind(kind);
        match step {
            Step::Register => {
                let options = CreateMode::Ephemeral.with_acls(acls);
                self.updated = Some(Instant::now());
                let payload = self.payload();
                client.create(&registration, &payload, &options).await?;
            }
            Step::RemoveRegistration { version } => {
                client.delete(&registration, Some(version)).await?;
            }
            Step::Update { version } => {
                self.updated = Some(Instant::now());
                let payload = self.payload();
                client
                    .set_data(&registration, &payload, Some(version))
                    .await?;
            }
            Step::StandForLead => {
                let options = CreateMode::EphemeralSequential.with_acls(acls);
                let payload = payload::candidate(&self.name, &self.instance);
                client
                    .create(&Kind::Leader.entry("n-"), &payload, &options)
                    .await?;
            }
            Step::RemoveCandidate { entry } => {
                client.delete(&Kind::Leader.entry(&entry), None).await?;
            }
            Step::AwaitName { .. } => {}
        }
        Ok(())
    }

    fn plan(&self, client: &Client, tree: &Tree) -> Vec<Step> {
        let own = Own {
            name: &self.name,
            instance: &self.instance,
            session: client.session_id().0,
            payload: &self.payload(),
        };
        plan::plan(own, tree.entries(Kind::Nodes), tree.entries(Kind::Leader))
    }

    fn payload(&self) -> Vec<u8> {
        payload::node(&self.info.borrow(), &self.instance)
    }

    fn next_update(&self) -> Instant {
        self.updated
            .map_or(self.started, |updated| updated + UPDATE_INTERVAL)
    }

    /// When the registration may be written, if what it says is out of date.
    fn update_due(&self, client: &Client, tree: &Tree) -> Option<Instant> {
        let is_update = |step: &Step| matches!(step, Step::Update { .. });
        let is_due = self.plan(client, tree).iter().any(is_update);
        is_due.then(|| self.next_update())
    }

    fn publish(&mut self, client: &Client, tree: &Tree, trouble: Option<Error>) {
        let view = View::of(|kind| tree.entries(kind));
        if view.unreadable != self.unreadable {
            if !view.unreadable.is_empty() {
                warn!(entries = ?view.unreadable, "entries in ZooKeeper that cannot be read are passed over");
            }
            self.unreadable = view.unreadable;
        }
        let registration = tree.entries(Kind::Nodes).get(&*self.name);
        let own = registration
            .filter(|entry| entry.stat.ephemeral_owner == client.session_id().0)
            .map(|entry| Generation(entry.stat.czxid.cast_unsigned()));
        self.believe(&view.nodes);
        let nodes = self.belief.nodes().clone();
        let membership = Membership {
            own,
            leader: view.leader.filter(|leader| nodes.contains_key(leader)),
            nodes,
            doubted: self.belief.doubted(),
            drains: view.drains,
            settings: view.settings,
            reachable: true,
        };
        match trouble {
            Some(trouble) => self.on_trouble(trouble),
            None => drop(self.trouble.send_replace(None)),
        }
        self.replace(membership);
    }

    fn believe(&mut self, registered: &BTreeMap<Arc<str>, Registered>) {
        let links_down = self.links_down.borrow_and_update().clone();
        let is_down = |generation| links_down.contains(&generation);
        let doubted = self.belief.doubted();
        let now = self.now();
        self.belief.on_read(&self.name, registered, is_down, now);
        let nodes = self.belief.doubted();
        if !nodes.is_subset(&doubted) {
            warn!(
                ?nodes,
                "ZooKeeper lost most nodes at once: they are kept until that is confirmed"
            );
        }
    }

    /// The ensemble is out of reach: all goes on being believed.
    fn on_outage(&mut self) {
        self.belief.on_outage();
        let known = self.membership.borrow().clone();
        self.replace(Membership {
            reachable: false,
            ..(*known).clone()
        });
    }

    /// Keeps what stands in the way for whoever asks, and says it when it is news.
    fn on_trouble(&self, error: Error) {
        self.trouble.send_if_modified(|trouble| {
            let is_news = trouble.as_ref().map(Error::to_string) != Some(error.to_string());
            if is_news {
                warn!(node = %self.name, %error, "cluster membership");
                *trouble = Some(error);
            }
            is_news
        });
    }

    fn replace(&self, membership: Membership) {
        self.membership.send_if_modified(|known| {
            let is_news = **known != membership;
            if is_news {
                if known.own != membership.own {
                    let generation = membership.own.map(|own| own.to_string());
                    info!(node = %self.name, generation, "registration");
                }
                *known = Arc::new(membership);
            }
            is_news
        });
    }

    /// Deregisters and closes the session, so that the others know at once.
    async fn leave(self, client: Client) {
        self.session.send_replace(None);
        let session = client.session_id().0;
        let goodbye = async {
            let registration = Kind::Nodes.entry(&self.name);
            let (_, stat) = client.get_data(&registration).await?;
            if stat.ephemeral_owner == session {
                client.delete(&registration, Some(stat.version)).await?;
            }
            Ok::<(), Reason>(())
        };
        match timeout(GOODBYE, goodbye).await {
            Ok(Ok(()) | Err(Reason::NoNode)) => {}
            Ok(Err(error)) => {
                warn!(node = %self.name, %error, "cannot deregister: the registration ends with the session")
            }
            Err(_) => {
                warn!(node = %self.name, "ZooKeeper is slow to deregister: the registration ends with the session")
            }
        }
        // The session closes, and its candidate goes, once nobody holds the client.
        let mut states = client.state_watcher();
        drop(client);
        let closed = async { while !states.changed().await.is_terminated() {} };
        let _ = timeout(GOODBYE, closed).await;
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: Millis) -> Instant {
        self.started + Duration::from_millis(at.0)
    }
}

/// Until the stop is ordered, or whoever could order it is gone.
async fn is_ordered(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
