//! What a client says and what it hears: packets in the making, with a default for all that a test does not care about.

use campanile_mqtt::{
    Ack, Auth, ConnAck, Connect as ConnectPacket, Disconnect, Packet, PacketId, Properties,
    PropertiesBuf, Property, Publish as PublishPacket, QoS, Reason, SubAck, Subscribe as SubPacket,
    SubscribeFilters, SubscriptionOptions, UnsubAck, Unsubscribe as UnsubPacket,
    UnsubscribeFilters, Version, Will as WillPacket,
};

/// Something that a client can send.
pub trait Say {
    /// Its bytes in a version.
    fn bytes(&self, version: Version) -> Vec<u8>;
}

impl Say for Packet<'_> {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(version, &mut bytes);
        bytes
    }
}

impl Say for Vec<u8> {
    fn bytes(&self, _: Version) -> Vec<u8> {
        self.clone()
    }
}

/// Bytes from hexadecimal digits; spaces are ignored. Panics on anything else.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("hexadecimal digits and spaces"))
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "two digits a byte");
    pairs
        .iter()
        .map(|[high, low]| (high * 16 + low) as u8)
        .collect()
}

/// The quality of service of a number. Panics above 2.
pub fn qos(level: u8) -> QoS {
    QoS::from_bits(level).expect("0, 1 or 2")
}

/// The packet identifier of a number. Panics on 0.
pub fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("1 or more")
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Version; 5.0.
    pub version: Version,
    client_id: String,
    clean_start: bool,
    keep_alive: u16,
    properties: PropertiesBuf,
    will: Option<Will>,
    username: Option<String>,
    password: Option<Vec<u8>>,
}

/// A CONNECT of 5.0 with clean start, without session expiry and keep-alive.
pub fn connect(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        client_id: client_id.to_owned(),
        clean_start: true,
        keep_alive: 0,
        properties: PropertiesBuf::new(),
        will: None,
        username: None,
        password: None,
    }
}

impl Connect {
    /// Sets the version.
    pub fn version(self, version: Version) -> Connect {
        Connect { version, ..self }
    }

    /// Sets clean start (clean session).
    pub fn clean(self, clean_start: bool) -> Connect {
        Connect {
            clean_start,
            ..self
        }
    }

    /// Takes up an earlier session (clean start 0), and keeps it for an hour. Call it after [`Connect::version`].
    pub fn durable(self) -> Connect {
        self.clean(false).expiry(3600)
    }

    /// Sets the Session Expiry Interval, which versions before 5 do not have.
    pub fn expiry(self, seconds: u32) -> Connect {
        self.with(Property::SessionExpiry(seconds))
    }

    /// Sets the keep-alive.
    pub fn keep_alive(self, seconds: u16) -> Connect {
        Connect {
            keep_alive: seconds,
            ..self
        }
    }

    /// Adds a property.
    pub fn with(mut self, property: Property<'_>) -> Connect {
        self.properties.push(property);
        self
    }

    /// Sets the will.
    pub fn will(self, will: Will) -> Connect {
        Connect {
            will: Some(will),
            ..self
        }
    }

    /// Sets user name and password.
    pub fn login(self, username: &str, password: &str) -> Connect {
        Connect {
            username: Some(username.to_owned()),
            password: Some(password.as_bytes().to_vec()),
            ..self
        }
    }
}

impl Say for Connect {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let will = self.will.as_ref().map(|will| WillPacket {
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.as_properties(),
            topic: &will.topic,
            payload: will.payload.as_bytes(),
        });
        let packet = Packet::Connect(ConnectPacket {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            properties: self.properties.as_properties(),
            client_id: &self.client_id,
            will,
            username: self.username.as_deref(),
            password: self.password.as_deref(),
        });
        packet.bytes(version)
    }
}

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    topic: String,
    payload: String,
    qos: QoS,
    retain: bool,
    properties: PropertiesBuf,
}

/// A will of QoS 0.
pub fn will(topic: &str, payload: &str) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: payload.to_owned(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: PropertiesBuf::new(),
    }
}

impl Will {
    /// Sets the quality of service.
    pub fn qos(self, level: u8) -> Will {
        Will {
            qos: qos(level),
            ..self
        }
    }

    /// Sets the retain flag.
    pub fn retain(self) -> Will {
        Will {
            retain: true,
            ..self
        }
    }

