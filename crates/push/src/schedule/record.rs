//! Schedules as they are stored. Tags are never used for anything else again.

use prost::Message;

use super::{
    Cron, DEVICE, DeviceClock, Figures, LastRun, MissedPolicy, Run, Schedule, State, Times, Turns,
    When,
};
use crate::{
    clock::{BadWallTime, WallTime, Zone},
    id::PushId,
    options::IfPast,
};

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
    /// Once, by the devices' clocks: as in 2026-12-24T18:00. Otherwise by them: `time_zone` is "device".
    #[prost(string, optional, tag = "22")]
    wall_time: Option<String>,
    /// 0: as the policy says, 1: now, 2: skip.
    #[prost(uint32, tag = "23")]
    if_past: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RunRecord {
    #[prost(uint64, tag = "1")]
    planned_ms: u64,
    #[prost(bytes = "vec", tag = "2")]
    push: Vec<u8>,
    /// What the devices' clocks show: as in 2026-12-24T18:00.
    #[prost(string, optional, tag = "3")]
    wall_time: Option<String>,
    #[prost(bool, tag = "4")]
    skips_past: bool,
    #[prost(string, optional, tag = "5")]
    next_wall_time: Option<String>,
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
            wall_time: run.turns.map(|turns| turns.at.to_string()),
            skips_past: run.turns.is_some_and(|turns| turns.skips_past),
            next_wall_time: run
                .turns
                .and_then(|turns| turns.next)
                .map(|next| next.to_string()),
        }
    }

    fn run(self) -> Result<Run, Damaged> {
        let turns = match self.wall_time {
            None => None,
            Some(at) => Some(Turns {
                at: wall_time(&at)?,
                skips_past: self.skips_past,
                next: self.next_wall_time.as_deref().map(wall_time).transpose()?,
            }),
        };
        Ok(Run {
            planned_ms: self.planned_ms,
            push: id(self.push)?,
            turns,
        })
    }
}

fn wall_time(text: &str) -> Result<WallTime, Damaged> {
    text.parse()
        .map_err(|bad: BadWallTime| Damaged(format!("{text:?}: {bad}")))
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
        let (at_ms, time_zone) = match &self.when {
            When::At(at_ms) => (Some(*at_ms), ""),
            When::Cron(cron) => (None, cron.zone().name()),
            When::Devices(_) => (None, DEVICE),
        };
        let by_device = self.when.devices();
        Record {
            id: self.id.0.to_be_bytes().into(),
            name: self.name.clone(),
            push: self.push.clone(),
            at_ms,
            cron: self.when.cron().map_or("", Cron::text).to_owned(),
            time_zone: time_zone.to_owned(),
            wall_time: by_device.and_then(|clock| match clock.times {
                Times::Once(at) => Some(at.to_string()),
                Times::Again(_) => None,
            }),
            if_past: match by_device.and_then(|clock| clock.if_past) {
                None => 0,
                Some(IfPast::Skip) => 2,
                Some(IfPast::Now | IfPast::NextDay) => 1,
            },
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
            None if record.time_zone == DEVICE => When::Devices(DeviceClock {
                times: match &record.wall_time {
                    Some(at) => Times::Once(wall_time(at)?),
                    None => Times::Again(Cron::parse(&record.cron, Zone::UTC).map_err(Damaged)?),
                },
                if_past: match record.if_past {
                    0 => None,
                    1 => Some(IfPast::Now),
                    2 => Some(IfPast::Skip),
                    other => {
                        return Err(Damaged(format!("there is no rule {other} for past times")));
                    }
                },
            }),
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
