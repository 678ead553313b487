//! What a seed stands for in a cluster: the nodes, the clients, and what may go wrong how often.

use campanile_backends::Config as StoreConfig;
use campanile_broker::config::Config;

use super::Options;
use crate::{fleet::FleetConfig, rng::Rng, shards::Knowing, world::plan::ClientPlan};

/// What a seed stands for. In each, only some kinds of trouble happen, so that rare combinations are not drowned by common ones.
#[derive(Clone)]
pub struct Plan {
    /// The nodes and their store.
    pub fleet: FleetConfig,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Choices of the scheduler before all is healed.
    pub steps: u64,
    /// Weight of what clients do.
    pub busy: u64,
    /// Weight of pushes.
    pub pushes: u64,
    /// How often something goes wrong.
    pub trouble: Trouble,
}

/// How often something goes wrong, of 10,000 steps.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// A node dies.
    pub crash: u64,
    /// A node is stopped in an orderly way.
    pub stop: u64,
    /// A node stands still for a while.
    pub pause: u64,
    /// Nothing gets through between a node and the store for a while.
    pub store_cut: u64,
    /// Nothing gets through between a node and the ensemble for a while.
    pub ensemble_cut: u64,
    /// Nothing gets through between two nodes for a while.
    pub link_cut: u64,
    /// Of 1,000 of those three, in how many one way only is cut.
    pub one_way: u64,
    /// A link breaks, and is made anew.
    pub link_break: u64,
    /// The store does not answer anybody for a while.
    pub store_down: u64,
    /// The ensemble does not answer anybody for a while.
    pub ensemble_down: u64,
    /// The store loses its primary.
    pub failover: u64,
    /// Clients are moved away from a node.
    pub relief: u64,
    /// A connection is cut; what is under way on it is lost.
    pub cut: u64,
    /// A client goes silent, and its connection stays.
    pub vanish: u64,
    /// A client does not read for a while.
    pub slow_reader: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(rng: &mut Rng, seed: u64, options: Options) -> Plan {
        let broker = Config {
            receive_maximum: *rng.pick(&[3, 20]),
            max_inflight: *rng.pick(&[4, 1000]),
            topic_partitions: *rng.pick(&[1, 1, 2, 3]),
            tail_entries: *rng.pick(&[1, 4, 4096]),
            v3_session_expiry_seconds: crate::world::plan::V3_EXPIRY_SECONDS,
            ..Config::default()
        };
        let store = StoreConfig {
            topic_partitions: broker.topic_partitions,
            shared: true,
            ..StoreConfig::default()
        };
        let nodes = options.nodes.unwrap_or_else(|| rng.range(2, 4) as usize);
        let skewed = rng.chance(300);
        let skew = |rng: &mut Rng| if skewed { rng.below(1000) } else { 0 };
        let fleet = FleetConfig {
            nodes,
            shards: *rng.pick(&[1, 1, 2, 3]),
            skews_ms: (0..nodes).map(|_| skew(rng)).collect(),
            broker,
            store,
            audiences: Knowing::Product,
            seed,
            sweep_limit: *rng.pick(&[1, 1000, 1000]),
            sabotage: options.sabotage,
            trace: options.trace,
        };
        let one_way = *rng.pick(&[0, 500, 1000]);
        let mut often = |of_ten_thousand: u64| {
            if rng.chance(300) { of_ten_thousand } else { 0 }
        };
        let trouble = Trouble {
            crash: often(20),
            stop: often(15),
            pause: often(15),
            store_cut: often(20),
            ensemble_cut: often(15),
            link_cut: often(20),
            one_way,
            link_break: often(30),
            store_down: often(10),
            ensemble_down: often(10),
            failover: often(15),
            relief: often(20),
            cut: often(120),
            vanish: often(80),
            slow_reader: often(40),
        };
        let count = rng.range(3, 7);
        let mut clients: Vec<_> = (0..count).map(|at| ClientPlan::of(rng, at)).collect();
        if rng.chance(200) {
            share_one_filter(rng, &mut clients);
        }
        Plan {
            fleet,
            clients,
            steps: rng.range(1200, 4000),
            busy: rng.range(2, 8),
            pushes: if rng.chance(600) { rng.range(1, 2) } else { 0 },
            trouble,
        }
    }
}

/// Most clients belong to one group and stay in it, half of them only while they are connected: then nobody but the nodes can lose what the group is to get.
fn share_one_filter(rng: &mut Rng, clients: &mut [ClientPlan]) {
    for client in clients {
        if rng.chance(700) {
            client.shares = Some("$share/h/#");
            (client.fickle, client.no_qos_0, client.clean) = (false, true, 0);
            if rng.chance(500) {
                client.expiry_seconds = 0;
            }
        }
    }
}
