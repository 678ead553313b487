use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    request::{Fault, Limits},
    time::{from_rfc3339, rfc3339},
};

/// 2026-11-23T06:00:00Z, a Monday.
const NOW_MS: u64 = 1_795_413_600_000;
const MINUTE_MS: u64 = 60_000;
const PUSH: &str = r#"{"audience":{"devices":["d1"]},"data":{"n":1.50}}"#;

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn body(rest: &str) -> String {
    format!(r#"{{"push": {PUSH}, {rest}}}"#)
}

#[track_caller]
fn schedule(rest: &str) -> Schedule {
    create(&body(rest)).unwrap()
}

fn create(body: &str) -> Result<Schedule, Invalid> {
    Schedule::create(body.as_bytes(), &Limits::default(), PushId(7), NOW_MS)
}

fn every_minute(rest: &str) -> Schedule {
    schedule(&format!(
        r#""when": {{"cron": "* * * * *", "time_zone": "UTC"}}{rest}"#
    ))
}

/// Chooses until nothing is due.
fn chosen(schedule: &Schedule, now_ms: u64) -> Schedule {
    let mut then = schedule.clone();
    while let Some(next) = then.choose(&shop(), now_ms) {
        then = next;
    }
    then
}

fn planned(schedule: &Schedule) -> Vec<u64> {
    schedule
        .pending()
        .iter()
        .map(|run| run.planned_ms)
        .collect()
}

#[test]
fn a_schedule_shows_what_was_asked_and_its_next_runs() {
    let schedule = schedule(
        r#""name": "offers", "when": {"cron": "0 9 * * 1-5", "time_zone": "europe/vienna"}, "max_runs": 3"#,
    );
    let shown: serde_json::Value = serde_json::from_str(&schedule.to_json()).unwrap();
    let expected = serde_json::json!({
        "id": "00000000000000000000000007", "name": "offers",
        "when": {"cron": "0 9 * * 1-5", "time_zone": "Europe/Vienna"},
        "push": {"audience": {"devices": ["d1"]}, "data": {"n": 1.5}},
        "state": "active", "missed": "run_once", "grace": 60, "max_runs": 3,
        "created_at": "2026-11-23T06:00:00.000Z",
        "next_runs": ["2026-11-23T08:00:00.000Z", "2026-11-24T08:00:00.000Z", "2026-11-25T08:00:00.000Z"],
        "waiting": [], "runs": 0, "runs_by_hand": 0, "runs_missed": 0, "runs_failed": 0,
    });
    assert_eq!(shown, expected);
    assert!(schedule.to_json().contains("1.50"), "as it was sent");
    assert_eq!(Schedule::decode(&schedule.encode()).unwrap(), schedule);
}

#[test]
fn a_run_at_a_time_happens_once_and_ends_the_schedule() {
    let schedule = schedule(r#""when": {"at": "2026-11-23T07:00:00Z"}"#);
    let at = from_rfc3339("2026-11-23T07:00:00Z").unwrap();
    assert_eq!(schedule.due_ms(), Some(at));
    assert_eq!(schedule.choose(&shop(), at - 1), None);
    let mut then = schedule.choose(&shop(), at).unwrap();
    assert_eq!((planned(&then), then.state), (vec![at], State::Ended));
    assert_eq!(then.due_ms(), Some(at), "as long as it is pending");
    assert_eq!(then.choose(&shop(), at + 1), None);
    let run = then.pending()[0];
    assert!(then.finish(run.push, None) && !then.finish(run.push, None));
    assert_eq!(then.due_ms(), None);
    assert_eq!(Schedule::decode(&then.encode()).unwrap(), then);
}

#[test]
fn what_is_late_within_the_grace_runs_and_what_is_later_follows_the_policy() {
    let minute = |n: u64| NOW_MS + n * MINUTE_MS;
    let later = minute(10) + 30_000;
    let check = |rest: &str, runs: &[u64], missed: u64| {
        let then = chosen(&every_minute(rest), later);
        let runs: Vec<u64> = runs.iter().map(|n| minute(*n)).collect();
        assert_eq!(
            (planned(&then), then.figures().missed),
            (runs, missed),
            "{rest}"
        );
    };
    check("", &[10], 9);
    check(r#", "grace": 120"#, &[9, 10], 8);
    check(r#", "grace": 29"#, &[10], 9);
    check(r#", "grace": 29, "missed": "skip""#, &[], 10);
    check(r#", "grace": 30, "missed": "skip""#, &[10], 9);
    check(r#", "max_runs": 1"#, &[10], 9);
    check(r#", "until": "2026-11-23T06:04:00Z""#, &[4], 3);
    check(
        r#", "until": "2026-11-23T06:04:00Z", "missed": "skip""#,
        &[],
        4,
    );
}

#[test]
fn a_year_of_outage_is_settled_in_bounded_steps() {
    let mut then = every_minute("");
    let back = NOW_MS + 40 * 24 * 60 * MINUTE_MS;
    let mut steps = 0;
    while let Some(next) = then.choose(&shop(), back) {
        assert!(next.pending().len() <= MAX_PENDING);
        then = next;
        steps += 1;
    }
    assert_eq!(steps, 40 * 24 * 60 / MAX_SETTLED as u64 + 1);
    // The last two are within the grace of a minute.
    assert_eq!(
        (then.figures().runs, then.figures().missed),
        (2, 40 * 24 * 60 - 2)
    );
}

#[test]
fn while_paused_nothing_is_planned_and_nothing_is_missed() {
    let mut schedule = every_minute("");
    schedule.pause();
    let later = NOW_MS + 10 * MINUTE_MS;
    assert_eq!(
        (schedule.choose(&shop(), later), schedule.due_ms()),
        (None, None)
    );
    assert_eq!(schedule.next_runs(5), [0_u64; 0]);
    schedule.resume(later);
    assert_eq!(schedule.due_ms(), Some(later + MINUTE_MS));
    assert_eq!(schedule.choose(&shop(), later), None);
    let mut once = self::schedule(r#""when": {"at": "2026-11-23T06:05:00Z"}"#);
    once.pause();
    once.resume(later);
    assert_eq!(once.state, State::Ended, "its time has passed");
}

#[test]
fn a_run_by_hand_comes_beside_what_is_planned() {
    let mut schedule = every_minute("");
    assert!(schedule.run_now(PushId(99), NOW_MS + 1));
    assert_eq!(schedule.due_ms(), Some(NOW_MS + 1));
    let mut then = schedule.choose(&shop(), NOW_MS + MINUTE_MS).unwrap();
    assert_eq!(planned(&then), [NOW_MS + 1, NOW_MS + MINUTE_MS]);
    assert_eq!((then.figures().runs, then.figures().by_hand), (1, 1));
    while then.run_now(PushId(then.pending().len() as u128), NOW_MS) {}
    assert_eq!(then.pending().len(), MAX_PENDING);
    assert_eq!(
        then.choose(&shop(), NOW_MS + 5 * MINUTE_MS),
        None,
        "no room"
    );
}

#[test]
fn a_push_that_waits_is_a_schedule_whose_run_has_its_id() {
    let of_push = |at| Schedule::of_push(PUSH.as_bytes(), at, PushId(7), NOW_MS).unwrap();
    let then = chosen(&of_push(NOW_MS + 1), NOW_MS + 1);
    assert_eq!(then.pending()[0].push, then.id);
    let mut early = of_push(NOW_MS + MINUTE_MS);
    assert!(early.run_now(PushId(99), NOW_MS));
    let then = chosen(&early, NOW_MS + MINUTE_MS);
    assert_eq!(then.pending(), early.pending(), "not again at its time");
    assert_eq!(then.pending()[0].push, then.id);
}

#[test]
fn a_change_counts_from_now_on() {
    let change = |json: &str| Change::parse(json.as_bytes(), &Limits::default());
    let mut schedule = schedule(r#""when": {"at": "2026-11-23T06:05:00Z"}"#);
    let later = NOW_MS + 10 * MINUTE_MS;
    schedule = chosen(&schedule, later);
    assert_eq!(schedule.state, State::Ended);
    let daily = change(
        r#"{"when": {"cron": "0 6 * * *", "time_zone": "UTC"}, "until": null, "name": "daily"}"#,
    );
    schedule.apply(daily.unwrap(), later).unwrap();
    assert_eq!((schedule.state, &*schedule.name), (State::Active, "daily"));
    assert_eq!(
        rfc3339(schedule.next_runs(1)[0]),
        "2026-11-24T06:00:00.000Z"
    );
    let past = change(r#"{"when": {"at": "2026-11-23T06:05:00Z"}}"#).unwrap();
    assert_eq!(
        schedule
            .clone()
            .apply(past, later)
            .unwrap_err()
            .field
            .as_deref(),
        Some("/when/at")
    );
    schedule.pause();
    let at = change(r#"{"when": {"at": "2026-11-23T07:05:00Z"}}"#).unwrap();
    schedule.apply(at, later).unwrap();
    assert_eq!(
        schedule.state,
        State::Paused,
        "a change of times resumes nothing"
    );
    assert_eq!(
        change(r#"{"state": "paused"}"#).unwrap_err().fault,
        Fault::UnknownField
    );
}

#[test]
fn mistakes_name_their_field() {
    let at = r#""when": {"at": "2026-11-23T07:00:00Z"}"#;
    let cron = r#""when": {"cron": "0 9 * * *", "time_zone": "UTC"}"#;
    for (rest, field) in [
        (r#""name": "a""#.to_owned(), "/when"),
        (r#""when": {}"#.to_owned(), "/when"),
        (r#""when": []"#.to_owned(), "/when"),
        (
            r#""when": {"at": "2026-11-23T07:00:00Z", "cron": "* * * * *"}"#.to_owned(),
            "/when",
        ),
        (
            r#""when": {"at": "2026-11-23T07:00:00Z", "time_zone": "UTC"}"#.to_owned(),
            "/when",
        ),
        (
            r#""when": {"at": "2026-11-23T06:00:00Z"}"#.to_owned(),
            "/when/at",
        ),
        (
            r#""when": {"at": "2036-11-23T06:00:00Z"}"#.to_owned(),
            "/when/at",
        ),
        (r#""when": {"at": "soon"}"#.to_owned(), "/when/at"),
        (
            r#""when": {"cron": "0 9 * * *"}"#.to_owned(),
            "/when/time_zone",
        ),
        (
            r#""when": {"cron": "0 9 * * *", "time_zone": "Vienna"}"#.to_owned(),
            "/when/time_zone",
        ),
        (
            r#""when": {"cron": "0 9 * *", "time_zone": "UTC"}"#.to_owned(),
            "/when/cron",
        ),
        (
            r#""when": {"cron": "0 0 30 2 *", "time_zone": "UTC"}"#.to_owned(),
            "/when/cron",
        ),
        (
            r#""when": {"local_time": "09:00"}"#.to_owned(),
            "/when/local_time",
        ),
        (r#""when": {"every": 5}"#.to_owned(), "/when/every"),
        (format!(r#"{at}, "name": "{}""#, "a".repeat(129)), "/name"),
        (format!(r#"{at}, "missed": "all""#), "/missed"),
        (format!(r#"{at}, "grace": 3601"#), "/grace"),
        (format!(r#"{cron}, "max_runs": 0"#), "/max_runs"),
        (format!(r#"{cron}, "until": 5"#), "/until"),
        (
            format!(r#"{cron}, "until": "2026-11-23T08:59:59Z""#),
            "/until",
        ),
        (format!(r#"{cron}, "state": "paused""#), "/state"),
    ] {
        let refused = create(&body(&rest)).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field), "{rest}: {refused}");
    }
    for (push, field) in [
        (r#"{"data": {}}"#, "/push/audience"),
        (r#"5"#, "/push"),
        (r#"{"audience": {"all": true}}"#, "/push"),
        (
            r#"{"audience": {"all": true}, "data": {}, "options": {"not_before": "2026-11-23T07:00:00Z"}}"#,
            "/push/options/not_before",
        ),
    ] {
        let refused = create(&format!(r#"{{"push": {push}, {at}}}"#)).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field), "{push}: {refused}");
    }
    assert!(create(&format!("{{{at}}}")).unwrap_err().field.as_deref() == Some("/push"));
}

/// What a leader does next. Any of it may be the last thing that it does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes, by so many seconds.
    Wait(u64),
    /// A node reads the schedule and keeps what it read.
    Read(usize),
    /// It writes what it chooses, if nobody else has written since it read.
    Choose(usize),
    /// It makes the first pending run that it has read of.
    Make(usize),
    /// It takes that run off the list, if nobody else has written since it read.
    Finish(usize),
    /// A node does all that there is to do.
    Work(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0_usize..2;
    prop_oneof![
        3 => (1_u64..200).prop_map(Step::Wait),
        1 => (1_u64..8_000).prop_map(Step::Wait),
        3 => node.clone().prop_map(Step::Read),
        3 => node.clone().prop_map(Step::Choose),
        3 => node.clone().prop_map(Step::Make),
        3 => node.clone().prop_map(Step::Finish),
        2 => node.prop_map(Step::Work),
    ]
}

/// A store and two nodes that each believe to lead, each with what it has last read.
struct World {
    now_ms: u64,
    version: u64,
    stored: Schedule,
    views: [(u64, Schedule); 2],
    /// By push: the planned time, and how often the store was asked; it accepts the first.
    made: BTreeMap<PushId, (u64, u32)>,
}

impl World {
    fn write(&mut self, node: usize, schedule: Schedule) {
        if self.views[node].0 == self.version {
            self.version += 1;
            self.stored = Schedule::decode(&schedule.encode()).unwrap();
            self.read(node);
        }
    }

    fn read(&mut self, node: usize) {
        self.views[node] = (self.version, self.stored.clone());
    }

    fn choose(&mut self, node: usize) -> bool {
        let chosen = self.views[node].1.choose(&shop(), self.now_ms);
        let is_due = chosen.is_some();
        if let Some(chosen) = chosen {
            self.write(node, chosen);
        }
        is_due
    }

    fn make(&mut self, node: usize) {
        if let Some(run) = self.views[node].1.pending().first() {
            let made = self.made.entry(run.push).or_insert((run.planned_ms, 0));
            assert_eq!(made.0, run.planned_ms);
            made.1 += 1;
        }
    }

    /// Only what was made: a node does this after it.
    fn finish(&mut self, node: usize) {
        let mut schedule = self.views[node].1.clone();
        let first = schedule.pending().first().copied();
        if let Some(run) = first.filter(|run| self.made.contains_key(&run.push)) {
            schedule.finish(run.push, None);
            self.write(node, schedule);
        }
    }

    fn work(&mut self, node: usize) {
        self.read(node);
        while self.choose(node) || !self.views[node].1.pending().is_empty() {
            self.make(node);
            self.finish(node);
        }
    }
}

proptest! {
    // Each case looks for thousands of times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_leads_every_planned_time_is_run_once_or_missed_by_the_policy(
        steps in proptest::collection::vec(step(), 1..120),
        skips in any::<bool>(),
        grace in 0_u64..300,
        cron in prop_oneof![Just("* * * * *"), Just("*/7 * * * *"), Just("0 * * * *")],
    ) {
        let missed = if skips { "skip" } else { "run_once" };
        let created = schedule(&format!(
            r#""when": {{"cron": "{cron}", "time_zone": "UTC"}}, "missed": "{missed}", "grace": {grace}"#
        ));
        let mut world = World {
            now_ms: NOW_MS,
            version: 1,
            views: [(1, created.clone()), (1, created.clone())],
            stored: created.clone(),
            made: BTreeMap::new(),
        };
        for step in steps {
            match step {
                Step::Wait(seconds) => world.now_ms += seconds * 1000,
                Step::Read(node) => world.read(node),
                Step::Choose(node) => drop(world.choose(node)),
                Step::Make(node) => world.make(node),
                Step::Finish(node) => world.finish(node),
                Step::Work(node) => world.work(node),
            }
        }
        world.work(0);

        let Figures { runs, missed, .. } = world.stored.figures();
        let planned = std::iter::successors(created.when.next(NOW_MS), |at| created.when.next(*at))
            .take_while(|at| *at <= world.now_ms);
        let planned: Vec<u64> = planned.collect();
        prop_assert_eq!(runs as usize, world.made.len());
        prop_assert_eq!((runs + missed) as usize, planned.len());
        for (at, _) in world.made.values() {
            prop_assert!(planned.contains(at));
        }
        if !skips && !planned.is_empty() {
            prop_assert!(runs > 0, "the last one is made up for");
        }
    }
}
