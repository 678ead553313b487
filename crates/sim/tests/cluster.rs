//! Conversations with several nodes: the main flows between them, by hand.

use bytes::Bytes;
use campanile_broker::{
    cluster::peer::PeerMessage,
    ids::{AppId, Offset},
    store::Change,
};
use campanile_mqtt::{Packet, Property, QoS, Reason, Split, Version, split};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    rows::{self, Key, Scope, Table},
    store::{Accept, Audience, Command},
};
use campanile_sim::{
    fleet::{Cut, Fleet, FleetConfig, Move, sabotage::Sabotage},
    packets::{
        self, Heard, Say, connect, puback, pubcomp, publish, pubrec, pubrel, subscribe, will,
    },
    pair::START,
    shards::Step,
};

/// A fleet and the wires of its clients.
struct Town {
    fleet: Fleet,
    wires: Vec<Wire>,
}

struct Wire {
    node: usize,
    number: usize,
    received: Vec<u8>,
}

impl Town {
    fn of(nodes: usize) -> Town {
        Town::with(nodes, None)
    }

    fn with(nodes: usize, sabotage: Option<Sabotage>) -> Town {
        let config = FleetConfig {
            nodes,
            sabotage,
            ..FleetConfig::default()
        };
        let mut town = Town {
            fleet: Fleet::new(config, START),
            wires: Vec::new(),
        };
        town.wait(2000);
        town
    }

    /// Time passes, and everything that can move does.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.fleet.settle();
            self.fleet.advance(100);
        }
        self.fleet.settle();
    }

    /// Everything that can move does, but for some things.
    fn settle_but(&mut self, held: &[Move]) {
        let next = |fleet: &Fleet| {
            let mut ready = fleet.ready().into_iter();
            ready.find(|step| !held.contains(step))
        };
        while let Some(step) = next(&self.fleet) {
            self.fleet.step(step);
        }
    }

    fn post(&mut self, wire: usize, packet: impl Say) {
        let bytes = packet.bytes(Version::V5);
        let Wire { node, number, .. } = self.wires[wire];
        let member = self.fleet.member(node).expect("it runs");
        member.shards.send(number, &bytes);
    }

    fn send(&mut self, wire: usize, packet: impl Say) {
        self.post(wire, packet);
        self.wait(500);
    }

    fn open(&mut self, node: usize) -> usize {
        let number = self.fleet.connect(node, 0);
        self.wires.push(Wire {
            node,
            number,
            received: Vec::new(),
        });
        self.wires.len() - 1
    }

    fn poll(&mut self, wire: usize) -> Option<Heard> {
        let wire = &mut self.wires[wire];
        if let Some(member) = self.fleet.member(wire.node) {
            wire.received.extend(member.shards.take_output(wire.number));
        }
        match split(&wire.received, u32::MAX) {
            Ok(Split::Packet { total_len, .. }) => {
                let bytes = wire.received.drain(..total_len).collect();
                Some(Heard::new(Version::V5, bytes))
            }
            _ => None,
        }
    }

    #[track_caller]
    fn next(&mut self, wire: usize) -> Heard {
        match self.poll(wire) {
            Some(heard) => heard,
            None => panic!("a packet was expected on wire {wire}"),
        }
    }

    #[track_caller]
    fn connect(&mut self, node: usize, packet: packets::Connect) -> usize {
        let wire = self.open(node);
        self.send(wire, packet);
        self.wait(1500);
        let heard = self.next(wire);
        assert!(matches!(heard.packet(), Packet::ConnAck(ack) if ack.reason == Reason::Success));
        wire
    }

    #[track_caller]
    fn subscribe(&mut self, wire: usize, filter: &str, qos: u8) {
        self.send(wire, subscribe(1).filter(filter, qos));
        self.wait(1500);
        let heard = self.next(wire);
        assert!(matches!(heard.packet(), Packet::SubAck(_)), "{heard:?}");
    }

    /// QoS 1, acknowledged.
    #[track_caller]
    fn publish(&mut self, wire: usize, topic: &str, payload: &str) {
        self.send(wire, publish(topic, payload).qos1(9));
        self.wait(1500);
        let heard = self.next(wire);
        assert!(matches!(heard.packet(), Packet::PubAck(_)), "{heard:?}");
    }

    #[track_caller]
    fn expect_publish(&mut self, wire: usize, payload: &str) -> Heard {
        let heard = self.next(wire);
        assert!(matches!(heard.packet(), Packet::Publish(_)), "{heard:?}");
        assert_eq!(heard.payload(), payload);
        heard
    }

    #[track_caller]
    fn expect_silence(&mut self, wire: usize) {
        if let Some(heard) = self.poll(wire) {
            panic!("nothing was expected on wire {wire}: {heard:?}");
        }
    }

    fn cut(&mut self, wire: usize) {
        let Wire { node, number, .. } = self.wires[wire];
        self.fleet.cut(node, number);
        self.wait(500);
    }

    fn push(&mut self, node: usize, device: &str, payload: &str) {
        self.post_push(node, Audience::Devices(vec![device.into()]), payload);
        self.wait(500);
        self.expect_done();
    }

    fn push_to(&mut self, node: usize, audience: &'static str, payload: &str) {
        let audience = Audience::Matching(Bytes::from_static(audience.as_bytes()));
        self.post_push(node, audience, payload);
    }

    /// Says through a node what is known of a device.
    fn set_profile(&mut self, node: usize, device: &str, words: &str) {
        let clock = self.fleet.clock(node);
        let app = AppName::new("default").expect("a valid name");
        let change = rows::Change::new(Scope::App(app), clock.0);
        let change = change.put(Key::new(Table::Device, device), words.to_owned());
        self.fleet.push(node, Command::Change(Box::new(change)));
    }

    fn post_push(&mut self, node: usize, audience: Audience, payload: &str) {
        let accept = self.accept(node, audience, payload);
        self.fleet.push(node, Command::Accept(Box::new(accept)));
    }

    /// A campaign to all, as [`campanile_broker::audience::Words`] reads it.
    fn post_campaign(&mut self, node: usize, row: &'static str) {
        let accept = self.accept(node, Audience::All, "");
        let key = Key::new(Table::Campaign, accept.id.to_string());
        let change = rows::Change::new(Scope::App(accept.app.clone()), accept.accepted_ms);
        let change = change.put_until(key, row, accept.expires_ms);
        let rows = Some(Box::new(change));
        let accept = Accept { rows, ..accept };
        self.fleet.push(node, Command::Accept(Box::new(accept)));
    }

    fn accept(&mut self, node: usize, audience: Audience, payload: &str) -> Accept {
        let clock = self.fleet.clock(node);
        let member = self.fleet.member(node).expect("it runs");
        let id = PushId(member.shards.ids().next(clock).0);
        Accept {
            app: AppName::new("default").expect("a valid name"),
            id,
            accepted_ms: clock.0,
            expires_ms: clock.0 + 3_600_000,
            audience,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            priority: Priority::Normal,
            collapse_key: None,
            idempotency: None,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        }
    }

    /// Everything that was asked through the API is done.
    fn expect_done(&mut self) {
        let answers = self.fleet.take_push_answers();
        assert!(
            answers.iter().all(|(_, answer)| answer.is_ok()),
            "{answers:?}"
        );
    }
}

