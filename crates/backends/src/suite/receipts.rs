//! Receipts, and reports that add up.

use campanile_broker::{
    ids::{Generation, MessageId},
    store::{Claimed, Outcome, StoreError},
};
use campanile_push::id::PushId;

use super::{World, message_id};

/// However often they arrive.
pub fn receipts_are_counted_once(world: &mut World) {
    let a = world.claim("a", 60);
    let b = world.claim("b", 0);
    let id = world.push(None, 100);
    for _ in 0..2 {
        world.acknowledge("a", &a, id);
    }
    assert_eq!(world.report(id).delivered, 1);
    world.acknowledge("b", &b, id);
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered, report.pending),
        (2, 2, 0)
    );
}

/// Since a receipt is a fact; the rest of what it saves is not.
pub fn receipts_of_a_fenced_session_count(world: &mut World) {
    let old = world.claim("a", 60);
    let id = world.push(Some(&["a"]), 100);
    let offset = world.inbox("a")[0].offset;
    world.claim("a", 60);
    let outcome = world.progress("a", &old, |progress| {
        progress.receipts = vec![message_id(id)];
        progress.inbox_done = vec![offset];
    });
    assert_eq!(outcome, Err(StoreError::Fenced));
    assert_eq!(world.report(id).delivered, 1);
    assert_eq!(world.inbox("a").len(), 1);
}

/// Nor do receipts of unknown pushes.
pub fn receipts_from_strangers_do_not_count(world: &mut World) {
    let stranger = world.claim("stranger", 60);
    let id = world.push(Some(&["a"]), 100);
    world.acknowledge("stranger", &stranger, id);
    let outcome = world.progress("stranger", &stranger, |progress| {
        progress.receipts = vec![MessageId(99)]
    });
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(world.report(id).delivered, 0);
    assert_eq!(world.try_report(PushId(99)), None);
}

/// Each dropped push says so.
pub fn the_numbers_add_up_when_the_inbox_overflows(world: &mut World) {
    world.config.inbox_max_entries = 2;
    world.restart();
    world.claim("b", 60);
    let ids: Vec<_> = (0..4).map(|_| world.push(Some(&["a", "b"]), 100)).collect();
    world.send("b", "publish");
    let figures = |world: &mut World| -> Vec<_> {
        ids.iter()
            .map(|id| world.report(*id))
            .map(|report| (report.dropped, report.pending))
            .collect()
    };
    assert_eq!(figures(world), [(2, 0), (2, 0), (1, 1), (0, 2)]);
    world.restart();
    assert_eq!(figures(world), [(2, 0), (2, 0), (1, 1), (0, 2)]);
}

/// The device had it in its hands when the inbox dropped it.
pub fn a_late_receipt_beats_a_drop(world: &mut World) {
    world.config.inbox_max_entries = 1;
    world.restart();
    let claimed = world.claim("a", 60);
    let first = world.push(Some(&["a"]), 100);
    world.push(Some(&["a"]), 100);
    assert_eq!(world.report(first).dropped, 1);
    world.acknowledge("a", &claimed, first);
    let report = world.report(first);
    assert_eq!((report.delivered, report.dropped), (1, 0));
}

/// By the clock, before anything is swept.
pub fn unacknowledged_pushes_expire(world: &mut World) {
    let claimed = world.claim("a", 1000);
    world.claim("b", 1000);
    let id = world.push(None, 100);
    world.acknowledge("a", &claimed, id);
    world.pass_seconds(99);
    assert_eq!(world.report(id).pending, 1);
    world.pass_seconds(1);
    let report = world.report(id);
    assert_eq!(
        (report.delivered, report.pending, report.expired),
        (1, 0, 1)
    );
}

/// Receipts that were acknowledged are not lost.
pub fn reports_survive_a_restart(world: &mut World) {
    let claimed = world.claim("a", 60);
    let ids = [world.push(None, 100), world.push(Some(&["a", "b"]), 100)];
    for id in ids {
        world.acknowledge("a", &claimed, id);
    }
    let before = ids.map(|id| world.report(id));
    world.restart();
    assert_eq!(ids.map(|id| world.report(id)), before);
    assert_eq!(before.map(|report| report.delivered), [1, 1]);
}

/// 65,536 devices are one chunk of a stored set.
pub fn a_set_may_span_chunks(world: &mut World) {
    use crate::Request;
    use campanile_broker::store::{Claim, Command, Outcome, Progress};
    const DEVICES: u32 = 66_000;
    let mut claims = Vec::new();
    for number in 0..DEVICES {
        let client = super::client(&number.to_string());
        let claim = Claim {
            client,
            owner: Generation::ALONE,
            now: world.now,
            clean_start: false,
            expiry_seconds: 0,
            will: None,
        };
        claims.push(Request::Broker(Command::Claim(claim)));
    }
    let replies = world.commit(claims);
    let id = world.push(None, 100);
    let mut receipts = Vec::new();
    for (number, reply) in replies.into_iter().enumerate() {
        let Ok(crate::Reply::Broker(Outcome::Claimed(claimed))) = reply else {
            panic!("no claim")
        };
        if number % 2 == 0 {
            receipts.push(Request::Broker(Command::Progress(Progress {
                receipts: vec![message_id(id)],
                ..super::progress(&number.to_string(), &claimed)
            })));
        }
    }
    world.commit(receipts);
    let report = world.report(id);
    assert_eq!(
        (report.targeted, report.delivered),
        (u64::from(DEVICES), u64::from(DEVICES / 2))
    );
}

impl World {
    fn acknowledge(&mut self, client_id: &str, claimed: &Claimed, push: PushId) {
        let outcome = self.progress(client_id, claimed, |progress| {
            progress.receipts = vec![message_id(push)]
        });
        assert_eq!(outcome, Ok(Outcome::Done));
    }
}
