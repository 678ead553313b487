use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    device::{Patch, Profile},
    expression::Expression,
    targeting::Targeting,
};

const LIFE: Life = Life {
    accepted_ms: 0,
    expires_ms: 2000,
    ended_ms: None,
};

/// A device that is connected, and of whose push nothing is known but that it is for it.
fn facts() -> Facts {
    Facts {
        now_ms: 1000,
        life: Some(LIFE),
        device_known: true,
        marks: [(Mark::Targeted, None)].into(),
        presence: Presence::Connected,
        ..Facts::default()
    }
}

fn marked(mark: Mark) -> Facts {
    let mut facts = facts();
    facts.marks.insert(mark, Some(Time(500)));
    facts
}

#[track_caller]
fn check(facts: Facts, expected: Value) {
    let explained = serde_json::to_value(Explained::from(explain(&facts))).unwrap();
    assert_eq!(explained, expected);
}

#[test]
fn nothing_to_explain() {
    check(
        Facts {
            life: None,
            ..facts()
        },
        json!({"code": "push_not_found", "message": "the app has no such push, or its receipts are no longer kept"}),
    );
    check(
        Facts {
            device_known: false,
            ..facts()
        },
        json!({"code": "device_not_found", "message": "the app has no such device"}),
    );
}

#[test]
fn devices_that_have_it() {
    check(
        marked(Mark::Delivered),
        json!({"code": "delivered", "at": "1970-01-01T00:00:00.500Z", "message": "the device acknowledged it at 1970-01-01T00:00:00.500Z"}),
    );
    let mut both = marked(Mark::Displayed);
    both.marks.insert(Mark::Delivered, None);
    both.marks.insert(Mark::Clicked, None);
    check(
        both,
        json!({"code": "clicked", "message": "somebody opened it"}),
    );
    check(
        marked(Mark::Dismissed),
        json!({"code": "dismissed", "at": "1970-01-01T00:00:00.500Z", "message": "somebody dismissed it at 1970-01-01T00:00:00.500Z"}),
    );
}

#[test]
fn devices_that_it_is_not_for() {
    let with = |kept_out| Facts {
        marks: [].into(),
        kept_out,
        ..facts()
    };
    check(
        with(None),
        json!({"code": "not_in_audience", "message": "the device was not in the audience"}),
    );
    check(
        with(Some(KeptOut::TagLater {
            tag: "vip".into(),
            since: Time(700),
        })),
        json!({"code": "tag_added_later", "tag": "vip", "since": "1970-01-01T00:00:00.700Z", "message": "the device has the tag \"vip\" since 1970-01-01T00:00:00.700Z, after the push was made"}),
    );
    check(
        with(Some(KeptOut::Muted {
            tag: "muted".into(),
        })),
        json!({"code": "muted", "tag": "muted", "message": "the device has the tag \"muted\", which the audience excludes"}),
    );
    check(
        with(Some(KeptOut::RegisteredLater { at: Time(1) })),
        json!({"code": "registered_later", "registered_at": "1970-01-01T00:00:00.001Z", "message": "the device registered at 1970-01-01T00:00:00.001Z, after the push was made"}),
    );
}