#[test]
fn a_session_goes_to_another_node_with_its_exchanges() {
    let mut town = Town::of(2);
    let old = town.connect(0, connect("sub").durable());
    town.subscribe(old, "#", 2);
    let publisher = town.connect(1, connect("pub"));
    town.publish(publisher, "a", "one");
    town.post(publisher, publish("b", "two").qos2(5));
    town.wait(500);
    let one = town.expect_publish(old, "one");
    let two = town.expect_publish(old, "two");
    town.send(old, pubrec(two.id()));
    let released = town.next(old);
    assert!(matches!(released.packet(), Packet::PubRel(_)));
    // The other node takes over in the middle of both.
    let new = town.connect(1, connect("sub").clean(false).durable());
    let goodbye = town.next(old);
    let Packet::Disconnect(disconnect) = goodbye.packet() else {
        panic!("{goodbye:?}");
    };
    assert_eq!(disconnect.reason, Reason::SessionTakenOver);
    let again = town.expect_publish(new, "one");
    assert_eq!(again.id(), one.id());
    let Packet::Publish(repeated) = again.packet() else {
        unreachable!("just seen");
    };
    assert!(repeated.dup);
    let release = town.next(new);
    let Packet::PubRel(released) = release.packet() else {
        panic!("{release:?}");
    };
    assert_eq!(released.packet_id.get(), two.id());
    town.send(new, puback(one.id()));
    town.send(new, pubcomp(two.id()));
    town.wait(5000);
    town.expect_silence(new);
}

