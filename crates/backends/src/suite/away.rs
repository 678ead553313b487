//! What is known of a device that is away.

use campanile_broker::store::{Command, Cursor, LogKind, Outcome, Publish};
use campanile_push::{lanes::Priority, store::Away};

use super::{World, publish};
use crate::Request;

/// In the log what comes after its cursor, whoever it is for; in the inbox what is for it, in whichever lane.
pub fn what_waits_for_a_device_that_is_away_is_counted(world: &mut World) {
    let claimed = world.claim("a", 60);
    world.release("a", &claimed, 60);
    let left = world.now.0;
    let away = |behind, inbox| {
        Some(Away {
            since_ms: Some(left),
            expires_ms: Some(left + 60_000),
            behind: Some(behind),
            inbox,
        })
    };
    assert_eq!(world.away("a"), away(0, 0));
    world.pass_seconds(10);
    for _ in 0..3 {
        world.push(None, 100);
    }
    world.push(Some(&["a", "b"]), 100);
    let mut urgent = world.accept(Some(&["a"]), 100);
    urgent.priority = Priority::High;
    world.run_push(campanile_push::store::Command::Accept(Box::new(urgent)));
    assert_eq!(world.away("a"), away(3, 2));
    world.restart();
    assert_eq!(world.away("a"), away(3, 2));

    let claimed = world.claim("a", 60);
    let entries = world
        .read_log(LogKind::Push, claimed.push_cursor.done, 10)
        .0;
    let got = world.inbox("a");
    let outcome = world.progress("a", &claimed, |progress| {
        progress.cursors = Some(vec![Cursor {
            log: LogKind::Push,
            done: entries[0].offset,
            done_above: vec![entries[2].offset],
        }]);
        progress.inbox_done = vec![got[0].offset];
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    world.release("a", &claimed, 60);
    let waits = world.away("a").map(|away| (away.behind, away.inbox));
    assert_eq!(waits, Some((Some(1), 1)));
}

/// Who is connected is not away, and who keeps no session is not waited for, whatever the inbox holds.
pub fn only_a_kept_session_makes_a_device_away(world: &mut World) {
    world.push(Some(&["stranger", "brief", "kept"]), 1000);
    let (brief, kept) = (world.claim("brief", 0), world.claim("kept", 60));
    for device in ["stranger", "brief", "kept"] {
        assert_eq!(world.away(device), None, "{device}");
    }
    world.release("brief", &brief, 0);
    world.release("kept", &kept, 60);
    assert_eq!(world.away("brief"), None);
    assert!(world.away("kept").is_some());
    let kept = world.claim("kept", 60);
    assert_eq!(world.away("kept"), None);
    world.release("kept", &kept, 60);
    world.pass_seconds(60);
    assert_eq!(world.away("kept"), None, "its session has ended");
    world.sweep();
    assert_eq!(world.away("kept"), None);
}

/// Whenever the session ends, and however the connection did.
pub fn it_is_known_since_when_a_device_is_away(world: &mut World) {
    let known = |world: &mut World| world.away("a").map(|a| (a.since_ms, a.expires_ms));
    for (claimed_for, kept_for) in [(60, 60), (60, 100), (u32::MAX, 60), (60, u32::MAX)] {
        let claimed = world.claim("a", claimed_for);
        world.pass_seconds(1);
        world.release("a", &claimed, kept_for);
        let left = world.now;
        let ends = (kept_for != u32::MAX).then(|| left.plus_seconds(kept_for).0);
        world.pass_seconds(1);
        assert_eq!(known(world), Some((Some(left.0), ends)));
    }
    world.claim("a", 60);
    world.pass_seconds(1);
    world.restart();
    let lost = world.now;
    let ends = lost.plus_seconds(60).0;
    assert_eq!(known(world), Some((Some(lost.0), Some(ends))));
}

/// In entries and in bytes: beyond that nobody waits for the count.
pub fn what_is_behind_a_cursor_is_counted_up_to_a_bound(world: &mut World) {
    for (size, most) in [(1, Away::MOST_BEHIND), (300_000, 3)] {
        let claimed = world.claim_with("a", |claim| claim.clean_start = true);
        world.release("a", &claimed, 0);
        let claimed = world.claim("a", 60);
        world.release("a", &claimed, 60);
        let mut append = |count| {
            let payload = "x".repeat(size);
            let publishes = (0..count).map(|_| Publish {
                log: Some(LogKind::Push),
                ..publish(&world.message("t", &payload).into())
            });
            let batch = publishes.map(Command::Publish).map(Request::Broker);
            let batch = batch.collect();
            world.commit(batch);
            world.away("a").map(|away| away.behind)
        };
        assert_eq!(append(most), Some(Some(most)));
        assert_eq!(append(2), Some(None));
    }
}
