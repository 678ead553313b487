//! Entries of a log in their order, whoever brings them.

use std::collections::BTreeMap;

use crate::ids::Offset;

/// Entries that may wait for one before them; beyond, they are read from the store again.
const MAX_EARLY: usize = 4096;

/// Puts the entries of a log, which several nodes announce, into their order without a gap.
#[derive(Debug)]
pub struct Sequencer<E> {
    end: Offset,
    early: BTreeMap<Offset, (Offset, E)>,
}

/// An entry in its turn.
#[derive(Debug, PartialEq, Eq)]
pub struct InTurn<E> {
    /// The entry before it.
    pub previous: Offset,
    /// Its place.
    pub offset: Offset,
    /// The entry.
    pub entry: E,
}

impl<E> Sequencer<E> {
    /// A log that is known up to a place.
    pub fn new(end: Offset) -> Sequencer<E> {
        Sequencer {
            end,
            early: BTreeMap::new(),
        }
    }

    /// The last entry that came in its turn.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Whether an entry waits for one that nobody has brought.
    pub fn is_waiting(&self) -> bool {
        !self.early.is_empty()
    }

    /// Goes on from another place: the store lost entries, or was read anew.
    pub fn restart(&mut self, end: Offset) {
        self.end = end;
        self.early.clear();
    }

    /// Takes an entry that somebody announces. What is in its turn now goes to `out`.
    pub fn announce(
        &mut self,
        previous: Offset,
        offset: Offset,
        entry: E,
        out: &mut Vec<InTurn<E>>,
    ) {
        if offset <= self.end {
            return;
        }
        if previous > self.end {
            if self.early.len() < MAX_EARLY {
                self.early.insert(offset, (previous, entry));
            }
            return;
        }
        self.push(offset, entry, out);
        self.release(out);
    }

    /// Takes an entry that was read from the store behind `after`, and follows what is known without a gap.
    pub fn read(&mut self, offset: Offset, entry: E, out: &mut Vec<InTurn<E>>) {
        if offset > self.end {
            self.early.remove(&offset);
            self.push(offset, entry, out);
        }
    }

    /// What waited for what has come since.
    pub fn release(&mut self, out: &mut Vec<InTurn<E>>) {
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.end && first.get().0 > self.end {
                return;
            }
            let (offset, (_, entry)) = first.remove_entry();
            if offset > self.end {
                self.push(offset, entry, out);
            }
        }
    }

    fn push(&mut self, offset: Offset, entry: E, out: &mut Vec<InTurn<E>>) {
        out.push(InTurn {
            previous: self.end,
            offset,
            entry,
        });
        self.end = offset;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(out: &[InTurn<u64>]) -> Vec<u64> {
        out.iter().map(|entry| entry.offset.0).collect()
    }

    proptest! {
        /// Announced in any order, some twice, some never: what comes out is in order, without a gap, each once.
        #[test]
        fn entries_come_out_in_their_order(
            mut order in Just((1..20u64).collect::<Vec<_>>()).prop_shuffle(),
            missing in proptest::collection::btree_set(1..20u64, 0..4),
            twice in proptest::collection::vec(1..20u64, 0..4),
        ) {
            order.extend(twice);
            order.retain(|place| !missing.contains(place));
            let mut sequencer = Sequencer::new(Offset(0));
            let mut out = Vec::new();
            for place in order {
                sequencer.announce(Offset(place - 1), Offset(place), place, &mut out);
            }
            let first_missing = missing.first().copied().unwrap_or(20);
            prop_assert_eq!(places(&out), (1..first_missing).collect::<Vec<_>>());
            prop_assert_eq!(sequencer.is_waiting(), (first_missing + 1..20).any(|p| !missing.contains(&p)));
            // The store has them all.
            let known = sequencer.end();
            for place in known.0 + 1..20 {
                sequencer.read(Offset(place), place, &mut out);
            }
            sequencer.release(&mut out);
            prop_assert_eq!(places(&out), (1..20).collect::<Vec<_>>());
            prop_assert!(out.iter().zip(0..).all(|(entry, previous)| entry.previous.0 == previous));
            prop_assert!(!sequencer.is_waiting());
        }
    }
}
