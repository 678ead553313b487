//! Bugs that seeds of the simulation found, each as the shortest conversation that shows it.

use campanile_broker::{
    ids::{AppId, ShardId},
    shard::Shard,
};
use campanile_mqtt::{Property, Reason};
use campanile_sim::{
    node::Queue,
    packets::{connect, disconnect, puback, publish, subscribe, unsubscribe, will},
    pair::Pair,
};

/// Whether the disk is full from now on.
fn set_full(pair: &mut Pair, full: bool) {
    pair.node
        .store()
        .fail_commits(full.then_some("the disk is full"));
}

#[test]
fn a_will_reaches_who_subscribed_after_it_was_given() {
    let mut pair = Pair::new();
    let dying = pair.connect(connect("dying").will(will("w", "gone").qos(1)));
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "w", 1);
    pair.cut(dying);
    pair.expect_publish(sub, "gone");
}

#[test]
fn a_will_that_could_not_be_kept_is_kept_when_there_is_room_again() {
    let mut pair = Pair::new();
    let dying = pair.connect(connect("dying").will(will("w", "gone").qos(2)));
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "w", 2);
    set_full(&mut pair, true);
    pair.cut(dying);
    pair.wait(3);
    set_full(&mut pair, false);
    pair.wait(3);
    pair.expect_publish(sub, "gone");
    pair.expect_silence(sub);
}

#[test]
fn a_session_expires_though_its_end_could_not_be_written_at_first() {
    let mut pair = Pair::new();
    let sub = pair.connect(connect("sub").expiry(60));
    pair.subscribe(sub, "a", 1);
    set_full(&mut pair, true);
    pair.cut(sub);
    pair.wait(3);
    set_full(&mut pair, false);
    pair.wait(100);
    pair.connect_present(connect("sub").clean(false).expiry(60), false);
}

#[test]
fn a_subscription_that_the_store_cannot_forget_goes_on() {
    let mut pair = Pair::new();
    let sub = pair.connect(connect("sub").durable());
    let publisher = pair.connect(connect("pub"));
    pair.subscribe(sub, "a", 1);
    set_full(&mut pair, true);
    pair.send(sub, unsubscribe(7).filter("a"));
    let answer = pair.next(sub);
    assert_eq!(answer.unsuback().codes, [Reason::UnspecifiedError.code()]);
    set_full(&mut pair, false);
    pair.publish(publisher, "a", "still here", 1);
    pair.take(sub, "still here");
}

#[test]
fn a_subscription_that_was_not_kept_leaves_nothing_behind_its_lost_connection() {
    let mut pair = Pair::new();
    let sub = pair.connect(connect("sub").durable());
    set_full(&mut pair, true);
    pair.post(sub, subscribe(1).filter("a", 1));
    while let Some(&queue) = pair
        .node
        .ready()
        .iter()
        .find(|&&queue| queue != Queue::Commit)
    {
        pair.node.step(queue);
    }
    pair.node.cut(sub);
    pair.node.settle();
    set_full(&mut pair, false);
    pair.wait(3);
    let filters: u64 = pair
        .node
        .shards()
        .iter()
        .map(|shard| shard.stats().subscriptions_filters)
        .sum();
    assert_eq!(filters, 0);
}

#[test]
fn an_exchange_that_ends_before_the_replay_comes_to_it_is_not_begun_again() {
    let mut pair = Pair::new();
    let one_at_a_time = || connect("sub").durable().with(Property::ReceiveMaximum(1));
    let wire = pair.connect(one_at_a_time());
    let publisher = pair.connect(connect("pub"));
    pair.subscribe(wire, "a", 1);
    pair.publish(publisher, "a", "one", 1);
    pair.publish(publisher, "a", "two", 1);
    let first = pair.expect_publish(wire, "one");
    pair.wait(1);
    pair.cut(wire);
    let wire = pair.connect_present(one_at_a_time(), true);
    let again = pair.expect_publish(wire, "one");
    assert!(again.publish().dup && again.id() == first.id());
    pair.send(wire, puback(again.id()));
    pair.take(wire, "two");
    pair.expect_silence(wire);
}

