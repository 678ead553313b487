//! `kill -9` in the middle of traffic, and an exact account of what arrived.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
/// Unacknowledged messages at a time; fewer than the node announces as Receive Maximum, so that no client has to count them.
const WINDOW: usize = 16;

/// Publishes with a client that goes on after each crash, to a device that does the same; answers with what arrived, in order.
fn numbers_received_over_crashes(protocol: Protocol, qos: u8) -> Vec<u32> {
    let mut node = Node::start();
    let connect = |kind, id| {
        let session = Session::kept(id).reconnecting();
        Client::connect(&node, kind, protocol, Transport::Tcp, session)
    };
    let mut device = connect(Kind::Paho, "device");
    device.subscribe("flow/#", qos);
    // Not Paho: after two attempts to connect that fail it publishes anew what was released already.
    let mut publisher = connect(Kind::MqttJs, "publisher");
    thread::scope(|scope| {
        scope.spawn(|| publish_numbers(&mut publisher, qos));
        let mut received: Vec<u32> = Vec::new();
        let mut next_kill = KILL_EVERY;
        let mut kills = 0;
        loop {
            let payload = device.next_message().payload;
            if payload == "end" {
                assert!(kills >= 3, "the node was killed {kills} times");
                return received;
            }
            let n = payload.parse().expect("the payload is a number");
            received.push(n);
            if n >= next_kill && n < MESSAGES - KILL_EVERY / 2 {
                next_kill = n + KILL_EVERY;
                kills += 1;
                node.kill9();
                node.start_again();
            }
        }
    })
}

/// Publishes all numbers, and "end" once they are acknowledged: what would come twice comes before that.
fn publish_numbers(publisher: &mut Client, qos: u8) {
    let mut under_way = VecDeque::new();
    for n in 0..MESSAGES {
        if under_way.len() == WINDOW {
            await_acknowledged(publisher, qos, &mut under_way);
        }
        under_way.push_back(publisher.publish_later("flow/a", &n.to_string(), qos));
    }
    while !under_way.is_empty() {
        await_acknowledged(publisher, qos, &mut under_way);
    }
    publisher.publish("flow/a", "end", qos);
}

fn await_acknowledged(publisher: &mut Client, qos: u8, under_way: &mut VecDeque<u64>) {
    let first = under_way.pop_front().expect("something is under way");
    let code = publisher.await_published(first);
    // 5.0: a PUBREL that is repeated after the crash may find that all is done, "packet identifier not found".
    assert!(code == 0 || (qos == 2 && code == 0x92), "{code:#04x}");
}

/// Checks that all numbers came once each and in order, and says what did not.
fn check_exactly_once(received: &[u32]) {
    let mut counts = vec![0; MESSAGES as usize];
    received.iter().for_each(|n| counts[*n as usize] += 1);
    let wrong: Vec<_> = (0..).zip(counts).filter(|(_, count)| *count != 1).collect();
    let jumps: Vec<_> = received
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .collect();
    assert!(
        wrong.is_empty() && jumps.is_empty(),
        "(number, times) {wrong:?}, out of order {jumps:?}"
    );
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
    check_exactly_once(&numbers_received_over_crashes(Protocol::V5, 2));
}

#[test]
fn qos_2_of_3_1_1_arrives_exactly_once_and_in_order_over_crashes() {
    check_exactly_once(&numbers_received_over_crashes(Protocol::V311, 2));
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