#[test]
fn devices_that_will_not_get_it() {
    check(
        Facts {
            collapsed_by: Some(PushId(1)),
            ..marked(Mark::Collapsed)
        },
        json!({"code": "collapsed", "by": "00000000000000000000000001", "message": "push 00000000000000000000000001 with the same collapse key replaced it"}),
    );
    check(
        marked(Mark::Dropped(DropReason::FrequencyCap)),
        json!({"code": "capped", "message": "the device had as many pushes as its frequency cap allows"}),
    );
    check(
        marked(Mark::Dropped(DropReason::InboxFull)),
        json!({"code": "dropped_by_quota", "quota": "inbox_full", "message": "the device's inbox was full, and it was the first to give way"}),
    );
    check(
        Facts {
            kept_out: Some(KeptOut::TagRemoved { tag: "vip".into() }),
            ..marked(Mark::Dropped(DropReason::LeftAudience))
        },
        json!({"code": "tag_removed", "tag": "vip", "message": "the device no longer has the tag \"vip\", which it had when the push was made"}),
    );
    check(
        Facts {
            too_large: Some((5000, 4096)),
            ..marked(Mark::Failed(FailReason::TooLarge))
        },
        json!({"code": "too_large", "bytes": 5000, "limit": 4096, "message": "it has 5000 bytes, and the device's client takes at most 4096"}),
    );
    check(
        Facts {
            life: Some(Life {
                ended_ms: Some(900),
                ..LIFE
            }),
            ..facts()
        },
        json!({"code": "recalled", "at": "1970-01-01T00:00:00.900Z", "message": "the push was cancelled or recalled at 1970-01-01T00:00:00.900Z before the device got it"}),
    );
    check(
        Facts {
            now_ms: 2000,
            presence: Presence::Away(Time(100)),
            ..facts()
        },
        json!({"code": "expired", "at": "1970-01-01T00:00:02.000Z", "away_since": "1970-01-01T00:00:00.100Z", "message": "its time ran out at 1970-01-01T00:00:02.000Z, while the device was away (since 1970-01-01T00:00:00.100Z)"}),
    );
    // Whoever left after the end was not away because of it.
    check(
        Facts {
            now_ms: 9000,
            presence: Presence::Away(Time(8000)),
            ..facts()
        },
        json!({"code": "expired", "at": "1970-01-01T00:00:02.000Z", "message": "its time ran out at 1970-01-01T00:00:02.000Z"}),
    );
}

#[test]
fn devices_that_may_still_get_it() {
    let sent = Sent {
        connection: "n1/7".into(),
        at: Time(600),
    };
    check(
        Facts {
            sent: Some(sent),
            hold: Some(Hold::Paused),
            ..facts()
        },
        json!({"code": "not_acknowledged", "connection": "n1/7", "sent_at": "1970-01-01T00:00:00.600Z", "message": "sent on connection n1/7 at 1970-01-01T00:00:00.600Z, and not acknowledged yet"}),
    );
    check(
        Facts {
            hold: Some(Hold::Pace(Time(1500))),
            ..facts()
        },
        json!({"code": "waiting_for_pace", "until": "1970-01-01T00:00:01.500Z", "message": "its pace gives this device its turn at 1970-01-01T00:00:01.500Z"}),
    );
    check(
        Facts {
            hold: Some(Hold::QuietHours(Time(1500))),
            ..facts()
        },
        json!({"code": "waiting_for_quiet_hours", "until": "1970-01-01T00:00:01.500Z", "message": "the device has quiet hours until 1970-01-01T00:00:01.500Z"}),
    );
    check(
        Facts {
            position: Position::Ahead(3),
            ..facts()
        },
        json!({"code": "queued", "behind": 3, "message": "it is queued: 3 others are to be acknowledged before it"}),
    );
    check(
        Facts {
            presence: Presence::Away(Time(100)),
            position: Position::Ahead(3),
            ..facts()
        },
        json!({"code": "away", "since": "1970-01-01T00:00:00.100Z", "message": "the device is away since 1970-01-01T00:00:00.100Z, and gets it when it returns"}),
    );
    check(
        Facts {
            position: Position::Passed,
            ..facts()
        },
        json!({"code": "left_audience", "message": "the device was in the audience when the push was made, and no longer is"}),
    );
}

