//! Campaigns at a node alone: turns, lanes, what a device is done with, and pushes that end before their time.

use bytes::Bytes;
use campanile_mqtt::{Property, QoS, Reason, Version};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    receipt::{DropReason, FailReason, Mark},
    rows::{self, Key, Scope, Table},
    store::{Accept, Audience, Command, Outcome, Report},
};
use campanile_sim::{node::Queue, packets::*, pair::Pair};

const DAY_MS: u64 = 86_400_000;

fn app() -> AppName {
    AppName::new("default").unwrap()
}

fn rows(pair: &Pair) -> rows::Change {
    rows::Change::new(Scope::App(app()), pair.node.now.0)
}

fn campaign_key(id: PushId) -> Key {
    Key::new(Table::Campaign, id.to_string())
}

fn accept(pair: &mut Pair, audience: Audience, payload: &str) -> Accept {
    let now = pair.node.now;
    Accept {
        app: app(),
        id: PushId(pair.node.ids().next(now).0),
        accepted_ms: now.0,
        expires_ms: now.0 + DAY_MS,
        audience,
        payload: Bytes::from(payload.to_owned()),
        priority: Priority::Normal,
        collapse_key: None,
        idempotency: None,
        rows: None,
        channel: Default::default(),
        info: Bytes::new(),
        watched: false,
    }
}

fn hand_in(pair: &mut Pair, accept: Accept) -> PushId {
    let id = accept.id;
    pair.node.push(Command::Accept(Box::new(accept)));
    pair.node.settle();
    let answers = pair.node.take_push_answers();
    assert!(
        matches!(answers[..], [(_, Ok(Outcome::Accepted { .. }))]),
        "{answers:?}"
    );
    id
}

/// A push to all that is an entry of the log.
fn push(pair: &mut Pair, payload: &str) -> PushId {
    let accept = accept(pair, Audience::All, payload);
    hand_in(pair, accept)
}

/// A campaign to all, as [`campanile_broker::audience::Words`] reads it.
fn campaign(pair: &mut Pair, row: &str) -> PushId {
    let accept = accept(pair, Audience::All, "");
    let change = rows(pair).put_until(campaign_key(accept.id), row.to_owned(), accept.expires_ms);
    let rows = Some(Box::new(change));
    hand_in(pair, Accept { rows, ..accept })
}

fn change(pair: &mut Pair, change: rows::Change) {
    pair.node.push(Command::Change(Box::new(change)));
    pair.node.settle();
    pair.node.take_push_answers();
}

/// The campaign is this from now on.
fn set(pair: &mut Pair, id: PushId, row: &str) {
    let put = rows(pair).put(campaign_key(id), row.to_owned());
    change(pair, put);
}

fn remove(pair: &mut Pair, id: PushId) {
    let remove = rows(pair).remove(campaign_key(id));
    change(pair, remove);
}

/// A push that is no campaign ended before its time.
fn cancel(pair: &mut Pair, id: PushId) {
    let put = rows(pair).put(Key::new(Table::Cancelled, id.to_string()), "ended");
    change(pair, put);
}

fn report(pair: &mut Pair, id: PushId) -> Report {
    let now = pair.node.now;
    let report = pair.node.reader().report(&app(), id, now.0);
    report.unwrap().expect("it is known")
}

/// Takes what comes next, which must be these in this order, and acknowledges each.
#[track_caller]
fn take_all(pair: &mut Pair, wire: usize, payloads: &[&str]) {
    for payload in payloads {
        pair.take(wire, payload);
    }
    pair.expect_silence(wire);
}

#[test]
fn a_device_gets_a_campaign_when_it_is_its_turn() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device"));
    let at = pair.node.now.0 + 5000;
    let id = campaign(&mut pair, &format!("normal {at} - later"));
    pair.advance(4999);
    pair.expect_silence(device);
    pair.advance(1);
    pair.take(device, "later");
    pair.wait(1);
    assert_eq!(report(&mut pair, id).delivered, 1);
    campaign(&mut pair, "normal 0 - now");
    take_all(&mut pair, device, &["now"]);
}

#[test]
fn a_campaign_that_changes_changes_the_turns() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device"));
    let at = pair.node.now.0 + 5000;
    let [paused, gone, held] = ["paused", "gone", "held"]
        .map(|text| campaign(&mut pair, &format!("normal {at} - {text}")));
    set(&mut pair, paused, "normal held - paused");
    remove(&mut pair, gone);
    set(&mut pair, held, "normal held - held");
    set(&mut pair, held, &format!("normal {} - held", at + 5000));
    pair.wait(9);
    pair.expect_silence(device);
    pair.wait(1);
    take_all(&mut pair, device, &["held"]);
    set(&mut pair, paused, "normal 0 - paused");
    take_all(&mut pair, device, &["paused"]);
    // What it has does not come again, however often the row changes.
    set(&mut pair, held, "normal 0 - held");
    pair.expect_silence(device);
}