#[test]
fn exchanges_of_a_publisher_go_on_at_another_node() {
    let mut town = Town::of(2);
    let sub = town.connect(0, connect("sub").durable());
    town.subscribe(sub, "#", 2);
    let publisher = town.connect(0, connect("pub").durable());
    town.send(publisher, publish("a", "once").qos2(5));
    town.cut(publisher);
    let publisher = town.connect(1, connect("pub").clean(false).durable());
    town.send(publisher, publish("a", "once").qos2(5).dup());
    assert!(matches!(town.next(publisher).packet(), Packet::PubRec(_)));
    town.send(publisher, pubrel(5));
    assert!(matches!(town.next(publisher).packet(), Packet::PubComp(_)));
    town.expect_publish(sub, "once");
    town.expect_silence(sub);
}

#[test]
fn a_suback_waits_until_other_nodes_know_of_the_filter() {
    let mut town = Town::of(2);
    let sub = town.connect(0, connect("sub").durable());
    town.post(sub, subscribe(1).filter("a", 1));
    // Everything moves but what node 1 is told.
    let is_told = |step: &Move| matches!(step, Move::Peer(0, 1) | Move::Read(1, _));
    while let Some(next) = town.fleet.ready().into_iter().find(|step| !is_told(step)) {
        town.fleet.step(next);
    }
    town.expect_silence(sub);
    town.wait(300);
    assert!(matches!(town.next(sub).packet(), Packet::SubAck(_)));
    let publisher = town.connect(1, connect("pub"));
    town.publish(publisher, "a", "kept");
    town.expect_publish(sub, "kept");
}

#[test]
fn the_suback_of_a_second_session_with_a_filter_waits_for_the_first() {
    let mut town = Town::of(2);
    let one = town.connect(0, connect("one").durable());
    let other = town.connect(1, connect("other").durable());
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(5000);
    // Nobody tells the second node of the filter, and it has not read of it yet.
    town.post(one, subscribe(1).filter("a", 1));
    town.fleet.settle();
    town.post(other, subscribe(1).filter("a", 1));
    town.fleet.settle();
    town.expect_silence(other);
    town.wait(1500);
    assert!(matches!(town.next(other).packet(), Packet::SubAck(_)));
}

#[test]
fn what_is_retained_through_one_node_is_known_at_another() {
    let mut town = Town::of(2);
    let publisher = town.connect(0, connect("pub"));
    town.send(publisher, publish("a", "still").qos1(3).retain());
    assert!(matches!(town.next(publisher).packet(), Packet::PubAck(_)));
    let sub = town.connect(1, connect("sub"));
    town.subscribe(sub, "a", 1);
    town.expect_publish(sub, "still");
}

#[test]
fn a_retained_qos_2_message_that_other_nodes_do_not_know_yet_is_not_overtaken() {
    let mut town = Town::of(2);
    let sub = town.connect(0, connect("sub"));
    town.subscribe(sub, "a", 2);
    let publisher = town.connect(0, connect("pub").durable());
    town.post(publisher, publish("a", "one").qos2(3).retain());
    town.post(publisher, publish("a", "two").qos2(4));
    // Everything moves but what node 1 is told: the answer for the first is held back, that for the second is not.
    let is_told = |step: &Move| matches!(step, Move::Peer(0, 1) | Move::Read(1, _));
    while let Some(next) = town.fleet.ready().into_iter().find(|step| !is_told(step)) {
        town.fleet.step(next);
    }
    town.expect_silence(sub);
    town.wait(300);
    town.expect_publish(sub, "one");
    town.expect_publish(sub, "two");
    assert!(matches!(town.next(publisher).packet(), Packet::PubRec(_)));
}

#[test]
fn a_dead_nodes_wills_are_published_once() {
    let mut town = Town::of(3);
    let sub = town.connect(0, connect("sub").durable());
    town.subscribe(sub, "w", 2);
    town.connect(2, connect("dying").will(will("w", "gone").qos(2)));
    town.fleet.crash(2);
    town.wait(20_000);
    let gone = town.expect_publish(sub, "gone");
    town.send(sub, pubrec(gone.id()));
    assert!(matches!(town.next(sub).packet(), Packet::PubRel(_)));
    town.send(sub, pubcomp(gone.id()));
    town.wait(60_000);
    town.expect_silence(sub);
}