/// The outcome that an explanation of a targeted device belongs to.
fn outcome_of(explanation: &Explanation) -> &'static str {
    use Explanation as E;
    match explanation {
        E::Delivered { .. } | E::Displayed { .. } | E::Clicked { .. } | E::Dismissed { .. } => {
            "delivered"
        }
        E::Collapsed { .. } => "collapsed",
        E::Capped
        | E::InQuietHours
        | E::LocalTimePast
        | E::DroppedByQuota { .. }
        | E::LogTrimmed
        | E::DeviceDeleted
        | E::LeftAudience => "dropped",
        E::TooLarge { .. } | E::RefusedByDevice => "failed",
        E::Recalled { .. } => "recalled",
        E::Expired { .. } => "expired",
        _ => "pending",
    }
}

#[test]
fn an_audience_explains_whom_it_keeps_out() {
    let profile = |patches: &[(u64, &str)]| {
        let mut profile = Profile::new(10);
        for (at_ms, patch) in patches {
            let patch = Patch::parse(patch.as_bytes()).unwrap();
            profile = profile.apply(&patch, *at_ms).unwrap();
        }
        profile
    };
    let targeting = Targeting {
        expression: Some(Expression::parse("vip && !muted").unwrap()),
        ..Targeting::everyone(1000)
    };
    let explained = |profile: Profile, counting: bool, marks: &[Mark], is_passed: bool| {
        let at_device = AtDevice {
            life: Some(Life {
                accepted_ms: 1000,
                ..LIFE
            }),
            counting,
            number: Some(7),
            marks: marks.iter().copied().collect(),
            is_passed,
            targeting: Some(targeting.encode().into()),
            profile: Some(profile.encode().into()),
            ..AtDevice::default()
        };
        explain(&at_device.facts("d", 1500))
    };
    let tag = "vip".to_owned();
    let vip = (500, r#"{"tags":["vip"]}"#);
    let later = profile(&[(1100, vip.1)]);
    let since = Time(1100);
    assert_eq!(
        explained(later, true, &[], false),
        Explanation::TagAddedLater {
            tag: tag.clone(),
            since
        }
    );
    let removed = profile(&[vip, (1100, r#"{"tags":[]}"#)]);
    assert_eq!(
        explained(removed, false, &[Mark::Targeted], true),
        Explanation::TagRemoved { tag }
    );
    let muted = profile(&[vip, (1100, r#"{"tags":["vip","muted"]}"#)]);
    assert_eq!(
        explained(muted, false, &[Mark::Targeted], true),
        Explanation::Muted {
            tag: "muted".to_owned()
        }
    );
    assert_eq!(
        explained(profile(&[]), false, &[], false),
        Explanation::NotInAudience
    );
    let away = Explanation::Away { since: None };
    assert_eq!(explained(profile(&[vip]), true, &[], false), away);
    // A receipt from outside counts nowhere.
    let stray = explained(profile(&[]), false, &[Mark::Delivered], false);
    assert_eq!(stray, Explanation::NotInAudience);
}

proptest! {
    #[test]
    fn an_explanation_agrees_with_the_funnel(
        marks in prop::collection::btree_set(prop::sample::select(&Mark::ALL[..]), 0..4),
        now_ms in 0u64..3000,
        ended_ms in prop::option::of(0u64..3000),
        sent in any::<bool>(),
    ) {
        let life = Life { ended_ms, ..LIFE };
        let mut facts = Facts { now_ms, life: Some(life), ..facts() };
        facts.marks.extend(marks.into_iter().map(|mark| (mark, None)));
        facts.sent = sent.then(|| Sent { connection: "c".into(), at: Time(1) });
        let expected = match Outcome::of(|mark| facts.marks.contains_key(&mark), &life, now_ms) {
            Outcome::Delivered => "delivered",
            Outcome::Pending => "pending",
            Outcome::Expired => "expired",
            Outcome::Collapsed => "collapsed",
            Outcome::Recalled => "recalled",
            Outcome::Dropped(_) => "dropped",
            Outcome::Failed(_) => "failed",
        };
        let explanation = explain(&facts);
        prop_assert_eq!(outcome_of(&explanation), expected);
        prop_assert!(!explanation.to_string().is_empty());
    }
}
