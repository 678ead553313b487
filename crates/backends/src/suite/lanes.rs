//! Pushes to devices of different urgency, and those that take the place of others.

use campanile_broker::{
    ids::Offset,
    lane::{Lane, LaneSet},
    store::{Command, Notice, Outcome, Page, Query, Source},
};
use campanile_push::{
    id::PushId,
    lanes::Priority,
    receipt::{DropReason, Mark},
    store as push,
};

use super::{World, client, message_id};
use crate::{Request, suite::progress};

/// Each in the order of acceptance. A claim, a session and a page tell which lanes hold anything.
pub fn a_push_waits_in_its_lane(world: &mut World) {
    world.claim("a", 60);
    let priorities = [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Normal,
        Priority::High,
    ];
    let ids = priorities.map(|priority| world.push_with(&["a", "b"], Some(priority), None));
    world.restart();
    for device in ["a", "b"] {
        for (lane, expected) in [
            (Lane::High, vec![ids[2], ids[4]]),
            (Lane::Normal, vec![ids[1], ids[3]]),
            (Lane::Low, vec![ids[0]]),
        ] {
            assert_eq!(world.waiting(device, lane), expected, "{lane:?}");
        }
    }
    let (first, more, lanes) = world.read_lane("a", Lane::High, Offset(0), 1);
    assert_eq!((first.len(), more, lanes), (1, true, LaneSet::ALL));
    let (rest, more, _) = world.read_lane("a", Lane::High, first[0].offset, 5);
    assert_eq!((rest.len(), more), (1, false));

    let claimed = world.claim("a", 60);
    assert_eq!(claimed.inbox_waiting, LaneSet::ALL);
    let done = world.inbox("a");
    let places = done.iter().map(|entry| (Source::Inbox, entry.offset));
    let Page::Entries(found) = world.read(&Query::Entries {
        client: client("a"),
        places: places.collect(),
    }) else {
        panic!("no entries")
    };
    let items = done.iter().map(|entry| &entry.item);
    assert!(found.iter().map(|(_, item)| item).eq(items));
    // All but the low one, one place named twice.
    let saved = world.progress("a", &claimed, |progress| {
        progress.inbox_done = done[..4].iter().map(|entry| entry.offset).collect();
        progress.inbox_done.push(done[0].offset);
    });
    assert_eq!(saved, Ok(Outcome::Done));
    let (left, _, lanes) = world.read_lane("a", Lane::Low, Offset(0), 5);
    assert_eq!((left.len(), lanes), (1, Lane::Low.into()));
    assert_eq!(world.claim("a", 60).inbox_waiting, Lane::Low.into());
    assert_eq!(world.inbox("b").len(), 5);
}

/// So that whoever reads one lane knows what it has missed of it. An empty lane has no last one.
pub fn a_notice_names_the_entry_before_it_in_its_lane(world: &mut World) {
    world.claim("a", 60);
    world.take_notices();
    let mut places = Vec::new();
    for priority in [
        Priority::Normal,
        Priority::High,
        Priority::Normal,
        Priority::High,
    ] {
        world.push_with(&["a"], Some(priority), None);
        let announced = world.inbox_notices();
        places.extend(announced.iter().map(|(_, place, _)| *place));
        let before = places.len().checked_sub(3).map(|at| places[at]);
        let before = before.filter(|_| world.config.shared).unwrap_or_default();
        assert_eq!(announced[0].0, before);
    }
    let claimed = world.claim("a", 60);
    let high = vec![places[1], places[3]];
    let saved = world.progress("a", &claimed, |progress| progress.inbox_done = high);
    assert_eq!(saved, Ok(Outcome::Done));
    world.take_notices();
    world.push_with(&["a"], Some(Priority::High), None);
    assert_eq!(world.inbox_notices()[0].0, Offset(0));
}

/// Within a lane the oldest; a push says so in its report, also if it is the newest.
pub fn a_full_inbox_drops_the_least_urgent(world: &mut World) {
    world.config.inbox_max_entries = 3;
    world.restart();
    world.claim("a", 60);
    let mut push = |priority| world.push_with(&["a"], Some(priority), None);
    let low = [push(Priority::Low), push(Priority::Low)];
    let high = push(Priority::High);
    let normal = push(Priority::Normal);
    assert_eq!(world.waiting("a", Lane::Low), [low[1]]);
    let publish = world.send("a", "x");
    assert_eq!(world.waiting("a", Lane::Low), []);
    let late = world.push_with(&["a"], Some(Priority::Low), None);
    for id in [low[0], low[1], late] {
        assert_eq!(world.report(id).dropped, 1);
        let dropped = Mark::Dropped(DropReason::InboxFull);
        assert!(world.at_device(id, "a").marks.contains(&dropped));
    }
    world.take_notices();
    let higher = [(); 3].map(|()| world.push_with(&["a"], Some(Priority::High), None));
    assert_eq!(world.waiting("a", Lane::High), higher);
    assert_eq!(world.inbox("a").len(), 3);
    assert_eq!(world.report(normal).dropped, 1);
    assert_eq!(world.report(high).dropped, 1);
    assert!(!world.inbox_payloads("a").contains(&super::text(&publish)));
    assert_eq!(world.inbox_notices().len(), 3);
}

