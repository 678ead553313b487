//! Inboxes: order, bounds, and what outlives a session.

use std::sync::Arc;

use campanile_broker::{
    ids::Offset,
    store::{Command, Notice, Outcome, Page, Publish, Query, Source, Subscribe},
};

use super::{World, client, item, publish, subscription, text};

/// As appended, with everything that belongs to the delivery.
pub fn an_inbox_is_read_in_order(world: &mut World) {
    world.claim("a", 60);
    world.take_notices();
    let messages: Vec<_> = (0..3)
        .map(|number| world.send("a", &number.to_string()))
        .collect();
    let entries = world.inbox("a");
    let items: Vec<_> = entries.iter().map(|entry| entry.item.clone()).collect();
    assert_eq!(items, messages.iter().map(item).collect::<Vec<_>>());
    assert!(entries.is_sorted_by(|a, b| a.offset < b.offset));
    let is_shared = world.config.shared;
    let previous_of = |offset: Offset| {
        let before = entries.iter().rev().find(|entry| entry.offset < offset);
        before
            .filter(|_| is_shared)
            .map_or(Offset::default(), |entry| entry.offset)
    };
    let announced: Vec<_> = entries
        .iter()
        .map(|entry| Notice::Inbox {
            client: client("a"),
            owner: world.node,
            previous: previous_of(entry.offset),
            entry: entry.clone(),
            replaced: None,
        })
        .collect();
    assert_eq!(world.take_notices(), announced);
    world.restart();
    assert_eq!(world.inbox("a"), entries);
    let claimed = world.claim("a", 60);
    assert!(!claimed.inbox_waiting.is_empty());

    let done = [entries[1].offset, Offset(1_000_000)];
    let outcome = world.progress("a", &claimed, |progress| {
        progress.inbox_done = done.to_vec()
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(world.inbox_payloads("a"), ["0", "2"]);
    let done = [entries[0].offset, entries[2].offset];
    let outcome = world.progress("a", &claimed, |progress| {
        progress.inbox_done = done.to_vec()
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(world.inbox_payloads("a"), Vec::<String>::new());
    assert!(world.claim("a", 60).inbox_waiting.is_empty());
}

/// By entries and by bytes, and says whether there is more.
pub fn an_inbox_page_is_bounded(world: &mut World) {
    world.claim("a", 60);
    for number in 0..5 {
        world.send("a", &number.to_string());
    }
    let (first, more) = world.read_inbox("a", Offset(0), 2);
    assert_eq!((first.len(), more), (2, true));
    let (rest, more) = world.read_inbox("a", first[1].offset, 3);
    assert_eq!((rest.len(), more), (3, false));
    let big = "x".repeat(700_000);
    for _ in 0..3 {
        world.send("a", &big);
    }
    let (page, more) = world.read_inbox("a", rest[2].offset, 100);
    assert_eq!((page.len(), more), (2, true));
    let places = vec![
        (Source::Inbox, rest[0].offset),
        (Source::Inbox, Offset(1_000_000)),
    ];
    let Page::Entries(found) = world.read(&Query::Entries {
        client: client("a"),
        places,
    }) else {
        panic!("no entries");
    };
    assert_eq!(
        found,
        vec![((Source::Inbox, rest[0].offset), rest[0].item.clone())]
    );
}

/// A shared subscription's message to a session that ended is nobody's.
pub fn messages_to_nobody_are_dropped(world: &mut World) {
    world.send("never seen", "x");
    let claimed = world.claim("a", 0);
    world.release("a", &claimed, 0);
    world.send("a", "x");
    assert_eq!(world.take_notices(), []);
    assert!(world.claim("a", 60).inbox_waiting.is_empty());
    assert!(world.claim("never seen", 60).inbox_waiting.is_empty());
}

/// And goes on from there.
pub fn a_full_inbox_drops_the_oldest(world: &mut World) {
    world.config.inbox_max_entries = 3;
    world.restart();
    let claimed = world.claim("a", 60);
    for number in 0..5 {
        world.send("a", &number.to_string());
    }
    assert_eq!(world.inbox_payloads("a"), ["2", "3", "4"]);
    let middle = world.inbox("a")[1].offset;
    let outcome = world.progress("a", &claimed, |progress| progress.inbox_done = vec![middle]);
    assert_eq!(outcome, Ok(Outcome::Done));
    world.send("a", "5");
    assert_eq!(world.inbox_payloads("a"), ["2", "4", "5"]);
    world.send("a", "6");
    assert_eq!(world.inbox_payloads("a"), ["4", "5", "6"]);
}

/// One that is larger than the bound is dropped itself.
pub fn an_inbox_is_bounded_in_bytes(world: &mut World) {
    world.config.inbox_max_bytes = 1000;
    world.restart();
    world.claim("a", 60);
    for letter in ["a", "b", "c"] {
        world.send("a", &letter.repeat(400));
    }
    let first_letters =
        |payloads: Vec<String>| payloads.iter().map(|text| text[..1].to_owned()).collect();
    let left: Vec<String> = first_letters(world.inbox_payloads("a"));
    assert_eq!(left, ["b", "c"]);
    world.take_notices();
    world.send("a", &"d".repeat(2000));
    assert_eq!(world.inbox_payloads("a"), Vec::<String>::new());
    assert_eq!(world.take_notices(), []);
    world.send("a", "e");
    assert_eq!(world.inbox_payloads("a"), ["e"]);
}

/// Since pushes are the device's.
pub fn pushes_survive_a_clean_start_and_publishes_do_not(world: &mut World) {
    for expiry_seconds in [60, 0] {
        let name = format!("device {expiry_seconds}");
        let first = world.claim(&name, 60);
        world.send(&name, "publish");
        world.push(Some(&[&name]), 100);
        world.send(&name, "publish");
        let second = world.claim_with(&name, |claim| {
            (claim.clean_start, claim.expiry_seconds) = (true, expiry_seconds);
        });
        assert!(!second.inbox_waiting.is_empty());
        assert_eq!(second.ordinal, first.ordinal);
        let left = world.inbox_payloads(&name);
        assert_eq!(left.len(), 1);
        assert!(left[0].starts_with("push "));
    }
}

/// At its end as after a crash.
pub fn pushes_survive_an_ephemeral_session_and_publishes_do_not(world: &mut World) {
    for crash in [false, true] {
        let name = format!("device {crash}");
        let claimed = world.claim(&name, 0);
        world.send(&name, "publish");
        world.push(Some(&[&name]), 100);
        assert_eq!(world.inbox(&name).len(), 2);
        if crash {
            world.restart();
        } else {
            world.release(&name, &claimed, 0);
        }
        let left = world.inbox_payloads(&name);
        assert_eq!(left.len(), 1);
        assert!(left[0].starts_with("push "));
        let again = world.claim(&name, 0);
        assert!(!again.inbox_waiting.is_empty());
        assert_eq!(again.ordinal, claimed.ordinal);
    }
}

/// So that it takes no room of the quota.
pub fn an_expired_inbox_message_is_swept(world: &mut World) {
    world.claim("a", 60);
    let mut message = world.message("t", "short-lived");
    message.expires_at = Some(world.now.plus_seconds(10));
    let message = Arc::new(message);
    let inboxes = vec![("a".into(), item(&message))];
    world.done(Command::Publish(Publish {
        inboxes,
        ..publish(&message)
    }));
    world.send("a", "long-lived");
    world.pass_seconds(10);
    assert_eq!(world.sweep().removed, 1);
    assert_eq!(world.inbox_payloads("a"), ["long-lived"]);
}

/// In the same commit.
pub fn retained_messages_come_with_the_subscription(world: &mut World) {
    let claimed = world.claim("a", 60);
    world.take_notices();
    let inbox: Vec<_> = ["one", "two"]
        .iter()
        .map(|text| item(&Arc::new(world.message("r", text))))
        .collect();
    world.done(Command::Subscribe(Subscribe {
        client: client("a"),
        epoch: claimed.epoch,
        add: vec![subscription("r")],
        remove: vec![],
        inbox,
    }));
    let mut notices = world.take_notices();
    notices.retain(|notice| matches!(notice, Notice::Inbox { .. }));
    assert_eq!(notices.len(), 2);
    let texts: Vec<_> = world
        .inbox("a")
        .iter()
        .map(|entry| text(&entry.item.message))
        .collect();
    assert_eq!(texts, ["one", "two"]);
}
