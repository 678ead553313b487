//! Rows of the push domain.

use campanile_push::{
    app::AppName,
    rows::{Change, Key, Range, Row, Scope, Table, Version},
    store::{Command, Outcome},
};

use super::{APP, World, texts};

fn app() -> Scope {
    Scope::App(name(APP))
}

fn name(name: &str) -> AppName {
    AppName::new(name).expect("a good name")
}

fn segment(name: &str) -> Key {
    Key::new(Table::Segment, name)
}

impl World {
    fn change(&mut self, change: Change) -> Outcome {
        self.run_push(Command::Change(Box::new(change)))
    }

    fn changed(&mut self, change: Change) -> Version {
        match self.change(change) {
            Outcome::Changed { version } => version,
            other => panic!("not changed: {other:?}"),
        }
    }

    fn new_change(&self, scope: Scope) -> Change {
        Change::new(scope, self.now.0)
    }

    fn row(&mut self, scope: Scope, key: Key) -> Option<Row> {
        let now_ms = self.now.0;
        let read = self.backend().reader().rows_at(&scope, &[key], now_ms);
        read.expect("the backend reads").remove(0)
    }

    fn value(&mut self, scope: Scope, key: Key) -> Option<String> {
        let row = self.row(scope, key)?;
        Some(String::from_utf8(row.value.to_vec()).expect("a text was written"))
    }

    fn names(&mut self, prefix: &str, after: Option<&str>, limit: usize) -> (String, bool) {
        let range = Range {
            scope: app(),
            table: Table::Segment,
            prefix: prefix.into(),
            after: after.map(Into::into),
            limit,
        };
        let now_ms = self.now.0;
        let read = self.backend().reader().rows(&range, now_ms);
        let (rows, more) = read.expect("the backend reads");
        let names: Vec<String> = rows.into_iter().map(|row| row.name).collect();
        (names.join(" "), more)
    }

    fn number(&mut self, device: &str) -> Option<u32> {
        let read = self
            .backend()
            .reader()
            .device_numbers(&name(APP), &texts([device]));
        read.expect("the backend reads")[0]
    }
}

/// One of a connection without a session may be another device's next, and must not be written down.
pub fn only_a_number_that_is_kept_is_given_out(world: &mut World) {
    let a = world.claim("a", 0);
    let b = world.claim("b", 60);
    let number = |world: &mut World| (world.number("a"), world.number("b"));
    assert_eq!(number(world), (None, Some(b.ordinal)));
    assert_eq!(world.number("nobody"), None);
    world.push(Some(&["a"]), 100);
    assert_eq!(number(world), (Some(a.ordinal), Some(b.ordinal)));
}

/// Whoever comes second reads again.
pub fn a_row_is_written_if_it_is_what_was_read(world: &mut World) {
    let write = |world: &World, version, value: &'static str| {
        let change = world.new_change(app());
        change
            .expect(segment("s"), version)
            .put(segment("s"), value)
    };
    let first = world.changed(write(world, Version::ABSENT, "one"));
    let late = write(world, Version::ABSENT, "two");
    assert_eq!(world.change(late), Outcome::Conflict);
    let second = world.changed(write(world, first, "three"));
    assert!(second > first);
    assert_eq!(
        world.change(write(world, first, "four")),
        Outcome::Conflict,
        "one of two expectations fails"
    );
    world.restart();
    let row = world.row(app(), segment("s")).expect("it is durable");
    assert_eq!((row.version, &row.value[..]), (second, &b"three"[..]));
    let remove = world.new_change(app()).expect(segment("s"), second);
    world.changed(remove.remove(segment("s")).remove(segment("not there")));
    assert_eq!(world.row(app(), segment("s")), None);
    let again = write(world, Version::ABSENT, "five");
    assert!(world.changed(again) > second, "versions never repeat");
}

/// All rows of a change, or none.
pub fn a_change_is_of_one_piece(world: &mut World) {
    world.changed(world.new_change(app()).put(segment("there"), "1"));
    let change = world
        .new_change(app())
        .expect(segment("absent"), Version::ABSENT)
        .expect(segment("there"), Version::ABSENT)
        .put(segment("a"), "2")
        .remove(segment("there"));
    assert_eq!(world.change(change), Outcome::Conflict);
    assert_eq!(world.names("", None, 9), ("there".into(), false));
}

/// Rows of another app, of none, and of another table are others.
pub fn scopes_and_tables_are_kept_apart(world: &mut World) {
    let other = || Scope::App(name("app2"));
    for (scope, value) in [
        (app(), "mine"),
        (other(), "theirs"),
        (Scope::System, "ours"),
    ] {
        world.changed(world.new_change(scope).put(segment("s"), value));
    }
    let upload = || Key::new(Table::Upload, "s");
    world.changed(world.new_change(app()).put(upload(), "another table"));
    assert_eq!(world.value(app(), segment("s")).as_deref(), Some("mine"));
    assert_eq!(
        world.value(other(), segment("s")).as_deref(),
        Some("theirs")
    );
    assert_eq!(
        world.value(Scope::System, segment("s")).as_deref(),
        Some("ours")
    );
    assert_eq!(
        world.value(app(), upload()).as_deref(),
        Some("another table")
    );
    assert_eq!(world.names("", None, 9), ("s".into(), false));
}

