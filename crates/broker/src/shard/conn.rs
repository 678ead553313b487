//! A connection, from its first byte on, and the session that it serves.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use campanile_mqtt::{
    PacketId, QoS, Reason, SubscriptionOptions, Version,
    session::{AliasesIn, AliasesOut, Inbound, Outbound},
};
use smallvec::SmallVec;

use crate::{
    access::Identity,
    effects::{Origin, Ticket},
    ids::{AppId, ConnId, Epoch, MessageId, Millis, Offset},
    lane::{Lane, LaneSet, Turns},
    mail::Keeper,
    message::Message,
    routes::FilterIx,
    store::{InboxEntry, InboxItem, LogEntry, LogKind, Source, Will},
};

/// A slot in use.
#[derive(Debug)]
pub struct Conn {
    /// Whose slot it is now.
    pub id: ConnId,
    /// How far it has got.
    pub phase: Phase,
}

/// Where a connection stands.
#[derive(Debug)]
pub enum Phase {
    /// Accepted; CONNECT has not arrived.
    New { origin: Box<Origin>, since: Millis },
    /// CONNECT has arrived; its credentials are being judged.
    Authenticating(Box<Connecting>),
    /// Its session is being claimed.
    Claiming(Box<Connecting>),
    /// Its session is claimed; other shards are being told of its subscriptions before the CONNACK.
    Announcing(Box<Live>),
    /// In service.
    Live(Box<Live>),
    /// Between two of these, within a call.
    Turning,
}

/// What a CONNECT asked for.
#[derive(Debug)]
pub struct Connecting {
    pub since: Millis,
    pub origin: Box<Origin>,
    pub version: Version,
    pub client_id: Arc<str>,
    pub assigned: bool,
    pub clean_start: bool,
    pub keep_alive: u16,
    pub expiry_seconds: u32,
    /// What the client asked for, when we granted less.
    pub expiry_cut: bool,
    pub receive_maximum: u16,
    pub max_packet_bytes: u32,
    pub alias_maximum: u16,
    pub problem_information: bool,
    pub response_information: bool,
    pub username: Option<Arc<str>>,
    pub password: Option<Arc<[u8]>>,
    pub will: Option<Box<Will>>,
    pub identity: Identity,
    pub auth: Option<Box<Auth>>,
    /// Authentication Data that goes out with the CONNACK.
    pub auth_data: Option<Arc<[u8]>>,
    /// Lanes of the inbox that got an entry while the claim was under way.
    pub inbox_noticed: LaneSet,
    /// The device got another profile while the claim was under way.
    pub profile_noticed: Option<Box<super::audiences::Noticed>>,
    /// Another node has claimed the client with this epoch.
    pub outrun: Epoch,
}

/// An enhanced authentication. MQTT 5.0 section 4.12.
#[derive(Clone, Debug)]
pub struct Auth {
    pub method: Arc<str>,
    /// Data of the client's last step.
    pub data: Option<Arc<[u8]>>,
    /// Of the last challenge; `None` between exchanges.
    pub state: Option<Arc<[u8]>>,
    /// The client is to move: an AUTH is expected.
    pub challenged: bool,
}

/// Finished deliveries above an unfinished one, above which a client is sent nothing more of what is kept. Bounds what a client costs that never
/// acknowledges one of its messages; others are far from it.
pub const MAX_DONE_ABOVE: usize = 4096;

/// A connected client and its session.
#[derive(Debug)]
pub struct Live {
    pub conn: ConnId,
    pub app: u16,
    pub version: Version,
    pub client_id: Arc<str>,
    pub identity: Identity,
    /// Seconds; 0: never times out.
    pub keep_alive: u16,
    /// Unix seconds of its CONNACK, or a moment before.
    pub since: u32,
    pub problem_information: bool,
    /// The socket is full: only control packets are written.
    pub blocked: bool,
    /// Listed in the shard's `dirty`.
    pub dirty: bool,
    /// Has bytes waiting for the store (`pause_reason`): not read until then.
    pub paused: bool,
    /// Its device has joined the shard's audiences.
    pub has_profile: bool,
    pub epoch: Epoch,
    pub ordinal: u32,
    pub expiry_seconds: u32,
    pub max_packet_bytes: u32,
    pub outbound: Outbound<Tag>,
    pub inbound: Inbound,
    pub aliases_in: AliasesIn,
    pub aliases_out: AliasesOut,
    pub subscriptions: Vec<Subscription>,
    /// Pushes: the app's push log and the inbox.
    pub push: PushStream,
    /// Topic logs, by partition; empty until a durable session subscribes.
    pub topics: Vec<TopicStream>,
    pub will: Option<Box<Will>>,
    /// What few connections need.
    pub rare: Option<Box<Rare>>,
    /// Receipts and finished inbox entries that are not saved yet.
    pub unsaved: Option<Box<Unsaved>>,
    /// What campaigns are to it; `None` as long as none ever was anything.
    pub campaigns: Option<Box<super::campaigns::OfDevice>>,
}