/// At each of its devices; from there on its report says so, and by which.
pub fn a_push_takes_the_place_of_one_of_the_same_key(world: &mut World) {
    world.claim("a", 1000);
    let claimed = world.claim("b", 1000);
    let first = world.push_with(&["a", "b"], None, Some("score"));
    let others = [
        world.push_with(&["a"], None, Some("weather")),
        world.push_with(&["a"], None, None),
    ];
    world.acknowledge_all("b", &claimed);
    let place = world.inbox("a")[0].offset;
    world.take_notices();
    let second = world.push_with(&["a", "b", "c"], Some(Priority::High), Some("score"));
    let replaced: Vec<_> = world.inbox_notices().iter().map(|n| n.2).collect();
    assert_eq!(replaced, [Some(place), None, None]);
    assert_eq!(world.waiting("a", Lane::Normal), others);
    assert_eq!(world.waiting("a", Lane::High), [second]);
    world.restart();
    let report = world.report(first);
    let figures = (report.targeted, report.delivered, report.collapsed);
    assert_eq!((figures, report.pending), ((2, 1, 1), 0));
    let at = world.at_device(first, "a");
    assert_eq!(at.marks, [Mark::Targeted, Mark::Collapsed].into());
    assert_eq!(at.collapsed_by, Some(second));
    assert_eq!(world.at_device(first, "b").collapsed_by, None);

    // Of one device, whatever its lane was.
    let third = world.push_with(&["a"], None, Some("score"));
    let fourth = world.push_with(&["a"], Some(Priority::Low), Some("score"));
    assert_eq!(world.waiting("a", Lane::Low), [fourth]);
    assert_eq!(world.at_device(second, "a").collapsed_by, Some(third));
    let at = world.at_device(third, "a");
    assert_eq!(at.marks, [Mark::Targeted, Mark::Collapsed].into());
    assert_eq!(at.collapsed_by, Some(fourth));
    let report = world.report(third);
    assert_eq!((report.targeted, report.collapsed), (1, 1));
    let report = world.report(second);
    assert_eq!((report.collapsed, report.pending), (1, 2));

    // Nor does time change that.
    world.pass_seconds(200);
    world.sweep();
    let report = world.report(second);
    assert_eq!((report.collapsed, report.expired), (1, 2));
    assert_eq!(world.inbox("a"), vec![]);
    world.pass_seconds((world.config.push_retention_ms / 1000) as u32);
    world.sweep();
    assert_eq!(world.try_report(first), None);
    assert_eq!(world.at_device(first, "a").collapsed_by, None);
}

/// It was under way when it was replaced: the device has it.
pub fn a_late_receipt_beats_a_collapse(world: &mut World) {
    let claimed = world.claim("a", 60);
    for devices in [&["a"][..], &["a", "b"]] {
        let first = world.push_with(devices, None, Some("k"));
        let second = world.push_with(devices, None, Some("k"));
        assert_eq!(world.report(first).collapsed, devices.len() as u64);
        let saved = world.progress("a", &claimed, |progress| {
            progress.receipts = vec![message_id(first)];
        });
        assert_eq!(saved, Ok(Outcome::Done));
        let report = world.report(first);
        assert_eq!(
            (report.delivered, report.collapsed + 1),
            (1, report.targeted)
        );
        assert_eq!(world.report(second).pending, devices.len() as u64);
    }
}

/// Acknowledged, dropped or expired: nothing is left that the next one could take the place of.
pub fn a_key_is_forgotten_with_its_entry(world: &mut World) {
    world.config.inbox_max_entries = 2;
    world.restart();
    let claimed = world.claim("a", 1000);
    let acknowledged = world.push_with(&["a"], None, Some("k"));
    world.acknowledge_all("a", &claimed);
    let dropped = world.push_with(&["a"], Some(Priority::Low), Some("k"));
    for _ in 0..2 {
        world.push_with(&["a"], None, None);
    }
    let expired = world.push_with(&["a"], None, Some("k"));
    world.pass_seconds(100);
    world.sweep();
    let last = world.push_with(&["a"], None, Some("k"));
    for id in [acknowledged, dropped, expired, last] {
        assert_eq!(world.report(id).collapsed, 0);
    }
    assert_eq!(world.waiting("a", Lane::Normal), [last]);
    assert_eq!(world.report(dropped).dropped, 1);
}

