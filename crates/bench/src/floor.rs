//! The yardstick: a bare epoll loop that copies bytes from socket to socket, one read and one write each.
//!
//! It looks enough like an MQTT server for the same scenarios to run against it: it answers handshakes, finds a publisher's
//! subscribers by exact topic (or one level of `+` at the end), passes a batch of PUBLISH packets on as it came, and
//! acknowledges. It keeps no session, checks nothing, and gives everybody the packet identifiers of the publisher. What a real server
//! spends above this is its own work; what this spends is the kernel's.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result};
use campanile_mqtt::{
    AckKind, ConnAck, Packet, Properties, Reason, Split, SubAck, Version, encode_ack, split,
};
use clap::Args;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use rustix::process::{Signal, set_parent_process_death_signal};

/// The bare loop.
#[derive(Args, Clone, Debug)]
pub struct FloorServer {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

impl FloorServer {
    /// Serves until it is killed, at the latest when its parent ends.
    pub fn run(&self) -> Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        crate::process::raise_file_limit();
        let listener = std::net::TcpListener::bind(self.listen)
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        println!("listening on {}", listener.local_addr()?);
        serve(listener)
    }
}

/// Serves connections of `listener` forever.
pub fn serve(listener: std::net::TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut floor = Floor::new(TcpListener::from_std(listener))?;
    let mut events = Events::with_capacity(1024);
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.context("epoll")?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(),
                Token(index) => {
                    if event.is_writable() {
                        floor.write(index, &[]);
                    }
                    if event.is_readable() {
                        floor.read(index, event.is_read_closed() || event.is_error());
                    }
                }
            }
        }
    }
}

const LISTENER: Token = Token(usize::MAX);
const INBOX_BYTES: usize = 256 * 1024;

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Connection>,
    /// Subscribers by topic, or by what stands before a last level `+`.
    topics: HashMap<String, Vec<usize>>,
    inbox: Vec<u8>,
    answers: Vec<u8>,
}

struct Connection {
    stream: Option<TcpStream>,
    version: Version,
    /// The last topic published to, and where that went.
    route: Option<Box<(String, Vec<usize>)>>,
    partial: Vec<u8>,
    /// What the socket did not take.
    rest: Vec<u8>,
}

