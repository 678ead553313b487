//! What the engine keeps in memory: the ends of logs, device numbers, and clients without a stored session.
//!
//! It changes while a batch is carried out; each change leaves an [`Undo`], so that a refused request or a failed commit takes it back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, Millis, Offset},
    store::LogKind,
};
use roaring::RoaringBitmap;

use super::cluster::WithReaders;

/// State of all apps.
#[derive(Debug, Default)]
pub struct State {
    /// The last sequence number given to an entry of a log or inbox.
    pub sequence: u64,
    /// The highest epoch given since the store was opened.
    pub last_epoch: u64,
    /// The latest time that a command brought.
    pub clock: Millis,
    /// What readers must know of it, and it of them.
    pub shared: Arc<WithReaders>,
    /// State by app. Ordered, so that sweeping is deterministic.
    pub apps: BTreeMap<AppId, AppState>,
}

/// State of an app.
#[derive(Debug, Default)]
pub struct AppState {
    /// Device numbers from here on were never given.
    pub next_ordinal: u32,
    /// Device numbers below this one are reserved on disk.
    pub reserved_ordinals: u32,
    /// Device numbers that were given, but that no push was ever for.
    pub free_ordinals: Vec<u32>,
    /// Devices with a stored session.
    pub stored: RoaringBitmap,
    /// Devices that are connected without a stored session.
    pub ephemeral: RoaringBitmap,
    /// The same by client identifier.
    pub ephemeral_clients: HashMap<Arc<str>, Ephemeral>,
    /// Logs that have, or had, entries.
    pub logs: BTreeMap<LogKind, LogState>,
    /// Pushes to all since the store was opened.
    pub pushes_to_all: u64,
}

/// A connected client without a stored session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// Of its claim.
    pub epoch: Epoch,
    /// The run of the node that has the connection.
    pub owner: Generation,
    /// Its device number.
    pub ordinal: u32,
    /// [`AppState::pushes_to_all`] when it got the number.
    pub since_push: u64,
    /// The number is in a record, or in the set of a push.
    pub is_known: bool,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry.
    pub end: Offset,
    /// Entries up to here were removed before their time.
    pub trimmed_to: Offset,
    /// Bytes of the entries that are there.
    pub bytes: u64,
    /// When the oldest entry was appended, if that is known.
    pub oldest: Option<Millis>,
}

/// How to take a change back.
#[derive(Debug)]
pub enum Undo {
    /// [`State::sequence`] was this.
    Sequence(u64),
    /// [`AppState::next_ordinal`] and [`AppState::reserved_ordinals`] were these.
    Ordinals(AppId, u32, u32),
    /// A number was added to [`AppState::free_ordinals`].
    OrdinalFreed(AppId),
    /// This number was taken from [`AppState::free_ordinals`].
    OrdinalTaken(AppId, u32),
    /// The device was, or was not, in [`AppState::stored`].
    Stored(AppId, u32, bool),
    /// The client's entry was this.
    Ephemeral(ClientKey, Option<Ephemeral>),
    /// The log's state was this.
    Log(AppId, LogKind, LogState),
    /// There was one push to all less.
    PushToAll(AppId),
}

impl State {
    /// The client's entry, if it is connected without a stored session.
    pub fn ephemeral(&self, client: &ClientKey) -> Option<Ephemeral> {
        self.apps
            .get(&client.app)?
            .ephemeral_clients
            .get(&client.client_id)
            .copied()
    }

    /// Where a log stands.
    pub fn log(&self, app: &AppId, log: LogKind) -> LogState {
        self.apps
            .get(app)
            .and_then(|app| app.logs.get(&log))
            .copied()
            .unwrap_or_default()
    }

    /// The app's state, made if need be.
    pub fn app(&mut self, app: &AppId) -> &mut AppState {
        // Not `entry`: it would clone the key every time.
        if !self.apps.contains_key(app) {
            self.apps.insert(app.clone(), AppState::default());
        }
        self.apps.get_mut(app).expect("inserted above")
    }

    /// Takes one change back.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Sequence(before) => self.sequence = before,
            Undo::Ordinals(app, next, reserved) => {
                let app = self.app(&app);
                (app.next_ordinal, app.reserved_ordinals) = (next, reserved);
            }
            Undo::OrdinalFreed(app) => {
                self.app(&app).free_ordinals.pop();
            }
            Undo::OrdinalTaken(app, ordinal) => self.app(&app).free_ordinals.push(ordinal),
            Undo::Stored(app, ordinal, was) => {
                self.app(&app).set_stored(ordinal, was);
            }
            Undo::Ephemeral(client, before) => {
                self.app(&client.app)
                    .set_ephemeral(&client.client_id, before);
            }
            Undo::Log(app, log, before) => {
                self.app(&app).logs.insert(log, before);
            }
            Undo::PushToAll(app) => self.app(&app).pushes_to_all -= 1,
        }
    }
}

impl AppState {
    /// Puts the device into the set of stored sessions or takes it out. Returns whether it was in.
    pub fn set_stored(&mut self, ordinal: u32, stored: bool) -> bool {
        match stored {
            true => !self.stored.insert(ordinal),
            false => self.stored.remove(ordinal),
        }
    }

    /// Replaces a client's entry. Returns the one before.
    pub fn set_ephemeral(
        &mut self,
        client_id: &Arc<str>,
        entry: Option<Ephemeral>,
    ) -> Option<Ephemeral> {
        let before = match entry {
            Some(entry) => self.ephemeral_clients.insert(client_id.clone(), entry),
            None => self.ephemeral_clients.remove(client_id),
        };
        if let Some(before) = before {
            self.ephemeral.remove(before.ordinal);
        }
        if let Some(entry) = entry {
            self.ephemeral.insert(entry.ordinal);
        }
        before
    }
}
