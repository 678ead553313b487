//! The schema of what goes over a link, as Protocol Buffers (proto3).
//!
//! Nodes of neighbouring versions serve together, so this file only grows: a tag is never used for anything else again, a field never changes its type,
//! and a new field means with its default what its absence meant before. Receivers skip fields they do not know; a frame whose message they do not know is
//! counted and passed over. What an older node *must* understand needs a new [`VERSION`], and is kept from it by the version that the hello agreed on.
//!
//! Text travels as `bytes`, which is the same on the wire, so that it is a slice of its frame until `convert` has looked at it.

use campanile_broker::message::Message;
use prost::{
    DecodeError,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use std::sync::Arc;

/// The newest version that this program speaks.
pub const VERSION: u32 = 1;
/// The oldest one. A release drops at most one version, so that a cluster can be upgraded node by node.
pub const LOWEST: u32 = 1;
/// What this program can do beside its version, one bit each. None yet.
pub const CAPABILITIES: u64 = 0;
/// What a hello begins with: whoever dials a wrong port is told apart from an old version.
pub const MAGIC: u32 = 0x434d_504c;

/// The first frame from either end of a link: whoever dialed begins. Unlike all others it is never changed in a way that an older node could not read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// [`MAGIC`].
    #[prost(fixed32, tag = "1")]
    pub magic: u32,
    /// The newest version that the sender speaks.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The oldest one.
    #[prost(uint32, tag = "3")]
    pub lowest: u32,
    /// Bits.
    #[prost(uint64, tag = "4")]
    pub capabilities: u64,
    /// The cluster's name.
    #[prost(string, tag = "5")]
    pub cluster: String,
    /// The sender's name.
    #[prost(string, tag = "6")]
    pub name: String,
    /// The sender's generation.
    #[prost(fixed64, tag = "7")]
    pub generation: u64,
    /// The generation that it wants to talk to.
    #[prost(fixed64, tag = "8")]
    pub to: u64,
    /// Version of the sender's program, for people.
    #[prost(string, tag = "9")]
    pub program: String,
    /// The sender reads no larger frame.
    #[prost(uint64, tag = "10")]
    pub frame_bytes_max: u64,
}

/// The answer to a hello.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// Absent: of a later version, which means a refusal.
    #[prost(oneof = "Verdict", tags = "1, 2")]
    pub verdict: Option<Verdict>,
}

/// Whether there is a link.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Verdict {
    /// There is.
    #[prost(message, tag = "1")]
    Welcome(Hello),
    /// There is none.
    #[prost(message, tag = "2")]
    Refusal(Refusal),
}

/// Why there is no link.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// A `RefusalCode`.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// For people.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// Every frame after the hello.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Frame {
    /// Absent: of a later version.
    #[prost(
        oneof = "Body",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17"
    )]
    pub body: Option<Body>,
}

/// What nodes say: [`Body::Heartbeat`], or a `PeerMessage`.
#[allow(missing_docs)]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// The sender had nothing else to say for a while.
    #[prost(message, tag = "1")]
    Heartbeat(Empty),
    #[prost(message, tag = "2")]
    InterestBegins(Empty),
    #[prost(message, tag = "3")]
    Interest(Interest),
    #[prost(message, tag = "4")]
    InterestComplete(Empty),
    #[prost(message, tag = "5")]
    InterestKnown(Ticket),
    #[prost(message, tag = "6")]
    Deliver(Deliver),
    #[prost(message, tag = "7")]
    DeliverShared(DeliverShared),
    #[prost(message, tag = "8")]
    SharedDone(Ticket),
    #[prost(message, tag = "9")]
    Log(Log),
    #[prost(message, tag = "10")]
    Change(Change),
    #[prost(message, tag = "11")]
    ChangesKnown(ChangesKnown),
    #[prost(message, tag = "12")]
    Inbox(Inbox),
    #[prost(message, tag = "13")]
    Instant(Instant),
    #[prost(message, tag = "14")]
    Release(Release),
    #[prost(message, tag = "15")]
    Released(Ticket),
    #[prost(message, tag = "16")]
    Ask(Ask),
    #[prost(message, tag = "17")]
    Answer(Answer),
}

/// Nothing to say beside the kind.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

/// Only a ticket.
#[derive(Clone, Copy, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Ticket {
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
}

/// A client's key.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Client {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub client_id: Bytes,
}

/// `PeerMessage::Interest`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Interest {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(uint64, tag = "2")]
    pub ticket: u64,
    #[prost(oneof = "InterestChange", tags = "3, 4, 5")]
    pub change: Option<InterestChange>,
}

/// The variants of the broker's `Interest`.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs)]
pub enum InterestChange {
    #[prost(message, tag = "3")]
    Live(Presence),
    #[prost(message, tag = "4")]
    Durable(Presence),
    #[prost(message, tag = "5")]
    Member(InterestMember),
}

/// A filter, and whether it has subscribers.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Presence {
    #[prost(bytes = "bytes", tag = "1")]
    pub filter: Bytes,
    #[prost(bool, tag = "2")]
    pub present: bool,
}

