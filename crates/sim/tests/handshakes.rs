//! Exchanges of real clients with a node, with a fault at every step: what arrives, and how often.
//!
//! A publisher and a subscriber, both with sessions that stay, exchange a few messages. Everything that moves, a byte string on a wire or an item in a queue of
//! the node, moves one at a time in a fixed order, so that "before the n-th move" names a moment exactly.

use std::collections::BTreeSet;

use campanile_mqtt::{
    Properties, QoS, SubscriptionOptions, Version,
    client::{Client, Event, Options, Publication},
};
use campanile_sim::{node::Queue, pair::Pair};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection of a peer breaks; what is on it, both ways, is lost.
    Cut(Who),
    /// Both do.
    CutBoth,
    /// The node dies and starts again; what its store has not committed is lost.
    Crash,
    /// The node stops in an orderly way and starts again.
    Restart,
    /// The store cannot write for this many moves.
    StoreFails(usize),
    /// So many milliseconds pass.
    Time(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Publisher = 0,
    Subscriber = 1,
}

/// Which of several things that can move does.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Inside of the node first, then what it says, then what it hears.
    NodeFirst,
    /// The other way round.
    NodeLast,
}

/// A client at its end of a wire.
struct Peer {
    client: Client,
    wire: Option<usize>,
}

struct Stage {
    pair: Pair,
    peers: [Peer; 2],
    version: Version,
    qos: QoS,
    order: Order,
    /// Payloads to publish, again if they were refused.
    todo: Vec<String>,
    /// By packet identifier, what is being published.
    under_way: Vec<(u16, String)>,
    published: Vec<String>,
    received: Vec<String>,
    subscribed: bool,
    moves: usize,
    store_heals: Option<usize>,
}

/// Who talks how.
#[derive(Clone, Copy, Debug)]
struct Setting {
    version: Version,
    qos: QoS,
    /// Of the subscriber.
    filter: &'static str,
    /// The subscriber's session outlives its connection.
    stays: bool,
}

impl Setting {
    fn new(version: Version, qos: QoS) -> Setting {
        Setting {
            version,
            qos,
            filter: "t",
            stays: true,
        }
    }
}

const MESSAGES: [&str; 3] = ["one", "two", "three"];

impl Stage {
    fn new(setting: Setting, order: Order) -> Stage {
        let Setting {
            version,
            qos,
            filter,
            stays,
        } = setting;
        let peer = |name: &str, session_expiry| Peer {
            client: Client::new(Options {
                version,
                client_id: name.to_owned(),
                session_expiry,
                keep_alive: 0,
                ..Options::default()
            }),
            wire: None,
        };
        let mut stage = Stage {
            pair: Pair::new(),
            peers: [
                peer("publisher", 3600),
                peer("subscriber", if stays { 3600 } else { 0 }),
            ],
            version,
            qos,
            order,
            todo: Vec::new(),
            under_way: Vec::new(),
            published: Vec::new(),
            received: Vec::new(),
            subscribed: false,
            moves: 0,
            store_heals: None,
        };
        stage.run(&[]);
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let subscriber = &mut stage.peers[1].client;
        subscriber
            .subscribe(&[(filter, options)], Properties::EMPTY, 0)
            .expect("it is connected");
        stage.run(&[]);
        assert!(stage.subscribed);
        stage.todo = MESSAGES.map(str::to_owned).to_vec();
        stage.moves = 0;
        stage
    }