/// Whether a message comes again at the second node that was acknowledged at the first just before the take-over.
fn repeats_after_a_take_over(sabotage: Option<Sabotage>) -> bool {
    let mut town = Town::with(2, sabotage);
    let old = town.connect(0, connect("sub").durable());
    town.subscribe(old, "a", 1);
    let publisher = town.connect(1, connect("pub"));
    town.publish(publisher, "a", "one");
    let one = town.expect_publish(old, "one");
    // It is not saved yet when the other node claims the session.
    town.post(old, puback(one.id()));
    let new = town.open(1);
    town.post(new, connect("sub").clean(false).durable());
    town.fleet.settle();
    town.wait(3000);
    town.next(new);
    town.poll(new).is_some()
}

#[test]
fn what_was_acknowledged_before_a_take_over_does_not_come_again() {
    assert!(!repeats_after_a_take_over(None));
    for bug in [
        Sabotage::SkipReread,
        Sabotage::LoseHandOvers,
        Sabotage::IgnoreReleases,
    ] {
        assert!(repeats_after_a_take_over(Some(bug)), "{bug:?} is not found");
    }
}

#[test]
fn what_a_device_remembers_goes_to_another_node_though_its_save_comes_too_late() {
    let mut town = Town::of(2);
    let old = town.connect(0, connect("device").durable());
    town.post_campaign(1, "normal 0 - once");
    town.wait(2000);
    town.expect_done();
    let once = town.expect_publish(old, "once");
    town.post(old, puback(once.id()));
    // It is being saved when the other node claims the session.
    let held = [Move::Send(0)];
    town.settle_but(&held);
    town.fleet.advance(200);
    town.settle_but(&held);
    let new = town.open(1);
    town.post(new, connect("device").clean(false).durable());
    town.settle_but(&held);
    town.wait(3000);
    assert!(matches!(town.next(new).packet(), Packet::ConnAck(_)));
    town.expect_silence(new);
}

/// The claim through another node overtakes what the first one saves at the end of a connection. `meanwhile`: what does not move until the store has refused it.
fn claim_overtakes_goodbye(meanwhile: &[Move]) {
    let mut town = Town::of(2);
    let old = town.connect(0, connect("sub").durable());
    town.subscribe(old, "a", 1);
    let publisher = town.connect(1, connect("pub"));
    town.publish(publisher, "a", "one");
    let one = town.expect_publish(old, "one");
    town.post(old, puback(one.id()));
    let held = [&[Move::Send(0)], meanwhile].concat();
    town.settle_but(&held);
    let Wire { node, number, .. } = town.wires[old];
    town.fleet.cut(node, number);
    let new = town.open(1);
    town.post(new, connect("sub").clean(false).durable());
    town.settle_but(&held);
    town.settle_but(meanwhile);
    town.wait(3000);
    assert!(matches!(town.next(new).packet(), Packet::ConnAck(_)));
    town.expect_silence(new);
}

#[test]
fn what_was_acknowledged_before_a_goodbye_that_the_claim_overtakes_does_not_come_again() {
    claim_overtakes_goodbye(&[]);
    claim_overtakes_goodbye(&[Move::Event(0)]);
}

/// Whether a message that a member had not acknowledged comes to another one when the member's node is lost.
fn redelivers(sabotage: Option<Sabotage>) -> bool {
    let mut town = Town::with(3, sabotage);
    let one = town.connect(1, connect("one"));
    town.subscribe(one, "$share/g/a", 1);
    let other = town.connect(2, connect("other"));
    town.subscribe(other, "$share/g/a", 1);
    let publisher = town.connect(0, connect("pub"));
    town.publish(publisher, "a", "x");
    let (node, lacks) = match town.poll(one) {
        Some(_) => (1, other),
        None => (2, one),
    };
    town.expect_silence(lacks);
    town.fleet.crash(node);
    town.wait(2000);
    town.poll(lacks).is_some_and(|heard| heard.payload() == "x")
}

#[test]
fn a_shared_message_in_flight_goes_to_another_member_when_its_node_is_lost() {
    assert!(redelivers(None));
    assert!(!redelivers(Some(Sabotage::ForgetShared)));
}

