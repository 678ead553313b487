use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::{
    device::{Patch, Profile},
    expression::Expression,
    registry::census::tests::{any_step, naively, world_after},
    rows::{Change, MemoryRows},
    samples::any_targeting,
    store::Outcome,
};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn matching() -> Audience {
    Audience::Matching(Default::default())
}

proptest! {
    #[test]
    fn few_devices_are_counted(
        steps in prop::collection::vec(any_step(), 0..60),
        targeting in any_targeting(),
    ) {
        let world = world_after(&steps);
        let expected = naively(&world, &targeting).len();
        let found = world.read(|context| survey(context, &shop(), &matching(), &targeting, true, 7));
        prop_assert_eq!((found.targeted, found.margin), (expected, None));
        let in_zones: u64 = found.zones.iter().map(|(_, devices)| devices).sum();
        prop_assert_eq!(in_zones, expected);
    }
}

/// Of three devices one has the tag, and every other is in Vienna.
fn many(devices: u32) -> Mutex<MemoryRows> {
    let mut rows = MemoryRows::default();
    let profile = |text: &str| {
        let patch = Patch::parse(text.as_bytes()).unwrap();
        Profile::new(0).apply(&patch, 0).unwrap().encode()
    };
    let kinds = [
        profile("{}"),
        profile(r#"{"time_zone":"Europe/Vienna"}"#),
        profile(r#"{"tags":["vip"]}"#),
        profile(r#"{"tags":["vip"],"time_zone":"Europe/Vienna"}"#),
    ];
    let numbers: Vec<u32> = (0..devices).collect();
    for chunk in numbers.chunks(1000) {
        let change = chunk
            .iter()
            .fold(Change::new(Scope::App(shop()), 0), |change, number| {
                let name = format!("d{number}");
                let (vip, vienna) = (number % 3 == 0, number % 2 == 0);
                let kind = &kinds[usize::from(vip) * 2 + usize::from(vienna)];
                let change = change.put(Key::new(Table::Device, &*name), kind.clone());
                match vip {
                    true => change.enrol(&name, "tvip".into(), true),
                    false => change,
                }
            });
        assert!(matches!(rows.change(&change), Outcome::Changed { .. }));
    }
    Mutex::new(rows)
}

#[test]
fn many_devices_are_estimated_within_the_margin() {
    let rows = many(90_000);
    let ask = |expression: &str, draw| {
        let context = Context {
            reader: &rows,
            now_ms: 1,
            unique: 0,
            actor: "test",
        };
        let targeting = Targeting {
            expression: Some(Expression::parse(expression).unwrap()),
            ..Targeting::everyone(1)
        };
        survey(&context, &shop(), &matching(), &targeting, true, draw).unwrap()
    };
    for draw in 0..8 {
        // By the cohort, of which each is.
        let vip = ask("vip", draw);
        assert_eq!((vip.targeted, vip.looked_at <= 20_000), (30_000, true));
        for (expression, truth) in [
            ("!vip", 60_000_u64),
            (r#"time_zone == "Europe/Vienna" && vip"#, 15_000),
            (r#"time_zone == "Europe/Vienna""#, 45_000),
        ] {
            let found = ask(expression, draw);
            let margin = found.margin.expect("not all were looked at");
            assert!((10_000..=20_000).contains(&found.looked_at));
            assert!(margin < 1500, "{margin}");
            // Twice the margin is missed once in 20,000.
            let off = found.targeted.abs_diff(truth);
            assert!(off <= 2 * margin, "{expression}: {off} off, {margin}");
        }
        let zones = ask("!vip", draw).zones;
        let [(None, elsewhere), (Some(vienna), there)] = &zones[..] else {
            panic!("{zones:?}");
        };
        assert_eq!(vienna.name(), "Europe/Vienna");
        assert!(elsewhere.abs_diff(*there) < 3000, "{zones:?}");
    }
}

#[test]
fn named_devices_count_whether_they_are_known_or_not() {
    let rows = many(3);
    let context = Context {
        reader: &rows,
        now_ms: 1,
        unique: 0,
        actor: "test",
    };
    let names: Vec<Arc<str>> = vec!["d0".into(), "d1".into(), "stranger".into()];
    let found = survey(
        &context,
        &shop(),
        &Audience::Devices(names),
        &Targeting::everyone(1),
        true,
        0,
    )
    .unwrap();
    assert_eq!((found.targeted, found.margin), (3, None));
    let shown: Vec<_> = found
        .zones
        .iter()
        .map(|(zone, devices)| (zone.is_some(), *devices))
        .collect();
    assert_eq!(shown, [(false, 2), (true, 1)]);
}
