//! MQTT as bare bytes.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use super::{Node, PATIENCE, Transport};

/// A TCP connection with a node.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Opens a connection and sends nothing.
    pub fn open(node: &Node) -> Raw {
        let stream = TcpStream::connect(node.address(Transport::Tcp)).expect("the node accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit can be set");
        Raw { stream }
    }

    /// Opens a connection and a clean session of MQTT 5.0 or 3.1.1.
    pub fn connected(node: &Node, version: u8, client_id: &str) -> Raw {
        let mut raw = Raw::open(node);
        let length = u8::try_from(client_id.len()).expect("the client identifier is short");
        let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60];
        connect.extend((version == 5).then_some(0));
        connect.extend([0, length]);
        connect.extend(client_id.as_bytes());
        raw.send_packet(0x10, &connect);
        let (kind, body) = raw.packet().expect("a CONNACK");
        assert_eq!(
            (kind, body[1]),
            (0x20, 0),
            "a CONNACK that says success: {body:?}"
        );
        raw
    }

    /// Sends bytes as they are. That the peer has closed shows when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a packet with a body of at most 127 bytes.
    pub fn send_packet(&mut self, first: u8, body: &[u8]) {
        let length = u8::try_from(body.len())
            .ok()
            .filter(|length| *length < 128)
            .expect("the packet is short");
        self.send(&[&[first, length], body].concat());
    }

    /// The next packet: its first byte and what follows the length. `None` when the connection is closed.
    pub fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.byte()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte().expect("a packet has a length");
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream
            .read_exact(&mut body)
            .expect("a packet is whole");
        Some((first, body))
    }

    /// Reads until the server closes; answers with the reason code of its DISCONNECT, if one came.
    pub fn reason_of_close(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some((kind, body)) = self.packet() {
            if kind == 0xe0 {
                reason = Some(body.first().copied().unwrap_or(0));
            }
        }
        reason
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            Err(fault) if fault.kind() == ErrorKind::ConnectionReset => None,
            Err(fault) => panic!("nothing comes, and the connection stays open: {fault}"),
        }
    }
}