/// How often a message comes to the last member of a group, if it waited for another member at another node, and the word that it was passed on is lost with the link.
fn arrivals_after_a_lost_word(qos: u8) -> usize {
    let mut town = Town::of(3);
    let one_at_a_time = Property::ReceiveMaximum(1);
    let member = town.connect(1, connect("member").with(one_at_a_time));
    town.subscribe(member, "$share/g/a", qos);
    let publisher = town.connect(0, connect("pub"));
    town.send(publisher, publish("a", "sent").qos(qos, 5));
    town.send(publisher, publish("a", "waits").qos(qos, 6));
    town.expect_publish(member, "sent");
    town.expect_silence(member);
    let last = town.connect(2, connect("last"));
    town.subscribe(last, "$share/g/a", qos);
    let Wire { node, number, .. } = town.wires[member];
    town.fleet.cut(node, number);
    town.settle_but(&[Move::Peer(1, 0)]);
    town.fleet.break_link(0, 1);
    town.wait(3000);
    let heard = std::iter::from_fn(|| town.poll(last));
    heard.filter(|heard| heard.payload() == "waits").count()
}

#[test]
fn a_shared_message_that_two_nodes_keep_comes_twice_but_not_with_qos_2() {
    assert_eq!(arrivals_after_a_lost_word(1), 2);
    assert_eq!(arrivals_after_a_lost_word(2), 1);
}

#[test]
fn a_shared_message_that_is_taken_with_qos_0_is_not_kept() {
    let mut town = Town::of(2);
    let member = town.connect(1, connect("member"));
    town.subscribe(member, "$share/g/a", 0);
    let publisher = town.connect(0, connect("pub"));
    town.publish(publisher, "a", "x");
    town.expect_publish(member, "x");
    let hub = &town.fleet.look_at(0).expect("it runs").hub;
    assert_eq!(hub.waiting().kept, 0);
}

#[test]
fn a_push_through_one_node_reaches_a_device_at_another() {
    let mut town = Town::of(2);
    let device = town.connect(1, connect("device").durable());
    town.push(0, "device", "hello");
    town.expect_publish(device, "hello");
    // Without a link the device's node finds a note.
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(5000);
    town.push(0, "device", "again");
    town.wait(1000);
    town.expect_publish(device, "again");
}

/// Whether a device misses a push that took the place of one which the store's primary had taken and lost.
fn misses_what_follows_a_loss(sabotage: Option<Sabotage>) -> bool {
    let mut town = Town::with(2, sabotage);
    let device = town.connect(1, connect("device").durable());
    // The device's node is about to look for news: places that are given at the same time are the same again after a loss.
    let looks = |step: &Move| matches!(step, Move::Read(1, _));
    while !town.fleet.ready().iter().any(looks) {
        town.fleet.settle();
        town.fleet.advance(100);
    }
    town.post_push(0, Audience::Devices(vec!["device".into()]), "lost");
    town.fleet.step(Move::Send(0));
    town.fleet.step(Move::Arrive(0));
    town.settle_but(&[Move::Sync]);
    if let Some(heard) = town.poll(device) {
        town.post(device, puback(heard.id()));
    }
    town.settle_but(&[Move::Sync]);
    town.fleet.fail_over(0);
    town.post_push(0, Audience::Devices(vec!["device".into()]), "kept");
    town.wait(1000);
    town.poll(device)
        .is_none_or(|heard| heard.payload() != "kept")
}

#[test]
fn what_the_replica_does_not_have_is_not_told() {
    assert!(!misses_what_follows_a_loss(None));
    assert!(misses_what_follows_a_loss(Some(Sabotage::TellUnsafe)));
}

/// In what order two messages come whose publisher sends the second before its node hears that the first was lost, and both again.
fn arrivals_after_a_lost_message(sabotage: Option<Sabotage>) -> Vec<String> {
    let mut town = Town::with(2, sabotage);
    let sub = town.connect(1, connect("sub").durable());
    town.subscribe(sub, "a", 1);
    let publisher = town.connect(0, connect("pub").durable());
    town.post(publisher, publish("a", "first").qos1(1));
    town.settle_but(&[Move::Send(0)]);
    town.fleet.step(Move::Send(0));
    town.fleet.step(Move::Arrive(0));
    town.fleet.fail_over(0);
    town.post(publisher, publish("a", "second").qos1(2));
    let number = town.wires[publisher].number;
    town.fleet.step(Move::Shards(0, Step::Input(number as u32)));
    for step in [Move::Send(0), Move::Arrive(0), Move::Sync, Move::Return(0)] {
        town.fleet.step(step);
    }
    town.wait(1000);
    let member = town.fleet.member(0).expect("it runs");
    assert!(
        member.shards.is_closed(number),
        "nobody knows what became of the first"
    );
    let publisher = town.connect(0, connect("pub").clean(false).durable());
    town.post(publisher, publish("a", "first").qos1(1).dup());
    town.send(publisher, publish("a", "second").qos1(2).dup());
    town.wait(1000);
    let heard = std::iter::from_fn(|| town.poll(sub));
    heard.map(|heard| heard.payload().to_owned()).collect()
}

