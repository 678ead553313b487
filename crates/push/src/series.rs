//! A push's receipts over time, in a bounded number of buckets.

use std::collections::BTreeMap;

use crate::receipt::Mark;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Minutes at the beginning of a push that have a bucket each: most devices that are connected have it by then.
pub const MINUTES: u16 = 180;
/// All buckets: after the minutes one per hour, until the longest time to live (28 days) and a day for late receipts. What comes later counts in the last.
pub const BUCKETS: u16 = MINUTES + 29 * 24 - MINUTES / 60;

/// Counts of new receipts per bucket. Exact as long as only what was [new](crate::receipt::Receipts::merge) to the sets is recorded, in the same commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    buckets: BTreeMap<(u16, Mark), u64>,
}

/// A bucket: a stretch of time from a push's acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Milliseconds since acceptance.
    pub from_ms: u64,
    /// Milliseconds that it covers.
    pub width_ms: u64,
    /// What was new in it.
    pub counts: BTreeMap<Mark, u64>,
}

/// The bucket of a time, given as milliseconds since acceptance; below [`BUCKETS`].
pub fn bucket_of(since_accepted_ms: u64) -> u16 {
    let bucket = match since_accepted_ms / MINUTE_MS {
        minute if minute < u64::from(MINUTES) => minute,
        minute => u64::from(MINUTES - MINUTES / 60) + minute / 60,
    };
    u16::try_from(bucket).unwrap_or(u16::MAX).min(BUCKETS - 1)
}

/// Where a bucket begins and how long it is, in milliseconds since acceptance.
fn extent(bucket: u16) -> (u64, u64) {
    match bucket {
        minute if minute < MINUTES => (u64::from(minute) * MINUTE_MS, MINUTE_MS),
        bucket => (
            u64::from(bucket - MINUTES + MINUTES / 60) * HOUR_MS,
            HOUR_MS,
        ),
    }
}

impl Series {
    /// Takes a bucket's count from a store.
    pub fn load(&mut self, bucket: u16, mark: Mark, count: u64) {
        *self
            .buckets
            .entry((bucket.min(BUCKETS - 1), mark))
            .or_default() += count;
    }

    /// All counts by bucket.
    fn buckets(&self) -> impl Iterator<Item = (u16, Mark, u64)> {
        self.buckets
            .iter()
            .map(|(&(bucket, mark), &count)| (bucket, mark, count))
    }

    /// The buckets in which something was new, in order.
    pub fn points(&self) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        for (bucket, mark, count) in self.buckets() {
            let (from_ms, width_ms) = extent(bucket);
            match points.last_mut() {
                Some(point) if point.from_ms == from_ms => drop(point.counts.insert(mark, count)),
                _ => points.push(Point {
                    from_ms,
                    width_ms,
                    counts: [(mark, count)].into(),
                }),
            }
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn minutes_first_then_hours_and_an_end() {
        let minute = MINUTE_MS;
        for (ms, bucket) in [
            (0, 0),
            (minute - 1, 0),
            (minute, 1),
            (180 * minute - 1, 179),
            (180 * minute, 180),
            (240 * minute - 1, 180),
            (240 * minute, 181),
            (29 * 24 * HOUR_MS - 1, BUCKETS - 1),
            (u64::MAX, BUCKETS - 1),
        ] {
            assert_eq!(bucket_of(ms), bucket, "{ms}");
        }
    }

    #[test]
    fn points_are_in_order_and_hold_what_was_counted() {
        let mut series = Series::default();
        series.load(bucket_of(61_000), Mark::Delivered, 3);
        series.load(bucket_of(0), Mark::Displayed, 9);
        series.load(bucket_of(0), Mark::Delivered, 1);
        series.load(bucket_of(5), Mark::Delivered, 2);
        let points = series.points();
        assert_eq!(points.len(), 2);
        assert_eq!(
            points[0].counts,
            [(Mark::Displayed, 9), (Mark::Delivered, 3)].into()
        );
        assert_eq!((points[1].from_ms, points[1].width_ms), (60_000, 60_000));
    }

    proptest! {
        #[test]
        fn a_time_lies_within_its_bucket(ms in 0..29 * 24 * HOUR_MS) {
            let (from, width) = extent(bucket_of(ms));
            prop_assert!((from..from + width).contains(&ms));
        }
    }
}
