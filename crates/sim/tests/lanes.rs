//! Urgent pushes overtake what waits for a device, and a push takes the place of one of the same key.

use bytes::Bytes;
use campanile_mqtt::{Packet, Property};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority::{self, High, Low, Normal},
    store::{Accept, Audience, Command, Outcome, Report},
};
use campanile_sim::{
    node::{NodeConfig, Queue},
    packets::*,
    pair::Pair,
};

fn app() -> AppName {
    AppName::new("default").unwrap()
}

/// A push to the device, which the node has not looked at.
fn post(pair: &mut Pair, priority: Priority, collapse_key: Option<&str>, payload: &str) -> PushId {
    let now = pair.node.now;
    let id = PushId(pair.node.ids().next(now).0);
    let accept = Accept {
        app: app(),
        id,
        accepted_ms: now.0,
        expires_ms: now.0 + 60_000,
        audience: Audience::Devices(vec!["device".into()]),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        priority,
        collapse_key: collapse_key.map(str::to_owned),
        idempotency: None,
        rows: None,
        channel: Default::default(),
        info: Bytes::new(),
        watched: false,
    };
    pair.node.push(Command::Accept(Box::new(accept)));
    id
}

fn push(pair: &mut Pair, priority: Priority, collapse_key: Option<&str>, payload: &str) -> PushId {
    let id = post(pair, priority, collapse_key, payload);
    pair.node.settle();
    let answers = pair.node.take_push_answers();
    assert!(matches!(answers[..], [(_, Ok(Outcome::Accepted { .. }))]));
    id
}

/// Delivered, collapsed and pending.
fn figures(pair: &Pair, id: PushId) -> [u64; 3] {
    let report = pair.node.reader().report(&app(), id, pair.node.now.0);
    let report: Report = report.unwrap().expect("it is known");
    assert_eq!(report.funnel().check(1), Ok(()));
    [report.delivered, report.collapsed, report.pending]
}

/// A device that takes one message at a time.
fn narrow() -> Connect {
    connect("device")
        .durable()
        .with(Property::ReceiveMaximum(1))
}

/// Moves everything but some queues, until nothing else is left to move.
fn settle_without(pair: &mut Pair, held: impl Fn(Queue) -> bool) {
    while let Some(queue) = pair.node.ready().into_iter().find(|queue| !held(*queue)) {
        pair.node.step(queue);
    }
}

/// Acknowledges what has come, and what comes then. The payloads in the order of their arrival.
fn take_all(pair: &mut Pair, wire: usize) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let heard = pair.drain(wire);
        let publishes: Vec<_> = heard
            .iter()
            .filter(|heard| matches!(heard.packet(), Packet::Publish(_)))
            .collect();
        if publishes.is_empty() {
            return got;
        }
        for publish in publishes {
            got.push(publish.payload().to_owned());
            pair.acknowledge(wire, publish);
        }
    }
}

#[test]
fn a_high_one_is_next_for_a_device_whose_window_is_full() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    for number in 0..300 {
        push(&mut pair, Normal, None, &format!("{number}"));
    }
    let first = pair.expect_publish(device, "0");
    for number in 0..70 {
        push(&mut pair, High, None, &format!("high {number}"));
    }
    pair.acknowledge(device, &first);
    let got = take_all(&mut pair, device);
    let high = (0..70).map(|number| format!("high {number}"));
    let normal = (1..300).map(|number| format!("{number}"));
    assert!(got.into_iter().eq(high.chain(normal)));
}

#[test]
fn a_high_one_is_next_while_a_page_is_being_read() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    for number in 0..2 {
        push(&mut pair, Normal, None, &format!("{number}"));
    }
    let first = pair.expect_publish(device, "0");
    pair.send(device, puback(first.id()));
    let second = pair.expect_publish(device, "1");
    for number in 2..100 {
        push(&mut pair, Normal, None, &format!("{number}"));
    }
    let reads = |queue| matches!(queue, Queue::Read(_) | Queue::Page(_));
    pair.post(device, puback(second.id()));
    settle_without(&mut pair, reads);
    pair.expect_silence(device);
    post(&mut pair, High, None, "high");
    settle_without(&mut pair, reads);
    pair.take(device, "high");
    assert_eq!(take_all(&mut pair, device).len(), 98);
}

#[test]
fn a_device_that_returns_gets_the_high_ones_first_and_low_ones_now_and_then() {
    for receive_maximum in [1, 100] {
        let mut pair = Pair::new();
        let limit = Property::ReceiveMaximum(receive_maximum);
        let device = pair.connect(connect("device").durable().with(limit));
        pair.cut(device);
        for number in 0..40 {
            push(&mut pair, Low, None, &format!("low {number}"));
            push(&mut pair, Normal, None, &format!("normal {number}"));
        }
        for number in 0..3 {
            push(&mut pair, High, None, &format!("high {number}"));
        }
        let limit = Property::ReceiveMaximum(receive_maximum);
        let back = pair.connect_present(connect("device").durable().with(limit), true);
        let got = take_all(&mut pair, back);
        let mut expected: Vec<_> = (0..3).map(|number| format!("high {number}")).collect();
        for number in 0..40 {
            if number == 15 || number == 30 {
                expected.push(format!("low {}", number / 15 - 1));
            }
            expected.push(format!("normal {number}"));
        }
        expected.extend((2..40).map(|number| format!("low {number}")));
        assert_eq!(got, expected);
    }
}