#[test]
fn nothing_is_kept_behind_what_was_lost_until_its_publisher_has_sent_it_again() {
    assert_eq!(arrivals_after_a_lost_message(None), ["first", "second"]);
    let overtakes = Some(Sabotage::OvertakeFailures);
    assert_eq!(
        arrivals_after_a_lost_message(overtakes),
        ["second", "first", "second"]
    );
}

#[test]
fn sessions_of_a_node_with_a_new_generation_stay_its_own() {
    let mut town = Town::of(2);
    let sub = town.connect(1, connect("sub").durable());
    town.subscribe(sub, "a", 1);
    let before = town.fleet.look_at(1).expect("it runs").generation;
    town.fleet.set_ensemble_cut(1, Some(Cut::Both));
    town.wait(8000);
    town.fleet.set_ensemble_cut(1, None);
    town.wait(60_000);
    let after = town.fleet.look_at(1).expect("it runs").generation;
    assert_ne!(before, after);
    let publisher = town.connect(0, connect("pub"));
    town.publish(publisher, "a", "there?");
    town.expect_publish(sub, "there?");
    let left = town.fleet.leftovers();
    assert!(!left.contains_key(&0x62), "{left:?}");
}

#[test]
fn an_idle_connection_that_was_claimed_elsewhere_is_closed_though_the_nodes_are_apart() {
    let mut town = Town::of(2);
    let old = town.connect(0, connect("sub").durable());
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(5000);
    town.connect(1, connect("sub").clean(false).durable());
    town.wait(2000);
    let member = town.fleet.member(0).expect("it runs");
    assert!(member.shards.is_closed(town.wires[old].number));
}

#[test]
fn a_member_that_left_the_group_while_its_connection_was_lost_is_none() {
    let mut town = Town::of(2);
    let member = town.connect(0, connect("member").durable());
    town.subscribe(member, "$share/g/a", 1);
    town.post(member, packets::unsubscribe(7).filter("$share/g/a"));
    // The store has forgotten it before the node hears so, and the client is gone by then.
    while let Some(next) = town
        .fleet
        .ready()
        .into_iter()
        .find(|step| !matches!(step, Move::Return(0)))
    {
        town.fleet.step(next);
    }
    let Wire { node, number, .. } = town.wires[member];
    town.fleet.cut(node, number);
    town.wait(3000);
    for node in 0..2 {
        for shard in town.fleet.look_at(node).expect("it runs").shards.machines() {
            assert_eq!(shard.stats().subscriptions_filters, 0, "node {node}");
        }
    }
}

#[test]
fn a_node_that_has_not_heard_of_an_unsuback_from_a_peer_believes_the_store() {
    let mut town = Town::of(3);
    let member = town.connect(2, connect("member").durable());
    town.subscribe(member, "$share/g/a", 1);
    let publisher = town.connect(0, connect("pub"));
    town.fleet.set_link_cut(0, 2, Some(Cut::Both));
    town.post(member, packets::unsubscribe(7).filter("$share/g/a"));
    // Longer than a peer is waited for, twice, and shorter than a silent link is trusted.
    town.wait(2500);
    assert!(matches!(town.next(member).packet(), Packet::UnsubAck(_)));
    town.post(publisher, publish("a", "late").qos1(9));
    town.wait(5000);
    assert!(matches!(town.next(publisher).packet(), Packet::PubAck(_)));
    town.expect_silence(member);
}

#[test]
fn a_node_that_stood_still_asks_who_has_joined_a_group_meanwhile() {
    let mut town = Town::of(2);
    let publisher = town.connect(0, connect("pub"));
    town.fleet.set_paused(0, true);
    let member = town.connect(1, connect("member").durable());
    town.post(member, subscribe(1).filter("$share/g/a", 1));
    town.wait(5000);
    assert!(matches!(town.next(member).packet(), Packet::SubAck(_)));
    town.post(publisher, publish("a", "late").qos1(9));
    town.fleet.set_paused(0, false);
    town.wait(3000);
    assert!(matches!(town.next(publisher).packet(), Packet::PubAck(_)));
    town.expect_publish(member, "late");
}

