//! The ports of the push domain to durable state.
//!
//! Writes are data ([`Command`]), so that a backend can make many of them durable in one commit, together with the broker's;
//! an outcome arrives once it is durable. Reads go through [`Reader`] and see what is committed.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use roaring::RoaringBitmap;

use crate::{
    app::AppName,
    campaign::{Ended, How},
    event::Event,
    explanation::AtDevice,
    funnel::Funnel,
    id::PushId,
    lanes::Priority,
    receipt::{DropReason, Mark},
    rows::{Change, Key, Range, Row, Scope, Table, Version},
    series::Series,
};

/// Why a request was not carried out. Nothing of it happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store is unavailable: {0}")]
pub struct Unavailable(pub Arc<str>);

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Accept a push. One whose id was accepted already changes nothing and gets the same answer.
    Accept(Box<Accept>),
    /// Some of the devices that a push to [`Audience::Matching`] is for. Repeating it is harmless; for a push that is not known any more, or is to another
    /// audience, nothing happens.
    Target(Target),
    /// All devices of such a push were named by [`Command::Target`]s: its report is complete.
    Counted {
        /// The app.
        app: AppName,
        /// The push.
        push: PushId,
    },
    /// Write rows. [`Outcome::Changed`], or [`Outcome::Conflict`] if they are not what was expected.
    Change(Box<Change>),
}

/// Devices that a push is for: those of one chunk of 65,536 numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The app.
    pub app: AppName,
    /// The push.
    pub push: PushId,
    /// The chunk: its first number is 65,536 times this.
    pub chunk: u16,
    /// Bit `n % 8` (1 is the lowest) of byte `n / 8` stands for the chunk's number `n`. At most [`Target::MAX_BYTES`].
    pub devices: Bytes,
}

impl Target {
    /// Bytes of a whole chunk.
    pub const MAX_BYTES: usize = 8192;

    /// These numbers of a chunk.
    pub fn of(
        app: &AppName,
        push: PushId,
        chunk: u16,
        numbers: impl IntoIterator<Item = u16>,
    ) -> Target {
        let mut devices = Vec::new();
        for number in numbers {
            let at = usize::from(number / 8);
            if devices.len() <= at {
                devices.resize(at + 1, 0_u8);
            }
            devices[at] |= 1 << (number % 8);
        }
        Target {
            app: app.clone(),
            push,
            chunk,
            devices: devices.into(),
        }
    }
}

/// A push that passed all checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    /// The app; it exists.
    pub app: AppName,
    /// Id of the push, and of its message at the devices.
    pub id: PushId,
    /// Unix milliseconds of acceptance.
    pub accepted_ms: u64,
    /// Unix milliseconds after which nobody is sent it any more. Equal to `accepted_ms`: now or never, only to devices that are connected.
    pub expires_ms: u64,
    /// For whom.
    pub audience: Audience,
    /// What the devices get on `push/in`: the JSON document.
    pub payload: Bytes,
    /// The lane of the devices' inboxes in which it waits. The log has only one.
    pub priority: Priority,
    /// It takes the place of the push of the same key that waits in a device's inbox, which is [`Mark::Collapsed`] there from then on. Not if it is now or
    /// never: it might reach nobody. The log has no such keys.
    ///
    /// [`Mark::Collapsed`]: crate::receipt::Mark::Collapsed
    pub collapse_key: Option<String>,
    /// What makes a retry harmless.
    pub idempotency: Option<Idempotency>,
    /// It is a campaign: these rows, of its app, say so, and become durable with it or not at all. It is then no entry of a log and of no inbox.
    /// [`Outcome::Conflict`] and [`Outcome::Full`] as of [`Command::Change`].
    pub rows: Option<Box<Change>>,
    /// Where the devices get it.
    pub channel: Channel,
    /// What its sender wants to find again: an encoded [`Info`](crate::info::Info), or empty. The store passes it on.
    pub info: Bytes,
    /// Its end is told to somebody, whoever listens: it gets a row in [`Table::Open`]. Without that it gets one if its app has listeners and its audience is not
    /// [`Audience::Devices`], of whose devices each event tells.
    pub watched: bool,
}

/// Where devices get a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// `push/in`: what the app says.
    #[default]
    In,
    /// `push/ctl`: what the server says.
    Control,
}

/// For whom a push is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every device that has a session, live or away, when the push is accepted.
    All,
    /// These, whether known or not, 1..=1000 different client identifiers. One without a session finds the push when it first connects.
    Devices(Vec<Arc<str>>),
    /// Every device that matches this, live or away, when the push is accepted and when it is delivered. The encoded targeting, which the store passes on. Who they
    /// are is not known when the push is accepted: [`Command::Target`] says it later.
    Matching(Bytes),
}