    /// Moves everything until nothing is left to move, with faults before some moves.
    fn run(&mut self, faults: &[(usize, Fault)]) {
        loop {
            for (at, fault) in faults {
                if *at == self.moves {
                    self.strike(*fault);
                }
            }
            if self.store_heals == Some(self.moves) {
                self.pair.node.store().fail_commits(None);
                self.store_heals = None;
            }
            if !self.step() {
                break;
            }
            self.moves += 1;
            assert!(self.moves < 5000, "it does not come to rest");
        }
        if self.store_heals.take().is_some() {
            self.pair.node.store().fail_commits(None);
        }
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(who) => self.cut(who as usize),
            Fault::CutBoth => (0..2).for_each(|peer| self.cut(peer)),
            Fault::Crash => {
                self.pair.crash();
                self.lose_all();
            }
            Fault::Restart => {
                self.pair.restart();
                self.lose_all();
            }
            Fault::StoreFails(moves) => {
                self.pair.node.store().fail_commits(Some("disk full"));
                self.store_heals = Some(self.moves + moves);
            }
            Fault::Time(ms) => self.pair.node.advance(ms),
        }
    }

    fn cut(&mut self, peer: usize) {
        if let Some(wire) = self.peers[peer].wire.take() {
            self.pair.node.cut(wire);
            self.peers[peer].client.on_closed();
            self.events(peer);
        }
    }

    fn lose_all(&mut self) {
        self.store_heals = None;
        for peer in 0..2 {
            if self.peers[peer].wire.take().is_some() {
                self.peers[peer].client.on_closed();
                self.events(peer);
            }
        }
    }

    /// Makes the next move. Whether there was one.
    fn step(&mut self) -> bool {
        match self.order {
            Order::NodeFirst => {
                self.step_node() || self.step_out() || self.step_client() || self.step_in()
            }
            Order::NodeLast => {
                self.step_in() || self.step_client() || self.step_out() || self.step_node()
            }
        }
    }

    fn step_node(&mut self) -> bool {
        let ready = self.pair.node.ready();
        let queue: Option<&Queue> = match self.order {
            Order::NodeFirst => ready.first(),
            Order::NodeLast => ready.last(),
        };
        if let Some(queue) = queue {
            self.pair.node.step(*queue);
        }
        queue.is_some()
    }

    /// From the node to a client.
    fn step_out(&mut self) -> bool {
        for peer in 0..2 {
            let Some(wire) = self.peers[peer].wire else {
                continue;
            };
            let bytes = self.pair.node.take_output(wire);
            let closed = self.pair.node.is_closed(wire);
            if bytes.is_empty() && !closed {
                continue;
            }
            self.peers[peer].client.handle_bytes(&bytes, 0);
            self.events(peer);
            if closed {
                self.peers[peer].wire = None;
                self.peers[peer].client.on_closed();
                self.events(peer);
            }
            return true;
        }
        false
    }

    /// From a client to the node.
    fn step_in(&mut self) -> bool {
        for Peer { client, wire } in &mut self.peers {
            let Some(wire) = *wire else { continue };
            let bytes = client.output().to_vec();
            if bytes.is_empty() {
                continue;
            }
            self.pair.node.send(wire, &bytes);
            client.on_written(bytes.len());
            return true;
        }
        false
    }

    /// What a client does of its own accord: connect, publish.
    fn step_client(&mut self) -> bool {
        for peer in 0..2 {
            let Peer { client, wire } = &mut self.peers[peer];
            if wire.is_none() {
                *wire = Some(self.pair.open(self.version));
                client.connect(false, 0).expect("it is offline");
                return true;
            }
            if peer == 0 && client.is_connected() && !self.todo.is_empty() {
                let payload = self.todo.remove(0);
                let publication = Publication {
                    topic: "t",
                    payload: payload.as_bytes(),
                    qos: self.qos,
                    ..Publication::default()
                };
                match client.publish(&publication, 0) {
                    Ok(id) => {
                        let id = id.expect("QoS 1 and 2 have one").get();
                        self.under_way.push((id, payload));
                    }
                    Err(_) => {
                        self.todo.insert(0, payload);
                        continue;
                    }
                }
                return true;
            }
        }
        false
    }

    fn events(&mut self, peer: usize) {
        while let Some(event) = self.peers[peer].client.poll_event() {
            match event {
                Event::Message(message) => {
                    let payload = String::from_utf8(message.payload).expect("it is text");
                    self.received.push(payload);
                }
                Event::Published {
                    packet_id, reason, ..
                } => {
                    let at = self
                        .under_way
                        .iter()
                        .position(|(id, _)| *id == packet_id.get())
                        .expect("it was published");
                    let (_, payload) = self.under_way.remove(at);
                    if reason.is_error() {
                        self.todo.push(payload);
                    } else {
                        self.published.push(payload);
                    }
                }
                Event::Subscribed { granted, .. } => {
                    self.subscribed = granted.iter().all(Result::is_ok);
                }
                Event::Dropped { .. } => panic!("the session was lost"),
                Event::Failed(failure) => panic!("the node broke a rule: {failure:?}"),
                _ => {}
            }
        }
    }

    /// All messages were acknowledged and arrived, of QoS 2 once; a later connection brings nothing new.
    fn check(mut self, what: &str) {
        let expected: BTreeSet<&str> = MESSAGES.into_iter().collect();
        let published: BTreeSet<&str> = self.published.iter().map(String::as_str).collect();
        assert_eq!(published, expected, "acknowledged, {what}");
        self.pair.advance(2000);
        self.run(&[]);
        let received: BTreeSet<&str> = self.received.iter().map(String::as_str).collect();
        assert_eq!(received, expected, "received, {what}");
        if self.qos == QoS::ExactlyOnce {
            assert_eq!(
                self.received.len(),
                3,
                "received {:?}, {what}",
                self.received
            );
        }
        let before = self.received.len();
        for fault in [Fault::CutBoth, Fault::Crash, Fault::Restart] {
            self.pair.advance(2000);
            self.strike(fault);
            self.run(&[]);
            let more = &self.received[before..];
            assert!(more.is_empty(), "{more:?} again after {fault:?}, {what}");
        }
    }
}

