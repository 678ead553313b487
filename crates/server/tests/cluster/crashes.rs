//! Nodes that die, stop and come back.

use campanile_testbed::fleet::{Fleet, FleetOptions};

use crate::setup::{Cluster, PATIENCE};

#[test]
fn nothing_is_lost_when_a_node_is_killed() {
    let mut cluster = Cluster::start(3);
    let fleet = Fleet::start(cluster.addresses(), &FleetOptions::default()).unwrap();
    fleet.wait_accepted(300, PATIENCE).unwrap();
    fleet.account().fault_begins();
    cluster.node(1).kill();
    fleet.wait_accepted(300, PATIENCE).unwrap();
    cluster.node(1).start().unwrap();
    fleet.account().fault_ends();
    fleet.wait_accepted(300, PATIENCE).unwrap();
    let figures = fleet.settle(PATIENCE).unwrap();
    println!("{figures:?}");
}

#[test]
fn nothing_is_lost_while_nothing_fails() {
    let cluster = Cluster::start(3);
    let fleet = Fleet::start(cluster.addresses(), &FleetOptions::default()).unwrap();
    fleet.wait_accepted(900, PATIENCE).unwrap();
    let figures = fleet.settle(PATIENCE).unwrap();
    println!("{figures:?}");
}
