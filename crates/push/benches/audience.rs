//! Whom a push is for, at size: `cargo bench -p campanile-push --bench audience`. The best of many rounds, since the machine is shared.
//!
//! A million devices are registered, of which 15,000 are connected to the node and so in its index; what they are is drawn as `campanile bench registry` registers them.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use campanile_push::{
    device::{Patch, Profile},
    expression::Expression,
    live::LiveIndex,
    targeting::{Portion, Targeting},
};
use roaring::RoaringBitmap;

const REGISTERED: u32 = 1_000_000;
const LIVE: u32 = 15_000;
/// Entries of the push log that a returning device has missed.
const MISSED: u64 = 1_000;
const REGISTERED_MS: u64 = 1;
const PUSHED_MS: u64 = 1_000;
const EXPRESSIONS: [&str; 6] = [
    "vip",
    "vip && platform == \"ios\"",
    "!muted && app_version >= \"3.12\"",
    "(language == \"en-GB\" || language == \"de\") && attr.plan != \"free\" && !muted",
    "attr.level > 40 && attr.level <= 90",
    "user == \"user-1\" || user == \"user-77777\" || beta",
];

fn main() {
    let mut live = LiveIndex::new();
    for slot in 0..LIVE {
        let number = (u64::from(slot) * u64::from(REGISTERED) / u64::from(LIVE)) as u32;
        live.join(slot, &name(number), number, Some(Arc::new(profile(number))));
    }
    println!("of {REGISTERED} devices {LIVE} are connected; one audience for those");
    for text in EXPRESSIONS {
        select(&live, text, &to_expression(text));
    }
    let uploaded = Targeting {
        numbers: Some((0..REGISTERED).step_by(10).collect::<RoaringBitmap>()),
        ..Targeting::everyone(PUSHED_MS)
    };
    select(&live, "an upload of 100,000", &uploaded);
    let tenth = Targeting {
        portion: Some(Portion {
            salt: 7,
            basis_points: 1_000,
        }),
        ..to_expression(EXPRESSIONS[2])
    };
    select(&live, "a tenth of the third", &tenth);

    println!("one device that returns, {MISSED} audiences that it missed");
    let missed: Vec<Vec<u8>> = (0..MISSED)
        .map(|entry| to_expression(EXPRESSIONS[entry as usize % EXPRESSIONS.len()]).encode())
        .collect();
    let (id, who) = (name(77), profile(77));
    let judged = |targeting: &Targeting| targeting.admits(&id, 77, Some(&who)).is_ok();
    measure("read and judged", || {
        let read = missed
            .iter()
            .filter_map(|bytes| Targeting::decode(bytes).ok());
        read.filter(judged).count()
    });
    let read: Vec<Targeting> = missed
        .iter()
        .filter_map(|bytes| Targeting::decode(bytes).ok())
        .collect();
    measure("judged, another device had them read", || {
        read.iter().filter(|targeting| judged(targeting)).count()
    });
}

fn name(number: u32) -> String {
    format!("bench-0badcafe-{number}")
}

fn profile(number: u32) -> Profile {
    let one_in = |n: u32, tag: &str| match number.is_multiple_of(n) {
        true => format!(r#","{tag}""#),
        false => String::new(),
    };
    let body = format!(
        r#"{{"platform":"{}","app_version":"3.{}.0","language":"{}","time_zone":"Europe/London","user":"user-{}","tags":["news"{}{}{}],"attributes":{{"plan":"{}","level":{}}}}}"#,
        ["android", "ios", "web"][number as usize % 3],
        number % 20,
        ["en-GB", "de", "fr", "zh-CN"][number as usize % 4],
        number / 2,
        one_in(100, "vip"),
        one_in(11, "muted"),
        one_in(1_000, "beta"),
        ["free", "paid"][number as usize % 2],
        number % 100,
    );
    let patch = Patch::parse(body.as_bytes()).expect("a profile");
    let empty = Profile::new(REGISTERED_MS);
    empty.apply(&patch, REGISTERED_MS).expect("it fits")
}

fn to_expression(text: &str) -> Targeting {
    Targeting {
        expression: Some(Expression::parse(text).expect("an expression")),
        ..Targeting::everyone(PUSHED_MS)
    }
}

fn select(live: &LiveIndex, what: &str, targeting: &Targeting) {
    let found = live.select(targeting).len();
    measure(&format!("{what} ({found})"), || live.select(targeting));
}

/// Prints how long one call takes.
fn measure<T>(name: &str, mut call: impl FnMut() -> T) {
    let best = (0..50)
        .map(|_| {
            let start = Instant::now();
            black_box(call());
            start.elapsed()
        })
        .min()
        .unwrap_or(Duration::MAX);
    println!("  {name:88} {:9.1} us", best.as_nanos() as f64 / 1e3);
}
