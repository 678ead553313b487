//! The recent part of a log, in memory, for clients that lag or return.

use std::collections::VecDeque;

use crate::{ids::Offset, store::LogEntry};

/// Entries at the end of a log. Bounded by entries and bytes; what falls out is read from the store.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    /// Everything after this place is in `entries`.
    start: Offset,
    /// Place of the last entry of the log.
    end: Offset,
}

impl Tail {
    /// A tail of a log that ends at `end`, with nothing of it in memory yet.
    pub fn new(end: Offset, max_entries: u32, max_bytes: u32) -> Tail {
        Tail {
            entries: VecDeque::new(),
            bytes: 0,
            max_entries: max_entries as usize,
            max_bytes: max_bytes as usize,
            start: end,
            end,
        }
    }

    /// Place of the last entry of the log.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Takes the entry after `previous`. If an announcement was missed, what came before is forgotten: the store has it.
    pub fn push(&mut self, previous: Offset, entry: LogEntry) {
        if previous != self.end {
            self.entries.clear();
            self.bytes = 0;
            self.start = previous;
        }
        self.end = entry.offset;
        self.bytes += entry.message.size_bytes();
        self.entries.push_back(entry);
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.size_bytes();
            self.start = oldest.offset;
        }
    }

    /// Whether everything after a place is in memory.
    pub fn covers(&self, after: Offset) -> bool {
        after >= self.start
    }

    /// How many entries in memory come after a place.
    pub fn count_after(&self, after: Offset) -> usize {
        self.entries.len() - self.entries.partition_point(|entry| entry.offset <= after)
    }

    /// Up to `limit` entries after a place that it [covers](Tail::covers).
    pub fn after(&self, after: Offset, limit: usize) -> impl Iterator<Item = &LogEntry> {
        let from = self.entries.partition_point(|entry| entry.offset <= after);
        self.entries.range(from..).take(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ids::MessageId,
        message::{Kind, Message},
    };

    fn entry(offset: u64) -> LogEntry {
        let message = Message::new(MessageId(offset.into()), Kind::Publish, "t", &[], &[0; 9]);
        LogEntry {
            offset: Offset(offset),
            message: Arc::new(message),
        }
    }

    fn offsets(tail: &Tail, after: u64) -> Vec<u64> {
        tail.after(Offset(after), 100)
            .map(|entry| entry.offset.0)
            .collect()
    }

    #[test]
    fn keeps_the_newest_and_knows_what_it_lost() {
        let mut tail = Tail::new(Offset(10), 3, 1000);
        assert!(tail.covers(Offset(10)) && !tail.covers(Offset(9)));
        for (previous, offset) in [(10, 12), (12, 13), (13, 17), (17, 18)] {
            tail.push(Offset(previous), entry(offset));
        }
        assert_eq!(offsets(&tail, 12), [13, 17, 18]);
        assert_eq!(offsets(&tail, 14), [17, 18]);
        assert!(tail.covers(Offset(12)) && !tail.covers(Offset(11)));
        assert_eq!(tail.end(), Offset(18));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut tail = Tail::new(Offset(0), 100, 25);
        for offset in 1..=4 {
            tail.push(Offset(offset - 1), entry(offset));
        }
        assert_eq!(offsets(&tail, 2), [3, 4]);
        assert!(!tail.covers(Offset(1)));
    }

    #[test]
    fn a_missed_announcement_empties_it() {
        let mut tail = Tail::new(Offset(0), 100, 1000);
        tail.push(Offset(0), entry(1));
        tail.push(Offset(5), entry(6));
        assert_eq!(offsets(&tail, 5), [6]);
        assert!(!tail.covers(Offset(1)));
    }
}
