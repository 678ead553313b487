//! The model passes the suite, and has the faults that it promises.

mod common;

use campanile_backends::conformance_tests;
use common::MemoryPlace;

conformance_tests!(MemoryPlace::default());

mod shared {
    use super::MemoryPlace;

    campanile_backends::shared_conformance_tests!(MemoryPlace::default());
}

use campanile_backends::{
    Backend, Committed, Config, Reply, Request,
    memory::Memory,
    suite::{client, progress, publish},
};
use campanile_broker::{
    ids::{Generation, MessageId, Millis, Offset},
    message::{Kind, Message},
    store::{Claim, Claimed, Command, LogKind, Outcome, Page, Publish, Query, StoreError},
};

const LOG: LogKind = LogKind::Topic(0);

fn claim(client_id: &str, expiry_seconds: u32) -> Request {
    let client = client(client_id);
    let claim = Claim {
        client,
        owner: Generation::ALONE,
        now: Millis(1),
        clean_start: false,
        expiry_seconds,
        will: None,
    };
    Request::Broker(Command::Claim(claim))
}

fn append(id: u128) -> Request {
    let message = Message::new(
        MessageId(id),
        Kind::Publish,
        "t",
        &[],
        id.to_string().as_bytes(),
    );
    Request::Broker(Command::Publish(Publish {
        log: Some(LOG),
        ..publish(&message.into())
    }))
}

fn claimed(reply: &Result<Reply, StoreError>) -> Claimed {
    match reply {
        Ok(Reply::Broker(Outcome::Claimed(claimed))) => claimed.as_ref().clone(),
        other => panic!("no claim: {other:?}"),
    }
}

fn log(memory: &Memory) -> Vec<u128> {
    let query = Query::Log {
        app: client("a").app,
        log: LOG,
        after: Offset(0),
        limit: 100,
    };
    match memory.reader().read(&query) {
        Ok(Page::Log { entries, .. }) => entries.iter().map(|entry| entry.message.id.0).collect(),
        other => panic!("no log: {other:?}"),
    }
}

#[test]
fn a_failed_commit_refuses_what_must_be_durable_and_nothing_else() {
    let mut memory = Memory::new(Config::default());
    let first = claimed(&memory.commit(vec![claim("first", 0)]).replies[0]);
    memory.commit(vec![append(1)]);
    let before = memory.disk();
    memory.fail_commits(Some("disk full"));
    let full = Err(StoreError::Unavailable("disk full".into()));

    let batch = vec![
        append(2),
        claim("ephemeral", 0),
        claim("durable", 60),
        Request::Broker(Command::Progress(progress("first", &first))),
    ];
    let Committed {
        replies,
        notices,
        writes,
        ..
    } = memory.commit(batch);
    assert_eq!((notices, writes), (vec![], 0));
    assert_eq!((&replies[0], &replies[2]), (&full, &full));
    let ephemeral = claimed(&replies[1]);
    assert_eq!(ephemeral.topic_ends, [Offset(1)]);
    assert_ne!(ephemeral.ordinal, first.ordinal);
    assert_eq!(replies[3], Ok(Reply::Broker(Outcome::Done)));
    assert_eq!(memory.disk(), before);

    memory.fail_commits(None);
    let Committed {
        replies, notices, ..
    } = memory.commit(vec![append(3), claim("durable", 60)]);
    assert_eq!(replies[0], Ok(Reply::Broker(Outcome::Done)));
    let durable = claimed(&replies[1]);
    assert!(durable.ordinal != ephemeral.ordinal && durable.ordinal != first.ordinal);
    assert_eq!(notices.len(), 1);
    assert_eq!(log(&memory), [1, 3]);
}

#[test]
fn a_crash_loses_what_was_not_synced() {
    let mut memory = Memory::new(Config::default());
    memory.commit(vec![append(1)]);
    memory.hold_syncs();
    memory.commit(vec![append(2)]);
    memory.sync();
    memory.commit(vec![append(3), append(4)]);
    memory.commit(vec![append(5)]);
    assert_eq!(memory.unsynced(), 2);
    let after_power_loss = Memory::open(memory.crash(1), Config::default()).unwrap();
    assert_eq!(log(&after_power_loss), [1, 2, 3, 4]);
}

#[test]
fn what_was_on_disk_stays_as_it_was() {
    let mut memory = Memory::new(Config::default());
    memory.commit(vec![append(1)]);
    let disk = memory.disk();
    memory.commit(vec![append(2)]);
    assert_eq!(log(&Memory::open(disk, Config::default()).unwrap()), [1]);
    assert_eq!(log(&memory), [1, 2]);
}

/// What was given before it, and lost with it, belongs to something else.
#[test]
fn a_failover_of_a_shared_store_repeats_no_epochs_and_no_places() {
    let config = Config {
        shared: true,
        ..Config::default()
    };
    let mut memory = Memory::new(config.clone());
    memory.hold_syncs();
    let claim_at = |now| {
        let Request::Broker(Command::Claim(claim)) = claim("a", 60) else {
            unreachable!("it is a claim");
        };
        let now = Millis(now);
        Request::Broker(Command::Claim(Claim { now, ..claim }))
    };
    let end = |memory: &Memory| match memory.reader().read(&Query::Log {
        app: client("a").app,
        log: LOG,
        after: Offset(0),
        limit: 100,
    }) {
        Ok(Page::Log { read_to, .. }) => read_to,
        other => panic!("no log: {other:?}"),
    };
    let lost = claimed(&memory.commit(vec![claim_at(1000), append(1)]).replies[0]);
    let lost_end = end(&memory);
    let mut successor = Memory::open(memory.crash(0), config).unwrap();
    assert_eq!(end(&successor), Offset(0));
    let next = claimed(&successor.commit(vec![claim_at(1001), append(2)]).replies[0]);
    assert_eq!((next.previous, next.resumed), (None, None));
    assert!(next.epoch > lost.epoch);
    assert!(end(&successor) > lost_end);
}
