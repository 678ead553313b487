//! What a Redis may do to its clients, and what becomes of their requests.

mod proxy;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use campanile_backends::{
    Backend, Config, Reply, Request,
    redis::{ClientCertificate, Durability, OpenError, Redis, RedisConfig, Tls, Topology},
    suite::{client, progress, publish},
};
use campanile_broker::{
    ids::{AppId, Epoch, Generation, MessageId, Millis, Offset},
    message::{Kind, Message},
    store::{
        ChangesQuery, Claim, Claimed, Command, LogKind, Outcome, Page, Publish, Query, StoreError,
    },
};
use campanile_testbed::{
    process::wait_for,
    redis::{self as servers, RedisOptions, Replicated, TlsFiles},
};
use proxy::Proxy;

const LOG: LogKind = LogKind::Topic(0);
const PATIENCE: Duration = Duration::from_secs(30);

fn alone(address: &str) -> RedisConfig {
    RedisConfig {
        topology: Topology::Standalone {
            servers: vec![address.to_owned()],
        },
        durability: Durability::Primary,
        allow_no_persistence: true,
        ..RedisConfig::default()
    }
}

fn shared() -> Config {
    Config {
        shared: true,
        ..Config::default()
    }
}

fn append(id: u128) -> Request {
    let text = id.to_string();
    let message = Message::new(MessageId(id), Kind::Publish, "t", &[], text.as_bytes());
    Request::Broker(Command::Publish(Publish {
        log: Some(LOG),
        ..publish(&message.into())
    }))
}

fn claim(client_id: &str, owner: u64, expiry_seconds: u32) -> Request {
    Request::Broker(Command::Claim(Claim {
        client: client(client_id),
        owner: Generation(owner),
        now: Millis(1),
        clean_start: false,
        expiry_seconds,
        will: None,
    }))
}

fn run(redis: &mut Redis, request: Request) -> Result<Outcome, StoreError> {
    match redis.commit(vec![request]).replies.remove(0)? {
        Reply::Broker(outcome) => Ok(outcome),
        Reply::Push(outcome) => panic!("an answer of the push domain: {outcome:?}"),
    }
}

fn claimed(redis: &mut Redis, request: Request) -> Claimed {
    match run(redis, request) {
        Ok(Outcome::Claimed(claimed)) => *claimed,
        other => panic!("no claim: {other:?}"),
    }
}

/// How often each message is in the log.
fn log(redis: &Redis) -> Result<BTreeMap<u128, u32>, StoreError> {
    let (mut after, mut counts) = (Offset(0), BTreeMap::new());
    loop {
        let page = redis.reader().read(&Query::Log {
            app: AppId::new("app"),
            log: LOG,
            after,
            limit: 1000,
        })?;
        let Page::Log {
            entries, read_to, ..
        } = page
        else {
            panic!("no log");
        };
        if entries.is_empty() {
            return Ok(counts);
        }
        after = read_to;
        for entry in entries {
            *counts.entry(entry.message.id.0).or_default() += 1;
        }
    }
}

