//! Receipts, and reports that add up.

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, ClientKey, Generation, MessageId, Offset},
    store::{Claimed, Command, LogKind, Outcome, Progress, StoreError, Tell},
};
use campanile_push::{
    app::AppName,
    explanation::{AtDevice, Presence, Time},
    id::PushId,
    receipt::{DropReason, Mark},
    store::{self as push, Report},
};

use super::{APP, World, message_id};
use crate::{Reply, Request};

/// However often they arrive.
pub fn receipts_are_counted_once(world: &mut World) {
    let a = world.claim("a", 60);
    let b = world.claim("b", 0);
    let id = world.push(None, 100);
    for _ in 0..2 {
        world.acknowledge("a", &a, id);
    }
    assert_eq!(world.report(id).delivered, 1);
    world.acknowledge("b", &b, id);
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered, report.pending),
        (2, 2, 0)
    );
}

/// Since a receipt is a fact; the rest of what it saves is not.
pub fn receipts_of_a_fenced_session_count(world: &mut World) {
    let old = world.claim("a", 60);
    let id = world.push(Some(&["a"]), 100);
    let offset = world.inbox("a")[0].offset;
    world.claim("a", 60);
    let outcome = world.progress("a", &old, |progress| {
        progress.receipts = vec![message_id(id)];
        progress.inbox_done = vec![offset];
    });
    assert_eq!(outcome, Err(StoreError::Fenced));
    assert_eq!(world.report(id).delivered, 1);
    assert_eq!(world.inbox("a").len(), 1);
}