/// Pages are ascending by the bytes of the names, and go on after the last.
pub fn rows_are_read_by_page(world: &mut World) {
    assert_eq!(world.names("", None, 9), (String::new(), false));
    let names = ["b", "a", "ab", "a\0x", "é", "z", "a\0", "~"];
    let change = names.iter().fold(world.new_change(app()), |change, name| {
        change.put(segment(name), *name)
    });
    world.changed(change);
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(world.names("", None, 9), (sorted.join(" "), false));
    assert_eq!(world.names("", None, 3), (sorted[..3].join(" "), true));
    assert_eq!(
        world.names("", Some(sorted[2]), 5),
        (sorted[3..].join(" "), false)
    );
    assert_eq!(world.names("a\0", None, 9), ("a\0 a\0x".into(), false));
    assert_eq!(world.names("a\0", Some("a\0"), 9), ("a\0x".into(), false));
    assert_eq!(world.names("a\0", Some("a"), 1), ("a\0".into(), true));
    assert_eq!(world.names("a\0", Some("b"), 9), (String::new(), false));
    let many = (0..1000).fold(world.new_change(app()), |change, number| {
        change.put(segment(&format!("m{number:04}")), "")
    });
    world.changed(many);
    let (found, more) = world.names("m", Some("m0100"), 600);
    assert!(more && found.starts_with("m0101 ") && found.ends_with(" m0700"));
}

/// A page stops after about a mebibyte.
pub fn a_page_of_rows_is_bounded(world: &mut World) {
    for number in 0..4 {
        let key = segment(&number.to_string());
        let value = vec![b'x'; 600 * 1024];
        world.changed(world.new_change(app()).put(key, value));
    }
    assert_eq!(world.names("", None, 9), ("0 1".into(), true));
    assert_eq!(world.names("", Some("1"), 9), ("2 3".into(), false));
}

/// A row whose time has run out is not there, and is swept.
pub fn a_row_may_expire(world: &mut World) {
    let soon = world.now.plus_seconds(10).0;
    let late = world.now.plus_seconds(100).0;
    let change = world
        .new_change(app())
        .put_until(segment("soon"), "1", soon)
        .put_until(segment("late"), "1", soon)
        .put_until(segment("kept"), "1", soon);
    world.changed(change);
    let change = world
        .new_change(app())
        .put_until(segment("late"), "2", late)
        .put(segment("kept"), "2");
    world.changed(change);
    world.pass_seconds(10);
    assert_eq!(world.row(app(), segment("soon")), None);
    assert_eq!(world.names("", None, 9), ("kept late".into(), false));
    let absent = world
        .new_change(app())
        .expect(segment("soon"), Version::ABSENT);
    world.changed(absent);
    assert_eq!(world.sweep().removed, 1);
    world.pass_seconds(90);
    assert_eq!(world.sweep().removed, 1);
    assert_eq!(world.names("", None, 9), ("kept".into(), false));
}

/// A change that adds rows to a full table does nothing.
pub fn a_table_may_be_full(world: &mut World) {
    let soon = world.now.plus_seconds(10).0;
    let put = |world: &World, name: &str| {
        let change = world.new_change(app()).put(segment(name), "");
        change.at_most(Table::Segment, 2)
    };
    let full = Outcome::Full {
        table: Table::Segment,
    };
    let count = |world: &mut World| {
        let reader = world.backend().reader();
        reader.count_rows(&app(), Table::Segment)
    };
    world.changed(put(world, "a"));
    world.changed(
        world
            .new_change(app())
            .put_until(segment("b"), "", soon)
            .at_most(Table::Segment, 2),
    );
    world.changed(world.new_change(Scope::System).put(segment("c"), ""));
    assert_eq!(world.change(put(world, "c")), full);
    world.changed(put(world, "a"));
    world.changed(put(world, "c").remove(segment("a")));
    assert_eq!(world.change(put(world, "a").remove(segment("x"))), full);
    assert_eq!(count(world), Ok(2));
    world.restart();
    world.pass_seconds(10);
    world.sweep();
    assert_eq!(count(world), Ok(1));
    world.changed(put(world, "a"));
    world.changed(
        world
            .new_change(app())
            .remove(segment("a"))
            .remove(segment("c")),
    );
    assert_eq!(count(world), Ok(0));
}

/// A row of the table of devices gives a number, which the device keeps through its sessions.
pub fn a_registered_device_keeps_its_number(world: &mut World) {
    let device = |id: &str| Key::new(Table::Device, id);
    assert_eq!(world.number("d1"), None);
    world.changed(world.new_change(app()).put(device("d1"), "profile"));
    world.changed(world.new_change(app()).put(device("d2"), "profile"));
    let number = world.number("d1").expect("registered");
    assert_ne!(world.number("d2"), Some(number));
    world.changed(world.new_change(app()).put(device("d1"), "changed"));
    world.restart();
    assert_eq!(world.number("d1"), Some(number));
    assert_eq!(world.claim("d1", 10).ordinal, number);
    world.restart();
    world.pass_seconds(10);
    assert_eq!(world.sweep().ended.len(), 1, "its session has expired");
    assert_eq!(world.number("d1"), Some(number), "it is still registered");
    assert_eq!(world.claim("d1", 0).ordinal, number);
    world.restart();
    assert_eq!(world.number("d1"), Some(number));
    world.changed(world.new_change(app()).remove(device("d1")));
    assert_eq!(world.number("d1"), None, "nothing is known of it any more");
    assert!(world.number("d2").is_some());
}

/// A device that is removed while it has a session is known by that.
pub fn a_removed_device_keeps_its_session(world: &mut World) {
    let device = || Key::new(Table::Device, "d1");
    let claimed = world.claim("d1", 1000);
    world.changed(world.new_change(app()).put(device(), "profile"));
    assert_eq!(world.number("d1"), Some(claimed.ordinal));
    world.changed(world.new_change(app()).remove(device()));
    assert_eq!(world.claim("d1", 1000).ordinal, claimed.ordinal);
}
