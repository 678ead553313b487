//! Records as they are stored: Protocol Buffers, so that neighbouring versions read each other's. Never reuse a tag.

use std::sync::Arc;

use bytes::Bytes;
use campanile_broker::store::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use campanile_broker::{
    ids::{MessageId, Millis, Offset},
    lane::{Lane, LaneSet},
    message::{Kind, Message},
    store::{Cursor, InboxItem, Source, StoredSubscription, Unfinished, Will},
};

use super::{
    keys::{log_number, log_of_number},
    kv::{KvError, Value},
};

/// A record that cannot be read, as an error for the operator.
pub fn damaged(what: &str) -> KvError {
    KvError(format!("a stored {what} is damaged; restore the data directory from a backup").into())
}

/// Reads a record.
pub fn decode<R: prost::Message + Default>(bytes: &[u8], what: &str) -> Result<R, KvError> {
    R::decode(bytes).map_err(|_| damaged(what))
}

/// A record's bytes.
pub fn encode(record: &impl prost::Message) -> Value {
    record.encode_to_vec().into()
}

/// Eight bytes as a number.
pub fn decode_u64(bytes: &[u8], what: &str) -> Result<u64, KvError> {
    bytes
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged(what))
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageRecord {
    #[prost(fixed64, tag = "1")]
    pub id_high: u64,
    #[prost(fixed64, tag = "2")]
    pub id_low: u64,
    #[prost(bool, tag = "3")]
    pub is_push: bool,
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    #[prost(bool, tag = "5")]
    pub retain: bool,
    #[prost(uint64, optional, tag = "6")]
    pub expires_at: Option<u64>,
    #[prost(string, optional, tag = "7")]
    pub publisher: Option<String>,
    #[prost(uint32, tag = "8")]
    pub topic_bytes: u32,
    #[prost(uint32, tag = "9")]
    pub property_bytes: u32,
    /// Topic, properties and payload.
    #[prost(bytes = "vec", tag = "10")]
    pub bytes: Vec<u8>,
    #[prost(bytes = "bytes", optional, tag = "11")]
    pub audience: Option<Bytes>,
}

impl MessageRecord {
    pub fn of(message: &Message) -> MessageRecord {
        let mut bytes = Vec::with_capacity(message.size_bytes());
        bytes.extend_from_slice(message.topic().as_bytes());
        bytes.extend_from_slice(message.properties());
        bytes.extend_from_slice(message.payload());
        MessageRecord {
            id_high: (message.id.0 >> 64) as u64,
            id_low: message.id.0 as u64,
            is_push: message.kind == Kind::Push,
            qos: message.qos as u32,
            retain: message.retain,
            expires_at: message.expires_at.map(|at| at.0),
            publisher: message.publisher.as_deref().map(str::to_owned),
            topic_bytes: message.topic().len() as u32,
            property_bytes: message.properties().len() as u32,
            bytes,
            audience: message.audience.clone(),
        }
    }

    pub fn id(&self) -> MessageId {
        id_of(self.id_high, self.id_low)
    }

    pub fn message(&self) -> Result<Arc<Message>, KvError> {
        let bad = || damaged("message");
        let (topic, rest) = self
            .bytes
            .split_at_checked(self.topic_bytes as usize)
            .ok_or_else(bad)?;
        let (properties, payload) = rest
            .split_at_checked(self.property_bytes as usize)
            .ok_or_else(bad)?;
        let topic = std::str::from_utf8(topic).map_err(|_| bad())?;
        let kind = if self.is_push {
            Kind::Push
        } else {
            Kind::Publish
        };
        let mut message = Message::new(self.id(), kind, topic, properties, payload);
        message.qos = qos(self.qos)?;
        message.retain = self.retain;
        message.expires_at = self.expires_at.map(Millis);
        message.publisher = self.publisher.as_deref().map(Into::into);
        message.audience = self.audience.clone();
        Ok(Arc::new(message))
    }
}

/// A row of the push domain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowRecord {
    #[prost(uint64, tag = "1")]
    pub version: u64,
    #[prost(uint64, optional, tag = "2")]
    pub expires_ms: Option<u64>,
    #[prost(bytes = "bytes", tag = "3")]
    pub value: prost::bytes::Bytes,
}

