//! Schedules as the API shows them.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{MissedPolicy, Schedule, State, When};
use crate::{explanation::Time, id::PushId};

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
    At { at: Time },
    Cron { cron: &'s str, time_zone: &'s str },
}

#[derive(Serialize)]
struct RunShown {
    planned_at: Time,
    push_id: String,
}

impl RunShown {
    fn of(planned_ms: u64, push: PushId) -> RunShown {
        RunShown {
            planned_at: Time(planned_ms),
            push_id: push.to_string(),
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
        serde_json::to_string(&Document {
            id: self.id.to_string(),
            name: &self.name,
            when: match &self.when {
                When::At(at_ms) => WhenShown::At { at: Time(*at_ms) },
                When::Cron(cron) => WhenShown::Cron {
                    cron: cron.text(),
                    time_zone: cron.zone().name(),
                },
            },
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
            next_runs: self.next_runs(NEXT_RUNS).into_iter().map(Time).collect(),
            waiting: self
                .pending
                .iter()
                .map(|run| RunShown::of(run.planned_ms, run.push))
                .collect(),
            runs: self.figures.runs,
            runs_by_hand: self.figures.by_hand,
            runs_missed: self.figures.missed,
            runs_failed: self.figures.failed,
            last_run: last.map(|last| RunShown::of(last.run.planned_ms, last.run.push)),
            last_failure: last.and_then(|last| last.failure.as_deref()),
        })
        .expect("it has only string keys and serialises without conditions")
    }
}
