//! The connections of a fleet, and what can be done with them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io::{self, Write},
    time::{Duration, Instant},
};

use campanile_mqtt::{Disconnect, Packet, Properties, QoS, Reason};
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    Crew, Ended, Options, Welcome,
    dial::{self, Sources},
};

/// A connection of a fleet, from [`Links::add`] on, connected or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub usize);

/// Who connects.
#[derive(Clone, Debug)]
pub struct Member {
    /// Client identifier.
    pub client_id: String,
    /// Clean Start (5.0) or Clean Session. Without it the session outlives its connections, in 5.0 for a day.
    pub clean_start: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// Asked for right after each CONNACK.
    pub subscriptions: Vec<(String, QoS)>,
}

impl Member {
    /// A client with a clean session, no subscriptions, and a keep-alive that no run outlasts.
    pub fn new(client_id: impl Into<String>) -> Member {
        Member {
            client_id: client_id.into(),
            clean_start: true,
            keep_alive: 3600,
            subscriptions: Vec::new(),
        }
    }

    /// With one more subscription.
    pub fn subscribe(mut self, filter: impl Into<String>, qos: QoS) -> Member {
        self.subscriptions.push((filter.into(), qos));
        self
    }
}

pub(super) enum Kind {
    Mqtt(Box<Member>),
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected, and not about to be.
    Idle,
    /// In the queue of those to dial.
    Waiting,
    /// SYN sent.
    Dialing,
    /// CONNECT sent.
    Greeting,
    /// SUBSCRIBE sent.
    Subscribing,
    Ready,
    /// DISCONNECT sent; the server is to close.
    Leaving,
}

pub(super) struct Link {
    stream: Option<TcpStream>,
    /// Which of the addresses it dials.
    server: usize,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    pub(super) session_present: bool,
    dirty: bool,
    dialed_ns: u64,
    /// The beginning of a packet.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that the socket took.
    written: usize,
}

/// What went wrong: how often, and the first few in words.
#[derive(Default)]
pub struct Faults {
    count: u64,
    examples: Vec<String>,
}

impl Faults {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first few.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    fn add(&mut self, fault: String) {
        self.count += 1;
        if self.examples.len() < 5 {
            self.examples.push(fault);
        }
    }
}

/// The connections of a fleet.
pub struct Links {
    registry: Registry,
    options: Options,
    sources: Sources,
    slots: Vec<Link>,
    dirty: Vec<LinkId>,
    waiting: VecDeque<LinkId>,
    handshaking: usize,
    ready: usize,
    connected: usize,
    /// When to dial whom.
    later: BinaryHeap<Reverse<(u64, LinkId)>>,
    /// When the crew has something to do although nothing comes.
    wake_ns: Option<u64>,
    /// Links that ended unasked, for the crew.
    lost: Vec<(LinkId, String)>,
    received: u64,
    receive_maximum: u16,
    clock: Instant,
    now_ns: u64,
    faults: Faults,
}

impl Links {
    pub(super) fn new(registry: Registry, options: Options) -> Links {
        Links {
            registry,
            sources: Sources::new(&options),
            options,
            slots: Vec::new(),
            dirty: Vec::new(),
            waiting: VecDeque::new(),
            handshaking: 0,
            ready: 0,
            connected: 0,
            later: BinaryHeap::new(),
            wake_ns: None,
            lost: Vec::new(),
            received: 0,
            receive_maximum: u16::MAX,
            clock: Instant::now(),
            now_ns: 0,
            faults: Faults::default(),
        }
    }

    /// Adds an MQTT client; [`Links::dial`] connects it.
    pub fn add(&mut self, member: Member) -> LinkId {
        self.add_kind(Kind::Mqtt(Box::new(member)))
    }

    /// Adds a connection to the HTTP address of the options.
    pub fn add_http(&mut self) -> LinkId {
        self.add_kind(Kind::Http)
    }

    fn add_kind(&mut self, kind: Kind) -> LinkId {
        self.slots.push(Link {
            stream: None,
            server: self.slots.len(),
            kind,
            phase: Phase::Idle,
            session_present: false,
            dirty: false,
            dialed_ns: 0,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
        });
        LinkId(self.slots.len() - 1)
    }

    /// The client behind a link, to change what its next connection asks for. Panics for an HTTP link.
    pub fn member_mut(&mut self, link: LinkId) -> &mut Member {
        match &mut self.slots[link.0].kind {
            Kind::Mqtt(member) => member,
            Kind::Http => panic!("link {link:?} speaks HTTP"),
        }
    }

    /// Which of the servers a link connects to, 0 to their number - 1.
    pub fn server(&self, link: LinkId) -> usize {
        let slot = &self.slots[link.0];
        let servers = match slot.kind {
            Kind::Mqtt(_) => self.options.mqtt.len(),
            Kind::Http => self.options.http.len(),
        };
        slot.server % servers.max(1)
    }

