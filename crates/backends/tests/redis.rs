//! A Redis alone passes the suite.

use std::collections::BTreeSet;

use campanile_backends::{
    Backend, Config, Reply, Request, conformance_tests,
    redis::{Durability, Redis, RedisConfig, Topology},
    shared_conformance_tests,
    suite::{Place, subscription},
};
use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, Millis},
    store::{Claim, Command, Outcome, Page, Query, Subscribe},
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

/// Where filters are counted grows with their number.
#[test]
fn many_filters_are_known_until_the_last_session_gives_them_up() {
    let config = Config {
        shared: true,
        ..Config::default()
    };
    let mut place = RedisPlace(servers::Redis::start().unwrap());
    let mut redis = place.open(config);
    let epochs = ["a", "b"].map(|name| claim(redis.as_mut(), name));
    let all: Vec<String> = (0..2000).map(|number| format!("device/{number}")).collect();
    for (name, epoch, count) in [("a", epochs[0], 2000), ("b", epochs[1], 900)] {
        change_filters(redis.as_mut(), name, epoch, &all[..count], &[]);
    }
    assert_eq!(filters(redis.as_ref()), all.iter().cloned().collect());
    change_filters(redis.as_mut(), "a", epochs[0], &[], &all);
    assert_eq!(
        filters(redis.as_ref()),
        all[..900].iter().cloned().collect()
    );
    change_filters(redis.as_mut(), "b", epochs[1], &[], &all);
    assert_eq!(filters(redis.as_ref()), BTreeSet::new());
}

fn client(name: &str) -> ClientKey {
    ClientKey::new(&AppId::new("app"), name)
}

fn claim(redis: &mut dyn Backend, name: &str) -> Epoch {
    let claim = Command::Claim(Claim {
        client: client(name),
        owner: Generation(1),
        now: Millis(1),
        clean_start: false,
        expiry_seconds: 60,
        will: None,
    });
    match &redis.commit(vec![Request::Broker(claim)]).replies[0] {
        Ok(Reply::Broker(Outcome::Claimed(claimed))) => claimed.epoch,
        other => panic!("{other:?}"),
    }
}

fn change_filters(
    redis: &mut dyn Backend,
    name: &str,
    epoch: Epoch,
    add: &[String],
    remove: &[String],
) {
    let subscribe = Command::Subscribe(Subscribe {
        client: client(name),
        epoch,
        add: add.iter().map(|filter| subscription(filter)).collect(),
        remove: remove.iter().map(|filter| filter.as_str().into()).collect(),
        inbox: vec![],
    });
    let replies = redis.commit(vec![Request::Broker(subscribe)]).replies;
    assert!(matches!(replies[..], [Ok(Reply::Broker(Outcome::Done))]));
}

fn filters(redis: &dyn Backend) -> BTreeSet<String> {
    let app = AppId::new("app");
    match redis.reader().read(&Query::Snapshot { app }).unwrap() {
        Page::Snapshot(snapshot) => snapshot.filters.iter().map(|f| f.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}
