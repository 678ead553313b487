//! What devices tell on `push/ack`: kept before it is acknowledged, whatever the quality of service, and counted once.

use bytes::Bytes;
use campanile_mqtt::{Reason, Version};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
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

fn push(pair: &mut Pair, device: &str) -> PushId {
    let now = pair.node.now;
    let id = PushId(pair.node.ids().next(now).0);
    let accept = Accept {
        app: app(),
        id,
        accepted_ms: now.0,
        expires_ms: now.0 + 60_000,
        audience: Audience::Devices(vec![device.into()]),
        payload: Bytes::from_static(b"hello"),
        priority: Priority::Normal,
        collapse_key: None,
        idempotency: None,
        rows: None,
        channel: Default::default(),
        info: Bytes::new(),
        watched: false,
    };
    pair.node.push(Command::Accept(Box::new(accept)));
    pair.node.settle();
    let answers = pair.node.take_push_answers();
    assert!(matches!(answers[..], [(_, Ok(Outcome::Accepted { .. }))]));
    id
}

fn report(pair: &Pair, id: PushId) -> Report {
    let report = pair.node.reader().report(&app(), id, pair.node.now.0);
    report.unwrap().expect("it is known")
}

fn displayed(id: PushId) -> Publish {
    publish("push/ack", &format!(r#"{{"displayed":["{id}"]}}"#))
}

#[test]
fn it_is_acknowledged_once_it_is_durable() {
    for qos in 1..=2 {
        let mut pair = Pair::new();
        let device = pair.connect(connect("device").durable());
        let id = push(&mut pair, "device");
        pair.take(device, "hello");
        pair.post(device, displayed(id).qos(qos, 7));
        while let Some(queue) = pair.node.ready().into_iter().find(|q| *q != Queue::Sync) {
            pair.node.step(queue);
        }
        assert!(pair.receive_bytes(device).is_empty(), "qos {qos}");
        pair.node.settle();
        let reason = match qos {
            1 => pair.expect_puback(device, 7),
            _ => pair.expect_pubrec(device, 7),
        };
        assert_eq!(reason, Reason::Success);
        let mut pair = pair.crash_and_restart(NodeConfig::default());
        pair.node.settle();
        assert_eq!(report(&pair, id).displayed, 1, "qos {qos}");
    }
}

#[test]
fn it_is_told_with_any_quality_of_service_and_version() {
    for version in [Version::V311, Version::V5] {
        let mut pair = Pair::new();
        let device = pair.connect(connect("device").version(version).clean(false));
        let ids: Vec<_> = (0..3).map(|_| push(&mut pair, "device")).collect();
        for (qos, id) in ids.iter().enumerate() {
            pair.take(device, "hello");
            pair.publish_with(device, displayed(*id), qos as u8);
        }
        for id in ids {
            assert_eq!(report(&pair, id).displayed, 1);
        }
    }
}

#[test]
fn it_may_be_told_again_after_a_lost_acknowledgement() {
    let mut pair = Pair::new();
    let first = pair.connect(connect("device").durable());
    let id = push(&mut pair, "device");
    pair.take(first, "hello");
    pair.post(first, displayed(id).qos2(7));
    pair.node.settle();
    pair.cut(first);
    let again = pair.connect_present(connect("device").durable(), true);
    pair.send(again, displayed(id).qos2(7).dup());
    assert_eq!(pair.expect_pubrec(again, 7), Reason::Success);
    pair.send(again, pubrel(7));
    assert_eq!(pair.expect_pubcomp(again, 7), Reason::Success);
    let report = report(&pair, id);
    assert_eq!((report.delivered, report.displayed), (1, 1));
}

#[test]
fn what_nobody_understands_is_refused_where_that_can_be_said() {
    let mut pair = Pair::new();
    let device = pair.connect(connect("device"));
    let refused = Reason::ImplementationSpecificError;
    pair.send(device, publish("push/ack", "7").qos1(1));
    assert_eq!(pair.expect_puback(device, 1), refused);
    pair.send(device, publish("push/ack", "7").qos2(2));
    assert_eq!(pair.expect_pubrec(device, 2), refused);
    pair.send(device, publish("push/ack", "{}").qos2(2));
    assert_eq!(pair.expect_pubrec(device, 2), Reason::Success);
    let old = pair.connect(connect("old").version(Version::V311));
    pair.publish(old, "push/ack", "7", 2);
}

#[test]
fn a_will_tells_nothing() {
    let mut pair = Pair::new();
    let wire = pair.try_connect(connect("device").will(will("push/ack", "{}")));
    pair.expect_refused(wire, Reason::NotAuthorized);
}
