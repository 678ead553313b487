//! Pushes to audiences: one entry of the log, and devices that are counted later.

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, Generation, Offset},
    store::{Change, LogKind, Notice, Outcome, Page, Query},
};
use campanile_push::{
    id::PushId,
    rows::{self, Key, Scope, Table},
    store::{self as push, Accept, Audience, Command, Idempotency, Target},
};

use super::{APP, World, message_id, texts};

const TARGETING: &[u8] = b"\x00vip && !muted\xff";

/// With the audience as it was given.
pub fn a_push_to_an_audience_is_one_log_entry(world: &mut World) {
    world.claim("live", 60);
    world.take_notices();
    let id = world.push_to_audience(100);
    let notices = world.take_notices();
    world.restart();
    let (entries, ..) = world.read_log(LogKind::Push, Offset(0), 10);
    assert_eq!(entries.len(), 1);
    let message = &entries[0].message;
    assert_eq!(message.id, message_id(id));
    assert_eq!(message.audience.as_deref(), Some(TARGETING));
    let expected = Notice::Log {
        app: AppId::new(APP),
        log: LogKind::Push,
        previous: Offset(0),
        entry: entries[0].clone(),
        changes: Offset(0),
    };
    assert_eq!(notices, [expected]);
    let report = world.report(id);
    assert!(report.counting);
    assert_eq!((report.targeted, report.delivered), (0, 0));
}

/// Part by part, each as often as one likes.
pub fn devices_of_an_audience_are_counted_later(world: &mut World) {
    let a = world.claim("a", 60);
    let b = world.claim("b", 60);
    let id = world.push_to_audience(100);
    for claimed in [&a, &a, &b] {
        world.target(id, claimed.ordinal);
        assert!(world.report(id).counting);
    }
    let report = world.report(id);
    assert_eq!((report.targeted, report.pending), (2, 2));
    world.restart();
    for _ in 0..2 {
        let end = counted(world, id);
        assert_eq!(world.run_push(end), push::Outcome::Done);
    }
    world.restart();
    let report = world.report(id);
    assert!(!report.counting);
    assert_eq!((report.targeted, report.pending), (2, 2));
    let a = world.claim("a", 60);
    world.receipt("a", &a, id);
    let report = world.report(id);
    assert_eq!((report.targeted, report.delivered), (2, 1));
    world.pass_seconds(100);
    let report = world.report(id);
    assert_eq!((report.delivered, report.expired), (1, 1));
}

/// Before the count and after it, as one that was delivered and that it was for.
pub fn a_receipt_from_outside_the_audience_counts(world: &mut World) {
    let [early, inside, late] = ["early", "inside", "late"].map(|name| world.claim(name, 0));
    let id = world.push_to_audience(100);
    world.receipt("early", &early, id);
    let report = world.report(id);
    assert_eq!((report.targeted, report.delivered), (1, 1));
    world.target(id, inside.ordinal);
    let end = counted(world, id);
    assert_eq!(world.run_push(end), push::Outcome::Done);
    for _ in 0..2 {
        world.receipt("late", &late, id);
    }
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered, report.pending),
        (3, 2, 1)
    );
}

/// And those that have none of its devices do not matter.
pub fn an_audience_may_span_chunks(world: &mut World) {
    let app = world.accept(None, 100).app;
    let id = world.push_to_audience(100);
    for (chunk, numbers) in [(3, vec![0, 7, 8, 65_535]), (0, vec![1]), (9, vec![])] {
        let target = Target::of(&app, id, chunk, numbers);
        assert!(target.devices.len() <= Target::MAX_BYTES);
        let outcome = world.run_push(Command::Target(target));
        assert_eq!(outcome, push::Outcome::Done);
    }
    assert_eq!(world.report(id).targeted, 5);
    world.target(id, 3 << 16 | 7);
    assert_eq!(world.report(id).targeted, 5);
    world.target(id, 3 << 16 | 9);
    assert_eq!(world.report(id).targeted, 6);
}