#[test]
fn high_goes_before_what_waits_and_low_after_it() {
    let mut pair = Pair::new();
    let device = || {
        connect("device")
            .durable()
            .with(Property::ReceiveMaximum(1))
    };
    let wire = pair.connect(device());
    pair.cut(wire);
    push(&mut pair, "one");
    campaign(&mut pair, "low 0 - low");
    campaign(&mut pair, "normal 0 - normal");
    campaign(&mut pair, "high 0 - high");
    push(&mut pair, "two");
    let wire = pair.connect_present(device(), true);
    take_all(&mut pair, wire, &["high", "one", "two", "normal", "low"]);
    // While the window is full, too.
    campaign(&mut pair, "low 0 - low 1");
    campaign(&mut pair, "low 0 - low 2");
    push(&mut pair, "three");
    campaign(&mut pair, "high 0 - high 1");
    take_all(&mut pair, wire, &["low 1", "high 1", "three", "low 2"]);
}

/// What a device that takes one message at a time gets, if another push of this payload is made for each that it takes.
fn heard_while_others_wait(row: &str, pushes: usize, of_inbox: bool) -> Vec<String> {
    let mut pair = Pair::new();
    let device = connect("device").durable();
    let wire = pair.connect(device.with(Property::ReceiveMaximum(1)));
    let make = |pair: &mut Pair| {
        let audience = match of_inbox {
            true => Audience::Devices(vec!["device".into()]),
            false => Audience::All,
        };
        let accept = accept(pair, audience, "other");
        hand_in(pair, accept);
    };
    for _ in 0..3 {
        make(&mut pair);
    }
    campaign(&mut pair, row);
    let mut heard = Vec::new();
    for _ in 0..pushes {
        let publish = pair.next(wire);
        heard.push(publish.payload().to_owned());
        make(&mut pair);
        pair.acknowledge(wire, &publish);
    }
    heard
}

#[test]
fn campaigns_move_on_though_something_else_always_waits() {
    for row in ["normal 0 - campaign", "low 0 - campaign"] {
        for of_inbox in [false, true] {
            let heard = heard_while_others_wait(row, 20, of_inbox);
            let at = heard.iter().position(|payload| payload == "campaign");
            assert!(
                at.is_some_and(|at| (10..20).contains(&at)),
                "{row} {of_inbox}: {heard:?}"
            );
        }
    }
    let heard = heard_while_others_wait("high 0 - campaign", 2, false);
    assert_eq!(heard[1], "campaign");
}

#[test]
fn a_low_campaign_moves_on_though_messages_of_topics_always_wait() {
    let mut pair = Pair::new();
    let device = connect("device").with(Property::ReceiveMaximum(1));
    let wire = pair.connect(device);
    pair.subscribe(wire, "a", 1);
    let publisher = pair.connect(connect("publisher"));
    let mut packet_id = 0;
    let mut publish_one = |pair: &mut Pair| {
        packet_id += 1;
        pair.send(publisher, publish("a", "topic").qos(1, packet_id));
        pair.next(publisher);
    };
    for _ in 0..3 {
        publish_one(&mut pair);
    }
    campaign(&mut pair, "low 0 - campaign");
    let mut at = None;
    for turn in 0..25 {
        let heard = pair.next(wire);
        if heard.payload() == "campaign" {
            at = Some(turn);
        }
        publish_one(&mut pair);
        pair.acknowledge(wire, &heard);
    }
    assert!(at.is_some_and(|at| at > 10), "{at:?}");
}

#[test]
fn a_device_gets_a_campaign_once() {
    for is_saved in [true, false] {
        let mut pair = Pair::new();
        let wire = pair.connect(connect("device").durable());
        campaign(&mut pair, "normal 0 - once");
        pair.take(wire, "once");
        if is_saved {
            pair.wait(1);
        }
        pair.crash();
        let wire = pair.connect_present(connect("device").durable(), true);
        if !is_saved {
            // A crash repeats at most what was acknowledged just before.
            pair.take(wire, "once");
        }
        pair.expect_silence(wire);
        pair.cut(wire);
        let wire = pair.connect_present(connect("device").durable(), true);
        pair.expect_silence(wire);
    }
}

#[test]
fn what_was_not_acknowledged_is_taken_up_again() {
    let mut pair = Pair::new();
    let wire = pair.connect(connect("device").durable());
    let id = campaign(&mut pair, "normal 0 - kept");
    let gone = campaign(&mut pair, "normal 0 - gone");
    pair.expect_publish(wire, "kept");
    pair.expect_publish(wire, "gone");
    pair.cut(wire);
    remove(&mut pair, gone);
    let wire = pair.connect_present(connect("device").durable(), true);
    let again = pair.expect_publish(wire, "kept");
    pair.acknowledge(wire, &again);
    pair.expect_silence(wire);
    pair.wait(1);
    assert_eq!(report(&mut pair, id).delivered, 1);
    assert_eq!(report(&mut pair, gone).delivered, 0);
}

