//! The port to what an app keeps beside its messages: devices, users, segments, schedules, webhooks, keys, its history.
//!
//! All of it is rows: a name within a table within an app, and bytes that only the domain reads. The rules are written once, in this crate: it
//! reads rows, decides, and asks for a [`Change`] that is carried out only if the rows it has read are still what they were. Whoever comes second
//! gets [`Outcome::Conflict`](crate::store::Outcome::Conflict), reads again, and decides again. So a store needs no knowledge of what rows mean,
//! with two exceptions: a row of [`Table::Device`] gives its client a device number, keeps it, and is found by it; and nodes are told of rows of
//! [`Table::Device`], [`Table::Campaign`] and [`Table::Cancelled`].
//!
//! Beside its rows an app has *cohorts*: sets of registered devices, by their numbers, which a change writes with the rows. They are what finds the few
//! devices of a selective audience without a look at all.
//!
//! Names are texts without a rule but their length; a table that is read by its first part (the devices of a user) puts U+0000 behind it, which no
//! part contains.

mod memory;

pub use self::memory::MemoryRows;

use bytes::Bytes;

use crate::{app::AppName, event::Draft};

/// Longest name of a row, in bytes of UTF-8: an identifier of a user, one of a device, and what stands between.
pub const MAX_NAME_BYTES: usize = 512;
/// Largest value of a row, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Rows that one change may expect and write.
pub const MAX_ROWS: usize = 4096;
/// What stands between the parts of a name.
pub const SEPARATOR: char = '\0';

/// A table. Numbers are part of the format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Of [`Scope::System`]: name of an app → its settings and quotas.
    App = 1,
    /// Of [`Scope::System`]: hash of an API key in hexadecimal → whose it is and what it may do.
    Key = 2,
    /// Of [`Scope::System`]: name of an app that is being deleted → how far that is.
    Deletion = 3,
    /// Client identifier → profile of a device.
    Device = 16,
    /// User, device → nothing: the devices of a user.
    UserDevice = 17,
    /// Name → expression.
    Segment = 18,
    /// Id → state of an upload.
    Upload = 19,
    /// Id → schedule.
    Schedule = 20,
    /// Id of an API key → its hash, in the scope of its app.
    AppKey = 22,
    /// Id, ascending by time → who changed what.
    Audit = 23,
    /// Id of a push → its targeting: who it is for is still to be counted.
    Count = 29,
    /// Idempotency key → the schedule that its request made.
    ScheduleKey = 30,
    /// Id of a push → its campaign, until it ends. All nodes are told of these rows.
    Campaign = 31,
    /// Collapse key and audience, hashed → the newest push with it.
    Collapse = 32,
    /// Id of a push → its end before its time, as long as its report is kept.
    End = 33,
    /// Id of a push that is no campaign → its end before its time, as long as it may wait somewhere. All nodes are told of these rows.
    Cancelled = 34,
    /// Id → webhook.
    Webhook = 40,
    /// Who else wants to know what happens: the name of a reader of the event stream → nothing, for a while.
    Listener = 41,
    /// Id of a push in hexadecimal → what is told of its end, and to whom: nobody has been told yet.
    Open = 42,
    /// Id of a webhook → how far it was told.
    Told = 43,
    /// Id of a webhook, id of an event → an event that is to be sent again, or waits behind one.
    Retry = 44,
    /// Id of a webhook, id of an event → an event that was given up.
    DeadLetter = 45,
    /// Of [`Scope::System`]: name of an app that has, or had, a webhook or a push whose end is to be told → nothing.
    Teller = 46,
    /// What signs what is sent to callback addresses.
    CallbackSecret = 47,
    /// Client identifier → hashes of a device's token.
    DeviceToken = 50,
    /// `kid` → a key that the app's backend signs for devices with.
    DeviceKey = 51,
    /// Name of a part → the app's settings of it.
    AppSetting = 52,
}

/// While one of these tables of an app has a row, what happens in the app is written into its event log.
pub const LISTENERS: [Table; 2] = [Table::Webhook, Table::Listener];

impl Table {
    /// All tables.
    pub const ALL: [Table; 27] = [
        Table::App,
        Table::Key,
        Table::Deletion,
        Table::Device,
        Table::UserDevice,
        Table::Segment,
        Table::Upload,
        Table::Schedule,
        Table::AppKey,
        Table::Audit,
        Table::Count,
        Table::ScheduleKey,
        Table::Campaign,
        Table::Collapse,
        Table::End,
        Table::Cancelled,
        Table::Webhook,
        Table::Listener,
        Table::Open,
        Table::Told,
        Table::Retry,
        Table::DeadLetter,
        Table::Teller,
        Table::CallbackSecret,
        Table::DeviceToken,
        Table::DeviceKey,
        Table::AppSetting,
    ];
}

/// Whose rows. A change and a read are about one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// What belongs to no app: the list of apps, the keys.
    System,
    /// An app's.
    App(AppName),
}

