//! First conversations: that messages arrive.

use campanile_mqtt::*;
use campanile_sim::pair::Pair;

fn connect<'a>(
    version: Version,
    client_id: &'a str,
    clean: bool,
    properties: Properties<'a>,
) -> Packet<'a> {
    Packet::Connect(Connect {
        version,
        clean_start: clean,
        keep_alive: 60,
        properties,
        client_id,
        will: None,
        username: None,
        password: None,
    })
}

fn open(
    pair: &mut Pair,
    version: Version,
    client_id: &str,
    clean: bool,
    expiry: u32,
) -> (usize, bool) {
    let wire = pair.open(version);
    let mut properties = PropertiesBuf::new();
    if version.is_v5() {
        properties.push(Property::SessionExpiry(expiry));
    }
    pair.send(
        wire,
        connect(version, client_id, clean, properties.as_properties()),
    );
    let present = pair.expect(wire, |p| match p {
        Packet::ConnAck(c) => {
            assert_eq!(c.reason, Reason::Success);
            c.session_present
        }
        p => panic!("{p:?}"),
    });
    (wire, present)
}

fn subscribe(pair: &mut Pair, wire: usize, filter: &str, qos: QoS) {
    let mut filters = Vec::new();
    SubscribeFilters::write(
        filter,
        SubscriptionOptions {
            qos,
            ..Default::default()
        },
        &mut filters,
    );
    pair.send(
        wire,
        Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(9).unwrap(),
            properties: Properties::EMPTY,
            filters: SubscribeFilters::trusted(&filters),
        }),
    );
    pair.expect(wire, |p| match p {
        Packet::SubAck(s) => assert_eq!(s.codes, [qos as u8]),
        p => panic!("{p:?}"),
    });
}

fn publish(pair: &mut Pair, wire: usize, topic: &str, payload: &str, qos: QoS, id: u16) {
    pair.send(
        wire,
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: PacketId::new(id),
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        }),
    );
}

fn expect_publish(
    pair: &mut Pair,
    wire: usize,
    payload: &str,
    qos: QoS,
    dup: bool,
) -> Option<PacketId> {
    pair.expect(wire, |p| match p {
        Packet::Publish(p) => {
            assert_eq!(
                (std::str::from_utf8(p.payload).unwrap(), p.qos, p.dup),
                (payload, qos, dup)
            );
            p.packet_id
        }
        p => panic!("{p:?}"),
    })
}

fn ack(id: Option<PacketId>) -> Ack<'static> {
    Ack {
        packet_id: id.unwrap(),
        reason: Reason::Success,
        properties: Properties::EMPTY,
    }
}

#[test]
fn a_durable_session_gets_what_it_missed_in_order_after_a_crash() {
    for version in [Version::V311, Version::V5] {
        let mut pair = Pair::new();
        let (sub, present) = open(&mut pair, version, "sub", false, 1000);
        assert!(!present);
        subscribe(&mut pair, sub, "a/+", QoS::ExactlyOnce);
        let (publisher, _) = open(&mut pair, version, "pub", true, 0);
        publish(&mut pair, publisher, "a/b", "live", QoS::AtLeastOnce, 1);
        pair.expect(publisher, |p| assert!(matches!(p, Packet::PubAck(_))));
        let id = expect_publish(&mut pair, sub, "live", QoS::AtLeastOnce, false);
        pair.send(sub, Packet::PubAck(ack(id)));
        publish(&mut pair, publisher, "a/b", "unacked", QoS::ExactlyOnce, 2);
        pair.expect(publisher, |p| {
            assert!(matches!(p, Packet::PubRec(_)), "{p:?}")
        });
        pair.send(publisher, Packet::PubRel(ack(PacketId::new(2))));
        pair.expect(publisher, |p| {
            assert!(matches!(p, Packet::PubComp(_)), "{p:?}")
        });
        let unacked = expect_publish(&mut pair, sub, "unacked", QoS::ExactlyOnce, false);
        pair.advance(200);
        pair.node.cut(sub);
        for n in 0..300u16 {
            publish(
                &mut pair,
                publisher,
                "a/b",
                &n.to_string(),
                QoS::AtLeastOnce,
                n + 1,
            );
            pair.expect(publisher, |p| assert!(matches!(p, Packet::PubAck(_))));
        }
        let mut pair = pair.crash_and_restart(Default::default());
        let (sub, present) = open(&mut pair, version, "sub", false, 1000);
        assert!(present);
        let again = expect_publish(&mut pair, sub, "unacked", QoS::ExactlyOnce, true);
        assert_eq!(again, unacked);
        for n in 0..300u16 {
            let id = expect_publish(&mut pair, sub, &n.to_string(), QoS::AtLeastOnce, false);
            pair.send(sub, Packet::PubAck(ack(id)));
        }
        pair.send(sub, Packet::PubRec(ack(again)));
        pair.expect(sub, |p| assert!(matches!(p, Packet::PubRel(_)), "{p:?}"));
        pair.send(sub, Packet::PubComp(ack(again)));
        pair.expect_silence(sub);
        pair.advance(200);
        let mut pair = pair.crash_and_restart(Default::default());
        let (sub, present) = open(&mut pair, version, "sub", false, 1000);
        assert!(present);
        pair.expect_silence(sub);
    }
}
