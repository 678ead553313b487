//! Nodes and servers that are cut off from each other: packets vanish, in both directions or in one, or are answered by resets.
//!
//! Each cut lasts longer than a session in ZooKeeper, and traffic goes on meanwhile.

use std::time::{Duration, Instant};

use campanile_mqtt::{QoS, Version, client::Publication};
use campanile_testbed::{
    conversation::{Conversation, kept},
    fleet::Fleet,
    network::Cut,
    nodes::{Nodes, Store},
    redis::{self, Redis, RedisOptions, Replicated},
};

use crate::setup::{
    Apart, PATIENCE, SESSION, SOME, endure, eventually, fleet, on_a_network, survive,
};

#[test]
fn a_node_without_redis_refuses_and_the_others_go_on() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 1);
        let redis = [cluster.redis.place().clone()];
        let fleet = fleet(&cluster);
        for cut in Cut::ALL {
            endure(&mut cluster, &fleet, |cluster, fleet| {
                let began = Instant::now();
                cluster.cut_node(1, &redis, cut);
                wait_not_ready(cluster, 1);
                outlast_session(began, fleet);
                cluster.mend();
                cluster.node(1).wait_ready().unwrap();
            });
        }
    });
}

#[test]
fn all_nodes_without_redis_heal_by_themselves() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 1);
        let redis = cluster.redis.place().clone();
        let fleet = fleet(&cluster);
        for cut in [Cut::Silent, Cut::Mute] {
            endure(&mut cluster, &fleet, |cluster, _| {
                cluster.cut(&redis, &cluster.places(), cut);
                (0..3).for_each(|node| wait_not_ready(cluster, node));
                cluster.mend();
                for node in 0..3 {
                    cluster.node(node).wait_ready().unwrap();
                }
            });
        }
    });
}

#[test]
fn a_node_without_zookeeper_goes_on() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 1);
        let fleet = fleet(&cluster);
        for cut in Cut::ALL {
            endure(&mut cluster, &fleet, |cluster, fleet| {
                let began = Instant::now();
                cluster.cut_node(2, &cluster.ensemble.places(), cut);
                eventually("a node that knows that it is cut off", || {
                    (reaches_zookeeper(cluster, 2) == Some(false)).then_some(())
                });
                eventually("the others to miss it", || {
                    (members(cluster, 0) == Some(2)).then_some(())
                });
                outlast_session(began, fleet);
                let answer = cluster.node(2).get("/readyz").unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                cluster.mend();
                cluster.wait_together().unwrap();
            });
        }
    });
}

#[test]
fn nodes_without_links_serve_through_the_store() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 1);
        let fleet = fleet(&cluster);
        for cut in Cut::ALL {
            endure(&mut cluster, &fleet, |cluster, fleet| {
                let (began, places) = (Instant::now(), cluster.places());
                for one in 0..3 {
                    cluster.cut_node(one, &places[one + 1..], cut);
                }
                eventually("nodes that miss each other", || {
                    (links(cluster, 0) == Some(0)).then_some(())
                });
                outlast_session(began, fleet);
                cluster.mend();
                cluster.wait_together().unwrap();
            });
        }
    });
}

#[test]
fn a_node_that_reaches_only_its_clients_harms_nobody() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 1);
        let mut others = cluster.places();
        others.extend(cluster.ensemble.places());
        others.push(cluster.redis.place().clone());
        let fleet = fleet(&cluster);
        for cut in Cut::ALL {
            endure(&mut cluster, &fleet, |cluster, fleet| {
                let began = Instant::now();
                cluster.cut_node(0, &others, cut);
                wait_not_ready(cluster, 0);
                eventually("the others to miss it", || {
                    (members(cluster, 1) == Some(2)).then_some(())
                });
                outlast_session(began, fleet);
                cluster.mend();
                cluster.wait_together().unwrap();
                cluster.node(0).wait_ready().unwrap();
            });
        }
    });
}

#[test]
fn zookeepers_leader_without_followers_is_not_noticed() {
    on_a_network(|| {
        let mut cluster = Apart::start(3, 3);
        let fleet = fleet(&cluster);
        for cut in [Cut::Silent, Cut::Deaf, Cut::Mute] {
            endure(&mut cluster, &fleet, |cluster, fleet| {
                let (began, places) = (Instant::now(), cluster.ensemble.places());
                let leader = cluster.ensemble.leader().unwrap();
                cluster.cut(&places[leader], &places, cut);
                eventually("another leader", || {
                    (cluster.ensemble.leader().ok()? != leader).then_some(())
                });
                outlast_session(began, fleet);
                cluster.wait_together().unwrap();
                cluster.mend();
                cluster.ensemble.wait_until_serving().unwrap();
            });
        }
    });
}