/// State that few connections have.
#[derive(Debug, Default)]
pub struct Rare {
    /// Messages that wait for room in the window or the socket.
    pub queue: VecDeque<Queued>,
    pub queued_bytes: usize,
    /// Acknowledgements of incoming messages, in order of arrival, the first of which waits for the store.
    pub acks: VecDeque<PendingAck>,
    /// Retained publishes that the store has not answered.
    pub pending_retained: u32,
    /// SUBSCRIBEs that the store has not answered.
    pub pending_subscribes: u32,
    /// UNSUBSCRIBEs that the store has not answered.
    pub pending_unsubscribes: u32,
    /// Whether the store is read, or was, for what it has sent.
    pub look: super::doubt::Look,
    /// Incoming QoS 2 exchanges that the store is to forget.
    pub releasing: BTreeSet<PacketId>,
    /// Outgoing messages of shared subscriptions, to be sent to another member if this session ends.
    pub shared: Vec<(PacketId, Queued)>,
    /// What goes out with the CONNACK once other shards know the subscriptions.
    pub welcome: Option<Box<Welcome>>,
    pub auth: Option<Box<Auth>>,
    /// Where a client came in that may authenticate again.
    pub origin: Option<Box<Origin>>,
    /// Deliveries that are being saved, by request.
    pub saving: Vec<Saving>,
    /// Messages of an earlier connection's unfinished exchanges, until all are taken up again.
    pub resend: Option<Vec<((Source, Offset), InboxItem)>>,
    /// They are being read from the store.
    pub resend_reading: bool,
    /// There were some: what is unfinished is not in the order of its places.
    pub has_resent: bool,
    /// Places in the inbox of those, ascending: a replay passes them over, also when they are finished but still there.
    pub resent_inbox: Vec<Offset>,
    /// The high and the low lane of the inbox were read up to here.
    pub lanes_read: [Offset; 2],
}

/// What follows a claim, while other shards learn of the subscriptions.
#[derive(Debug)]
pub struct Welcome {
    pub connack: Vec<u8>,
    pub resend: Vec<crate::store::Unfinished>,
}

/// How much of what is [`Unsaved`] a request carries, from the front.
#[derive(Clone, Copy, Debug)]
pub struct Saving {
    pub ticket: Ticket,
    pub receipts: usize,
    pub inbox_done: usize,
    pub settled: usize,
    /// As of which change it carries the device's memory.
    pub memory: u64,
}

/// Progress that waits for the next save.
#[derive(Clone, Debug, Default)]
pub struct Unsaved {
    pub receipts: Vec<MessageId>,
    pub inbox_done: Vec<Offset>,
    /// What will not be delivered, and why.
    pub settled: Vec<(MessageId, u8)>,
}

/// A subscription of a connected client.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub filter: FilterIx,
    /// The whole filter of a shared subscription.
    pub shared: Option<Arc<str>>,
    pub options: SubscriptionOptions,
    pub id: Option<u32>,
    /// Messages before this [place](MessageId::place) were published before it.
    pub since: u64,
    /// The filter's count of durable sessions includes this one.
    pub counted: bool,
}

/// A message in memory, for one client.
#[derive(Clone, Debug)]
pub struct Queued {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    pub subscription_ids: SmallVec<[u32; 1]>,
    /// It came through this shared subscription.
    pub shared: Option<Arc<str>>,
    /// The peer that keeps it until a member has it.
    pub keeper: Option<Keeper>,
}