#[test]
fn a_chunk_whose_answer_was_lost_is_carried_out_once() {
    let server = servers::Redis::start().unwrap();
    let proxy = Proxy::start(&server.address());
    let mut redis = Redis::open(alone(&proxy.address()), Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    for id in 2..20 {
        proxy.cut_next_answer();
        // Several chunks under way at once.
        let batch = (0..300).map(|number| append(id * 1000 + number)).collect();
        let committed = redis.commit(batch);
        assert!(committed.replies.iter().all(Result::is_ok));
        assert_eq!(committed.notices.len(), 300);
    }
    let counts = log(&redis).unwrap();
    assert_eq!(counts.len(), 1 + 18 * 300);
    assert!(counts.values().all(|count| *count == 1));
    let counts = redis.figures().counts();
    assert!(counts.retries >= 18 && counts.unknown == 0, "{counts:?}");
}

#[test]
fn a_server_that_does_not_answer_leaves_requests_unknown_then_fails_fast_and_comes_back() {
    let server = servers::Redis::start().unwrap();
    let mut config = alone(&server.address());
    config.command_timeout = Duration::from_millis(200);
    config.connect_timeout = Duration::from_millis(200);
    config.give_up_after = Duration::from_millis(500);
    let mut redis = Redis::open(config, Config::default()).unwrap();
    let reader = redis.reader();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    server.pause().unwrap();
    let outcome = run(&mut redis, append(2));
    assert!(
        matches!(outcome, Err(StoreError::Unknown(_))),
        "{outcome:?}"
    );
    for id in 3..10 {
        let start = Instant::now();
        let outcome = run(&mut redis, append(id));
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
        assert!(start.elapsed() < Duration::from_millis(50));
    }
    server.resume().unwrap();
    wait_for("redis to be used again", PATIENCE, || {
        Ok(run(&mut redis, append(10)).ok())
    })
    .unwrap();
    let query = Query::Log {
        app: AppId::new("app"),
        log: LOG,
        after: Offset(0),
        limit: 10,
    };
    wait_for("reads to succeed again", PATIENCE, || {
        Ok(reader.read(&query).ok())
    })
    .unwrap();
    let counts = log(&redis).unwrap();
    assert!(counts.values().all(|count| *count == 1));
    assert!((3..10).all(|id| !counts.contains_key(&id)));
    assert!(counts.contains_key(&1) && counts.contains_key(&10));
}

#[test]
fn a_server_that_is_gone_is_found_again() {
    let options = RedisOptions {
        append_fsync: Some("always"),
        ..RedisOptions::default()
    };
    let mut server = servers::Redis::start_with(&options).unwrap();
    let mut config = alone(&server.address());
    config.allow_no_persistence = false;
    config.give_up_after = Duration::from_millis(300);
    let mut redis = Redis::open(config, Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    server.kill();
    assert!(run(&mut redis, append(2)).is_err());
    let start = Instant::now();
    let outcome = run(&mut redis, append(3));
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_millis(50));
    server.restart().unwrap();
    wait_for("redis to be used again", PATIENCE, || {
        Ok(run(&mut redis, append(4)).ok())
    })
    .unwrap();
    let counts = log(&redis).unwrap();
    assert_eq!(
        (counts.get(&1), counts.get(&3), counts.get(&4)),
        (Some(&1), None, Some(&1))
    );
}

#[test]
fn what_was_accepted_survives_a_failover_once() {
    let options = RedisOptions {
        append_fsync: Some("everysec"),
        ..RedisOptions::default()
    };
    let mut replicated = Replicated::start(2, &options).unwrap();
    let config = RedisConfig {
        topology: Topology::Sentinel {
            primary: Replicated::NAME.to_owned(),
            sentinels: replicated.sentinel_addresses(),
        },
        ..RedisConfig::default()
    };
    let mut redis = Redis::open(config, Config::default()).unwrap();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    let mut failed_at = None;
    for number in 0u128.. {
        if number == 50 {
            replicated.primary().unwrap().kill();
            failed_at = Some(Instant::now());
        }
        let batch: Vec<u128> = (0..5).map(|index| number * 5 + index).collect();
        let replies = redis
            .commit(batch.iter().copied().map(append).collect())
            .replies;
        for (id, reply) in batch.into_iter().zip(replies) {
            match reply {
                Ok(_) => accepted.push((id, failed_at.is_some())),
                Err(StoreError::Unavailable(_)) => {
                    refused.push(id);
                    // As a client would: not again at once.
                    std::thread::yield_now();
                }
                Err(StoreError::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let since = accepted.iter().filter(|(_, after)| *after).count();
        if since >= 250 {
            break;
        }
        let waited = failed_at.is_some_and(|at| at.elapsed() > PATIENCE);
        assert!(!waited, "no new primary");
    }
    let counts = log(&redis).unwrap();
    for (id, _) in &accepted {
        assert_eq!(counts.get(id), Some(&1), "{id}");
    }
    assert!(refused.iter().all(|id| !counts.contains_key(id)));
    assert!(counts.values().all(|count| *count == 1));
}

#[test]
fn too_few_replicas_leave_requests_unknown() {
    let server = servers::Redis::start().unwrap();
    let replica = RedisOptions {
        config: vec![format!("replicaof 127.0.0.1 {}", server.port())],
        ..RedisOptions::default()
    };
    let mut replica = servers::Redis::start_with(&replica).unwrap();
    wait_for("the replica to be online", PATIENCE, || {
        let info = server.ask(&["INFO", "replication"])?;
        Ok(info.contains("state=online").then_some(()))
    })
    .unwrap();
    let mut config = alone(&server.address());
    config.durability = Durability::Replicated;
    let mut redis = Redis::open(config, Config::default()).unwrap();
    // A replica that has just come online does not acknowledge at once.
    wait_for("the replica to acknowledge", PATIENCE, || {
        Ok(run(&mut redis, append(1)).ok())
    })
    .unwrap();
    let before = redis.figures().counts().round_trips;
    assert_eq!(run(&mut redis, append(2)), Ok(Outcome::Done));
    assert_eq!(redis.figures().counts().round_trips, before + 1);
    let unknown = redis.figures().counts().unknown;
    replica.kill();
    let outcome = run(&mut redis, append(3));
    let Err(StoreError::Unknown(reason)) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.ends_with("0 of 1 replicas have it"), "{reason}");
    assert_eq!(redis.figures().counts().unknown, unknown + 1);
}

/// A primary and its replicas, which follow it.
fn with_replicas(count: usize) -> (servers::Redis, Vec<servers::Redis>) {
    let primary = servers::Redis::start().unwrap();
    let options = RedisOptions {
        config: vec![format!("replicaof 127.0.0.1 {}", primary.port())],
        ..RedisOptions::default()
    };
    let replicas = (0..count).map(|_| servers::Redis::start_with(&options).unwrap());
    let replicas = replicas.collect();
    wait_for("the replicas to be online", PATIENCE, || {
        let info = primary.ask(&["INFO", "replication"])?;
        Ok((info.matches("state=online").count() == count).then_some(()))
    })
    .unwrap();
    (primary, replicas)
}

fn follow(server: &servers::Redis, primary: &servers::Redis) {
    let port = primary.port().to_string();
    server.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
}

/// Of one that looks for the primary among these, and waits for replicas.
fn config_of(servers: &[&servers::Redis]) -> RedisConfig {
    RedisConfig {
        topology: Topology::Standalone {
            servers: servers.iter().map(|server| server.address()).collect(),
        },
        durability: Durability::Replicated,
        command_timeout: Duration::from_millis(400),
        ..alone("")
    }
}

fn replicated(servers: &[&servers::Redis]) -> Redis {
    Redis::open(config_of(servers), shared()).unwrap()
}

/// Appends until replicas acknowledge: one that has just come online does not at once.
fn accept(redis: &mut Redis, id: u128) {
    wait_for("the replicas to acknowledge", PATIENCE, || {
        Ok(run(redis, append(id)).ok())
    })
    .unwrap();
}

/// What the hub of a node asks for, and gets of a log.
fn news(redis: &Redis, after: Offset) -> Result<Vec<(u128, Offset)>, StoreError> {
    let query = Query::Changes(ChangesQuery {
        app: AppId::new("app"),
        changes: Offset(0),
        logs: vec![(LOG, after)],
        mailbox: Generation(1),
        notes: Offset(0),
        limit: 100,
    });
    let Page::Changes(changes) = redis.reader().read(&query)? else {
        panic!("no changes");
    };
    assert!(!changes.logs[0].went_back && !changes.changes_lost);
    let entries = changes.logs[0].entries.iter();
    Ok(entries
        .map(|entry| (entry.message.id.0, entry.offset))
        .collect())
}

#[test]
fn what_replicas_lack_is_told_once_they_have_it() {
    let (primary, replicas) = with_replicas(1);
    let mut redis = replicated(&[&primary]);
    accept(&mut redis, 1);
    let before = *news(&redis, Offset(0)).unwrap().last().unwrap();
    replicas[0].pause().unwrap();
    let committed = redis.commit(vec![append(2)]);
    assert!(matches!(committed.replies[0], Err(StoreError::Unknown(_))));
    assert_eq!(committed.notices, []);
    for query in [
        Query::Log {
            app: AppId::new("app"),
            log: LOG,
            after: before.1,
            limit: 10,
        },
        Query::Snapshot {
            app: AppId::new("app"),
        },
    ] {
        let page = redis.reader().read(&query);
        assert!(
            matches!(page, Err(StoreError::Unavailable(_))),
            "{query:?}: {page:?}"
        );
    }
    assert!(news(&redis, before.1).is_err());
    // What they have can be read meanwhile.
    let page = redis.reader().read(&Query::Log {
        app: AppId::new("app"),
        log: LOG,
        after: Offset(before.1.0 - 1),
        limit: 10,
    });
    let Ok(Page::Log {
        entries, read_to, ..
    }) = page
    else {
        panic!("{page:?}");
    };
    assert_eq!((entries.len(), read_to), (1, before.1));
    replicas[0].resume().unwrap();
    let told = wait_for("the rest to be told", PATIENCE, || {
        Ok(news(&redis, before.1).ok())
    })
    .unwrap();
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_primary_that_was_replaced_and_does_not_know_it_is_not_read_from() {
    let (old, replicas) = with_replicas(2);
    let [new, other] = &replicas[..] else {
        unreachable!()
    };
    // It takes the old one for the primary for as long as that says so.
    let mut lags = replicated(&[&old, new]);
    accept(&mut lags, 1);
    let (_, first) = *news(&lags, Offset(0)).unwrap().last().unwrap();
    new.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    follow(other, new);
    wait_for("the old primary to be alone", PATIENCE, || {
        let info = old.ask(&["INFO", "replication"])?;
        Ok(info.contains("connected_slaves:0").then_some(()))
    })
    .unwrap();
    let mut knows = replicated(&[new]);
    accept(&mut knows, 2);
    // Later than that, so that the lost entry has the higher place.
    let committed = lags.commit(vec![append(3)]);
    assert!(matches!(committed.replies[0], Err(StoreError::Unknown(_))));
    assert_eq!(committed.notices, []);
    assert!(news(&lags, first).is_err());
    follow(&old, new);
    let told = wait_for("the new primary to be read", PATIENCE, || {
        Ok(news(&lags, first).ok().filter(|told| !told.is_empty()))
    })
    .unwrap();
    // Appended again for each answer that did not come in time.
    assert!(told.iter().all(|(id, _)| *id == 2), "{told:?}");
    let (_, last) = *told.last().unwrap();
    accept(&mut lags, 4);
    let told = news(&lags, last).unwrap();
    assert!(!told.is_empty() && told.iter().all(|(id, _)| *id == 4));
}

/// Over a connection that it had before, a server answers as a replica, too.
#[test]
fn whoever_read_from_a_primary_before_it_was_replaced_reads_from_the_next_one() {
    let (old, replicas) = with_replicas(2);
    let [new, other] = &replicas[..] else {
        unreachable!()
    };
    let mut redis = replicated(&[&old, new]);
    accept(&mut redis, 1);
    // Nothing has to be waited for, so that this is the only connection for reads.
    let (_, first) = *news(&redis, Offset(0)).unwrap().last().unwrap();
    new.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    follow(other, new);
    follow(&old, new);
    accept(&mut replicated(&[new]), 2);
    wait_for("the new primary to be read", PATIENCE, || {
        let told = news(&redis, first);
        Ok(told.ok().filter(|told| told.iter().any(|(id, _)| *id == 2)))
    })
    .unwrap();
}

#[test]
fn what_a_promoted_replica_lacks_is_carried_out_there() {
    let (old, replicas) = with_replicas(2);
    let [new, other] = &replicas[..] else {
        unreachable!()
    };
    let config = RedisConfig {
        give_up_after: PATIENCE,
        ..config_of(&[&old, new])
    };
    let mut redis = Redis::open(config, shared()).unwrap();
    accept(&mut redis, 1);
    new.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    follow(other, new);
    let committed = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the old primary to have it", PATIENCE, || {
                Ok((old.ask(&["XLEN", "cmp:{app}:l:1"])? == "2").then_some(()))
            })
            .unwrap();
            follow(&old, new);
        });
        redis.commit(vec![append(2)])
    });
    assert!(committed.replies[0].is_ok(), "{committed:?}");
    assert_eq!(committed.notices.len(), 1);
    assert_eq!(log(&redis).unwrap().get(&2), Some(&1));
}

