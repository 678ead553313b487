//! A node of the previous version beside one of this version.
//!
//! The schema here is a version before the present one: it has not all messages, and not all fields of those that it has. Whoever changes `wire` in a
//! way that it cannot live with has broken rolling upgrades. When a new version is made, this becomes what that replaced.

use prost::{Message as _, bytes::Bytes};

use super::{
    strangers::{Stranger, hello, listener, stranger},
    *,
};
use crate::peers::{
    convert::{Decoder, Encoder, Unread},
    wire,
};

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(oneof = "Body", tags = "1, 5, 6, 9")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Heartbeat(wire::Empty),
    #[prost(message, tag = "5")]
    InterestKnown(wire::Ticket),
    #[prost(message, tag = "6")]
    Deliver(Deliver),
    #[prost(message, tag = "9")]
    Log(Log),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Deliver {
    #[prost(string, tag = "1")]
    app: String,
    #[prost(message, optional, tag = "2")]
    message: Option<Published>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Log {
    #[prost(string, tag = "1")]
    app: String,
    #[prost(uint32, tag = "2")]
    log: u32,
    #[prost(uint64, tag = "3")]
    previous: u64,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(message, optional, tag = "5")]
    message: Option<Published>,
}

/// Without a publisher, without expiry.
#[derive(Clone, PartialEq, prost::Message)]
struct Published {
    #[prost(fixed64, tag = "1")]
    id_high: u64,
    #[prost(fixed64, tag = "2")]
    id_low: u64,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(uint32, tag = "4")]
    qos: u32,
    #[prost(bool, tag = "5")]
    retain: bool,
    #[prost(string, tag = "8")]
    topic: String,
    #[prost(bytes = "bytes", tag = "9")]
    properties: Bytes,
    #[prost(bytes = "bytes", tag = "10")]
    payload: Bytes,
}

fn published() -> Published {
    Published {
        id_low: 7,
        qos: 1,
        topic: "a/b".into(),
        payload: Bytes::from_static(b"payload"),
        ..Published::default()
    }
}

#[test]
fn previous_version_reads_what_it_knows_and_skips_the_rest() {
    let mut with_more = Message::clone(&message(QoS::AtLeastOnce, b"payload"));
    with_more.publisher = Some("somebody".into());
    with_more.audience = Some(Bytes::from_static(b"vip"));
    with_more.expires_at = Some(campanile_broker::ids::Millis(9));
    let deliver = PeerMessage::Deliver {
        app: AppId::new("app"),
        message: Arc::new(with_more),
    };
    let read = |message| {
        let frame = Encoder::default().frame(message).encode_to_vec();
        Frame::decode(&frame[..]).unwrap().body
    };
    let expected = Deliver {
        app: "app".into(),
        message: Some(published()),
    };
    assert_eq!(read(deliver), Some(Body::Deliver(expected)));
    assert_eq!(read(PeerMessage::InterestBegins), None);
    assert_eq!(read(ticket(1)), None);
}

#[test]
fn this_version_reads_what_the_previous_one_says() {
    let log = Body::Log(Log {
        app: "app".into(),
        log: 3,
        previous: 10,
        offset: 11,
        message: Some(published()),
    });
    let frame = Frame { body: Some(log) }.encode_to_vec();
    let frame = wire::Frame::decode(Bytes::from(frame)).unwrap();
    match Decoder::default().message(frame).unwrap().unwrap() {
        PeerMessage::Log {
            app,
            log,
            previous,
            entry,
            changes,
        } => {
            assert_eq!(changes.0, 0);
            assert_eq!(app.as_str(), "app");
            assert_eq!(log, campanile_broker::store::LogKind::Topic(2));
            assert_eq!((previous.0, entry.offset.0), (10, 11));
            assert_eq!(*entry.message, *message(QoS::AtLeastOnce, b"payload"));
        }
        other => panic!("{other:?}"),
    }
}

