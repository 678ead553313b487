//! The time that shards see.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use campanile_broker::ids::Millis;

/// A clock that is ahead of the cluster's runs slower by this part until they agree.
const SLOWER: f64 = 0.1;
/// Differences below this are noise of the network.
const NOISE: Duration = Duration::from_millis(20);

/// Unix time that never runs backwards: read once at start, then carried on by the monotonic clock. In a cluster it is set by the store's. Clones are the
/// same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    unix_at_start: Duration,
    start: Instant,
    anchor: Arc<ArcSwap<Anchor>>,
}

/// What the clock has shown, and how fast it has run since.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    moment: Instant,
    unix: Duration,
    speed: f64,
}

impl Clock {
    /// Starts a clock at the system's time.
    pub fn start() -> Clock {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let moment = Instant::now();
        let anchor = Anchor {
            moment,
            unix,
            speed: 1.0,
        };
        Clock {
            unix_at_start: unix,
            start: moment,
            anchor: Arc::new(ArcSwap::from_pointee(anchor)),
        }
    }

    /// The current time.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The time of a moment not before the start.
    pub fn at(&self, moment: Instant) -> Millis {
        Millis(self.unix_at(moment).as_millis() as u64)
    }

    fn unix_at(&self, moment: Instant) -> Duration {
        let anchor = self.anchor.load();
        let passed = moment.saturating_duration_since(anchor.moment);
        anchor.unix
            + match anchor.speed {
                1.0 => passed,
                speed => passed.mul_f64(speed),
            }
    }

    /// Follows another clock, which shows this at a moment: at once if this one is behind, by running slower if it is ahead.
    pub fn follow(&self, moment: Instant, other: Duration) {
        let unix = self.unix_at(moment);
        let anchor = if other > unix + NOISE {
            Anchor {
                moment,
                unix: other,
                speed: 1.0,
            }
        } else {
            let speed = match unix > other + NOISE {
                true => 1.0 - SLOWER,
                false => 1.0,
            };
            Anchor {
                moment,
                unix,
                speed,
            }
        };
        self.anchor.store(Arc::new(anchor));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_follows_another_without_running_backwards() {
        let clock = Clock::start();
        let seconds = Duration::from_secs;
        let start = clock.start;
        let began = clock.at(start).0;
        clock.follow(start + seconds(1), clock.started() + seconds(11));
        assert_eq!(clock.at(start + seconds(1)).0, began + 11_000);
        assert_eq!(clock.at(start + seconds(2)).0, began + 12_000);
        // The other one says that it is ahead by one second: it loses that within ten.
        clock.follow(start + seconds(2), clock.started() + seconds(11));
        assert_eq!(clock.at(start + seconds(2)).0, began + 12_000);
        assert_eq!(clock.at(start + seconds(12)).0, began + 21_000);
        clock.follow(start + seconds(12), clock.started() + seconds(21));
        assert_eq!(clock.at(start + seconds(13)).0, began + 22_000);
    }
}
