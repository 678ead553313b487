use super::*;
use crate::{registry::testing::World, request::Limits};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn every_minute(id: u128, now_ms: u64) -> Schedule {
    let body = r#"{"name": "n", "push": {"audience": {"all": true}, "data": {}}, "when": {"cron": "* * * * *", "time_zone": "UTC"}}"#;
    Schedule::create(body.as_bytes(), &Limits::default(), PushId(id), now_ms).unwrap()
}

impl World {
    fn make(&mut self, schedule: &Schedule) -> Result<Created, Refusal> {
        self.make_once(schedule, None)
    }

    fn make_once(
        &mut self,
        schedule: &Schedule,
        key: Option<&Idempotency>,
    ) -> Result<Created, Refusal> {
        if let Some(due_ms) = schedule.due_ms() {
            self.run(|context| announce(context, &shop(), schedule.id, due_ms))?;
        }
        self.run(|context| create(context, &shop(), schedule, key))
    }

    fn edit(&mut self, id: u128, what: &Edit) -> Result<Schedule, Refusal> {
        let id = PushId(id);
        let from_ms =
            self.run(|context| due_after(context, &shop(), id, what).map(Planned::nothing))?;
        if let Some(due_ms) = from_ms {
            self.run(|context| announce(context, &shop(), id, due_ms))?;
        }
        self.run(|context| edit(context, &shop(), id, what, from_ms))
    }

    fn due(&self) -> Vec<Place> {
        self.read(|context| due(context, None, 100)).0
    }

    /// What whoever leads does for a place, but for making the runs.
    fn work(&mut self, place: &Place) -> Option<Work> {
        let next = self.read(|context| next_place(context, &shop(), place.id));
        if let Some(next) = next.filter(|next| !next.is_taken) {
            self.run(|context| announce(context, &shop(), place.id, next.at_ms))
                .unwrap();
        }
        let next_ms = next.map(|next| next.at_ms);
        let work = self
            .run(|context| choose(context, &shop(), place.id, next_ms))
            .unwrap();
        let pending = work.iter().flat_map(|work| work.schedule.pending());
        for run in pending {
            self.run(|context| finish(context, &shop(), place.id, run.push, None))
                .unwrap();
        }
        self.run(|context| strike(context, place)).unwrap();
        work
    }
}

const MINUTE_MS: u64 = 60_000;

#[test]
fn what_is_due_is_the_beginning_of_the_list_and_moves_on() {
    let mut world = World::default();
    let first_ms = world.now_ms.next_multiple_of(MINUTE_MS);
    world.make(&every_minute(7, world.now_ms)).unwrap();
    world.make(&every_minute(8, world.now_ms)).unwrap();
    assert_eq!(world.due(), []);
    for n in 0..3 {
        world.now_ms = first_ms + n * MINUTE_MS;
        let due = world.due();
        let at: Vec<_> = due.iter().map(|place| (place.due_ms, place.id.0)).collect();
        assert_eq!(at, [(world.now_ms, 7), (world.now_ms, 8)], "{n}");
        for place in &due {
            let work = world.work(place).unwrap();
            assert_eq!(work.schedule.pending().len(), 1);
        }
        world.now_ms += MINUTE_MS - 1;
        for place in world.due() {
            let work = world.work(&place).unwrap();
            assert_eq!(work.schedule.pending(), [], "a young place costs a look");
        }
        assert_eq!(world.due(), []);
    }
}

#[test]
fn a_place_outlives_the_writing_of_its_schedule() {
    let mut world = World::default();
    let schedule = every_minute(7, world.now_ms);
    let due_ms = schedule.due_ms().unwrap();
    world
        .run(|context| announce(context, &shop(), schedule.id, due_ms))
        .unwrap();
    world.now_ms = due_ms;
    let place = world.due().remove(0);
    assert_eq!(world.work(&place), None, "it is not there yet");
    world
        .run(|context| create(context, &shop(), &schedule, None))
        .unwrap();
    assert_eq!(world.due(), std::slice::from_ref(&place));
    assert_eq!(world.work(&place).unwrap().schedule.pending().len(), 1);
    // Of one that never came nothing is left.
    let (shop, id) = (shop(), PushId(9));
    world
        .run(|context| announce(context, &shop, id, 1))
        .unwrap();
    world.now_ms += PLACE_KEPT_MS;
    for place in world.due() {
        world.work(&place);
    }
    assert!(world.due().iter().all(|place| place.id != id));
}