/// An acknowledgement that is owed.
#[derive(Clone, Copy, Debug)]
pub struct PendingAck {
    pub packet_id: PacketId,
    pub qos: QoS,
    /// The store has answered.
    pub ready: Option<Reason>,
}

/// Where an outgoing exchange's message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub source: TagSource,
    pub offset: Offset,
    /// The push to receipt, or 0.
    pub push: MessageId,
}

/// See [`Tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagSource {
    /// Nowhere: it was in memory only.
    Memory,
    Log(LogKind),
    Inbox,
    /// The campaign that [`Tag::push`] names.
    Campaign,
}

/// How far a client has got in a log.
#[derive(Clone, Debug)]
pub struct Position {
    /// While it lags: everything up to here was sent, skipped or does not match. Otherwise the log's end is meant.
    pub read: Offset,
    /// It has not read the log's end.
    pub lagging: bool,
    /// Finished ones above an unfinished one, and from an earlier connection; ascending. About [`MAX_DONE_ABOVE`] at most.
    pub done_above: Vec<Offset>,
}

impl Position {
    /// A position at a place; `lagging` if that is not the end of the log.
    pub fn at(read: Offset, end: Offset, done_above: Vec<Offset>) -> Position {
        Position {
            read,
            lagging: read < end,
            done_above,
        }
    }

    /// Up to where nothing comes any more, where the log is known to end at `end`. A session that came from another node may be further than that.
    pub fn reached(&self, end: Offset) -> Offset {
        match self.lagging {
            true => self.read,
            false => self.read.max(end),
        }
    }
}

/// How far a durable session has got in a partition of the topic log.
#[derive(Debug)]
pub struct TopicStream {
    pub position: Position,
    /// A page of the log, read from the store; entries not yet looked at.
    pub page: VecDeque<LogEntry>,
    /// Once the page is used up, the log was read up to here.
    pub page_end: Offset,
    /// A read is under way.
    pub reading: bool,
    /// It began before a subscription was made, and may lack what that one matches.
    pub outdated: bool,
}

/// Pushes of a client, from two places in the order of acceptance.
#[derive(Debug)]
pub struct PushStream {
    pub position: Position,
    /// The normal lane of the inbox was read up to here; for the others see [`Rare::lanes_read`].
    pub inbox_read: Offset,
    /// While the client lags in either, both are read through these.
    pub replay: Option<Box<Replay>>,
}

/// The merge of the inbox's lanes and the push log, which is as urgent as the normal one.
#[derive(Debug, Default)]
pub struct Replay {
    /// By [`Lane::code`].
    pub inbox: [InboxLane; 3],
    pub log: VecDeque<LogEntry>,
    /// A page of either is being read.
    pub reading: bool,
    /// The read under way, if it is of the log, begins at a place that counts no more.
    pub outdated: bool,
    /// Entries that were replaced meanwhile, and that the page may have. At most [`MAX_REPLACED`].
    pub replaced: Vec<Offset>,
    pub turns: Turns,
}

/// What is known of a lane of an inbox that is replayed.
#[derive(Debug, Default)]
pub struct InboxLane {
    /// Entries that were read and not yet sent.
    pub entries: VecDeque<InboxEntry>,
    /// There may be more.
    pub more: bool,
    /// An entry was added while a page was being read.
    pub noticed: bool,
}

/// Entries that a lagging client takes at a time.
pub const PAGE: usize = 64;
/// Replaced entries that are remembered while a page is read; one more may be sent all the same.
pub const MAX_REPLACED: usize = 256;

impl Replay {
    /// Of a client in whose inbox these lanes may have something.
    pub fn of(lanes: LaneSet) -> Replay {
        let mut replay = Replay::default();
        replay.note(lanes);
        replay
    }

    pub fn lane(&mut self, lane: Lane) -> &mut InboxLane {
        &mut self.inbox[usize::from(lane.code())]
    }

    /// Lanes of the inbox may have something new.
    pub fn note(&mut self, lanes: LaneSet) {
        let reading = self.reading;
        for lane in Lane::ALL.into_iter().filter(|lane| lanes.contains(*lane)) {
            let lane = self.lane(lane);
            lane.more = true;
            lane.noticed |= reading;
        }
    }