/// It might reach nobody. Nor is anything of it left to be replaced.
pub fn a_push_for_now_replaces_nothing(world: &mut World) {
    world.claim("a", 60);
    let kept = world.push_with(&["a"], None, Some("k"));
    let mut accept = world.accept(Some(&["a"]), 0);
    accept.collapse_key = Some("k".into());
    let now = accept.id;
    world.run_push(push::Command::Accept(Box::new(accept)));
    world.push_with(&["a"], None, Some("other"));
    assert_eq!(world.report(kept).pending, 1);
    assert_eq!(world.report(now).collapsed, 0);
    assert_eq!(world.inbox("a").len(), 2);
}

/// In the order of the commit, and each device by itself; whoever repeats a push repeats nothing.
pub fn pushes_of_one_commit_replace_each_other(world: &mut World) {
    let claimed = world.claim("a", 60);
    let accepts: Vec<_> = (0..4)
        .map(|number| {
            let mut accept = world.accept(Some(&["a", "b"][..1 + number % 2]), 100);
            accept.collapse_key = Some("k".into());
            accept
        })
        .collect();
    let mut requests: Vec<_> = accepts
        .iter()
        .map(|accept| Request::Push(push::Command::Accept(Box::new(accept.clone()))))
        .collect();
    requests.insert(
        1,
        Request::Broker(Command::Progress(progress("a", &claimed))),
    );
    requests.push(requests[0].clone());
    for reply in world.commit(requests) {
        assert!(reply.is_ok(), "{reply:?}");
    }
    let ids: Vec<_> = accepts.iter().map(|accept| accept.id).collect();
    assert_eq!(world.waiting("a", Lane::Normal), [ids[3]]);
    assert_eq!(world.waiting("b", Lane::Normal), [ids[3]]);
    for (number, id) in ids[..3].iter().enumerate() {
        let report = world.report(*id);
        assert_eq!((report.collapsed, report.pending), (report.targeted, 0));
        assert_eq!(
            world.at_device(*id, "a").collapsed_by,
            Some(ids[number + 1])
        );
    }
    assert_eq!(world.at_device(ids[1], "b").collapsed_by, Some(ids[3]));
}

impl World {
    /// A push to devices, for 100 seconds.
    pub fn push_with(
        &mut self,
        devices: &[&str],
        priority: Option<Priority>,
        collapse_key: Option<&str>,
    ) -> PushId {
        let mut accept = self.accept(Some(devices), 100);
        accept.priority = priority.unwrap_or_default();
        accept.collapse_key = collapse_key.map(str::to_owned);
        let id = accept.id;
        let outcome = self.run_push(push::Command::Accept(Box::new(accept)));
        let targeted = Some(devices.len() as u64);
        assert_eq!(outcome, push::Outcome::Accepted { targeted });
        id
    }

    /// The pushes of a lane of an inbox.
    fn waiting(&mut self, device: &str, lane: Lane) -> Vec<PushId> {
        let (entries, more, _) = self.read_lane(device, lane, Offset(0), 100);
        assert!(!more);
        let id = |entry: &campanile_broker::store::InboxEntry| PushId(entry.item.message.id.0);
        entries.iter().map(id).collect()
    }

    /// Of each entry that was announced: the one before it, its place, the one that it replaced.
    fn inbox_notices(&mut self) -> Vec<(Offset, Offset, Option<Offset>)> {
        let notices = self.take_notices().into_iter();
        let parts = |notice| match notice {
            Notice::Inbox {
                previous,
                entry,
                replaced,
                ..
            } => (previous, entry.offset, replaced),
            other => panic!("no inbox: {other:?}"),
        };
        notices.map(parts).collect()
    }

    /// The device acknowledges all that its inbox holds.
    fn acknowledge_all(&mut self, device: &str, claimed: &campanile_broker::store::Claimed) {
        let entries = self.inbox(device);
        let saved = self.progress(device, claimed, |progress| {
            progress.inbox_done = entries.iter().map(|entry| entry.offset).collect();
            progress.receipts = entries.iter().map(|entry| entry.item.message.id).collect();
        });
        assert_eq!(saved, Ok(Outcome::Done));
    }
}
