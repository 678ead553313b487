use proptest::prelude::*;

use super::*;
use crate::{
    device::Patch,
    expression::Expression,
    samples::{any_profile, any_targeting},
};

fn profile(change: &str, now_ms: u64) -> Arc<Profile> {
    let patch = Patch::parse(change.as_bytes()).unwrap();
    Arc::new(Profile::new(0).apply(&patch, now_ms).unwrap())
}

fn matching(text: &str) -> Targeting {
    Targeting {
        expression: Some(Expression::parse(text).unwrap()),
        ..Targeting::everyone(100)
    }
}

fn selected(index: &LiveIndex, targeting: &Targeting) -> Vec<u32> {
    index.select(targeting).iter().collect()
}

#[test]
fn devices_come_change_and_go() {
    let mut index = LiveIndex::new();
    index.join(0, "a", 10, None);
    index.join(
        2,
        "b",
        11,
        Some(profile(r#"{"tags": ["vip"], "platform": "ios"}"#, 1)),
    );
    index.join(3, "c", 12, Some(profile(r#"{"platform": "web"}"#, 1)));
    assert_eq!(index.len(), 3);
    assert_eq!(selected(&index, &Targeting::everyone(100)), [0, 2, 3]);
    assert_eq!(selected(&index, &matching("vip")), [2]);
    assert_eq!(selected(&index, &matching("!vip")), [0, 3]);
    assert_eq!(selected(&index, &matching("has(platform)")), [2, 3]);

    index.change(
        3,
        Some(profile(r#"{"tags": ["vip"], "platform": "web"}"#, 2)),
    );
    assert_eq!(selected(&index, &matching("vip")), [2, 3]);
    index.join(2, "d", 13, Some(profile(r#"{"platform": "ios"}"#, 1)));
    assert_eq!(selected(&index, &matching("vip")), [3]);
    assert_eq!(selected(&index, &matching("platform == 'ios'")), [2]);

    for slot in [0, 2, 3, 3, 7] {
        index.leave(slot);
        index.change(slot, Some(profile(r#"{"tags": ["vip"]}"#, 1)));
    }
    assert!(index.is_empty() && index.facts.is_empty() && index.changes.is_empty());
}

#[test]
fn who_matches_only_since_the_push_is_not_selected() {
    let mut index = LiveIndex::new();
    index.join(0, "a", 0, Some(profile(r#"{"tags": ["vip"]}"#, 100)));
    index.join(1, "b", 1, Some(profile(r#"{"tags": ["vip"]}"#, 101)));
    index.join(2, "c", 2, Some(Arc::new(Profile::new(101))));
    assert_eq!(selected(&index, &matching("vip")), [0]);
    assert_eq!(selected(&index, &Targeting::everyone(100)), [0, 1]);
}

#[test]
fn a_device_without_a_profile_takes_24_bytes() {
    assert_eq!(size_of::<Live>(), 24);
}

#[derive(Clone, Debug)]
enum Step {
    Join(u32, u32, Option<Profile>),
    Leave(u32),
    Change(u32, Option<Profile>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let slot = || 0..20_u32;
    let profile = || prop::option::weighted(0.85, any_profile());
    prop_oneof![
        4 => (slot(), 0..40_u32, profile()).prop_map(|(slot, number, p)| Step::Join(slot, number, p)),
        1 => slot().prop_map(Step::Leave),
        1 => (slot(), profile()).prop_map(|(slot, p)| Step::Change(slot, p)),
    ]
}

proptest! {
    #[test]
    fn selected_are_those_that_are_admitted(
        steps in prop::collection::vec(any_step(), 0..40),
        targetings in prop::collection::vec(any_targeting(), 1..8),
    ) {
        let mut index = LiveIndex::new();
        let mut devices = std::collections::BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join(slot, number, profile) => {
                    let client_id = format!("device {n}");
                    let profile = profile.map(Arc::new);
                    index.join(slot, &client_id, number, profile.clone());
                    devices.insert(slot, (client_id, number, profile));
                }
                Step::Leave(slot) => {
                    index.leave(slot);
                    devices.remove(&slot);
                }
                Step::Change(slot, profile) => {
                    let profile = profile.map(Arc::new);
                    index.change(slot, profile.clone());
                    if let Some(device) = devices.get_mut(&slot) {
                        device.2 = profile;
                    }
                }
            }
        }
        for targeting in targetings {
            let admitted: Vec<u32> = devices
                .iter()
                .filter(|(_, (client_id, number, profile))| {
                    targeting.admits(client_id, *number, profile.as_deref()).is_ok()
                })
                .map(|(slot, _)| *slot)
                .collect();
            prop_assert_eq!(selected(&index, &targeting), admitted, "{:?}", targeting);
        }
        for slot in devices.into_keys() {
            index.leave(slot);
        }
        prop_assert!(index.facts.is_empty() && index.changes.is_empty());
    }
}