/// Which row of a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its table.
    pub table: Table,
    /// Its name, 1..=[`MAX_NAME_BYTES`] bytes.
    pub name: String,
}

impl Key {
    /// A row of one part.
    pub fn new(table: Table, name: impl Into<String>) -> Key {
        Key {
            table,
            name: name.into(),
        }
    }

    /// A row of two parts.
    pub fn pair(table: Table, first: &str, second: &str) -> Key {
        Key::new(table, format!("{first}{SEPARATOR}{second}"))
    }
}

/// How often a row was written: each time it gets a greater one, 0 stands for a row that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Of a row that is not there.
    pub const ABSENT: Version = Version(0);
}

/// A row as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// When it was written, in relation to others.
    pub version: Version,
    /// Its value.
    pub value: Bytes,
}

/// A write of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which row.
    pub key: Key,
    /// Its new value, at most [`MAX_VALUE_BYTES`]; `None` removes it, and does nothing if it is not there.
    pub value: Option<Bytes>,
    /// Unix milliseconds after which it is removed.
    pub expires_ms: Option<u64>,
}

/// Longest name of a cohort, in bytes of UTF-8.
pub const MAX_COHORT_BYTES: usize = 256;

/// A device joins a cohort, or leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The device. One that leaves is registered before the change, one that joins after it; of another nothing is written.
    pub device: String,
    /// Name of the cohort, 1..=[`MAX_COHORT_BYTES`] bytes, a text of the domain's own.
    pub cohort: String,
    /// Whether it is in it from now on.
    pub is_in: bool,
}

/// Writes that become durable together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose rows.
    pub scope: Scope,
    /// Unix milliseconds now.
    pub now_ms: u64,
    /// Rows that must be of these versions, each named once; else nothing happens.
    pub expect: Vec<(Key, Version)>,
    /// What is written, each row once.
    pub writes: Vec<Write>,
    /// Rows that a table of the scope may have after it. A change that adds none to a table is not held up by its bound.
    pub bounds: Vec<(Table, u64)>,
    /// What is written into the event log of the app, in this order, if somebody wants to know. In [`Scope::System`] nothing is.
    pub events: Vec<Draft>,
    /// Cohorts that registered devices of the app join and leave. [`Scope::System`] has none.
    pub cohorts: Vec<Enrolment>,
}

impl Change {
    /// A change of nothing yet.
    pub fn new(scope: Scope, now_ms: u64) -> Change {
        Change {
            scope,
            now_ms,
            expect: Vec::new(),
            writes: Vec::new(),
            bounds: Vec::new(),
            events: Vec::new(),
            cohorts: Vec::new(),
        }
    }

    /// Has a device join a cohort, or leave it.
    pub fn enrol(mut self, device: &str, cohort: String, is_in: bool) -> Change {
        self.cohorts.push(Enrolment {
            device: device.to_owned(),
            cohort,
            is_in,
        });
        self
    }

    /// Tells that something happened.
    pub fn tell(mut self, event: Draft) -> Change {
        self.events.push(event);
        self
    }

    /// Only if the table has at most so many rows then.
    pub fn at_most(mut self, table: Table, rows: u64) -> Change {
        self.bounds.push((table, rows));
        self
    }

    /// Only if the row is as it was read.
    pub fn expect(mut self, key: Key, version: Version) -> Change {
        self.expect.push((key, version));
        self
    }

    /// Writes a row.
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Change {
        self.writes.push(Write {
            key,
            value: Some(value.into()),
            expires_ms: None,
        });
        self
    }

    /// Writes a row for a time.
    pub fn put_until(mut self, key: Key, value: impl Into<Bytes>, expires_ms: u64) -> Change {
        self.writes.push(Write {
            key,
            value: Some(value.into()),
            expires_ms: Some(expires_ms),
        });
        self
    }

    /// Removes a row.
    pub fn remove(mut self, key: Key) -> Change {
        self.writes.push(Write {
            key,
            value: None,
            expires_ms: None,
        });
        self
    }

    /// About how many bytes it holds; what mailboxes and batches count.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 64;
        let writes = self
            .writes
            .iter()
            .map(|write| FIXED + write.key.name.len() + write.value.as_ref().map_or(0, Bytes::len));
        let expected = self.expect.iter().map(|(key, _)| FIXED + key.name.len());
        let events = self
            .events
            .iter()
            .map(|event| FIXED + event.data.as_ref().map_or(0, |data| data.len()));
        let cohorts = self
            .cohorts
            .iter()
            .map(|enrolment| FIXED + enrolment.device.len() + enrolment.cohort.len());
        writes.chain(expected).chain(events).chain(cohorts).sum()
    }
}

/// Which rows of a table, ascending by the bytes of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose.
    pub scope: Scope,
    /// Of which table.
    pub table: Table,
    /// Names that begin with this.
    pub prefix: String,
    /// From the first name after this one, which need not be there.
    pub after: Option<String>,
    /// At most this many; a store also stops after about 1 MiB, but returns at least one.
    pub limit: usize,
}