/// An idempotency key in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key as the caller gave it, 1..=255 visible ASCII characters; scoped to the app.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
    /// Unix milliseconds after which the key is free again.
    pub expires_ms: u64,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and durable.
    Done,
    /// The push is durable.
    Accepted {
        /// Devices that it is for; `None`: they are counted later.
        targeted: Option<u64>,
    },
    /// The idempotency key was used for the same body: the answer is that of the first request.
    Replayed {
        /// The first request's push.
        id: PushId,
        /// The first answer's figure.
        targeted: Option<u64>,
        /// Unix milliseconds of its acceptance.
        accepted_ms: u64,
    },
    /// The idempotency key was used for another body.
    KeyReused,
    /// The rows are written.
    Changed {
        /// What each of them is now of.
        version: Version,
    },
    /// A row was not of the version that was expected: nothing happened. Read again and decide again.
    Conflict,
    /// The table would have more rows than the change allows: nothing happened.
    Full {
        /// The first such table.
        table: Table,
    },
}

/// What became of a push so far. `targeted = delivered + pending + expired + recalled + collapsed + dropped + settled`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Unix milliseconds of acceptance.
    pub accepted_ms: u64,
    /// Unix milliseconds of expiry.
    pub expires_ms: u64,
    /// Devices that it is for.
    pub targeted: u64,
    /// Not all of those are known yet: they, and who is still to get it, are being counted.
    pub counting: bool,
    /// Devices that acknowledged it.
    pub delivered: u64,
    /// Devices that may still get it.
    pub pending: u64,
    /// Devices whose time ran out.
    pub expired: u64,
    /// Devices that had not got it when it was cancelled.
    pub recalled: u64,
    /// Devices at which a newer push of the same collapse key took its place.
    pub collapsed: u64,
    /// Devices whose full inbox dropped it (the least urgent first, of those the oldest).
    pub dropped: u64,
    /// Devices of which something else says that they will not get it: each counts once.
    pub settled: BTreeMap<Mark, u64>,
    /// Of the delivered: devices that showed it.
    pub displayed: u64,
    /// Of the displayed: devices where a person opened it.
    pub clicked: u64,
    /// Of the displayed: devices where a person wiped it away.
    pub dismissed: u64,
    /// [`Accept::info`].
    pub info: Bytes,
}

/// A push in the list of an app's pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: PushId,
    /// Unix milliseconds of acceptance.
    pub accepted_ms: u64,
    /// Unix milliseconds of expiry.
    pub expires_ms: u64,
    /// [`Accept::info`].
    pub info: Bytes,
}

/// A part of an app's event log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events, ascending by place.
    pub events: Vec<Event>,
    /// The place up to which the log was read.
    pub read_to: u64,
    /// Where the log ends: whoever begins to listen now reads on from here.
    pub end: u64,
    /// Behind the place that was asked for there may have been events that are not in the log: they were trimmed, or nobody listened.
    pub gap: bool,
}

/// A part of the past of an app, or of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The events, newest first.
    pub events: Vec<Event>,
    /// The place before which it goes on; `None`: that was all.
    pub before: Option<u64>,
}

/// Events that are looked at for one [`Past`].
pub const MAX_LOOKED_AT: usize = 2048;

impl Report {
    /// The same as a funnel.
    pub fn funnel(&self) -> Funnel {
        let inbox_full = Mark::Dropped(DropReason::InboxFull);
        let mut funnel = Funnel {
            targeted: self.targeted,
            delivered: self.delivered,
            pending: self.pending,
            expired: self.expired,
            recalled: self.recalled,
            collapsed: self.collapsed,
            displayed: self.displayed,
            clicked: self.clicked,
            dismissed: self.dismissed,
            ..Funnel::default()
        };
        let settled = self.settled.iter().map(|(mark, count)| (*mark, *count));
        for (mark, count) in settled.chain([(inbox_full, self.dropped)]) {
            funnel.count_mark(mark, count);
        }
        funnel
    }

    /// The same with those of whom nothing is said: they wait, or their time is up.
    pub fn with_rest(mut self, now_ms: u64) -> Report {
        let settled = self.settled.values().sum::<u64>();
        let said = self.delivered + self.dropped + self.collapsed + settled;
        let rest = self.targeted.saturating_sub(said);
        match now_ms >= self.expires_ms {
            true => self.expired = rest,
            false => self.pending = rest,
        }
        self
    }

