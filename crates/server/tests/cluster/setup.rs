//! What the tests stand on: servers that they share, clusters of their own.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use campanile_testbed::{
    fleet::{Fleet, FleetOptions},
    network::{Cut, Network, Place, inside},
    nodes::{ClusterOptions, Nodes, Store},
    process::wait_for,
    redis::{Redis, RedisOptions},
    zookeeper::Ensemble,
};

/// Longest wait for anything that should happen. Generous, since other tests run at the same time; passing tests never wait it out.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// As many messages as show that traffic goes on.
pub const SOME: u64 = 200;

/// How long ZooKeeper waits for a silent node.
pub const SESSION: Duration = Duration::from_secs(2);

/// Clusters that run at a time: more would make each other look dead.
const AT_ONCE: usize = 2;

/// A seat among the clusters that run.
#[derive(Debug)]
pub struct Seat;

static SEATS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Seat {
    /// Waits for one.
    pub fn take() -> Seat {
        let (taken, freed) = &SEATS;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = freed.wait_while(taken, |taken| *taken >= AT_ONCE);
        *taken.unwrap_or_else(PoisonError::into_inner) += 1;
        Seat
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (taken, freed) = &SEATS;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}

/// Servers for all tests that leave them alone.
#[derive(Debug)]
pub struct Servers {
    ensemble: Ensemble,
    redis: Redis,
}

impl Servers {
    /// Those that run, or new ones. They end with the last test that uses them: a static value would leave them behind.
    pub fn shared() -> Arc<Servers> {
        static RUNNING: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let servers = Arc::new(Servers {
                ensemble: Ensemble::start(1).unwrap(),
                redis: Redis::start().unwrap(),
            });
            *running = Arc::downgrade(&servers);
            servers
        })
    }

    /// A cluster over these servers, with names of its own in them.
    pub fn options(&self, nodes: usize) -> ClusterOptions {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ClusterOptions {
            binary: Path::new(env!("CARGO_BIN_EXE_campanile")).to_owned(),
            nodes: vec![Place::default(); nodes],
            zookeeper: self.ensemble.addresses(),
            chroot: format!("/test-{number}"),
            store: Store {
                mode: "standalone",
                addresses: vec![self.redis.address()],
                master_name: String::new(),
                prefix: format!("test-{number}:"),
                replicas: 0,
            },
            session_timeout: SESSION,
            cluster_settings: String::new(),
            settings: String::new(),
        }
    }
}

/// A cluster on a seat.
pub struct Cluster {
    nodes: Nodes,
    _servers: Arc<Servers>,
    _seat: Seat,
}

impl Deref for Cluster {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }
}

impl Cluster {
    /// Nodes over the servers that all tests share.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::with(nodes, |_| {})
    }

    /// The same over servers of its own, which the test may break: started once there is a seat, and named to the nodes by `tell`.
    pub fn over<S>(
        nodes: usize,
        start: impl FnOnce() -> S,
        tell: impl FnOnce(&S, &mut ClusterOptions),
    ) -> (Cluster, S) {
        let mut own = None;
        let cluster = Cluster::with(nodes, |options| tell(own.insert(start()), options));
        (cluster, own.expect("set one line above"))
    }

    /// The same, with other options.
    pub fn with(nodes: usize, change: impl FnOnce(&mut ClusterOptions)) -> Cluster {
        let servers = Servers::shared();
        let seat = Seat::take();
        let mut options = servers.options(nodes);
        change(&mut options);
        Cluster {
            nodes: Nodes::start(&options).unwrap(),
            _servers: servers,
            _seat: seat,
        }
    }
}

/// Runs a test in a network namespace of its own, on a seat: this program again, with this test alone.
pub fn on_a_network<F: FnOnce()>(test: F) {
    let _seat = (!inside::is_inside()).then(Seat::take);
    inside::test(test);
}

