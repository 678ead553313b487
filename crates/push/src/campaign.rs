//! A push that is not simply "now, to whoever matches": it has a pace, a local time, quiet hours, a cap, a portion that goes first, a lane or a collapse key.
//!
//! It is no entry of the push log: devices have their turns in another order than that of acceptance, and no cursor waits for them. What there is of it is one row,
//! the message in it, which every node knows while the push lives; and at each device a [`Memory`] of which campaigns it is done with. From both, any node finds the
//! same turn for a device without asking another.

use bytes::Bytes;

use crate::{
    clock::Zone,
    device::{Fact, Profile, Value},
    explanation::{Hold, Time},
    frequency::FrequencyCap,
    id::PushId,
    lanes::Priority,
    options::AutoHalt,
    pacing::{Never, Spread},
    receipt::{DropReason, Mark},
    targeting::Targeting,
};

mod memory;
mod options;
mod record;
#[cfg(test)]
mod tests;

pub use self::{memory::Memory, record::Row};

/// Campaigns that an app may have running at a time.
pub const MAX_RUNNING: u64 = 100;
/// Ended pushes that every node knows of an app beside those, so that what still waits somewhere is not sent.
pub const MAX_ENDED: u64 = 10_000;

/// A campaign as its row has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// The push.
    pub push: PushId,
    /// Unix milliseconds of acceptance.
    pub accepted_ms: u64,
    /// Unix milliseconds after which nobody is sent it.
    pub expires_ms: u64,
    /// Whether it goes on.
    pub state: State,
    /// What goes before what.
    pub priority: Priority,
    /// Whom it is for.
    pub targeting: Targeting,
    /// When each device has its turn.
    pub spread: Spread,
    /// Devices a second, as long as nobody knows how many there are: until then it waits.
    pub uncounted_pace: Option<u64>,
    /// How often a device gets pushes of its kind.
    pub cap: Option<FrequencyCap>,
    /// When it stops by itself.
    pub auto_halt: Option<AutoHalt>,
    /// The name of the row that says which push of its collapse key is the newest.
    pub collapses: Option<String>,
    /// How long the line of devices stood still so far, in milliseconds.
    pub held_ms: u64,
    /// What devices get on `push/in`.
    pub payload: Bytes,
}

/// Whether a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Running,
    /// Somebody paused it then (Unix milliseconds).
    Paused(u64),
    /// It stopped by itself then.
    Halted(u64),
}

/// How a push ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// How.
    pub how: How,
}

/// See [`Ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was cancelled.
    Cancelled,
    /// It was cancelled, and devices were told to withdraw it.
    Recalled,
    /// A newer push of its collapse key took its place.
    Collapsed(PushId),
}

/// A live device that may have its turn.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its client identifier.
    pub client_id: &'a str,
    /// Its number in the app.
    pub number: u32,
    /// What is known of it.
    pub profile: Option<&'a Profile>,
    /// What it remembers.
    pub memory: &'a Memory,
}

/// What a campaign is to a device now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the device's turn.
    Now,
    /// Its turn comes then, in Unix milliseconds.
    At(u64),
    /// It will not get it, for this reason.
    Never(DropReason),
    /// Nothing, as long as neither changes.
    No,
}

impl Campaign {
    /// Whether devices may have their turns.
    pub fn goes_on(&self) -> bool {
        self.state == State::Running && self.uncounted_pace.is_none()
    }

    /// Whether somebody must look after it: to give it its pace, or to halt it.
    pub fn needs_watch(&self) -> bool {
        self.uncounted_pace.is_some() || self.auto_halt.is_some() && self.state == State::Running
    }

