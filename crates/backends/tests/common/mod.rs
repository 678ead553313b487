//! Places that the suite opens backends in.

#![allow(dead_code)]

use std::sync::{Arc, Mutex};

use campanile_backends::{
    Backend, Committed, Config, Reader, Request,
    embedded::{Durability, Embedded, EmbeddedConfig},
    memory::{Disk, Memory},
    suite::Place,
};
use campanile_broker::{
    ids::Millis,
    store::{Recovery, StoreError},
};

/// A disk in memory.
#[derive(Default)]
pub struct MemoryPlace(pub Arc<Mutex<Disk>>);

/// A model that leaves its disk behind when it is dropped.
struct LeavesDisk(Option<Memory>, Arc<Mutex<Disk>>);

impl Place for MemoryPlace {
    fn open(&mut self, config: Config) -> Box<dyn Backend> {
        let disk = self.0.lock().unwrap().clone();
        Box::new(LeavesDisk(
            Some(Memory::open(disk, config).unwrap()),
            self.0.clone(),
        ))
    }
}

impl Drop for LeavesDisk {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = self.0.take().unwrap().crash(usize::MAX);
    }
}

impl Backend for LeavesDisk {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        self.0.as_mut().unwrap().commit(batch)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.as_ref().unwrap().reader()
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.0.as_mut().unwrap().recover(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A data directory.
pub struct EmbeddedPlace(pub tempfile::TempDir);

impl Default for EmbeddedPlace {
    fn default() -> EmbeddedPlace {
        EmbeddedPlace(tempfile::tempdir().unwrap())
    }
}

impl EmbeddedPlace {
    /// Settings for tests: what is tested is not the disk.
    pub fn config(&self, store: Config) -> EmbeddedConfig {
        EmbeddedConfig {
            durability: Durability::Os,
            min_free_bytes: 0,
            store,
            ..EmbeddedConfig::new(self.0.path())
        }
    }
}

impl Place for EmbeddedPlace {
    fn open(&mut self, config: Config) -> Box<dyn Backend> {
        Box::new(Embedded::open(self.config(config)).unwrap())
    }
}
