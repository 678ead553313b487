//! Schedules: pushes that are made at times to come.
//!
//! A schedule says [`When`] and keeps the push as it was asked for; each run reads it anew, so that audience and limits are those of the run. Whoever runs it does so in
//! three steps, each of which can be repeated by somebody else after a crash: [`Schedule::choose`] settles which planned times become runs and which are missed, and its
//! result is written before anything else happens; then each run in [`Schedule::pending`] is made under its own push id, which the store accepts only once; then
//! [`Schedule::finish`] takes it off the list. To plan anew after a crash without the list would choose by another `now`, and so choose others.

use sha2::{Digest, Sha256};

use crate::{
    app::AppName,
    id::PushId,
    request::{Invalid, Limits, Request},
};

mod device_clock;
mod read;
mod record;
mod show;
mod timetable;

pub use self::{
    device_clock::{DEVICE, DeviceClock, MAX_UNDER_WAY, MIN_TTL_SECONDS, Times, Turns},
    read::Change,
    timetable::{Cron, HORIZON_MS, When},
};

/// Schedules of an app.
pub const MAX_SCHEDULES: u64 = 1000;
/// Bytes of a schedule's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Runs that are chosen and not made yet. More are chosen once there is room.
pub const MAX_PENDING: usize = 16;
/// Planned times that are settled in one step: a year of minutes takes several.
pub const MAX_SETTLED: usize = 1000;
/// How late a run may be and still count as on time, in seconds, of a schedule that does not say: longer than it takes until another node leads.
pub const DEFAULT_GRACE_SECONDS: u64 = 60;
/// Longest such time: an hour, in seconds.
pub const MAX_GRACE_SECONDS: u64 = 60 * 60;
/// Milliseconds for which a schedule is kept after its last run: a week.
pub const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Milliseconds for which a push with `not_before` is kept as a schedule after its run: as long as its idempotency key.
pub const PUSH_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// Identity of a schedule: a ULID. That of a push with `not_before` is the push's.
pub type ScheduleId = PushId;

/// Whether a schedule runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// When its time comes.
    Active,
    /// Its owner paused it; what is planned meanwhile does not happen, and is not missed either.
    Paused,
    /// It has no more runs.
    Ended,
}

/// What becomes of planned times that passed, by more than the grace, while nobody could run them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedPolicy {
    /// The last of them is made up for, unless another run is due at the same time; the others are missed.
    #[default]
    RunOnce,
    /// They are missed.
    Skip,
}

/// A schedule of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Identity.
    pub id: ScheduleId,
    /// For people, 0..=128 bytes.
    pub name: String,
    /// The push that each run makes: the JSON that `POST pushes` takes.
    pub push: String,
    /// When.
    pub when: When,
    /// For runs that come late.
    pub missed_policy: MissedPolicy,
    /// How late a run may be and still count as on time.
    pub grace_seconds: u64,
    /// Unix milliseconds after which nothing is planned.
    pub until_ms: Option<u64>,
    /// Planned runs after which it ends; those by hand do not count.
    pub max_runs: Option<u64>,
    /// Whether it runs.
    pub state: State,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Whether it stands for a push with `not_before`: its one run has the schedule's id.
    pub is_push: bool,
    /// Every planned time up to this one, in Unix milliseconds, was chosen or missed.
    settled_ms: u64,
    pending: Vec<Run>,
    figures: Figures,
    last: Option<LastRun>,
}

/// A run that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it should be, in Unix milliseconds.
    pub planned_ms: u64,
    /// The push that it makes.
    pub push: PushId,
    /// When its devices have their turns, if that is not at once.
    pub turns: Option<Turns>,
}

/// What became of the planned times so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Chosen as planned, whether made yet or not.
    pub runs: u64,
    /// Asked for by hand.
    pub by_hand: u64,
    /// Missed.
    pub missed: u64,
    /// Of all that were chosen: refused when they were made, such as for a segment that is gone.
    pub failed: u64,
}

/// The run that was finished last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// Which.
    pub run: Run,
    /// Why it was refused, if it was.
    pub failure: Option<String>,
}

impl Schedule {
    /// The runs that were chosen and are not finished, in the order in which they were chosen.
    pub fn pending(&self) -> &[Run] {
        &self.pending
    }

    /// What became of the planned times so far.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// The run that was finished last.
    pub fn last(&self) -> Option<&LastRun> {
        self.last.as_ref()
    }

    /// Unix milliseconds of the next things to be done, if there are any: pending runs, or the next planned time.
    pub fn due_ms(&self) -> Option<u64> {
        let pending = self.pending.iter().map(|run| run.planned_ms).min();
        let next = (self.state == State::Active)
            .then(|| self.next_planned())
            .flatten();
        pending.into_iter().chain(next).min()
    }

    /// Whether something is still to come of it: not once it has ended and nothing is pending.
    pub fn is_open(&self) -> bool {
        self.state != State::Ended || !self.pending.is_empty()
    }

    /// The next planned times, at most so many. None while it is paused.
    pub fn next_runs(&self, most: usize) -> Vec<u64> {
        if self.state != State::Active {
            return Vec::new();
        }
        let mut ahead = self.clone();
        let next = std::iter::from_fn(|| {
            let planned_ms = ahead.next_planned()?;
            ahead.settled_ms = planned_ms;
            ahead.figures.runs += 1;
            Some(planned_ms)
        });
        next.take(most).collect()
    }

