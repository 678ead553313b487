//! Schedules as callers write them.
//!
//! ```json
//! {"name": "weekly offers", "when": {"cron": "0 9 * * 1", "time_zone": "Europe/Vienna"},
//!  "push": {"audience": {"topic": "offers"}, "notification": {"title": "New this week"}},
//!  "missed": "skip", "grace": 600, "until": "2027-12-31T23:00:00Z", "max_runs": 52}
//! ```

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Cron, DEFAULT_GRACE_SECONDS, DEVICE, DeviceClock, Figures, HORIZON_MS, MAX_GRACE_SECONDS,
    MAX_NAME_BYTES, MissedPolicy, Schedule, ScheduleId, State, Times, When,
};
use crate::{
    clock::Zone,
    fields::{Fields, invalid, shown, wrong_kind},
    id::PushId,
    json::{self, Node},
    options::IfPast,
    request::{Fault, Invalid, Limits, Request},
    time::rfc3339,
};

const NAMES: &[&str] = &[
    "name", "when", "push", "missed", "grace", "until", "max_runs",
];

/// What an owner asks for; absent fields stay, or are as a new schedule has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    name: Option<String>,
    when: Option<When>,
    push: Option<String>,
    missed_policy: Option<MissedPolicy>,
    grace_seconds: Option<u64>,
    /// `Some(None)`: no end any more.
    until_ms: Option<Option<u64>>,
    max_runs: Option<Option<u64>>,
}

