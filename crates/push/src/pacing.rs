//! When each device of a push has its turn.
//!
//! A device's turn follows from the push and the device alone, so every node finds the same without asking another: a hash of both is
//! the device's place in the line, from the first moment of the push's window to its last.

use prost::Message;

use crate::{
    clock::{TimeOfDay, Zone},
    explanation::{Hold, Time},
    fields::invalid,
    hash,
    id::PushId,
    options::{IfPast, LocalTime, Options, Pace, Portion},
    quiet::{QuietHours, QuietPolicy},
    request::Invalid,
};

mod forecast;
mod record;

pub use forecast::{Forecast, Turns, Why};
pub use record::BadSpread;

/// For how long the clock shows one time of day.
const MINUTE_MS: u64 = 60_000;

/// What the entry of a push says besides: the spread is stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The push.
    pub push: PushId,
    /// Unix milliseconds of acceptance.
    pub accepted_ms: u64,
    /// Unix milliseconds after which nobody is sent it.
    pub expires_ms: u64,
}

/// How a push spreads over its devices in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    moment: Moment,
    /// The first of the line has its turn at acceptance, the last just before this has passed; 0: all at once.
    window_ms: u64,
    portion: Option<Share>,
    local_time: Option<LocalTime>,
    quiet_hours: Option<QuietHours>,
    /// For devices without a zone.
    default_zone: Zone,
}

/// The first part of the line, and how long the rest waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    hundredths: u32,
    hold_ms: Option<u64>,
}

/// Why a device never has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Never {
    /// The push is for a portion of its audience only.
    #[error("not in the portion of the audience that the push is for")]
    OutsidePortion,
    /// The local time was over at acceptance, and such devices are skipped.
    #[error("the local time was over when the push was accepted")]
    LocalTimePast,
    /// The moment was in quiet hours, and the push does not wait for their end.
    #[error("dropped in quiet hours")]
    Quiet,
    /// The push expires before the device's turn.
    #[error("expires before its time")]
    ExpiresBefore {
        /// When the turn would have been, in Unix milliseconds.
        due_ms: u64,
    },
}

impl Spread {
    /// The spread of a push with these options to so many devices, as far as they are known when it is accepted.
    ///
    /// Refused if the last devices would have their turn after the push expires.
    pub fn new(
        options: &Options,
        moment: Moment,
        targeted: u64,
        default_zone: &Zone,
    ) -> Result<Spread, Invalid> {
        let window_ms = match options.pace {
            None => 0,
            Some(Pace::Over(seconds)) => seconds * 1000,
            Some(Pace::PerSecond(devices)) => {
                targeted.saturating_mul(1000).div_ceil(devices.max(1))
            }
        };
        let spread = Spread {
            moment,
            window_ms,
            portion: options.portion.map(|portion: Portion| Share {
                hundredths: portion.hundredths,
                hold_ms: portion.hold_seconds.map(|seconds| seconds * 1000),
            }),
            local_time: options.local_time,
            quiet_hours: options.quiet_hours,
            default_zone: default_zone.clone(),
        };
        let lasts_ms = spread.last_turn_ms().saturating_sub(moment.accepted_ms);
        let ttl_ms = moment.expires_ms.saturating_sub(moment.accepted_ms);
        if options.pace.is_some() && lasts_ms > ttl_ms {
            return Err(invalid(
                "/options/pace",
                format!(
                    "{targeted} devices take {} seconds at this pace, and the push expires after {}: raise \"ttl\" or go faster",
                    lasts_ms / 1000,
                    ttl_ms / 1000
                ),
            ));
        }
        Ok(spread)
    }

    /// The same, over another time.
    pub(crate) fn over(self, window_ms: u64) -> Spread {
        Spread { window_ms, ..self }
    }

    /// The same to all of its devices, none before the others.
    pub(crate) fn without_portion(self) -> Spread {
        Spread {
            portion: None,
            ..self
        }
    }

    /// The same after the line stood still for so long. The clocks on the walls did not.
    pub fn held_up(&self, held_ms: u64) -> Spread {
        let mut spread = self.clone();
        if self.local_time.is_none() {
            spread.moment.accepted_ms = self.moment.accepted_ms.saturating_add(held_ms);
        }
        spread
    }

    /// What makes a device wait that could have it now, if anything does.
    pub(crate) fn hold_at(
        &self,
        now_ms: u64,
        client_id: &str,
        zone: Option<&Zone>,
    ) -> Option<Hold> {
        let due_ms = match self.due_from(now_ms, client_id, zone) {
            // It waits all the same, until the push expires.
            Ok(due_ms) | Err(Never::ExpiresBefore { due_ms }) => due_ms,
            Err(_) => return None,
        };
        let awake = Spread {
            quiet_hours: None,
            ..self.clone()
        };
        let turn_ms = match awake.due(client_id, zone) {
            Ok(turn_ms) | Err(Never::ExpiresBefore { due_ms: turn_ms }) => turn_ms,
            Err(_) => now_ms,
        };
        match turn_ms {
            _ if due_ms <= now_ms => None,
            turn_ms if turn_ms < due_ms => Some(Hold::QuietHours(Time(due_ms))),
            turn_ms if self.local_time.is_some() => Some(Hold::NotBefore(Time(turn_ms))),
            turn_ms => Some(Hold::Pace(Time(turn_ms))),
        }
    }

