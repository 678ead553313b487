//! What was sent against what arrived, exactly.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use serde::Serialize;

/// Arrivals of many streams, each a sequence 0..`expected` from one source to one receiver.
pub struct Account {
    expected: u64,
    /// Per stream, the number after the highest that arrived.
    next: Vec<u64>,
    /// Per stream, numbers below `next` that have not arrived. Streams without gaps have no entry.
    missing: HashMap<usize, BTreeSet<u64>>,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    stray: u64,
}

/// What one arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Not seen before: it counts as delivered.
    New,
    /// Not seen before, but later ones of its stream were.
    Late,
    /// Seen before.
    Duplicate,
    /// A number or stream that was never sent.
    Stray,
}

impl Account {
    /// An account of `streams` streams of `expected` messages each.
    pub fn new(streams: usize, expected: u64) -> Account {
        Account {
            expected,
            next: vec![0; streams],
            missing: HashMap::new(),
            duplicated: 0,
            reordered: 0,
            corrupted: 0,
            stray: 0,
        }
    }

    /// Books the arrival of number `sequence` of `stream`.
    pub fn arrived(&mut self, stream: usize, sequence: u64) -> Arrival {
        let Some(next) = self.next.get_mut(stream) else {
            return self.stray();
        };
        if sequence >= self.expected {
            return self.stray();
        }
        if sequence == *next {
            *next += 1;
            return Arrival::New;
        }
        if sequence > *next {
            self.missing
                .entry(stream)
                .or_default()
                .extend(*next..sequence);
            *next = sequence + 1;
            return Arrival::New;
        }
        let was_missing = self
            .missing
            .get_mut(&stream)
            .is_some_and(|numbers| numbers.remove(&sequence));
        if was_missing {
            self.reordered += 1;
            Arrival::Late
        } else {
            self.duplicated += 1;
            Arrival::Duplicate
        }
    }

    /// Whether number `sequence` of `stream` has arrived.
    pub fn has(&self, stream: usize, sequence: u64) -> bool {
        let passed = self.next.get(stream).is_some_and(|next| sequence < *next);
        let is_gap = |numbers: &BTreeSet<u64>| numbers.contains(&sequence);
        passed && !self.missing.get(&stream).is_some_and(is_gap)
    }

    /// Books a message that belongs to no stream, or came to a receiver that did not ask for it.
    pub fn stray(&mut self) -> Arrival {
        self.stray += 1;
        Arrival::Stray
    }

    /// Books a message whose content is not what was sent.
    pub fn corrupted(&mut self) {
        self.corrupted += 1;
    }

    /// The sum so far; what has not arrived counts as lost.
    pub fn tally(&self) -> Tally {
        let passed: u64 = self.next.iter().sum();
        let gaps: u64 = self.missing.values().map(|gap| gap.len() as u64).sum();
        let expected = self.expected * self.next.len() as u64;
        let delivered = passed - gaps;
        Tally {
            expected,
            delivered,
            lost: expected - delivered,
            duplicated: self.duplicated,
            reordered: self.reordered,
            corrupted: self.corrupted,
            stray: self.stray,
        }
    }
}

/// The sum of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Deliveries that the scenario calls for.
    pub expected: u64,
    /// Those that came, each counted once.
    pub delivered: u64,
    /// Those that did not come.
    pub lost: u64,
    /// Further copies of what had come already.
    pub duplicated: u64,
    /// Those that came after a later one of their stream.
    pub reordered: u64,
    /// Content that is not what was sent. Such a delivery is also lost.
    pub corrupted: u64,
    /// Messages that nobody sent, or that came to the wrong receiver.
    pub stray: u64,
}

impl Tally {
    /// Whether everything came once, in order and intact, and nothing else came.
    pub fn is_exact(&self) -> bool {
        let Tally {
            expected,
            delivered,
            ..
        } = *self;
        *self
            == Tally {
                expected,
                delivered,
                ..Tally::default()
            }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.delivered, self.expected)?;
        if self.is_exact() {
            return f.write_str(", exact");
        }
        for (count, what) in [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.corrupted, "corrupted"),
            (self.stray, "stray"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream of five messages, of which these arrive.
    fn tally(sequences: &[u64]) -> Tally {
        let mut account = Account::new(1, 5);
        for &sequence in sequences {
            account.arrived(0, sequence);
        }
        account.tally()
    }

    #[track_caller]
    fn check(sequences: &[u64], expect: Tally) {
        let expect = Tally {
            expected: 5,
            ..expect
        };
        assert_eq!(tally(sequences), expect, "{sequences:?}");
        assert!(!expect.is_exact(), "{sequences:?}");
    }

    #[test]
    fn everything_once_in_order_is_exact() {
        assert!(tally(&[0, 1, 2, 3, 4]).is_exact());
    }

    #[test]
    fn what_never_comes_is_lost_wherever_it_was() {
        for sequences in [[1, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3]] {
            check(
                &sequences,
                Tally {
                    delivered: 4,
                    lost: 1,
                    ..Tally::default()
                },
            );
        }
        check(
            &[],
            Tally {
                lost: 5,
                ..Tally::default()
            },
        );
    }

    #[test]
    fn a_late_one_is_reordered_and_not_lost() {
        check(
            &[0, 2, 1, 3, 4],
            Tally {
                delivered: 5,
                reordered: 1,
                ..Tally::default()
            },
        );
        check(
            &[4, 3, 2, 1, 0],
            Tally {
                delivered: 5,
                reordered: 4,
                ..Tally::default()
            },
        );
    }

    #[test]
    fn a_second_copy_is_a_duplicate_even_of_a_late_one() {
        check(
            &[0, 2, 1, 1, 3, 4, 0],
            Tally {
                delivered: 5,
                reordered: 1,
                duplicated: 2,
                ..Tally::default()
            },
        );
    }

    #[test]
    fn a_copy_does_not_make_up_for_a_loss() {
        check(
            &[0, 1, 1, 3, 4],
            Tally {
                delivered: 4,
                lost: 1,
                duplicated: 1,
                ..Tally::default()
            },
        );
    }

    #[test]
    fn numbers_and_streams_that_do_not_exist_are_stray() {
        check(
            &[0, 1, 2, 3, 4, 5],
            Tally {
                delivered: 5,
                stray: 1,
                ..Tally::default()
            },
        );
        let mut account = Account::new(1, 1);
        assert_eq!(account.arrived(1, 0), Arrival::Stray);
    }

    #[test]
    fn streams_are_counted_apart() {
        let mut account = Account::new(2, 2);
        for (stream, sequence) in [(0, 0), (1, 0), (1, 1), (0, 0)] {
            account.arrived(stream, sequence);
        }
        let tally = account.tally();
        assert_eq!(
            (tally.delivered, tally.lost, tally.duplicated),
            (3, 1, 1),
            "{tally}"
        );
    }

    #[test]
    fn corruption_alone_is_not_exact() {
        let mut account = Account::new(1, 1);
        account.arrived(0, 0);
        assert!(account.tally().is_exact());
        account.corrupted();
        assert!(!account.tally().is_exact());
    }
}
