//! What the rest of a node holds of its membership.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::Arc,
    time::Duration,
};

use campanile_broker::{
    cluster::{
        belief::Belief,
        membership::{Drain, Membership, NodeInfo},
    },
    ids::Generation,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use zookeeper_client::{Client, CreateMode, Error as Reason};

use super::{Error, ZooKeeperConfig, agent::Agent, config::is_node_name, payload, tree::Kind};

/// Of a setting's value, in bytes. Every node keeps all settings.
const SETTING_MAX: usize = 64 * 1024;

/// A node's place in the cluster. Dropped without [`ZooKeeperMembership::stop`], the node leaves in the background.
#[derive(Debug)]
pub struct ZooKeeperMembership {
    config: Arc<ZooKeeperConfig>,
    info: watch::Sender<NodeInfo>,
    links_down: watch::Sender<BTreeSet<Generation>>,
    stop: watch::Sender<bool>,
    membership: watch::Receiver<Arc<Membership>>,
    trouble: watch::Receiver<Option<Error>>,
    session: watch::Receiver<Option<Client>>,
    /// Closed once the task has ended.
    ended: watch::Receiver<()>,
}

impl ZooKeeperMembership {
    /// Begins to connect and register in the background; nothing is known yet. Must be called inside a tokio runtime.
    ///
    /// Fails only by what can be seen without the ensemble: the configuration, its files, a name that ZooKeeper does not take.
    pub fn start(
        config: ZooKeeperConfig,
        info: NodeInfo,
    ) -> Result<(ZooKeeperMembership, watch::Receiver<Arc<Membership>>), Error> {
        config.check()?;
        check_key("node name", &info.name)?;
        let config = Arc::new(config);
        let name = info.name.clone();
        let confirmation = u64::try_from(config.confirmation.as_millis()).unwrap_or(u64::MAX);
        let (info, info_seen) = watch::channel(info);
        let (links_down, links_seen) = watch::channel(BTreeSet::new());
        let (stop, stop_seen) = watch::channel(false);
        let (published, membership) = watch::channel(Arc::default());
        let (trouble_said, trouble) = watch::channel(None);
        let (session_given, session) = watch::channel(None);
        let (ending, ended) = watch::channel(());
        let agent = Agent {
            config: config.clone(),
            name,
            instance: new_instance(),
            info: info_seen,
            links_down: links_seen,
            stop: stop_seen,
            membership: published,
            trouble: trouble_said,
            session: session_given,
            belief: Belief::new(confirmation),
            started: Instant::now(),
            updated: None,
            unreadable: BTreeSet::new(),
        };
        tokio::spawn(async move {
            agent.run().await;
            drop(ending);
        });
        let handle = ZooKeeperMembership {
            config,
            info,
            links_down,
            stop,
            membership: membership.clone(),
            trouble,
            session,
            ended,
        };
        Ok((handle, membership))
    }

    /// Waits until the node is registered. Otherwise the error says what stood in the way last; the attempts go on, so calling again is fine.
    pub async fn registered(&self, within: Duration) -> Result<Generation, Error> {
        let mut membership = self.membership.clone();
        let registered = membership.wait_for(|membership| membership.own.is_some());
        match timeout(within, registered).await {
            Ok(Ok(membership)) => membership.own.ok_or(Error::Stopped),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => {
                let cause = self.trouble.borrow().clone().map(Box::new);
                Err(Error::NotRegistered { within, cause })
            }
        }
    }

    /// What stands in the way of being a member now; `None`: nothing.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.borrow().clone()
    }

    /// What is known now.
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.borrow().clone()
    }

    /// Changes what this node says of itself, except for its name. Written at most once a second, the newest then.
    pub fn update(&self, change: impl FnOnce(&mut NodeInfo)) {
        self.info.send_if_modified(|info| {
            let before = info.clone();
            change(info);
            info.name = before.name.clone();
            *info != before
        });
    }

    /// Says which generations' peer links are down. Together with their absence from the ensemble that ends all doubt about them.
    pub fn set_links_down(&self, generations: BTreeSet<Generation>) {
        self.links_down.send_if_modified(|known| {
            let is_news = *known != generations;
            *known = generations;
            is_news
        });
    }

    /// Writes a cluster-wide setting. Every node sees it soon; this one not necessarily at once. At most 64 KiB.
    pub async fn set_setting(&self, key: &str, value: &str) -> Result<(), Error> {
        check_key("setting", key)?;
        if value.len() > SETTING_MAX {
            return Err(Error::Invalid {
                key: "value of setting",
                value: key.to_owned(),
                rule: "at most 65536 bytes",
            });
        }
        self.write(Kind::Settings, key, value.as_bytes()).await
    }

    /// A cluster-wide setting, as last read.
    pub fn setting(&self, key: &str) -> Option<Arc<str>> {
        self.membership.borrow().settings.get(key).cloned()
    }

    /// Removes a cluster-wide setting; fine if there is none.
    pub async fn remove_setting(&self, key: &str) -> Result<(), Error> {
        self.remove(Kind::Settings, key).await
    }

    /// Orders a node, which need not be up, to drain.
    pub async fn order_drain(&self, node: &str, order: Drain) -> Result<(), Error> {
        check_key("node name", node)?;
        self.write(Kind::Drains, node, &payload::drain(&order))
            .await
    }

    /// Takes back an order to drain; fine if there is none.
    pub async fn cancel_drain(&self, node: &str) -> Result<(), Error> {
        self.remove(Kind::Drains, node).await
    }

    /// Leaves the cluster: removes the registration, closes the session, and waits for both, a few seconds at most.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    async fn write(&self, kind: Kind, name: &str, data: &[u8]) -> Result<(), Error> {
        let client = self.client()?;
        let path = kind.entry(name);
        let options = CreateMode::Persistent.with_acls(self.config.acls());
        let write = async {
            loop {
                match client.set_data(&path, data, None).await {
                    Err(Reason::NoNode) => {}
                    result => return result.map(drop),
                }
                match client.create(&path, data, &options).await {
                    Err(Reason::NodeExists) => {}
                    result => return result.map(drop),
                }
            }
        };
        self.bounded(&path, write).await
    }

    async fn remove(&self, kind: Kind, name: &str) -> Result<(), Error> {
        check_key("name", name)?;
        let client = self.client()?;
        let path = kind.entry(name);
        let remove = async {
            match client.delete(&path, None).await {
                Err(Reason::NoNode) => Ok(()),
                result => result,
            }
        };
        self.bounded(&path, remove).await
    }

    async fn bounded(
        &self,
        path: &str,
        operation: impl Future<Output = Result<(), Reason>>,
    ) -> Result<(), Error> {
        timeout(self.config.session_timeout, operation)
            .await
            .unwrap_or(Err(Reason::Timeout))
            .map_err(|reason| self.config.failure(path, reason))
    }

    fn client(&self) -> Result<Client, Error> {
        if *self.stop.borrow() {
            return Err(Error::Stopped);
        }
        let client = self.session.borrow().clone();
        client.ok_or_else(|| self.config.unreachable(Reason::ConnectionLoss))
    }
}

fn check_key(key: &'static str, value: &str) -> Result<(), Error> {
    if is_node_name(value) {
        return Ok(());
    }
    Err(Error::Invalid {
        key,
        value: value.to_owned(),
        rule: "one or more characters, no slash, no control character, not a dot or two",
    })
}

/// A name that no other process has: 128 random bits, from the keys of the standard library's hash maps.
fn new_instance() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