#[test]
fn edits_take_their_place_first_and_are_written_down() {
    let mut world = World::default();
    world.make(&every_minute(7, world.now_ms)).unwrap();
    let id = PushId(7);
    let unannounced = world.run(|context| edit(context, &shop(), id, &Edit::Run, None));
    assert_eq!(unannounced.unwrap_err(), Refusal::Contended);
    let ran = world.edit(7, &Edit::Run).unwrap();
    assert_eq!(ran.pending().len(), 1);
    assert_eq!(world.due().len(), 1);

    assert_eq!(world.edit(7, &Edit::Pause).unwrap().state, State::Paused);
    assert_eq!(world.edit(7, &Edit::Resume).unwrap().state, State::Active);
    let change = Change::parse(br#"{"name": "m"}"#, &Limits::default()).unwrap();
    let named = world.edit(7, &Edit::Fields(Box::new(change))).unwrap();
    assert_eq!(named.name, "m");
    assert!(matches!(
        world.edit(8, &Edit::Run),
        Err(Refusal::Missing { .. })
    ));
    world.run(|context| delete(context, &shop(), id)).unwrap();
    assert_eq!(world.read(|context| get(context, &shop(), id)), None);

    let log = world
        .read(|context| crate::registry::audit::list(context, &shop(), None, 100))
        .0;
    let actions: Vec<&str> = log.iter().map(|entry| &*entry.record.action).collect();
    let expected = ["created", "run", "paused", "resumed", "changed", "deleted"];
    assert_eq!(actions, expected.map(|action| format!("schedule.{action}")));
}

#[test]
fn the_same_request_makes_one_schedule_and_an_app_has_a_thousand() {
    let mut world = World::default();
    let schedule = every_minute(0, world.now_ms);
    let key = |body: u8| Idempotency {
        key: "k".to_owned(),
        body_hash: [body; 32],
        expires_ms: 5_000_000,
    };
    let made = world.make_once(&schedule, Some(&key(1))).unwrap();
    assert_eq!(made, Created::New(schedule.clone()));
    let again = every_minute(1, world.now_ms);
    let before = world.make_once(&again, Some(&key(1))).unwrap();
    assert_eq!(before, Created::Before(schedule.clone()));
    let other = world.make_once(&again, Some(&key(2))).unwrap();
    assert_eq!(other, Created::KeyReused);
    for id in 1..MAX_SCHEDULES {
        world.make(&every_minute(id.into(), world.now_ms)).unwrap();
    }
    let full = world.make(&every_minute(MAX_SCHEDULES.into(), world.now_ms));
    assert!(matches!(
        full,
        Err(Refusal::Full {
            limit: MAX_SCHEDULES,
            ..
        })
    ));
    let (page, more) = world.read(|context| list(context, &shop(), Some(PushId(2)), 2));
    let ids: Vec<u128> = page.iter().map(|schedule| schedule.id.0).collect();
    assert_eq!((ids, more), (vec![3, 4], true));
}

#[test]
fn an_ended_schedule_is_kept_for_a_while() {
    let mut world = World::default();
    let body = r#"{"push": {"audience": {"all": true}, "data": {}}, "when": {"at": "1970-01-01T00:20:00Z"}}"#;
    let limits = Limits::default();
    let once = Schedule::create(body.as_bytes(), &limits, PushId(7), world.now_ms).unwrap();
    world.make(&once).unwrap();
    world.now_ms = 20 * MINUTE_MS;
    let place = world.due().remove(0);
    world.work(&place).unwrap();
    let kept = world
        .read(|context| get(context, &shop(), once.id))
        .unwrap();
    assert_eq!((kept.state, kept.figures().runs), (State::Ended, 1));
    world.now_ms += KEPT_MS;
    assert_eq!(world.read(|context| get(context, &shop(), once.id)), None);
}
