//! Logs, retained messages, and what of a publish is kept.

use std::sync::Arc;

use campanile_broker::store::PacketId;
use campanile_broker::{
    ids::{AppId, Offset},
    store::{Change, Command, LogKind, MAX_POSTED_FILTERS, Notice, Page, Publish, Query, Source},
};

use super::{APP, World, client, publish, text};

const TOPICS: LogKind = LogKind::Topic(0);

/// As appended, each announced with the one before it.
pub fn a_log_is_read_in_order(world: &mut World) {
    let messages: Vec<_> = (0..5)
        .map(|number| world.append(TOPICS, &number.to_string()))
        .collect();
    let (entries, read_to, gap) = world.read_log(TOPICS, Offset(0), 100);
    let read: Vec<_> = entries.iter().map(|entry| entry.message.clone()).collect();
    assert_eq!(read, messages);
    assert!(entries.is_sorted_by(|a, b| a.offset < b.offset));
    assert_eq!((read_to, gap), (entries[4].offset, false));
    assert!(entries[0].offset > Offset(0));
    let mut previous = Offset(0);
    let notices = world.take_notices();
    assert_eq!(notices.len(), 5);
    for (notice, entry) in notices.into_iter().zip(entries) {
        let app = AppId::new(APP);
        let offset = entry.offset;
        assert_eq!(
            notice,
            Notice::Log {
                app,
                log: TOPICS,
                previous,
                entry,
                changes: Offset(0),
            }
        );
        previous = offset;
    }
}

