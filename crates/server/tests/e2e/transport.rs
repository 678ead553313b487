//! MQTT over a plain ordered stream of bytes, both ends.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::harness::{Node, PATIENCE, Tool, Transport};

/// A conversation over TCP, cut into single bytes on the way in: requests, and what comes back.
fn the_server_serves_an_ordered_stream(requests: &[&[u8]], answers: &[u8]) {
    let node = Node::start();
    let mut stream = TcpStream::connect(node.address(Transport::Tcp)).expect("the node accepts");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit can be set");
    stream.set_nodelay(true).expect("bytes can be sent alone");
    for byte in requests.concat() {
        stream.write_all(&[byte]).expect("the connection is open");
    }
    let mut heard = Vec::new();
    stream
        .read_to_end(&mut heard)
        .expect("the node closes after the DISCONNECT");
    assert!(
        heard.ends_with(answers),
        "{heard:02x?} does not end in {answers:02x?}"
    );
}

/// Our own client exchanges messages over TCP.
fn the_client_uses_an_ordered_stream(version: &str) {
    let node = Node::start();
    let url = format!("mqtt://{}", node.address(Transport::Tcp));
    let common = ["--url", &url, "-V", version, "-q", "1", "-t", "a"];
    let with = |command, more: [&'static str; 3]| {
        Tool::campanile([command].into_iter().chain(common).chain(more))
    };
    with("pub", ["-r", "-m", "over tcp"]).succeed();
    assert_eq!(with("sub", ["-n", "1", "--clean"]).succeed(), ["over tcp"]);
}

mod v5 {
    #[test]
    fn mqtt_4_2_0_1_client_and_server_use_an_ordered_stream() {
        let requests: [&[u8]; 5] = [
            b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a",
            b"\xc0\0",
            b"\x32\x06\0\x01t\0\x07\0",
            b"\x32\x06\0\x01t\0\x08\0",
            b"\xe0\0",
        ];
        let answers = b"\xd0\0\x40\x03\0\x07\x10\x40\x03\0\x08\x10";
        super::the_server_serves_an_ordered_stream(&requests, answers);
        super::the_client_uses_an_ordered_stream("5");
    }
}

mod v311 {
    #[test]
    fn mqtt_7_1_1_1_the_server_serves_an_ordered_stream() {
        let requests: [&[u8]; 5] = [
            b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a",
            b"\xc0\0",
            b"\x32\x05\0\x01t\0\x07",
            b"\x32\x05\0\x01t\0\x08",
            b"\xe0\0",
        ];
        let answers = b"\x20\x02\0\0\xd0\0\x40\x02\0\x07\x40\x02\0\x08";
        super::the_server_serves_an_ordered_stream(&requests, answers);
    }

    #[test]
    fn mqtt_7_1_2_1_the_client_uses_an_ordered_stream() {
        super::the_client_uses_an_ordered_stream("3.1.1");
    }
}
