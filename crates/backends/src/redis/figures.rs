//! What the connection to Redis has been through, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the backend was opened.
#[derive(Debug, Default)]
pub struct Figures {
    round_trips: AtomicU64,
    scripts: AtomicU64,
    retries: AtomicU64,
    unknown: AtomicU64,
    reconnects: AtomicU64,
}

/// [`Figures`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pipelines sent.
    pub round_trips: u64,
    /// Scripts in them.
    pub scripts: u64,
    /// Scripts that were sent again since their answer was lost.
    pub retries: u64,
    /// Requests that were answered as unknown.
    pub unknown: u64,
    /// Connections made after the first of each server.
    pub reconnects: u64,
}

impl Figures {
    /// The counts now.
    pub fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            round_trips: get(&self.round_trips),
            scripts: get(&self.scripts),
            retries: get(&self.retries),
            unknown: get(&self.unknown),
            reconnects: get(&self.reconnects),
        }
    }

    pub(super) fn count_round_trip(&self, scripts: usize) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.scripts.fetch_add(scripts as u64, Ordering::Relaxed);
    }

    pub(super) fn count_retries(&self, scripts: usize) {
        self.retries.fetch_add(scripts as u64, Ordering::Relaxed);
    }

    pub(super) fn count_unknown(&self, requests: usize) {
        self.unknown.fetch_add(requests as u64, Ordering::Relaxed);
    }

    pub(super) fn count_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }
}