    /// The same of a push that ended before its time: nobody gets it any more.
    pub fn ended(mut self, ended: &Ended) -> Report {
        if ended.at_ms >= self.expires_ms {
            return self;
        }
        let rest = std::mem::take(&mut self.pending) + std::mem::take(&mut self.expired);
        match ended.how {
            How::Cancelled | How::Recalled => self.recalled += rest,
            How::Collapsed(_) => self.collapsed += rest,
        }
        self
    }
}

/// What an app keeps beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// About how many bytes its messages take: in logs, in inboxes, retained. Payloads that several inboxes share count in each.
    pub bytes: u64,
}

/// A device that keeps a session and is not connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// Unix milliseconds in which its connection ended; `None`: an earlier version let go of it, and did not write that down.
    pub since_ms: Option<u64>,
    /// Unix milliseconds in which the session ends; `None`: it stays until the device returns.
    pub expires_ms: Option<u64>,
    /// Entries of the push log that the device is not done with, whether they are for it or not; `None`: behind its cursor are more than [`Away::MOST_BEHIND`], or than about 1 MiB.
    pub behind: Option<u32>,
    /// Entries of its inbox, in all lanes.
    pub inbox: u32,
}

impl Away {
    /// Entries of the push log that are looked at: counted in Redis, they take a few milliseconds of the server's time, by which others wait.
    pub const MOST_BEHIND: u32 = 1000;
}

/// What a step of the erasure of an app came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// About how many things it removed.
    pub removed: u32,
    /// There is more to remove.
    pub more: bool,
}

/// Reads of the push domain. Calls may block for a disk read; call them where that is allowed.
pub trait Reader: Send + Sync {
    /// The figures of a push of that app at a time, or `None` if there is no such push (any more).
    fn report(&self, app: &AppName, id: PushId, now_ms: u64)
    -> Result<Option<Report>, Unavailable>;
    /// What a request with this idempotency key was answered: [`Outcome::Replayed`] or [`Outcome::KeyReused`], or `None` if the key is free at `now_ms`.
    fn answered(
        &self,
        app: &AppName,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Unavailable>;
    /// The devices of a push of that app with a mark.
    fn marked(&self, app: &AppName, id: PushId, mark: Mark) -> Result<RoaringBitmap, Unavailable>;
    /// What is known of a push of that app at a device of it, by its client identifier.
    fn at_device(&self, app: &AppName, id: PushId, device: &str) -> Result<AtDevice, Unavailable>;
    /// What waits for a device of that app, by its client identifier; `None`: it is connected, or keeps no session at `now_ms`.
    fn away(&self, app: &AppName, device: &str, now_ms: u64) -> Result<Option<Away>, Unavailable>;
    /// Rows by their keys, in the order of the keys; `None` for one that is not there or whose time has run out at `now_ms`.
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable>;
    /// Rows of a range, and whether there are more after them.
    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable>;
    /// How many rows a table has, with those whose time has run out and that are not swept yet.
    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable>;
    /// What an app keeps. May take a while: it looks at each device with an inbox.
    fn stored(&self, app: &AppName) -> Result<Stored, Unavailable>;
    /// The numbers of devices that keep theirs, in the order of the names: those with a session, with pushes that wait for them, or registered.
    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable>;
    /// The numbers of the registered devices in a cohort; `None`: they are more than `most`.
    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable>;
    /// The rows of [`Table::Device`] of the registered devices with these numbers, in this order; `None` for a number that none has. At most a thousand at a time.
    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable>;
    /// Devices of an app with a session, connected or away: those that a push to all would be for.
    fn sessions(&self, app: &AppName) -> Result<u64, Unavailable>;
    /// All numbers of registered devices are below this one.
    fn numbers_end(&self, app: &AppName) -> Result<u32, Unavailable>;
    /// Events of an app after a place, at most `limit`; a store also stops after about 1 MiB, but returns at least one.
    fn events(&self, app: &AppName, after: u64, limit: usize) -> Result<EventPage, Unavailable>;
    /// Events of an app before a place, those of one device if it is named. At most `limit` of at most [`MAX_LOOKED_AT`] that are looked at, so that there may be more
    /// where there are few.
    fn past(
        &self,
        app: &AppName,
        device: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Past, Unavailable>;
    /// When devices told of a push of that app; nothing of one to a single device.
    fn series(&self, app: &AppName, id: PushId) -> Result<Series, Unavailable>;
    /// Pushes of an app, those with the greatest ids first, from the first below `before`; and whether there are more.
    fn pushes(
        &self,
        app: &AppName,
        before: Option<PushId>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable>;
}