#[test]
fn nothing_overtakes_what_is_unknown() {
    let (primary, replicas) = with_replicas(1);
    let mut redis = replicated(&[&primary]);
    accept(&mut redis, 1);
    replicas[0].pause().unwrap();
    let outcome = run(&mut redis, append(2));
    assert!(
        matches!(outcome, Err(StoreError::Unknown(_))),
        "{outcome:?}"
    );
    // It waited behind that one: whoever sent both hears first that one is unknown, and sends both again.
    replicas[0].resume().unwrap();
    let outcome = run(&mut redis, append(3));
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    accept(&mut redis, 4);
    let counts = log(&redis).unwrap();
    assert!(counts.contains_key(&2) && !counts.contains_key(&3));
}

/// Chunks of one app travel together: one that fails must not be overtaken by the next.
#[test]
fn nothing_of_a_batch_overtakes_what_failed_in_it() {
    let server = servers::Redis::start().unwrap();
    let mut redis = Redis::open(alone(&server.address()), Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    // Retained messages are a hash: the script that would retain one breaks off.
    let retained = ["SET", "cmp:{app}:r", "no hash"];
    server.ask(&retained).unwrap();
    let mut first = append(2);
    let Request::Broker(Command::Publish(publish)) = &mut first else {
        unreachable!()
    };
    (publish.retain, publish.log) = (true, None);
    let sweep = Request::Broker(Command::Sweep {
        now: Millis(1),
        limit: 10,
    });
    // More than one script run carries out, so that the next one goes with it; and what comes after something that concerns all apps.
    let mut batch: Vec<Request> = std::iter::once(first).chain((3..200).map(append)).collect();
    batch.extend([sweep, append(200)]);
    let replies = redis.commit(batch).replies;
    assert!(matches!(replies[0], Err(StoreError::Unknown(_))));
    for place in [127, 197, 199] {
        let reply = &replies[place];
        assert!(reply.is_err(), "{place}: {reply:?}");
    }
    assert_eq!(log(&redis).unwrap().into_keys().collect::<Vec<_>>(), [1]);
    server.ask(&["DEL", "cmp:{app}:r"]).unwrap();
    assert_eq!(run(&mut redis, append(201)), Ok(Outcome::Done));
    assert_eq!(
        log(&redis).unwrap().into_keys().collect::<Vec<_>>(),
        [1, 201]
    );
}

#[test]
fn fewer_replicas_than_before_need_the_word_of_the_sentinels() {
    let options = RedisOptions {
        append_fsync: Some("everysec"),
        ..RedisOptions::default()
    };
    let mut servers = Replicated::start(2, &options).unwrap();
    let config = RedisConfig {
        topology: Topology::Sentinel {
            primary: Replicated::NAME.to_owned(),
            sentinels: servers.sentinel_addresses(),
        },
        ..RedisConfig::default()
    };
    let mut redis = Redis::open(config, shared()).unwrap();
    accept(&mut redis, 1);
    for sentinel in &servers.sentinels[1..] {
        sentinel.pause().unwrap();
    }
    servers.servers[1].kill();
    // That replica may have been promoted, for all that this Sentinel knows.
    let outcome = run(&mut redis, append(2));
    let Err(StoreError::Unknown(reason)) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("1 replicas have it"), "{reason}");
    let counts = log(&redis);
    assert!(counts.is_err(), "{counts:?}");
    for sentinel in &servers.sentinels[1..] {
        sentinel.resume().unwrap();
    }
    accept(&mut redis, 3);
    assert!(log(&redis).unwrap().contains_key(&2));
}

