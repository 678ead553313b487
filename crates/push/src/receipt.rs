//! What is known of a push's devices: sets, not counters.
//!
//! A mark is set for a device by OR, so that a crash that repeats a write, or a device that reports twice, changes nothing: a count is the size of
//! a set, and a retry cannot count twice. Sets are over device numbers, small integers within the app; a store may keep them in
//! chunks and look at one chunk at a time.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::Serialize;

/// Why a device that was targeted will not get a push, by a rule that is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Its inbox was full: the least urgent entry goes, of those the oldest.
    InboxFull,
    /// The app's stored bytes were used up.
    StoredBytes,
    /// It had as many pushes as its frequency cap allows.
    FrequencyCap,
    /// It matched when the push was made, and no longer when it was its turn: a tag was removed, or a muting one set.
    LeftAudience,
    /// It was away for so long that the log no longer has the push.
    LogTrimmed,
    /// It was deleted before it got it.
    DeviceDeleted,
    /// Its turn was in its quiet hours, and the push does not wait for their end.
    QuietHours,
    /// Its clock had shown the local time already, and such devices are skipped.
    LocalTimePast,
}

/// Why a device could not take a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// Larger than the maximum packet size that its client announced.
    TooLarge,
    /// It answered with an error.
    Refused,
}

/// A thing that can be true of a device and a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// The push is for it.
    Targeted,
    /// It acknowledged the push.
    Delivered,
    /// It showed it.
    Displayed,
    /// A person opened it.
    Clicked,
    /// A person wiped it away.
    Dismissed,
    /// The push's time ran out before it got it. Only where somebody looked; for the others the time itself says so.
    Expired,
    /// A newer push with the same collapse key replaced it.
    Collapsed,
    /// Cancelled or recalled before it got it. Only where somebody looked; for the others the end of the push says so.
    Recalled,
    /// Dropped by a rule.
    Dropped(DropReason),
    /// It could not take it.
    Failed(FailReason),
}

impl Mark {
    /// Every mark.
    pub const ALL: [Mark; 18] = [
        Mark::Targeted,
        Mark::Delivered,
        Mark::Displayed,
        Mark::Clicked,
        Mark::Dismissed,
        Mark::Expired,
        Mark::Collapsed,
        Mark::Recalled,
        Mark::Dropped(DropReason::InboxFull),
        Mark::Dropped(DropReason::StoredBytes),
        Mark::Dropped(DropReason::FrequencyCap),
        Mark::Dropped(DropReason::LeftAudience),
        Mark::Dropped(DropReason::LogTrimmed),
        Mark::Dropped(DropReason::DeviceDeleted),
        Mark::Dropped(DropReason::QuietHours),
        Mark::Dropped(DropReason::LocalTimePast),
        Mark::Failed(FailReason::TooLarge),
        Mark::Failed(FailReason::Refused),
    ];

    /// The number that stands for it in a store; never used for anything else again. 0, 1 and 2 are those of the first release.
    pub fn code(self) -> u8 {
        match self {
            Mark::Targeted => 0,
            Mark::Delivered => 1,
            Mark::Dropped(DropReason::InboxFull) => 2,
            Mark::Displayed => 3,
            Mark::Clicked => 4,
            Mark::Dismissed => 5,
            Mark::Expired => 6,
            Mark::Collapsed => 7,
            Mark::Recalled => 8,
            Mark::Dropped(DropReason::StoredBytes) => 16,
            Mark::Dropped(DropReason::FrequencyCap) => 17,
            Mark::Dropped(DropReason::LeftAudience) => 18,
            Mark::Dropped(DropReason::LogTrimmed) => 19,
            Mark::Dropped(DropReason::DeviceDeleted) => 20,
            Mark::Dropped(DropReason::QuietHours) => 21,
            Mark::Dropped(DropReason::LocalTimePast) => 22,
            Mark::Failed(FailReason::TooLarge) => 32,
            Mark::Failed(FailReason::Refused) => 33,
        }
    }

    /// The mark of a number, or `None` for one that a later version wrote.
    pub fn from_code(code: u8) -> Option<Mark> {
        Mark::ALL.into_iter().find(|mark| mark.code() == code)
    }
}

/// The sets of a push, or of one chunk of its devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receipts {
    sets: BTreeMap<Mark, RoaringBitmap>,
}

impl Receipts {
    /// Sets a mark of a device; false if it was set.
    pub fn add(&mut self, mark: Mark, device: u32) -> bool {
        self.sets.entry(mark).or_default().insert(device)
    }

    /// ORs a whole set in, and returns how many devices were new to it.
    pub fn add_all(&mut self, mark: Mark, devices: &RoaringBitmap) -> u64 {
        if devices.is_empty() {
            return 0;
        }
        let set = self.sets.entry(mark).or_default();
        let before = set.len();
        *set |= devices;
        set.len() - before
    }

    /// ORs other sets in. Returns, per mark, how many devices were new to it: what a [series](crate::series::Series) may count, as a repeat
    /// brings nothing new.
    pub fn merge(&mut self, other: &Receipts) -> BTreeMap<Mark, u64> {
        let mut new = BTreeMap::new();
        for (mark, devices) in &other.sets {
            match self.add_all(*mark, devices) {
                0 => {}
                count => drop(new.insert(*mark, count)),
            }
        }
        new
    }

    /// Whether a device has a mark.
    pub fn has(&self, mark: Mark, device: u32) -> bool {
        self.sets.get(&mark).is_some_and(|set| set.contains(device))
    }

    /// The devices with a mark, or `None` for nobody.
    pub fn set(&self, mark: Mark) -> Option<&RoaringBitmap> {
        self.sets.get(&mark)
    }

    /// All sets that are not empty.
    pub fn sets(&self) -> impl Iterator<Item = (Mark, &RoaringBitmap)> {
        self.sets.iter().map(|(mark, set)| (*mark, set))
    }
}

impl FromIterator<(Mark, RoaringBitmap)> for Receipts {
    fn from_iter<I: IntoIterator<Item = (Mark, RoaringBitmap)>>(sets: I) -> Receipts {
        let mut receipts = Receipts::default();
        for (mark, set) in sets {
            receipts.add_all(mark, &set);
        }
        receipts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_go_both_ways() {
        let codes: BTreeSet<u8> = Mark::ALL.into_iter().map(Mark::code).collect();
        assert_eq!(codes.len(), Mark::ALL.len());
        for mark in Mark::ALL {
            assert_eq!(Mark::from_code(mark.code()), Some(mark));
        }
        assert_eq!(Mark::from_code(255), None);
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut receipts = Receipts::default();
        assert!(receipts.add(Mark::Delivered, 7));
        assert!(!receipts.add(Mark::Delivered, 7));
        let more: Receipts = [(Mark::Delivered, [7, 8, 9].into_iter().collect())]
            .into_iter()
            .collect();
        assert_eq!(receipts.merge(&more), [(Mark::Delivered, 2)].into());
        assert_eq!(receipts.merge(&more), [].into());
        assert!(receipts.has(Mark::Delivered, 9));
        assert!(!receipts.has(Mark::Displayed, 9));
    }
}