#[test]
fn pushes_to_all_are_as_urgent_as_the_normal_ones() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    pair.cut(device);
    for number in 0..3 {
        let now = pair.node.now;
        let accept = Accept {
            app: app(),
            id: PushId(pair.node.ids().next(now).0),
            accepted_ms: now.0,
            expires_ms: now.0 + 60_000,
            audience: Audience::All,
            payload: format!("all {number}").into(),
            priority: Normal,
            collapse_key: None,
            idempotency: None,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        };
        pair.node.push(Command::Accept(Box::new(accept)));
        pair.node.settle();
        pair.node.take_push_answers();
        for (priority, name) in [(Low, "low"), (Normal, "normal"), (High, "high")] {
            push(&mut pair, priority, None, &format!("{name} {number}"));
        }
    }
    let back = pair.connect_present(narrow(), true);
    let got = take_all(&mut pair, back);
    let expected = [
        "high 0", "high 1", "high 2", "all 0", "normal 0", "all 1", "normal 1", "all 2",
        "normal 2", "low 0", "low 1", "low 2",
    ];
    assert_eq!(got, expected);
}

#[test]
fn what_was_sent_before_comes_again_before_what_is_high() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    push(&mut pair, Normal, None, "sent");
    pair.expect_publish(device, "sent");
    pair.cut(device);
    push(&mut pair, High, None, "high");
    let back = pair.connect_present(narrow(), true);
    assert_eq!(take_all(&mut pair, back), ["sent", "high"]);
    pair.expect_silence(back);
}

#[test]
fn each_comes_once_whatever_lane_it_waits_in() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device").durable());
    for (priority, name) in [(Low, "low"), (High, "high"), (Normal, "normal")] {
        let id = push(&mut pair, priority, None, name);
        pair.take(device, name);
        pair.advance(200);
        assert_eq!(figures(&pair, id), [1, 0, 0]);
    }
    let mut pair = pair.crash_and_restart(NodeConfig::default());
    let back = pair.connect_present(connect("device").durable(), true);
    pair.expect_silence(back);
}

#[test]
fn only_the_last_of_a_key_waits() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    push(&mut pair, Normal, None, "first");
    let first = pair.expect_publish(device, "first");
    let ids: Vec<_> = (0..5)
        .map(|goals| push(&mut pair, Normal, Some("score"), &format!("{goals}:0")))
        .collect();
    push(&mut pair, Normal, Some("weather"), "rain");
    pair.acknowledge(device, &first);
    assert_eq!(take_all(&mut pair, device), ["4:0", "rain"]);
    pair.advance(200);
    for id in &ids[..4] {
        assert_eq!(figures(&pair, *id), [0, 1, 0]);
    }
    assert_eq!(figures(&pair, ids[4]), [1, 0, 0]);
}

/// The shard has read it already, and forgets it.
#[test]
fn one_that_is_replaced_is_not_sent_from_memory() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    pair.cut(device);
    push(&mut pair, Normal, None, "before");
    let old = push(&mut pair, Normal, Some("score"), "1:0");
    push(&mut pair, Normal, None, "after");
    let back = pair.connect_present(narrow(), true);
    let first = pair.expect_publish(back, "before");
    push(&mut pair, Normal, Some("score"), "2:0");
    pair.acknowledge(back, &first);
    assert_eq!(take_all(&mut pair, back), ["after", "2:0"]);
    assert_eq!(figures(&pair, old), [0, 1, 0]);
}

/// It is on its way from the disk.
#[test]
fn one_that_is_replaced_while_it_is_read_is_not_sent() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    pair.cut(device);
    let old = push(&mut pair, Normal, Some("score"), "1:0");
    push(&mut pair, Normal, None, "after");
    let back = pair.open(campanile_mqtt::Version::V5);
    pair.post(back, narrow().clean(false));
    settle_without(&mut pair, |queue| matches!(queue, Queue::Page(_)));
    post(&mut pair, High, Some("score"), "2:0");
    settle_without(&mut pair, |queue| matches!(queue, Queue::Page(_)));
    pair.node.settle();
    assert!(matches!(pair.next(back).packet(), Packet::ConnAck(_)));
    assert_eq!(take_all(&mut pair, back), ["2:0", "after"]);
    pair.advance(200);
    assert_eq!(figures(&pair, old), [0, 1, 0]);
}

#[test]
fn one_that_was_sent_is_delivered_if_it_is_acknowledged() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    let old = push(&mut pair, Normal, Some("score"), "1:0");
    let sent = pair.expect_publish(device, "1:0");
    let new = push(&mut pair, Normal, Some("score"), "2:0");
    assert_eq!(figures(&pair, old), [0, 1, 0]);
    pair.acknowledge(device, &sent);
    assert_eq!(take_all(&mut pair, device), ["2:0"]);
    pair.advance(200);
    assert_eq!(figures(&pair, old), [1, 0, 0]);
    assert_eq!(figures(&pair, new), [1, 0, 0]);
}

#[test]
fn one_that_was_sent_to_a_lost_connection_is_not_sent_again() {
    let mut pair = Pair::new();
    let device = pair.connect(narrow());
    let old = push(&mut pair, Normal, Some("score"), "1:0");
    pair.expect_publish(device, "1:0");
    pair.cut(device);
    push(&mut pair, Normal, Some("score"), "2:0");
    let back = pair.connect_present(narrow(), true);
    assert_eq!(take_all(&mut pair, back), ["2:0"]);
    pair.advance(200);
    assert_eq!(figures(&pair, old), [0, 1, 0]);
}