#[test]
fn a_will_waits_until_its_node_knows_who_has_joined_a_group_meanwhile() {
    let mut town = Town::of(2);
    let dying = town.connect(0, connect("dying").will(will("a", "gone").qos(1)));
    town.fleet.set_paused(0, true);
    let member = town.connect(1, connect("member").durable());
    town.post(member, subscribe(1).filter("$share/g/a", 1));
    town.wait(5000);
    assert!(matches!(town.next(member).packet(), Packet::SubAck(_)));
    town.fleet.set_paused(0, false);
    let Wire { node, number, .. } = town.wires[dying];
    town.fleet.cut(node, number);
    town.wait(3000);
    town.expect_publish(member, "gone");
    town.wait(20_000);
    town.expect_silence(member);
}

#[test]
fn a_will_is_published_though_the_store_could_not_be_read_when_it_was_due() {
    let mut town = Town::of(2);
    let member = town.connect(1, connect("member").durable());
    town.subscribe(member, "$share/g/a", 1);
    let dying = town.connect(0, connect("dying").will(will("a", "gone").qos(1)));
    town.fleet.set_store_cut(0, Some(Cut::Both));
    town.wait(2000);
    let Wire { node, number, .. } = town.wires[dying];
    town.fleet.cut(node, number);
    town.wait(3000);
    town.fleet.set_store_cut(0, None);
    town.wait(5000);
    town.expect_publish(member, "gone");
}

#[test]
fn a_node_that_did_not_hear_of_a_campaign_reads_it() {
    let mut town = Town::of(2);
    let device = town.connect(1, connect("device").durable());
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(5000);
    town.post_campaign(0, "normal 0 - read");
    town.wait(2000);
    town.expect_done();
    town.expect_publish(device, "read");
}

#[test]
fn a_node_that_cannot_ask_who_has_joined_refuses_what_must_be_kept() {
    let mut town = Town::of(2);
    let publisher = town.connect(0, connect("pub"));
    town.fleet.set_store_cut(0, Some(Cut::Both));
    town.wait(2000);
    town.post(publisher, publish("a", "refused").qos1(9));
    town.post(publisher, publish("a", "not kept"));
    town.wait(1000);
    match town.next(publisher).packet() {
        Packet::PubAck(ack) => assert_eq!(ack.reason, Reason::QuotaExceeded),
        other => panic!("{other:?}"),
    }
    town.fleet.set_store_cut(0, None);
    town.wait(1000);
    town.publish(publisher, "a", "taken");
}

#[test]
fn a_draining_node_sends_its_clients_elsewhere() {
    let mut town = Town::of(2);
    let sub = town.connect(0, connect("sub").durable());
    town.subscribe(sub, "a", 1);
    town.fleet.order_drain(0, true);
    town.fleet.move_away(0, 10);
    town.wait(1000);
    let heard = town.next(sub);
    let Packet::Disconnect(disconnect) = heard.packet() else {
        panic!("{heard:?}");
    };
    assert_eq!(disconnect.reason, Reason::UseAnotherServer);
    let refused = town.open(0);
    town.send(refused, connect("sub").clean(false).durable());
    let heard = town.next(refused);
    assert!(
        matches!(heard.packet(), Packet::ConnAck(ack) if ack.reason == Reason::UseAnotherServer)
    );
    let publisher = town.connect(1, connect("pub"));
    town.publish(publisher, "a", "waiting");
    let sub = town.connect(1, connect("sub").clean(false).durable());
    let heard = town.expect_publish(sub, "waiting");
    let Packet::Publish(publish) = heard.packet() else {
        unreachable!("just seen");
    };
    assert_eq!(publish.qos, QoS::AtLeastOnce);
}

