//! Pushes to audiences, at a node alone: live devices, returning ones, and what is known of them changing in between.

use bytes::Bytes;
use campanile_broker::ids::ShardId;
use campanile_mqtt::{Property, Reason, Version};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    rows::{self, Key, Scope, Table},
    store::{Accept, Audience, Command, Outcome, Report, Target},
};
use campanile_sim::{
    node::{NodeConfig, Queue},
    packets::*,
    pair::Pair,
};

fn app() -> AppName {
    AppName::new("default").unwrap()
}

/// Sets what is known of a device; the node has not done it yet.
fn post_profile(pair: &mut Pair, device: &str, words: Option<&str>) {
    let row = Key::new(Table::Device, device);
    let change = rows::Change::new(Scope::App(app()), pair.node.now.0);
    let change = match words {
        Some(words) => change.put(row, words.to_owned()),
        None => change.remove(row),
    };
    pair.node.push(Command::Change(Box::new(change)));
}

fn set_profile(pair: &mut Pair, device: &str, words: Option<&str>) {
    post_profile(pair, device, words);
    pair.node.settle();
    let answers = pair.node.take_push_answers();
    assert!(
        matches!(answers[..], [(_, Ok(Outcome::Changed { .. }))]),
        "{answers:?}"
    );
}

/// Accepts a push to an audience; the node has not done it yet.
fn post_push(pair: &mut Pair, audience: &str, payload: &str, ttl_ms: u64) -> PushId {
    let now = pair.node.now;
    let id = PushId(pair.node.ids().next(now).0);
    let accept = Accept {
        app: app(),
        id,
        accepted_ms: now.0,
        expires_ms: now.0 + ttl_ms,
        audience: Audience::Matching(Bytes::from(audience.to_owned())),
        payload: Bytes::from(payload.to_owned()),
        priority: Priority::Normal,
        collapse_key: None,
        idempotency: None,
        rows: None,
        channel: Default::default(),
        info: Bytes::new(),
        watched: false,
    };
    pair.node.push(Command::Accept(Box::new(accept)));
    id
}

const DAY_MS: u64 = 86_400_000;

fn push(pair: &mut Pair, audience: &str, payload: &str) -> PushId {
    push_for(pair, audience, payload, DAY_MS)
}

fn push_for(pair: &mut Pair, audience: &str, payload: &str, ttl_ms: u64) -> PushId {
    let id = post_push(pair, audience, payload, ttl_ms);
    pair.node.settle();
    let answers = pair.node.take_push_answers();
    assert!(
        matches!(answers[..], [(_, Ok(Outcome::Accepted { targeted: None }))]),
        "{answers:?}"
    );
    id
}

fn report(pair: &mut Pair, id: PushId) -> Report {
    let now = pair.node.now;
    let report = pair.node.reader().report(&app(), id, now.0);
    report.unwrap().expect("it is known")
}

fn one_shard() -> NodeConfig {
    NodeConfig {
        shards: 1,
        ..NodeConfig::default()
    }
}

/// Moves everything but some queues, until nothing else is left to move.
fn settle_without(pair: &mut Pair, held: impl Fn(Queue) -> bool) {
    while let Some(queue) = pair.node.ready().into_iter().find(|queue| !held(*queue)) {
        pair.node.step(queue);
    }
}

#[test]
fn live_devices_get_what_is_for_them() {
    let mut pair = Pair::new();
    set_profile(&mut pair, "vip", Some("vip"));
    set_profile(&mut pair, "both", Some("vip beta"));
    let vip = pair.connect(connect("vip").durable());
    let both = pair.connect(connect("both"));
    let plain = pair.connect(connect("plain"));
    let id = push(&mut pair, "vip", "to vip");
    push(&mut pair, "beta", "to beta");
    push(&mut pair, "!beta", "to the rest");
    pair.take(vip, "to vip");
    pair.take(vip, "to the rest");
    pair.take(both, "to vip");
    pair.take(both, "to beta");
    pair.take(plain, "to the rest");
    for wire in [vip, both, plain] {
        pair.expect_silence(wire);
    }
    pair.wait(1);
    let figures = report(&mut pair, id);
    assert!(figures.counting);
    assert_eq!((figures.targeted, figures.delivered), (2, 2));
    let target = Target::of(&app(), id, 0, 0..3);
    pair.node.push(Command::Target(target));
    pair.node.push(Command::Counted {
        app: app(),
        push: id,
    });
    pair.node.settle();
    let figures = report(&mut pair, id);
    assert!(!figures.counting);
    assert_eq!((figures.targeted, figures.pending), (3, 1));
}