/// A member of a shared subscription came, changed or went.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct InterestMember {
    #[prost(bytes = "bytes", tag = "1")]
    pub filter: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub client_id: Bytes,
    /// Absent: it left.
    #[prost(message, optional, tag = "3")]
    pub member: Option<Member>,
}

/// A live member, or (`durable` and `live` unset) what a durable one was granted.
#[derive(Clone, Copy, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Member {
    #[prost(uint32, tag = "1")]
    pub qos: u32,
    #[prost(bool, tag = "2")]
    pub durable: bool,
    #[prost(bool, tag = "3")]
    pub live: bool,
    #[prost(uint32, optional, tag = "4")]
    pub subscription_id: Option<u32>,
    #[prost(bool, tag = "5")]
    pub retain_as_published: bool,
    /// Of a live member; 0 from an earlier version.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
}

/// `PeerMessage::Deliver`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Deliver {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(message, required, tag = "2")]
    pub message: Carried,
}

/// `PeerMessage::DeliverShared`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct DeliverShared {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(message, required, tag = "2")]
    pub message: Carried,
    #[prost(bytes = "bytes", tag = "3")]
    pub filter: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub client_id: Bytes,
    #[prost(uint64, tag = "5")]
    pub ticket: u64,
}

/// `PeerMessage::Log`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Log {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    /// 0: the push log; n: the topic log of partition n - 1.
    #[prost(uint32, tag = "2")]
    pub log: u32,
    #[prost(uint64, tag = "3")]
    pub previous: u64,
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(message, required, tag = "5")]
    pub message: Carried,
    /// The last change that must be known to judge whom the entry is for.
    #[prost(uint64, tag = "6")]
    pub changes: u64,
}

/// `PeerMessage::Change`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Change {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(uint64, tag = "2")]
    pub previous: u64,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(oneof = "ChangeKind", tags = "4, 5, 6, 7, 8")]
    pub change: Option<ChangeKind>,
}

/// The variants of the store's `Change`.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs)]
pub enum ChangeKind {
    #[prost(message, tag = "4")]
    Retained(Retained),
    #[prost(message, tag = "5")]
    Filter(Presence),
    #[prost(message, tag = "6")]
    Member(InterestMember),
    #[prost(message, tag = "7")]
    Profile(Profile),
    #[prost(message, tag = "8")]
    Campaign(Campaign),
}

/// What is said of a push beside its message.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Campaign {
    /// 16 bytes, the highest first.
    #[prost(bytes = "bytes", tag = "1")]
    pub push: Bytes,
    /// Absent: nothing any more.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub row: Option<Bytes>,
}

/// What is known of a device.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Profile {
    #[prost(bytes = "bytes", tag = "1")]
    pub client_id: Bytes,
    /// Absent: nothing any more.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub profile: Option<Bytes>,
}

/// What is retained under a topic.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Retained {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic: Bytes,
    #[prost(message, optional, tag = "2")]
    pub message: Option<Carried>,
}

/// `PeerMessage::ChangesKnown`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct ChangesKnown {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// `PeerMessage::Inbox`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Inbox {
    #[prost(message, required, tag = "1")]
    pub client: Client,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    #[prost(message, required, tag = "3")]
    pub message: Carried,
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    #[prost(bool, tag = "5")]
    pub retain: bool,
    #[prost(uint32, repeated, tag = "6")]
    pub subscription_ids: Vec<u32>,
    #[prost(uint64, tag = "7")]
    pub previous: u64,
    /// `Lane::code`.
    #[prost(uint32, tag = "8")]
    pub lane: u32,
    #[prost(uint64, optional, tag = "9")]
    pub replaced: Option<u64>,
}

/// `PeerMessage::Instant`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Instant {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    /// Absent: to all.
    #[prost(message, optional, tag = "2")]
    pub clients: Option<ClientIds>,
    #[prost(message, required, tag = "3")]
    pub message: Carried,
}

/// Clients of an app.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct ClientIds {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub client_ids: Vec<Bytes>,
}

/// `PeerMessage::Release`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Release {
    #[prost(message, required, tag = "1")]
    pub client: Client,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub ticket: u64,
    #[prost(bool, tag = "4")]
    pub resumes: bool,
}

/// `PeerMessage::Ask`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Ask {
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
    #[prost(oneof = "Question", tags = "2, 3, 4, 5")]
    pub question: Option<Question>,
}

/// The broker's `Question`.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs)]
pub enum Question {
    #[prost(message, tag = "2")]
    WhereIs(Client),
    #[prost(message, tag = "3")]
    Load(Empty),
    #[prost(message, tag = "4")]
    Kick(Client),
    #[prost(message, tag = "5")]
    HowMany(Imagined),
}

/// A push that nobody makes.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Imagined {
    #[prost(bytes = "bytes", tag = "1")]
    pub app: Bytes,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub push: Bytes,
    /// None: all.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub audience: Option<Bytes>,
}

