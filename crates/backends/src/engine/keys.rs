//! Keys: a table byte, then parts in an order that makes what is read together lie together.
//!
//! Numbers are big-endian, so that byte order is their order. A text part is its length (two bytes) and its bytes; one longer than
//! [`INLINE_TEXT_BYTES`] is replaced by its SHA-256, since a key holds at most 65,535 bytes and MQTT allows as many for one topic.
//! Records of such keys carry the text itself.

use campanile_broker::{
    ids::{AppId, ClientKey, Generation, MessageId, Offset},
    lane::Lane,
    store::LogKind,
};
use campanile_push::receipt::Mark;
use sha2::{Digest, Sha256};

/// Longest text that stands in a key as it is.
const INLINE_TEXT_BYTES: usize = 512;
/// In the place of a length: the hash of a longer text follows.
const HASHED: u16 = u16::MAX;

/// The first byte of a key. Numbers are part of the format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// Singletons of the store: see [`META_SEQUENCE`].
    Meta = 0x01,
    /// App → the first device number that was never reserved.
    Ordinals = 0x12,
    /// Client → `DeviceRecord`.
    Device = 0x20,
    /// Client, filter → `SubscriptionRecord`.
    Subscription = 0x21,
    /// Client, packet id → `ReceivedRecord`.
    Received = 0x22,
    /// Client → `WillRecord`.
    Will = 0x23,
    /// Client → `InboxMetaRecord`.
    InboxMeta = 0x24,
    /// Client, offset → `InboxRecord`: the normal lane of an inbox.
    Inbox = 0x25,
    /// Client → `CursorsRecord`.
    Cursors = 0x26,
    /// Client → `UnfinishedRecord`.
    Unfinished = 0x27,
    /// Client, message id → `WillRecord` that nothing can avert any more and that is not published yet.
    OwedWill = 0x28,
    /// Client, offset → `InboxRecord`: the high lane.
    InboxHigh = 0x29,
    /// Client, offset → `InboxRecord`: the low lane.
    InboxLow = 0x2a,
    /// Client, collapse key → `KeyedRecord`: the entry of the inbox that has it.
    Keyed = 0x2b,
    /// Client → what the device remembers of campaigns, bytes of the push domain.
    Memory = 0x2c,
    /// App, log → `LogMetaRecord`.
    LogMeta = 0x30,
    /// App, log, offset → `LogRecord`.
    Log = 0x31,
    /// App, topic → `MessageRecord`.
    Retained = 0x32,
    /// App, log, filter, offset → nothing: the entry was kept for sessions with this filter; the empty filter stands for all.
    Posting = 0x33,
    /// App, push → `PushRecord`.
    Push = 0x40,
    /// App, push, [`Mark::code`], chunk → part of a bitmap over device numbers.
    Receipts = 0x41,
    /// App, push → `MessageRecord`, the message of a push to several devices.
    PushMessage = 0x42,
    /// App, push → `PushClientsRecord`, whose inboxes may still hold it.
    PushClients = 0x43,
    /// App, push, device number → the push that took its place there, sixteen bytes.
    CollapsedBy = 0x45,
    /// App, idempotency key → `IdempotencyRecord`.
    Idempotency = 0x44,
    /// Time, kind, subject → key of the subject.
    Expiry = 0x50,
    // From here on: what only a store keeps that nodes share.
    /// Client → `EphemeralRecord`: a connection without a stored session.
    Ephemeral = 0x60,
    /// Generation, client → `ClientRecord`: a connection through that node.
    Connection = 0x61,
    /// Generation → `MailboxRecord`.
    Mailbox = 0x62,
    /// Generation, offset → `ClientRecord`, whose inbox has something new.
    Note = 0x63,
    /// App → `ChangesRecord`.
    Changes = 0x64,
    /// App, offset → `ChangeRecord`.
    Change = 0x65,
    /// App, filter → `FilterRecord`: how many stored sessions have it.
    Filter = 0x66,
    /// App, shared filter, client → `MemberRecord`.
    Member = 0x67,
    // Of the push domain, in every store.
    /// App (empty: none), table of the domain, name → `RowRecord`. The name is not preceded by its length.
    Row = 0x70,
    /// App (empty: none), table of the domain → how many rows it has, eight bytes.
    RowCount = 0x71,
    /// App → `EventLogRecord`.
    EventLog = 0x72,
    /// App, offset → `EventRecord`.
    Event = 0x73,
    /// App, push, stretch of time, [`Mark::code`] → how many devices were new, eight bytes.
    Series = 0x74,
    /// App, number of a registered device → its client identifier.
    Number = 0x75,
    /// App, name of a cohort, part → the numbers of that part that are in it.
    Cohort = 0x76,
}