#[test]
fn a_returning_device_gets_what_was_for_it_also_from_a_new_run_of_the_node() {
    for crash in [false, true] {
        let mut pair = Pair::new();
        set_profile(&mut pair, "vip", Some("vip"));
        let vip = pair.connect(connect("vip").durable());
        let plain = pair.connect(connect("plain").durable());
        pair.cut(vip);
        pair.cut(plain);
        for number in 0..100 {
            push(&mut pair, "vip", &format!("vip {number}"));
            push(&mut pair, "beta", "to nobody");
            push(&mut pair, "!vip", &format!("rest {number}"));
        }
        if crash {
            pair.crash();
        }
        let vip = pair.connect_present(connect("vip").durable(), true);
        let plain = pair.connect_present(connect("plain").durable(), true);
        for number in 0..100 {
            pair.take(vip, &format!("vip {number}"));
            pair.take(plain, &format!("rest {number}"));
        }
        // Nor does anything come twice.
        pair.wait(1);
        pair.crash();
        for client in ["vip", "plain"] {
            let wire = pair.connect_present(connect(client).durable(), true);
            pair.expect_silence(wire);
        }
    }
}

#[test]
fn a_device_gets_what_it_matched_when_it_was_made_and_when_it_is_delivered() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device").durable());
    push(&mut pair, "vip", "before");
    set_profile(&mut pair, "device", Some("vip"));
    push(&mut pair, "vip", "while");
    set_profile(&mut pair, "device", Some("beta"));
    push(&mut pair, "vip", "after");
    set_profile(&mut pair, "device", None);
    push(&mut pair, "beta", "after that");
    push(&mut pair, "!beta", "at last");
    pair.take(device, "while");
    pair.take(device, "at last");
    set_profile(&mut pair, "device", Some("beta"));
    pair.cut(device);
    pair.wait(1);
    push(&mut pair, "vip", "before it was one");
    push(&mut pair, "beta", "no more");
    pair.wait(1);
    let since = pair.node.now;
    set_profile(&mut pair, "device", Some(&format!("vip@{}", since.0)));
    push(&mut pair, "vip", "since it is one");
    let device = pair.connect_present(connect("device").durable(), true);
    pair.take(device, "since it is one");
    pair.expect_silence(device);
}

#[test]
fn a_profile_that_changes_while_its_device_is_claimed_is_not_missed() {
    // Change and claim in one commit, in either order, or one before the other.
    for (change_first, apart) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut pair = Pair::with(one_shard());
        set_profile(&mut pair, "device", Some("old"));
        let device = pair.open(campanile_mqtt::Version::V5);
        let held = |queue| matches!(queue, Queue::Commit | Queue::FromStore(_));
        let commit = |pair: &mut Pair| {
            if apart {
                pair.node.step(Queue::Commit);
                pair.node.step(Queue::Sync);
            }
        };
        for step in 0..2 {
            if (step == 0) == change_first {
                post_profile(&mut pair, "device", Some("new"));
            } else {
                pair.post(device, connect("device").durable());
                settle_without(&mut pair, held);
            }
            commit(&mut pair);
        }
        pair.node.settle();
        pair.node.take_push_answers();
        push(&mut pair, "old", "to the old");
        push(&mut pair, "new", "to the new");
        pair.next(device).connack();
        pair.take(device, "to the new");
        pair.expect_silence(device);
    }
}

#[test]
fn what_a_shard_hears_late_of_an_earlier_connection_is_not_taken_for_the_newest() {
    let mut pair = Pair::with(one_shard());
    let is_heard = |queue: Queue| matches!(queue, Queue::FromStore(_));
    let gone = pair.connect(connect("device"));
    post_profile(&mut pair, "device", Some("old"));
    settle_without(&mut pair, is_heard);
    pair.node.cut(gone);
    settle_without(&mut pair, is_heard);
    // Nobody is connected now.
    post_profile(&mut pair, "device", Some("vip"));
    settle_without(&mut pair, is_heard);
    let device = pair.open(Version::V5);
    pair.post(device, connect("device"));
    settle_without(&mut pair, is_heard);
    pair.node.settle();
    pair.node.take_push_answers();
    assert_eq!(pair.next(device).connack().reason, Reason::Success);
    push(&mut pair, "vip", "for the vip");
    pair.take(device, "for the vip");
}

