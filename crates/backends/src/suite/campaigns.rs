//! Campaigns: accepted with their rows, told of to all nodes, and remembered by devices.

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, Generation, MessageId, Offset},
    store::{
        Change, Claimed, LogKind, Outcome, PacketId, Page, QoS, Query, Source, StoreError,
        Unfinished,
    },
};
use campanile_push::{
    id::PushId,
    receipt::{DropReason, FailReason, Mark},
    rows::{self, Key, Scope, Table, Version},
    store::{self as push, Accept, Audience, Command},
};

use super::{APP, World, message_id};

const ROW: &[u8] = b"\x00a campaign\xff";
const CAPPED: Mark = Mark::Dropped(DropReason::FrequencyCap);
const QUIET: Mark = Mark::Dropped(DropReason::QuietHours);
const PAST: Mark = Mark::Dropped(DropReason::LocalTimePast);
const TOO_LARGE: Mark = Mark::Failed(FailReason::TooLarge);

/// And nowhere else: no log and no inbox has it, whomever it is for.
pub fn a_campaign_is_accepted_with_its_row(world: &mut World) {
    let claimed = world.claim("a", 60);
    world.take_notices();
    for (devices, targeted) in [
        (None, Some(1)),
        (Some(&["a"][..]), Some(1)),
        (Some(&["a", "unseen"][..]), Some(2)),
    ] {
        let accept = world.campaign(devices);
        let id = accept.id;
        let outcome = world.run_push(Command::Accept(Box::new(accept.clone())));
        assert_eq!(outcome, push::Outcome::Accepted { targeted });
        assert_eq!(world.take_changes(), [told(id, Some(ROW))]);
        // Its id says that it is the same.
        let outcome = world.run_push(Command::Accept(Box::new(accept)));
        assert_eq!(outcome, push::Outcome::Accepted { targeted });
        assert_eq!(world.take_changes(), []);
        assert_eq!(world.campaign_row(id).as_deref(), Some(ROW));
        assert_eq!(world.report(id).pending, targeted.unwrap());
        world.receipt_of("a", &claimed, id);
        assert_eq!(world.report(id).delivered, 1);
    }
    let mut accept = world.campaign(None);
    accept.audience = Audience::Matching(Bytes::from_static(b"vip"));
    let id = accept.id;
    let outcome = world.run_push(Command::Accept(Box::new(accept)));
    assert_eq!(outcome, push::Outcome::Accepted { targeted: None });
    world.receipt_of("a", &claimed, id);
    let report = world.report(id);
    assert_eq!((report.targeted, report.delivered), (1, 1));
    assert_eq!(world.read_log(LogKind::Push, Offset(0), 10).0, vec![]);
    assert_eq!(world.inbox("a"), vec![]);
    world.pass_seconds(100);
    world.sweep();
    assert_eq!(world.report(id).delivered, 1);
    world.pass_seconds(8 * 86_400);
    world.sweep();
    assert_eq!(world.try_report(id), None);
}

/// Nothing of it happens, and its idempotency key is free.
pub fn a_campaign_is_refused_with_its_rows(world: &mut World) {
    let other = Key::new(Table::Collapse, "score");
    let expects = |accept: &mut Accept, version| {
        let rows = accept.rows.take().expect("a campaign has rows");
        let other = Key::new(Table::Collapse, "score");
        accept.rows = Some(Box::new(rows.expect(other, version)));
    };
    let mut accept = world.campaign(None);
    let id = accept.id;
    expects(&mut accept, Version(7));
    let outcome = world.run_push(Command::Accept(Box::new(accept)));
    assert_eq!(outcome, push::Outcome::Conflict);
    assert_eq!(world.try_report(id), None);
    assert_eq!(world.campaign_row(id), None);
    assert_eq!(world.take_changes(), []);
    let mut accept = world.campaign(None);
    expects(&mut accept, Version::ABSENT);
    let rows = accept.rows.take().expect("a campaign has rows");
    accept.rows = Some(Box::new(
        rows.put(other, &b"newest"[..]).at_most(Table::Campaign, 1),
    ));
    let outcome = world.run_push(Command::Accept(Box::new(accept)));
    assert_eq!(outcome, push::Outcome::Accepted { targeted: Some(0) });
    let mut accept = world.campaign(None);
    let id = accept.id;
    let rows = accept.rows.take().expect("a campaign has rows");
    accept.rows = Some(Box::new(rows.at_most(Table::Campaign, 1)));
    let outcome = world.run_push(Command::Accept(Box::new(accept)));
    let table = Table::Campaign;
    assert_eq!(outcome, push::Outcome::Full { table });
    assert_eq!(world.try_report(id), None);
}

