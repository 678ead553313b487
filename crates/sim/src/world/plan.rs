//! What a seed stands for: the node, its clients, and what may go wrong how often.

use std::sync::Arc;

use campanile_backends::Config as StoreConfig;
use campanile_broker::{access::Open, config::Config};
use campanile_mqtt::Version;

use crate::{node::NodeConfig, rng::Rng, sabotage::Sabotage, shards::Knowing};

/// What a seed stands for. In each, only some kinds of trouble happen, so that rare combinations are not drowned by common ones.
#[derive(Clone)]
pub struct Plan {
    /// Rules of the node.
    pub node: NodeConfig,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Choices of the scheduler before all is healed.
    pub steps: u64,
    /// Weights of what clients and app servers do.
    pub busy: u64,
    /// Weight of pushes.
    pub pushes: u64,
    /// How often something goes wrong, by kind, of 10,000 steps.
    pub trouble: Trouble,
}

/// How often something goes wrong, of 10,000 steps.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// The node dies.
    pub crash: u64,
    /// The node is stopped and started in an orderly way.
    pub stop: u64,
    /// A connection is cut; what is under way on it is lost.
    pub cut: u64,
    /// A client goes silent, and its connection stays.
    pub vanish: u64,
    /// The disk is full for a while.
    pub full: u64,
    /// The disk is slow for a while.
    pub slow_disk: u64,
    /// A client does not read for a while.
    pub slow_reader: u64,
    /// The disk cannot be read for a while.
    pub unreadable: u64,
    /// The clock jumps forward by minutes.
    pub jump: u64,
}

/// A client.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// Its identifier.
    pub name: String,
    /// What it speaks.
    pub version: Version,
    /// Seconds that its session outlives the connection; 0: none. Clients of 3.1.1: 0 is a clean session.
    pub expiry_seconds: u32,
    /// Keep-alive, seconds.
    pub keep_alive: u16,
    /// Receive maximum, of 5.0 clients.
    pub receive_maximum: u16,
    /// Window for its own publishes.
    pub send_window: u16,
    /// It does not want its own messages.
    pub no_local: bool,
    /// It belongs to this shared subscription, and subscribes to nothing else.
    pub shares: Option<&'static str>,
    /// It asks for QoS 1 at least.
    pub no_qos_0: bool,
    /// It gives a will, of 1,000 connects.
    pub wills: u64,
    /// It starts anew, of 1,000 connects.
    pub clean: u64,
    /// It stays away for long.
    pub lazy: bool,
    /// It unsubscribes and ends its session at times.
    pub fickle: bool,
}

const SHARED: &[&str] = &["$share/g/s/#", "$share/g/s/1", "$share/h/s/+", "$share/h/#"];

/// How long sessions of 3.1.1 clients last. Long for a simulation.
pub const V3_EXPIRY_SECONDS: u32 = 86_400;

impl Plan {
    /// The plan of a seed.
    pub fn of(rng: &mut Rng, seed: u64, sabotage: Option<Sabotage>) -> Plan {
        let broker = Config {
            receive_maximum: *rng.pick(&[3, 20]),
            max_inflight: *rng.pick(&[4, 1000]),
            topic_partitions: *rng.pick(&[1, 1, 2, 3]),
            tail_entries: *rng.pick(&[1, 4, 4096]),
            max_pending_requests: *rng.pick(&[20, 100_000, 100_000]),
            v3_session_expiry_seconds: V3_EXPIRY_SECONDS,
            ..Config::default()
        };
        let store = StoreConfig {
            topic_partitions: broker.topic_partitions,
            inbox_max_entries: *rng.pick(&[3, 1000, 1000, 1000]),
            ..StoreConfig::default()
        };
        let node = NodeConfig {
            shards: *rng.pick(&[1, 2, 2, 3, 4]),
            broker,
            store,
            access: Arc::new(Open),
            audiences: Knowing::Product,
            seed,
            sabotage,
            sweep_limit: *rng.pick(&[1, 1000, 1000]),
            trace: false,
        };
        let mut often = |of_ten_thousand: u64| {
            if rng.chance(500) { of_ten_thousand } else { 0 }
        };
        let trouble = Trouble {
            crash: often(25),
            stop: often(10),
            cut: often(80),
            vanish: often(25),
            full: often(12),
            slow_disk: often(25),
            slow_reader: often(40),
            unreadable: often(15),
            jump: often(8),
        };
        let count = rng.range(3, 7);
        let clients = (0..count).map(|at| ClientPlan::of(rng, at)).collect();
        Plan {
            node,
            clients,
            steps: if rng.chance(100) {
                rng.range(3000, 8000)
            } else {
                rng.range(600, 2400)
            },
            busy: rng.range(2, 8),
            pushes: if rng.chance(600) { rng.range(1, 2) } else { 0 },
            trouble,
        }
    }
}

impl ClientPlan {
    /// A client that only looks.
    pub fn observer(name: &str) -> ClientPlan {
        ClientPlan {
            name: name.to_owned(),
            version: Version::V5,
            expiry_seconds: 0,
            keep_alive: 0,
            receive_maximum: 64,
            send_window: 64,
            no_local: false,
            shares: None,
            no_qos_0: false,
            wills: 0,
            clean: 0,
            lazy: false,
            fickle: false,
        }
    }

    /// Some client.
    pub fn of(rng: &mut Rng, at: u64) -> ClientPlan {
        let version = *rng.pick(&[Version::V5, Version::V5, Version::V311]);
        let durable = rng.chance(650);
        let expiry_seconds = match (durable, version.is_v5()) {
            (false, _) => 0,
            (true, true) => *rng.pick(&[60, 3600, 86_400, u32::MAX]),
            (true, false) => V3_EXPIRY_SECONDS,
        };
        ClientPlan {
            name: format!("c{at}"),
            version,
            expiry_seconds,
            keep_alive: *rng.pick(&[0, 10, 60, 600]),
            receive_maximum: *rng.pick(&[1, 2, 5, 64]),
            send_window: *rng.pick(&[1, 3, 64]),
            no_local: version.is_v5() && rng.chance(150),
            shares: rng.chance(250).then(|| *rng.pick(SHARED)),
            no_qos_0: false,
            wills: if rng.chance(400) { 700 } else { 0 },
            clean: if rng.chance(300) { 200 } else { 0 },
            lazy: rng.chance(250),
            fickle: rng.chance(300),
        }
    }
}