/// Entries that were kept for one of the filters, each once, and those that were kept for too many to list.
pub fn a_log_is_read_by_filter(world: &mut World) {
    let many: Vec<String> = (0..=MAX_POSTED_FILTERS)
        .map(|number| format!("many/{number}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let posted: [(&str, &[&str]); 6] = [
        ("both", &["a/+", "a/b"]),
        ("other", &["c"]),
        ("none", &[]),
        ("all", &many),
        ("wild", &["a/+"]),
        ("last", &["c"]),
    ];
    for (payload, filters) in posted {
        let message = Arc::new(world.message("t", payload));
        let publish = Publish {
            log: Some(TOPICS),
            filters: filters.iter().map(|&filter| filter.into()).collect(),
            ..publish(&message)
        };
        world.done(Command::Publish(publish));
    }
    let end = world.read_log(TOPICS, Offset(0), 100).1;
    let mut read = |filters: &[&str], after, limit| {
        let query = Query::Matching {
            app: AppId::new(APP),
            log: TOPICS,
            filters: filters.iter().map(|&filter| filter.into()).collect(),
            after,
            limit,
        };
        let Page::Log {
            entries,
            read_to,
            gap: false,
        } = world.read(&query)
        else {
            panic!("no page, or a gap");
        };
        let payloads: Vec<_> = entries
            .iter()
            .map(|entry| text(&entry.message).to_owned())
            .collect();
        (payloads, read_to)
    };
    let (found, read_to) = read(&["a/b", "a/+"], Offset(0), 100);
    assert_eq!((found.join(" ").as_str(), read_to), ("both all wild", end));
    let (found, read_to) = read(&["a/b", "a/+"], Offset(0), 2);
    assert_eq!(found.join(" "), "both all");
    assert!(read_to < end);
    let (found, read_to) = read(&["a/b", "a/+"], read_to, 2);
    assert_eq!((found.join(" ").as_str(), read_to), ("wild", end));
    assert_eq!(
        read(&["nobody"], Offset(0), 2),
        (vec!["all".to_owned()], end)
    );
    assert_eq!(read(&["c"], end, 2), (vec![], end));
}

/// By entries and by bytes, and says where it stopped.
pub fn a_log_page_is_bounded(world: &mut World) {
    for number in 0..5 {
        world.append(TOPICS, &number.to_string());
    }
    let (first, read_to, _) = world.read_log(TOPICS, Offset(0), 2);
    assert_eq!((first.len(), read_to), (2, first[1].offset));
    let (rest, end, _) = world.read_log(TOPICS, read_to, 3);
    assert_eq!((rest.len(), end), (3, rest[2].offset));
    assert_eq!(world.read_log(TOPICS, end, 3), (vec![], end, false));

    let big = "x".repeat(700_000);
    for _ in 0..3 {
        world.append(TOPICS, &big);
    }
    let (page, read_to, _) = world.read_log(TOPICS, end, 100);
    assert_eq!((page.len(), read_to), (2, page[1].offset));
    let places = vec![
        (Source::Log(TOPICS), page[1].offset),
        (Source::Log(TOPICS), Offset(1_000_000)),
        (Source::Inbox, page[0].offset),
        (Source::Log(TOPICS), rest[0].offset),
    ];
    let Page::Entries(found) = world.read(&Query::Entries {
        client: client("a"),
        places,
    }) else {
        panic!("no entries");
    };
    let found: Vec<_> = found
        .iter()
        .map(|(place, item)| (*place, text(&item.message).len()))
        .collect();
    let log = Source::Log(TOPICS);
    assert_eq!(
        found,
        [((log, page[1].offset), 700_000), ((log, rest[0].offset), 1)]
    );
}

/// By kind, by partition and by app; their offsets are comparable.
pub fn logs_are_kept_apart(world: &mut World) {
    world.config.topic_partitions = 2;
    world.restart();
    world.append(TOPICS, "topic 0");
    world.append(LogKind::Topic(1), "topic 1");
    world.append(LogKind::Push, "push");
    let message = Arc::new(world.message("t", "of another app"));
    let app = AppId::new("other");
    world.done(Command::Publish(Publish {
        app,
        log: Some(TOPICS),
        ..publish(&message)
    }));
    let mut offsets = Vec::new();
    for (log, payload) in [
        (TOPICS, "topic 0"),
        (LogKind::Topic(1), "topic 1"),
        (LogKind::Push, "push"),
    ] {
        assert_eq!(world.log_payloads(log, Offset(0)), [payload]);
        offsets.push(world.read_log(log, Offset(0), 1).1);
    }
    assert!(offsets.is_sorted_by(|a, b| a < b));
    let claimed = world.claim("a", 60);
    assert_eq!(claimed.topic_ends, offsets[..2]);
    assert_eq!(claimed.push_cursor.done, offsets[2]);
}

/// Not after a restart, not after the log was trimmed.
pub fn offsets_never_repeat(world: &mut World) {
    world.append(TOPICS, "one");
    let (_, first, _) = world.read_log(TOPICS, Offset(0), 1);
    world.pass_seconds(30 * 86_400);
    world.sweep();
    assert_eq!(world.log_payloads(TOPICS, Offset(0)), Vec::<String>::new());
    world.restart();
    assert_eq!(world.claim("a", 60).topic_ends, [first]);
    world.append(TOPICS, "two");
    let (entries, _, _) = world.read_log(TOPICS, first, 1);
    assert!(entries[0].offset > first);
}

/// A reader that was before it is told.
pub fn an_old_entry_is_trimmed_and_leaves_a_gap(world: &mut World) {
    world.config.topic_log_max_age_ms = 100_000;
    world.restart();
    world.append(TOPICS, "one");
    world.append(TOPICS, "two");
    world.pass_seconds(60);
    world.sweep();
    world.append(TOPICS, "three");
    let (entries, _, _) = world.read_log(TOPICS, Offset(0), 10);
    world.pass_seconds(39);
    assert_eq!(world.sweep().removed, 0);
    world.pass_seconds(1);
    let swept = world.sweep_some(1);
    assert_eq!((swept.removed, swept.more), (1, true));
    let swept = world.sweep_some(10);
    assert_eq!((swept.removed, swept.more), (1, false));
    let (left, read_to, gap) = world.read_log(TOPICS, entries[0].offset, 10);
    assert_eq!(
        (&left[..], read_to, gap),
        (&entries[2..], entries[2].offset, true)
    );
    let (left, _, gap) = world.read_log(TOPICS, entries[1].offset, 10);
    assert_eq!((&left[..], gap), (&entries[2..], false));
    world.restart();
    assert!(world.read_log(TOPICS, Offset(0), 10).2);
    world.pass_seconds(60);
    assert_eq!(world.sweep().removed, 1);
}

/// The oldest go.
pub fn a_log_is_bounded_in_bytes(world: &mut World) {
    world.config.topic_log_max_bytes = 10_000;
    world.restart();
    let payload = "x".repeat(1000);
    for _ in 0..20 {
        world.append(TOPICS, &payload);
    }
    let removed = world.sweep().removed;
    let left = world.read_log(TOPICS, Offset(0), 100).0.len() as u32;
    assert_eq!(removed + left, 20);
    assert!(
        (8..=10).contains(&left),
        "{left} entries of about 1,030 bytes are left of 10,000 bytes"
    );
    assert_eq!(world.sweep().removed, 0);
}

/// Until its identifier is released, whatever happens in between.
pub fn a_qos_2_publish_is_stored_once(world: &mut World) {
    let claimed = world.claim("a", 60);
    assert!(world.receive_qos_2("a", claimed.epoch, 5));
    assert!(!world.receive_qos_2("a", claimed.epoch, 5));
    assert!(world.receive_qos_2("a", claimed.epoch, 6));
    world.restart();
    let claimed = world.claim("a", 60);
    let ids = |ids: &[u16]| {
        ids.iter()
            .filter_map(|id| PacketId::new(*id))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        claimed.resumed.as_ref().expect("it goes on").received,
        ids(&[5, 6])
    );
    assert!(!world.receive_qos_2("a", claimed.epoch, 5));
    for _ in 0..2 {
        let packet_id = PacketId::new(5).expect("not 0");
        world.done(Command::ForgetReceived {
            client: client("a"),
            epoch: claimed.epoch,
            packet_id,
        });
    }
    let claimed = world.claim("a", 60);
    assert_eq!(
        claimed.resumed.as_ref().expect("it goes on").received,
        ids(&[6])
    );
    assert!(world.receive_qos_2("a", claimed.epoch, 5));
}

/// All shards hear of it; removing nothing is no news.
pub fn a_retained_message_is_replaced_and_removed(world: &mut World) {
    let messages = ["", "one", "two", ""].map(|payload| Arc::new(world.message("r/1", payload)));
    for message in &messages {
        world.done(Command::Publish(Publish {
            retain: true,
            ..publish(message)
        }));
    }
    let notice = |message: Option<&Arc<_>>| Change::Retained {
        topic: "r/1".into(),
        message: message.cloned(),
    };
    let expected = [
        notice(Some(&messages[1])),
        notice(Some(&messages[2])),
        notice(None),
    ];
    assert_eq!(world.take_changes(), expected);
}

/// At its own time, even if one with another time was there before.
pub fn a_retained_message_expires(world: &mut World) {
    for (payload, seconds) in [("short", 10), ("long", 100)] {
        let mut message = world.message("r", payload);
        message.expires_at = Some(world.now.plus_seconds(seconds));
        world.done(Command::Publish(Publish {
            retain: true,
            ..publish(&Arc::new(message))
        }));
    }
    world.take_notices();
    world.pass_seconds(10);
    assert_eq!(world.sweep().removed, 0);
    assert_eq!(world.take_notices(), []);
    world.pass_seconds(90);
    assert_eq!(world.sweep().removed, 1);
    assert_eq!(
        world.take_changes(),
        [Change::Retained {
            topic: "r".into(),
            message: None
        }]
    );
}
