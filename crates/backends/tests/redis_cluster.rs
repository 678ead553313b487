//! A Redis Cluster passes the suite: one for all tests, with a prefix for each.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use campanile_backends::{
    Backend, Config, conformance_tests,
    redis::{Durability, Redis, RedisConfig, Topology},
    shared_conformance_tests,
    suite::Place,
};
use campanile_testbed::redis::{Cluster, RedisOptions};

/// The cluster, and a process that ends it with this one: statics are not dropped.
struct Shared {
    cluster: Cluster,
    _warden: Child,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let mut cluster = Cluster::start(0, &RedisOptions::default()).unwrap();
    let mut warden = Command::new("sh");
    warden
        .args(["-c", "cat >/dev/null; kill -9 \"$@\"", "warden"])
        .args(
            cluster
                .servers
                .iter_mut()
                .map(|server| server.process().id().to_string()),
        );
    // Its input ends when this process does.
    let warden = warden.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    Shared {
        cluster,
        _warden: warden.unwrap(),
    }
});

struct Prefix(RedisConfig);

impl Prefix {
    fn new() -> Prefix {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Prefix(RedisConfig {
            topology: Topology::Cluster {
                servers: SHARED.cluster.addresses(),
            },
            prefix: format!("t{count}:"),
            durability: Durability::Primary,
            allow_no_persistence: true,
            ..RedisConfig::default()
        })
    }
}

impl Place for Prefix {
    fn open(&mut self, config: Config) -> Box<dyn Backend> {
        Box::new(Redis::open(self.0.clone(), config).unwrap())
    }
}

mod alone {
    use super::*;

    conformance_tests!(Prefix::new());
}

mod shared {
    use super::*;

    shared_conformance_tests!(Prefix::new());
}
