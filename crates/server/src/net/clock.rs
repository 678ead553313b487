//! The time that shards see.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use campanile_broker::ids::Millis;

/// Unix time that never runs backwards: read once at start, then carried on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unix_at_start: Duration,
    start: Instant,
}

impl Clock {
    /// Starts a clock at the system's time.
    pub fn start() -> Clock {
        Clock {
            unix_at_start: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            start: Instant::now(),
        }
    }

    /// The current time.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The time of a moment not before the start.
    pub fn at(&self, moment: Instant) -> Millis {
        let since_start = moment.saturating_duration_since(self.start);
        Millis((self.unix_at_start + since_start).as_millis() as u64)
    }

    /// Unix time of the start.
    pub fn started(&self) -> Duration {
        self.unix_at_start
    }

    /// How long the clock has run.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