/// A cluster with servers of its own, each of them and each node on a host of its own.
pub struct Apart<R = Redis> {
    /// Its nodes.
    nodes: Nodes,
    /// Its ZooKeeper.
    pub ensemble: Ensemble,
    /// Its Redis.
    pub redis: R,
    /// What they are on. Ends last.
    network: Network,
}

impl<R> Deref for Apart<R> {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl<R> DerefMut for Apart<R> {
    fn deref_mut(&mut self) -> &mut Nodes {
        &mut self.nodes
    }
}

impl Apart {
    /// That many nodes and servers of ZooKeeper, and a Redis alone.
    pub fn start(nodes: usize, zookeepers: usize) -> Apart {
        Apart::over(nodes, zookeepers, 1, |places| {
            let options = RedisOptions {
                place: places[0].clone(),
                ..RedisOptions::default()
            };
            let redis = Redis::start_with(&options).unwrap();
            let store = Store {
                mode: "standalone",
                addresses: vec![redis.address()],
                master_name: String::new(),
                prefix: "cmp:".to_owned(),
                replicas: 0,
            };
            (redis, store)
        })
    }
}

impl<R> Apart<R> {
    /// The same with another Redis, which takes that many hosts.
    pub fn over(
        nodes: usize,
        zookeepers: usize,
        servers: usize,
        start: impl FnOnce(&[Place]) -> (R, Store),
    ) -> Apart<R> {
        let mut network = Network::new().unwrap();
        let ensemble = Ensemble::start_at(&network.hosts(zookeepers).unwrap()).unwrap();
        let (redis, store) = start(&network.hosts(servers).unwrap());
        let options = ClusterOptions {
            binary: Path::new(env!("CARGO_BIN_EXE_campanile")).to_owned(),
            nodes: network.hosts(nodes).unwrap(),
            zookeeper: ensemble.addresses(),
            chroot: "/apart".to_owned(),
            store,
            session_timeout: SESSION,
            cluster_settings: String::new(),
            settings: String::new(),
        };
        Apart {
            nodes: Nodes::start(&options).unwrap(),
            ensemble,
            redis,
            network,
        }
    }

    /// Cuts a node off from others, in addition to what is cut already.
    pub fn cut_node(&self, index: usize, others: &[Place], cut: Cut) {
        self.cut(&self.places()[index], others, cut);
    }

    /// Cuts a host off from others.
    pub fn cut(&self, from: &Place, others: &[Place], cut: Cut) {
        self.network.cut(from, others, cut).unwrap();
    }

    /// Lets everything pass again.
    pub fn mend(&self) {
        self.network.mend().unwrap();
    }
}

/// Waits until a look has an answer.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_for(what, PATIENCE, || Ok(look())).unwrap()
}

/// A fleet over a cluster, in the middle of traffic.
pub fn fleet(cluster: &Nodes) -> Fleet {
    let fleet = Fleet::start(cluster.addresses(), &FleetOptions::default()).unwrap();
    fleet.wait_accepted(SOME, PATIENCE).unwrap();
    fleet
}

/// Breaks something in the middle of traffic, and mends it; then everything must have arrived.
pub fn survive<C: Deref<Target = Nodes>>(
    cluster: &mut C,
    break_and_mend: impl FnOnce(&mut C, &Fleet),
) {
    let fleet = fleet(cluster);
    endure(cluster, &fleet, break_and_mend);
}

/// As [`survive`], with a fleet that has survived something already.
pub fn endure<C>(cluster: &mut C, fleet: &Fleet, break_and_mend: impl FnOnce(&mut C, &Fleet)) {
    fleet.resume();
    fleet.account().fault_begins();
    break_and_mend(cluster, fleet);
    fleet.account().fault_ends();
    fleet.wait_accepted(SOME, PATIENCE).unwrap();
    let figures = fleet.settle(PATIENCE).unwrap();
    println!("{figures:?}");
}