#[test]
fn a_profile_that_changes_while_other_shards_are_told_is_not_missed() {
    let mut pair = Pair::new();
    let held = |queue| matches!(queue, Queue::Mail(ShardId(_), ShardId(_)));
    set_profile(&mut pair, "device", Some("old"));
    let first = pair.connect(connect("device").durable());
    pair.subscribe(first, "a", 1);
    pair.cut(first);
    let device = pair.open(campanile_mqtt::Version::V5);
    pair.post(device, connect("device").durable());
    settle_without(&mut pair, held);
    post_profile(&mut pair, "device", Some("new"));
    post_push(&mut pair, "old", "to the old", DAY_MS);
    post_push(&mut pair, "new", "to the new", DAY_MS);
    settle_without(&mut pair, held);
    pair.node.settle();
    pair.next(device).connack();
    pair.take(device, "to the new");
    pair.expect_silence(device);
}

#[test]
fn thousands_of_pushes_to_others_do_not_hold_up_a_return() {
    let mut config = one_shard();
    config.broker.tail_entries = 3000;
    let mut pair = Pair::with(config);
    let device = pair.connect(connect("device").durable());
    pair.cut(device);
    for _ in 0..5000 {
        post_push(&mut pair, "vip", "to others", DAY_MS);
    }
    post_push(&mut pair, "!vip", "for it", DAY_MS);
    pair.node.settle();
    let device = pair.connect_present(connect("device").durable(), true);
    // In memory it goes on in the next turns, so that others have theirs.
    pair.expect_silence(device);
    let other = pair.connect(connect("other"));
    pair.expect_alive(other);
    let mut turns = 0;
    while pair.node.shards()[0].next_deadline() <= Some(pair.node.now) {
        pair.node.advance(0);
        pair.node.settle();
        turns += 1;
    }
    assert_eq!(turns, 2);
    pair.take(device, "for it");
    pair.wait(1);
    pair.crash();
    let device = pair.connect_present(connect("device").durable(), true);
    pair.expect_silence(device);
}

#[test]
fn a_slow_device_gets_what_is_for_it_one_by_one() {
    let mut pair = Pair::with(one_shard());
    set_profile(&mut pair, "slow", Some("vip"));
    let limit = Property::ReceiveMaximum(1);
    let slow = pair.connect(connect("slow").durable().with(limit));
    for number in 0..10 {
        push(&mut pair, "vip", &format!("{number}"));
        push(&mut pair, "beta", "to others");
    }
    for number in 0..9 {
        pair.take(slow, &format!("{number}"));
    }
    let last = pair.expect_publish(slow, "9");
    // When there is room for this one, the device is no vip any more.
    push(&mut pair, "vip", "too late");
    pair.node.advance(1);
    let beta = format!("beta@{}", pair.node.now.0);
    set_profile(&mut pair, "slow", Some(&beta));
    pair.acknowledge(slow, &last);
    pair.expect_silence(slow);
    push(&mut pair, "beta", "now");
    pair.take(slow, "now");
}

#[test]
fn what_is_for_now_only_goes_to_those_of_its_audience_that_are_live() {
    let mut pair = Pair::new();
    set_profile(&mut pair, "vip", Some("vip"));
    set_profile(&mut pair, "away", Some("vip"));
    let away = pair.connect(connect("away").durable());
    pair.cut(away);
    let vip = pair.connect(connect("vip"));
    let plain = pair.connect(connect("plain"));
    push_for(&mut pair, "vip", "now", 0);
    push_for(&mut pair, "!vip", "or never", 0);
    pair.take(vip, "now");
    pair.take(plain, "or never");
    let away = pair.connect_present(connect("away").durable(), true);
    for wire in [vip, plain, away] {
        pair.expect_silence(wire);
    }
}

#[test]
fn an_expired_push_comes_to_nobody() {
    let mut pair = Pair::new();
    set_profile(&mut pair, "vip", Some("vip"));
    let vip = pair.connect(connect("vip").durable());
    pair.cut(vip);
    push_for(&mut pair, "vip", "old", 1000);
    push(&mut pair, "vip", "fresh");
    pair.node.advance(2000);
    let vip = pair.connect_present(connect("vip").durable(), true);
    pair.take(vip, "fresh");
    pair.expect_silence(vip);
}