#[test]
fn a_device_that_begins_gets_nothing_that_was_there_before() {
    let mut pair = Pair::new();
    let at = pair.node.now.0 + 5000;
    campaign(&mut pair, &format!("normal {at} - before"));
    pair.advance(10);
    pair.connect(connect("durable").durable());
    pair.connect(connect("plain"));
    pair.wait(1);
    // Without a goodbye.
    pair.crash();
    let durable = pair.connect_present(connect("durable").durable(), true);
    pair.wait(6);
    pair.expect_silence(durable);
    let plain_again = pair.connect(connect("plain"));
    pair.expect_silence(plain_again);
    campaign(&mut pair, "normal 0 - after");
    take_all(&mut pair, durable, &["after"]);
    take_all(&mut pair, plain_again, &["after"]);
}

#[test]
fn a_device_that_gave_its_first_connect_up_has_begun_all_the_same() {
    let mut pair = Pair::new();
    let at = pair.node.now.0 + 5000;
    campaign(&mut pair, &format!("normal {at} - before"));
    pair.advance(10);
    let wire = pair.open(Version::V5);
    pair.post(wire, connect("device").durable());
    // It is gone when its claim is answered.
    loop {
        let next = *pair.node.ready().first().expect("it is claimed");
        pair.node.step(next);
        if next == Queue::Commit {
            break;
        }
    }
    pair.cut(wire);
    pair.wait(1);
    let device = pair.connect_present(connect("device").durable(), true);
    pair.wait(6);
    pair.expect_silence(device);
}

#[test]
fn a_device_that_connects_anew_before_its_first_connect_is_answered_begins_all_the_same() {
    for given_up in 1..=3 {
        let mut pair = Pair::new();
        let at = pair.node.now.0 + 5000;
        campaign(&mut pair, &format!("normal {at} - before"));
        pair.advance(10);
        for _ in 0..given_up {
            let wire = claim(&mut pair);
            pair.node.cut(wire);
        }
        let device = claim(&mut pair);
        pair.node.settle();
        let answer = pair.next(device);
        assert_eq!(answer.connack().reason, Reason::Success);
        pair.wait(6);
        pair.expect_silence(device);
        // The store knows it, too.
        pair.crash();
        let device = pair.connect_present(connect("device").durable(), true);
        pair.expect_silence(device);
    }
}

/// A connection whose claim waits for the store.
fn claim(pair: &mut Pair) -> usize {
    let wire = pair.open(Version::V5);
    pair.post(wire, connect("device").durable());
    let is_of_store = |queue: &Queue| matches!(queue, Queue::Commit | Queue::Sync);
    let next = |pair: &Pair| pair.node.ready().into_iter().find(|of| !is_of_store(of));
    while let Some(queue) = next(pair) {
        pair.node.step(queue);
    }
    wire
}

#[test]
fn what_a_device_will_not_get_is_written_down() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device").durable());
    let small = pair.connect(
        connect("small")
            .durable()
            .with(Property::MaximumPacketSize(100)),
    );
    let never = campaign(&mut pair, "normal never - never");
    let large = campaign(&mut pair, &format!("normal 0 - {}", "x".repeat(300)));
    pair.take(device, &"x".repeat(300));
    pair.expect_silence(device);
    pair.expect_silence(small);
    pair.wait(1);
    let quiet = Mark::Dropped(DropReason::QuietHours);
    let report_of_never = report(&mut pair, never);
    assert_eq!(report_of_never.settled.get(&quiet), Some(&2));
    assert_eq!(report_of_never.pending, 0);
    let report_of_large = report(&mut pair, large);
    let too_large = Mark::Failed(FailReason::TooLarge);
    assert_eq!(report_of_large.settled.get(&too_large), Some(&1));
    assert_eq!(report_of_large.delivered, 1);
}

#[test]
fn a_push_that_ended_is_not_sent_any_more() {
    let mut pair = Pair::new();
    let wire = pair.connect(connect("device").durable());
    let unacknowledged = push(&mut pair, "unacknowledged");
    pair.expect_publish(wire, "unacknowledged");
    pair.cut(wire);
    let of_log = push(&mut pair, "of the log");
    let of_inbox = accept(
        &mut pair,
        Audience::Devices(vec!["device".into()]),
        "of the inbox",
    );
    let of_inbox = hand_in(&mut pair, of_inbox);
    push(&mut pair, "goes on");
    for id in [unacknowledged, of_log, of_inbox] {
        cancel(&mut pair, id);
    }
    pair.crash();
    let wire = pair.connect_present(connect("device").durable(), true);
    take_all(&mut pair, wire, &["goes on"]);
    pair.wait(1);
    pair.cut(wire);
    let wire = pair.connect_present(connect("device").durable(), true);
    pair.expect_silence(wire);
}

#[test]
fn a_campaign_waits_for_an_audience() {
    let mut pair = Pair::new();
    let profile = |words: &'static str| (Key::new(Table::Device, "device"), words);
    let wire = pair.connect(connect("device").durable());
    campaign(&mut pair, "normal 0 vip for vip");
    pair.expect_silence(wire);
    let (key, words) = profile("vip@0");
    let put = rows(&pair).put(key, words);
    change(&mut pair, put);
    let publish = pair.expect_publish(wire, "for vip");
    assert_eq!(publish.publish().qos, QoS::AtLeastOnce);
    pair.acknowledge(wire, &publish);
    pair.expect_silence(wire);
}
