//! One connection, watched from outside: what the client said, what the node may say because of it, and what it said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use campanile_mqtt::{
    Connect, Packet, PacketId, Publish, QoS, Reason, Split, Version, split, topic,
};

/// Filters that a client identifier ever asked for: of those is what it may get. Of the empty one, they are anybody's, since the node gives
/// such a client another.
pub type Asked = BTreeMap<String, BTreeSet<String>>;

/// A connection. Every broken rule is a panic.
#[derive(Debug)]
pub struct Link {
    /// The node's number of it.
    pub wire: usize,
    /// What the node sent of the next packet.
    heard: Vec<u8>,
    /// What the client sent of its next packet.
    said: Vec<u8>,
    /// What the client sent is not MQTT: nobody knows what the node makes of the rest.
    garbled: bool,
    version: Option<Version>,
    client_id: Option<String>,
    receive_maximum: u16,
    max_packet_bytes: usize,
    alias_maximum: u16,
    aliases: BTreeMap<u16, String>,
    stage: Stage,
    resumed: bool,
    in_flight: BTreeMap<u16, Exchange>,
    /// Acknowledged when nobody knows whether the node had sent a message with this identifier.
    doubtful: BTreeSet<u16>,
    /// PUBREC was sent without an exchange: PUBREL comes in return.
    strays: BTreeSet<u16>,
    owed: Owed,
    /// QoS 2 messages of the client that came again before they were answered.
    repeated: BTreeSet<u16>,
    /// Their PUBRELs that came again before they were answered.
    released_again: BTreeSet<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Welcomed,
    /// Refused, or DISCONNECT came: not a byte more.
    Over,
}

/// A message from the node whose exchange is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    /// QoS 1: PUBACK is due.
    Published,
    /// QoS 2: PUBREC is due.
    Unreleased,
    /// QoS 2: PUBCOMP is due. `counted`: its PUBLISH was sent on this connection.
    Released { counted: bool },
}

/// Answers that the node owes.
#[derive(Debug, Default)]
struct Owed {
    /// In the order of the PUBLISHes, for QoS 1 and 2.
    pubacks: VecDeque<u16>,
    pubrecs: VecDeque<u16>,
    pubcomps: Vec<u16>,
    /// With the number of filters.
    subacks: Vec<(u16, usize)>,
    unsubacks: Vec<(u16, usize)>,
    pings: usize,
}

/// Takes an identifier out of what is owed.
#[track_caller]
fn settle<T: PartialEq + std::fmt::Debug>(owed: &mut Vec<T>, answer: &T, what: &str) {
    match owed.iter().position(|owed| owed == answer) {
        Some(at) => drop(owed.remove(at)),
        None => panic!("{what} of {answer:?}, which nobody asked for"),
    }
}

impl Link {
    /// A fresh connection.
    pub fn new(wire: usize) -> Link {
        Link {
            wire,
            heard: Vec::new(),
            said: Vec::new(),
            garbled: false,
            version: None,
            client_id: None,
            receive_maximum: u16::MAX,
            max_packet_bytes: usize::MAX,
            alias_maximum: 0,
            aliases: BTreeMap::new(),
            stage: Stage::New,
            resumed: false,
            in_flight: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            strays: BTreeSet::new(),
            owed: Owed::default(),
            repeated: BTreeSet::new(),
            released_again: BTreeSet::new(),
        }
    }

