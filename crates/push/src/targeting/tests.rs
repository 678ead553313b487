use proptest::prelude::*;

use super::*;
use crate::{
    device::Patch,
    samples::{any_profile, any_targeting},
};

fn matching(text: &str, pushed_ms: u64) -> Targeting {
    Targeting {
        expression: Some(Expression::parse(text).unwrap()),
        ..Targeting::everyone(pushed_ms)
    }
}

/// A device with these changes.
fn device(changes: &[(u64, &str)]) -> Profile {
    changes
        .iter()
        .fold(Profile::new(0), |profile, (at_ms, change)| {
            let patch = Patch::parse(change.as_bytes()).unwrap();
            profile.apply(&patch, *at_ms).unwrap()
        })
}

fn changed(tag: &str, at_ms: u64) -> Option<Changed> {
    let fact = Fact::Tag(tag.into());
    Some(Changed { fact, at_ms })
}

#[test]
fn a_device_must_match_when_the_push_is_made_and_now() {
    let push = matching("vip && !muted", 100);
    let admits = |changes: &[(u64, &str)]| push.admits("d", 0, Some(&device(changes)));
    assert_eq!(admits(&[(50, r#"{"tags": ["vip"]}"#)]), Ok(()));
    assert_eq!(
        admits(&[(100, r#"{"tags": ["vip"]}"#)]),
        Ok(()),
        "in the same millisecond"
    );
    assert_eq!(
        admits(&[(101, r#"{"tags": ["vip"]}"#)]),
        Err(Unmet::OnlySince(changed("vip", 101)))
    );
    assert_eq!(
        admits(&[
            (50, r#"{"tags": ["vip"]}"#),
            (120, r#"{"tags": ["vip", "muted"]}"#)
        ]),
        Err(Unmet::NoLonger(changed("muted", 120)))
    );
    assert_eq!(
        admits(&[
            (50, r#"{"tags": ["vip"]}"#),
            (120, r#"{"tags": []}"#),
            (130, r#"{"user": "u"}"#)
        ]),
        Err(Unmet::NoLonger(changed("vip", 120)))
    );
    assert_eq!(
        admits(&[
            (50, r#"{"tags": ["vip"]}"#),
            (120, r#"{"tags": []}"#),
            (130, r#"{"tags": ["vip"]}"#)
        ]),
        Ok(()),
        "what was between does not matter"
    );
    assert_eq!(
        admits(&[(50, r#"{"tags": ["beta"]}"#)]),
        Err(Unmet::NeverMatched)
    );
    assert_eq!(
        push.admits("d", 0, Some(&Profile::new(101))),
        Err(Unmet::RegisteredLater { at_ms: 101 })
    );
    assert_eq!(push.admits("d", 0, None), Err(Unmet::NeverMatched));
    assert_eq!(matching("!muted", 100).admits("d", 0, None), Ok(()));
}

#[test]
fn lists_and_portions_come_on_top() {
    let mut push = matching("vip", 100);
    let vip = device(&[(1, r#"{"tags": ["vip"]}"#)]);
    push.numbers = Some([7].into_iter().collect());
    assert_eq!(push.admits("d", 7, Some(&vip)), Ok(()));
    assert_eq!(push.admits("d", 8, Some(&vip)), Err(Unmet::NotListed));
    let portion = |basis_points| {
        Some(Portion {
            salt: 1,
            basis_points,
        })
    };
    push.portion = portion(0);
    assert_eq!(push.admits("d", 7, Some(&vip)), Err(Unmet::NotInPortion));
    push.portion = portion(Portion::WHOLE);
    assert_eq!(push.admits("d", 7, Some(&vip)), Ok(()));
}

#[test]
fn a_portion_is_as_large_as_it_says_and_grows_without_losing_anyone() {
    let devices: Vec<String> = (0..20_000).map(|n| format!("device-{n}")).collect();
    let drawn = |salt, basis_points| {
        let portion = Portion { salt, basis_points };
        let contained = devices.iter().map(move |device| portion.contains(device));
        contained.collect::<Vec<bool>>()
    };
    let count = |drawn: &[bool]| drawn.iter().filter(|drawn| **drawn).count();
    for salt in 0..4 {
        let (small, large) = (drawn(salt, 100), drawn(salt, 2500));
        assert!((120..280).contains(&count(&small)), "{}", count(&small));
        assert!((4700..5300).contains(&count(&large)), "{}", count(&large));
        assert!(
            small
                .iter()
                .zip(&large)
                .all(|(small, large)| !small || *large)
        );
    }
    let both = drawn(1, 2500)
        .iter()
        .zip(drawn(2, 2500))
        .filter(|(a, b)| **a && *b)
        .count();
    assert!(
        (1050..1450).contains(&both),
        "salts are independent: {both}"
    );
}

#[test]
fn the_draw_is_the_same_in_every_version() {
    assert_eq!(Portion::hash(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(Portion::hash("foobar"), 0x8594_4171_f739_67e8);
    let portion = Portion {
        salt: 42,
        basis_points: 1000,
    };
    let drawn: Vec<u32> = (0..60)
        .filter(|n| portion.contains(&n.to_string()))
        .collect();
    assert_eq!(drawn, [1, 11, 14, 20, 37, 43]);
}

#[test]
fn reasons_are_written_for_people() {
    let push = matching("vip", 100);
    let late = device(&[(101, r#"{"tags": ["vip"]}"#)]);
    assert_eq!(
        push.admits("d", 0, Some(&late)).unwrap_err().to_string(),
        "in the audience now, but not when the push was made: vip changed at 1970-01-01T00:00:00.101Z"
    );
    assert_eq!(
        Unmet::RegisteredLater { at_ms: 1000 }.to_string(),
        "not known until 1970-01-01T00:00:01.000Z, after the push was made"
    );
}

#[test]
fn the_stored_form_stays_readable() {
    let push = Targeting {
        names: None,
        expression: Some(Expression::parse("a").unwrap()),
        numbers: None,
        portion: Some(Portion {
            salt: 1,
            basis_points: 300,
        }),
        pushed_ms: 5,
    };
    let hex: String = push.encode().iter().map(|b| format!("{b:02x} ")).collect();
    assert_eq!(
        hex.trim_end(),
        "0a 01 61 1a 0c 09 01 00 00 00 00 00 00 00 10 ac 02 20 05"
    );
}

#[test]
fn damaged_bytes_are_refused() {
    let with = |expression: &str| {
        TargetingRecord {
            expression: Some(expression.into()),
            ..TargetingRecord::default()
        }
        .encode_to_vec()
    };
    assert!(Targeting::decode(&with("a")).is_ok());
    assert_eq!(
        Targeting::decode(&with("a &&& b")).unwrap_err().to_string(),
        "the targeting of a push is damaged: line 1, column 5: found \"&\", expected &&"
    );
    let portion = Some(PortionRecord {
        salt: 0,
        basis_points: 10_001,
    });
    let record = TargetingRecord {
        portion,
        ..TargetingRecord::default()
    };
    assert!(Targeting::decode(&record.encode_to_vec()).is_err());
    let record = TargetingRecord {
        numbers: Some(vec![1, 2, 3]),
        ..TargetingRecord::default()
    };
    assert!(Targeting::decode(&record.encode_to_vec()).is_err());
}

proptest! {
    #[test]
    fn what_is_stored_is_read(targeting in any_targeting()) {
        prop_assert_eq!(Targeting::decode(&targeting.encode()), Ok(targeting));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Targeting::decode(&bytes);
    }

    #[test]
    fn a_device_is_admitted_if_it_matched_then_and_matches_now(
        targeting in any_targeting(),
        profile in any_profile(),
    ) {
        let listed = targeting.numbers.as_ref().is_none_or(|numbers| numbers.contains(3));
        let drawn = targeting.portion.is_none_or(|portion| portion.contains("d"));
        let matches = |facts| targeting.expression.as_ref().is_none_or(|e| e.matches(facts));
        let expected = listed
            && drawn
            && profile.created_ms() <= targeting.pushed_ms
            && matches(profile.present())
            && matches(profile.as_of(targeting.pushed_ms));
        prop_assert_eq!(targeting.admits("d", 3, Some(&profile)).is_ok(), expected);
    }
}