/// Nor do receipts of unknown pushes.
pub fn receipts_from_strangers_do_not_count(world: &mut World) {
    let stranger = world.claim("stranger", 60);
    let id = world.push(Some(&["a"]), 100);
    world.acknowledge("stranger", &stranger, id);
    let outcome = world.progress("stranger", &stranger, |progress| {
        progress.receipts = vec![MessageId(99)]
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(world.report(id).delivered, 0);
    assert_eq!(world.try_report(PushId(99)), None);
}

/// Each dropped push says so.
pub fn the_numbers_add_up_when_the_inbox_overflows(world: &mut World) {
    world.config.inbox_max_entries = 2;
    world.restart();
    world.claim("b", 60);
    let ids: Vec<_> = (0..4).map(|_| world.push(Some(&["a", "b"]), 100)).collect();
    world.send("b", "publish");
    let figures = |world: &mut World| -> Vec<_> {
        ids.iter()
            .map(|id| world.report(*id))
            .map(|report| (report.dropped, report.pending))
            .collect()
    };
    assert_eq!(figures(world), [(2, 0), (2, 0), (1, 1), (0, 2)]);
    world.restart();
    assert_eq!(figures(world), [(2, 0), (2, 0), (1, 1), (0, 2)]);
}

/// The device had it in its hands when the inbox dropped it.
pub fn a_late_receipt_beats_a_drop(world: &mut World) {
    world.config.inbox_max_entries = 1;
    world.restart();
    let claimed = world.claim("a", 60);
    let first = world.push(Some(&["a"]), 100);
    world.push(Some(&["a"]), 100);
    assert_eq!(world.report(first).dropped, 1);
    world.acknowledge("a", &claimed, first);
    let report = world.report(first);
    assert_eq!((report.delivered, report.dropped), (1, 0));
}

/// By the clock, before anything is swept.
pub fn unacknowledged_pushes_expire(world: &mut World) {
    let claimed = world.claim("a", 1000);
    world.claim("b", 1000);
    let id = world.push(None, 100);
    world.acknowledge("a", &claimed, id);
    world.pass_seconds(99);
    assert_eq!(world.report(id).pending, 1);
    world.pass_seconds(1);
    let report = world.report(id);
    assert_eq!(
        (report.delivered, report.pending, report.expired),
        (1, 0, 1)
    );
}

/// Receipts that were acknowledged are not lost.
pub fn reports_survive_a_restart(world: &mut World) {
    let claimed = world.claim("a", 60);
    let ids = [world.push(None, 100), world.push(Some(&["a", "b"]), 100)];
    for id in ids {
        world.acknowledge("a", &claimed, id);
    }
    let before = ids.map(|id| world.report(id));
    world.restart();
    assert_eq!(ids.map(|id| world.report(id)), before);
    assert_eq!(before.map(|report| report.delivered), [1, 1]);
}

/// However often, and in whatever words.
pub fn what_a_device_tells_is_counted_once(world: &mut World) {
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 60));
    let [all, listed] = [world.push(None, 100), world.push(Some(&["a", "b"]), 100)];
    for id in [all, listed] {
        for _ in 0..2 {
            world.told("a", &a, &format!(r#"{{"displayed":["{id}","{id}"]}}"#));
            world.told(
                "a",
                &a,
                &format!(r#"{{"clicked":[{{"id":"{id}","action":"open"}}]}}"#),
            );
            world.told(
                "b",
                &b,
                &format!(r#"{{"displayed":["{id}"],"dismissed":["{id}"]}}"#),
            );
        }
    }
    let seen = |world: &mut World| [all, listed].map(|id| figures(&world.report(id)));
    assert_eq!(seen(world), [[2, 2, 2, 1, 1]; 2]);
    world.restart();
    assert_eq!(seen(world), [[2, 2, 2, 1, 1]; 2]);
}

/// Each once, and only of pushes to more than one device.
pub fn receipts_are_counted_over_time(world: &mut World) {
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 60));
    let ids = [world.push(None, 100), world.push(Some(&["a", "b"]), 100)];
    let single = world.push(Some(&["a"]), 100);
    for id in ids {
        for _ in 0..2 {
            world.acknowledge("a", &a, id);
            world.told("b", &b, &format!(r#"{{"clicked":["{id}"]}}"#));
        }
    }
    world.acknowledge("a", &a, single);
    let total = |world: &mut World, id| -> Vec<(Mark, u64)> {
        let app = AppName::new(APP).expect("a good name");
        let reader = world.backend().reader();
        let series = reader.series(&app, id).expect("the backend reads");
        let points = series.points();
        assert!(points.len() <= 1, "no time passes: {points:?}");
        points.into_iter().flat_map(|point| point.counts).collect()
    };
    let expected = [
        (Mark::Delivered, 2),
        (Mark::Displayed, 1),
        (Mark::Clicked, 1),
    ];
    for id in ids {
        assert_eq!(total(world, id), expected);
    }
    assert_eq!(total(world, single), []);
    world.pass_seconds(101 + (world.config.push_retention_ms / 1000) as u32);
    for _ in 0..2 {
        while world.sweep().more {}
    }
    assert_eq!(total(world, ids[0]), []);
}

/// Even if its acknowledgement was lost, or its time was up.
pub fn what_is_shown_was_delivered(world: &mut World) {
    let a = world.claim("a", 1000);
    let ids = [world.push(None, 100), world.push(Some(&["a"]), 100)];
    world.pass_seconds(100);
    assert_eq!(ids.map(|id| world.report(id).expired), [1, 1]);
    let [all, listed] = ids;
    let told = format!(r#"{{"clicked":["{all}","{listed}"]}}"#);
    world.told("a", &a, &told);
    for id in ids {
        assert_eq!(figures(&world.report(id)), [1, 1, 1, 1, 0]);
        world.acknowledge("a", &a, id);
        assert_eq!(figures(&world.report(id)), [1, 1, 1, 1, 0]);
    }
}

/// Nor is there anything to tell of an unknown push, or of one of another app.
pub fn strangers_have_nothing_to_tell(world: &mut World) {
    let old = world.push(None, 100);
    let stranger = world.claim("stranger", 60);
    let listed = world.push(Some(&["a"]), 100);
    let told = format!(r#"{{"displayed":["{old}","{listed}","{}"]}}"#, PushId(99));
    world.told("stranger", &stranger, &told);
    assert_eq!(figures(&world.report(old)), [0; 5]);
    assert_eq!(figures(&world.report(listed)), [1, 0, 0, 0, 0]);
    assert_eq!(world.try_report(PushId(99)), None);

    let all = world.push(None, 100);
    let mut tell = tell(
        "stranger",
        &stranger,
        &format!(r#"{{"displayed":["{all}"]}}"#),
    );
    tell.client = ClientKey::new(&AppId::new("other"), "stranger");
    world.done(Command::Tell(tell));
    assert_eq!(figures(&world.report(all)), [1, 0, 0, 0, 0]);
}

/// Of a push whose devices are not counted yet, any; later, only one that was counted or has acknowledged it.
pub fn a_device_outside_the_audience_may_tell(world: &mut World) {
    let (a, late) = (world.claim("a", 60), world.claim("late", 60));
    let id = world.push_to_audience(100);
    let told = format!(r#"{{"dismissed":["{id}"]}}"#);
    for _ in 0..2 {
        world.told("a", &a, &told);
    }
    assert_eq!(figures(&world.report(id)), [1, 1, 1, 0, 1]);
    let app = AppName::new(APP).expect("a good name");
    world.run_push(push::Command::Counted { app, push: id });
    world.told("late", &late, &told);
    assert_eq!(figures(&world.report(id)), [1, 1, 1, 0, 1], "a stranger");
    world.acknowledge("late", &late, id);
    world.told("late", &late, &told);
    assert_eq!(figures(&world.report(id)), [2, 2, 2, 0, 2]);
}

/// What a commit holds is taken in its order: with an acknowledgement before it, a stranger's word counts; with one behind it, or that of another
/// device, it does not.
pub fn a_device_may_acknowledge_and_tell_in_one_commit(world: &mut World) {
    let names = ["one", "other", "early", "silent"];
    let [one, other, early, silent] = names.map(|name| world.claim(name, 60));
    let listed = world.push(Some(&["one", "other"]), 100);
    let id = world.push_to_audience(100);
    let app = AppName::new(APP).expect("a good name");
    world.run_push(push::Command::Counted { app, push: id });
    let both = format!(r#"{{"displayed":["{id}","{listed}"],"clicked":["{id}","{listed}"]}}"#);
    let shown = format!(r#"{{"displayed":["{id}"]}}"#);
    let requests = vec![
        acknowledgement("one", &one, &[id, listed]),
        Command::Tell(tell("one", &one, &both)),
        Command::Tell(tell("early", &early, &shown)),
        acknowledgement("early", &early, &[id]),
        Command::Tell(tell("silent", &silent, &both)),
        Command::Tell(tell("other", &other, &both)),
    ];
    let requests = requests.into_iter().map(Request::Broker).collect();
    for reply in world.commit(requests) {
        assert_eq!(reply, Ok(Reply::Broker(Outcome::Done)));
    }
    assert_eq!(figures(&world.report(id)), [2, 2, 1, 1, 0]);
    assert_eq!(figures(&world.report(listed)), [2, 2, 2, 2, 0]);
    let clicked = [
        Mark::Targeted,
        Mark::Delivered,
        Mark::Displayed,
        Mark::Clicked,
    ];
    assert_eq!(world.at_device(id, "one").marks, clicked.into());
    let delivered = [Mark::Targeted, Mark::Delivered];
    assert_eq!(world.at_device(id, "early").marks, delivered.into());
    for stranger in ["other", "silent"] {
        assert_eq!(world.at_device(id, stranger).marks, [].into(), "{stranger}");
    }
}

/// And what is understood of it is taken.
pub fn what_nobody_understands_changes_nothing(world: &mut World) {
    let a = world.claim("a", 60);
    let id = world.push(Some(&["a"]), 100);
    for payload in ["", "[]", "\u{7f}", r#"{"displayed":7}"#, r#"{"seen":[]}"#] {
        let outcome = world.run(Command::Tell(tell("a", &a, payload)));
        assert_eq!(outcome, Ok(Outcome::Nothing), "{payload}");
    }
    assert_eq!(figures(&world.report(id)), [1, 0, 0, 0, 0]);
    world.told("a", &a, &format!(r#"{{"displayed":["x","{id}"]}}"#));
    assert_eq!(figures(&world.report(id)), [1, 1, 1, 0, 0]);
}

/// All of it.
pub fn what_was_told_is_forgotten_with_the_push(world: &mut World) {
    let a = world.claim("a", u32::MAX);
    let ids = [world.push(None, 100), world.push(Some(&["a"]), 100)];
    for id in ids {
        world.told(
            "a",
            &a,
            &format!(r#"{{"clicked":["{id}"],"dismissed":["{id}"]}}"#),
        );
    }
    world.pass_seconds(100);
    world.sweep();
    world.pass_seconds((world.config.push_retention_ms / 1000) as u32);
    world.sweep();
    for id in ids {
        assert_eq!(world.try_report(id), None);
        world.told("a", &a, &format!(r#"{{"displayed":["{id}"]}}"#));
        assert_eq!(world.try_report(id), None);
    }
}

/// With the marks that it has, and whether it is connected.
pub fn a_push_is_known_at_each_device(world: &mut World) {
    let a = world.claim("a", 60);
    let b = world.claim("b", 60);
    world.claim("c", 60);
    world.release("b", &b, 60);
    let left = Presence::Away(Time(world.now.0));
    world.pass_seconds(1);
    let ids = [world.push(None, 100), world.push(Some(&["a", "b"]), 100)];
    for id in ids {
        world.acknowledge("a", &a, id);
        world.told("a", &a, &format!(r#"{{"clicked":["{id}"]}}"#));
        let at = world.at_device(id, "a");
        let clicked = [
            Mark::Targeted,
            Mark::Delivered,
            Mark::Displayed,
            Mark::Clicked,
        ];
        assert_eq!(at.marks, clicked.into());
        assert_eq!(
            (at.number, at.presence),
            (Some(a.ordinal), Presence::Connected)
        );
        let life = at.life.expect("the push is known");
        assert_eq!(life.expires_ms - life.accepted_ms, 100_000);
        let at = world.at_device(id, "b");
        assert_eq!(at.marks, [Mark::Targeted].into());
        assert_eq!((at.number, at.presence), (Some(b.ordinal), left));
        assert_eq!(world.at_device(id, "nobody").number, None);
    }
    assert_eq!(world.at_device(ids[1], "c").marks, [].into());
    let at = world.at_device(ids[0], "a");
    assert_eq!(
        (at.counting, at.is_passed, at.targeting),
        (false, false, None)
    );
    assert_eq!(world.at_device(PushId(99), "a"), AtDevice::default());
}

/// As long as it is connected, or something waits for it.
pub fn a_push_is_known_at_a_device_without_a_session(world: &mut World) {
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 0));
    let [all, listed] = [world.push(None, 100), world.push(Some(&["a"]), 100)];
    world.acknowledge("a", &a, all);
    let delivered = [Mark::Targeted, Mark::Delivered];
    for (id, device, claimed, marks) in [
        (all, "a", &a, &delivered[..]),
        (listed, "a", &a, &delivered[..1]),
        (all, "b", &b, &delivered[..1]),
        (listed, "b", &b, &[]),
    ] {
        let at = world.at_device(id, device);
        assert_eq!(at.marks, marks.iter().copied().collect(), "{device}");
        let is = (at.number, at.presence, at.is_passed);
        assert_eq!(
            is,
            (Some(claimed.ordinal), Presence::Connected, false),
            "{device}"
        );
    }
    world.release("a", &a, 0);
    world.release("b", &b, 0);
    let at = world.at_device(all, "a");
    assert_eq!(at.marks, delivered.into());
    assert_eq!(
        (at.number, at.presence),
        (Some(a.ordinal), Presence::Unknown)
    );
    let at = world.at_device(all, "b");
    assert_eq!((at.marks.len(), at.number), (0, None));
    world.claim("b", 0);
    assert_eq!(world.at_device(all, "b").presence, Presence::Connected);
    world.restart();
    let at = world.at_device(all, "b");
    assert_eq!((at.number, at.presence), (None, Presence::Unknown));
}

/// None of them stands for another, or for the end of the push.
pub fn a_push_to_one_device_may_have_every_mark(world: &mut World) {
    world.config.inbox_max_entries = 1;
    world.restart();
    let a = world.claim("a", 60);
    let id = world.push(Some(&["a"]), 100);
    world.push(Some(&["a"]), 100);
    let dropped = Mark::Dropped(DropReason::InboxFull);
    assert_eq!(
        world.at_device(id, "a").marks,
        [Mark::Targeted, dropped].into()
    );
    let told = format!(r#"{{"clicked":["{id}"],"dismissed":["{id}"]}}"#);
    world.told("a", &a, &told);
    let at = world.at_device(id, "a");
    let every = [
        Mark::Targeted,
        Mark::Delivered,
        Mark::Displayed,
        Mark::Clicked,
        Mark::Dismissed,
        dropped,
    ];
    assert_eq!(at.marks, every.into());
    let life = at.life.expect("the push is known");
    assert_eq!(life.expires_ms - life.accepted_ms, 100_000);
    let report = world.report(id);
    assert_eq!((figures(&report), report.dropped), ([1, 1, 1, 1, 1], 0));
}

/// Whom it is for, and how far the device has read.
pub fn an_audience_is_known_at_each_device(world: &mut World) {
    let a = world.claim("a", 60);
    let id = world.push_to_audience(100);
    let at = world.at_device(id, "a");
    assert!(at.counting && !at.is_passed && at.targeting.is_some());
    assert_eq!(at.marks, [].into());
    let place = world.read_log(LogKind::Push, Offset(0), 10).0[0].offset;
    let outcome = world.progress("a", &a, |progress| {
        progress.cursors = Some(vec![super::cursor(LogKind::Push, place)]);
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert!(world.at_device(id, "a").is_passed);
}

fn figures(report: &Report) -> [u64; 5] {
    let seen = [report.displayed, report.clicked, report.dismissed];
    let [displayed, clicked, dismissed] = seen;
    [
        report.targeted,
        report.delivered,
        displayed,
        clicked,
        dismissed,
    ]
}

fn tell(client_id: &str, claimed: &Claimed, payload: &str) -> Tell {
    Tell {
        client: super::client(client_id),
        ordinal: claimed.ordinal,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn acknowledgement(client_id: &str, claimed: &Claimed, pushes: &[PushId]) -> Command {
    Command::Progress(Progress {
        receipts: pushes.iter().copied().map(message_id).collect(),
        ..super::progress(client_id, claimed)
    })
}

/// 65,536 devices are one chunk of a stored set.
pub fn a_set_may_span_chunks(world: &mut World) {
    use campanile_broker::store::Claim;
    const DEVICES: u32 = 66_000;
    let mut claims = Vec::new();
    for number in 0..DEVICES {
        let client = super::client(&number.to_string());
        let claim = Claim {
            client,
            owner: Generation::ALONE,
            now: world.now,
            clean_start: false,
            expiry_seconds: 0,
            will: None,
        };
        claims.push(Request::Broker(Command::Claim(claim)));
    }
    let replies = world.commit(claims);
    let id = world.push(None, 100);
    let mut receipts = Vec::new();
    for (number, reply) in replies.into_iter().enumerate() {
        let Ok(Reply::Broker(Outcome::Claimed(claimed))) = reply else {
            panic!("no claim")
        };
        if number % 2 == 0 {
            receipts.push(Request::Broker(Command::Progress(Progress {
                receipts: vec![message_id(id)],
                ..super::progress(&number.to_string(), &claimed)
            })));
        }
    }
    world.commit(receipts);
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered),
        (u64::from(DEVICES), u64::from(DEVICES / 2))
    );
}

impl World {
    /// A device tells something.
    pub fn told(&mut self, client_id: &str, claimed: &Claimed, payload: &str) {
        self.done(Command::Tell(tell(client_id, claimed, payload)));
    }

    /// A device acknowledges a push.
    pub fn acknowledge(&mut self, client_id: &str, claimed: &Claimed, push: PushId) {
        self.done(acknowledgement(client_id, claimed, &[push]));
    }
}
