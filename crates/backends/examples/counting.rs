//! What it costs to count whom a push is for, and what cohorts cost when devices are registered.
//!
//! `cargo run --release -p campanile-backends --example counting -- [DEVICES] [embedded|redis]`

use std::{sync::Arc, time::Instant};

use campanile_backends::{
    Backend, Config, Reply, Request,
    embedded::{Embedded, EmbeddedConfig},
    redis::{Durability, Redis, RedisConfig, Topology},
};
use campanile_broker::ids::Millis;
use campanile_push::{
    app::AppName,
    device::{Patch, Profile},
    expression::Expression,
    id::PushId,
    registry::{Context, census::Count, decode_profile, devices::put, survey::survey},
    rows::{Range, Scope, Table},
    store::{Audience, Command, Outcome, Reader},
    targeting::Targeting,
};
use campanile_testbed::redis as servers;

const NOW_MS: u64 = 1_800_000_000_000;
/// Registrations of a commit, as a busy node has them.
const BATCH: u64 = 100;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let devices: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    match arguments.next().as_deref() {
        Some("redis") => on_redis(devices),
        _ => on_disk(devices),
    }
}

fn on_disk(devices: u64) -> anyhow::Result<()> {
    for with_cohorts in [false, true] {
        let directory = tempfile::tempdir()?;
        let mut store: Box<dyn Backend> =
            Box::new(Embedded::open(EmbeddedConfig::new(directory.path()))?);
        store.recover(Millis(NOW_MS))?;
        register(&mut *store, devices, with_cohorts)?;
        let bytes = bytes_below(directory.path())?;
        println!("  {} bytes of disk each", bytes / devices);
        if with_cohorts {
            count(&*store.reader(), devices)?;
        }
        store.close()?;
    }
    Ok(())
}

fn on_redis(devices: u64) -> anyhow::Result<()> {
    for with_cohorts in [false, true] {
        let server = servers::Redis::start()?;
        let config = RedisConfig {
            topology: Topology::Standalone {
                servers: vec![server.address()],
            },
            durability: Durability::Primary,
            allow_no_persistence: true,
            ..RedisConfig::default()
        };
        let mut redis = Redis::open(config, Config::default())?;
        redis.recover(Millis(NOW_MS))?;
        let before = used_memory(&server)?;
        register(&mut redis, devices, with_cohorts)?;
        let bytes = used_memory(&server)?.saturating_sub(before);
        println!("  {} bytes of Redis' memory each", bytes / devices);
        if with_cohorts {
            count(&*redis.reader(), devices)?;
        }
    }
    Ok(())
}

fn shop() -> AppName {
    AppName::new("shop").expect("a good name")
}

/// As an ordinary app describes its devices: five tags each, of which one is everybody's and `vip` one device's in a hundred.
fn profile(number: u64) -> String {
    let vip = if number.is_multiple_of(100) {
        r#","vip""#
    } else {
        ""
    };
    format!(
        r#"{{"platform":"{}","app_version":"3.{}.0","language":"en-GB","time_zone":"Europe/London","user":"user-{}","tags":["news","t{}","u{}","w{}"{vip}],"attributes":{{"plan":"free","level":{}}}}}"#,
        ["android", "ios", "web"][(number % 3) as usize],
        number % 20,
        number / 2,
        number % 10,
        number % 50,
        number % 1000,
        number % 100,
    )
}

fn register(store: &mut dyn Backend, devices: u64, with_cohorts: bool) -> anyhow::Result<()> {
    let reader = store.reader();
    let began = Instant::now();
    for first in (0..devices).step_by(BATCH as usize) {
        let context = Context {
            reader: &*reader,
            now_ms: NOW_MS,
            unique: 0,
            actor: "bench",
        };
        let mut batch = Vec::new();
        for number in first..devices.min(first + BATCH) {
            // Names that say nothing of the numbers.
            let name = format!("device-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let patch = Patch::parse(profile(number).as_bytes()).expect("a good patch");
            let planned = put(&context, &shop(), &name, &patch)?;
            let mut change = planned.change.expect("the device is new");
            if !with_cohorts {
                change.cohorts.clear();
            }
            batch.push(Request::Push(Command::Change(Box::new(change))));
        }
        for reply in store.commit(batch).replies {
            match reply? {
                Reply::Push(Outcome::Changed { .. }) => {}
                other => anyhow::bail!("not registered: {other:?}"),
            }
        }
    }
    let rate = devices as f64 / began.elapsed().as_secs_f64();
    let how = if with_cohorts { "with" } else { "without" };
    println!("{devices} devices registered {how} cohorts: {rate:.0}/s");
    Ok(())
}

fn count(reader: &dyn Reader, devices: u64) -> anyhow::Result<()> {
    println!("  counted over {devices} devices:");
    for text in [
        r#"vip && platform == "ios""#,
        "vip",
        "t3",
        "w77",
        r#"u7 && !vip"#,
        r#"platform == "ios""#,
        "!vip",
        r#"news && attr.level > 50"#,
    ] {
        let targeting = Targeting {
            expression: Some(Expression::parse(text).expect("it parses")),
            ..Targeting::everyone(NOW_MS)
        };
        let began = Instant::now();
        let mut count = Count::new(shop(), vec![(PushId(1), targeting.clone())]);
        while !count.go_on(reader, NOW_MS)? {}
        let counted = began.elapsed();

        let context = Context {
            reader,
            now_ms: NOW_MS,
            unique: 0,
            actor: "bench",
        };
        let began = Instant::now();
        let audience = Audience::Matching(Default::default());
        let found = survey(&context, &shop(), &audience, &targeting, true, 1)?;
        println!(
            "    {text:<28} {counted:>10.1?}; surveyed {:>10.1?}: {} ± {}",
            began.elapsed(),
            found.targeted,
            found.margin.unwrap_or(0)
        );
    }
    let targeting = Targeting {
        expression: Some(Expression::parse("vip").expect("it parses")),
        ..Targeting::everyone(NOW_MS)
    };
    let began = Instant::now();
    let found = look_at_all(reader, &targeting)?;
    println!(
        "    as before there were cohorts: {:?} for {found}",
        began.elapsed()
    );
    Ok(())
}

/// Every device read whole, and its number asked for.
fn look_at_all(reader: &dyn Reader, targeting: &Targeting) -> anyhow::Result<u64> {
    let (mut after, mut found) = (None, 0);
    loop {
        let range = Range {
            scope: Scope::App(shop()),
            table: Table::Device,
            prefix: String::new(),
            after,
            limit: 1000,
        };
        let (rows, more) = reader.rows(&range, NOW_MS)?;
        let names: Vec<Arc<str>> = rows.iter().map(|row| row.name.as_str().into()).collect();
        let numbers = reader.device_numbers(&shop(), &names)?;
        for (row, number) in rows.iter().zip(numbers) {
            let profile: Profile = decode_profile(&row.value)?;
            let is_meant =
                number.is_some_and(|number| targeting.meant(&row.name, number, &profile));
            found += u64::from(is_meant);
        }
        after = rows.last().map(|row| row.name.clone());
        if !more {
            return Ok(found);
        }
    }
}

fn bytes_below(path: &std::path::Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn used_memory(server: &servers::Redis) -> anyhow::Result<u64> {
    let info = server.ask(&["INFO", "memory"])?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line.unwrap_or_default().trim().parse()?)
}
