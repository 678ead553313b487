//! Nanoseconds of the hot paths: `cargo bench -p campanile-mqtt`. The best of many rounds, since the machine is shared.

use std::{hint::black_box, time::Instant};

use campanile_mqtt::{
    AckKind, Packet, PacketId, QoS, Reason, Version, encode_ack,
    publish::{self, Head, Outgoing},
    split, topic,
};

fn main() {
    let id = PacketId::new(77).expect("not 0");
    let message = Outgoing {
        topic: "devices/4711/alerts",
        payload: b"{\"temperature\":21.5}",
        forwarded: &[],
        message_expiry: None,
    };
    let head = Head {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id),
        ..Head::default()
    };
    let mut out = Vec::with_capacity(1024);
    for version in [Version::V311, Version::V5] {
        measure(&format!("publish::encode {version:?}"), || {
            out.clear();
            publish::encode(black_box(&message), black_box(&head), version, &mut out);
            out.len()
        });
        let frame = out.clone();
        measure(&format!("split {version:?}"), || {
            split(black_box(&frame), 1 << 20).is_ok()
        });
        measure(&format!("decode PUBLISH {version:?}"), || {
            Packet::decode(black_box(&frame), version).is_ok()
        });
    }
    let full = Outgoing {
        forwarded: b"\x01\x01\x03\0\x04text\x26\0\x01k\0\x01v",
        message_expiry: Some(60),
        ..message
    };
    let head = Head {
        subscription_ids: &[300],
        ..head
    };
    measure("publish::encode V5 with properties", || {
        out.clear();
        publish::encode(black_box(&full), black_box(&head), Version::V5, &mut out);
        out.len()
    });
    let frame = out.clone();
    measure("decode PUBLISH V5 with properties", || {
        Packet::decode(black_box(&frame), Version::V5).is_ok()
    });
    measure("encode_ack", || {
        out.clear();
        encode_ack(
            &mut out,
            Version::V5,
            AckKind::PubAck,
            black_box(id),
            Reason::Success,
        );
        out.len()
    });
    let frame = out.clone();
    measure("decode PUBACK V5", || {
        Packet::decode(black_box(&frame), Version::V5).is_ok()
    });
    let connect = b"\x10\x1b\0\x04MQTT\x05\xc2\0\x3c\x05\x11\0\0\0\x3c\0\x03dev\0\x01u\0\x01p";
    assert!(Packet::decode(connect, Version::V5).is_ok());
    measure("decode CONNECT V5", || {
        Packet::decode(black_box(connect), Version::V5).is_ok()
    });
    measure("topic::matches", || {
        topic::matches(
            black_box("devices/+/alerts"),
            black_box("devices/4711/alerts"),
        )
    });
}

/// Prints the nanoseconds of one call.
fn measure<T>(name: &str, mut call: impl FnMut() -> T) {
    const CALLS: u32 = 100_000;
    let best = (0..30)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                black_box(call());
            }
            start.elapsed()
        })
        .min()
        .expect("there are rounds");
    println!(
        "{name:40} {:6.1} ns",
        best.as_nanos() as f64 / f64::from(CALLS)
    );
}