/// In the order of the writes, until it is removed or expires. A node that starts knows them all.
pub fn all_nodes_are_told_of_campaigns(world: &mut World) {
    let [one, two, plain] = [(); 3].map(|()| PushId(world.next_id().0));
    let key = |push: PushId| Key::new(Table::Campaign, push.to_string());
    let cancelled = |push: PushId| Key::new(Table::Cancelled, push.to_string());
    let until_ms = world.now.plus_seconds(100).0;
    for change in [
        world.rows().put(key(one), ROW),
        world.rows().put_until(key(two), ROW, until_ms),
        world.rows().put_until(key(one), &b"paused"[..], until_ms),
        world.rows().put(cancelled(plain), &b"ended"[..]),
        world
            .rows()
            .put(Key::new(Table::End, "x"), &b"of no interest"[..]),
    ] {
        world.run_push(Command::Change(Box::new(change)));
    }
    let changes = [
        told(one, Some(ROW)),
        told(two, Some(ROW)),
        told(one, Some(b"paused")),
        told(plain, Some(b"ended")),
    ];
    assert_eq!(world.take_changes(), changes);
    let paused = (message_id(one), Bytes::from_static(b"paused"));
    let running = (message_id(two), Bytes::from_static(ROW));
    let ended = (message_id(plain), Bytes::from_static(b"ended"));
    assert_eq!(world.known_campaigns(), [paused, running, ended.clone()]);
    world.take_notices();
    let change = world.rows().remove(key(two)).remove(key(PushId(99)));
    world.run_push(Command::Change(Box::new(change)));
    assert_eq!(world.take_changes(), [told(two, None)]);
    world.pass_seconds(100);
    world.sweep();
    assert_eq!(world.take_changes(), [told(one, None)]);
    assert_eq!(world.known_campaigns(), [ended]);
}

/// With its session or its profile, and no longer.
pub fn a_device_remembers_campaigns(world: &mut World) {
    let memory = |claimed: &Claimed| claimed.memory.clone();
    let remember = |world: &mut World, name: &str, claimed: &Claimed, bytes: &'static [u8]| {
        world.progress(name, claimed, |progress| {
            progress.memory = Some(Bytes::from_static(bytes));
        })
    };
    let kept = Some(Bytes::from_static(b"\x00done\xff"));
    let stale = world.claim("durable", 60);
    assert_eq!(memory(&stale), None);
    let durable = world.claim("durable", 60);
    let refused = remember(world, "durable", &stale, b"old");
    assert_eq!(refused, Err(StoreError::Fenced));
    let done = remember(world, "durable", &durable, b"\x00done\xff");
    assert_eq!(done, Ok(Outcome::Done));
    world.restart();
    assert_eq!(memory(&world.claim("durable", 60)), kept);
    let anew = world.claim_with("durable", |claim| {
        (claim.clean_start, claim.expiry_seconds) = (true, 60);
    });
    assert_eq!(memory(&anew), kept);
    // Saying nothing of it changes nothing; saying that there is nothing removes it.
    let none = world.progress("durable", &anew, |_| {});
    assert_eq!(none, Ok(Outcome::Done));
    assert_eq!(memory(&world.claim("durable", 60)), kept);
    let last = world.claim("durable", 60);
    remember(world, "durable", &last, b"").unwrap();
    assert_eq!(memory(&world.claim("durable", 60)), None);

    let ended = world.claim("ended", 60);
    remember(world, "ended", &ended, b"gone with it").unwrap();
    world.release("ended", &ended, 0);
    assert_eq!(memory(&world.claim("ended", 60)), None);

    let stranger = world.claim("stranger", 0);
    remember(world, "stranger", &stranger, b"nothing").unwrap();
    assert_eq!(memory(&world.claim("stranger", 0)), None);

    world.set_profile("registered", Some(b"known"));
    let registered = world.claim("registered", 0);
    remember(world, "registered", &registered, b"\x00done\xff").unwrap();
    world.release("registered", &registered, 0);
    world.restart();
    let registered = world.claim("registered", 0);
    assert_eq!(memory(&registered), kept);
    world.release("registered", &registered, 0);
    world.set_profile("registered", None);
    assert_eq!(memory(&world.claim("registered", 0)), None);
}