    /// Keeps a high entry that was announced in memory, so that no read holds it up. Whether it did: not behind others that are yet to be read, and only as
    /// many as a page has.
    pub fn hold(&mut self, entry: &InboxEntry) -> bool {
        let high = self.lane(Lane::High);
        let holds = entry.item.lane == Lane::High && !high.more && high.entries.len() < PAGE;
        if holds {
            high.entries.push_back(entry.clone());
        }
        holds
    }

    /// An entry of the inbox is to be sent no more.
    pub fn forget(&mut self, replaced: Offset) {
        for lane in &mut self.inbox {
            lane.entries.retain(|entry| entry.offset != replaced);
        }
        if self.reading && self.replaced.len() < MAX_REPLACED {
            self.replaced.push(replaced);
        }
    }

    /// A page of a lane was read; `lanes` of the inbox hold anything.
    pub fn take_page(&mut self, read: Lane, entries: Vec<InboxEntry>, more: bool, lanes: LaneSet) {
        self.reading = false;
        let replaced = std::mem::take(&mut self.replaced);
        for each in Lane::ALL {
            let lane = self.lane(each);
            let more = match each == read {
                true => more,
                false => lane.more && lanes.contains(each),
            };
            lane.more = more || std::mem::take(&mut lane.noticed);
        }
        self.lane(read).entries = entries
            .into_iter()
            .filter(|entry| !replaced.contains(&entry.offset))
            .collect();
    }

    /// Whether something waits or may wait in the inbox.
    pub fn waits_in_inbox(&self) -> bool {
        let mut lanes = self.inbox.iter();
        lanes.any(|lane| lane.more || !lane.entries.is_empty())
    }

    /// Lanes in which something waits or may wait; `lagging`: in the push log too.
    pub fn waiting(&self, lagging: bool) -> LaneSet {
        let waits = |lane: &Lane| {
            let inbox = &self.inbox[usize::from(lane.code())];
            inbox.more
                || !inbox.entries.is_empty()
                || *lane == Lane::Normal && (lagging || !self.log.is_empty())
        };
        Lane::ALL.into_iter().filter(waits).collect()
    }
}

impl Live {
    /// Whether the session outlives the connection.
    pub fn is_durable(&self) -> bool {
        self.expiry_seconds > 0
    }

    /// State that few connections have, made on first use.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Up to where a lane of the inbox was read.
    pub fn inbox_read(&self, lane: Lane) -> Offset {
        let others = || self.rare.as_ref().map(|rare| rare.lanes_read);
        match lane {
            Lane::Normal => self.push.inbox_read,
            Lane::High => others().unwrap_or_default()[0],
            Lane::Low => others().unwrap_or_default()[1],
        }
    }

    /// Notes that a lane of the inbox was read up to here.
    pub fn note_inbox_read(&mut self, lane: Lane, to: Offset) {
        let read = match lane {
            Lane::Normal => &mut self.push.inbox_read,
            Lane::High => &mut self.rare().lanes_read[0],
            Lane::Low => &mut self.rare().lanes_read[1],
        };
        *read = to.max(*read);
    }

    /// Whether something waits in memory, which newer messages must not overtake.
    pub fn has_queue(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.queue.is_empty())
    }

    /// Lanes in which it is the client's turn in a campaign.
    pub fn campaigns_due(&self) -> LaneSet {
        let of = self.campaigns.as_ref();
        of.map_or(LaneSet::NONE, |of| of.due_lanes())
    }

    /// Whether a QoS 1 or 2 message may be sent now.
    pub fn has_room(&self) -> bool {
        !self.blocked && self.outbound.free() > 0 && !self.is_held_up()
    }

    /// Whether one exchange has been unfinished for so long that the next acknowledgement must be waited for.
    fn is_held_up(&self) -> bool {
        let many = |position: &Position| position.done_above.len() >= MAX_DONE_ABOVE;
        (many(&self.push.position) || self.topics.iter().any(|topic| many(&topic.position)))
            && !self.outbound.is_empty()
    }
}

impl Connecting {
    /// The app of the listener.
    pub fn app(&self) -> &AppId {
        &self.origin.app
    }
}
