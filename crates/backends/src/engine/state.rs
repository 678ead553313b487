//! What the engine keeps in memory: the ends of logs, device numbers, and clients without a stored session.
//!
//! It changes while a batch is carried out; each change leaves an [`Undo`], so that a refused request or a failed commit takes it back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// Clients that are connected without a stored session, for readers too.
    pub connected: Arc<EphemeralClients>,
    /// How many have a stored session, for readers.
    pub stored_sessions: Arc<StoredSessions>,
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
    /// Logs that have, or had, entries.
    pub logs: BTreeMap<LogKind, LogState>,
    /// Pushes to all since the store was opened.
    pub pushes_to_all: u64,
    /// Changes that were announced since the store was opened, if it is that of a node alone.
    pub changes: u64,
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
    /// The number is in a record or in the set of a push, or a node that lost the connection may go on to report under it: it is not given again.
    pub is_known: bool,
}

/// Clients that are connected without a stored session, by app. A reader may see one whose claim is about to be taken back.
#[derive(Debug, Default)]
pub struct EphemeralClients(Mutex<ByApp>);

type ByApp = HashMap<AppId, HashMap<Arc<str>, Ephemeral>>;

impl EphemeralClients {
    /// A client's entry.
    pub fn get(&self, app: &AppId, client_id: &str) -> Option<Ephemeral> {
        self.lock().get(app)?.get(client_id).copied()
    }

    /// Clients of an app, at most so many.
    pub fn of_app(&self, app: &AppId, most: usize) -> Vec<(Arc<str>, Ephemeral)> {
        let apps = self.lock();
        let clients = apps.get(app).into_iter().flatten();
        clients
            .take(most)
            .map(|(client_id, entry)| (client_id.clone(), *entry))
            .collect()
    }

    /// How many there are of an app.
    pub fn len(&self, app: &AppId) -> u64 {
        self.lock()
            .get(app)
            .map_or(0, |clients| clients.len() as u64)
    }

    /// Replaces a client's entry. Returns the one before.
    fn set(&self, client: &ClientKey, entry: Option<Ephemeral>) -> Option<Ephemeral> {
        let mut apps = self.lock();
        // Not `entry`: it would clone the key every time.
        if !apps.contains_key(&client.app) {
            apps.insert(client.app.clone(), HashMap::new());
        }
        let clients = apps.get_mut(&client.app).expect("inserted above");
        match entry {
            Some(entry) => clients.insert(client.client_id.clone(), entry),
            None => clients.remove(&client.client_id),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByApp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many devices of an app have a stored session, for readers. They may see one whose claim is about to be taken back.
#[derive(Debug, Default)]
pub struct StoredSessions(Mutex<HashMap<AppId, u64>>);

impl StoredSessions {
    /// Of an app.
    pub fn of(&self, app: &AppId) -> u64 {
        self.lock().get(app).copied().unwrap_or_default()
    }

    fn set(&self, app: &AppId, sessions: u64) {
        self.lock().insert(app.clone(), sessions);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AppId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.connected.get(&client.app, &client.client_id)
    }

    /// Replaces a client's entry. Returns the one before.
    pub fn set_ephemeral(
        &mut self,
        client: &ClientKey,
        entry: Option<Ephemeral>,
    ) -> Option<Ephemeral> {
        let before = self.connected.set(client, entry);
        let app = self.app(&client.app);
        if let Some(before) = before {
            app.ephemeral.remove(before.ordinal);
        }
        if let Some(entry) = entry {
            app.ephemeral.insert(entry.ordinal);
        }
        before
    }

    /// Puts a device into the set of stored sessions of its app or takes it out. Returns whether it was in.
    pub fn set_stored(&mut self, app: &AppId, ordinal: u32, stored: bool) -> bool {
        let state = self.app(app);
        let was = match stored {
            true => !state.stored.insert(ordinal),
            false => state.stored.remove(ordinal),
        };
        let sessions = state.stored.len();
        self.stored_sessions.set(app, sessions);
        was
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
                self.set_stored(&app, ordinal, was);
            }
            Undo::Ephemeral(client, before) => {
                self.set_ephemeral(&client, before);
            }
            Undo::Log(app, log, before) => {
                self.app(&app).logs.insert(log, before);
            }
            Undo::PushToAll(app) => self.app(&app).pushes_to_all -= 1,
        }
    }
}
