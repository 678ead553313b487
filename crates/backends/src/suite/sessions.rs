//! Claiming, fencing, resuming and ending sessions.

use campanile_broker::store::{PacketId, QoS};
use campanile_broker::{
    ids::{Epoch, Offset},
    store::{Command, Cursor, LogKind, Outcome, Source, StoreError, Subscribe, Unfinished},
};

use super::{World, client, cursor, progress, publish, subscription, texts};
use crate::{Reply, Request};

const TOPICS: LogKind = LogKind::Topic(0);

/// Nothing is resumed, nothing ended, nothing waits.
pub fn a_new_client_has_no_session(world: &mut World) {
    world.append(TOPICS, "before");
    let end = world.append_end();
    let claimed = world.claim("a", 60);
    assert_eq!(claimed.resumed, None);
    assert_eq!(claimed.ended_filters, texts([]));
    assert_eq!(claimed.owed_will, None);
    assert_eq!(claimed.push_cursor, cursor(LogKind::Push, Offset(0)));
    assert_eq!(claimed.topic_ends, vec![end]);
    assert!(claimed.inbox_waiting.is_empty());
}

/// Subscriptions, cursors and exchanges come back as they were saved.
pub fn a_durable_session_goes_on_where_it_was(world: &mut World) {
    let first = world.claim("a", 60);
    world.subscribe("a", first.epoch, &["x/#", "$share/g/y"]);
    let cursors = vec![
        Cursor {
            log: TOPICS,
            done: Offset(3),
            done_above: vec![Offset(5), Offset(9)],
        },
        cursor(LogKind::Push, Offset(4)),
    ];
    let unfinished = vec![
        exchange(9, Source::Log(TOPICS), 7, QoS::ExactlyOnce, true),
        exchange(2, Source::Inbox, 8, QoS::AtLeastOnce, false),
        exchange(3, Source::Log(LogKind::Push), 2, QoS::AtLeastOnce, false),
    ];
    let saved = (cursors.clone(), unfinished.clone());
    let outcome = world.progress("a", &first, |progress| {
        progress.cursors = Some(saved.0);
        progress.unfinished = Some(saved.1);
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    world.release("a", &first, 60);
    world.pass_seconds(59);

    let second = world.claim("a", 60);
    let mut resumed = second.resumed.expect("it goes on");
    resumed
        .subscriptions
        .sort_by(|a, b| a.filter.cmp(&b.filter));
    assert_eq!(
        resumed.subscriptions,
        vec![subscription("$share/g/y"), subscription("x/#")]
    );
    assert_eq!(resumed.cursors, cursors[..1]);
    assert_eq!(resumed.unfinished, unfinished);
    assert_eq!(second.push_cursor, cursors[1]);
    assert_eq!(second.ended_filters, texts([]));
    assert_eq!(second.ordinal, first.ordinal);
}

/// What was acknowledged before a crash is there after it.
pub fn a_session_survives_a_restart(world: &mut World) {
    let first = world.claim("a", 60);
    world.subscribe("a", first.epoch, &["x", "y"]);
    let remove = texts(["x"]);
    let change = Subscribe {
        client: client("a"),
        epoch: first.epoch,
        add: vec![],
        remove,
        inbox: vec![],
    };
    world.done(Command::Subscribe(change));
    world.restart();
    let second = world.claim("a", 60);
    assert_eq!(
        second.resumed.expect("it goes on").subscriptions,
        vec![subscription("y")]
    );
    assert_eq!(second.ordinal, first.ordinal);
}

/// Its filters are named, and nothing of it is left.
pub fn a_clean_start_ends_the_session(world: &mut World) {
    let first = world.claim("a", 60);
    world.subscribe("a", first.epoch, &["x", "y"]);
    world.receive_qos_2("a", first.epoch, 5);
    let second = world.claim_with("a", |claim| {
        (claim.clean_start, claim.expiry_seconds) = (true, 60)
    });
    assert_eq!(second.resumed, None);
    let mut ended = second.ended_filters;
    ended.sort();
    assert_eq!(ended, texts(["x", "y"]));
    let third = world.claim("a", 60);
    let resumed = third
        .resumed
        .expect("the session of the clean start goes on");
    assert_eq!((resumed.subscriptions, resumed.received), (vec![], vec![]));
}

/// Also if nothing swept it.
pub fn an_expired_session_is_absent(world: &mut World) {
    let first = world.claim("a", 60);
    world.subscribe("a", first.epoch, &["x"]);
    world.release("a", &first, 60);
    world.pass_seconds(60);
    let second = world.claim("a", 60);
    assert_eq!(second.resumed, None);
    assert_eq!(second.ended_filters, texts(["x"]));
}

/// It is named with its filters; one that came back is not.
pub fn an_expired_session_is_swept_once(world: &mut World) {
    for name in ["gone", "back", "forever"] {
        let claimed = world.claim(name, 60);
        world.subscribe(name, claimed.epoch, &["x"]);
        world.release(
            name,
            &claimed,
            if name == "forever" { u32::MAX } else { 60 },
        );
    }
    world.claim("back", 60);
    world.pass_seconds(59);
    assert_eq!(world.sweep().ended, vec![]);
    world.pass_seconds(1);
    let swept = world.sweep();
    assert_eq!(swept.ended, vec![(client("gone"), texts(["x"]))]);
    assert!(!swept.more);
    assert_eq!(world.sweep().removed, 0);
    assert!(world.claim("forever", 60).resumed.is_some());
}

/// And leaves nothing to resume, whatever the next claim asks for.
pub fn a_session_without_expiry_ends_with_its_connection(world: &mut World) {
    let first = world.claim("a", 0);
    assert_eq!(world.progress("a", &first, |_| {}), Ok(Outcome::Done));
    world.release("a", &first, 0);
    assert_eq!(world.progress("a", &first, |_| {}), Err(StoreError::Fenced));
    assert_eq!(world.claim("a", 60).resumed, None);
    world.restart();
    let second = world.claim("b", 0);
    world.pass_seconds(1);
    world.restart();
    assert_eq!(world.claim("b", 60).resumed, None);
    assert_eq!(
        world.progress("b", &second, |_| {}),
        Err(StoreError::Fenced)
    );
}

/// A stored session that is claimed without expiry goes on, and ends then.
pub fn a_resumed_session_may_end_with_its_connection(world: &mut World) {
    let first = world.claim("a", 60);
    world.subscribe("a", first.epoch, &["x"]);
    world.release("a", &first, 60);
    let second = world.claim("a", 0);
    assert!(second.resumed.is_some());
    world.release("a", &second, 0);
    let third = world.claim("a", 60);
    assert_eq!((third.resumed, third.ended_filters), (None, vec![]));

    world.claim("b", 60);
    let resumed = world.claim("b", 0);
    assert!(resumed.resumed.is_some());
    world.restart();
    assert_eq!(world.claim("b", 60).resumed, None);
}

/// Whatever kind of session it is.
pub fn every_claim_raises_the_epoch(world: &mut World) {
    let mut last = Epoch(0);
    for expiry_seconds in [60, 60, 0, 0, 60, 0] {
        let claimed = world.claim_with("a", |claim| {
            claim.expiry_seconds = expiry_seconds;
            claim.clean_start = expiry_seconds == 0;
        });
        assert!(claimed.epoch > last);
        last = claimed.epoch;
    }
    let before = world.claim("durable", 60).epoch;
    world.restart();
    assert!(world.claim("durable", 60).epoch > before);
}

/// In every command that carries one.
pub fn an_old_epoch_is_fenced(world: &mut World) {
    for expiry_seconds in [60, 0] {
        let old = world.claim("a", expiry_seconds);
        let new = world.claim("a", expiry_seconds);
        let (client, epoch) = (client("a"), old.epoch);
        let message = std::sync::Arc::new(world.message("t", "x"));
        let release = campanile_broker::store::Release {
            progress: progress("a", &old),
            expires_at: None,
            now: world.now,
            will_at: None,
        };
        let packet_id = PacketId::new(1).expect("not 0");
        let received = Some(campanile_broker::store::Received {
            client: client.clone(),
            epoch,
            packet_id,
        });
        let commands = [
            Command::Progress(progress("a", &old)),
            Command::Release(release),
            Command::Subscribe(Subscribe {
                client: client.clone(),
                epoch,
                add: vec![subscription("x")],
                remove: vec![],
                inbox: vec![],
            }),
            Command::Publish(campanile_broker::store::Publish {
                log: Some(TOPICS),
                received,
                ..publish(&message)
            }),
            Command::ForgetReceived {
                client,
                epoch,
                packet_id,
            },
        ];
        for command in commands {
            assert_eq!(
                world.run(command.clone()),
                Err(StoreError::Fenced),
                "{command:?}"
            );
        }
        assert_eq!(world.log_payloads(TOPICS, Offset(0)), Vec::<String>::new());
        assert_eq!(world.progress("a", &new, |_| {}), Ok(Outcome::Done));
    }
}

/// Those before and after it in the batch are carried out, in their order.
pub fn a_refused_request_does_not_disturb_the_batch(world: &mut World) {
    let old = world.claim("a", 60);
    let new = world.claim("a", 60);
    let subscribe = |epoch, filter: &str| {
        let add = vec![subscription(filter)];
        let subscribe = Subscribe {
            client: client("a"),
            epoch,
            add,
            remove: vec![],
            inbox: vec![],
        };
        Request::Broker(Command::Subscribe(subscribe))
    };
    let batch = vec![
        subscribe(new.epoch, "one"),
        subscribe(old.epoch, "two"),
        subscribe(new.epoch, "three"),
    ];
    let replies = world.commit(batch);
    let done = Ok(Reply::Broker(Outcome::Done));
    assert_eq!(replies, vec![done.clone(), Err(StoreError::Fenced), done]);
    let resumed = world.claim("a", 60).resumed.expect("it goes on");
    let mut filters: Vec<_> = resumed
        .subscriptions
        .iter()
        .map(|subscription| &*subscription.filter)
        .collect();
    filters.sort();
    assert_eq!(filters, ["one", "three"]);
}

/// No two devices that exist at the same time share one.
pub fn devices_keep_their_numbers(world: &mut World) {
    let a = world.claim("a", 60);
    let b = world.claim("b", 0);
    let c = world.claim("c", 60);
    assert!(a.ordinal != b.ordinal && b.ordinal != c.ordinal && a.ordinal != c.ordinal);
    assert_eq!(world.claim("b", 0).ordinal, b.ordinal);
    assert_eq!(world.claim("b", 60).ordinal, b.ordinal);
    world.restart();
    assert_eq!(world.claim("a", 60).ordinal, a.ordinal);
    assert_eq!(world.claim("b", 60).ordinal, b.ordinal);
    let d = world.claim("d", 60);
    assert!(![a.ordinal, b.ordinal, c.ordinal].contains(&d.ordinal));
}

/// From the time of the recovery, not of the crash.
pub fn connections_of_the_last_run_begin_to_expire_at_recovery(world: &mut World) {
    let claimed = world.claim("a", 60);
    world.subscribe("a", claimed.epoch, &["x"]);
    world.pass_seconds(1000);
    world.restart();
    world.pass_seconds(59);
    assert_eq!(world.sweep().ended, vec![]);
    world.pass_seconds(1);
    assert_eq!(world.sweep().ended, vec![(client("a"), texts(["x"]))]);
}

/// Replacing changes the options and does not add a second one.
pub fn many_subscriptions_are_changed_one_by_one(world: &mut World) {
    let claimed = world.claim("a", 60);
    for number in 0..300 {
        world.subscribe("a", claimed.epoch, &[&format!("t/{number}")]);
    }
    let mut replaced = subscription("t/7");
    replaced.options.qos = QoS::AtMostOnce;
    replaced.id = None;
    world.done(Command::Subscribe(Subscribe {
        client: client("a"),
        epoch: claimed.epoch,
        add: vec![replaced.clone()],
        remove: vec!["t/8".into(), "not there".into()],
        inbox: vec![],
    }));
    let resumed = world.claim("a", 60).resumed.expect("it goes on");
    assert_eq!(resumed.subscriptions.len(), 299);
    assert!(resumed.subscriptions.contains(&replaced));
    assert!(
        resumed
            .subscriptions
            .iter()
            .all(|subscription| &*subscription.filter != "t/8")
    );
}

/// MQTT allows 65,535 bytes for each.
pub fn long_client_ids_and_filters_are_kept_apart(world: &mut World) {
    let names = [
        format!("{}a", "x".repeat(65_534)),
        format!("{}b", "x".repeat(65_534)),
    ];
    for name in &names {
        let claimed = world.claim(name, 60);
        world.subscribe(name, claimed.epoch, &[name]);
    }
    world.restart();
    for name in &names {
        let resumed = world.claim(name, 60).resumed.expect("it goes on");
        assert_eq!(resumed.subscriptions, [subscription(name)]);
    }
}

fn exchange(packet_id: u16, source: Source, offset: u64, qos: QoS, released: bool) -> Unfinished {
    let packet_id = PacketId::new(packet_id).expect("not 0");
    Unfinished {
        packet_id,
        source,
        offset: Offset(offset),
        qos,
        released,
    }
}

impl World {
    /// The end of the topic log.
    fn append_end(&mut self) -> Offset {
        self.read_log(TOPICS, Offset(0), 1000).1
    }

    /// Stores a QoS 2 publish of a client. Returns whether the log grew.
    pub fn receive_qos_2(&mut self, client_id: &str, epoch: Epoch, packet_id: u16) -> bool {
        let before = self.append_end();
        let message = std::sync::Arc::new(self.message("t", "qos 2"));
        let packet_id = PacketId::new(packet_id).expect("not 0");
        let received = campanile_broker::store::Received {
            client: client(client_id),
            epoch,
            packet_id,
        };
        self.done(Command::Publish(campanile_broker::store::Publish {
            log: Some(TOPICS),
            received: Some(received),
            ..publish(&message)
        }));
        self.append_end() > before
    }
}