/// Where an app's event log stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventLogRecord {
    /// Place of the last event.
    #[prost(uint64, tag = "1")]
    pub end: u64,
    /// Events up to here were removed.
    #[prost(uint64, tag = "2")]
    pub trimmed_to: u64,
    /// Between what was written down before this place and after it there was nobody who listened.
    #[prost(uint64, tag = "3")]
    pub begun_at: u64,
    /// Events that are there.
    #[prost(uint64, tag = "4")]
    pub entries: u64,
}

/// An event.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventRecord {
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// `Kind::code`.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(string, optional, tag = "3")]
    pub device: Option<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub push: Option<Vec<u8>>,
    /// A JSON object.
    #[prost(string, optional, tag = "5")]
    pub data: Option<String>,
}

/// A device with a session, or with pushes that wait for it, or one that is registered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceRecord {
    #[prost(string, tag = "1")]
    pub client_id: String,
    #[prost(uint32, tag = "2")]
    pub ordinal: u32,
    #[prost(message, optional, tag = "3")]
    pub session: Option<SessionRecord>,
    /// Its node was given up, and may serve it all the same until it hears of that.
    #[prost(bool, tag = "4")]
    pub may_be_served: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionRecord {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(bool, tag = "2")]
    pub connected: bool,
    /// As of the last claim.
    #[prost(uint32, tag = "3")]
    pub expiry_seconds: u32,
    /// Of a session that is not connected; none: it does not expire.
    #[prost(uint64, optional, tag = "4")]
    pub expires_at: Option<u64>,
    /// The run of the node that the last claim came from, in a store that nodes share.
    #[prost(uint64, tag = "5")]
    pub owner: u64,
    /// The node that had the client before the last claim may still hand over what it has not saved; the owner has saved nothing yet.
    #[prost(bool, tag = "6")]
    pub may_be_handed_over: bool,
    /// When the connection ended, of a session that is not connected; none: an earlier version let go of it.
    #[prost(uint64, optional, tag = "8")]
    pub left_at: Option<u64>,
}

impl SessionRecord {
    pub fn is_expired(&self, now: Millis) -> bool {
        !self.connected && self.expires_at.is_some_and(|at| at <= now.0)
    }
}