/// What was pushed before is not for a device that was never seen, or that is not known any more.
pub fn a_claim_says_whether_the_device_begins(world: &mut World) {
    let first = world.claim("durable", 60);
    assert!(first.begins);
    assert!(!world.claim("durable", 60).begins);
    world.restart();
    let clean = world.claim_with("durable", |claim| {
        (claim.clean_start, claim.expiry_seconds) = (true, 60);
    });
    assert!(!clean.begins);
    world.release("durable", &clean, 60);
    world.pass_seconds(61);
    assert!(world.claim("durable", 60).begins);
    for _ in 0..2 {
        assert!(world.claim("plain", 0).begins);
    }
}

/// One that was sent and not acknowledged is taken up again.
pub fn an_exchange_of_a_campaign_is_kept(world: &mut World) {
    let claimed = world.claim("a", 60);
    let unfinished = vec![Unfinished {
        packet_id: PacketId::new(7).unwrap(),
        source: Source::Campaign(MessageId(u128::MAX - 5)),
        offset: Offset(0),
        qos: QoS::AtLeastOnce,
        released: false,
    }];
    let saved = unfinished.clone();
    let done = world.progress("a", &claimed, |progress| progress.unfinished = Some(saved));
    assert_eq!(done, Ok(Outcome::Done));
    world.restart();
    let resumed = world.claim("a", 60).resumed.expect("the session goes on");
    assert_eq!(resumed.unfinished, unfinished);
    let places = vec![(unfinished[0].source, Offset(0))];
    let client = super::client("a");
    let page = world.read(&Query::Entries { client, places });
    assert_eq!(page, Page::Entries(vec![]));
}

/// Each device once, for the reason that tells most, and not at all if it has the push.
pub fn what_a_device_will_not_get_is_counted(world: &mut World) {
    let names = ["a", "b", "c", "d", "e"];
    let claimed = names.map(|name| world.claim(name, 60));
    for devices in [None, Some(&names[..])] {
        let accept = world.campaign(devices);
        let id = accept.id;
        world.run_push(Command::Accept(Box::new(accept)));
        for (device, marks) in [
            (0, vec![CAPPED]),
            (1, vec![PAST, QUIET]),
            (2, vec![QUIET, CAPPED]),
            (3, vec![TOO_LARGE]),
        ] {
            for _ in 0..2 {
                world.settle(names[device], &claimed[device], id, &marks);
            }
        }
        let report = world.report(id);
        let settled = [(TOO_LARGE, 1), (CAPPED, 2), (QUIET, 1)];
        assert_eq!(report.settled, settled.into_iter().collect());
        assert_eq!((report.targeted, report.pending), (5, 1));
        world.receipt_of("a", &claimed[0], id);
        assert_eq!(world.report(id).settled.get(&CAPPED), Some(&1));
        assert!(world.at_device(id, "b").marks.contains(&PAST));
        let marked = world.marked(id, QUIET);
        let expected = [claimed[1].ordinal, claimed[2].ordinal];
        assert_eq!(marked, expected.into_iter().collect());
        assert_eq!(world.marked(id, Mark::Targeted).len(), 5);
        assert!(world.marked(id, Mark::Clicked).is_empty());
    }
    let accept = world.campaign(Some(&["a"]));
    let id = accept.id;
    world.run_push(Command::Accept(Box::new(accept)));
    world.settle("a", &claimed[0], id, &[PAST]);
    // Of others it has nothing to tell.
    world.settle("b", &claimed[1], id, &[CAPPED]);
    let report = world.report(id);
    assert_eq!(report.settled, [(PAST, 1)].into_iter().collect());
    assert_eq!((report.targeted, report.pending), (1, 0));
    let marked = world.marked(id, PAST);
    assert_eq!(marked, [claimed[0].ordinal].into_iter().collect());
    assert!(world.marked(PushId(1 << 100), PAST).is_empty());
    // Of an audience, whoever is settled was meant.
    let mut accept = world.campaign(None);
    accept.audience = Audience::Matching(Bytes::from_static(b"vip"));
    let id = accept.id;
    world.run_push(Command::Accept(Box::new(accept)));
    world.settle("e", &claimed[4], id, &[QUIET]);
    let report = world.report(id);
    assert_eq!((report.targeted, report.pending), (1, 0));
}

