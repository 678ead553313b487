//! What a store keeps beside the rest that several nodes share: whose each connection is, what all nodes must know, and what waits for one of them.
//!
//! Places and epochs follow the clock here, so that those which a failover of the store loses are not given again to something else.

mod changes;
mod connections;
mod mailbox;
pub mod read;
mod records;

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use campanile_broker::ids::{Generation, Millis, Offset};

use super::kv::KvError;

pub use self::{changes::last_change, connections::load_ephemeral};

/// What the engine and its readers tell each other beside what is committed.
#[derive(Debug, Default)]
pub struct WithReaders {
    clock_ms: AtomicU64,
    /// Notes that their node has seen. They go with the next note, since a reader does not write.
    seen_notes: Mutex<HashMap<Generation, Offset>>,
}

impl WithReaders {
    /// The latest time that a command brought.
    pub fn clock(&self) -> Millis {
        Millis(self.clock_ms.load(Ordering::Acquire))
    }

    /// Brings the clock forward.
    pub fn advance_clock(&self, now: Millis) {
        self.clock_ms.fetch_max(now.0, Ordering::AcqRel);
    }

    /// A node has seen the notes up to this one. Returns up to where it ever did.
    fn see_notes(&self, generation: Generation, up_to: Offset) -> Offset {
        let mut seen = self
            .seen_notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(generation).or_default();
        *known = up_to.max(*known);
        *known
    }

    fn seen_notes(&self, generation: Generation) -> Offset {
        let seen = self
            .seen_notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.get(&generation).copied().unwrap_or_default()
    }

    fn forget_node(&self, generation: Generation) {
        let mut seen = self
            .seen_notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.remove(&generation);
    }
}

/// The least place or epoch that is given at a time.
pub fn first_number_at(clock: Millis) -> u64 {
    /// Numbers of a millisecond. JSON's and Lua's numbers end at 2^53, which leaves room beyond the year 2030.
    const BITS: u32 = 12;
    clock.0 << BITS
}

/// The answer to what only nodes of a cluster ask.
pub fn no_cluster() -> KvError {
    KvError("this store serves one node alone".into())
}
