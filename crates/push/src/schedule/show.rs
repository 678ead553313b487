//! Schedules as the API shows them.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{DEVICE, MissedPolicy, Run, Schedule, State, Times, When};
use crate::{clock::WallTime, explanation::Time, options::IfPast};

/// Next runs that are shown.
const NEXT_RUNS: usize = 5;

#[derive(Serialize)]
struct Document<'s> {
    id: String,
    name: &'s str,
    when: WhenShown<'s>,
    push: &'s RawValue,
    state: &'s str,
    missed: &'s str,
    grace: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_runs: Option<u64>,
    created_at: Time,
    next_runs: Vec<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_local_runs: Option<Vec<LocalRunShown>>,
    waiting: Vec<RunShown>,
    runs: u64,
    runs_by_hand: u64,
    runs_missed: u64,
    runs_failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<RunShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'s str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WhenShown<'s> {
    At {
        at: Time,
    },
    Cron {
        cron: &'s str,
        time_zone: &'s str,
        #[serde(skip_serializing_if = "Option::is_none")]
        if_past: Option<&'s str>,
    },
    Clock {
        at: String,
        time_zone: &'s str,
        #[serde(skip_serializing_if = "Option::is_none")]
        if_past: Option<&'s str>,
    },
}

impl WhenShown<'_> {
    fn of(when: &When) -> WhenShown<'_> {
        let clock = match when {
            When::At(at_ms) => return WhenShown::At { at: Time(*at_ms) },
            When::Cron(cron) => {
                return WhenShown::Cron {
                    cron: cron.text(),
                    time_zone: cron.zone().name(),
                    if_past: None,
                };
            }
            When::Devices(clock) => clock,
        };
        let if_past = clock.if_past.map(|if_past| match if_past {
            IfPast::Skip => "skip",
            IfPast::Now | IfPast::NextDay => "now",
        });
        match &clock.times {
            Times::Once(at) => WhenShown::Clock {
                at: at.to_string(),
                time_zone: DEVICE,
                if_past,
            },
            Times::Again(cron) => WhenShown::Cron {
                cron: cron.text(),
                time_zone: DEVICE,
                if_past,
            },
        }
    }
}

/// A run by the devices' clocks.
#[derive(Serialize)]
struct LocalRunShown {
    local_time: String,
    /// When the first clock on earth shows it.
    first_at: Time,
    /// When the last one does.
    last_at: Time,
}

#[derive(Serialize)]
struct RunShown {
    planned_at: Time,
    push_id: String,
    /// What the devices' clocks show.
    #[serde(skip_serializing_if = "Option::is_none")]
    local_time: Option<String>,
}

impl LocalRunShown {
    fn of(at: WallTime) -> LocalRunShown {
        LocalRunShown {
            local_time: at.to_string(),
            first_at: Time(at.first_ms()),
            last_at: Time(at.last_ms()),
        }
    }
}

impl RunShown {
    fn of(run: &Run) -> RunShown {
        RunShown {
            planned_at: Time(run.planned_ms),
            push_id: run.push.to_string(),
            local_time: run.turns.map(|turns| turns.at.to_string()),
        }
    }
}

impl State {
    /// As callers see it.
    pub fn text(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Paused => "paused",
            State::Ended => "ended",
        }
    }
}

impl Schedule {
    /// The schedule as the API shows it, with its next five runs.
    pub fn to_json(&self) -> String {
        let push: &RawValue =
            serde_json::from_str(&self.push).expect("what is kept was read as JSON before");
        let last = self.last.as_ref();
        let next = self.next_runs(NEXT_RUNS);
        serde_json::to_string(&Document {
            id: self.id.to_string(),
            name: &self.name,
            when: WhenShown::of(&self.when),
            push,
            state: self.state.text(),
            missed: match self.missed_policy {
                MissedPolicy::RunOnce => "run_once",
                MissedPolicy::Skip => "skip",
            },
            grace: self.grace_seconds,
            until: self.until_ms.map(Time),
            max_runs: self.max_runs,
            created_at: Time(self.created_ms),
            next_local_runs: self.when.devices().map(|clock| {
                let shown = next
                    .iter()
                    .map(|planned_ms| LocalRunShown::of(clock.at(*planned_ms)));
                shown.collect()
            }),
            next_runs: next.into_iter().map(Time).collect(),
            waiting: self.pending.iter().map(RunShown::of).collect(),
            runs: self.figures.runs,
            runs_by_hand: self.figures.by_hand,
            runs_missed: self.figures.missed,
            runs_failed: self.figures.failed,
            last_run: last.map(|last| RunShown::of(&last.run)),
            last_failure: last.and_then(|last| last.failure.as_deref()),
        })
        .expect("it has only string keys and serialises without conditions")
    }
}