impl Schedule {
    /// Reads a schedule; `when` and `push` must be there.
    pub fn create(
        body: &[u8],
        limits: &Limits,
        id: ScheduleId,
        now_ms: u64,
    ) -> Result<Schedule, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        fields.required(
            "when",
            "{\"at\": a time} or {\"cron\": \"..\", \"time_zone\": \"..\"}",
        )?;
        fields.required("push", "what each run pushes, as POST pushes takes it")?;
        let mut change = Change::of(body, &document, limits)?;
        let (Some(when), Some(push)) = (change.when.take(), change.push.take()) else {
            return Err(invalid(
                "",
                "a schedule is an object with \"when\" and \"push\"",
            ));
        };
        let mut schedule = Schedule::new(id, when, push, now_ms);
        change.into(&mut schedule);
        schedule.check_times(now_ms)?;
        schedule.check_push(now_ms)?;
        Ok(schedule)
    }

    /// The schedule of a push with `not_before`: one run, whose push has the schedule's id. `body` was read before. `unique` is a new push id, of which the random part is used:
    /// the time in an id is when its push is accepted.
    pub fn of_push(
        body: &[u8],
        not_before_ms: u64,
        unique: PushId,
        now_ms: u64,
    ) -> Result<Schedule, Invalid> {
        const RANDOM: u128 = (1 << 80) - 1;
        let id = PushId(u128::from(not_before_ms) << 80 | unique.0 & RANDOM);
        let text = String::from_utf8_lossy(body);
        let schedule = Schedule {
            is_push: true,
            ..Schedule::new(id, When::At(not_before_ms), json::minified(&text), now_ms)
        };
        if not_before_ms > now_ms.saturating_add(HORIZON_MS) {
            return Err(too_far("/options/not_before", not_before_ms));
        }
        Ok(schedule)
    }

    fn new(id: ScheduleId, when: When, push: String, now_ms: u64) -> Schedule {
        let settled_ms = when.settled_ms(now_ms);
        Schedule {
            id,
            name: String::new(),
            push,
            when,
            missed_policy: MissedPolicy::default(),
            grace_seconds: DEFAULT_GRACE_SECONDS,
            until_ms: None,
            max_runs: None,
            state: State::Active,
            created_ms: now_ms,
            is_push: false,
            settled_ms,
            pending: Vec::new(),
            figures: Figures::default(),
            last: None,
        }
    }

    /// Refuses times at which nothing would ever happen.
    pub(super) fn check_times(&self, now_ms: u64) -> Result<(), Invalid> {
        match &self.when {
            When::At(at_ms) if *at_ms <= now_ms => {
                return Err(invalid(
                    "/when/at",
                    format!(
                        "{} is over: it is {}; push at once, or give a time to come",
                        rfc3339(*at_ms),
                        rfc3339(now_ms)
                    ),
                ));
            }
            When::At(at_ms) if *at_ms > now_ms.saturating_add(HORIZON_MS) => {
                return Err(too_far("/when/at", *at_ms));
            }
            When::At(_) => {}
            When::Devices(clock) => clock.check(now_ms)?,
            When::Cron(_) => {}
        }
        let first = self.when.next(self.when.settled_ms(now_ms));
        if let (None, Some(cron)) = (first, self.when.cron()) {
            return Err(invalid(
                "/when/cron",
                format!(
                    "{} never fires: there is no such day within five years",
                    shown(cron.text())
                ),
            ));
        }
        match (self.until_ms, first) {
            (Some(until_ms), Some(first_ms)) if first_ms > until_ms => Err(invalid(
                "/until",
                format!(
                    "{} is before the first run, {}: give a later end or leave \"until\" out",
                    rfc3339(until_ms),
                    rfc3339(first_ms)
                ),
            )),
            _ if self.max_runs.is_some_and(|most| most <= self.figures.runs) => Err(invalid(
                "/max_runs",
                format!(
                    "it had {} runs already: raise \"max_runs\", or pause or delete the schedule",
                    self.figures.runs
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Schedule {
    /// Refuses a push that cannot be made by the devices' clocks, if they say when.
    pub(super) fn check_push(&self, now_ms: u64) -> Result<(), Invalid> {
        match self.when.devices() {
            Some(clock) => clock.check_push(&self.push, now_ms),
            None => Ok(()),
        }
    }
}

fn too_far(at: &str, at_ms: u64) -> Invalid {
    let detail = format!(
        "{} is more than five years ahead: give an earlier time",
        rfc3339(at_ms)
    );
    invalid(at, detail)
}

impl Change {
    /// Reads the body of a PATCH: any fields of a schedule; `null` for `until` or `max_runs` takes the end away.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Change, Invalid> {
        Change::of(body, &json::read(body)?, limits)
    }

    fn of(body: &[u8], document: &Node, limits: &Limits) -> Result<Change, Invalid> {
        let mut fields = Fields::of("", document)?;
        let name = fields.text("name")?.map(name).transpose()?;
        let when = fields.take("when").map(when).transpose()?;
        let is_pushing = fields.take("push").is_some();
        let missed_policy = fields.word(
            "missed",
            &[
                ("run_once", MissedPolicy::RunOnce),
                ("skip", MissedPolicy::Skip),
            ],
        )?;
        let grace_seconds = fields.whole("grace", "a number of seconds", 0..=MAX_GRACE_SECONDS)?;
        let until_ms = match fields.take("until") {
            None => None,
            Some(Node::Null) => Some(None),
            Some(value) => Some(Some(time("/until", value)?)),
        };
        let max_runs = match fields.take("max_runs") {
            None => None,
            Some(Node::Null) => Some(None),
            Some(Node::Whole(most @ 1..=1_000_000)) => Some(Some(*most)),
            Some(_) => {
                return Err(invalid(
                    "/max_runs",
                    "\"max_runs\" is a number of runs, whole, from 1 to 1000000",
                ));
            }
        };
        fields.no_others(NAMES)?;
        let push = is_pushing.then(|| push(body, limits)).transpose()?;
        Ok(Change {
            name,
            when,
            push,
            missed_policy,
            grace_seconds,
            until_ms,
            max_runs,
        })
    }

    /// Whether other times are planned by it.
    pub(super) fn is_about_time(&self) -> bool {
        self.when.is_some() || self.until_ms.is_some() || self.max_runs.is_some()
    }

    pub(super) fn into(self, schedule: &mut Schedule) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut schedule.name, self.name);
        set(&mut schedule.when, self.when);
        set(&mut schedule.push, self.push);
        set(&mut schedule.missed_policy, self.missed_policy);
        set(&mut schedule.grace_seconds, self.grace_seconds);
        set(&mut schedule.until_ms, self.until_ms);
        set(&mut schedule.max_runs, self.max_runs);
    }
}

fn name(text: &str) -> Result<String, Invalid> {
    if text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(invalid(
        "/name",
        format!(
            "{} has {} bytes: a name is at most {MAX_NAME_BYTES} bytes without control characters",
            shown(text),
            text.len()
        ),
    ))
}

fn when(value: &Node) -> Result<When, Invalid> {
    const AT: &str = "/when";
    const ZONE: &str = "/when/time_zone";
    let mut fields = Fields::of(AT, value)?;
    let zone = fields.text("time_zone")?;
    let is_by_device = zone == Some(DEVICE);
    let if_past = fields.word("if_past", &[("now", IfPast::Now), ("skip", IfPast::Skip)])?;
    if if_past.is_some() && !is_by_device {
        return Err(invalid(
            "/when/if_past",
            "\"if_past\" is for devices whose own clock has shown the time: leave it out, or give \"time_zone\": \"device\"",
        ));
    }
    let cron = fields.text("cron")?;
    let once = match is_by_device {
        true => fields.text("at")?.map(wall_time).transpose()?,
        false => fields.time("at")?.map(When::At),
    };
    fields.no_others(&["at", "cron", "time_zone", "if_past"])?;
    let when = match (once, cron, zone) {
        (Some(once), None, None) => return Ok(once),
        (Some(once), None, Some(DEVICE)) => once,
        (None, Some(cron), Some(DEVICE)) => by_device(Times::Again(self::cron(cron, Zone::UTC)?)),
        (None, Some(cron), Some(zone)) => {
            let zone = Zone::find(zone).map_err(|unknown| {
                invalid(ZONE, format!("{unknown}; \"device\" is each device's own"))
            })?;
            When::Cron(self::cron(cron, zone)?)
        }
        (None, Some(_), None) => {
            return Err(Invalid {
                fault: Fault::MissingField,
                field: Some(ZONE.into()),
                detail: "\"time_zone\" is missing: whose clock the expression means, such as \"Europe/Vienna\", \"UTC\", or \"device\" for each device's own".into(),
            });
        }
        _ => {
            return Err(invalid(
                AT,
                "it is exactly one of {\"at\": a time}, {\"at\": a time without an offset, \"time_zone\": \"device\"} and {\"cron\": an expression, \"time_zone\": a name or \"device\"}",
            ));
        }
    };
    Ok(match when {
        When::Devices(clock) => When::Devices(DeviceClock { if_past, ..clock }),
        other => other,
    })
}

fn by_device(times: Times) -> When {
    When::Devices(DeviceClock {
        times,
        if_past: None,
    })
}

fn wall_time(text: &str) -> Result<When, Invalid> {
    let at = text.parse().map_err(|rule: crate::clock::BadWallTime| {
        invalid("/when/at", format!("{}: {rule}", shown(text)))
    })?;
    Ok(by_device(Times::Once(at)))
}

fn cron(text: &str, zone: Zone) -> Result<Cron, Invalid> {
    Cron::parse(text, zone).map_err(|rule| {
        let detail = format!("{} is no cron expression: {rule}", shown(text));
        invalid("/when/cron", detail)
    })
}

fn time(at: &'static str, value: &Node) -> Result<u64, Invalid> {
    let Node::Text(text) = value else {
        return Err(wrong_kind(at, "a time of RFC 3339", value));
    };
    crate::time::from_rfc3339(text).ok_or_else(|| {
        invalid(
            at,
            format!(
                "{} is no time of RFC 3339 with an offset, such as 2026-12-24T18:00:00Z",
                shown(text)
            ),
        )
    })
}

/// The text of the field `push`, checked, from a body that is known to be valid.
fn push(body: &[u8], limits: &Limits) -> Result<String, Invalid> {
    const AT: &str = "/push";
    #[derive(Deserialize)]
    struct Parts<'b> {
        #[serde(borrow)]
        push: &'b RawValue,
    }
    let Parts { push } = serde_json::from_slice(body).expect("the body was read before");
    let text = json::minified(push.get());
    let request = Request::parse(text.as_bytes(), limits).map_err(|invalid| Invalid {
        field: invalid.field.map(|field| format!("{AT}{field}")),
        ..invalid
    })?;
    if request.options.not_before_ms.is_some() {
        return Err(invalid(
            "/push/options/not_before",
            "the schedule says when: leave \"not_before\" out",
        ));
    }
    Ok(text)
}