fn told(push: PushId, row: Option<&'static [u8]>) -> Change {
    Change::Campaign {
        push: message_id(push),
        row: row.map(Bytes::from_static),
    }
}

impl World {
    /// A campaign to devices, or to all, that lives for 100 seconds.
    fn campaign(&mut self, devices: Option<&[&str]>) -> Accept {
        let accept = self.accept(devices, 100);
        let key = Key::new(Table::Campaign, accept.id.to_string());
        let rows = self.rows().put_until(key, ROW, accept.expires_ms);
        Accept {
            rows: Some(Box::new(rows)),
            ..accept
        }
    }

    fn rows(&mut self) -> rows::Change {
        rows::Change::new(Scope::App(self.accept(None, 1).app), self.now.0)
    }

    fn campaign_row(&mut self, push: PushId) -> Option<Bytes> {
        let scope = Scope::App(self.accept(None, 1).app);
        let key = Key::new(Table::Campaign, push.to_string());
        let now_ms = self.now.0;
        let reader = self.backend().reader();
        let rows = reader.rows_at(&scope, &[key], now_ms).unwrap();
        rows.into_iter().flatten().next().map(|row| row.value)
    }

    /// What a node that starts knows.
    fn known_campaigns(&mut self) -> Vec<(MessageId, Bytes)> {
        let app = AppId::new(APP);
        self.restart();
        let mut known = match self.node {
            Generation::ALONE => {
                let known = self.recovery.campaigns.clone().into_iter();
                known
                    .filter(|(of, ..)| *of == app)
                    .map(|(_, push, row)| (push, row))
                    .collect()
            }
            _ => match self.read(&Query::Snapshot { app }) {
                Page::Snapshot(snapshot) => snapshot.campaigns,
                other => panic!("no snapshot: {other:?}"),
            },
        };
        known.sort();
        known
    }

    fn marked(&mut self, push: PushId, mark: Mark) -> roaring::RoaringBitmap {
        let app = self.accept(None, 1).app;
        let reader = self.backend().reader();
        reader.marked(&app, push, mark).unwrap()
    }

    fn receipt_of(&mut self, name: &str, claimed: &Claimed, push: PushId) {
        let done = self.progress(name, claimed, |progress| {
            progress.receipts = vec![message_id(push)];
        });
        assert_eq!(done, Ok(Outcome::Done));
    }

    fn settle(&mut self, name: &str, claimed: &Claimed, push: PushId, marks: &[Mark]) {
        let settled = marks.iter().map(|mark| (message_id(push), mark.code()));
        let done = self.progress(name, claimed, |progress| {
            progress.settled = settled.collect()
        });
        assert_eq!(done, Ok(Outcome::Done));
    }
}