    /// Whether the node has welcomed the client, and the next thing that the client says is a packet to it.
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Welcomed && !self.garbled && self.said.is_empty()
    }

    /// Whether the node answered whatever the client asked.
    pub fn is_answered(&self) -> bool {
        let Owed {
            pubacks,
            pubrecs,
            pubcomps,
            subacks,
            unsubacks,
            pings,
        } = &self.owed;
        let waiting = [
            pubacks.len(),
            pubrecs.len(),
            pubcomps.len(),
            subacks.len(),
            unsubacks.len(),
            *pings,
        ];
        waiting.iter().all(|&waiting| waiting == 0)
    }

    /// How the client goes on with each exchange: identifier and QoS, and for QoS 2 whether it is released.
    pub fn due(&self) -> Vec<(u16, QoS, bool)> {
        let due = |(&id, exchange): (&u16, &Exchange)| match exchange {
            Exchange::Published => (id, QoS::AtLeastOnce, false),
            Exchange::Unreleased => (id, QoS::ExactlyOnce, false),
            Exchange::Released { .. } => (id, QoS::ExactlyOnce, true),
        };
        self.in_flight.iter().map(due).collect()
    }

    /// The client sends bytes. `quiet`: nothing was under way in the node.
    pub fn on_said(&mut self, bytes: &[u8], quiet: bool, asked: &mut Asked) {
        self.said.extend_from_slice(bytes);
        while !self.garbled {
            let frame: Vec<u8> = match split(&self.said, u32::MAX) {
                Ok(Split::Packet { total_len, .. }) => self.said.drain(..total_len).collect(),
                Ok(Split::NeedMore { .. }) => return,
                Err(_) => return self.garbled = true,
            };
            match Packet::decode(&frame, self.version.unwrap_or(Version::V5)) {
                Ok(packet) => self.on_packet_said(&packet, quiet, asked),
                Err(_) => self.garbled = true,
            }
        }
    }

    fn on_packet_said(&mut self, packet: &Packet<'_>, quiet: bool, asked: &mut Asked) {
        if self.version.is_none() {
            return match packet {
                Packet::Connect(connect) => self.on_connect(connect),
                _ => self.garbled = true,
            };
        }
        match packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => self.owed.pubacks.push_back(id.get()),
                // One that is repeated before its PUBREC may be answered once or twice.
                (QoS::ExactlyOnce, Some(id)) if self.owed.pubrecs.contains(&id.get()) => {
                    self.repeated.insert(id.get());
                }
                (QoS::ExactlyOnce, Some(id)) => self.owed.pubrecs.push_back(id.get()),
                _ => {}
            },
            Packet::PubAck(ack) => self.on_puback(ack.packet_id, quiet),
            Packet::PubRec(ack) => self.on_pubrec(ack.packet_id, ack.reason.is_error(), quiet),
            // Here as well.
            Packet::PubRel(ack) if self.owed.pubcomps.contains(&ack.packet_id.get()) => {
                self.released_again.insert(ack.packet_id.get());
            }
            Packet::PubRel(ack) => self.owed.pubcomps.push(ack.packet_id.get()),
            Packet::PubComp(ack) => self.on_pubcomp(ack.packet_id, quiet),
            Packet::Subscribe(subscribe) => {
                let filters: Vec<_> = subscribe.filters.iter().collect();
                self.owed
                    .subacks
                    .push((subscribe.packet_id.get(), filters.len()));
                let who = self.client_id.clone().unwrap_or_default();
                let known = asked.entry(who).or_default();
                known.extend(
                    filters
                        .iter()
                        .map(|(filter, _)| match topic::parse_shared(filter) {
                            Ok(Some((_, behind))) => behind.to_owned(),
                            _ => (*filter).to_owned(),
                        }),
                );
            }
            Packet::Unsubscribe(unsubscribe) => {
                let count = unsubscribe.filters.iter().count();
                self.owed
                    .unsubacks
                    .push((unsubscribe.packet_id.get(), count));
            }
            Packet::PingReq => self.owed.pings += 1,
            // Of what comes after, the node takes nothing.
            _ => self.garbled = true,
        }
    }

    fn on_connect(&mut self, connect: &Connect<'_>) {
        self.version = Some(connect.version);
        self.client_id = Some(connect.client_id.to_owned());
        // In 3.1 the CONNACK does not tell.
        self.resumed = connect.version == Version::V31 && !connect.clean_start;
        let properties = connect.properties;
        self.receive_maximum = properties.receive_maximum().unwrap_or(u16::MAX);
        self.max_packet_bytes = properties
            .maximum_packet_size()
            .map_or(usize::MAX, |bytes| bytes as usize);
        self.alias_maximum = properties.topic_alias_maximum().unwrap_or(0);
    }

    fn on_puback(&mut self, id: PacketId, quiet: bool) {
        match self.in_flight.get(&id.get()) {
            Some(Exchange::Published) => drop(self.in_flight.remove(&id.get())),
            _ => self.doubt(id, quiet),
        }
    }

    fn on_pubrec(&mut self, id: PacketId, refuses: bool, quiet: bool) {
        match self.in_flight.get_mut(&id.get()) {
            Some(Exchange::Unreleased | Exchange::Released { .. }) if refuses => {
                self.in_flight.remove(&id.get());
                self.strays.insert(id.get());
            }
            Some(exchange @ Exchange::Unreleased) => {
                *exchange = Exchange::Released { counted: true };
            }
            Some(Exchange::Released { .. }) => {}
            _ => {
                self.strays.insert(id.get());
                self.doubt(id, quiet);
            }
        }
    }

    fn on_pubcomp(&mut self, id: PacketId, quiet: bool) {
        match self.in_flight.get(&id.get()) {
            Some(Exchange::Released { .. }) => {
                self.in_flight.remove(&id.get());
                // What the node sends because of the PUBREC may still come.
                self.strays.insert(id.get());
            }
            _ => self.doubt(id, quiet),
        }
    }

    fn doubt(&mut self, id: PacketId, quiet: bool) {
        if !quiet {
            self.doubtful.insert(id.get());
        }
    }

    /// The node sends bytes.
    pub fn on_heard(&mut self, bytes: &[u8], asked: &Asked) {
        self.heard.extend_from_slice(bytes);
        loop {
            match split(&self.heard, u32::MAX) {
                Ok(Split::Packet { total_len, .. }) => {
                    let frame: Vec<u8> = self.heard.drain(..total_len).collect();
                    self.on_frame(&frame, asked);
                }
                Ok(Split::NeedMore { .. }) => return,
                Err(error) => panic!("the node sends what is no packet: {error}"),
            }
        }
    }

    /// The node has closed the connection.
    pub fn on_closed(&mut self) {
        assert!(self.heard.is_empty(), "the node sends half a packet");
        self.stage = Stage::Over;
    }

    fn on_frame(&mut self, frame: &[u8], asked: &Asked) {
        assert_ne!(
            self.stage,
            Stage::Over,
            "a packet after the last: {frame:x?}"
        );
        assert!(
            frame.len() <= self.max_packet_bytes,
            "{} bytes are too many: {frame:x?}",
            frame.len()
        );
        let Some(version) = self.version else {
            // A refusal of something that is no CONNECT, in whatever version the node takes it to be.
            let read = |version| Packet::decode(frame, version);
            let refused = |packet: &Packet<'_>| matches!(packet, Packet::ConnAck(connack) if connack.reason.is_error());
            let fits = [Version::V311, Version::V5]
                .into_iter()
                .any(|version| read(version).as_ref().is_ok_and(refused));
            assert!(fits, "a stranger is told {frame:x?}");
            return self.stage = Stage::Over;
        };
        match Packet::decode(frame, version) {
            Ok(packet) => self.on_packet_heard(&packet, version, asked),
            Err(error) => panic!("the node sends a malformed packet: {error}: {frame:x?}"),
        }
    }

    fn on_packet_heard(&mut self, packet: &Packet<'_>, version: Version, asked: &Asked) {
        if self.stage == Stage::New {
            return match packet {
                Packet::ConnAck(connack) => {
                    assert!(!(connack.reason.is_error() && connack.session_present));
                    self.resumed |= connack.session_present;
                    self.stage = if connack.reason.is_error() {
                        Stage::Over
                    } else {
                        Stage::Welcomed
                    };
                    if let Some(assigned) = connack.properties.assigned_client_id() {
                        self.client_id = Some(assigned.to_owned());
                    }
                }
                Packet::Auth(_) => {}
                other => panic!("before the CONNACK: {other:?}"),
            };
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, version, asked),
            Packet::PubAck(ack) => {
                assert_eq!(self.owed.pubacks.pop_front(), Some(ack.packet_id.get()));
            }
            Packet::PubRec(ack) => {
                let id = ack.packet_id.get();
                match self.owed.pubrecs.front() {
                    Some(&first) if first == id => drop(self.owed.pubrecs.pop_front()),
                    _ if self.repeated.contains(&id) => {}
                    other => panic!("PUBREC of {id} instead of {other:?}"),
                }
            }
            Packet::PubComp(ack) => {
                let id = ack.packet_id.get();
                if self.owed.pubcomps.contains(&id) || !self.released_again.contains(&id) {
                    settle(&mut self.owed.pubcomps, &id, "PUBCOMP");
                }
            }
            Packet::PubRel(ack) => self.on_pubrel(ack.packet_id, ack.reason),
            Packet::SubAck(ack) => {
                let answer = (ack.packet_id.get(), ack.codes.len());
                settle(&mut self.owed.subacks, &answer, "SUBACK");
            }
            Packet::UnsubAck(ack) if version.is_v5() => {
                let answer = (ack.packet_id.get(), ack.codes.len());
                settle(&mut self.owed.unsubacks, &answer, "UNSUBACK");
            }
            Packet::UnsubAck(ack) => {
                let asked = &mut self.owed.unsubacks;
                let count = asked.iter().find(|(id, _)| *id == ack.packet_id.get());
                let answer = (ack.packet_id.get(), count.map_or(0, |(_, count)| *count));
                settle(asked, &answer, "UNSUBACK");
            }
            Packet::PingResp => {
                assert!(self.owed.pings > 0, "PINGRESP without PINGREQ");
                self.owed.pings -= 1;
            }
            Packet::Disconnect(_) if version.is_v5() => self.stage = Stage::Over,
            Packet::Auth(_) => {}
            other => panic!("no packet of a server: {other:?}"),
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>, version: Version, asked: &Asked) {
        let alias = publish.properties.topic_alias();
        if let Some(alias) = alias {
            assert!(
                (1..=self.alias_maximum).contains(&alias),
                "alias {alias} of at most {}",
                self.alias_maximum
            );
            if !publish.topic.is_empty() {
                self.aliases.insert(alias, publish.topic.to_owned());
            }
        }
        let name = match (publish.topic, alias) {
            ("", Some(alias)) => self
                .aliases
                .get(&alias)
                .expect("the alias is known")
                .clone(),
            (name, _) => name.to_owned(),
        };
        assert!(topic::validate_name(&name).is_ok(), "topic {name:?}");
        self.check_asked(&name, asked);
        let Some(id) = publish.packet_id.map(PacketId::get) else {
            return;
        };
        if self.doubtful.contains(&id) {
            return;
        }
        let exchange = match publish.qos {
            QoS::ExactlyOnce => Exchange::Unreleased,
            _ => Exchange::Published,
        };
        let before = self.in_flight.insert(id, exchange);
        assert_eq!(before, None, "packet identifier {id} is in use");
        assert!(
            !publish.dup || self.resumed,
            "DUP of what was not sent before"
        );
        let under_way = self
            .in_flight
            .values()
            .filter(|exchange| **exchange != Exchange::Released { counted: false })
            .count();
        assert!(
            !version.is_v5() || under_way <= usize::from(self.receive_maximum),
            "{under_way} messages under way, of at most {}",
            self.receive_maximum
        );
    }

    /// What a client gets it has asked for at some time, or it is a push.
    fn check_asked(&self, name: &str, asked: &Asked) {
        let who = self.client_id.clone().unwrap_or_default();
        let mut known = [who.as_str(), ""]
            .into_iter()
            .filter_map(|who| asked.get(who));
        let wanted = known.any(|filters| filters.iter().any(|filter| topic::matches(filter, name)));
        assert!(
            wanted || name.starts_with("push/"),
            "{who:?} has never asked for {name:?}"
        );
    }

    fn on_pubrel(&mut self, id: PacketId, reason: Reason) {
        match self.in_flight.get(&id.get()) {
            Some(Exchange::Released { .. }) => {}
            _ if self.strays.contains(&id.get()) || self.doubtful.contains(&id.get()) => {}
            None if self.resumed && !reason.is_error() => {
                let known = Exchange::Released { counted: false };
                self.in_flight.insert(id.get(), known);
            }
            other => panic!("PUBREL of {id:?}, which is {other:?}"),
        }
    }
}
