use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::{
    device::Patch,
    registry::{devices, testing::World},
    samples::{any_patch, any_targeting},
    targeting::Targeting,
};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

/// What is done to a device, so many milliseconds after the last.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(usize, Json),
    Patch(usize, Json),
    Delete(usize),
}

pub(crate) fn any_step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        3 => (0..12_usize, any_patch()).prop_map(|(device, patch)| Step::Put(device, patch)),
        6 => (0..12_usize, any_patch()).prop_map(|(device, patch)| Step::Patch(device, patch)),
        1 => (0..12_usize).prop_map(Step::Delete),
    ];
    (0..6_u64, step)
}

/// A registry after these steps; those that cannot be done are left out.
pub(crate) fn world_after(steps: &[(u64, Step)]) -> World {
    let mut world = World::default();
    world.now_ms = 0;
    let parse = |patch: &Json| Patch::parse(patch.to_string().as_bytes()).unwrap();
    let name = |device: &usize| format!("device {device}");
    for (after_ms, step) in steps {
        world.now_ms += after_ms;
        let _ = match step {
            Step::Put(device, patch) => world
                .run(|context| devices::put(context, &shop(), &name(device), &parse(patch)))
                .map(drop),
            Step::Patch(device, patch) => world
                .run(|context| devices::patch(context, &shop(), &name(device), &parse(patch)))
                .map(drop),
            Step::Delete(device) => {
                world.run(|context| devices::delete(context, &shop(), &name(device)))
            }
        };
    }
    world
}

/// The numbers of those that a look at all of them finds.
pub(crate) fn naively(world: &World, targeting: &Targeting) -> RoaringBitmap {
    let page = world.read(|context| devices::list(context, &shop(), None, None, 100));
    let number = |name: &Arc<str>| {
        let numbers = world.read(|context| {
            context
                .reader
                .device_numbers(&shop(), std::slice::from_ref(name))
        });
        numbers[0].unwrap()
    };
    let numbered = page
        .devices
        .into_iter()
        .map(|device| (number(&device.id), device));
    numbered
        .filter(|(number, device)| targeting.meant(&device.id, *number, &device.profile))
        .map(|(number, _)| number)
        .collect()
}

fn counted(world: &World, targetings: Vec<Targeting>) -> Vec<RoaringBitmap> {
    let pushes = (1..).map(PushId).zip(targetings).collect();
    let mut count = Count::new(shop(), pushes);
    while !world.read(|context| count.go_on(context.reader, context.now_ms)) {}
    count.pushes.into_iter().map(|of| of.meant).collect()
}

proptest! {
    #[test]
    fn a_count_finds_what_a_look_at_all_finds(
        steps in prop::collection::vec(any_step(), 0..60),
        targetings in prop::collection::vec(any_targeting(), 1..6),
    ) {
        let world = world_after(&steps);
        let expected: Vec<_> = targetings.iter().map(|of| naively(&world, of)).collect();
        prop_assert_eq!(counted(&world, targetings), expected);
    }
}

#[test]
fn only_candidates_are_looked_at() {
    let world = world_after(&[]);
    let begun = |expression: &str| {
        let targeting = Targeting {
            expression: Some(crate::expression::Expression::parse(expression).unwrap()),
            ..Targeting::everyone(0)
        };
        let mut count = Count::new(shop(), vec![(PushId(1), targeting)]);
        world.read(|context| count.go_on(context.reader, context.now_ms));
        count.pushes[0].is_selective
    };
    for selective in [
        "vip",
        "vip && !muted",
        "vip || beta",
        r#"topic:"news" && platform == "ios""#,
        r#"platform == "ios" && (vip || beta && language == "de")"#,
    ] {
        assert!(begun(selective), "{selective}");
    }
    for not in ["!vip", r#"vip || platform == "ios""#, "has(user)"] {
        assert!(!begun(not), "{not}");
    }
}
