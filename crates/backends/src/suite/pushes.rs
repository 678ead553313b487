//! Apps and pushes.

use campanile_broker::store::QoS;
use campanile_broker::{
    ids::{AppId, Generation, Millis, Offset},
    message::{Kind, Message},
    store::{LogKind, Notice, Outcome},
};
use campanile_push::{
    app::AppName,
    store::{self as push, Accept, Command, Idempotency},
};

use super::{APP, World, client, cursor, message_id, text, texts};

/// And is found by its first session.
pub fn a_push_waits_for_a_device_that_was_never_seen(world: &mut World) {
    let id = world.push(Some(&["new"]), 100);
    assert_eq!(world.report(id).pending, 1);
    world.restart();
    let claimed = world.claim("new", 60);
    assert!(!claimed.inbox_waiting.is_empty());
    let entries = world.inbox("new");
    assert_eq!(entries.len(), 1);
    let mut expected = Message::new(
        message_id(id),
        Kind::Push,
        "push/in",
        &[],
        format!("push {id}").as_bytes(),
    );
    expected.qos = QoS::AtLeastOnce;
    expected.expires_at = Some(world.now.plus_seconds(100));
    let item = &entries[0].item;
    assert_eq!(*item.message, expected);
    assert_eq!(
        (item.qos, item.retain, item.subscription_ids.len()),
        (QoS::AtLeastOnce, false, 0)
    );
}

/// Whether they are connected, away, or unknown.
pub fn a_push_to_several_devices_is_delivered_to_each(world: &mut World) {
    world.claim("durable", 60);
    let ephemeral = world.claim("ephemeral", 0);
    world.take_notices();
    let devices = ["durable", "ephemeral", "unknown"];
    let id = world.push(Some(&devices), 100);
    let announced = world.take_notices();
    let mut places = Vec::new();
    for (device, notice) in devices.into_iter().zip(announced) {
        let owner = match device {
            "unknown" => Generation::ALONE,
            _ => world.node,
        };
        let entry = world.inbox(device).remove(0);
        places.push(entry.offset);
        assert_eq!(entry.item.message.id, message_id(id));
        assert_eq!(
            notice,
            Notice::Inbox {
                client: client(device),
                owner,
                previous: Offset::default(),
                entry,
                replaced: None,
            }
        );
    }
    assert_eq!(world.report(id).targeted, 3);
    let outcome = world.progress("ephemeral", &ephemeral, |progress| {
        progress.inbox_done = vec![places[1]];
        progress.receipts = vec![message_id(id)];
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(world.inbox("ephemeral"), vec![]);
    assert_eq!(world.inbox("unknown").len(), 1);
    let report = world.report(id);
    assert_eq!((report.delivered, report.pending), (1, 2));
}

/// For everybody who has a session, live or away.
pub fn a_push_to_all_is_one_log_entry(world: &mut World) {
    let away = world.claim("away", 60);
    world.release("away", &away, 60);
    world.claim("live", 60);
    world.claim("ephemeral", 0);
    let gone = world.claim("gone", 0);
    world.release("gone", &gone, 0);
    let ended = world.claim("ended", 60);
    world.release("ended", &ended, 0);
    world.take_notices();
    let id = world.push(None, 100);
    assert_eq!(world.report(id).targeted, 3);
    let notices = world.take_notices();
    let (entries, _, _) = world.read_log(LogKind::Push, Offset(0), 10);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].message.id, message_id(id));
    let entry = entries[0].clone();
    let expected = Notice::Log {
        app: AppId::new(APP),
        log: LogKind::Push,
        previous: Offset(0),
        entry,
        changes: Offset(0),
    };
    assert_eq!(notices, [expected]);
    world.restart();
    let id = world.push(None, 100);
    assert_eq!(world.report(id).targeted, 2);
}

/// Its place is the log's end.
pub fn a_new_device_does_not_get_old_pushes_to_all(world: &mut World) {
    world.push(None, 100);
    let (_, end, _) = world.read_log(LogKind::Push, Offset(0), 10);
    for expiry_seconds in [0, 60] {
        let claimed = world.claim("a", expiry_seconds);
        assert_eq!(claimed.push_cursor, cursor(LogKind::Push, end));
    }
}