    /// Whether every device has its turn at acceptance.
    pub fn is_immediate(&self) -> bool {
        self.window_ms == 0
            && self.portion.is_none()
            && self.local_time.is_none()
            && self.quiet_hours.is_none()
    }

    /// Whether a device's turn depends on where it is.
    pub fn asks_for_zones(&self) -> bool {
        self.local_time.is_some() || self.quiet_hours.is_some()
    }

    /// When the line has passed, local times and quiet hours aside, in Unix milliseconds.
    pub fn last_turn_ms(&self) -> u64 {
        let hold_ms = self
            .portion
            .and_then(|portion| portion.hold_ms)
            .unwrap_or(0);
        self.moment
            .accepted_ms
            .saturating_add(self.window_ms)
            .saturating_add(hold_ms)
    }

    /// When a device has its turn, in Unix milliseconds: never before acceptance nor after expiry.
    pub fn due(&self, client_id: &str, zone: Option<&Zone>) -> Result<u64, Never> {
        self.due_at(hash::position(self.moment.push, client_id), zone)
    }

    /// The same of a device with that place in the line.
    fn due_at(&self, position: u64, zone: Option<&Zone>) -> Result<u64, Never> {
        let zone = zone.unwrap_or(&self.default_zone);
        let begin = self.moment.accepted_ms.saturating_add(self.hold(position)?);
        let turn = match self.local_time {
            None => begin.saturating_add(self.offset(position)),
            Some(local) => next_showing(local, begin, zone)?,
        };
        let due_ms = self.after_quiet(turn, begin, zone)?;
        if due_ms > self.moment.expires_ms {
            return Err(Never::ExpiresBefore { due_ms });
        }
        Ok(due_ms)
    }

    /// When a device gets the push that asks now, as one does that was away at its turn: now or later, in Unix milliseconds.
    pub fn due_from(
        &self,
        now_ms: u64,
        client_id: &str,
        zone: Option<&Zone>,
    ) -> Result<u64, Never> {
        let turn = self.due(client_id, zone)?.max(now_ms);
        let due_ms = self.after_quiet(turn, turn, zone.unwrap_or(&self.default_zone))?;
        if due_ms > self.moment.expires_ms {
            return Err(Never::ExpiresBefore { due_ms });
        }
        Ok(due_ms)
    }

    /// How long a device of that place waits for the first portion.
    fn hold(&self, position: u64) -> Result<u64, Never> {
        match self.portion {
            Some(portion) if !portion.contains(position) => {
                portion.hold_ms.ok_or(Never::OutsidePortion)
            }
            _ => Ok(0),
        }
    }

    /// The place in the line, scaled to the window: 0..window.
    fn offset(&self, position: u64) -> u64 {
        ((u128::from(position) * u128::from(self.window_ms)) >> 64) as u64
    }

    /// A turn in quiet hours comes as long after their end as it was in them since the line began to move, so that a paced push
    /// does not become a burst in the morning.
    fn after_quiet(&self, turn: u64, begin: u64, zone: &Zone) -> Result<u64, Never> {
        let Some(quiet) = self.quiet_hours else {
            return Ok(turn);
        };
        let Some(span) = quiet.around(turn, zone) else {
            return Ok(turn);
        };
        if quiet.policy == QuietPolicy::Drop {
            return Err(Never::Quiet);
        }
        let behind = match self.local_time {
            Some(_) => 0,
            None => turn - span.from_ms.max(begin).min(turn),
        };
        let later = span.to_ms.saturating_add(behind);
        // The next night may have begun by then.
        Ok(quiet
            .around(later, zone)
            .map_or(later, |next_span| next_span.to_ms))
    }
}

impl Share {
    fn contains(self, position: u64) -> bool {
        (u128::from(position) * 10_000) >> 64 < u128::from(self.hundredths)
    }
}

/// When the clock shows the time, seen from `begin`.
fn next_showing(local: LocalTime, begin: u64, zone: &Zone) -> Result<u64, Never> {
    let today = zone.date(begin);
    let first = zone.when(local.date.unwrap_or(today), local.at);
    if first.saturating_add(MINUTE_MS) > begin {
        return Ok(first.max(begin));
    }
    match local.if_past {
        // Which comes at once, too.
        IfPast::Now
            if (local.superseded).is_some_and(|next| zone.when(next.date, next.at) <= begin) =>
        {
            Err(Never::LocalTimePast)
        }
        IfPast::Now => Ok(begin),
        IfPast::Skip => Err(Never::LocalTimePast),
        IfPast::NextDay => Ok(next_day(local.at, begin, zone)),
    }
}

/// The first showing after `begin`. Where the calendar jumps over a day, tomorrow's is today's, so the day after counts as well.
fn next_day(at: TimeOfDay, begin: u64, zone: &Zone) -> u64 {
    let mut date = zone.date(begin);
    for _ in 0..3 {
        let showing = zone.when(date, at);
        if showing > begin {
            return showing;
        }
        date = date.tomorrow().unwrap_or(date);
    }
    zone.when(date, at)
}

#[cfg(test)]
mod tests;