    /// Makes a link connect to another server from the next time on.
    pub fn set_server(&mut self, link: LinkId, server: usize) {
        self.slots[link.0].server = server;
    }

    /// Connects when [`Links::now_ns`] is `at_ns`.
    pub fn dial_at(&mut self, link: LinkId, at_ns: u64) {
        self.later.push(Reverse((at_ns, link)));
    }

    /// Has the next wait end at that time, whatever comes: once, the last word counts.
    pub fn wake_at(&mut self, at_ns: u64) {
        self.wake_ns = Some(at_ns);
    }

    /// How long to wait at most, for the next dial and for the crew.
    pub(super) fn longest_wait(&mut self) -> Option<Duration> {
        let dial_ns = self.later.peek().map(|Reverse((at_ns, _))| *at_ns);
        let at_ns = dial_ns.into_iter().chain(self.wake_ns.take()).min()?;
        Some(Duration::from_nanos(at_ns.saturating_sub(self.now_ns)))
    }

    /// A link that ended unasked, and why.
    pub(super) fn next_lost(&mut self) -> Option<(LinkId, String)> {
        self.lost.pop()
    }

    /// Connects, as soon as fewer than [`Options::concurrency`] handshakes are under way.
    pub fn dial(&mut self, link: LinkId) {
        debug_assert_eq!(self.slots[link.0].phase, Phase::Idle);
        self.slots[link.0].phase = Phase::Waiting;
        self.waiting.push_back(link);
    }