#[test]
fn nodes_leave_a_primary_that_its_sentinels_and_replicas_do_not_reach() {
    on_a_network(|| {
        let mut cluster = Apart::over(3, 1, 3, |places| {
            let redis = Replicated::start_at(places, &RedisOptions::default()).unwrap();
            let store = Store {
                mode: "sentinel",
                addresses: redis.sentinel_addresses(),
                master_name: Replicated::NAME.to_owned(),
                prefix: "cmp:".to_owned(),
                replicas: 1,
            };
            (redis, store)
        });
        // The first Sentinel is beside the primary, and goes on naming it.
        survive(&mut cluster, |cluster, fleet| {
            let (began, places) = (Instant::now(), cluster.redis.places());
            cluster.cut(&places[0], &places, Cut::Silent);
            let servers = &cluster.redis.servers[1..];
            eventually("another primary", || servers.iter().find(|it| leads(it)));
            outlast_session(began, fleet);
            cluster.mend();
        });
    });
}

#[test]
fn nodes_leave_a_primary_that_the_other_servers_of_a_redis_cluster_do_not_reach() {
    on_a_network(|| {
        // The second primary has the slots of the fleet's app. Nodes ask the lowest address first: it is that one, which goes on naming itself.
        const PRIMARY: usize = 1;
        let mut cluster = Apart::over(3, 1, 9, |places| {
            let mut places = places.to_vec();
            places.swap(0, PRIMARY);
            let redis = redis::Cluster::start_at(&places, &RedisOptions::default()).unwrap();
            let store = Store {
                mode: "cluster",
                addresses: redis.addresses(),
                master_name: String::new(),
                prefix: "cmp:".to_owned(),
                replicas: 1,
            };
            (redis, store)
        });
        survive(&mut cluster, |cluster, fleet| {
            let (began, places) = (Instant::now(), cluster.redis.places());
            cluster.cut(&places[PRIMARY], &places, Cut::Silent);
            let replicas = &cluster.redis.servers[3..];
            eventually("another primary", || replicas.iter().find(|it| leads(it)));
            outlast_session(began, fleet);
            cluster.mend();
        });
    });
}

#[test]
fn exchange_that_ends_where_the_log_is_not_known_yet_is_not_begun_again() {
    on_a_network(|| {
        // The other node polls the log now and then: in most rounds the exchange ends before.
        const ROUNDS: usize = 6;
        const TWO_POLLS: Duration = Duration::from_millis(500);
        let mut cluster = Apart::start(2, 1);
        let places = cluster.addresses();
        let mut publishers = [0, 1].map(|node| {
            let mut publisher = Conversation::new(kept(&format!("publisher-{node}"), Version::V5));
            publisher.connect(places[node].mqtt, false).unwrap();
            publisher
        });
        let mut device = Conversation::new(kept("device", Version::V5));
        device.connect(places[0].mqtt, false).unwrap();
        device.subscribe("t", QoS::ExactlyOnce).unwrap();
        cluster.cut_node(0, &cluster.places(), Cut::Refused);
        eventually("a link that is down", || {
            (links(&mut cluster, 1) == Some(0)).then_some(())
        });
        for round in 0..ROUNDS {
            device.is_mute = true;
            let payload = round.to_string();
            let publication = Publication {
                topic: "t",
                payload: payload.as_bytes(),
                qos: QoS::ExactlyOnce,
                ..Publication::default()
            };
            publishers[round % 2].publish(&publication).unwrap();
            let message = device.message(PATIENCE).unwrap();
            assert_eq!(message.payload, payload.as_bytes());
            let before = device.abandon();
            device.is_mute = false;
            let other = places[(round + 1) % 2].mqtt;
            assert!(device.connect(other, false).unwrap());
            assert_eq!(device.message(TWO_POLLS), None);
            drop(before);
        }
    });
}

/// Goes on with traffic until a cut has lasted longer than sessions do.
fn outlast_session(began: Instant, fleet: &Fleet) {
    fleet.wait_accepted(SOME, PATIENCE).unwrap();
    while began.elapsed() < 2 * SESSION {
        fleet.wait_accepted(SOME / 10, PATIENCE).unwrap();
    }
}

fn wait_not_ready(cluster: &mut Nodes, node: usize) {
    eventually("a node that is not ready", || {
        let answer = cluster.node(node).get("/readyz").ok()?;
        (answer.status == 503).then_some(())
    });
}

fn status(cluster: &mut Nodes, node: usize) -> Option<serde_json::Value> {
    let status = cluster.node(node).operate(&["status", "--json"]).ok()?;
    serde_json::from_str(&status).ok()
}

fn reaches_zookeeper(cluster: &mut Nodes, node: usize) -> Option<bool> {
    status(cluster, node)?["membership_reachable"].as_bool()
}

fn leads(server: &Redis) -> bool {
    let info = server.ask(&["INFO", "replication"]);
    info.is_ok_and(|info| info.contains("role:master"))
}

/// How many members a node sees.
fn members(cluster: &mut Nodes, node: usize) -> Option<usize> {
    let status = status(cluster, node)?;
    Some(status["nodes"].as_array()?.len())
}

/// How many links of a node are up.
fn links(cluster: &mut Nodes, node: usize) -> Option<usize> {
    let status = status(cluster, node)?;
    let nodes = status["nodes"].as_array()?;
    Some(nodes.iter().filter(|node| node["linked"] == true).count())
}