#[test]
fn a_session_whose_first_subscription_was_refused_forgets_nothing_in_a_crash() {
    let mut pair = Pair::new();
    let sub = pair.connect(connect("sub").durable());
    let publisher = pair.connect(connect("pub"));
    set_full(&mut pair, true);
    pair.send(sub, subscribe(1).filter("a", 1));
    let refused = pair.next(sub);
    assert_eq!(refused.suback().codes, [Reason::QuotaExceeded.code()]);
    set_full(&mut pair, false);
    pair.subscribe(sub, "b", 1);
    pair.publish(publisher, "b", "kept", 1);
    pair.expect_publish(sub, "kept");
    pair.crash();
    pair.restart();
    let sub = pair.connect_present(connect("sub").durable(), true);
    pair.expect_publish(sub, "kept");
}

#[test]
fn who_has_left_a_group_is_not_chosen_by_another_shard() {
    let mut pair = Pair::new();
    // One client per shard.
    let shard = |name: &str| Shard::of_client(&AppId::new("default"), name, 2).0;
    let on = |wanted: u8| {
        let mut names = (0..).map(|n| format!("client-{n}"));
        names
            .find(|name| shard(name) == wanted)
            .expect("there are many")
    };
    let sub = pair.connect(connect(&on(0)).durable());
    let publisher = pair.connect(connect(&on(1)));
    pair.subscribe(sub, "$share/g/a", 1);
    pair.post(sub, unsubscribe(7).filter("$share/g/a"));
    // Everything moves but the word to the other shard.
    loop {
        let ready = pair.node.ready();
        let Some(&queue) = ready
            .iter()
            .find(|queue| !matches!(queue, Queue::Mail(ShardId(0), ShardId(1))))
        else {
            break;
        };
        pair.node.step(queue);
    }
    pair.expect_silence(sub);
    pair.node.settle();
    assert_eq!(pair.next(sub).unsuback().codes, [Reason::Success.code()]);
    pair.publish(publisher, "a", "for nobody", 1);
    pair.expect_silence(sub);
}

#[test]
fn a_save_that_is_written_carries_what_an_earlier_one_could_not() {
    let mut pair = Pair::new();
    let publisher = pair.connect(connect("pub"));
    pair.publish_with(publisher, publish("a", "one").retain(), 1);
    pair.publish_with(publisher, publish("b", "two").retain(), 1);
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "+", 1);
    let messages = [pair.next(sub), pair.next(sub)];
    let acknowledge = |pair: &mut Pair, at: usize| {
        pair.post(sub, puback(messages[at].id()));
        pair.node.step(Queue::Input(sub as u32));
        pair.node.advance(200);
    };
    acknowledge(&mut pair, 0);
    set_full(&mut pair, true);
    pair.node.step(Queue::Commit);
    set_full(&mut pair, false);
    acknowledge(&mut pair, 1);
    pair.node.settle();
    pair.crash();
    let sub = pair.connect_present(connect("sub").durable(), true);
    pair.expect_silence(sub);
}

#[test]
fn the_end_of_a_session_counts_once_though_it_is_told_twice() {
    let mut pair = Pair::new();
    let stays = pair.connect(connect("stays").durable());
    pair.subscribe(stays, "a", 1);
    let leaves = pair.connect(connect("leaves").durable());
    pair.subscribe(leaves, "a", 1);
    // The session ends, but the store cannot write that; then a clean start ends it, and says so.
    set_full(&mut pair, true);
    pair.send(leaves, disconnect().with(Property::SessionExpiry(0)));
    pair.expect_closed(leaves);
    set_full(&mut pair, false);
    pair.connect(connect("leaves"));
    pair.wait(3);
    pair.cut(stays);
    let publisher = pair.connect(connect("pub"));
    pair.publish(publisher, "a", "for who stays", 1);
    let stays = pair.connect_present(connect("stays").durable(), true);
    pair.expect_publish(stays, "for who stays");
}