    /// Settles what is due: some planned times become pending runs, others are missed. Answers what the schedule is then, or `None` if nothing is due. Long outages take
    /// several steps, until nothing is due any more.
    pub fn choose(&self, app: &AppName, now_ms: u64) -> Option<Schedule> {
        if self.state != State::Active {
            return None;
        }
        let on_time_from = now_ms.saturating_sub(self.grace_seconds * 1000);
        let mut then = self.clone();
        for _ in 0..MAX_SETTLED {
            if then.pending.len() >= MAX_PENDING {
                break;
            }
            let Some(planned_ms) = then.next_planned().filter(|at| *at <= now_ms) else {
                break;
            };
            then.settled_ms = planned_ms;
            let next = then.next_planned();
            let turns = self.turns(planned_ms, next);
            let is_made = planned_ms >= on_time_from
                || match turns {
                    // Some clocks are still to show it.
                    Some(turns) if turns.at.last_ms() > now_ms => true,
                    Some(turns) if turns.skips_past => false,
                    _ => {
                        self.missed_policy == MissedPolicy::RunOnce
                            && next.is_none_or(|next| next > now_ms)
                    }
                };
            if is_made {
                then.figures.runs += 1;
                let push = self.push_of(app, planned_ms, now_ms);
                then.pending.push(Run {
                    planned_ms,
                    push,
                    turns,
                });
            } else {
                then.figures.missed += 1;
            }
        }
        if then.next_planned().is_none() {
            then.state = State::Ended;
        }
        (then != *self).then_some(then)
    }

    /// Takes a pending run off the list, with the reason if it was refused. False if it is not on it, so that somebody else has finished it.
    pub fn finish(&mut self, push: PushId, failure: Option<String>) -> bool {
        let Some(at) = self.pending.iter().position(|run| run.push == push) else {
            return false;
        };
        let run = self.pending.remove(at);
        self.figures.failed += u64::from(failure.is_some());
        self.last = Some(LastRun { run, failure });
        true
    }

    /// Has it run now, beside what is planned, as a push of that id. False if too many runs wait already. Of a push with `not_before` this is its run.
    pub fn run_now(&mut self, push: PushId, now_ms: u64) -> bool {
        if self.pending.len() >= MAX_PENDING {
            return false;
        }
        let planned_ms = now_ms;
        if self.is_push {
            self.settled_ms = u64::MAX;
            self.state = State::Ended;
            self.figures.runs += 1;
        } else {
            self.figures.by_hand += 1;
        }
        let push = if self.is_push { self.id } else { push };
        // By hand means now, whatever the devices' clocks show.
        self.pending.push(Run {
            planned_ms,
            push,
            turns: None,
        });
        true
    }

    /// Stops planning. What is pending is still made. An ended schedule stays ended.
    pub fn pause(&mut self) {
        if self.state == State::Active {
            self.state = State::Paused;
        }
    }

    /// Goes on with what is planned after now.
    pub fn resume(&mut self, now_ms: u64) {
        if self.state == State::Paused {
            self.restart(now_ms);
        }
    }

    /// The push that a run makes.
    pub fn request(&self, run: &Run, limits: &Limits) -> Result<Request, Invalid> {
        let mut request = Request::parse(self.push.as_bytes(), limits)?;
        if let Some(turns) = &run.turns {
            request.options.local_time = Some(turns.local_time());
            request.options.check_contradictions()?;
        }
        Ok(request)
    }

    /// When the devices of a run have their turns, by their own clocks. `next_ms` is the next planned time.
    fn turns(&self, planned_ms: u64, next_ms: Option<u64>) -> Option<Turns> {
        let clock = self.when.devices()?;
        Some(Turns {
            at: clock.at(planned_ms),
            skips_past: clock.skips_past(self.missed_policy),
            next: next_ms.map(|next_ms| clock.at(next_ms)),
        })
    }

    /// Applies a change. Times that are changed count from now on.
    pub fn apply(&mut self, change: Change, now_ms: u64) -> Result<(), Invalid> {
        let is_replanned = change.is_about_time();
        let when = self.when.clone();
        change.into(self);
        if is_replanned {
            let is_new = self.when != when;
            if self.state != State::Paused {
                self.restart(now_ms);
                if is_new && self.when.settled_ms(now_ms) < now_ms {
                    // The first clocks have shown it, the others will.
                    (self.settled_ms, self.state) = (self.when.settled_ms(now_ms), State::Active);
                }
            }
            self.check_times(now_ms)?;
        }
        self.check_push(now_ms)
    }

    fn restart(&mut self, now_ms: u64) {
        self.settled_ms = self.settled_ms.max(now_ms);
        self.state = match self.next_planned() {
            Some(_) => State::Active,
            None => State::Ended,
        };
    }

    /// The first planned time that is not settled, if there is one.
    fn next_planned(&self) -> Option<u64> {
        if self.max_runs.is_some_and(|most| self.figures.runs >= most) {
            return None;
        }
        let next = self.when.next(self.settled_ms)?;
        self.until_ms
            .is_none_or(|until| next <= until)
            .then_some(next)
    }

    /// The push of a planned time. As an id tells roughly when its push was accepted, it has the time of now; the schedule keeps it as it was when it was chosen.
    fn push_of(&self, app: &AppName, planned_ms: u64, now_ms: u64) -> PushId {
        if self.is_push {
            return self.id;
        }
        let mut hash = Sha256::new();
        hash.update(app.as_str());
        hash.update([0]);
        hash.update(self.id.0.to_be_bytes());
        hash.update(planned_ms.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let (random, _) = hash.split_at(10);
        let random = random
            .iter()
            .fold(0, |all: u128, byte| all << 8 | u128::from(*byte));
        PushId(u128::from(now_ms & 0xffff_ffff_ffff) << 80 | random)
    }
}

#[cfg(test)]
mod tests;
