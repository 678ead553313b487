//! `kill -9` in the middle of traffic, and an exact account of what arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::harness::{
    Client, Kind, Message, Node, PATIENCE, Protocol, Push, Raw, Session, Transport, eventually,
};

const MESSAGES: u32 = 1200;
/// The node is killed each time that many messages more have arrived.
const KILL_EVERY: u32 = 250;

/// Publishes with a client that goes on after each crash, to a device that does the same; answers with what arrived, in order.
fn numbers_received_over_crashes(protocol: Protocol, qos: u8) -> Vec<u32> {
    let mut node = Node::start();
    let connect = |id| {
        Client::connect(
            &node,
            Kind::Paho,
            protocol,
            Transport::Tcp,
            Session::kept(id).reconnecting(),
        )
    };
    let mut device = connect("device");
    device.subscribe("flow/#", qos);
    let mut publisher = connect("publisher");
    let published: Vec<u64> = (0..MESSAGES)
        .map(|n| publisher.publish_later("flow/a", &n.to_string(), qos))
        .collect();

    let mut received: Vec<u32> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next_kill = KILL_EVERY;
    while seen.len() < MESSAGES as usize {
        let message = device.next_message();
        let n = message.payload.parse().expect("the payload is a number");
        received.push(n);
        seen.insert(n);
        if n >= next_kill && n < MESSAGES - KILL_EVERY / 2 {
            next_kill = n + KILL_EVERY;
            node.kill9();
            node.start_again();
        }
    }
    assert!(
        next_kill > 3 * KILL_EVERY,
        "the node was killed three times at least"
    );
    for id in published {
        assert_eq!(publisher.await_published(id), 0);
    }
    // What would come twice would come before this.
    publisher.publish("flow/a", &MESSAGES.to_string(), qos);
    loop {
        let n: u32 = device
            .next_message()
            .payload
            .parse()
            .expect("the payload is a number");
        if n == MESSAGES {
            return received;
        }
        received.push(n);
    }
}

/// Numbers at their first occurrence.
fn first_occurrences(numbers: &[u32]) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    numbers
        .iter()
        .copied()
        .filter(|n| seen.insert(*n))
        .collect()
}

#[test]
fn qos_1_of_5_0_arrives_at_least_once_and_in_order_over_crashes() {
    let received = numbers_received_over_crashes(Protocol::V5, 1);
    assert_eq!(
        first_occurrences(&received),
        (0..MESSAGES).collect::<Vec<_>>()
    );
}

#[test]
fn qos_1_of_3_1_1_arrives_at_least_once_and_in_order_over_crashes() {
    let received = numbers_received_over_crashes(Protocol::V311, 1);
    assert_eq!(
        first_occurrences(&received),
        (0..MESSAGES).collect::<Vec<_>>()
    );
}

#[test]
fn qos_2_of_5_0_arrives_exactly_once_and_in_order_over_crashes() {
    assert_eq!(
        numbers_received_over_crashes(Protocol::V5, 2),
        (0..MESSAGES).collect::<Vec<_>>()
    );
}

#[test]
fn qos_2_of_3_1_1_arrives_exactly_once_and_in_order_over_crashes() {
    assert_eq!(
        numbers_received_over_crashes(Protocol::V311, 2),
        (0..MESSAGES).collect::<Vec<_>>()
    );
}