    /// What it is to a device at a time.
    pub fn turn(&self, device: &Candidate<'_>, now_ms: u64) -> Turn {
        if !self.goes_on() || now_ms >= self.expires_ms || !self.is_for(device) {
            return Turn::No;
        }
        let spread = self.spread.held_up(self.held_ms);
        match spread.due_from(now_ms, device.client_id, zone_of(device.profile).as_ref()) {
            Ok(due_ms) if due_ms > now_ms => Turn::At(due_ms),
            Ok(_) => match &self.cap {
                Some(cap) if device.memory.capped_until(cap, now_ms).is_some() => {
                    Turn::Never(DropReason::FrequencyCap)
                }
                _ => Turn::Now,
            },
            Err(Never::Quiet) => Turn::Never(DropReason::QuietHours),
            Err(Never::LocalTimePast) => Turn::Never(DropReason::LocalTimePast),
            // The time itself says what becomes of it.
            Err(Never::ExpiresBefore { .. }) => Turn::No,
            // Who is not in the portion is not targeted.
            Err(Never::OutsidePortion) => Turn::No,
        }
    }

    /// Whether a device is to get it at all, and has not yet.
    fn is_for(&self, device: &Candidate<'_>) -> bool {
        !device.memory.is_done(self.push)
            && !self.is_before(device)
            && (self.targeting)
                .admits(device.client_id, device.number, device.profile)
                .is_ok()
    }

    /// Whether it was made before the device was first seen. Of a registered device its profile says it, but a push to all is for those with a session, as any
    /// other is; one that is named is meant whenever it comes.
    fn is_before(&self, device: &Candidate<'_>) -> bool {
        (device.profile.is_none() || self.targeting.is_to_everyone())
            && self.targeting.names.is_none()
            && self.accepted_ms <= device.memory.since_ms()
    }

    /// What makes a device wait at a time, of whom the push is for and that is to get it.
    pub fn hold(&self, client_id: &str, profile: Option<&Profile>, now_ms: u64) -> Option<Hold> {
        if self.state != State::Running {
            return Some(Hold::Paused);
        }
        if let Some(per_second) = self.uncounted_pace {
            // How many there are is known in a moment; nobody waits for less than one turn.
            return Some(Hold::Pace(Time(now_ms + 1000 / per_second.max(1))));
        }
        let spread = self.spread.held_up(self.held_ms);
        spread.hold_at(now_ms, client_id, zone_of(profile).as_ref())
    }

    /// So many devices it is for: the line begins to move at the pace that was asked for.
    pub fn counted(self, targeted: u64, now_ms: u64) -> Campaign {
        let Some(per_second) = self.uncounted_pace else {
            return self;
        };
        let window_ms = targeted.saturating_mul(1000).div_ceil(per_second.max(1));
        let begins_ms = match self.state {
            State::Running => now_ms,
            State::Paused(since_ms) | State::Halted(since_ms) => since_ms,
        };
        Campaign {
            spread: self.spread.over(window_ms),
            uncounted_pace: None,
            held_ms: begins_ms.saturating_sub(self.accepted_ms),
            ..self
        }
    }

    /// Nobody has a turn until it goes on.
    pub fn stopped(self, state: State) -> Campaign {
        match self.state {
            State::Running => Campaign { state, ..self },
            _ => self,
        }
    }

    /// It goes on; the line stood still meanwhile.
    pub fn resumed(self, now_ms: u64) -> Campaign {
        let (State::Paused(since_ms) | State::Halted(since_ms)) = self.state else {
            return self;
        };
        Campaign {
            held_ms: self.held_ms + now_ms.saturating_sub(since_ms),
            state: State::Running,
            // Whoever resumes what halted has looked at it.
            auto_halt: match self.state {
                State::Halted(_) => None,
                _ => self.auto_halt,
            },
            ..self
        }
    }
}

impl Ended {
    /// The mark of the devices that had not got it.
    pub fn mark(&self) -> Mark {
        match self.how {
            How::Cancelled | How::Recalled => Mark::Recalled,
            How::Collapsed(_) => Mark::Collapsed,
        }
    }
}

/// The zone of a device.
fn zone_of(profile: Option<&Profile>) -> Option<Zone> {
    match &profile?.fact(&Fact::TimeZone)?.value {
        Value::Text(name) => Zone::find(name).ok(),
        Value::Bool(_) | Value::Number(_) => None,
    }
}