/// Numbers and alternatives that are not given out yet.
#[test]
fn what_a_later_version_says_is_passed_over() {
    for later in [
        // A message of tag 99, with and without known ones around it.
        vec![0x9a, 0x06, 0x00],
        // An interest of a kind 15, a change of a kind 15, a question of a kind 15.
        vec![0x1a, 0x02, 0x7a, 0x00],
        vec![0x52, 0x02, 0x7a, 0x00],
        vec![0x82, 0x01, 0x02, 0x7a, 0x00],
        // A delivery with quality of service 3, and one of a kind 2.
        vec![0x32, 0x07, 0x12, 0x05, 0x20, 0x03, 0x42, 0x01, b'a'],
        vec![0x32, 0x07, 0x12, 0x05, 0x18, 0x02, 0x42, 0x01, b'a'],
    ] {
        let frame = wire::Frame::decode(Bytes::from(later.clone())).unwrap();
        let read = Decoder::default().message(frame);
        assert_eq!(read.unwrap_err(), Unread::Later, "{later:02x?}");
    }
}

#[tokio::test]
async fn link_to_the_previous_version_lives_on_what_both_know() {
    let mut node = Node::start("node", 5);
    let listener = listener().await;
    node.links.set_peers(vec![stranger(9, Some(&listener))]);
    let mut peer = Stranger::accept(&listener, hello(9, 5)).await;
    node.is_up(Generation(9)).await;
    node.links.send(Generation(9), PeerMessage::InterestBegins);
    node.links
        .send(Generation(9), deliver(QoS::AtLeastOnce, b"payload"));
    assert_eq!(Frame::decode(peer.hear_bytes().await).unwrap().body, None);
    match Frame::decode(peer.hear_bytes().await).unwrap().body {
        Some(Body::Deliver(deliver)) => assert_eq!(deliver.message, Some(published())),
        other => panic!("{other:?}"),
    }
    peer.say(&Frame {
        body: Some(Body::InterestKnown(wire::Ticket { ticket: 4 })),
    })
    .await;
    match node.message(Generation(9)).await {
        PeerMessage::InterestKnown { ticket } => assert_eq!(ticket, 4),
        other => panic!("{other:?}"),
    }
}

/// A frame with a message of tag 99.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterFrame {
    #[prost(message, optional, tag = "99")]
    message: Option<wire::Ticket>,
}

#[tokio::test]
async fn link_to_a_later_version_counts_what_it_passes_over() {
    let mut node = Node::start("node", 5);
    node.links.set_peers(vec![stranger(1, None)]);
    let later = wire::Hello {
        version: wire::VERSION + 1,
        lowest: wire::VERSION,
        capabilities: u64::MAX,
        ..hello(1, 5)
    };
    let mut peer = Stranger::dial(&node, later).await;
    match node.event().await {
        LinkEvent::Up {
            protocol,
            capabilities,
            ..
        } => {
            assert_eq!(
                (protocol, capabilities),
                (wire::VERSION, wire::CAPABILITIES)
            );
        }
        other => panic!("{other:?}"),
    }
    peer.say(&LaterFrame {
        message: Some(wire::Ticket { ticket: 1 }),
    })
    .await;
    peer.say(&Frame {
        body: Some(Body::InterestKnown(wire::Ticket { ticket: 4 })),
    })
    .await;
    node.message(Generation(1)).await;
    assert_eq!(node.links.figures().peers[0].counts.messages_unknown, 1);
}

#[tokio::test]
async fn neighbouring_versions_agree_on_the_older_one() {
    let dialect = |version, lowest, capabilities| Dialect {
        version,
        lowest,
        capabilities,
    };
    for (older, newer) in [
        (dialect(1, 1, 0b01), dialect(2, 1, 0b11)),
        (dialect(2, 1, 0b01), dialect(3, 2, 0b11)),
    ] {
        // Whichever dials.
        for (a, b) in [(older, newer), (newer, older)] {
            let mut a = Node::start_as(a, quick(), identity("a", 1));
            let mut b = Node::start_as(b, quick(), identity("b", 2));
            introduce(&[&a, &b]);
            for node in [&mut a, &mut b] {
                match node.event().await {
                    LinkEvent::Up {
                        protocol,
                        capabilities,
                        ..
                    } => {
                        assert_eq!((protocol, capabilities), (older.version, 0b01));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    let a = Node::start_as(dialect(1, 1, 0), quick(), identity("a", 1));
    let b = Node::start_as(dialect(3, 2, 0), quick(), identity("b", 2));
    introduce(&[&a, &b]);
    until(|| a.links.figures().handshakes_failed > 0).await;
    assert!(b.links.up().is_empty());
}