/// Under [`Table::Meta`]: the last sequence number given, eight bytes.
pub const META_SEQUENCE: &[u8] = &[Table::Meta as u8, b's'];
/// Under [`Table::Meta`], in a store that nodes share: the last epoch given, eight bytes.
pub const META_EPOCH: &[u8] = &[Table::Meta as u8, b'e'];
/// Under [`Table::Meta`], in a store that nodes share: the latest time that a command brought, eight bytes.
pub const META_CLOCK: &[u8] = &[Table::Meta as u8, b'c'];

/// What an entry of the expiry index is about. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExpiryKind {
    /// A session; the subject is the client.
    Session = 1,
    /// A push's time to live; the subject is app and push.
    Push = 2,
    /// A push's report; the subject is app and push.
    Report = 3,
    /// An idempotency key; the subject is app and key.
    Idempotency = 4,
    /// A retained message; the subject is app and topic.
    Retained = 5,
    /// An inbox entry that is no push; the subject is client and offset.
    InboxEntry = 6,
    /// A will that nobody has published; the subject is client and message id. Only in a store that nodes share.
    Will = 7,
    /// A row of the push domain; the subject is the row.
    Row = 8,
}

impl ExpiryKind {
    /// The kind of a number, if a version of this program that knows it wrote the index.
    pub fn from_byte(byte: u8) -> Option<ExpiryKind> {
        Some(match byte {
            1 => ExpiryKind::Session,
            2 => ExpiryKind::Push,
            3 => ExpiryKind::Report,
            4 => ExpiryKind::Idempotency,
            5 => ExpiryKind::Retained,
            6 => ExpiryKind::InboxEntry,
            7 => ExpiryKind::Will,
            8 => ExpiryKind::Row,
            _ => return None,
        })
    }
}

/// A subject: the part of a key after the table byte. The same subject has rows in several tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Vec<u8>);

impl Subject {
    /// The empty subject: a whole table.
    pub fn all() -> Subject {
        Subject(Vec::new())
    }

    /// An app.
    pub fn app(app: &str) -> Subject {
        Subject(Vec::with_capacity(64)).text(app)
    }

    /// A client.
    pub fn client(client: &ClientKey) -> Subject {
        Subject::app(client.app.as_str()).text(&client.client_id)
    }

    /// A run of a node.
    pub fn generation(generation: Generation) -> Subject {
        Subject::all().bytes(&generation.0.to_be_bytes())
    }

    /// A will that is owed, of a client.
    pub fn owed_will(self, id: MessageId) -> Subject {
        self.bytes(&id.0.to_be_bytes())
    }

    /// A log.
    pub fn log(app: &AppId, log: LogKind) -> Subject {
        let number = log_number(log);
        Subject::app(app.as_str()).bytes(&number.to_be_bytes())
    }

    /// A push.
    pub fn push(app: &str, id: u128) -> Subject {
        Subject::app(app).bytes(&id.to_be_bytes())
    }

