//! What became of a push, in numbers that add up.
//!
//! `targeted = delivered + pending + expired + collapsed + recalled + dropped(reason..) + failed(reason..)`: every targeted device is in
//! exactly one outcome. Sets have no order in time, so that where several marks of a device are set, a fixed precedence decides:
//!
//! 1. *delivered*. Nothing that happens later undoes it, and nothing that was written before is truer. A device that reports *displayed*, *clicked* or
//!    *dismissed* has it, also if its acknowledgement was lost.
//! 2. *failed*, then *dropped*, then *collapsed*: what happened to this device in particular, the most particular first.
//! 3. *recalled*, then *expired*: what happened to the push as a whole.
//! 4. For the rest, the time: *recalled* if the push was ended before its time, *expired* if its time is up, *pending* otherwise.
//!
//! *displayed*, *clicked* and *dismissed* are a second layer, over the delivered: a click or a dismissal counts as displayed too, as nobody clicks what
//! was not shown.

use std::{collections::BTreeMap, ops::AddAssign};

use roaring::RoaringBitmap;
use serde::Serialize;

use crate::receipt::{DropReason, FailReason, Mark, Receipts};

/// The marks that say that a device has the push.
const HAVING: [Mark; 4] = [
    Mark::Delivered,
    Mark::Displayed,
    Mark::Clicked,
    Mark::Dismissed,
];

/// The marks that say why a device has not got a push, the one that wins first.
pub const PRECEDENCE: [Mark; 13] = [
    Mark::Failed(FailReason::TooLarge),
    Mark::Failed(FailReason::Refused),
    Mark::Dropped(DropReason::InboxFull),
    Mark::Dropped(DropReason::StoredBytes),
    Mark::Dropped(DropReason::FrequencyCap),
    Mark::Dropped(DropReason::LeftAudience),
    Mark::Dropped(DropReason::LogTrimmed),
    Mark::Dropped(DropReason::DeviceDeleted),
    Mark::Dropped(DropReason::QuietHours),
    Mark::Dropped(DropReason::LocalTimePast),
    Mark::Collapsed,
    Mark::Recalled,
    Mark::Expired,
];

/// The times of a push, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Accepted.
    pub accepted_ms: u64,
    /// Its time is up; equal to `accepted_ms` for now or never.
    pub expires_ms: u64,
    /// Cancelled or recalled.
    pub ended_ms: Option<u64>,
}

impl Life {
    /// What becomes of a device about which nothing was written.
    fn rest(&self, now_ms: u64) -> Outcome {
        match self.ended_ms {
            Some(ended_ms) if ended_ms < self.expires_ms => Outcome::Recalled,
            _ if now_ms >= self.expires_ms => Outcome::Expired,
            _ => Outcome::Pending,
        }
    }
}

/// What became of a push at one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has it.
    Delivered,
    /// It may still get it.
    Pending,
    /// Its time ran out.
    Expired,
    /// A newer push replaced it.
    Collapsed,
    /// It was cancelled or recalled before.
    Recalled,
    /// A rule dropped it.
    Dropped(DropReason),
    /// The device could not take it.
    Failed(FailReason),
}

impl Outcome {
    /// The outcome of a targeted device of which `has` tells the marks.
    pub fn of(has: impl Fn(Mark) -> bool, life: &Life, now_ms: u64) -> Outcome {
        if HAVING.into_iter().any(&has) {
            return Outcome::Delivered;
        }
        PRECEDENCE
            .into_iter()
            .find(|mark| has(*mark))
            .and_then(Outcome::stated)
            .unwrap_or_else(|| life.rest(now_ms))
    }

    /// The outcome that a mark states on its own.
    fn stated(mark: Mark) -> Option<Outcome> {
        match mark {
            Mark::Targeted => None,
            Mark::Delivered | Mark::Displayed | Mark::Clicked | Mark::Dismissed => {
                Some(Outcome::Delivered)
            }
            Mark::Expired => Some(Outcome::Expired),
            Mark::Collapsed => Some(Outcome::Collapsed),
            Mark::Recalled => Some(Outcome::Recalled),
            Mark::Dropped(reason) => Some(Outcome::Dropped(reason)),
            Mark::Failed(reason) => Some(Outcome::Failed(reason)),
        }
    }
}

/// Counts of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Funnel {
    /// Those that the push is for.
    pub targeted: u64,
    /// Those that have it.
    pub delivered: u64,
    /// Those that may still get it.
    pub pending: u64,
    /// Those whose time ran out.
    pub expired: u64,
    /// Those where a newer push replaced it.
    pub collapsed: u64,
    /// Those that it was taken back from before they got it.
    pub recalled: u64,
    /// Those where a rule dropped it.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Those that could not take it.
    pub failed: BTreeMap<FailReason, u64>,
    /// Of the delivered: those that showed it.
    pub displayed: u64,
    /// Of the displayed: those where a person opened it.
    pub clicked: u64,
    /// Of the displayed: those where a person wiped it away.
    pub dismissed: u64,
    /// Devices with a receipt that the push is not for. Always zero, or the targeted set is wrong.
    #[serde(skip)]
    pub strays: u64,
}