#[test]
fn a_server_that_would_lose_messages_is_refused() {
    let check = |options: &RedisOptions, change: fn(&mut RedisConfig), expected: &str| {
        let server = servers::Redis::start_with(options).unwrap();
        let mut config = alone(&server.address());
        config.allow_no_persistence = false;
        match Redis::open(config.clone(), Config::default()) {
            Err(OpenError::Unsafe(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{:?}", other.map(|_| "opened")),
        }
        change(&mut config);
        assert!(Redis::open(config, Config::default()).is_ok());
    };
    check(
        &RedisOptions::default(),
        |config| config.allow_no_persistence = true,
        "set appendonly to yes",
    );
    let evicts = RedisOptions {
        append_fsync: Some("everysec"),
        config: vec!["maxmemory-policy allkeys-lru".to_owned()],
        ..RedisOptions::default()
    };
    check(
        &evicts,
        |config| config.allow_eviction = true,
        "maxmemory-policy is allkeys-lru",
    );
}

#[test]
fn a_full_server_refuses_and_nothing_happens() {
    let server = servers::Redis::start().unwrap();
    let mut redis = Redis::open(alone(&server.address()), Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let outcome = run(&mut redis, append(2));
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(run(&mut redis, append(3)), Ok(Outcome::Done));
    assert_eq!(log(&redis).unwrap().into_keys().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = servers::Redis::start().unwrap();
    let mut redis = Redis::open(alone(&server.address()), Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    assert_eq!(log(&redis).unwrap().len(), 1);
    server.ask(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(run(&mut redis, append(2)), Ok(Outcome::Done));
    server.ask(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(log(&redis).unwrap().len(), 2);
}

#[test]
fn users_and_certificates_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // One that has the name of its issuer is taken for self-signed.
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let certificate = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (server_certificate, server_key) = certificate("127.0.0.1");
    let (client_certificate, client_key) = certificate("node");
    let options = RedisOptions {
        tls: Some(TlsFiles {
            authority: write("ca.pem", &authority_certificate.pem()),
            certificate: write("server.pem", &server_certificate),
            key: write("server.key", &server_key),
        }),
        config: vec![
            "user campanile on >secret ~cmp:* +@all -@admin -@dangerous +info".to_owned(),
            "user default off".to_owned(),
        ],
        ..RedisOptions::default()
    };
    let server = servers::Redis::start_with(&options).unwrap();
    let config = RedisConfig {
        tls: Some(Tls {
            authorities: Some(authority_certificate.pem().into_bytes()),
            client: Some(ClientCertificate {
                certificates: client_certificate.into_bytes(),
                key: client_key.into_bytes(),
            }),
        }),
        username: Some("campanile".to_owned()),
        password: Some("secret".to_owned()),
        ..alone(&server.address())
    };
    let mut redis = Redis::open(config.clone(), Config::default()).unwrap();
    assert_eq!(run(&mut redis, append(1)), Ok(Outcome::Done));
    assert_eq!(log(&redis).unwrap().len(), 1);
    let wrong_password = RedisConfig {
        password: Some("wrong".to_owned()),
        ..config.clone()
    };
    assert!(matches!(
        Redis::open(wrong_password, Config::default()),
        Err(OpenError::Down(_))
    ));
    let without_certificate = RedisConfig {
        tls: Some(Tls {
            client: None,
            ..config.tls.clone().unwrap()
        }),
        ..config
    };
    assert!(matches!(
        Redis::open(without_certificate, Config::default()),
        Err(OpenError::Down(_))
    ));
}

#[test]
fn two_nodes_write_to_one_store() {
    let server = servers::Redis::start().unwrap();
    let open = || {
        let mut redis = Redis::open(alone(&server.address()), shared()).unwrap();
        redis.recover(Millis(1)).unwrap();
        redis
    };
    let (mut one, mut other) = (open(), open());
    let first = claimed(&mut one, claim("a", 1, 60));
    let second = claimed(&mut other, claim("a", 2, 60));
    let previous = second.previous.expect("the first is connected");
    assert_eq!(
        (previous.generation, previous.epoch),
        (Generation(1), first.epoch)
    );
    assert!(second.resumed.is_some() && second.epoch > first.epoch);
    let late = Request::Broker(Command::Progress(progress("a", &first)));
    assert_eq!(run(&mut one, late), Err(StoreError::Fenced));
    let restamp = |epoch: Epoch| {
        Request::Broker(Command::Restamp {
            client: client("a"),
            epoch,
            generation: Generation(3),
        })
    };
    assert_eq!(run(&mut one, restamp(first.epoch)), Err(StoreError::Fenced));
    assert_eq!(run(&mut other, restamp(second.epoch)), Ok(Outcome::Done));
    let third = claimed(&mut one, claim("a", 1, 60));
    assert_eq!(
        third.previous.map(|before| before.generation),
        Some(Generation(3))
    );
    // Both append; each entry is there once, in one order for both.
    for id in 0..20 {
        assert_eq!(run(&mut one, append(2 * id)), Ok(Outcome::Done));
        assert_eq!(run(&mut other, append(2 * id + 1)), Ok(Outcome::Done));
    }
    assert_eq!(log(&one).unwrap(), log(&other).unwrap());
    assert_eq!(log(&one).unwrap().len(), 40);
}

#[test]
fn a_store_of_another_version_is_refused() {
    let server = servers::Redis::start().unwrap();
    let mut redis = Redis::open(alone(&server.address()), shared()).unwrap();
    redis.recover(Millis(1)).unwrap();
    let own = server.ask(&["GET", "cmp:{$}:format"]).unwrap();
    let own: u64 = own.trim().parse().unwrap();
    for other in [own - 1, own + 1].map(|format| format.to_string()) {
        server.ask(&["SET", "cmp:{$}:format", &other]).unwrap();
        let mut redis = Redis::open(alone(&server.address()), shared()).unwrap();
        match redis.recover(Millis(1)) {
            Err(StoreError::Unavailable(reason)) => {
                assert!(reason.contains(&format!("format {other}")), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reader_may_outlive_the_backend_into_another_runtime() {
    let server = servers::Redis::start().unwrap();
    let redis = Redis::open(alone(&server.address()), Config::default()).unwrap();
    let reader = redis.reader();
    drop(redis);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async { drop(reader) });
}
