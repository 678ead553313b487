//! Cohorts of registered devices, and whose a number is.

use campanile_push::{
    app::AppName,
    rows::{Change, Key, Scope, Table},
    store::{Command, Outcome},
};

use super::{APP, World, texts};

fn app() -> AppName {
    AppName::new(APP).expect("a good name")
}

fn device(id: &str) -> Key {
    Key::new(Table::Device, id)
}

impl World {
    fn new_cohort_change(&self) -> Change {
        Change::new(Scope::App(app()), self.now.0)
    }

    fn write_cohorts(&mut self, change: Change) {
        let outcome = self.run_push(Command::Change(Box::new(change)));
        assert!(matches!(outcome, Outcome::Changed { .. }), "{outcome:?}");
    }

    fn register(&mut self, id: &str, cohorts: &[&str]) -> u32 {
        let change = self.new_cohort_change().put(device(id), "profile");
        let change = cohorts.iter().fold(change, |change, cohort| {
            change.enrol(id, (*cohort).to_owned(), true)
        });
        self.write_cohorts(change);
        let numbers = self.backend().reader().device_numbers(&app(), &texts([id]));
        numbers.expect("the backend reads")[0].expect("it is registered")
    }

    fn cohort(&mut self, cohort: &str) -> Vec<u32> {
        let read = self.backend().reader().cohort(&app(), cohort, 10_000);
        let numbers = read.expect("the backend reads").expect("so many it gives");
        numbers.into_iter().collect()
    }

    fn numbered(&mut self, numbers: &[u32]) -> Vec<Option<String>> {
        let read = self.backend().reader().devices_numbered(&app(), numbers);
        let rows = read.expect("the backend reads").into_iter();
        rows.map(|row| row.map(|row| row.name)).collect()
    }

    fn sessions(&mut self) -> u64 {
        let read = self.backend().reader().sessions(&app());
        read.expect("the backend reads")
    }
}

/// A device is in the cohorts that it joined last.
pub fn cohorts_are_sets_of_registered_devices(world: &mut World) {
    let one = world.register("d1", &["vip", "beta"]);
    let two = world.register("d2", &["vip"]);
    let mut both = vec![one, two];
    both.sort_unstable();
    assert_eq!(world.cohort("vip"), both);
    let again = world
        .new_cohort_change()
        .enrol("d1", "vip".into(), true)
        .enrol("d1", "beta".into(), false)
        .enrol("d2", "beta".into(), false)
        .enrol("nobody", "vip".into(), true);
    world.write_cohorts(again);
    world.restart();
    assert_eq!(world.cohort("vip"), both);
    assert!(world.cohort("beta").is_empty());
    assert!(world.cohort("vi").is_empty());
    let other = Scope::App(AppName::new("app2").expect("a good name"));
    let foreign = Change::new(other, world.now.0)
        .put(device("d3"), "profile")
        .enrol("d3", "vip".into(), true);
    world.write_cohorts(foreign);
    let gone = world
        .new_cohort_change()
        .remove(device("d1"))
        .enrol("d1", "vip".into(), false);
    world.write_cohorts(gone);
    assert_eq!(world.cohort("vip"), [two]);
}

/// A client that only has a session, or pushes that wait, is not registered: it is in no cohort.
pub fn only_registered_devices_are_in_cohorts(world: &mut World) {
    world.claim("session", 100);
    let change = world
        .new_cohort_change()
        .enrol("session", "vip".into(), true);
    world.write_cohorts(change);
    assert!(world.cohort("vip").is_empty());
}

/// More than were asked for are not given.
pub fn a_large_cohort_is_not_read(world: &mut World) {
    const DEVICES: u64 = 3000;
    let change = (0..DEVICES).fold(world.new_cohort_change(), |change, number| {
        let id = format!("d{number}");
        let change = match number % 3 {
            0 => change.enrol(&id, "third".into(), true),
            _ => change,
        };
        change
            .put(device(&id), "profile")
            .enrol(&id, "all".into(), true)
    });
    world.write_cohorts(change);
    world.restart();
    let read = |world: &mut World, cohort: &str, most| {
        let read = world.backend().reader().cohort(&app(), cohort, most);
        let numbers = read.expect("the backend reads");
        numbers.map(|numbers| numbers.len())
    };
    assert_eq!(read(world, "all", DEVICES - 1), None);
    assert_eq!(read(world, "all", DEVICES), Some(DEVICES));
    assert_eq!(read(world, "third", DEVICES), Some(DEVICES / 3));
    assert_eq!(read(world, "third", 10), None);
    assert_eq!(read(world, "none", 0), Some(0));
    let numbers = world.cohort("third");
    let names = world.numbered(&numbers);
    assert!(names.iter().flatten().all(|name| {
        let number: u64 = name[1..].parse().expect("the rest is a number");
        number.is_multiple_of(3)
    }));
    let end = world.backend().reader().numbers_end(&app());
    let end = end.expect("the backend reads");
    assert!(numbers.iter().all(|number| *number < end));
}

/// A registered device is found by its number until it is removed.
pub fn a_registered_device_is_found_by_its_number(world: &mut World) {
    let one = world.register("d1", &[]);
    let session = world.claim("session", 100).ordinal;
    let two = world.register("d2", &[]);
    let found = |name: &str| Some(name.to_owned());
    world.restart();
    assert_eq!(
        world.numbered(&[two, one, session, 900]),
        [found("d2"), found("d1"), None, None]
    );
    let change = world.new_cohort_change().put(device("d1"), "changed");
    world.write_cohorts(change);
    assert_eq!(world.numbered(&[one]), [found("d1")]);
    let change = world.new_cohort_change().remove(device("d1"));
    world.write_cohorts(change);
    assert_eq!(world.numbered(&[one, two]), [None, found("d2")]);
    assert_eq!(world.register("session", &[]), session);
    assert_eq!(world.numbered(&[session]), [found("session")]);
}

/// A push to all would be for whoever has a session, stored or not.
pub fn sessions_are_counted(world: &mut World) {
    assert_eq!(world.sessions(), 0);
    world.register("registered only", &[]);
    let stored = world.claim("stored", 10);
    let ephemeral = world.claim("ephemeral", 0);
    assert_eq!(world.sessions(), 2);
    world.release("stored", &stored, 10);
    assert_eq!(world.sessions(), 2);
    world.release("ephemeral", &ephemeral, 0);
    assert_eq!(world.sessions(), 1);
    world.claim("ephemeral", 60);
    assert_eq!(world.sessions(), 2);
    world.pass_seconds(10);
    world.sweep();
    assert_eq!(world.sessions(), 1);
}