    /// Sets the Will Delay Interval.
    pub fn delay(self, seconds: u32) -> Will {
        self.with(Property::WillDelay(seconds))
    }

    /// Adds a property.
    pub fn with(mut self, property: Property<'_>) -> Will {
        self.properties.push(property);
        self
    }
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub struct Publish {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    packet_id: Option<PacketId>,
    dup: bool,
    retain: bool,
    properties: PropertiesBuf,
}

/// A PUBLISH of QoS 0.
pub fn publish(topic: &str, payload: &str) -> Publish {
    Publish {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtMostOnce,
        packet_id: None,
        dup: false,
        retain: false,
        properties: PropertiesBuf::new(),
    }
}

impl Publish {
    /// QoS 1 with an identifier.
    pub fn qos1(self, number: u16) -> Publish {
        self.qos(1, number)
    }

    /// QoS 2 with an identifier.
    pub fn qos2(self, number: u16) -> Publish {
        self.qos(2, number)
    }

    /// Sets the quality of service, and the identifier unless it is 0.
    pub fn qos(self, level: u8, number: u16) -> Publish {
        Publish {
            qos: qos(level),
            packet_id: (level > 0).then(|| id(number)),
            ..self
        }
    }

    /// Sets the DUP flag.
    pub fn dup(self) -> Publish {
        Publish { dup: true, ..self }
    }

    /// Sets the retain flag.
    pub fn retain(self) -> Publish {
        Publish {
            retain: true,
            ..self
        }
    }

    /// Adds a property.
    pub fn with(mut self, property: Property<'_>) -> Publish {
        self.properties.push(property);
        self
    }
}

impl Say for Publish {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let packet = Packet::Publish(PublishPacket {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties: self.properties.as_properties(),
            payload: &self.payload,
        });
        packet.bytes(version)
    }
}

/// A SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Subscribe {
    packet_id: PacketId,
    filters: Vec<u8>,
    properties: PropertiesBuf,
}

/// A SUBSCRIBE without filters yet.
pub fn subscribe(number: u16) -> Subscribe {
    Subscribe {
        packet_id: id(number),
        filters: Vec::new(),
        properties: PropertiesBuf::new(),
    }
}

/// Subscription options of a quality of service, all else 0.
pub fn options(level: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(level),
        ..SubscriptionOptions::default()
    }
}

impl Subscribe {
    /// Adds a filter.
    pub fn filter(self, filter: &str, level: u8) -> Subscribe {
        self.filter_with(filter, options(level))
    }

    /// Adds a filter with options.
    pub fn filter_with(mut self, filter: &str, options: SubscriptionOptions) -> Subscribe {
        SubscribeFilters::write(filter, options, &mut self.filters);
        self
    }

    /// Adds a property.
    pub fn with(mut self, property: Property<'_>) -> Subscribe {
        self.properties.push(property);
        self
    }
}

impl Say for Subscribe {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let packet = Packet::Subscribe(SubPacket {
            packet_id: self.packet_id,
            properties: self.properties.as_properties(),
            filters: SubscribeFilters::trusted(&self.filters),
        });
        packet.bytes(version)
    }
}

/// An UNSUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Unsubscribe {
    packet_id: PacketId,
    filters: Vec<u8>,
}

/// An UNSUBSCRIBE without filters yet.
pub fn unsubscribe(number: u16) -> Unsubscribe {
    Unsubscribe {
        packet_id: id(number),
        filters: Vec::new(),
    }
}

impl Unsubscribe {
    /// Adds a filter.
    pub fn filter(mut self, filter: &str) -> Unsubscribe {
        UnsubscribeFilters::write(filter, &mut self.filters);
        self
    }
}

impl Say for Unsubscribe {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let packet = Packet::Unsubscribe(UnsubPacket {
            packet_id: self.packet_id,
            properties: Properties::EMPTY,
            filters: UnsubscribeFilters::trusted(&self.filters),
        });
        packet.bytes(version)
    }
}

/// A packet that is little more than a reason: an acknowledgement, DISCONNECT, AUTH.
#[derive(Clone, Debug)]
pub struct Plain {
    kind: Kind,
    reason: Reason,
    properties: PropertiesBuf,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    PubAck(PacketId),
    PubRec(PacketId),
    PubRel(PacketId),
    PubComp(PacketId),
    Disconnect,
    Auth,
}

