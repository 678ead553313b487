use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    audience::Audience,
    device::Patch,
    receipt::Receipts,
    request::{Limits, Request},
    store::Report,
    time::from_rfc3339,
};

const PUSH: PushId = PushId(7 << 80 | 9);

fn noon() -> u64 {
    from_rfc3339("2026-11-27T12:00:00Z").unwrap()
}

fn request(options: &str) -> Request {
    let body = format!(r#"{{"audience":{{"all":true}},"data":{{"n":1}},"options":{options}}}"#);
    Request::parse(body.as_bytes(), &Limits::default()).unwrap()
}

fn campaign(options: &str) -> Campaign {
    let at_ms = noon();
    let campaign = request(options).campaign(PUSH, Targeting::everyone(at_ms), at_ms);
    stored(campaign.unwrap())
}

/// As it is after a write and a read.
fn stored(campaign: Campaign) -> Campaign {
    let row = Row::Campaign(Box::new(campaign));
    let read = Row::decode(&row.encode(), PUSH).unwrap();
    assert_eq!(read, row);
    match read {
        Row::Campaign(campaign) => *campaign,
        Row::Ended(_) => unreachable!("it was a campaign"),
    }
}

fn profile(zone: &str) -> Profile {
    let patch = Patch::parse(format!(r#"{{"time_zone":"{zone}"}}"#).as_bytes()).unwrap();
    Profile::new(1).apply(&patch, 1).unwrap()
}

fn turn(campaign: &Campaign, profile: Option<&Profile>, memory: &Memory, now_ms: u64) -> Turn {
    let candidate = Candidate {
        client_id: "d1",
        number: 1,
        profile,
        memory,
    };
    campaign.turn(&candidate, now_ms)
}

#[test]
fn what_is_more_than_now_is_a_campaign() {
    for (options, audience, expected) in [
        ("{}", Audience::All, false),
        (r#"{"portion":{"percent":5}}"#, Audience::All, false),
        (
            r#"{"portion":{"percent":5}}"#,
            Audience::Devices(vec![]),
            true,
        ),
        (
            r#"{"portion":{"percent":5,"hold":60}}"#,
            Audience::All,
            true,
        ),
        (r#"{"pace":{"over":60}}"#, Audience::Devices(vec![]), true),
        (r#"{"priority":"high"}"#, Audience::All, true),
        (r#"{"priority":"high","ttl":0}"#, Audience::All, false),
        (r#"{"priority":"normal"}"#, Audience::All, false),
        (r#"{"collapse_key":"a"}"#, Audience::All, true),
        (
            r#"{"frequency_cap":{"key":"a","count":1,"per":60}}"#,
            Audience::All,
            true,
        ),
    ] {
        let is_campaign = request(options).options.make_a_campaign(&audience);
        assert_eq!(is_campaign, expected, "{options} to {audience:?}");
    }
}

#[test]
fn a_pause_holds_the_line_up_and_not_the_clocks_on_the_walls() {
    let empty = Memory::default();
    let paced = campaign(r#"{"pace":{"over":600}}"#);
    let Turn::At(due_ms) = turn(&paced, None, &empty, noon()) else {
        panic!("nobody is first by chance");
    };
    let paused = stored(paced.stopped(State::Paused(noon() + 1000)));
    assert_eq!(turn(&paused, None, &empty, noon() + 2000), Turn::No);
    assert_eq!(paused.hold("d1", None, noon()), Some(Hold::Paused));
    let resumed = stored(paused.resumed(noon() + 61_000));
    let later = turn(&resumed, None, &empty, noon() + 61_000);
    assert_eq!(later, Turn::At(due_ms + 60_000));
    let hold = resumed.hold("d1", None, noon() + 61_000);
    assert_eq!(hold, Some(Hold::Pace(Time(due_ms + 60_000))));

    let evening = campaign(r#"{"local_time":"18:00","ttl":172800}"#);
    let six = Turn::At(noon() + 6 * 3_600_000);
    assert_eq!(turn(&evening, None, &empty, noon()), six);
    let resumed = evening
        .stopped(State::Paused(noon()))
        .resumed(noon() + 60_000);
    assert_eq!(turn(&resumed, None, &empty, noon() + 60_000), six);
    let hold = resumed.hold("d1", None, noon() + 60_000);
    assert_eq!(hold, Some(Hold::NotBefore(Time(noon() + 6 * 3_600_000))));
}

#[test]
fn quiet_hours_are_those_of_the_device() {
    let empty = Memory::default();
    let (vienna, tokyo) = (profile("Europe/Vienna"), profile("Asia/Tokyo"));
    let night = |policy: &str| {
        campaign(&format!(
            r#"{{"quiet_hours":{{"from":"21:00","to":"07:00","policy":"{policy}"}}}}"#
        ))
    };
    // 13:00 and 21:00.
    let delayed = night("delay");
    assert_eq!(turn(&delayed, Some(&vienna), &empty, noon()), Turn::Now);
    let seven = noon() + 10 * 3_600_000;
    assert_eq!(
        turn(&delayed, Some(&tokyo), &empty, noon()),
        Turn::At(seven)
    );
    let hold = delayed.hold("d1", Some(&tokyo), noon());
    assert_eq!(hold, Some(Hold::QuietHours(Time(seven))));
    let dropped = turn(&night("drop"), Some(&tokyo), &empty, noon());
    assert_eq!(dropped, Turn::Never(DropReason::QuietHours));
}

#[test]
fn a_pace_by_devices_waits_for_their_number() {
    let empty = Memory::default();
    let uncounted = campaign(r#"{"pace":{"per_second":10}}"#);
    assert!(uncounted.needs_watch());
    assert_eq!(turn(&uncounted, None, &empty, noon()), Turn::No);
    let counted = stored(uncounted.clone().counted(1000, noon() + 5000));
    assert!(!counted.needs_watch());
    let Turn::At(due_ms) = turn(&counted, None, &empty, noon() + 5000) else {
        panic!("nobody is first by chance");
    };
    assert!((noon() + 5000..noon() + 105_000).contains(&due_ms));
    // Paused meanwhile, it begins when it is resumed.
    let paused = uncounted.stopped(State::Paused(noon() + 1000));
    let resumed = paused.counted(1000, noon() + 5000).resumed(noon() + 9000);
    assert_eq!(
        turn(&resumed, None, &empty, noon() + 9000),
        Turn::At(due_ms + 4000)
    );
}

#[test]
fn who_was_not_there_is_not_meant() {
    let plain = campaign(r#"{"priority":"low"}"#);
    let before = Memory::default().since(noon() - 1);
    let after = Memory::default().since(noon() + 1);
    let registered = profile("UTC");
    assert_eq!(turn(&plain, None, &before, noon()), Turn::Now);
    assert_eq!(turn(&plain, None, &after, noon() + 2), Turn::No);
    assert_eq!(
        turn(&plain, Some(&registered), &after, noon() + 2),
        Turn::No
    );
    let mut named = plain.clone();
    named.targeting.names = Some(["d1".into()].into());
    assert_eq!(turn(&named, None, &after, noon() + 2), Turn::Now);
    named.targeting.names = Some(["other".into()].into());
    assert_eq!(turn(&named, None, &before, noon()), Turn::No);
    let of_audience = Campaign {
        targeting: Targeting {
            expression: Some(crate::expression::Expression::parse("!muted").unwrap()),
            ..Targeting::everyone(noon())
        },
        ..plain
    };
    assert_eq!(
        turn(&of_audience, Some(&registered), &after, noon() + 2),
        Turn::Now
    );
    assert_eq!(turn(&of_audience, None, &after, noon() + 2), Turn::No);
}

#[test]
fn a_memory_forgets_what_is_gone() {
    let made = |ms: u64| PushId(u128::from(ms) << 80 | 5);
    let (old, known, fresh) = (made(noon()), made(noon() + 1), made(noon() + 100_000));
    let mut memory = Memory::default().since(noon());
    for push in [old, known, fresh] {
        memory.add(push);
    }
    let now_ms = noon() + 110_000;
    memory.tidy([(known, noon() + 1)].into_iter(), now_ms);
    let memory = Memory::decode(&memory.encode()).unwrap();
    assert!(!memory.is_done(old) && memory.is_done(known));
    assert!(
        memory.is_done(fresh),
        "the node may not have heard of it yet"
    );
    assert_eq!(memory.since_ms(), 0, "all that it knows was made later");
    let mut memory = memory;
    memory.tidy(std::iter::empty(), now_ms + 200_000);
    assert_eq!(memory.encode(), b"", "nothing is no bytes");
}

/// What happens to a few campaigns of an app.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Pause(usize),
    Resume(usize),
    Cancel(usize),
    Collapse(usize),
    /// A device comes, or goes.
    Toggle(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40_000_u64).prop_map(Step::Pass),
        1 => (0..3_usize).prop_map(Step::Pause),
        2 => (0..3_usize).prop_map(Step::Resume),
        1 => (0..3_usize).prop_map(Step::Cancel),
        1 => (0..3_usize).prop_map(Step::Collapse),
        3 => (0..6_usize).prop_map(Step::Toggle),
    ]
}

const OPTIONS: [&str; 5] = [
    r#"{"pace":{"over":60},"ttl":180}"#,
    r#"{"frequency_cap":{"key":"a","count":1,"per":120},"ttl":240}"#,
    r#"{"frequency_cap":{"key":"a","count":1,"per":120},"pace":{"over":100},"ttl":200}"#,
    r#"{"portion":{"percent":40,"hold":60},"ttl":120}"#,
    r#"{"quiet_hours":{"from":"21:00","to":"07:00","policy":"drop"},"ttl":180}"#,
];

proptest! {
    /// Devices come and go, campaigns are paused, resumed, cancelled, collapsed and capped: every device has one outcome at any time, nobody gets what is paused or
    /// over, nobody gets a thing twice, and no cap is exceeded.
    #[test]
    fn the_law_of_numbers_holds_whatever_happens(
        kinds in prop::collection::vec(0..OPTIONS.len(), 3),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let zones = ["Europe/Vienna", "Asia/Tokyo", "UTC"].map(profile);
        let mut campaigns: Vec<(PushId, Option<Campaign>, Option<Ended>, Receipts)> = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            let id = PushId(u128::from(noon()) << 80 | number as u128);
            let made = request(OPTIONS[*kind]).campaign(id, Targeting::everyone(noon()), noon()).unwrap();
            let mut receipts = Receipts::default();
            for device in 0..6 {
                receipts.add(Mark::Targeted, device);
            }
            campaigns.push((id, Some(made), None, receipts));
        }
        let mut now_ms = noon();
        let mut live = [true; 6];
        let mut memories: Vec<Vec<u8>> = vec![Vec::new(); 6];
        let mut capped: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Pass(ms) => now_ms += ms,
                Step::Toggle(device) => live[device] = !live[device],
                Step::Pause(of) => {
                    campaigns[of].1 = campaigns[of].1.take().map(|c| c.stopped(State::Paused(now_ms)));
                }
                Step::Resume(of) => campaigns[of].1 = campaigns[of].1.take().map(|c| c.resumed(now_ms)),
                Step::Cancel(of) | Step::Collapse(of) if campaigns[of].1.take().is_some() => {
                    let how = match step {
                        Step::Cancel(_) => How::Cancelled,
                        _ => How::Collapsed(PUSH),
                    };
                    campaigns[of].2 = Some(Ended { at_ms: now_ms, how });
                }
                Step::Cancel(_) | Step::Collapse(_) => {}
            }
            let known: Vec<_> = campaigns.iter().map(|(id, ..)| (*id, noon())).collect();
            for (id, campaign, _, receipts) in &mut campaigns {
                let Some(campaign) = campaign else { continue };
                for device in (0..6).filter(|device| live[*device]) {
                    let mut memory = Memory::decode(&memories[device]).unwrap();
                    let name = format!("d{device}");
                    let candidate = Candidate {
                        client_id: &name,
                        number: device as u32,
                        profile: Some(&zones[device % 3]),
                        memory: &memory,
                    };
                    let turn = campaign.turn(&candidate, now_ms);
                    if campaign.state != State::Running || now_ms >= campaign.expires_ms {
                        prop_assert_eq!(turn, Turn::No);
                    }
                    match turn {
                        Turn::Now => {
                            prop_assert!(receipts.add(Mark::Delivered, device as u32), "twice");
                            if let Some(cap) = &campaign.cap {
                                let times = capped.entry(device).or_default();
                                let since_ms = now_ms.saturating_sub((cap.per_seconds - 1) * 1000);
                                let lately = times.iter().filter(|at| **at > since_ms).count();
                                prop_assert!((lately as u64) < cap.count);
                                times.push(now_ms);
                                memory.count(cap, now_ms);
                            }
                            memory.add(*id);
                        }
                        Turn::Never(reason) => {
                            prop_assert!(receipts.add(Mark::Dropped(reason), device as u32));
                            memory.add(*id);
                        }
                        Turn::At(at_ms) => prop_assert!(at_ms > now_ms && at_ms <= campaign.expires_ms),
                        Turn::No => {}
                    }
                    memory.tidy(known.iter().copied(), now_ms);
                    memories[device] = memory.encode();
                }
            }
            for (_, campaign, ended, receipts) in &campaigns {
                let count = |mark| receipts.set(mark).map_or(0, |set| set.len());
                let mut report = Report {
                    accepted_ms: noon(),
                    expires_ms: campaign.as_ref().map_or(u64::MAX, |c| c.expires_ms),
                    targeted: 6,
                    delivered: count(Mark::Delivered),
                    ..Report::default()
                };
                for mark in crate::funnel::PRECEDENCE {
                    if count(mark) > 0 {
                        report.settled.insert(mark, count(mark));
                    }
                }
                let mut report = report.with_rest(now_ms);
                if let Some(ended) = ended {
                    report = report.ended(ended);
                    prop_assert_eq!(report.pending, 0);
                }
                prop_assert_eq!(report.funnel().check(6), Ok(()));
            }
        }
    }
}