/// Announced to all nodes with its audience, and not stored.
pub fn a_push_to_an_audience_may_be_for_now_only(world: &mut World) {
    let live = world.claim("live", 0);
    world.take_notices();
    let id = world.push_to_audience(0);
    let notices = world.take_notices();
    let [
        Notice::Instant {
            clients: None,
            message,
            ..
        },
    ] = &notices[..]
    else {
        panic!("not announced: {notices:?}");
    };
    assert_eq!(message.audience.as_deref(), Some(TARGETING));
    assert_eq!(world.read_log(LogKind::Push, Offset(0), 10).0, vec![]);
    world.receipt("live", &live, id);
    let end = counted(world, id);
    assert_eq!(world.run_push(end), push::Outcome::Done);
    let report = world.report(id);
    assert_eq!((report.targeted, report.delivered), (1, 1));
    world.pass_seconds(7 * 86_400);
    world.sweep();
    assert_eq!(world.try_report(id), None);
}

/// By its id, and by an idempotency key: how many it is for is not known in either answer.
pub fn a_push_to_an_audience_is_repeated_without_harm(world: &mut World) {
    let expires_ms = world.now.plus_seconds(86_400).0;
    let accept = |world: &mut World| Accept {
        idempotency: Some(Idempotency {
            key: "key".to_owned(),
            body_hash: [1; 32],
            expires_ms,
        }),
        ..world.accept_to_audience(100)
    };
    let first = accept(world);
    let accepted = push::Outcome::Accepted { targeted: None };
    let command = |accept: &Accept| Command::Accept(Box::new(accept.clone()));
    assert_eq!(world.run_push(command(&first)), accepted);
    let unkeyed = Accept {
        idempotency: None,
        rows: None,
        channel: Default::default(),
        ..first.clone()
    };
    assert_eq!(world.run_push(command(&unkeyed)), accepted);
    let replayed = push::Outcome::Replayed {
        id: first.id,
        targeted: None,
        accepted_ms: first.accepted_ms,
    };
    let retry = accept(world);
    assert_eq!(world.run_push(command(&retry)), replayed);
    let (entries, ..) = world.read_log(LogKind::Push, Offset(0), 10);
    assert_eq!(entries.len(), 1);
}

/// As any other: first the entry, later the report; what is said of it then changes nothing.
pub fn a_push_to_an_audience_is_forgotten(world: &mut World) {
    let claimed = world.claim("a", u32::MAX);
    let id = world.push_to_audience(10);
    world.target(id, claimed.ordinal);
    world.pass_seconds(10);
    world.sweep();
    assert_eq!(world.read_log(LogKind::Push, Offset(0), 10).0, vec![]);
    assert_eq!(world.report(id).expired, 1);
    world.pass_seconds(7 * 86_400);
    world.sweep();
    world.target(id, claimed.ordinal);
    let end = counted(world, id);
    assert_eq!(world.run_push(end), push::Outcome::Done);
    world.receipt("a", &claimed, id);
    assert_eq!(world.try_report(id), None);
}

/// To all, or to named devices.
pub fn a_push_to_others_has_no_devices_added(world: &mut World) {
    world.claim("a", 60);
    for devices in [None, Some(&["a"][..])] {
        let id = world.push(devices, 100);
        world.target(id, 77);
        let end = counted(world, id);
        assert_eq!(world.run_push(end), push::Outcome::Done);
        let report = world.report(id);
        assert_eq!((report.targeted, report.counting), (1, false));
    }
}

/// Nor has a plain client.
pub fn a_stranger_has_no_profile(world: &mut World) {
    assert_eq!(world.claim("plain", 60).profile, None);
    let page = world.read(&Query::Profiles {
        app: AppId::new(APP),
        clients: texts(["plain", "stranger"]),
    });
    let Page::Profiles { profiles, .. } = page else {
        panic!("no profiles: {page:?}");
    };
    assert_eq!(profiles, [None, None]);
}

/// As it is then: the row of the device.
pub fn a_claim_brings_the_profile(world: &mut World) {
    world.claim("known", 60);
    for device in ["known", "new"] {
        world.set_profile(device, Some(b"vip\n\x00\xff"));
        world.set_profile(device, Some(b"vip:2 \n\x00\xff"));
    }
    world.restart();
    let profile = Some(Bytes::from_static(b"vip:2 \n\x00\xff"));
    for expiry_seconds in [0, 60] {
        assert_eq!(world.claim("known", expiry_seconds).profile, profile);
        assert_eq!(world.claim("new", expiry_seconds).profile, profile);
    }
    let asked = Query::Profiles {
        app: AppId::new(APP),
        clients: texts(["new", "stranger", "known"]),
    };
    let read = |world: &mut World| match world.read(&asked) {
        Page::Profiles { profiles, .. } => profiles,
        page => panic!("no profiles: {page:?}"),
    };
    assert_eq!(read(world), [profile.clone(), None, profile.clone()]);
    world.set_profile("new", None);
    assert_eq!(read(world), [None, None, profile]);
    assert_eq!(world.claim("new", 60).profile, None);
}

