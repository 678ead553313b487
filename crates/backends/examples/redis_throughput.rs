//! How fast a Redis on this machine takes claims, appends and pushes, and what a session costs there.
//!
//! `cargo run -p campanile-backends --example redis_throughput -- [SESSIONS]` starts a redis-server of its own.

use std::{sync::Arc, time::Instant};

use campanile_backends::{
    Backend, Config, Reply, Request,
    redis::{Durability, Redis, RedisConfig, Topology},
    suite::{publish, subscription},
};
use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, MessageId, Millis},
    message::{Kind, Message},
    store::{Claim, Command, LogKind, Outcome, Progress, Publish, Release, Subscribe},
};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    store::{self as push, Accept, Audience},
};
use campanile_testbed::redis as servers;

const NOW: Millis = Millis(1_800_000_000_000);

fn main() -> anyhow::Result<()> {
    let sessions: u32 = match std::env::args().nth(1) {
        Some(sessions) => sessions.parse()?,
        None => 100_000,
    };
    let server = servers::Redis::start_with(&servers::RedisOptions {
        append_fsync: Some("everysec"),
        ..servers::RedisOptions::default()
    })?;
    let config = RedisConfig {
        topology: Topology::Standalone {
            servers: vec![server.address()],
        },
        durability: Durability::Primary,
        ..RedisConfig::default()
    };
    let rules = Config {
        shared: true,
        ..Config::default()
    };
    let mut redis = Redis::open(config, rules)?;
    redis.recover(NOW)?;

    for batch in [1, 64, 1000] {
        let count = if batch == 1 { 2000 } else { 20_000 };
        measure(&mut redis, "claims", batch, count, |number| {
            claim("speed", &format!("c{number}"))
        });
        measure(&mut redis, "appends", batch, count, append);
        measure(&mut redis, "pushes to one", batch, count, |number| {
            accept(
                number,
                Audience::Devices(vec![format!("c{}", number % 2000).into()]),
            )
        });
    }
    measure(&mut redis, "pushes to all", 1, 200, |number| {
        accept(number + 1_000_000, Audience::All)
    });

    for (app, filter_of) in [
        ("common", (|_| "news/#".to_owned()) as fn(u32) -> String),
        ("own", |number| format!("device/{number}/#")),
    ] {
        let before = used_memory(&server)?;
        let mut epochs = Vec::new();
        for first in (0..sessions).step_by(1000) {
            let names = first..sessions.min(first + 1000);
            let batch = names.clone().map(|number| claim(app, &name(number)));
            for reply in redis.commit(batch.collect()).replies {
                match reply? {
                    Reply::Broker(Outcome::Claimed(claimed)) => epochs.push(claimed.epoch),
                    other => anyhow::bail!("no claim: {other:?}"),
                }
            }
            let batch = names.map(|number| {
                subscribe(
                    app,
                    &name(number),
                    epochs[number as usize],
                    &filter_of(number),
                )
            });
            redis.commit(batch.collect());
        }
        let connected = used_memory(&server)?;
        for first in (0..sessions).step_by(1000) {
            let batch = (first..sessions.min(first + 1000))
                .map(|number| release(app, &name(number), epochs[number as usize]));
            redis.commit(batch.collect());
        }
        let away = used_memory(&server)?;
        let each = |bytes: u64| bytes.saturating_sub(before) / u64::from(sessions);
        println!(
            "{sessions} sessions with one subscription ({app} filter): {} bytes each while connected, {} away",
            each(connected),
            each(away)
        );
    }
    println!("{:?}", redis.figures().counts());
    Ok(())
}

fn measure(
    redis: &mut Redis,
    what: &str,
    batch: u32,
    count: u32,
    mut request: impl FnMut(u32) -> Request,
) {
    let before = redis.figures().counts();
    let requests: Vec<Vec<Request>> = (0..count / batch)
        .map(|number| {
            (0..batch)
                .map(|index| request(batch * 100_000 + number * batch + index))
                .collect()
        })
        .collect();
    let commits = requests.len();
    let start = Instant::now();
    for batch in requests {
        let committed = redis.commit(batch);
        assert!(committed.replies.iter().all(Result::is_ok));
    }
    let seconds = start.elapsed().as_secs_f64();
    let round_trips = redis.figures().counts().round_trips - before.round_trips;
    println!(
        "{what}, {batch} a commit: {:.0}/s, {:.0} commits/s, {:.2} round trips a commit",
        f64::from(count) / seconds,
        commits as f64 / seconds,
        round_trips as f64 / commits as f64
    );
}

fn used_memory(server: &servers::Redis) -> anyhow::Result<u64> {
    let info = server.ask(&["INFO", "memory"])?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line.unwrap_or_default().trim().parse()?)
}

fn name(number: u32) -> String {
    format!("device-{number:08}")
}

fn client(app: &str, client_id: &str) -> ClientKey {
    ClientKey::new(&AppId::new(app), client_id)
}

fn claim(app: &str, client_id: &str) -> Request {
    Request::Broker(Command::Claim(Claim {
        client: client(app, client_id),
        owner: Generation(0x1_0000_0001),
        now: NOW,
        clean_start: false,
        expiry_seconds: 86_400,
        will: None,
    }))
}

fn subscribe(app: &str, client_id: &str, epoch: Epoch, filter: &str) -> Request {
    Request::Broker(Command::Subscribe(Subscribe {
        client: client(app, client_id),
        epoch,
        add: vec![subscription(filter)],
        remove: vec![],
        inbox: vec![],
    }))
}

fn release(app: &str, client_id: &str, epoch: Epoch) -> Request {
    Request::Broker(Command::Release(Release {
        progress: Progress {
            client: client(app, client_id),
            epoch,
            ordinal: 0,
            cursors: None,
            unfinished: None,
            inbox_done: vec![],
            receipts: vec![],
            settled: vec![],
            memory: None,
        },
        expires_at: Some(NOW.plus_seconds(86_400)),
        now: NOW,
        will_at: None,
    }))
}

fn append(number: u32) -> Request {
    let message = Message::new(
        MessageId(number.into()),
        Kind::Publish,
        "some/topic",
        &[],
        &[b'x'; 200],
    );
    Request::Broker(Command::Publish(Publish {
        app: AppId::new("speed"),
        log: Some(LogKind::Topic(0)),
        filters: vec!["some/#".into()],
        ..publish(&Arc::new(message))
    }))
}

fn accept(number: u32, audience: Audience) -> Request {
    Request::Push(push::Command::Accept(Box::new(Accept {
        app: AppName::new("speed").expect("a good name"),
        id: PushId(number.into()),
        accepted_ms: NOW.0,
        expires_ms: NOW.plus_seconds(3600).0,
        audience,
        payload: vec![b'x'; 200].into(),
        priority: Priority::Normal,
        collapse_key: None,
        idempotency: None,
        rows: None,
        channel: Default::default(),
        info: Default::default(),
        watched: false,
    })))
}