    /// Appends to what leaves at the end of the turn. Nothing happens on a link without a connection.
    #[inline]
    pub fn send(&mut self, link: LinkId, write: impl FnOnce(&mut Vec<u8>)) {
        let slot = &mut self.slots[link.0];
        if slot.stream.is_none() {
            return;
        }
        write(&mut slot.out);
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(link);
        }
    }

    /// Sends a DISCONNECT; the link is idle when the server has closed. HTTP just hangs up.
    pub fn leave(&mut self, link: LinkId) {
        if let Kind::Http = self.slots[link.0].kind {
            self.ready -= usize::from(self.slots[link.0].phase == Phase::Ready);
            self.slots[link.0].phase = Phase::Leaving;
            return self.on_end(link, "left");
        }
        let version = self.options.version;
        self.send(link, |out| {
            let packet = Packet::Disconnect(Disconnect {
                reason: Reason::NormalDisconnection,
                properties: Properties::EMPTY,
            });
            packet.encode(version, out);
        });
        self.ready -= usize::from(self.slots[link.0].phase == Phase::Ready);
        self.slots[link.0].phase = Phase::Leaving;
    }

    /// What the fleet was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Links whose handshake is complete and that are still connected.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// The links that [`Links::ready`] counts.
    pub fn all_ready(&self) -> Vec<LinkId> {
        let ready = |link: &LinkId| self.slots[link.0].phase == Phase::Ready;
        (0..self.slots.len()).map(LinkId).filter(ready).collect()
    }

    /// Whether a link's handshake is complete and it is still connected.
    pub fn is_ready(&self, link: LinkId) -> bool {
        self.slots[link.0].phase == Phase::Ready
    }

    /// Links that were added, connected or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Links with a socket.
    pub fn connected(&self) -> usize {
        self.connected
    }

    /// Packets and HTTP responses that came, of any kind.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Publishes above QoS 0 that the server lets a client have under way: the smallest Receive Maximum that any CONNACK named.
    /// MQTT 5.0 section 3.2.2.3.3.
    pub fn receive_maximum(&self) -> u64 {
        self.receive_maximum.into()
    }

    pub(super) fn limit_receive_maximum(&mut self, granted: u16) {
        self.receive_maximum = self.receive_maximum.min(granted);
    }

    /// What went wrong so far.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What to report of a run that ended like that.
    pub fn problems(&self, ended: Ended) -> Vec<String> {
        let mut problems = self.faults.examples.clone();
        let more = self.faults.count - problems.len() as u64;
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        if ended == Ended::Stalled {
            problems.push(format!(
                "gave up: nothing came for {:?}",
                self.options.stall
            ));
        }
        problems
    }

    /// Adds a fault that a crew noticed.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.faults.add(fault.into());
    }

    /// Nanoseconds since the fleet was made, at the last [`Links::tick`]; the fleet ticks before each read.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Reads the clock.
    pub fn tick(&mut self) -> u64 {
        self.now_ns = self.clock.elapsed().as_nanos() as u64;
        self.now_ns
    }

    pub(super) fn slot(&mut self, link: LinkId) -> &mut Link {
        &mut self.slots[link.0]
    }

    pub(super) fn count_received(&mut self) {
        self.received += 1;
    }

    /// The socket to read from, and what was left of the last read.
    pub(super) fn source(&mut self, link: LinkId) -> Option<(&mut TcpStream, &mut Vec<u8>)> {
        let slot = &mut self.slots[link.0];
        Some((slot.stream.as_mut()?, &mut slot.partial))
    }

    /// Keeps the beginning of a packet until the rest comes.
    pub(super) fn keep(&mut self, link: LinkId, rest: &[u8]) {
        if !rest.is_empty() && self.slots[link.0].stream.is_some() {
            self.slots[link.0].partial.extend_from_slice(rest);
        }
    }

    pub(super) fn dial_waiting(&mut self) {
        if !self.later.is_empty() {
            let now_ns = self.tick();
            while let Some(Reverse((at_ns, link))) = self.later.peek().copied() {
                if at_ns > now_ns {
                    break;
                }
                self.later.pop();
                self.dial(link);
            }
        }
        while self.handshaking < self.options.concurrency {
            let Some(link) = self.waiting.pop_front() else {
                return;
            };
            let dialed_ns = self.tick();
            let server = self.server(link);
            let slot = &mut self.slots[link.0];
            let to = match slot.kind {
                Kind::Mqtt(_) => self.options.mqtt.get(server),
                Kind::Http => self.options.http.get(server),
            };
            let Some(&to) = to else {
                slot.phase = Phase::Idle;
                self.faults.add("there is no address to dial".into());
                continue;
            };
            let stream = dial::dial(to, &mut self.sources).and_then(|mut stream| {
                let both = Interest::READABLE | Interest::WRITABLE;
                self.registry.register(&mut stream, Token(link.0), both)?;
                Ok(stream)
            });
            match stream {
                Ok(stream) => {
                    slot.stream = Some(stream);
                    slot.phase = Phase::Dialing;
                    slot.dialed_ns = dialed_ns;
                    self.handshaking += 1;
                    self.connected += 1;
                }
                Err(error) => {
                    slot.phase = Phase::Idle;
                    self.lost.push((link, format!("cannot dial {to}: {error}")));
                }
            }
        }
    }

    pub(super) fn on_writable<C: Crew>(&mut self, link: LinkId, crew: &mut C) {
        let slot = &mut self.slots[link.0];
        let Some(stream) = &slot.stream else { return };
        if slot.phase != Phase::Dialing {
            return self.flush_link(link);
        }
        match stream.take_error() {
            Ok(None) => self.on_connected(link, crew),
            Ok(Some(error)) | Err(error) => self.on_end(link, &error.to_string()),
        }
    }

    /// The handshake is over, or its link gone.
    pub(super) fn on_welcome<C: Crew>(&mut self, link: LinkId, crew: &mut C) {
        let slot = &mut self.slots[link.0];
        slot.phase = Phase::Ready;
        let welcome = Welcome {
            session_present: slot.session_present,
            elapsed: Duration::from_nanos(self.now_ns.saturating_sub(slot.dialed_ns)),
        };
        self.handshaking -= 1;
        self.ready += 1;
        crew.on_ready(self, link, welcome);
    }

    /// The connection is gone; the crew hears of it, unless it was asked for.
    pub(super) fn on_end(&mut self, link: LinkId, why: &str) {
        let slot = &mut self.slots[link.0];
        slot.stream = None;
        slot.partial = Vec::new();
        slot.out = Vec::new();
        slot.written = 0;
        let phase = std::mem::replace(&mut slot.phase, Phase::Idle);
        self.connected -= 1;
        match phase {
            Phase::Ready => self.ready -= 1,
            Phase::Dialing | Phase::Greeting | Phase::Subscribing => self.handshaking -= 1,
            Phase::Idle | Phase::Waiting | Phase::Leaving => {}
        }
        if phase != Phase::Leaving {
            let who = match &slot.kind {
                Kind::Mqtt(member) => &member.client_id,
                Kind::Http => "an HTTP connection",
            };
            let why = format!("{who}, {phase:?}: {why}");
            self.lost.push((link, why));
        }
    }

    pub(super) fn flush(&mut self) {
        while let Some(link) = self.dirty.pop() {
            self.slots[link.0].dirty = false;
            self.flush_link(link);
        }
    }

    fn flush_link(&mut self, link: LinkId) {
        /// Buffers above this are given back once empty.
        const KEEP_BYTES: usize = 64 * 1024;
        let slot = &mut self.slots[link.0];
        let Some(stream) = &mut slot.stream else {
            return;
        };
        while slot.written < slot.out.len() {
            match stream.write(&slot.out[slot.written..]) {
                Ok(bytes) => slot.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let why = error.to_string();
                    return self.on_end(link, &why);
                }
            }
        }
        slot.out.clear();
        slot.out.shrink_to(KEEP_BYTES);
        slot.written = 0;
    }
}
