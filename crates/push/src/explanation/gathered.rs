//! From what a store keeps of a push and a device to the facts that explain it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Facts, KeptOut, Position, Presence, Time};
use crate::{
    device::{Fact, Profile},
    funnel::Life,
    id::PushId,
    receipt::Mark,
    targeting::{Changed, Targeting, Unmet},
};

/// What a store keeps of a push at a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtDevice {
    /// The push's times, or `None` if there is no such push (any more).
    pub life: Option<Life>,
    /// Those that it is for are being counted: the device may be one of them although it is not marked.
    pub counting: bool,
    /// The device's number, if it has one.
    pub number: Option<u32>,
    /// What is true of the device and the push.
    pub marks: BTreeSet<Mark>,
    /// Where the device is, as far as a store knows: of a node that is given up for lost it says that its devices have left.
    pub presence: Presence,
    /// The push is for an audience, and the device has got past its entry in the log.
    pub is_passed: bool,
    /// Whom the push is for, as [`Targeting::encode`] wrote it; `None` if it names its devices, or is not in the log any more.
    pub targeting: Option<Bytes>,
    /// The push that took its place in the device's inbox.
    pub collapsed_by: Option<PushId>,
    /// What is known of the device, as [`Profile::encode`] wrote it.
    pub profile: Option<Bytes>,
}

impl AtDevice {
    /// The facts of the device at a time.
    pub fn facts(&self, device: &str, now_ms: u64) -> Facts {
        let mut marks = self.marks.clone();
        let mut kept_out = None;
        let judged = self.judge(device);
        let is_out = judged.is_err();
        if let Err(unmet) = judged {
            kept_out = self.kept_out(unmet);
        } else if self.counting && self.targeting.is_some() && self.number.is_some() {
            marks.insert(Mark::Targeted);
        }
        if !marks.contains(&Mark::Targeted) {
            // A receipt of a device that the push is not for counts nowhere.
            marks.clear();
        }
        Facts {
            now_ms,
            life: self.life,
            device_known: self.number.is_some() || self.profile.is_some(),
            marks: marks.into_iter().map(|mark| (mark, None)).collect(),
            kept_out,
            is_out,
            collapsed_by: self.collapsed_by,
            presence: self.presence,
            position: match self.is_passed {
                true => Position::Passed,
                false => Position::Unknown,
            },
            ..Facts::default()
        }
    }

    /// What the audience says of the device now. What cannot be read keeps nobody out: the marks say what happened all the same.
    fn judge(&self, device: &str) -> Result<(), Unmet> {
        let targeting = self.targeting.as_deref().map(Targeting::decode);
        let Some(Ok(targeting)) = targeting else {
            return Ok(());
        };
        targeting.admits(
            device,
            self.number.unwrap_or(u32::MAX),
            self.known_profile().as_ref(),
        )
    }

    /// What is known of the device, if that can be read.
    pub fn known_profile(&self) -> Option<Profile> {
        Profile::decode(self.profile.as_deref()?).ok()
    }

    /// What is to be said of it, where it can be told.
    fn kept_out(&self, unmet: Unmet) -> Option<KeptOut> {
        let holds = |fact: &Fact| {
            let profile = self.known_profile();
            profile.is_some_and(|profile| profile.fact(fact).is_some())
        };
        let (changed, admits_now) = match unmet {
            Unmet::RegisteredLater { at_ms } => {
                return Some(KeptOut::RegisteredLater { at: Time(at_ms) });
            }
            Unmet::NotListed | Unmet::NotInPortion | Unmet::NeverMatched => return None,
            Unmet::NoLonger(changed) => (changed?, false),
            Unmet::OnlySince(changed) => (changed?, true),
        };
        let Changed { fact, at_ms } = changed;
        let Fact::Tag(tag) = &fact else { return None };
        let tag = tag.to_string();
        match (holds(&fact), admits_now) {
            (true, true) => Some(KeptOut::TagLater {
                tag,
                since: Time(at_ms),
            }),
            (true, false) => Some(KeptOut::Muted { tag }),
            (false, false) => Some(KeptOut::TagRemoved { tag }),
            // It had a tag that the audience excludes when the push was made.
            (false, true) => Some(KeptOut::Muted { tag }),
        }
    }
}