impl Funnel {
    /// The counts at a time. Of one chunk of devices, if the sets are; [add](AddAssign) them up then.
    pub fn of(receipts: &Receipts, life: &Life, now_ms: u64) -> Funnel {
        let nobody = RoaringBitmap::new();
        let targeted = receipts.set(Mark::Targeted).unwrap_or(&nobody);
        let of_targeted = |mark| receipts.set(mark).map(|set| set & targeted);
        let mut funnel = Funnel {
            targeted: targeted.len(),
            strays: strays(receipts, targeted),
            ..Funnel::default()
        };

        let clicked = of_targeted(Mark::Clicked).unwrap_or_default();
        let dismissed = of_targeted(Mark::Dismissed).unwrap_or_default();
        let displayed = of_targeted(Mark::Displayed).unwrap_or_default() | &clicked | &dismissed;
        let delivered = of_targeted(Mark::Delivered).unwrap_or_default() | &displayed;
        funnel.clicked = clicked.len();
        funnel.dismissed = dismissed.len();
        funnel.displayed = displayed.len();
        funnel.count(Outcome::Delivered, delivered.len());

        let mut left = targeted - &delivered;
        for mark in PRECEDENCE {
            if let (Some(set), Some(outcome)) = (receipts.set(mark), Outcome::stated(mark)) {
                funnel.count(outcome, left.intersection_len(set));
                left -= set;
            }
        }
        funnel.count(life.rest(now_ms), left.len());
        funnel
    }

    /// Counts devices of which a mark says why they have it or not.
    pub(crate) fn count_mark(&mut self, mark: Mark, devices: u64) {
        if let Some(outcome) = Outcome::stated(mark) {
            self.count(outcome, devices);
        }
    }

    fn count(&mut self, outcome: Outcome, devices: u64) {
        if devices == 0 {
            return;
        }
        *match outcome {
            Outcome::Delivered => &mut self.delivered,
            Outcome::Pending => &mut self.pending,
            Outcome::Expired => &mut self.expired,
            Outcome::Collapsed => &mut self.collapsed,
            Outcome::Recalled => &mut self.recalled,
            Outcome::Dropped(reason) => self.dropped.entry(reason).or_default(),
            Outcome::Failed(reason) => self.failed.entry(reason).or_default(),
        } += devices;
    }

    /// The right side of the law.
    pub fn outcomes(&self) -> u64 {
        self.delivered
            + self.pending
            + self.expired
            + self.collapsed
            + self.recalled
            + self.dropped.values().sum::<u64>()
            + self.failed.values().sum::<u64>()
    }

    /// Compares both sides of the law. `told` is the number of targeted devices that the push's record states and its caller was told, which
    /// was counted without the sets.
    pub fn check(&self, told: u64) -> Result<(), Difference> {
        let difference = Difference {
            told,
            targeted: self.targeted,
            outcomes: self.outcomes(),
            strays: self.strays,
        };
        match difference.devices() {
            0 => Ok(()),
            _ => Err(difference),
        }
    }
}

impl AddAssign for Funnel {
    fn add_assign(&mut self, other: Funnel) {
        self.targeted += other.targeted;
        self.delivered += other.delivered;
        self.pending += other.pending;
        self.expired += other.expired;
        self.collapsed += other.collapsed;
        self.recalled += other.recalled;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        self.displayed += other.displayed;
        self.clicked += other.clicked;
        self.dismissed += other.dismissed;
        self.strays += other.strays;
    }
}

/// Numbers of a push that do not add up: a bug, or damage in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the push's record says {told} targeted devices, its set has {targeted}, the outcomes add up to {outcomes}, and {strays} devices outside the set have receipts"
)]
pub struct Difference {
    /// Targeted devices as the push's record states.
    pub told: u64,
    /// The size of the targeted set.
    pub targeted: u64,
    /// The sum of the outcomes.
    pub outcomes: u64,
    /// Devices with a receipt outside the targeted set.
    pub strays: u64,
}

impl Difference {
    /// How many devices it is about, for a metric.
    pub fn devices(&self) -> u64 {
        self.told
            .abs_diff(self.targeted)
            .max(self.targeted.abs_diff(self.outcomes))
            .max(self.strays)
    }
}

fn strays(receipts: &Receipts, targeted: &RoaringBitmap) -> u64 {
    let mut strays = RoaringBitmap::new();
    for (_, set) in receipts.sets() {
        if !set.is_subset(targeted) {
            strays |= set - targeted;
        }
    }
    strays.len()
}

#[cfg(test)]
mod tests;
