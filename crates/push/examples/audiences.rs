//! How long it takes to find whom a push is for: among the devices that are connected, and for a device that returns.
//!
//! `cargo run --release -p campanile-push --example audiences`

use std::{fs, hint::black_box, sync::Arc, time::Instant};

use campanile_push::{
    device::{Patch, Profile},
    expression::{Expression, ReadOnce},
    live::LiveIndex,
    targeting::{Portion, Targeting},
};

const LIVE: u32 = 15_000;
const ENTRIES: u64 = 1000;
const REPEATS: usize = 501;
/// Every device changed last before it, but for one in 100.
const PUSHED_MS: u64 = 1_000_000;

const EXPRESSIONS: [&str; 7] = [
    "vip",
    r#"(vip || beta) && !muted && platform == "ios" && app_version >= "3.2""#,
    r#"!muted"#,
    r#"language in ["en", "de", "pt-BR"] && attr.plan != "gold""#,
    r#"attr.score > 2000 && attr.score <= 9000"#,
    r#"user == "u77" || topic:"news" && !has(attr.trial)"#,
    r#"attr.firmware >= "2.40" && time_zone in ["Europe/Berlin", "America/New_York"]"#,
];

fn main() {
    let profiles: Vec<Arc<Profile>> = (0..LIVE).map(|n| Arc::new(profile(n))).collect();
    let encoded: usize = profiles.iter().map(|profile| profile.encode().len()).sum();
    println!(
        "{LIVE} devices with 12 to 16 facts, {} bytes encoded on average",
        encoded / profiles.len()
    );

    let before = resident_bytes();
    let began = Instant::now();
    let mut index = LiveIndex::new();
    for (slot, profile) in (0..).zip(&profiles) {
        index.join(
            slot,
            &format!("device-{slot}"),
            slot * 7,
            Some(profile.clone()),
        );
    }
    let each = began.elapsed() / LIVE;
    let bytes = resident_bytes().saturating_sub(before) / u64::from(LIVE);
    println!("join: {each:?} each, {bytes} bytes each beside the profile\n");

    println!("select among {LIVE} live (median, slowest of {REPEATS}):");
    for text in EXPRESSIONS {
        let targeting = matching(text, PUSHED_MS);
        measure(text, REPEATS, || index.select(&targeting).len());
    }
    let old = matching(EXPRESSIONS[1], 0);
    measure(
        "the second, of a push older than all changes",
        REPEATS,
        || index.select(&old).len(),
    );
    let portion = Some(Portion {
        salt: 1,
        basis_points: 100,
    });
    let canary = Targeting {
        portion,
        ..Targeting::everyone(PUSHED_MS)
    };
    measure("1 % of all", REPEATS, || index.select(&canary).len());
    let numbers = Some((0..1_000_000).step_by(10).collect());
    let upload = Targeting {
        numbers,
        ..Targeting::everyone(PUSHED_MS)
    };
    measure("an upload of 100,000", REPEATS, || {
        index.select(&upload).len()
    });

    println!("\nreplay of {ENTRIES} entries for one device (median, slowest of {REPEATS}):");
    for (what, pushed_ms) in [
        ("device that has not changed since", PUSHED_MS),
        ("device that changed since", 100),
    ] {
        let log: Vec<Targeting> = (0..ENTRIES)
            .zip(EXPRESSIONS.iter().cycle())
            .map(|(_, text)| {
                Targeting::decode(&matching(text, pushed_ms).encode()).expect("just encoded")
            })
            .collect();
        let mut devices = profiles.iter().cycle();
        measure(what, REPEATS, || {
            let device = devices.next();
            let admitted = log.iter().filter(|entry| {
                entry
                    .admits("device-1", 7, device.map(|profile| &**profile))
                    .is_ok()
            });
            admitted.count() as u64
        });
    }
    let kinds = EXPRESSIONS.map(|text| matching(text, PUSHED_MS).encode());
    let entries = || (0..ENTRIES).zip(kinds.iter().cycle());
    measure(
        "reading them first, as for the first device",
        REPEATS,
        || {
            let mut expressions = ReadOnce::default();
            let read = entries()
                .map(|(_, entry)| Targeting::decode_with(entry, |text| expressions.read(text)));
            read.filter(Result::is_ok).count() as u64
        },
    );
    measure("... if each had an expression of its own", REPEATS, || {
        let read = entries().map(|(_, entry)| Targeting::decode(black_box(entry)));
        read.filter(Result::is_ok).count() as u64
    });

    drop(index);
    let before = resident_bytes();
    let mut index = LiveIndex::new();
    for slot in 0..1_000_000 {
        index.join(slot, "device", slot, None);
    }
    let bytes = resident_bytes().saturating_sub(before);
    println!(
        "\n1,000,000 live devices without a profile: {:.1} bytes each",
        bytes as f64 / 1e6
    );
}

/// Runs it often and prints how long it takes.
fn measure(what: &str, repeats: usize, mut run: impl FnMut() -> u64) {
    let mut found = 0;
    let mut times: Vec<_> = (0..repeats)
        .map(|_| {
            let began = Instant::now();
            found = black_box(run());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{:>12.1?} {:>12.1?} {found:>6}  {what}",
        times[repeats / 2],
        times[repeats - 1]
    );
}

fn matching(text: &str, pushed_ms: u64) -> Targeting {
    Targeting {
        expression: Some(Expression::parse(text).expect("an example")),
        ..Targeting::everyone(pushed_ms)
    }
}

/// A device with some of everything, by its number. It lost a tag at 50,000.
fn profile(n: u32) -> Profile {
    let pick = |from: &[&str], salt: u32| {
        from[(n.wrapping_mul(2_654_435_761) >> 8).wrapping_add(salt * n) as usize % from.len()]
            .to_owned()
    };
    let mut tags: Vec<String> = (0..6)
        .map(|tag| format!("segment-{}", n.wrapping_mul(31 + tag) % 400))
        .collect();
    for (tag, every) in [("vip", 7), ("beta", 11), ("muted", 13)] {
        if n.is_multiple_of(every) {
            tags.push(tag.into());
        }
    }
    let change = serde_json::json!({
        "platform": pick(&["ios", "android", "web"], 0),
        "app_version": pick(&["3.1", "3.2", "3.2.1", "3.10", "4.0.0-beta", "4.0 (77)", "2.9", "2.8.3"], 1),
        "language": pick(&["en-US", "en-GB", "de", "fr", "pt-BR", "es"], 2),
        "time_zone": pick(&["Europe/Berlin", "America/New_York", "Asia/Tokyo", "UTC"], 3),
        "user": format!("u{n}"),
        "topics": [pick(&["news", "sport", "offers"], 4)],
        "attributes": {
            "plan": pick(&["gold", "silver", "free"], 5),
            "score": n,
            "firmware": format!("2.{}", n % 90),
        },
        "tags": tags,
    });
    let apply = |profile: Profile, change: serde_json::Value, at_ms| {
        let patch = Patch::parse(change.to_string().as_bytes()).expect("an example");
        profile.apply(&patch, at_ms).expect("within bounds")
    };
    let profile = apply(Profile::new(0), serde_json::json!({"tags": ["lost"]}), 10);
    let profile = apply(profile, change, 50_000);
    match n.is_multiple_of(100) {
        true => apply(
            profile,
            serde_json::json!({"attributes": {"trial": true}}),
            PUSHED_MS + 1,
        ),
        false => profile,
    }
}

/// The process's memory, 0 where there is no `/proc`.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
