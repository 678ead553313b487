//! WebSocket as bare bytes: frames and packets need not align.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use crate::harness::{Node, PATIENCE, Transport};

/// CONNECT, SUBSCRIBE and twice the same PUBLISH in a version.
const V5: [&[u8]; 4] = [
    b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02ws",
    b"\x82\x07\0\x01\0\0\x01a\0",
    b"\x30\x06\0\x01a\0hi",
    b"\x30\x06\0\x01a\0hi",
];
const V311: [&[u8]; 4] = [
    b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02ws",
    b"\x82\x06\0\x01\0\x01a\0",
    b"\x30\x05\0\x01ahi",
    b"\x30\x05\0\x01ahi",
];

struct Socket {
    stream: BufReader<TcpStream>,
    /// Bytes of MQTT that came.
    received: Vec<u8>,
}

impl Socket {
    /// Sends the request; answers with the status line and headers in lower case, too.
    fn open(node: &Node, request_headers: &str, path: &str) -> (Socket, String) {
        let stream = TcpStream::connect(node.address(Transport::Ws)).expect("the node accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit can be set");
        let mut socket = Socket {
            stream: BufReader::new(stream),
            received: Vec::new(),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{request_headers}\r\n"
        );
        socket.write(request.as_bytes());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n")
            && socket
                .stream
                .read_line(&mut head)
                .is_ok_and(|length| length > 0)
        {}
        (socket, head.to_lowercase())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("the connection is open");
    }

    /// Sends a masked frame of at most 125 bytes.
    fn frame(&mut self, first: u8, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let length = u8::try_from(payload.len()).expect("the frame is short");
        let masked = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        let frame: Vec<u8> = [first, 0x80 | length]
            .into_iter()
            .chain(mask)
            .chain(masked)
            .collect();
        self.write(&frame);
    }

    /// The next frame: opcode and payload; `None` when the connection is closed.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).ok()?;
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        assert!(head[1] < 126, "nothing here is that long");
        let mut payload = vec![0; usize::from(head[1])];
        self.stream
            .read_exact(&mut payload)
            .expect("a frame is whole");
        Some((head[0] & 0x0f, payload))
    }

    /// Reads until that many bytes of MQTT have come.
    fn await_bytes(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            let (opcode, payload) = self.next_frame().expect("the connection is open");
            assert_eq!(opcode, 2, "MQTT comes in binary frames");
            self.received.extend(payload);
        }
        self.received.drain(..length).collect()
    }

    /// Reads one short packet.
    fn packet(&mut self) -> Vec<u8> {
        let head = self.await_bytes(2);
        let body = self.await_bytes(usize::from(head[1]));
        [head, body].concat()
    }
}

mod v5 {
    use super::V5;

    #[test]
    fn mqtt_6_0_0_1_packets_come_in_binary_frames_only() {
        super::packets_may_be_cut_and_joined_in_any_way(V5);
        super::a_text_frame_ends_the_connection();
    }

    #[test]
    fn mqtt_6_0_0_2_packets_need_not_align_with_frames() {
        super::packets_may_be_cut_and_joined_in_any_way(V5);
    }

    #[test]
    fn mqtt_6_0_0_3_a_client_must_offer_the_subprotocol() {
        super::a_client_that_does_not_offer_mqtt_is_refused();
    }

    #[test]
    fn mqtt_6_0_0_4_the_subprotocol_mqtt_is_agreed_on() {
        super::the_subprotocol_mqtt_is_agreed_on();
    }
}

mod v311 {
    use super::V311;

    #[test]
    fn mqtt_6_0_0_1_packets_come_in_binary_frames_only() {
        super::packets_may_be_cut_and_joined_in_any_way(V311);
        super::a_text_frame_ends_the_connection();
    }

    #[test]
    fn mqtt_6_0_0_2_packets_need_not_align_with_frames() {
        super::packets_may_be_cut_and_joined_in_any_way(V311);
    }

    #[test]
    fn mqtt_6_0_0_3_a_client_must_offer_the_subprotocol() {
        super::a_client_that_does_not_offer_mqtt_is_refused();
    }

    #[test]
    fn mqtt_6_0_0_4_the_subprotocol_mqtt_is_agreed_on() {
        super::the_subprotocol_mqtt_is_agreed_on();
    }
}

fn the_subprotocol_mqtt_is_agreed_on() {
    let node = Node::start();
    let (_socket, head) = Socket::open(&node, "Sec-WebSocket-Protocol: chat, mqtt\r\n", "/mqtt");
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("\r\nsec-websocket-protocol: mqtt\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{head}"
    );
}

fn a_client_that_does_not_offer_mqtt_is_refused() {
    let node = Node::start();
    for headers in ["Sec-WebSocket-Protocol: chat\r\n", ""] {
        let (_socket, head) = Socket::open(&node, headers, "/mqtt");
        assert!(head.starts_with("http/1.1 400 "), "{head}");
    }
}

#[test]
fn there_is_nothing_at_other_paths() {
    let node = Node::start();
    let (_socket, head) = Socket::open(&node, "Sec-WebSocket-Protocol: mqtt\r\n", "/elsewhere");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

fn packets_may_be_cut_and_joined_in_any_way(packets: [&[u8]; 4]) {
    let node = Node::start();
    let (mut socket, _) = Socket::open(&node, "Sec-WebSocket-Protocol: mqtt\r\n", "/mqtt");
    let bytes = packets.concat();
    // A frame per byte, then a message of three fragments with a ping between, then the rest at once.
    for byte in &bytes[..20] {
        socket.frame(0x82, &[*byte]);
    }
    socket.frame(0x02, &bytes[20..22]);
    socket.frame(0x89, b"ping");
    socket.frame(0x00, &bytes[22..25]);
    socket.frame(0x80, &bytes[25..26]);
    socket.frame(0x82, &[]);
    socket.frame(0x82, &bytes[26..]);
    let mut pongs = 0;
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        // A pong comes as a frame of its own, anywhere.
        while socket.received.len() < 2
            || socket.received.len() < 2 + usize::from(socket.received[1])
        {
            match socket.next_frame().expect("the connection is open") {
                (2, payload) => socket.received.extend(payload),
                (10, payload) => {
                    assert_eq!(payload, b"ping");
                    pongs += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        kinds.push(socket.packet()[0]);
    }
    assert_eq!(kinds[0], 0x20);
    // The first messages may come before the SUBACK.
    kinds.sort_unstable();
    assert_eq!((kinds, pongs), (vec![0x20, 0x30, 0x30, 0x90], 1));
}

fn a_text_frame_ends_the_connection() {
    let node = Node::start();
    let (mut socket, _) = Socket::open(&node, "Sec-WebSocket-Protocol: mqtt\r\n", "/mqtt");
    socket.frame(0x81, b"hello");
    let (opcode, payload) = socket.next_frame().expect("a close frame");
    assert_eq!(
        (opcode, payload.get(..2)),
        (8, Some(1003_u16.to_be_bytes().as_slice()))
    );
    assert_eq!(socket.next_frame(), None);
}
