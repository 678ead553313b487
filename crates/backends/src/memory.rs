//! The model: everything in memory, with faults on request.
//!
//! [`Disk`] is what survives a crash. By default a commit is on it at once; with [`Memory::hold_syncs`] the latest commits can be lost, as on
//! a machine that loses power before an `fsync`.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, PoisonError, RwLock},
};

use campanile_broker::{
    ids::{Millis, Offset},
    store::{Recovery, StoreError},
};

use crate::{
    Backend, Committed, Config, Engine, Reader, Request,
    engine::{Kv, KvError, Reads, Value, View, Writes},
};

type Tree = BTreeMap<Value, Value>;
/// What the keys of a commit held before it.
type Before = Vec<(Value, Option<Value>)>;

/// What is on disk. Clones share their content until one is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk(Arc<Tree>);

impl Disk {
    /// All keys and values in order.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()))
    }
}

impl Disk {
    /// Number of records.
    pub fn records(&self) -> usize {
        self.0.len()
    }
}

/// A backend that keeps everything in memory.
#[derive(Debug)]
pub struct Memory(Engine<MemoryKv>);

impl Memory {
    /// An empty one.
    pub fn new(config: Config) -> Memory {
        Memory::open(Disk::default(), config).expect("an empty store has no damaged records")
    }

    /// One that goes on with what is on a disk.
    pub fn open(disk: Disk, config: Config) -> Result<Memory, KvError> {
        let kv = MemoryKv {
            tree: Arc::new(RwLock::new(disk.0)),
            unsynced: None,
            failing: None,
        };
        Ok(Memory(Engine::open(kv, config)?))
    }

    /// What is on disk now, commits that are not synced included.
    pub fn disk(&self) -> Disk {
        Disk(
            self.0
                .kv()
                .tree
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }

    /// Until further notice every commit that has to write fails for this reason; with `None` they succeed again.
    pub fn fail_commits(&mut self, reason: Option<&str>) {
        self.0.kv_mut().failing = reason.map(|reason| KvError(reason.into()));
    }

    /// From now on commits can be lost by [`crash`](Memory::crash) until [`sync`](Memory::sync).
    pub fn hold_syncs(&mut self) {
        self.0.kv_mut().unsynced.get_or_insert_default();
    }

    /// Makes the commits so far safe from [`crash`](Memory::crash).
    pub fn sync(&mut self) {
        if let Some(unsynced) = &mut self.0.kv_mut().unsynced {
            unsynced.clear();
        }
    }

    /// Commits that a crash may lose.
    pub fn unsynced(&self) -> usize {
        self.0.kv().unsynced.as_ref().map_or(0, Vec::len)
    }

    /// The last place that was given.
    pub fn place(&self) -> Offset {
        Offset(self.0.sequence())
    }

    /// The node dies: what is on disk when of the commits that were not synced only the first `keep` are.
    pub fn crash(self, keep: usize) -> Disk {
        let kv = self.0.into_kv();
        let mut tree = kv
            .tree
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut unsynced = kv.unsynced.unwrap_or_default();
        if keep < unsynced.len() {
            let tree = Arc::make_mut(&mut tree);
            for before in unsynced.drain(keep..).rev() {
                for (key, value) in before {
                    set(tree, key, value);
                }
            }
        }
        Disk(tree)
    }
}

impl Backend for Memory {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        self.0.commit(batch)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.0.recover(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Ordered map in memory.
#[derive(Debug)]
struct MemoryKv {
    tree: Arc<RwLock<Arc<Tree>>>,
    /// How to undo the commits since the last sync, if they are held.
    unsynced: Option<Vec<Before>>,
    failing: Option<KvError>,
}

impl View for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        View::get(
            self.tree
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref(),
            key,
        )
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        View::scan(
            self.tree
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref(),
            from,
            to,
            visit,
        )
    }
}

impl View for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        for (key, value) in self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Kv for MemoryKv {
    type Reads = MemoryReads;

    fn commit(&mut self, writes: &Writes) -> Result<(), KvError> {
        if let Some(reason) = &self.failing {
            return Err(reason.clone());
        }
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let tree = Arc::make_mut(&mut tree);
        let mut before = Vec::new();
        for (key, value) in writes {
            let old = set(tree, key.clone(), value.clone());
            if self.unsynced.is_some() {
                before.push((key.clone(), old));
            }
        }
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.push(before);
        }
        Ok(())
    }

    fn reads(&self) -> MemoryReads {
        MemoryReads(self.tree.clone())
    }

    fn close(self) -> Result<(), KvError> {
        Ok(())
    }
}

/// Access from other threads.
#[derive(Debug)]
struct MemoryReads(Arc<RwLock<Arc<Tree>>>);

impl Reads for MemoryReads {
    fn with_view<R>(
        &self,
        read: impl FnOnce(&dyn View) -> Result<R, KvError>,
    ) -> Result<R, KvError> {
        let tree = self.0.read().unwrap_or_else(PoisonError::into_inner);
        read(tree.as_ref())
    }
}

fn set(tree: &mut Tree, key: Value, value: Option<Value>) -> Option<Value> {
    match value {
        Some(value) => tree.insert(key, value),
        None => tree.remove(&key),
    }
}
