//! A Redis alone passes the suite.

use campanile_backends::{
    Backend, Config, conformance_tests,
    redis::{Durability, Redis, RedisConfig, Topology},
    shared_conformance_tests,
    suite::Place,
};
use campanile_testbed::redis as servers;

/// A server of its own.
struct RedisPlace(servers::Redis);

impl Place for RedisPlace {
    fn open(&mut self, config: Config) -> Box<dyn Backend> {
        let redis = RedisConfig {
            topology: Topology::Standalone {
                servers: vec![self.0.address()],
            },
            durability: Durability::Primary,
            allow_no_persistence: true,
            ..RedisConfig::default()
        };
        Box::new(Redis::open(redis, config).unwrap())
    }
}

mod alone {
    use super::*;

    conformance_tests!(RedisPlace(servers::Redis::start().unwrap()));
}

mod shared {
    use super::*;

    shared_conformance_tests!(RedisPlace(servers::Redis::start().unwrap()));
}