    /// The keys of a table whose subject begins with this one, which is not empty: from the first, up to before the last.
    pub fn range(&self, table: Table) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(table);
        let mut to = from.clone();
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        (from, to)
    }

    /// The subject of a key; the key is not empty.
    pub fn of_key(key: &[u8]) -> Subject {
        Subject(key[1..].to_vec())
    }

    /// With one more text part.
    pub fn text(mut self, text: &str) -> Subject {
        if text.len() <= INLINE_TEXT_BYTES {
            self.0.extend_from_slice(&(text.len() as u16).to_be_bytes());
            self.0.extend_from_slice(text.as_bytes());
        } else {
            self.0.extend_from_slice(&HASHED.to_be_bytes());
            self.0.extend_from_slice(&Sha256::digest(text.as_bytes()));
        }
        self
    }

    /// With more bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Subject {
        self.0.extend_from_slice(bytes);
        self
    }

    /// With the parts of another subject.
    pub fn and(self, other: &Subject) -> Subject {
        self.bytes(&other.0)
    }

    /// With an offset.
    pub fn offset(self, offset: Offset) -> Subject {
        self.bytes(&offset.0.to_be_bytes())
    }

    /// The subject without its last `count` bytes, and those.
    pub fn split_tail<const N: usize>(mut self) -> Option<(Subject, [u8; N])> {
        let at = self.0.len().checked_sub(N)?;
        let tail = self.0[at..].try_into().ok()?;
        self.0.truncate(at);
        Some((self, tail))
    }

    /// The app that the subject begins with.
    pub fn app_name(&self) -> Option<&str> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        std::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*length)))?).ok()
    }

    /// The push that the subject ends with.
    pub fn push_id(&self) -> Option<u128> {
        self.0.last_chunk::<16>().copied().map(u128::from_be_bytes)
    }

    /// The table of a row: the subject without the row's name.
    pub fn table_of_row(&self) -> Option<Subject> {
        let app = u16::from_be_bytes(*self.0.first_chunk::<2>()?);
        let rows = self.0.get(..2 + usize::from(app) + 1)?;
        Some(Subject(rows.to_vec()))
    }

    /// The bytes of the text part that follows the app.
    pub fn text_after_app(&self) -> &[u8] {
        let length = |at: usize| {
            let length = self.0.get(at..at + 2)?.try_into().ok()?;
            Some(usize::from(u16::from_be_bytes(length)))
        };
        let text = length(0).and_then(|app| {
            let at = 2 + app;
            self.0.get(at + 2..)?.get(..length(at)?)
        });
        text.unwrap_or_default()
    }

    /// What follows a subject that it begins with.
    pub fn bytes_after(&self, begin: &Subject) -> &[u8] {
        self.0.strip_prefix(begin.0.as_slice()).unwrap_or_default()
    }

    /// The key of this subject in a table.
    pub fn key(&self, table: Table) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.0.len());
        key.push(table as u8);
        key.extend_from_slice(&self.0);
        key
    }

    /// The key of a subject that begins with this one and goes on with `tail`.
    pub fn key_with(&self, table: Table, tail: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.0.len() + tail.len());
        key.push(table as u8);
        key.extend_from_slice(&self.0);
        key.extend_from_slice(tail);
        key
    }

    /// The key of this subject's entry in the expiry index.
    pub fn expiry_key(&self, at_ms: u64, kind: ExpiryKind) -> Vec<u8> {
        let mut key = Vec::with_capacity(10 + self.0.len());
        key.push(Table::Expiry as u8);
        key.extend_from_slice(&at_ms.to_be_bytes());
        key.push(kind as u8);
        key.extend_from_slice(&self.0);
        key
    }
}

/// The parts of a key of the expiry index.
pub fn parse_expiry_key(key: &[u8]) -> Option<(u64, u8, Subject)> {
    let (at_ms, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    let (kind, subject) = rest.split_first()?;
    Some((u64::from_be_bytes(*at_ms), *kind, Subject(subject.to_vec())))
}

/// The number of a log in keys and records.
pub fn log_number(log: LogKind) -> u16 {
    match log {
        LogKind::Push => 0,
        LogKind::Topic(partition) => u16::from(partition) + 1,
    }
}

/// The log of a number.
pub fn log_of_number(number: u16) -> Option<LogKind> {
    match number {
        0 => Some(LogKind::Push),
        _ => u8::try_from(number - 1).ok().map(LogKind::Topic),
    }
}

/// The table of the entries of a lane.
pub fn inbox_table(lane: Lane) -> Table {
    match lane {
        Lane::High => Table::InboxHigh,
        Lane::Normal => Table::Inbox,
        Lane::Low => Table::InboxLow,
    }
}

/// Tail of a key in [`Table::Receipts`] after the push.
pub fn receipt_tail(mark: Mark, chunk: u16) -> [u8; 3] {
    let [high, low] = chunk.to_be_bytes();
    [mark.code(), high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_make_short_and_different_keys() {
        let app = AppId::new("a");
        let long = "x".repeat(65_535);
        let longer_by_end = format!("{}y", "x".repeat(65_534));
        let one = Subject::client(&ClientKey::new(&app, &long)).key(Table::Device);
        let other = Subject::client(&ClientKey::new(&app, &longer_by_end)).key(Table::Device);
        assert!(one.len() < 100 && one != other);
    }

    #[test]
    fn a_client_is_not_a_prefix_of_another() {
        let app = AppId::new("a");
        let one = Subject::client(&ClientKey::new(&app, "dev")).key(Table::Inbox);
        let other = Subject::client(&ClientKey::new(&app, "device")).key(Table::Inbox);
        assert!(!other.starts_with(&one));
    }

    #[test]
    fn expiry_keys_come_apart_again() {
        let subject = Subject::push("app", 7);
        let key = subject.expiry_key(1234, ExpiryKind::Report);
        assert_eq!(
            parse_expiry_key(&key),
            Some((1234, ExpiryKind::Report as u8, subject.clone()))
        );
        assert_eq!(subject.app_name(), Some("app"));
        assert_eq!(
            subject.split_tail::<16>(),
            Some((Subject::app("app"), 7u128.to_be_bytes()))
        );
    }

    #[test]
    fn logs_have_numbers() {
        for log in [LogKind::Push, LogKind::Topic(0), LogKind::Topic(255)] {
            assert_eq!(log_of_number(log_number(log)), Some(log));
        }
        assert_eq!(log_of_number(257), None);
    }
}