/// When a session ends whose connection is lost at `now`; `None`: never.
pub fn session_end(now: Millis, expiry_seconds: u32) -> Option<Millis> {
    (expiry_seconds != u32::MAX).then(|| now.plus_seconds(expiry_seconds))
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscriptionRecord {
    #[prost(string, tag = "1")]
    pub filter: String,
    #[prost(uint32, tag = "2")]
    pub qos: u32,
    #[prost(bool, tag = "3")]
    pub no_local: bool,
    #[prost(bool, tag = "4")]
    pub retain_as_published: bool,
    #[prost(uint32, tag = "5")]
    pub retain_handling: u32,
    #[prost(uint32, optional, tag = "6")]
    pub id: Option<u32>,
    #[prost(fixed64, tag = "7")]
    pub since_high: u64,
    #[prost(fixed64, tag = "8")]
    pub since_low: u64,
}

impl SubscriptionRecord {
    pub fn of(subscription: &StoredSubscription) -> SubscriptionRecord {
        SubscriptionRecord {
            filter: subscription.filter.as_ref().to_owned(),
            qos: subscription.options.qos as u32,
            no_local: subscription.options.no_local,
            retain_as_published: subscription.options.retain_as_published,
            retain_handling: subscription.options.retain_handling as u32,
            id: subscription.id,
            since_high: (subscription.since.0 >> 64) as u64,
            since_low: subscription.since.0 as u64,
        }
    }

    pub fn subscription(self) -> Result<StoredSubscription, KvError> {
        Ok(StoredSubscription {
            filter: self.filter.into(),
            options: SubscriptionOptions {
                qos: qos(self.qos)?,
                no_local: self.no_local,
                retain_as_published: self.retain_as_published,
                retain_handling: match self.retain_handling {
                    0 => RetainHandling::Send,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => return Err(damaged("subscription")),
                },
            },
            id: self.id,
            since: id_of(self.since_high, self.since_low),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReceivedRecord {
    #[prost(fixed64, tag = "1")]
    pub id_high: u64,
    #[prost(fixed64, tag = "2")]
    pub id_low: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WillRecord {
    #[prost(string, tag = "1")]
    pub client_id: String,
    #[prost(message, required, tag = "2")]
    pub message: MessageRecord,
    #[prost(uint32, tag = "3")]
    pub delay_seconds: u32,
    #[prost(uint32, optional, tag = "4")]
    pub expiry_seconds: Option<u32>,
    /// When it is due; none: its connection is up.
    #[prost(uint64, optional, tag = "5")]
    pub due_at: Option<u64>,
    /// When a sweep hands it out if it is still there: its entry in the expiry index.
    #[prost(uint64, optional, tag = "6")]
    pub hand_out_at: Option<u64>,
}

impl WillRecord {
    pub fn of(client_id: &str, will: &Will) -> WillRecord {
        WillRecord {
            client_id: client_id.to_owned(),
            message: MessageRecord::of(&will.message),
            delay_seconds: will.delay_seconds,
            expiry_seconds: will.expiry_seconds,
            due_at: None,
            hand_out_at: None,
        }
    }

    pub fn will(&self) -> Result<Will, KvError> {
        Ok(Will {
            message: self.message.message()?,
            delay_seconds: self.delay_seconds,
            expiry_seconds: self.expiry_seconds,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CursorsRecord {
    #[prost(message, repeated, tag = "1")]
    pub cursors: Vec<CursorRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CursorRecord {
    #[prost(uint32, tag = "1")]
    pub log: u32,
    #[prost(uint64, tag = "2")]
    pub done: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub done_above: Vec<u64>,
}

impl CursorsRecord {
    pub fn of<'a>(cursors: impl IntoIterator<Item = &'a Cursor>) -> CursorsRecord {
        let cursors = cursors.into_iter().map(|cursor| CursorRecord {
            log: log_number(cursor.log).into(),
            done: cursor.done.0,
            done_above: cursor.done_above.iter().map(|offset| offset.0).collect(),
        });
        CursorsRecord {
            cursors: cursors.collect(),
        }
    }

    pub fn cursors(self) -> Result<Vec<Cursor>, KvError> {
        let cursor = |record: CursorRecord| {
            let log = u16::try_from(record.log).ok().and_then(log_of_number);
            Ok(Cursor {
                log: log.ok_or_else(|| damaged("cursor"))?,
                done: Offset(record.done),
                done_above: record.done_above.into_iter().map(Offset).collect(),
            })
        };
        self.cursors.into_iter().map(cursor).collect()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UnfinishedRecord {
    #[prost(message, repeated, tag = "1")]
    pub exchanges: Vec<ExchangeRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExchangeRecord {
    #[prost(uint32, tag = "1")]
    pub packet_id: u32,
    /// 0: the inbox; [`CAMPAIGN`]; else a log's number + 1.
    #[prost(uint32, tag = "2")]
    pub source: u32,
    /// Of a campaign: the upper half of the push's id.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    #[prost(bool, tag = "5")]
    pub released: bool,
    /// Of a campaign: the lower half.
    #[prost(fixed64, tag = "6")]
    pub push_low: u64,
}

/// Among the sources of exchanges: a campaign. Logs have 16-bit numbers.
const CAMPAIGN: u32 = 1 << 20;

impl UnfinishedRecord {
    pub fn of(unfinished: &[Unfinished]) -> UnfinishedRecord {
        let exchange = |exchange: &Unfinished| ExchangeRecord {
            packet_id: exchange.packet_id.get().into(),
            source: match exchange.source {
                Source::Inbox => 0,
                Source::Log(log) => u32::from(log_number(log)) + 1,
                Source::Campaign(_) => CAMPAIGN,
            },
            offset: match exchange.source {
                Source::Campaign(push) => push.place(),
                Source::Inbox | Source::Log(_) => exchange.offset.0,
            },
            push_low: match exchange.source {
                Source::Campaign(push) => push.0 as u64,
                Source::Inbox | Source::Log(_) => 0,
            },
            qos: exchange.qos as u32,
            released: exchange.released,
        };
        UnfinishedRecord {
            exchanges: unfinished.iter().map(exchange).collect(),
        }
    }

    pub fn unfinished(self) -> Result<Vec<Unfinished>, KvError> {
        let bad = || damaged("exchange");
        let exchange = |record: ExchangeRecord| {
            let source = match record.source {
                0 => Source::Inbox,
                CAMPAIGN => Source::Campaign(id_of(record.offset, record.push_low)),
                n => Source::Log(
                    u16::try_from(n - 1)
                        .ok()
                        .and_then(log_of_number)
                        .ok_or_else(bad)?,
                ),
            };
            Ok(Unfinished {
                packet_id: u16::try_from(record.packet_id)
                    .ok()
                    .and_then(PacketId::new)
                    .ok_or_else(bad)?,
                source,
                offset: match source {
                    Source::Campaign(_) => Offset(0),
                    Source::Inbox | Source::Log(_) => Offset(record.offset),
                },
                qos: qos(record.qos)?,
                released: record.released,
            })
        };
        self.exchanges.into_iter().map(exchange).collect()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InboxMetaRecord {
    /// Of all lanes.
    #[prost(uint32, tag = "1")]
    pub entries: u32,
    /// Of all lanes.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Of the normal lane, as in a [`LaneRecord`].
    #[prost(uint64, tag = "3")]
    pub first: u64,
    /// The same.
    #[prost(uint64, tag = "4")]
    pub last: u64,
    #[prost(message, optional, tag = "5")]
    pub high: Option<LaneRecord>,
    #[prost(message, optional, tag = "6")]
    pub low: Option<LaneRecord>,
}

/// A lane of an inbox that is not empty.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LaneRecord {
    #[prost(uint32, tag = "1")]
    pub entries: u32,
    /// No entry lies before this offset; saves the scan over what was removed.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    /// The entry that was appended last; 0 in the store of a node alone.
    #[prost(uint64, tag = "3")]
    pub last: u64,
}

impl InboxMetaRecord {
    /// What is known of a lane.
    pub fn lane(&self, lane: Lane) -> LaneRecord {
        let entries = |lane: &Option<LaneRecord>| lane.map_or(0, |lane| lane.entries);
        match lane {
            Lane::High => self.high.unwrap_or_default(),
            Lane::Low => self.low.unwrap_or_default(),
            Lane::Normal => LaneRecord {
                entries: self
                    .entries
                    .saturating_sub(entries(&self.high) + entries(&self.low)),
                first: self.first,
                last: self.last,
            },
        }
    }

    /// The lanes that hold anything.
    pub fn lanes(&self) -> LaneSet {
        let holds = |lane: &Lane| self.lane(*lane).entries > 0;
        Lane::ALL.into_iter().filter(holds).collect()
    }

    /// Counts an entry that comes. Returns the one before it in its lane.
    pub fn add(&mut self, lane: Lane, offset: Offset, bytes: u64, shared: bool) -> Offset {
        let mut record = self.lane(lane);
        let previous = record.last;
        if record.entries == 0 {
            record.first = offset.0;
        }
        if shared {
            record.last = offset.0;
        }
        record.entries += 1;
        self.entries += 1;
        self.bytes += bytes;
        self.set_lane(lane, record);
        Offset(previous)
    }

    /// Counts an entry that goes.
    pub fn remove(&mut self, lane: Lane, offset: Offset, bytes: u64) {
        let mut record = self.lane(lane);
        record.entries = record.entries.saturating_sub(1);
        if offset.0 == record.first {
            record.first += 1;
        }
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.set_lane(lane, record);
    }

    /// `record.entries` of the normal lane follow from the rest.
    fn set_lane(&mut self, lane: Lane, record: LaneRecord) {
        let record = (record.entries > 0).then_some(record);
        match lane {
            Lane::High => self.high = record,
            Lane::Low => self.low = record,
            Lane::Normal => {
                let record = record.unwrap_or_default();
                (self.first, self.last) = (record.first, record.last);
            }
        }
    }
}

/// An entry of an inbox with a collapse key.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct KeyedRecord {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// [`Lane::code`].
    #[prost(uint32, tag = "2")]
    pub lane: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InboxRecord {
    /// The message, unless it is shared.
    #[prost(message, optional, tag = "1")]
    pub message: Option<MessageRecord>,
    /// The push whose message is stored once for several devices.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub push: Option<Vec<u8>>,
    #[prost(uint32, tag = "3")]
    pub qos: u32,
    #[prost(bool, tag = "4")]
    pub retain: bool,
    #[prost(uint32, repeated, tag = "5")]
    pub subscription_ids: Vec<u32>,
    /// Bytes of the message, wherever it is.
    #[prost(uint64, tag = "6")]
    pub size_bytes: u64,
    /// Of the push.
    #[prost(string, optional, tag = "7")]
    pub collapse_key: Option<String>,
}

impl InboxRecord {
    /// Without a collapse key. The lane is where the record is.
    pub fn of(item: &InboxItem, shared: bool) -> InboxRecord {
        InboxRecord {
            collapse_key: None,
            message: (!shared).then(|| MessageRecord::of(&item.message)),
            push: shared.then(|| item.message.id.0.to_be_bytes().to_vec()),
            qos: item.qos as u32,
            retain: item.retain,
            subscription_ids: item.subscription_ids.to_vec(),
            size_bytes: item.message.size_bytes() as u64,
        }
    }

    /// The push that the entry delivers, if it is one.
    pub fn push_id(&self) -> Result<Option<u128>, KvError> {
        match (&self.message, &self.push) {
            (Some(message), _) => Ok(message.is_push.then(|| message.id().0)),
            (None, Some(id)) => id
                .as_slice()
                .try_into()
                .map(u128::from_be_bytes)
                .map(Some)
                .map_err(|_| damaged("inbox entry")),
            (None, None) => Err(damaged("inbox entry")),
        }
    }

    /// What is to be delivered, once the message is at hand.
    pub fn item(&self, message: Arc<Message>, lane: Lane) -> Result<InboxItem, KvError> {
        Ok(InboxItem {
            lane,
            message,
            qos: qos(self.qos)?,
            retain: self.retain,
            subscription_ids: self.subscription_ids.iter().copied().collect(),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LogMetaRecord {
    /// Offset of the last entry ever appended.
    #[prost(uint64, tag = "1")]
    pub end: u64,
    /// Entries up to here were removed before their time.
    #[prost(uint64, tag = "2")]
    pub trimmed_to: u64,
    /// Bytes of the entries that are there.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    #[prost(uint64, tag = "1")]
    pub appended_at: u64,
    #[prost(message, required, tag = "2")]
    pub message: MessageRecord,
    /// Filters that the entry is posted under.
    #[prost(string, repeated, tag = "3")]
    pub filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PushRecord {
    #[prost(uint64, tag = "1")]
    pub accepted_ms: u64,
    #[prost(uint64, tag = "2")]
    pub expires_ms: u64,
    #[prost(uint64, tag = "3")]
    pub targeted: u64,
    /// Its place in inboxes or in the push log.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    /// It is in the push log, to all or to an audience.
    #[prost(bool, tag = "5")]
    pub to_all: bool,
    /// It is to an audience: whoever it is for is added to the set of those, and `targeted` means nothing.
    #[prost(bool, tag = "6")]
    pub to_audience: bool,
    /// That set is complete.
    #[prost(bool, tag = "7")]
    pub is_counted: bool,
    /// What its sender wants to find again, opaque here.
    #[prost(bytes = "bytes", tag = "8")]
    pub info: prost::bytes::Bytes,
    /// It is what the server says, on `push/ctl`: nobody finds it in a list.
    #[prost(bool, tag = "9")]
    pub is_control: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PushClientsRecord {
    #[prost(string, repeated, tag = "1")]
    pub clients: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct IdempotencyRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub body_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub push: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub targeted: u64,
    #[prost(uint64, tag = "4")]
    pub accepted_ms: u64,
    #[prost(uint64, tag = "5")]
    pub expires_ms: u64,
    /// As of a [`PushRecord`].
    #[prost(bool, tag = "6")]
    pub to_audience: bool,
}

/// A message id from its halves.
pub fn id_of(high: u64, low: u64) -> MessageId {
    MessageId((u128::from(high) << 64) | u128::from(low))
}

/// A stored quality of service.
pub fn qos(bits: u32) -> Result<QoS, KvError> {
    u8::try_from(bits)
        .ok()
        .and_then(QoS::from_bits)
        .ok_or_else(|| damaged("quality of service"))
}
