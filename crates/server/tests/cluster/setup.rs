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
    nodes::{ClusterOptions, Nodes, Store},
    redis::Redis,
    zookeeper::Ensemble,
};

/// Longest wait for anything that should happen. Generous, since other tests run at the same time; passing tests never wait it out.
pub const PATIENCE: Duration = Duration::from_secs(40);

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
            nodes,
            zookeeper: self.ensemble.addresses(),
            chroot: format!("/test-{number}"),
            store: Store {
                mode: "standalone",
                addresses: vec![self.redis.address()],
                master_name: String::new(),
                prefix: format!("test-{number}:"),
                replicas: 0,
            },
            session_timeout: Duration::from_secs(2),
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
