//! Schedules as they are stored. Tags are never used for anything else again.

use prost::Message;

use super::{Cron, Figures, LastRun, MissedPolicy, Run, Schedule, State, When};
use crate::{clock::Zone, id::PushId};

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    push: String,
    #[prost(uint64, optional, tag = "4")]
    at_ms: Option<u64>,
    #[prost(string, tag = "5")]
    cron: String,
    #[prost(string, tag = "6")]
    time_zone: String,
    #[prost(bool, tag = "7")]
    skips_missed: bool,
    #[prost(uint64, tag = "8")]
    grace_seconds: u64,
    #[prost(uint64, optional, tag = "9")]
    until_ms: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    max_runs: Option<u64>,
    /// 0: active, 1: paused, 2: ended.
    #[prost(uint32, tag = "11")]
    state: u32,
    #[prost(uint64, tag = "12")]
    created_ms: u64,
    #[prost(bool, tag = "13")]
    is_push: bool,
    #[prost(uint64, tag = "14")]
    settled_ms: u64,
    #[prost(message, repeated, tag = "15")]
    pending: Vec<RunRecord>,
    #[prost(uint64, tag = "16")]
    runs: u64,
    #[prost(uint64, tag = "17")]
    by_hand: u64,
    #[prost(uint64, tag = "18")]
    missed: u64,
    #[prost(uint64, tag = "19")]
    failed: u64,
    #[prost(message, optional, tag = "20")]
    last: Option<RunRecord>,
    #[prost(string, optional, tag = "21")]
    last_failure: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RunRecord {
    #[prost(uint64, tag = "1")]
    planned_ms: u64,
    #[prost(bytes = "vec", tag = "2")]
    push: Vec<u8>,
}

/// Stored bytes that are no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored schedule is damaged: {0}")]
pub struct Damaged(String);

impl RunRecord {
    fn of(run: &Run) -> RunRecord {
        RunRecord {
            planned_ms: run.planned_ms,
            push: run.push.0.to_be_bytes().into(),
        }
    }

    fn run(self) -> Result<Run, Damaged> {
        Ok(Run {
            planned_ms: self.planned_ms,
            push: id(self.push)?,
        })
    }
}

fn id(bytes: Vec<u8>) -> Result<PushId, Damaged> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| Damaged("an id does not have 16 bytes".into()))?;
    Ok(PushId(u128::from_be_bytes(bytes)))
}

impl Schedule {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let (at_ms, cron, time_zone) = match &self.when {
            When::At(at_ms) => (Some(*at_ms), String::new(), String::new()),
            When::Cron(cron) => (None, cron.text().to_owned(), cron.zone().name().to_owned()),
        };
        Record {
            id: self.id.0.to_be_bytes().into(),
            name: self.name.clone(),
            push: self.push.clone(),
            at_ms,
            cron,
            time_zone,
            skips_missed: self.missed_policy == MissedPolicy::Skip,
            grace_seconds: self.grace_seconds,
            until_ms: self.until_ms,
            max_runs: self.max_runs,
            state: match self.state {
                State::Active => 0,
                State::Paused => 1,
                State::Ended => 2,
            },
            created_ms: self.created_ms,
            is_push: self.is_push,
            settled_ms: self.settled_ms,
            pending: self.pending.iter().map(RunRecord::of).collect(),
            runs: self.figures.runs,
            by_hand: self.figures.by_hand,
            missed: self.figures.missed,
            failed: self.figures.failed,
            last: self.last.as_ref().map(|last| RunRecord::of(&last.run)),
            last_failure: self.last.as_ref().and_then(|last| last.failure.clone()),
        }
        .encode_to_vec()
    }

    /// The schedule of stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Schedule, Damaged> {
        let record = Record::decode(bytes).map_err(|error| Damaged(error.to_string()))?;
        let when = match record.at_ms {
            Some(at_ms) => When::At(at_ms),
            None => {
                let zone = Zone::find(&record.time_zone)
                    .map_err(|unknown| Damaged(unknown.to_string()))?;
                When::Cron(Cron::parse(&record.cron, zone).map_err(Damaged)?)
            }
        };
        let last_failure = record.last_failure;
        let last = record.last.map(|run| {
            Ok(LastRun {
                run: run.run()?,
                failure: last_failure,
            })
        });
        Ok(Schedule {
            id: id(record.id)?,
            name: record.name,
            push: record.push,
            when,
            missed_policy: match record.skips_missed {
                true => MissedPolicy::Skip,
                false => MissedPolicy::RunOnce,
            },
            grace_seconds: record.grace_seconds,
            until_ms: record.until_ms,
            max_runs: record.max_runs,
            state: match record.state {
                0 => State::Active,
                1 => State::Paused,
                2 => State::Ended,
                other => return Err(Damaged(format!("there is no state {other}"))),
            },
            created_ms: record.created_ms,
            is_push: record.is_push,
            settled_ms: record.settled_ms,
            pending: record
                .pending
                .into_iter()
                .map(RunRecord::run)
                .collect::<Result<_, _>>()?,
            figures: Figures {
                runs: record.runs,
                by_hand: record.by_hand,
                missed: record.missed,
                failed: record.failed,
            },
            last: last.transpose()?,
        })
    }
}