impl Floor {
    fn new(mut listener: TcpListener) -> Result<Floor> {
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Floor {
            poll,
            listener,
            connections: Vec::new(),
            topics: HashMap::new(),
            inbox: vec![0; INBOX_BYTES],
            answers: Vec::new(),
        })
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let index = self.connections.len();
            let both = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if stream.set_nodelay(true).is_err()
                || registry.register(&mut stream, Token(index), both).is_err()
            {
                continue;
            }
            self.connections.push(Connection {
                stream: Some(stream),
                version: Version::V311,
                route: None,
                partial: Vec::new(),
                rest: Vec::new(),
            });
        }
    }

    fn read(&mut self, index: usize, ends: bool) {
        loop {
            let connection = &mut self.connections[index];
            let Some(stream) = &mut connection.stream else {
                return;
            };
            let held = connection.partial.len();
            self.inbox[..held].copy_from_slice(&connection.partial);
            let filled = match stream.read(&mut self.inbox[held..]) {
                Ok(0) => return self.close(index),
                Ok(bytes) => held + bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            };
            connection.partial.clear();
            // Taken out for the time of the call; a swap of three words.
            let inbox = std::mem::take(&mut self.inbox);
            let used = self.digest(index, &inbox[..filled]);
            if let (Some(used), Some(connection)) = (used, self.connections.get_mut(index)) {
                connection.partial.extend_from_slice(&inbox[used..filled]);
            }
            self.inbox = inbox;
            if used.is_none() {
                return self.close(index);
            }
            if filled < self.inbox.len() && !ends {
                return;
            }
        }
    }

    /// Handles the whole packets of `input` and says how many bytes they took; `None` ends the connection.
    fn digest(&mut self, index: usize, input: &[u8]) -> Option<usize> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.clear();
        let mut used = 0;
        // Packets with the same route leave in one write.
        let mut batch = 0..0;
        let mut goes_on = true;
        while goes_on {
            let rest = &input[used..];
            let (first_byte, header_len, total_len) = match split(rest, INBOX_BYTES as u32).ok()? {
                Split::NeedMore { .. } => break,
                Split::Packet {
                    first_byte,
                    header_len,
                    total_len,
                } => (first_byte, header_len, total_len),
            };
            let frame = &rest[..total_len];
            if first_byte >> 4 == 3 {
                let body = &frame[header_len..];
                let topic_len = usize::from(u16::from_be_bytes(*body.first_chunk()?));
                let topic = body.get(2..2 + topic_len)?;
                if !self.is_on_route(index, topic) {
                    self.forward(index, &input[batch.clone()]);
                    batch = used..used;
                    self.find_route(index, topic)?;
                }
                batch.end = used + total_len;
                acknowledge(first_byte, &body[2 + topic_len..], &mut answers)?;
            } else {
                goes_on = self.on_other(index, frame, &mut answers)?;
            }
            used += total_len;
        }
        self.forward(index, &input[batch]);
        self.write(index, &answers);
        self.answers = answers;
        goes_on.then_some(used)
    }

    fn is_on_route(&self, index: usize, topic: &[u8]) -> bool {
        let route = self.connections[index].route.as_deref();
        route.is_some_and(|(name, _)| name.as_bytes() == topic)
    }

    fn find_route(&mut self, index: usize, topic: &[u8]) -> Option<()> {
        let name = std::str::from_utf8(topic).ok()?;
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        let receivers = self
            .topics
            .get(name)
            .or_else(|| self.topics.get(&format!("{parent}/+")))
            .cloned()
            .unwrap_or_default();
        self.connections[index].route = Some(Box::new((name.into(), receivers)));
        Some(())
    }

    fn forward(&mut self, index: usize, packets: &[u8]) {
        if packets.is_empty() {
            return;
        }
        let Some(route) = self.connections[index].route.take() else {
            return;
        };
        for &receiver in &route.1 {
            self.write(receiver, packets);
        }
        self.connections[index].route = Some(route);
    }

    /// Everything but PUBLISH; whether the connection goes on.
    fn on_other(&mut self, index: usize, frame: &[u8], answers: &mut Vec<u8>) -> Option<bool> {
        let version = self.connections[index].version;
        match Packet::decode(frame, version).ok()? {
            Packet::Connect(connect) => {
                self.connections[index].version = connect.version;
                let packet = Packet::ConnAck(ConnAck {
                    session_present: false,
                    reason: Reason::Success,
                    properties: Properties::EMPTY,
                });
                packet.encode(connect.version, answers);
            }
            Packet::Subscribe(subscribe) => {
                let mut codes = Vec::new();
                for (filter, options) in subscribe.filters.iter() {
                    self.topics.entry(filter.into()).or_default().push(index);
                    codes.push(options.qos as u8);
                }
                let packet = Packet::SubAck(SubAck {
                    packet_id: subscribe.packet_id,
                    properties: Properties::EMPTY,
                    codes: &codes,
                });
                packet.encode(version, answers);
            }
            Packet::PubRec(ack) => {
                let kind = AckKind::PubRel;
                encode_ack(answers, version, kind, ack.packet_id, Reason::Success);
            }
            Packet::PubRel(ack) => {
                let kind = AckKind::PubComp;
                encode_ack(answers, version, kind, ack.packet_id, Reason::Success);
            }
            Packet::PingReq => Packet::PingResp.encode(version, answers),
            Packet::Disconnect(_) => return Some(false),
            _ => {}
        }
        Some(true)
    }

    fn write(&mut self, index: usize, bytes: &[u8]) {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else {
            return;
        };
        if connection.rest.is_empty() {
            if bytes.is_empty() {
                return;
            }
            let taken = stream.write(bytes).unwrap_or(0);
            connection.rest.extend_from_slice(&bytes[taken..]);
            return;
        }
        connection.rest.extend_from_slice(bytes);
        let taken = stream.write(&connection.rest).unwrap_or(0);
        connection.rest.drain(..taken);
        if connection.rest.is_empty() {
            connection.rest = Vec::new();
        }
    }

    /// Routes to it stay and lead nowhere; the loop lives as long as one scenario.
    fn close(&mut self, index: usize) {
        if self.connections[index].stream.take().is_some() {
            self.connections[index].partial = Vec::new();
            self.connections[index].rest = Vec::new();
        }
    }
}

/// Appends what a PUBLISH with this first byte calls for; `after_topic` begins with its packet identifier.
fn acknowledge(first_byte: u8, after_topic: &[u8], answers: &mut Vec<u8>) -> Option<()> {
    let kind = match first_byte >> 1 & 3 {
        0 => return Some(()),
        1 => AckKind::PubAck,
        _ => AckKind::PubRec,
    };
    let &[high, low] = after_topic.first_chunk()?;
    answers.extend_from_slice(&[kind as u8, 2, high, low]);
    Some(())
}