#[test]
fn a_push_to_an_audience_reaches_its_devices_at_all_nodes() {
    let mut town = Town::of(3);
    town.set_profile(0, "one", "vip");
    town.set_profile(0, "two", "vip");
    town.wait(1000);
    let one = town.connect(1, connect("one").durable());
    let two = town.connect(2, connect("two"));
    let plain = town.connect(2, connect("plain").durable());
    town.push_to(0, "vip", "to vip");
    town.push_to(1, "!vip", "to others");
    town.wait(1000);
    town.expect_done();
    for wire in [one, two] {
        let heard = town.expect_publish(wire, "to vip");
        town.send(wire, puback(heard.id()));
        town.expect_silence(wire);
    }
    town.expect_publish(plain, "to others");
    town.expect_silence(plain);
    // What came while it was away, and moved to another node.
    town.cut(one);
    town.push_to(2, "!vip", "to others again");
    town.push_to(2, "vip", "to vip again");
    town.wait(500);
    town.fleet.crash(1);
    town.wait(8000);
    let one = town.connect(0, connect("one").clean(false).durable());
    town.expect_publish(one, "to vip again");
    town.expect_silence(one);
}

#[test]
fn a_push_waits_for_the_word_of_who_is_in_its_audience() {
    let mut town = Town::of(3);
    let device = town.connect(1, connect("device"));
    let other = town.connect(1, connect("other"));
    town.set_profile(0, "other", "vip");
    town.wait(1000);
    // The word of the change cannot come from its node, that of the push can from another.
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(5000);
    town.set_profile(0, "device", "vip");
    town.set_profile(0, "other", "beta");
    town.fleet.settle();
    town.push_to(2, "vip", "to vip");
    town.push_to(2, "beta", "to beta");
    town.wait(2000);
    town.expect_done();
    town.expect_publish(device, "to vip");
    town.expect_silence(device);
    town.expect_publish(other, "to beta");
    town.expect_silence(other);
}

#[test]
fn a_node_that_missed_changes_reads_what_is_known_of_its_devices() {
    let mut town = Town::of(2);
    town.set_profile(0, "device", "vip");
    town.set_profile(0, "other", "beta");
    let device = town.connect(1, connect("device").durable());
    let other = town.connect(1, connect("other"));
    // It hears of changes that the store has lost again.
    let peer = town.fleet.look_at(0).expect("it runs").generation;
    for (client_id, words, change) in [("device", "beta", 1), ("other", "vip", 2)] {
        let message = PeerMessage::Change {
            app: AppId::new("default"),
            previous: Offset(0),
            offset: Offset((1 << 60) + change),
            change: Change::Profile {
                client_id: client_id.into(),
                profile: Some(Bytes::from_static(words.as_bytes())),
            },
        };
        town.fleet.say_as_peer(1, peer, message);
    }
    town.push_to(0, "vip", "to vip");
    town.push_to(0, "!vip", "to others");
    town.wait(2000);
    town.expect_done();
    town.push_to(0, "vip", "to vip now");
    town.wait(2000);
    town.set_profile(0, "other", "vip");
    town.wait(1000);
    town.push_to(0, "vip", "to both");
    town.wait(2000);
    town.expect_done();
    let stats = town.fleet.look_at(1).expect("it runs").hub.stats();
    assert!(stats.reloads > 0);
    let heard = |town: &mut Town, wire| {
        let heard = std::iter::from_fn(|| town.poll(wire));
        heard
            .map(|heard| heard.payload().to_owned())
            .collect::<Vec<_>>()
    };
    let of_device = heard(&mut town, device);
    assert!(
        of_device.ends_with(&["to vip now".into(), "to both".into()]),
        "{of_device:?}"
    );
    assert_eq!(
        heard(&mut town, other).last().map(String::as_str),
        Some("to both")
    );
}

#[test]
fn a_device_at_a_node_that_was_given_up_is_known_as_it_is() {
    let mut town = Town::of(2);
    let device = town.connect(1, connect("device").durable());
    town.fleet.set_ensemble_cut(1, Some(Cut::Both));
    town.fleet.set_link_cut(0, 1, Some(Cut::Both));
    town.wait(20_000);
    town.set_profile(0, "device", "vip");
    town.wait(2000);
    town.push_to(0, "vip", "while it is cut off");
    town.wait(2000);
    town.expect_publish(device, "while it is cut off");
    town.fleet.set_ensemble_cut(1, None);
    town.fleet.set_link_cut(0, 1, None);
    town.wait(10_000);
    town.set_profile(0, "device", "beta");
    town.push_to(0, "vip", "no more");
    town.push_to(0, "beta", "when it is back");
    town.wait(2000);
    town.expect_publish(device, "when it is back");
    town.expect_silence(device);
}
