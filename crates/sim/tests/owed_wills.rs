//! Wills that a claim makes due: the node may die before it has published them.

use campanile_mqtt::Version;
use campanile_sim::{
    node::Queue,
    packets::{Connect, connect, will},
    pair::Pair,
};

fn durable(client_id: &str) -> Connect {
    connect(client_id).durable()
}

/// A subscriber that is to get the will, of which a clean start was sent but not yet looked at.
fn mortal_returns() -> Pair {
    let mut pair = Pair::new();
    let sub = pair.connect(durable("sub"));
    pair.subscribe(sub, "#", 2);
    let testament = will("t", "gone").qos(1).delay(600);
    let wire = pair.connect(durable("mortal").will(testament));
    pair.cut(wire);
    pair.expect_silence(sub);
    let wire = pair.open(Version::V5);
    pair.post(wire, connect("mortal"));
    pair
}

/// The will comes once, and not again after another crash.
fn check_once(mut pair: Pair) {
    pair.wait(2);
    let sub = pair.connect_present(durable("sub"), true);
    pair.take(sub, "gone");
    pair.expect_silence(sub);
    pair.wait(2);
    pair.crash();
    pair.wait(2);
    let sub = pair.connect_present(durable("sub"), true);
    pair.expect_silence(sub);
}

#[test]
fn an_owed_will_survives_a_crash_between_claim_and_publication() {
    for returns in [false, true] {
        let mut pair = mortal_returns();
        // The claim gets to the disk, and no shard sees its answer.
        let but_sync = |queue: &Queue| *queue != Queue::Sync;
        while let Some(queue) = pair.node.ready().into_iter().find(but_sync) {
            pair.node.step(queue);
        }
        pair.crash();
        if returns {
            pair.connect(durable("mortal"));
        }
        check_once(pair);
    }
}

#[test]
fn an_owed_will_that_was_published_is_not_published_after_a_crash() {
    let mut pair = mortal_returns();
    pair.node.settle();
    pair.crash();
    check_once(pair);
}