fn plain(kind: Kind, reason: Reason) -> Plain {
    Plain {
        kind,
        reason,
        properties: PropertiesBuf::new(),
    }
}

/// A PUBACK.
pub fn puback(number: u16) -> Plain {
    plain(Kind::PubAck(id(number)), Reason::Success)
}

/// A PUBREC.
pub fn pubrec(number: u16) -> Plain {
    plain(Kind::PubRec(id(number)), Reason::Success)
}

/// A PUBREL.
pub fn pubrel(number: u16) -> Plain {
    plain(Kind::PubRel(id(number)), Reason::Success)
}

/// A PUBCOMP.
pub fn pubcomp(number: u16) -> Plain {
    plain(Kind::PubComp(id(number)), Reason::Success)
}

/// A DISCONNECT with reason 0.
pub fn disconnect() -> Plain {
    plain(Kind::Disconnect, Reason::NormalDisconnection)
}

/// An AUTH with a method, and with data unless it is empty.
pub fn auth(reason: Reason, method: &str, data: &str) -> Plain {
    let auth = plain(Kind::Auth, reason).with(Property::AuthMethod(method));
    match data {
        "" => auth,
        data => auth.with(Property::AuthData(data.as_bytes())),
    }
}

impl Plain {
    /// Sets the reason.
    pub fn reason(self, reason: Reason) -> Plain {
        Plain { reason, ..self }
    }

    /// Adds a property.
    pub fn with(mut self, property: Property<'_>) -> Plain {
        self.properties.push(property);
        self
    }
}

impl Say for Plain {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let (reason, properties) = (self.reason, self.properties.as_properties());
        let ack = |packet_id| Ack {
            packet_id,
            reason,
            properties,
        };
        let packet = match self.kind {
            Kind::PubAck(id) => Packet::PubAck(ack(id)),
            Kind::PubRec(id) => Packet::PubRec(ack(id)),
            Kind::PubRel(id) => Packet::PubRel(ack(id)),
            Kind::PubComp(id) => Packet::PubComp(ack(id)),
            Kind::Disconnect => Packet::Disconnect(Disconnect { reason, properties }),
            Kind::Auth => Packet::Auth(Auth { reason, properties }),
        };
        packet.bytes(version)
    }
}

/// A packet that a client got. The accessors panic if it is another one.
#[derive(Clone, PartialEq, Eq)]
pub struct Heard {
    version: Version,
    /// As it came.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.packet().fmt(f)
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty;)*) => {
        $($(#[$doc])*
        #[track_caller]
        pub fn $name(&self) -> $type {
            match self.packet() {
                Packet::$variant(packet) => packet,
                other => panic!("{} was expected, not {other:?}", stringify!($variant)),
            }
        })*
    };
}

impl Heard {
    /// A whole packet of a version.
    pub fn new(version: Version, bytes: Vec<u8>) -> Heard {
        Heard { version, bytes }
    }

    /// Any packet.
    pub fn packet(&self) -> Packet<'_> {
        Packet::decode(&self.bytes, self.version).expect("the node sends well-formed packets")
    }

    accessors! {
        /// CONNACK.
        connack: ConnAck -> ConnAck<'_>;
        /// PUBLISH.
        publish: Publish -> PublishPacket<'_>;
        /// PUBACK.
        puback: PubAck -> Ack<'_>;
        /// PUBREC.
        pubrec: PubRec -> Ack<'_>;
        /// PUBREL.
        pubrel: PubRel -> Ack<'_>;
        /// PUBCOMP.
        pubcomp: PubComp -> Ack<'_>;
        /// SUBACK.
        suback: SubAck -> SubAck<'_>;
        /// UNSUBACK.
        unsuback: UnsubAck -> UnsubAck<'_>;
        /// DISCONNECT.
        disconnect: Disconnect -> Disconnect<'_>;
        /// AUTH.
        auth: Auth -> Auth<'_>;
    }

    /// Payload of a PUBLISH.
    #[track_caller]
    pub fn payload(&self) -> &str {
        std::str::from_utf8(self.publish().payload).expect("tests publish text")
    }

    /// Packet identifier of a PUBLISH of QoS 1 or 2.
    #[track_caller]
    pub fn id(&self) -> u16 {
        self.publish().packet_id.expect("QoS 1 or 2").get()
    }
}