/// Through a crash before its first save, and through a clean start.
pub fn a_device_keeps_its_place_in_the_push_log(world: &mut World) {
    let start = world.claim("a", 60).push_cursor;
    world.push(None, 1000);
    world.restart();
    assert_eq!(world.claim("a", 60).push_cursor, start);
    let clean = |world: &mut World, expiry_seconds| {
        world.claim_with("a", |claim| {
            (claim.clean_start, claim.expiry_seconds) = (true, expiry_seconds)
        })
    };
    let claimed = clean(world, 60);
    assert_eq!(claimed.push_cursor, start);
    let (_, end, _) = world.read_log(LogKind::Push, Offset(0), 10);
    let saved = vec![cursor(LogKind::Push, end)];
    let outcome = world.progress("a", &claimed, |progress| progress.cursors = Some(saved));
    assert_eq!(outcome, Ok(Outcome::Done));
    world.push(None, 1000);
    assert_eq!(clean(world, 0).push_cursor, cursor(LogKind::Push, end));
    // That session ends with its connection, and the place with it.
    let (_, end, _) = world.read_log(LogKind::Push, Offset(0), 10);
    assert_eq!(world.claim("a", 60).push_cursor, cursor(LogKind::Push, end));
}

/// Whatever they are and wherever they are kept.
pub fn pushes_and_publishes_are_in_order_of_acceptance(world: &mut World) {
    world.claim("a", 60);
    world.push(None, 100);
    world.push(Some(&["a"]), 100);
    world.send("a", "publish");
    world.push(None, 100);
    world.push(Some(&["a", "b"]), 100);
    let log: Vec<_> = world
        .read_log(LogKind::Push, Offset(0), 10)
        .0
        .iter()
        .map(|entry| entry.offset)
        .collect();
    let inbox: Vec<_> = world.inbox("a").iter().map(|entry| entry.offset).collect();
    assert!([log[0], inbox[0], inbox[1], log[1], inbox[2]].is_sorted_by(|a, b| a < b));
}

/// To those that are connected now.
pub fn a_push_without_time_to_live_is_announced_and_not_stored(world: &mut World) {
    let claimed = world.claim("live", 0);
    world.take_notices();
    let id = world.push(Some(&["live", "unknown"]), 0);
    let notices = world.take_notices();
    let [
        Notice::Instant {
            clients: Some(clients),
            message,
            ..
        },
    ] = &notices[..]
    else {
        panic!("not announced: {notices:?}");
    };
    assert_eq!(clients.as_ref(), texts(["live", "unknown"]));
    assert_eq!(text(message), format!("push {id}"));
    assert_eq!(world.inbox("live"), vec![]);
    assert_eq!(world.inbox("unknown"), vec![]);
    let outcome = world.progress("live", &claimed, |progress| {
        progress.receipts = vec![message_id(id)]
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered, report.expired),
        (2, 1, 1)
    );

    let id = world.push(None, 0);
    assert!(matches!(
        &world.take_notices()[..],
        [Notice::Instant { clients: None, .. }]
    ));
    assert_eq!(world.read_log(LogKind::Push, Offset(0), 10).0, vec![]);
    assert_eq!(world.report(id).targeted, 1);
    world.pass_seconds(7 * 86_400);
    world.sweep();
    assert_eq!(world.try_report(id), None);
}

/// So that a step that may have happened can be repeated.
pub fn a_push_of_the_same_id_is_accepted_once(world: &mut World) {
    let accept = Command::Accept(Box::new(world.accept(Some(&["a", "b"]), 100)));
    for _ in 0..2 {
        assert_eq!(
            world.run_push(accept.clone()),
            push::Outcome::Accepted { targeted: Some(2) }
        );
    }
    assert_eq!(world.inbox("a").len(), 1);
    assert_eq!(world.take_notices().len(), 2);
}

