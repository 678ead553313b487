//! The key-value store over fjall.
//!
//! fjall does not write again after an error of the file system (it is "poisoned"), and leaves open whether the batch that met the error
//! comes back when it is opened again. So commits are refused before the disk is full; and should one fail all the same, the
//! database is opened again, and if the failed batch is there then, it is taken back.

use std::{
    ops::{Bound, ControlFlow},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::{
    Durability, EmbeddedConfig,
    directory::{Directory, Mark},
};
use crate::engine::{Kv, KvError, Reads, Value, View, Writes};

/// Key of the number of the last commit. The first byte is the engine's table of singletons.
const COMMITS: &[u8] = &[0x01, b'c'];
/// Memory for writes that are only in the journal; also what a background write needs on disk at a time.
const WRITE_BUFFER_BYTES: u64 = 32 * 1024 * 1024;
/// What is replayed when the database is opened after a crash; about a second's work.
const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
/// Background writes that a commit lets wait. At four fjall itself halts without noticing a dead worker.
const FLUSH_BACKLOG: usize = 3;
/// Between attempts to open a database that failed.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two marks.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// The database in a data directory.
#[derive(Debug)]
pub struct FjallKv {
    shared: Arc<Shared>,
    directory: Directory,
    settings: Settings,
    /// Number of the last commit.
    commits: u64,
    marked: Option<(u64, Instant)>,
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Settings {
    path: PathBuf,
    persist: PersistMode,
    min_free_bytes: u64,
    cache_bytes: u64,
}

/// The database, for this thread and the readers. None: it failed and could not be opened again yet.
struct Shared(RwLock<Option<Opened>>);

struct Opened {
    keyspace: Keyspace,
    database: Database,
}

/// A commit that failed.
#[derive(Debug)]
struct Failure {
    reason: KvError,
    /// What takes the failed commit back, in case it is found when the database is opened again.
    repair: Writes,
    last_attempt: Option<Instant>,
}

impl FjallKv {
    /// Opens the database of a directory, or makes one.
    pub fn open(directory: Directory, config: &EmbeddedConfig) -> Result<FjallKv, KvError> {
        let settings = Settings {
            path: directory.store(),
            persist: match config.durability {
                Durability::Fsync => PersistMode::SyncData,
                Durability::Os => PersistMode::Buffer,
            },
            min_free_bytes: config.min_free_bytes,
            cache_bytes: config.cache_bytes,
        };
        if !settings.path.exists() {
            create(&directory, &settings)?;
        }
        let opened = settings.open()?;
        let commits = opened.commits()?;
        Ok(FjallKv {
            shared: Arc::new(Shared(RwLock::new(Some(opened)))),
            directory,
            settings,
            commits,
            marked: None,
            failure: None,
        })
    }

    /// Number of the last commit.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Bytes that the database takes on disk.
    pub fn disk_bytes(&self) -> Result<u64, KvError> {
        self.shared
            .with(|opened| opened.database.disk_space().map_err(fjall_error))
    }

    fn check_free_space(&self) -> Result<(), KvError> {
        let path = self.directory.path();
        let stat = rustix::fs::statvfs(path).map_err(|error| {
            KvError(format!("free space of {}: {error}", path.display()).into())
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.settings.min_free_bytes {
            let (path, reserve) = (path.display(), self.settings.min_free_bytes);
            return Err(KvError(
                format!(
                    "disk full: {free} bytes are free under {path}, {reserve} are kept in reserve"
                )
                .into(),
            ));
        }
        Ok(())
    }

    fn try_commit(&self, writes: &Writes, number: u64) -> Result<(), KvError> {
        self.shared.with(|opened| {
            opened.wait_for_flushes()?;
            opened.write(writes, number, self.settings.persist)
        })
    }

    /// Prepares for opening the database again: what is there now is what a failed commit must leave.
    fn fail(&mut self, writes: &Writes, reason: KvError) {
        tracing::error!(reason = %reason, "a commit failed; the database will be opened again");
        let before = |key: &Value| -> Result<_, KvError> { Ok((key.clone(), self.get(key)?)) };
        let repair = writes
            .keys()
            .map(before)
            .collect::<Result<Writes, KvError>>();
        let repair = repair.unwrap_or_else(|error| {
            tracing::error!(reason = %error, "the failed commit cannot be taken back should it have reached the disk");
            Writes::new()
        });
        self.failure = Some(Failure {
            reason,
            repair,
            last_attempt: None,
        });
    }

    /// Opens the database again after a failure, at most once in [`REOPEN_INTERVAL`].
    fn heal(&mut self) -> Result<(), KvError> {
        let Some(failure) = &mut self.failure else {
            return Ok(());
        };
        if failure
            .last_attempt
            .is_some_and(|last| last.elapsed() < REOPEN_INTERVAL)
        {
            return Err(failure.reason.clone());
        }
        failure.last_attempt = Some(Instant::now());
        // Waits for readers; those that come later find the database closed or open, nothing between.
        let mut shared = self
            .shared
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *shared = None;
        let opened = self.settings.open()?;
        let found = opened.commits()?;
        if found < self.commits {
            let missing = self.commits - found;
            tracing::error!(
                missing,
                "acknowledged commits are missing after the database was opened again"
            );
        }
        if found > self.commits {
            opened.write(&failure.repair, found + 1, self.settings.persist)?;
            self.commits = found + 1;
        }
        tracing::info!(commits = self.commits, "the database is open again");
        *shared = Some(opened);
        drop(shared);
        self.failure = None;
        Ok(())
    }

    fn mark_now_and_then(&mut self) {
        if self
            .marked
            .is_none_or(|(_, at)| at.elapsed() >= MARK_INTERVAL)
        {
            self.mark(false);
        }
    }

    fn mark(&mut self, clean: bool) {
        if let Err(error) = self.directory.write_mark(Mark {
            commits: self.commits,
            clean,
        }) {
            tracing::warn!(reason = %error, "the progress of commits could not be noted");
        }
        self.marked = Some((self.commits, Instant::now()));
    }
}

impl View for FjallKv {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.shared
            .with(|opened| opened.keyspace.get(key).map_err(fjall_error))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.shared
            .with(|opened| scan(opened.keyspace.range::<&[u8], _>(range(from, to)), visit))
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.shared.with(|opened| {
            scan(
                opened.keyspace.range::<&[u8], _>(range(from, to)).rev(),
                visit,
            )
        })
    }
}

impl Kv for FjallKv {
    type Reads = FjallReads;

    fn prepare(&mut self) {
        if self.failure.is_some() && self.check_free_space().is_ok() {
            // What is still wrong, the commit will say.
            let _ = self.heal();
        }
    }

    fn commit(&mut self, writes: &Writes) -> Result<(), KvError> {
        self.check_free_space()?;
        self.heal()?;
        let number = self.commits + 1;
        match self.try_commit(writes, number) {
            Ok(()) => {
                self.commits = number;
                self.mark_now_and_then();
                Ok(())
            }
            Err(reason) => {
                self.fail(writes, reason.clone());
                Err(reason)
            }
        }
    }

    fn reads(&self) -> FjallReads {
        FjallReads(self.shared.clone())
    }

    fn close(mut self) -> Result<(), KvError> {
        self.shared.with(|opened| {
            opened
                .database
                .persist(PersistMode::SyncAll)
                .map_err(fjall_error)
        })?;
        self.mark(true);
        // Readers find it closed from here on.
        *self
            .shared
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

/// Access from other threads.
#[derive(Debug)]
pub struct FjallReads(Arc<Shared>);

impl Reads for FjallReads {
    fn with_view<R>(
        &self,
        read: impl FnOnce(&dyn View) -> Result<R, KvError>,
    ) -> Result<R, KvError> {
        self.0.with(|opened| {
            read(&SnapshotView {
                snapshot: opened.database.snapshot(),
                keyspace: &opened.keyspace,
            })
        })
    }
}

struct SnapshotView<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
}

impl View for SnapshotView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.snapshot.get(self.keyspace, key).map_err(fjall_error)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        scan(
            self.snapshot
                .range::<&[u8], _>(self.keyspace, range(from, to)),
            visit,
        )
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let range = range(from, to);
        let entries = self.snapshot.range::<&[u8], _>(self.keyspace, range);
        scan(entries.rev(), visit)
    }
}

impl Shared {
    fn with<R>(&self, use_it: impl FnOnce(&Opened) -> Result<R, KvError>) -> Result<R, KvError> {
        let guard: RwLockReadGuard<'_, _> = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(opened) => use_it(opened),
            None => Err(KvError(
                "the database is closed after an error of the disk".into(),
            )),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").finish_non_exhaustive()
    }
}

impl Settings {
    fn open(&self) -> Result<Opened, KvError> {
        self.open_at(self.path.clone())
    }

    fn open_at(&self, path: PathBuf) -> Result<Opened, KvError> {
        let database = Database::builder(path)
            .cache_size(self.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(2)
            .open()
            .map_err(fjall_error)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES);
        let keyspace = database.keyspace("main", options).map_err(fjall_error)?;
        Ok(Opened { keyspace, database })
    }
}

impl Opened {
    fn commits(&self) -> Result<u64, KvError> {
        let Some(bytes) = self.keyspace.get(COMMITS).map_err(fjall_error)? else {
            return Ok(0);
        };
        let number = bytes.as_ref().try_into().map(u64::from_be_bytes);
        number.map_err(|_| KvError("the number of the last commit is damaged".into()))
    }

    fn write(&self, writes: &Writes, number: u64, persist: PersistMode) -> Result<(), KvError> {
        let batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), writes.len() + 1);
        let mut batch = batch.durability(Some(persist));
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key.clone(), value.clone()),
                None => batch.remove(&self.keyspace, key.clone()),
            }
        }
        batch.insert(&self.keyspace, COMMITS, number.to_be_bytes());
        batch.commit().map_err(fjall_error)
    }

    /// Waits until the background has written enough, or fails.
    fn wait_for_flushes(&self) -> Result<(), KvError> {
        while self.keyspace.sealed_memtable_count() >= FLUSH_BACKLOG {
            // Fails if a background thread failed.
            self.database
                .persist(PersistMode::Buffer)
                .map_err(fjall_error)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn create(directory: &Directory, settings: &Settings) -> Result<(), KvError> {
    let io_error = |error: std::io::Error| KvError(error.to_string().into());
    let path = directory.new_store();
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(io_error)?;
    }
    let opened = settings.open_at(path)?;
    opened
        .database
        .persist(PersistMode::SyncAll)
        .map_err(fjall_error)?;
    drop(opened);
    directory.adopt_new_store().map_err(io_error)
}

fn range<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

fn scan(
    entries: impl Iterator<Item = fjall::Guard>,
    visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
) -> Result<(), KvError> {
    for entry in entries {
        let (key, value) = entry.into_inner().map_err(fjall_error)?;
        if visit(&key, &value).is_break() {
            break;
        }
    }
    Ok(())
}

fn fjall_error(error: fjall::Error) -> KvError {
    let text = match &error {
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        fjall::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    };
    KvError(text.into())
}
