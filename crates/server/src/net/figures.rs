//! What a driver counts, beside its shard.

use std::time::Duration;

use campanile_broker::stats::Stats;

/// Figures of one shard and its driver, as others read them. Counters count from the start.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The shard's own.
    pub shard: Stats,
    /// The driver's.
    pub driver: DriverFigures,
}

/// Figures of a driver.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct DriverFigures {
    /// Gauges.
    pub sockets_open: u64,
    pub sockets_closing: u64,
    /// Counters.
    pub accepted: Vec<u64>,
    pub accept_errors: u64,
    pub accepts_refused: u64,
    pub accepts_delayed: u64,
    pub handovers: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub reads: u64,
    pub writes: u64,
    pub writes_blocked: u64,
    pub output_overflows: u64,
    pub congested_turns: u64,
    pub tls_handshakes: u64,
    pub tls_errors: u64,
    pub websocket_upgrades: u64,
    pub websocket_errors: u64,
    /// Work of a turn, waiting excluded.
    pub turns: Histogram,
}

/// Upper bounds of the buckets, in microseconds; there is one more for what is above.
const BOUNDS_MICROS: [u64; 17] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000,
];

/// Durations from 10 µs to 2.5 s, by bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS_MICROS.len() + 1],
    sum_nanos: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket] += 1;
        self.sum_nanos += duration.as_nanos() as u64;
    }

    /// Adds another histogram's counts.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos += other.sum_nanos;
    }

    /// Upper bounds in seconds with how many durations were not above them, ascending.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut count = 0;
        BOUNDS_MICROS
            .iter()
            .zip(self.buckets)
            .map(move |(bound, bucket)| {
                count += bucket;
                (*bound as f64 / 1e6, count)
            })
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 10, 11, 25, 9_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let first: Vec<_> = histogram.cumulative().take(3).collect();
        assert_eq!(first, [(1e-5, 2), (2.5e-5, 4), (5e-5, 4)]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(9_000_046));
    }
}