/// Whoever claims it later reads it then.
pub fn a_profile_is_announced_while_its_device_is_connected(world: &mut World) {
    let change = |client_id: &str, profile: Option<&'static [u8]>| Change::Profile {
        client_id: client_id.into(),
        profile: profile.map(Bytes::from_static),
    };
    world.set_profile("a", Some(b"one"));
    assert_eq!(world.take_changes(), []);
    for expiry_seconds in [60, 0] {
        let claimed = world.claim("a", expiry_seconds);
        world.take_notices();
        world.set_profile("a", Some(b"two"));
        assert_eq!(world.take_changes(), [change("a", Some(b"two"))]);
        let is_shared = world.node != Generation::ALONE;
        assert_eq!(world.changed.len(), usize::from(is_shared));
        world.set_profile("a", None);
        assert_eq!(world.take_changes(), [change("a", None)]);
        world.release("a", &claimed, expiry_seconds);
        world.take_notices();
        world.set_profile("a", Some(b"three"));
        assert_eq!(world.take_changes(), []);
    }
    assert_eq!(
        world.claim("a", 60).profile,
        Some(Bytes::from_static(b"three"))
    );
    world.pass_seconds(10);
    let expires_ms = world.now.plus_seconds(5).0;
    let row = Key::new(Table::Device, "a");
    let change_rows = world.row_change().put_until(row, &b"four"[..], expires_ms);
    world.run_push(Command::Change(Box::new(change_rows)));
    assert_eq!(world.take_changes(), [change("a", Some(b"four"))]);
    world.pass_seconds(5);
    world.sweep();
    assert_eq!(world.take_changes(), [change("a", None)]);
}

fn counted(world: &mut World, push: PushId) -> Command {
    let app = world.accept(None, 1).app;
    Command::Counted { app, push }
}

impl World {
    /// Pushes to an audience, with a time to live.
    pub fn push_to_audience(&mut self, ttl_seconds: u32) -> PushId {
        let accept = self.accept_to_audience(ttl_seconds);
        let id = accept.id;
        let outcome = self.run_push(Command::Accept(Box::new(accept)));
        assert_eq!(outcome, push::Outcome::Accepted { targeted: None });
        id
    }

    fn accept_to_audience(&mut self, ttl_seconds: u32) -> Accept {
        Accept {
            audience: Audience::Matching(Bytes::from_static(TARGETING)),
            ..self.accept(None, ttl_seconds)
        }
    }

    fn row_change(&mut self) -> rows::Change {
        rows::Change::new(Scope::App(self.accept(None, 1).app), self.now.0)
    }

    /// Says what is known of a device.
    pub fn set_profile(&mut self, device: &str, profile: Option<&'static [u8]>) {
        let row = Key::new(Table::Device, device);
        let change = match profile {
            Some(profile) => self.row_change().put(row, profile),
            None => self.row_change().remove(row),
        };
        let outcome = self.run_push(Command::Change(Box::new(change)));
        assert!(
            matches!(outcome, push::Outcome::Changed { .. }),
            "{outcome:?}"
        );
    }

    fn target(&mut self, push: PushId, ordinal: u32) {
        let app = self.accept(None, 1).app;
        let target = Target::of(&app, push, (ordinal >> 16) as u16, [ordinal as u16]);
        let outcome = self.run_push(Command::Target(target));
        assert_eq!(outcome, push::Outcome::Done);
    }

    fn receipt(&mut self, client_id: &str, claimed: &super::Claimed, push: PushId) {
        let outcome = self.progress(client_id, claimed, |progress| {
            progress.receipts = vec![message_id(push)];
        });
        assert_eq!(outcome, Ok(Outcome::Done));
    }
}
