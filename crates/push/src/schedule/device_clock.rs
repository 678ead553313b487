//! Times by each device's own clock.
//!
//! One push for each such time: it begins when the first clock on earth shows the time, and its devices have their turns as those of a campaign with `local_time` do, the last
//! 26 hours later. So all that is said of planned times elsewhere is said of these beginnings.

use super::{Cron, HORIZON_MS, MissedPolicy};
use crate::{
    clock::{TimeOfDay, WallTime},
    fields::invalid,
    options::{IfPast, LocalTime, Options},
    request::{Invalid, Limits, Request},
    time::rfc3339,
};

/// What stands in the place of a time zone's name.
pub const DEVICE: &str = "device";
/// Shortest time to live of a push by the devices' clocks, in seconds: 26 hours lie between the first clock and the last, and in one more the last device gets it.
pub const MIN_TTL_SECONDS: u64 = 27 * 60 * 60;
/// Pushes of one schedule that may be under way at a time. A quarter of what an app may have, as each is looked at for every device.
pub const MAX_UNDER_WAY: usize = 25;

/// Times by each device's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClock {
    /// Which.
    pub times: Times,
    /// For devices whose clock has shown the time when the push is made: [`IfPast::Now`] or [`IfPast::Skip`]. `None`: as the schedule's policy of missed runs says.
    pub if_past: Option<IfPast>,
}

/// What the clocks show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Times {
    /// This.
    Once(WallTime),
    /// Again and again; the expression's zone is UTC, whose clock skips nothing.
    Again(Cron),
}

/// The turns of a run's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// What the devices' clocks show.
    pub at: WallTime,
    /// Whether devices whose clock has shown it never get it, instead of at once.
    pub skips_past: bool,
    /// The next time: devices whose clock has shown that too get its run.
    pub next: Option<WallTime>,
}

impl DeviceClock {
    /// When the first clock on earth shows a time, for the first time after a moment.
    pub(super) fn next(&self, after_ms: u64) -> Option<u64> {
        match &self.times {
            Times::Once(at) => Some(at.first_ms()).filter(|first_ms| *first_ms > after_ms),
            Times::Again(cron) => {
                let ahead_ms = crate::clock::EARLIEST_AHEAD_MS;
                let next_ms = cron.next(after_ms.saturating_add(ahead_ms))?;
                Some(next_ms.saturating_sub(ahead_ms))
            }
        }
    }

    /// What the clocks show in the run that begins then.
    pub(super) fn at(&self, planned_ms: u64) -> WallTime {
        WallTime::in_utc(planned_ms.saturating_add(crate::clock::EARLIEST_AHEAD_MS))
    }

    /// Up to when all is settled for somebody who begins now. A single time that the first clocks have shown is still to come for the others.
    pub(super) fn settled_ms(&self, now_ms: u64) -> u64 {
        match self.times {
            Times::Once(at) if at.first_ms() <= now_ms && now_ms < at.last_ms() => {
                at.first_ms() - 1
            }
            _ => now_ms,
        }
    }

    /// Whether devices whose clock has shown the time get no late run.
    pub(super) fn skips_past(&self, missed: MissedPolicy) -> bool {
        match self.if_past {
            Some(if_past) => if_past == IfPast::Skip,
            None => missed == MissedPolicy::Skip,
        }
    }

    /// Refuses a single time that is over everywhere, or too far ahead.
    pub(super) fn check(&self, now_ms: u64) -> Result<(), Invalid> {
        match self.times {
            Times::Once(at) if at.last_ms() <= now_ms => Err(invalid(
                "/when/at",
                format!(
                    "{at} is over on every clock: it is {}; push at once, or give a time to come",
                    rfc3339(now_ms)
                ),
            )),
            Times::Once(at) if at.first_ms() > now_ms.saturating_add(HORIZON_MS) => Err(invalid(
                "/when/at",
                format!("{at} is more than five years ahead: give an earlier time"),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a push that cannot be made at these times, which are looked at from a moment on. It was read before.
    pub(super) fn check_push(&self, push: &str, from_ms: u64) -> Result<(), Invalid> {
        let limits = Limits {
            payload_bytes: usize::MAX,
            plain_callbacks: true,
        };
        let options = Request::parse(push.as_bytes(), &limits)?.options;
        let refused =
            |field: &str, why: String| Err(invalid(&format!("/push/options/{field}"), why));
        if options.local_time.is_some() {
            let why = "the schedule says what the devices' clocks show: leave \"local_time\" out";
            return refused("local_time", why.to_owned());
        }
        if options.pace.is_some() {
            let why = "\"pace\" and the devices' clocks both say when a device gets the push: leave it out, or give \"when\" a time zone";
            return refused("pace", why.to_owned());
        }
        if options
            .portion
            .is_some_and(|portion| portion.hold_seconds.is_some())
        {
            let why = "\"hold\" counts from the beginning of the push, which each device's clock shows at another time: leave it out, or give \"when\" a time zone";
            return refused("portion", why.to_owned());
        }
        if options.ttl_seconds < MIN_TTL_SECONDS {
            return refused(
                "ttl",
                format!(
                    "26 hours lie between the first clock on earth and the last: a ttl of {} is over before, {MIN_TTL_SECONDS} (27 hours) is the least",
                    options.ttl_seconds
                ),
            );
        }
        if let Some(at) = self.quiet_time(&options) {
            return refused(
                "quiet_hours",
                format!("{at} is in them: choose other times, or leave \"quiet_hours\" out"),
            );
        }
        self.check_overlap(options.ttl_seconds, from_ms)
    }

    /// The first time of day that is in the quiet hours of the push.
    fn quiet_time(&self, options: &Options) -> Option<TimeOfDay> {
        let quiet = options.quiet_hours?;
        match &self.times {
            Times::Once(at) => quiet.contains(at.at).then_some(at.at),
            Times::Again(cron) => cron.times_of_day().find(|at| quiet.contains(*at)),
        }
    }

    fn check_overlap(&self, ttl_seconds: u64, from_ms: u64) -> Result<(), Invalid> {
        let mut planned = std::iter::successors(self.next(from_ms), |at| self.next(*at));
        let first = planned.next();
        let last = planned.nth(MAX_UNDER_WAY - 1);
        match (first, last) {
            (Some(first_ms), Some(last_ms)) if last_ms - first_ms < ttl_seconds * 1000 => {
                Err(invalid(
                    "/when/cron",
                    format!(
                        "with a ttl of {ttl_seconds} seconds more than {MAX_UNDER_WAY} of its pushes would be under way at a time, as each is until its ttl is over: run more rarely, or lower \"ttl\" (to {MIN_TTL_SECONDS} at least)"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Turns {
    /// As the options of a push say it.
    pub(super) fn local_time(&self) -> LocalTime {
        LocalTime {
            at: self.at.at,
            date: Some(self.at.date),
            if_past: match self.skips_past {
                true => IfPast::Skip,
                false => IfPast::Now,
            },
            superseded: self.next,
        }
    }
}

#[cfg(test)]
mod tests;