/// A publisher that never repeats: what was acknowledged must be there, the rest may be.
#[test]
fn what_was_acknowledged_before_the_crash_is_there_after_it() {
    let mut node = Node::start();
    let mut device = Client::v5(&node, Session::kept("device"));
    device.subscribe("flow", 1);
    device.disconnect();

    let mut acknowledged = BTreeSet::new();
    let mut next = 1_u16;
    for round in 0..5 {
        let mut publisher = Raw::connected(&node, 4, "publisher");
        let begin = next;
        for _ in 0..200 {
            let id = next.to_be_bytes();
            publisher.send_packet(
                0x32,
                &[b"\0\x04flow", &id[..], next.to_string().as_bytes()].concat(),
            );
            next += 1;
        }
        // 3.1.1 has no receive maximum: all of them are on their way. The kill comes between acknowledgements.
        for _ in 0..20 + 40 * round {
            let (kind, body) = publisher.packet().expect("an acknowledgement");
            assert_eq!(kind, 0x40);
            acknowledged.insert(u16::from_be_bytes([body[0], body[1]]));
        }
        node.kill9();
        while let Some((_, body)) = publisher.packet() {
            acknowledged.insert(u16::from_be_bytes([body[0], body[1]]));
        }
        assert!(acknowledged.contains(&begin));
        node.start_again();
    }

    Client::v5(&node, Session::clean("publisher")).publish("flow", "end", 1);
    let device = Client::v5(&node, Session::kept("device"));
    let mut received = Vec::new();
    while let Ok(n) = device.next_message().payload.parse::<u16>() {
        received.push(n);
    }
    assert!(
        received.is_sorted_by(|a, b| a < b),
        "in order and once each, since the device was never connected: {received:?}"
    );
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|n| received.binary_search(n).is_err())
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// A push that a caller tries again until it is accepted, always with the same idempotency key.
fn push_until_accepted(node: &Mutex<Node>, push: &Push) -> String {
    eventually("acceptance", || {
        // The node is locked only to look up its address: requests must be under way when it is killed.
        let (target, head) =
            push.prepare(&node.lock().expect("no test thread panics with the node"));
        let response = crate::harness::request(target, &head, &push.body())
            .ok()
            .filter(|response| response.status == 202)?;
        Some(
            response.json()["push_id"]
                .as_str()
                .expect("an accepted push has an id")
                .to_owned(),
        )
    })
}

#[test]
fn pushes_arrive_once_per_id_and_in_order_over_crashes() {
    const PUSHERS: u32 = 4;
    const PUSHES: u32 = 100;
    let node = Node::start();
    let mut away = Client::v5(&node, Session::kept("away"));
    away.subscribe("unused", 0);
    away.disconnect();
    let live = Client::v5(&node, Session::kept("live").reconnecting());
    let node = Mutex::new(node);
    let accepted = Mutex::new(BTreeMap::<String, u32>::new());
    let count = AtomicUsize::new(0);

    thread::scope(|scope| {
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let (node, accepted, count) = (&node, &accepted, &count);
                scope.spawn(move || {
                    for n in pusher * PUSHES..(pusher + 1) * PUSHES {
                        let push = if n % 2 == 0 {
                            Push::to_all(n)
                        } else {
                            Push::to_devices(&["live", "away"], n)
                        };
                        let id =
                            push_until_accepted(node, &push.idempotency_key(&format!("key-{n}")));
                        let twice = accepted.lock().expect("no holder panics").insert(id, n);
                        assert_eq!(twice, None, "two pushes have the same id");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for target in [60, 150, 240, 330] {
            eventually("pushes", || {
                let ended = pushers.iter().all(|pusher| pusher.is_finished());
                (ended || count.load(Ordering::Relaxed) >= target).then_some(())
            });
            let mut node = node.lock().expect("no holder panics");
            node.kill9();
            node.start_again();
        }
        pushers
            .into_iter()
            .for_each(|pusher| pusher.join().expect("the pushes are accepted"));
    });

    let node = node.into_inner().expect("no holder panics");
    let accepted = accepted.into_inner().expect("no holder panics");
    let last = Push::to_all(u32::MAX).send(&node);
    let away = Client::v5(&node, Session::kept("away"));
    for (name, device) in [("live", &live), ("away", &away)] {
        let received = until_push(device, &last);
        let mut once = BTreeMap::new();
        let mut order: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for message in &received {
            let document = message.json();
            let n = number(&document);
            let id = document["id"]
                .as_str()
                .expect("a push has an id")
                .to_owned();
            if once.insert(id, n).is_none() {
                order.entry(n / PUSHES).or_default().push(n);
            }
        }
        assert_eq!(once, accepted, "{name}: received is what was accepted");
        order.values().for_each(|numbers| {
            assert!(
                numbers.is_sorted(),
                "{name}: order of acceptance: {numbers:?}"
            )
        });
    }
    let received = BTreeSet::from_iter(accepted.values());
    assert_eq!(received.len(), (PUSHERS * PUSHES) as usize);
}

fn number(document: &Value) -> u32 {
    document["data"]["n"]
        .as_u64()
        .and_then(|n| n.try_into().ok())
        .expect("a push of this test has a number")
}

/// All pushes before the last one.
fn until_push(device: &Client, last: &str) -> Vec<Message> {
    let mut received = Vec::new();
    loop {
        let message = device
            .message_within(PATIENCE)
            .expect("the last push arrives");
        if message.payload.contains(last) {
            return received;
        }
        received.push(message);
    }
}