fn moves_without_fault(setting: Setting, order: Order) -> usize {
    let mut stage = Stage::new(setting, order);
    stage.run(&[]);
    let moves = stage.moves;
    stage.check("without a fault");
    moves
}

fn check_every_moment(setting: Setting, faults: &[Fault]) {
    for order in [Order::NodeFirst, Order::NodeLast] {
        let moves = moves_without_fault(setting, order);
        assert!(moves > 15, "{moves} moves are not much of a conversation");
        for at in 0..=moves {
            for &fault in faults {
                let mut stage = Stage::new(setting, order);
                stage.run(&[(at, fault)]);
                let what = format!("{setting:?} {order:?} {fault:?} before move {at}");
                stage.check(&what);
            }
        }
    }
}

const FAULTS: [Fault; 8] = [
    Fault::Cut(Who::Publisher),
    Fault::Cut(Who::Subscriber),
    Fault::CutBoth,
    Fault::Crash,
    Fault::Restart,
    Fault::StoreFails(1),
    Fault::StoreFails(6),
    Fault::Time(150),
];

#[test]
fn qos_2_arrives_once_whatever_breaks_at_any_moment() {
    for version in [Version::V311, Version::V5] {
        check_every_moment(Setting::new(version, QoS::ExactlyOnce), &FAULTS);
    }
}

#[test]
fn qos_2_arrives_once_at_a_client_without_a_lasting_session() {
    let faults = [
        Fault::Cut(Who::Publisher),
        Fault::StoreFails(1),
        Fault::StoreFails(6),
    ];
    let setting = Setting {
        stays: false,
        ..Setting::new(Version::V5, QoS::ExactlyOnce)
    };
    check_every_moment(setting, &faults);
}

#[test]
fn a_member_of_a_shared_subscription_gets_what_another_subscriber_would() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let setting = Setting {
            filter: "$share/g/t",
            ..Setting::new(Version::V5, qos)
        };
        check_every_moment(setting, &FAULTS);
    }
}

#[test]
fn qos_1_arrives_whatever_breaks_at_any_moment() {
    for version in [Version::V311, Version::V5] {
        check_every_moment(Setting::new(version, QoS::AtLeastOnce), &FAULTS);
    }
}

#[test]
fn qos_2_arrives_once_though_two_things_break() {
    let faults = [
        Fault::Cut(Who::Publisher),
        Fault::Cut(Who::Subscriber),
        Fault::Crash,
        Fault::StoreFails(3),
    ];
    let setting = Setting::new(Version::V5, QoS::ExactlyOnce);
    for order in [Order::NodeFirst, Order::NodeLast] {
        let moves = moves_without_fault(setting, order);
        for first in 0..moves {
            for apart in [1, 2, 5] {
                for one in faults {
                    for other in faults {
                        let mut stage = Stage::new(setting, order);
                        stage.run(&[(first, one), (first + apart, other)]);
                        let what = format!("{order:?} {one:?} at {first}, {other:?} {apart} later");
                        stage.check(&what);
                    }
                }
            }
        }
    }
}
