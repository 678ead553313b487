//! The store in a data directory, for a node that needs nothing but the binary.
//!
//! One fjall database holds everything; each commit of the engine is one of its batches, written to its journal and made durable by one
//! `fdatasync`. The directory:
//!
//! - `LOCK`: held by the process that uses the directory; names it.
//! - `FORMAT`: version of what is stored, so that an older program refuses a newer directory.
//! - `MARK`: how far commits had got about a second ago, to notice at start when the database came back with less.
//! - `store/`: the database.

mod directory;
mod kv;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use campanile_broker::{
    ids::Millis,
    store::{Recovery, StoreError},
};

use self::{directory::Directory, kv::FjallKv};
use crate::{Backend, Committed, Config, Engine, KvError, Reader, Request};

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// For the disk: what was answered survives a loss of power.
    #[default]
    Fsync,
    /// For the operating system: what was answered survives the end of the process, but not of the machine.
    Os,
}

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The data directory; made if it is not there.
    pub path: PathBuf,
    /// What a commit waits for.
    pub durability: Durability,
    /// With less space than this on the file system, commits are refused. What the database writes in the background (up to twice its
    /// write buffer of 32 MiB at a time) has to fit into it, for the database does not survive a full disk without being opened again.
    pub min_free_bytes: u64,
    /// Size of the block cache.
    pub cache_bytes: u64,
    /// Bounds and retention times.
    pub store: Config,
}

impl EmbeddedConfig {
    /// The defaults for a data directory.
    pub fn new(path: impl Into<PathBuf>) -> EmbeddedConfig {
        EmbeddedConfig {
            path: path.into(),
            durability: Durability::default(),
            min_free_bytes: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            store: Config::default(),
        }
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "data directory {path:?} is in use by {holder}; stop that process or choose another directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as far as it is known.
        holder: String,
    },
    /// A newer version of this program wrote it.
    #[error(
        "data directory {path:?} has format {found}, this program reads up to format {supported}; use the newer version again"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program reads.
        supported: u32,
    },
    /// An older version wrote it, and it lacks what this one goes by.
    #[error(
        "data directory {path:?} has format {found}, this program reads format {supported} only; use the version that wrote it, or a new directory"
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this program reads.
        supported: u32,
    },
    /// It holds something else.
    #[error("{path:?} is no data directory: {reason}; choose an empty one")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The database cannot be read.
    #[error(
        "the database in {path:?} cannot be opened: {reason}; restore the data directory from a backup"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system refuses.
    #[error("data directory {path:?}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// What opening a data directory found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Commits since the directory was made.
    pub commits: u64,
    /// The last sequence number of entries.
    pub sequence: u64,
    /// The last run closed the directory in order.
    pub clean: bool,
    /// Commits that were there when the last run noted how far it was and that are gone; anything but 0 means that acknowledged data is lost.
    pub missing_commits: u64,
}

/// The store in a data directory.
#[derive(Debug)]
pub struct Embedded {
    engine: Engine<FjallKv>,
    opened: Opened,
}

impl Embedded {
    /// Opens a data directory, or makes one.
    pub fn open(config: EmbeddedConfig) -> Result<Embedded, OpenError> {
        let started = Instant::now();
        let directory = Directory::open(&config.path)?;
        let mark = directory.read_mark();
        let damaged = |error: KvError| OpenError::Damaged {
            path: config.path.clone(),
            reason: error.to_string(),
        };
        let kv = FjallKv::open(directory, &config).map_err(damaged)?;
        let commits = kv.commits();
        let engine = Engine::open(kv, config.store.clone()).map_err(damaged)?;
        let opened = Opened {
            commits,
            sequence: engine.sequence(),
            clean: mark.is_some_and(|mark| mark.clean && mark.commits == commits),
            missing_commits: mark.map_or(0, |mark| mark.commits.saturating_sub(commits)),
        };
        if opened.missing_commits > 0 {
            tracing::error!(
                path = %config.path.display(),
                commits,
                missing = opened.missing_commits,
                "the journal was cut: acknowledged commits are missing"
            );
        }
        tracing::info!(
            path = %config.path.display(),
            commits,
            sequence = opened.sequence,
            clean = opened.clean,
            elapsed_ms = started.elapsed().as_millis() as u64,
            "store opened"
        );
        Ok(Embedded { engine, opened })
    }

    /// What opening found.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Bytes that the store takes on disk.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.engine.kv().disk_bytes()?)
    }
}

impl Backend for Embedded {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        self.engine.commit(batch)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.engine.reader()
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.engine.recover(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.engine).close()
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    |source| OpenError::Io {
        path: path.to_owned(),
        source,
    }
}
