//! Servers that nodes stand on, and that fail: Redis primaries, ZooKeeper.

use campanile_testbed::{
    nodes::Store,
    redis::{self, RedisOptions, Replicated},
    zookeeper::Ensemble,
};

use crate::setup::{Cluster, PATIENCE, SOME, eventually, survive};

#[test]
fn nothing_is_lost_when_sentinels_promote_a_replica() {
    let start = || Replicated::start(2, &RedisOptions::default()).unwrap();
    let (mut cluster, mut redis) = Cluster::over(3, start, |redis, options| {
        options.store = Store {
            mode: "sentinel",
            addresses: redis.sentinel_addresses(),
            master_name: Replicated::NAME.to_owned(),
            prefix: "cmp:".to_owned(),
            replicas: 1,
        }
    });
    survive(&mut cluster, |_, fleet| {
        let primary = redis.primary().unwrap();
        let before = primary.port();
        primary.kill();
        eventually("another primary", || {
            (redis.primary().ok()?.port() != before).then_some(())
        });
        fleet.wait_accepted(SOME, PATIENCE).unwrap();
    });
}

#[test]
fn nothing_is_lost_when_a_primary_of_a_redis_cluster_dies() {
    let start = || redis::Cluster::start(2, &RedisOptions::default()).unwrap();
    let (mut cluster, mut redis) = Cluster::over(3, start, |redis, options| {
        options.store = Store {
            mode: "cluster",
            addresses: redis.addresses(),
            master_name: String::new(),
            prefix: "cmp:".to_owned(),
            replicas: 1,
        }
    });
    survive(&mut cluster, |_, fleet| {
        redis.servers[0].kill();
        fleet.wait_accepted(SOME, PATIENCE).unwrap();
    });
}

#[test]
fn loss_of_zookeepers_leader_is_not_noticed() {
    let start = || Ensemble::start(3).unwrap();
    let (mut cluster, mut ensemble) = Cluster::over(3, start, |ensemble, options| {
        options.zookeeper = ensemble.addresses();
    });
    survive(&mut cluster, |cluster, fleet| {
        let leader = ensemble.leader().unwrap();
        ensemble.kill(leader);
        fleet.wait_accepted(SOME, PATIENCE).unwrap();
        cluster.wait_together().unwrap();
        ensemble.restart_all().unwrap();
    });
}

#[test]
fn everything_goes_on_without_zookeeper() {
    let start = || Ensemble::start(1).unwrap();
    let (mut cluster, mut ensemble) = Cluster::over(3, start, |ensemble, options| {
        options.zookeeper = ensemble.addresses();
    });
    survive(&mut cluster, |cluster, fleet| {
        ensemble.kill_all();
        fleet.wait_accepted(5 * SOME, PATIENCE).unwrap();
        for node in 0..3 {
            let answer = cluster.node(node).get("/readyz").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        ensemble.restart_all().unwrap();
        cluster.wait_together().unwrap();
    });
}