/// `PeerMessage::Answer`.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Answer {
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
    #[prost(oneof = "AnswerKind", tags = "2, 3, 4")]
    pub answer: Option<AnswerKind>,
}

/// The broker's `Answer`.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs)]
pub enum AnswerKind {
    #[prost(message, tag = "2")]
    Here(Here),
    #[prost(message, tag = "3")]
    Load(Load),
    #[prost(message, tag = "4")]
    ThisMany(LiveCount),
}

/// Connected devices that a push would be for.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct LiveCount {
    #[prost(uint64, tag = "1")]
    pub known: u64,
    #[prost(uint64, tag = "2")]
    pub others: u64,
}

/// Whether a client is connected.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Here {
    #[prost(message, optional, tag = "1")]
    pub connected: Option<Connected>,
}

/// A connection, for operators.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Connected {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint32, tag = "2")]
    pub protocol_level: u32,
    #[prost(uint32, tag = "3")]
    pub subscriptions: u32,
    #[prost(uint32, tag = "4")]
    pub in_flight: u32,
    /// Unix milliseconds.
    #[prost(uint64, tag = "5")]
    pub since_ms: u64,
    /// As text; empty: not known.
    #[prost(string, tag = "6")]
    pub peer: String,
    #[prost(string, repeated, tag = "7")]
    pub filters: Vec<String>,
    #[prost(uint32, optional, tag = "8")]
    pub behind: Option<u32>,
    #[prost(bool, tag = "9")]
    pub inbox_waits: bool,
}

/// How full a node is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Load {
    #[prost(uint64, tag = "1")]
    pub connections: u64,
    #[prost(uint64, tag = "2")]
    pub capacity: u64,
}

/// An application message.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Published {
    #[prost(fixed64, tag = "1")]
    pub id_high: u64,
    #[prost(fixed64, tag = "2")]
    pub id_low: u64,
    /// 0: published; 1: pushed.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    #[prost(bool, tag = "5")]
    pub retain: bool,
    #[prost(uint64, optional, tag = "6")]
    pub expires_at: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub publisher: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "8")]
    pub topic: Bytes,
    #[prost(bytes = "bytes", tag = "9")]
    pub properties: Bytes,
    #[prost(bytes = "bytes", tag = "10")]
    pub payload: Bytes,
    /// Whom a push is for; absent: everybody.
    #[prost(bytes = "bytes", optional, tag = "11")]
    pub audience: Option<Bytes>,
}

/// A [`Published`] that is copied once only: on the way out from the shared message into the buffer of the socket, on the way in from the frame into a
/// message.
#[derive(Clone, Debug, PartialEq)]
pub enum Carried {
    /// To be sent.
    Out(Arc<Message>),
    /// Received.
    In(Published),
}

impl Default for Carried {
    fn default() -> Carried {
        Carried::In(Published::default())
    }
}

impl Carried {
    /// The fields of a message that are not text or bytes.
    fn head(message: &Message) -> Published {
        Published {
            id_high: (message.id.0 >> 64) as u64,
            id_low: message.id.0 as u64,
            kind: match message.kind {
                campanile_broker::message::Kind::Publish => 0,
                campanile_broker::message::Kind::Push => 1,
            },
            qos: message.qos as u32,
            retain: message.retain,
            expires_at: message.expires_at.map(|at| at.0),
            ..Published::default()
        }
    }

    /// The others, by tag. As in proto3, an empty one is left out unless its presence means something.
    fn slices(message: &Message) -> impl Iterator<Item = (u32, &[u8])> {
        let publisher = message.publisher.as_deref().map(|id| (7, id.as_bytes()));
        let content = [
            (8, message.topic().as_bytes()),
            (9, message.properties()),
            (10, message.payload()),
        ];
        let content = content.into_iter().filter(|(_, slice)| !slice.is_empty());
        let audience = message.audience.as_deref().map(|audience| (11, audience));
        publisher.into_iter().chain(content).chain(audience)
    }
}

impl prost::Message for Carried {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        match self {
            Carried::In(published) => published.encode_raw(buf),
            Carried::Out(message) => {
                Carried::head(message).encode_raw(buf);
                for (tag, slice) in Carried::slices(message) {
                    encode_key(tag, WireType::LengthDelimited, buf);
                    encode_varint(slice.len() as u64, buf);
                    buf.put_slice(slice);
                }
            }
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if let Carried::Out(_) = self {
            self.clear();
        }
        match self {
            Carried::In(published) => published.merge_field(tag, wire_type, buf, context),
            Carried::Out(_) => unreachable!("cleared above"),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Carried::In(published) => published.encoded_len(),
            Carried::Out(message) => {
                let slices = Carried::slices(message);
                let slices = slices.map(|(tag, slice)| {
                    key_len(tag) + encoded_len_varint(slice.len() as u64) + slice.len()
                });
                Carried::head(message).encoded_len() + slices.sum::<usize>()
            }
        }
    }

    fn clear(&mut self) {
        *self = Carried::default();
    }
}