/// Until it expires; for another body it is refused.
pub fn an_idempotency_key_makes_a_retry_harmless(world: &mut World) {
    let keyed = |world: &mut World, body: u8| -> Accept {
        let key = Idempotency {
            key: "key".to_owned(),
            body_hash: [body; 32],
            expires_ms: world.now.plus_seconds(86_400).0,
        };
        Accept {
            idempotency: Some(key),
            rows: None,
            channel: Default::default(),
            ..world.accept(Some(&["a"]), 100)
        }
    };
    let accept = |accept: &Accept| Command::Accept(Box::new(accept.clone()));
    let first = keyed(world, 1);
    let accepted_ms = world.now.0;
    assert_eq!(
        world.run_push(accept(&first)),
        push::Outcome::Accepted { targeted: Some(1) }
    );
    world.pass_seconds(1);
    let retry = keyed(world, 1);
    let replayed = push::Outcome::Replayed {
        id: first.id,
        targeted: Some(1),
        accepted_ms,
    };
    assert_eq!(world.answered(&retry), Some(replayed.clone()));
    assert_eq!(world.run_push(accept(&retry)), replayed);
    assert_eq!(world.try_report(retry.id), None);
    assert_eq!(world.inbox("a").len(), 1);
    let other = keyed(world, 2);
    assert_eq!(world.answered(&other), Some(push::Outcome::KeyReused));
    assert_eq!(world.run_push(accept(&other)), push::Outcome::KeyReused);
    world.restart();
    assert_eq!(world.run_push(accept(&retry)), replayed);
    let mut elsewhere = keyed(world, 2);
    elsewhere.app = AppName::new("other").expect("a good name");
    assert_eq!(world.answered(&elsewhere), None);
    assert_eq!(
        world.run_push(accept(&elsewhere)),
        push::Outcome::Accepted { targeted: Some(1) }
    );
    world.pass_seconds(86_399);
    let later = keyed(world, 2);
    assert_eq!(world.answered(&later), None);
    world.sweep();
    assert_eq!(
        world.run_push(accept(&later)),
        push::Outcome::Accepted { targeted: Some(1) }
    );
}

/// Bytes are an estimate, but nothing is nothing.
pub fn what_an_app_keeps_is_counted_until_it_is_gone(world: &mut World) {
    assert_eq!(world.stored(), push::Stored::default());
    world.push(None, 10);
    let with_log = world.stored();
    assert!(with_log.bytes > 0);
    world.push(Some(&["a", "b"]), 10);
    assert!(world.stored().bytes > with_log.bytes);
    world.pass_seconds(10);
    world.sweep();
    assert_eq!(world.stored().bytes, 0);
}

/// First the message, later the report.
pub fn an_expired_push_is_forgotten_in_steps(world: &mut World) {
    let several = world.push(Some(&["a", "b"]), 10);
    let one = world.push(Some(&["a"]), 10);
    let all = world.push(None, 10);
    let lasting = world.push(Some(&["a"]), 1000);
    world.pass_seconds(10);
    assert_eq!(world.sweep().removed, 4);
    assert_eq!(world.inbox("b"), vec![]);
    let left: Vec<_> = world
        .inbox("a")
        .iter()
        .map(|entry| entry.item.message.id)
        .collect();
    assert_eq!(left, [message_id(lasting)]);
    let (entries, _, gap) = world.read_log(LogKind::Push, Offset(0), 10);
    assert_eq!((entries, gap), (vec![], false));
    for id in [several, one, all] {
        assert_eq!(world.report(id).pending, 0);
    }
    assert_eq!(world.report(several).expired, 2);
    world.pass_seconds(7 * 86_400 - 1);
    world.sweep();
    assert!(world.try_report(several).is_some());
    world.pass_seconds(1);
    world.sweep();
    for id in [several, one, all] {
        assert_eq!(world.try_report(id), None);
    }
    assert!(world.try_report(lasting).is_some());
}

/// However many devices one push has.
pub fn a_sweep_is_bounded(world: &mut World) {
    let devices: Vec<String> = (0..100).map(|number| format!("device {number}")).collect();
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let id = world.push(Some(&devices), 10);
    world.now = Millis(world.now.0 + 10_000);
    let mut rounds = 0;
    loop {
        let swept = world.sweep_some(30);
        assert!(swept.removed <= 30);
        rounds += 1;
        let left = devices
            .iter()
            .filter(|device| !world.inbox(device).is_empty())
            .count();
        assert_eq!(left, 100_usize.saturating_sub(30 * rounds));
        if !swept.more {
            break;
        }
    }
    assert!((4..=5).contains(&rounds), "{rounds} rounds");
    assert_eq!(world.report(id).expired, 100);
}
