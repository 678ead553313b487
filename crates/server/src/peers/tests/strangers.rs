//! What is at the other end is no node, or one that has gone mad, silent, or on to a later version.

use prost::{
    Message as _,
    bytes::{BufMut, Bytes, BytesMut},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::peers::{
    DownReason, frame,
    hello::{HELLO_BYTES_MAX, RefusalCode},
    wire,
};

/// The end that a test plays itself, byte by byte.
pub struct Stranger {
    stream: TcpStream,
    received: BytesMut,
}

impl Stranger {
    /// Dials a node and introduces itself.
    pub async fn dial(node: &Node, hello: wire::Hello) -> Stranger {
        let stream = TcpStream::connect(node.links.address()).await.unwrap();
        let mut stranger = Stranger {
            stream,
            received: BytesMut::new(),
        };
        stranger.say(&hello).await;
        stranger
    }

    /// Is dialed by a node, and answers with `hello`.
    pub async fn accept(listener: &TcpListener, hello: wire::Hello) -> Stranger {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut stranger = Stranger {
            stream,
            received: BytesMut::new(),
        };
        let theirs: wire::Hello = stranger.hear().await;
        assert_eq!(theirs.magic, wire::MAGIC);
        let verdict = Some(wire::Verdict::Welcome(hello));
        stranger.say(&wire::Reply { verdict }).await;
        stranger
    }

    pub async fn say(&mut self, what: &impl prost::Message) {
        let mut bytes = BytesMut::new();
        frame::put(what, usize::MAX, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub async fn hear<M: prost::Message + Default>(&mut self) -> M {
        let frame = frame::read(&mut self.stream, &mut self.received, 16 << 20);
        soon(frame).await.unwrap()
    }

    /// The next frame that is not a heartbeat, as it came.
    pub async fn hear_bytes(&mut self) -> Bytes {
        loop {
            if let Some(frame) = frame::take(&mut self.received, 16 << 20).unwrap() {
                if wire::Frame::decode(frame.clone()).unwrap().body
                    != Some(wire::Body::Heartbeat(wire::Empty {}))
                {
                    return frame;
                }
                continue;
            }
            assert_ne!(
                soon(self.stream.read_buf(&mut self.received))
                    .await
                    .unwrap(),
                0
            );
        }
    }

    async fn is_refused(&mut self) -> RefusalCode {
        let reply: wire::Reply = self.hear().await;
        match reply.verdict {
            Some(wire::Verdict::Refusal(refusal)) => {
                assert!(!refusal.text.is_empty());
                RefusalCode::from_number(refusal.code)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a proper node of generation `from` says.
pub fn hello(from: u64, to: u64) -> wire::Hello {
    wire::Hello {
        magic: wire::MAGIC,
        version: wire::VERSION,
        lowest: wire::LOWEST,
        capabilities: 0,
        cluster: "test".into(),
        name: "stranger".into(),
        generation: from,
        to,
        program: "0.0.0".into(),
        frame_bytes_max: 1 << 20,
    }
}

/// The stranger as a peer.
pub fn stranger(generation: u64, listener: Option<&TcpListener>) -> Peer {
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Peer {
        generation: Generation(generation),
        name: "stranger".into(),
        address: listener.map_or(nowhere, |listener| listener.local_addr().unwrap()),
    }
}

pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn hello_decides_who_is_refused() {
    let node = Node::start("node", 5);
    node.links.set_peers(vec![stranger(1, None)]);
    let proper = || hello(1, 5);
    for (said, code) in [
        (
            wire::Hello {
                magic: 1,
                ..proper()
            },
            RefusalCode::Protocol,
        ),
        (
            wire::Hello {
                cluster: "other".into(),
                ..proper()
            },
            RefusalCode::Cluster,
        ),
        (
            wire::Hello {
                version: wire::LOWEST - 1,
                lowest: 0,
                ..proper()
            },
            RefusalCode::Version,
        ),
        (
            wire::Hello {
                version: wire::VERSION + 2,
                lowest: wire::VERSION + 1,
                ..proper()
            },
            RefusalCode::Version,
        ),
        (hello(2, 5), RefusalCode::Unknown),
        // It was another run of this node that was meant.
        (hello(1, 4), RefusalCode::Unknown),
        // The larger generation does not dial.
        (hello(6, 5), RefusalCode::Unknown),
        (hello(5, 5), RefusalCode::Unknown),
    ] {
        let refused = Stranger::dial(&node, said.clone()).await.is_refused().await;
        assert_eq!(refused, code, "{said:?}");
    }
    assert_eq!(node.links.figures().total.ups, 0);
}

#[tokio::test]
async fn whoever_talks_something_else_is_cut_off() {
    let node = Node::start("node", 5);
    let mut stream = TcpStream::connect(node.links.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut heard = Vec::new();
    // The end, or a reset since it was not all read.
    let _ = soon(stream.read_to_end(&mut heard)).await;
    assert!(heard.is_empty());
    until(|| node.links.figures().handshakes_failed == 1).await;
    let mut huge = BytesMut::new();
    huge.put_u32(HELLO_BYTES_MAX as u32 + 1);
    let mut stream = TcpStream::connect(node.links.address()).await.unwrap();
    stream.write_all(&huge).await.unwrap();
    assert_eq!(soon(stream.read_to_end(&mut heard)).await.unwrap(), 0);
}

#[tokio::test]
async fn whoever_says_nothing_is_cut_off() {
    let node = Node::start("node", 5);
    let mut stream = TcpStream::connect(node.links.address()).await.unwrap();
    assert_eq!(soon(stream.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    until(|| node.links.figures().handshakes_failed == 1).await;
}

#[tokio::test]
async fn listener_that_accepts_and_says_nothing_is_no_link() {
    let node = Node::start("node", 5);
    let listener = listener().await;
    node.links.set_peers(vec![stranger(9, Some(&listener))]);
    // Again and again, and never for longer than silence is allowed.
    let (first, _) = soon(listener.accept()).await.unwrap();
    let (second, _) = soon(listener.accept()).await.unwrap();
    drop((first, second));
    assert_eq!(node.links.figures().total.ups, 0);
}

#[tokio::test]
async fn peer_that_falls_silent_is_down_in_time() {
    let mut node = Node::start("node", 5);
    let listener = listener().await;
    node.links.set_peers(vec![stranger(9, Some(&listener))]);
    let mut peer = Stranger::accept(&listener, hello(9, 5)).await;
    node.is_up(Generation(9)).await;
    peer.say(&wire::Frame {
        body: Some(wire::Body::SharedDone(wire::Ticket { ticket: 1 })),
    })
    .await;
    assert_eq!(ticket_of(node.message(Generation(9)).await), 1);
    let since = tokio::time::Instant::now();
    // It is sent heartbeats meanwhile, and does not answer: as a stopped process, or one behind a broken network.
    assert_eq!(node.is_down(Generation(9)).await, DownReason::Silent);
    assert!(since.elapsed() < quick().silence * 3);
    let heartbeat: wire::Frame = peer.hear().await;
    assert_eq!(heartbeat.body, Some(wire::Body::Heartbeat(wire::Empty {})));
    // And it is dialed again.
    let _again = Stranger::accept(&listener, hello(9, 5)).await;
    node.is_up(Generation(9)).await;
}

#[tokio::test]
async fn peer_that_dials_again_replaces_its_link() {
    let mut node = Node::start("node", 5);
    node.links.set_peers(vec![stranger(1, None)]);
    let _first = Stranger::dial(&node, hello(1, 5)).await;
    node.is_up(Generation(1)).await;
    let mut second = Stranger::dial(&node, hello(1, 5)).await;
    assert_eq!(node.is_down(Generation(1)).await, DownReason::Replaced);
    node.is_up(Generation(1)).await;
    let _: wire::Reply = second.hear().await;
    node.links.send(Generation(1), ticket(3));
    let frame = wire::Frame::decode(second.hear_bytes().await).unwrap();
    assert_eq!(
        frame.body,
        Some(wire::Body::SharedDone(wire::Ticket { ticket: 3 }))
    );
}

/// What becomes of a link when its peer sends these bytes.
async fn after(bytes: &[u8]) -> DownReason {
    let small = PeerConfig {
        frame_bytes_max: 1000,
        ..quick()
    };
    let mut node = Node::start_with(small, "node", 5);
    node.links.set_peers(vec![stranger(1, None)]);
    let mut peer = Stranger::dial(&node, hello(1, 5)).await;
    node.is_up(Generation(1)).await;
    peer.stream.write_all(bytes).await.unwrap();
    node.is_down(Generation(1)).await
}

#[tokio::test]
async fn peer_that_breaks_the_protocol_is_down() {
    let faulty = |reason: DownReason| match reason {
        DownReason::Faulty(what) => what.to_string(),
        other => panic!("{other:?}"),
    };
    let too_large = faulty(after(&1001_u32.to_be_bytes()).await);
    assert!(too_large.contains("1001 bytes"), "{too_large}");
    // A ticket whose field ends too early, and a delivery without a message.
    faulty(after(&[0, 0, 0, 3, 0x42, 0x01, 0x08]).await);
    let no_topic = faulty(after(&[0, 0, 0, 2, 0x32, 0x00]).await);
    assert!(no_topic.contains("topic"), "{no_topic}");
}
