use proptest::prelude::*;

use super::*;

const LIFE: Life = Life {
    accepted_ms: 1000,
    expires_ms: 2000,
    ended_ms: None,
};

fn receipts(marks: &[(Mark, &[u32])]) -> Receipts {
    marks
        .iter()
        .map(|(mark, devices)| (*mark, devices.iter().copied().collect()))
        .collect()
}

#[test]
fn every_outcome_has_its_place() {
    let receipts = receipts(&[
        (Mark::Targeted, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (Mark::Delivered, &[1, 2]),
        (Mark::Displayed, &[2]),
        (Mark::Expired, &[3]),
        (Mark::Collapsed, &[4]),
        (Mark::Recalled, &[5]),
        (Mark::Dropped(DropReason::FrequencyCap), &[6, 7]),
        (Mark::Failed(FailReason::TooLarge), &[8]),
    ]);
    let funnel = Funnel::of(&receipts, &LIFE, 1500);
    assert_eq!(
        serde_json::to_string(&funnel).unwrap(),
        r#"{"targeted":9,"delivered":2,"pending":1,"expired":1,"collapsed":1,"recalled":1,"dropped":{"frequency_cap":2},"failed":{"too_large":1},"displayed":1,"clicked":0,"dismissed":0}"#
    );
    assert_eq!(funnel.check(9), Ok(()));
}

#[test]
fn delivered_wins_over_everything_and_time_decides_last() {
    let mut all: Vec<(Mark, &[u32])> = Mark::ALL.into_iter().map(|mark| (mark, &[1][..])).collect();
    let funnel = Funnel::of(&receipts(&all), &LIFE, 9999);
    assert_eq!((funnel.delivered, funnel.outcomes()), (1, 1));

    all.retain(|(mark, _)| !HAVING.contains(mark));
    while let [_, rest @ ..] = &all[..] {
        let marks: Vec<Mark> = all.iter().map(|(mark, _)| *mark).collect();
        let outcome = Outcome::of(|mark| marks.contains(&mark), &LIFE, 1500);
        let first = PRECEDENCE.into_iter().find(|mark| marks.contains(mark));
        assert_eq!(
            outcome,
            first.and_then(Outcome::stated).unwrap_or(Outcome::Pending)
        );
        all = rest.to_vec();
    }
}

#[test]
fn who_clicks_has_it_even_if_the_acknowledgement_was_lost() {
    let receipts = receipts(&[
        (Mark::Targeted, &[1, 2, 3]),
        (Mark::Clicked, &[1]),
        (Mark::Dismissed, &[2]),
        (Mark::Expired, &[1, 3]),
    ]);
    let funnel = Funnel::of(&receipts, &LIFE, 9999);
    assert_eq!((funnel.delivered, funnel.displayed), (2, 2));
    assert_eq!(
        (funnel.clicked, funnel.dismissed, funnel.expired),
        (1, 1, 1)
    );
}

#[test]
fn the_time_decides_about_those_of_whom_nothing_is_written() {
    let receipts = receipts(&[(Mark::Targeted, &[1])]);
    let at = |life: &Life, now_ms| Funnel::of(&receipts, life, now_ms);
    assert_eq!(at(&LIFE, 1999).pending, 1);
    assert_eq!(at(&LIFE, 2000).expired, 1);
    let recalled = Life {
        ended_ms: Some(1999),
        ..LIFE
    };
    assert_eq!(at(&recalled, 1999).recalled, 1);
    assert_eq!(at(&recalled, 9999).recalled, 1);
    let too_late = Life {
        ended_ms: Some(2000),
        ..LIFE
    };
    assert_eq!(at(&too_late, 2000).expired, 1);
    let now_or_never = Life {
        expires_ms: 1000,
        ..LIFE
    };
    assert_eq!(at(&now_or_never, 1000).expired, 1);
}

#[test]
fn a_check_tells_what_differs() {
    let funnel = Funnel::of(
        &receipts(&[(Mark::Targeted, &[1, 2]), (Mark::Delivered, &[2, 3, 4])]),
        &LIFE,
        1500,
    );
    assert_eq!((funnel.delivered, funnel.pending), (1, 1));
    let difference = funnel.check(2).unwrap_err();
    assert_eq!((difference.strays, difference.devices()), (2, 2));
    assert_eq!(
        funnel.check(7).unwrap_err().to_string(),
        "the push's record says 7 targeted devices, its set has 2, the outcomes add up to 2, and 2 devices outside the set have receipts"
    );
}

/// A thing that happens in the life of a push. Times are where they matter to the outcome.
#[derive(Clone, Debug)]
enum Event {
    Mark(Mark, u32),
    End,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let mark = prop::sample::select(&Mark::ALL[1..]);
    prop::collection::vec(
        prop_oneof![
            // Some devices lie in another chunk.
            20 => (mark, prop_oneof![0u32..40, 65_530u32..65_550]).prop_map(|(m, d)| Event::Mark(m, d)),
            1 => Just(Event::End),
            2 => (0u64..400).prop_map(Event::Pass),
        ],
        0..120,
    )
}

/// The rules, device by device, from what happened to it in the order it happened, without sets.
#[derive(Default)]
struct Model {
    marks: BTreeMap<u32, Vec<Mark>>,
}

impl Model {
    fn funnel(&self, targeted: &[u32], life: &Life, now_ms: u64) -> Funnel {
        let mut funnel = Funnel::default();
        for device in targeted {
            let marks = self.marks.get(device).cloned().unwrap_or_default();
            let is = |mark: Mark| marks.contains(&mark);
            funnel.targeted += 1;
            funnel.clicked += u64::from(is(Mark::Clicked));
            funnel.dismissed += u64::from(is(Mark::Dismissed));
            let displayed = is(Mark::Clicked) || is(Mark::Dismissed) || is(Mark::Displayed);
            funnel.displayed += u64::from(displayed);
            let failed = marks.iter().filter_map(|mark| match mark {
                Mark::Failed(reason) => Some(*reason),
                _ => None,
            });
            let dropped = marks.iter().filter_map(|mark| match mark {
                Mark::Dropped(reason) => Some(*reason),
                _ => None,
            });
            if displayed || is(Mark::Delivered) {
                funnel.delivered += 1;
            } else if let Some(reason) = failed.min() {
                *funnel.failed.entry(reason).or_default() += 1;
            } else if let Some(reason) = dropped.min() {
                *funnel.dropped.entry(reason).or_default() += 1;
            } else if is(Mark::Collapsed) {
                funnel.collapsed += 1;
            } else if is(Mark::Recalled) {
                funnel.recalled += 1;
            } else if is(Mark::Expired) {
                funnel.expired += 1;
            } else if life.ended_ms.is_some_and(|ended| ended < life.expires_ms) {
                funnel.recalled += 1;
            } else if now_ms >= life.expires_ms {
                funnel.expired += 1;
            } else {
                funnel.pending += 1;
            }
        }
        funnel.strays = self
            .marks
            .keys()
            .filter(|d| !targeted.contains(d))
            .count()
            .try_into()
            .unwrap();
        funnel
    }
}

proptest! {
    #[test]
    fn the_law_holds_whatever_happens(
        targeted in prop::collection::btree_set(prop_oneof![0u32..40, 65_530u32..65_550], 0..50),
        events in events(),
        repeat in any::<prop::sample::Index>(),
    ) {
        let targeted: Vec<u32> = targeted.into_iter().collect();
        let mut receipts = Receipts::default();
        receipts.add_all(Mark::Targeted, &targeted.iter().copied().collect());
        let (mut model, mut life, mut now_ms) = (Model::default(), LIFE, LIFE.accepted_ms);
        let mut snapshots = vec![receipts.clone()];
        for event in &events {
            match event {
                Event::Mark(mark, device) => {
                    receipts.add(*mark, *device);
                    model.marks.entry(*device).or_default().push(*mark);
                }
                Event::End => life.ended_ms = life.ended_ms.or(Some(now_ms)),
                Event::Pass(ms) => now_ms += ms,
            }
            snapshots.push(receipts.clone());
            let funnel = Funnel::of(&receipts, &life, now_ms);
            prop_assert_eq!(funnel.targeted, funnel.outcomes());
            prop_assert_eq!(&funnel, &model.funnel(&targeted, &life, now_ms));
            prop_assert_eq!(funnel.check(targeted.len() as u64).is_ok(), funnel.strays == 0);
            prop_assert!(funnel.clicked <= funnel.displayed && funnel.displayed <= funnel.delivered);
        }
        // A write that is repeated, now or from long ago, changes nothing.
        let mut again = receipts.clone();
        prop_assert_eq!(again.merge(&receipts), [].into());
        prop_assert_eq!(again.merge(repeat.get(&snapshots)), [].into());
        prop_assert_eq!(&again, &receipts);

        // Nor does it matter whether all devices are looked at together, or chunk by chunk.
        let mut sum = Funnel::default();
        for chunk in 0..2u32 {
            let part: Receipts = receipts.sets()
                .map(|(mark, set)| (mark, set.iter().filter(|d| d >> 16 == chunk).collect()))
                .collect();
            sum += Funnel::of(&part, &life, now_ms);
        }
        prop_assert_eq!(sum, Funnel::of(&receipts, &life, now_ms));

        // The outcome of one device is the one that it was counted in.
        let mut one_by_one = Funnel { targeted: targeted.len() as u64, ..Funnel::default() };
        for device in &targeted {
            one_by_one.count(Outcome::of(|mark| receipts.has(mark, *device), &life, now_ms), 1);
        }
        prop_assert_eq!(one_by_one.outcomes(), one_by_one.targeted);
        prop_assert_eq!(one_by_one.delivered, Funnel::of(&receipts, &life, now_ms).delivered);
        prop_assert_eq!(one_by_one.dropped, Funnel::of(&receipts, &life, now_ms).dropped);
    }
}
