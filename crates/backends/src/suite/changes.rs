//! What all nodes of an app must know, as they hear of it, read it later, or read it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, Epoch, Generation, MessageId, Offset},
    store::{
        Change, ChangeEntry, Changes, ChangesQuery, Command, DurableMember, LogKind, Notice,
        Outcome, Page, Publish, QoS, Query, Snapshot, StoreError, Subscribe,
    },
};

use super::{APP, World, client, publish, subscription, text, texts};
use crate::{MAX_CHANGES, Reply, Request};

const NODE: Generation = Generation(0x401);
const TOPICS: LogKind = LogKind::Topic(0);

/// Each with the place of the one before, as they were announced.
pub fn changes_are_read_in_order(world: &mut World) {
    let claimed = world.claim_by(NODE, "a", 60);
    world.retain("r", "one");
    world.subscribe("a", claimed.epoch, &["x", "$share/g/y"]);
    world.retain("r", "");
    let message = Arc::new(world.message("r", "of another app"));
    world.done(Command::Publish(Publish {
        app: AppId::new("other"),
        retain: true,
        ..publish(&message)
    }));
    let mut previous_of_app = BTreeMap::new();
    let mut announced = Vec::new();
    for notice in world.take_notices() {
        let Notice::Change {
            app,
            previous,
            offset,
            change,
        } = notice
        else {
            panic!("no change: {notice:?}");
        };
        let last = previous_of_app.insert(app.clone(), offset);
        assert_eq!(previous, last.unwrap_or_default());
        assert!(offset > previous);
        if app.as_str() == APP {
            announced.push(ChangeEntry { offset, change });
        }
    }
    assert_eq!(announced.len(), 4);
    let news = world.news(Offset(0), 100);
    assert_eq!(news.changes, announced);
    assert_eq!((news.changes_lost, news.more), (false, false));
    let news = world.news(announced[1].offset, 100);
    assert_eq!(news.changes, announced[2..]);
    let news = world.news(announced[3].offset, 100);
    assert_eq!((news.changes, news.changes_lost), (vec![], false));
}

/// The reader is told that there is more.
pub fn a_page_of_changes_is_bounded(world: &mut World) {
    for number in 0..5 {
        world.retain(&format!("r/{number}"), "x");
        world.append(TOPICS, "x");
    }
    let all = world.news(Offset(0), 100).changes;
    let news = world.news(Offset(0), 2);
    assert_eq!((&news.changes[..], news.more), (&all[..2], true));
    let query = ChangesQuery {
        logs: vec![(TOPICS, Offset(0))],
        ..query(all[4].offset, 3)
    };
    let news = world.changes(query.clone());
    assert_eq!((news.logs[0].entries.len(), news.more), (3, true));
    let known = news.logs[0].entries[2].offset;
    let news = world.changes(ChangesQuery {
        logs: vec![(TOPICS, known)],
        ..query
    });
    assert_eq!((news.logs[0].entries.len(), news.more), (2, false));
}

/// Who missed them is told, also who knows what the store has lost itself.
pub fn forgotten_changes_are_missed_loudly(world: &mut World) {
    world.retain("r", "first");
    let first = world.news(Offset(0), 1).changes[0].offset;
    let mut left = MAX_CHANGES as usize + 10;
    while left > 0 {
        let count = left.min(1000);
        left -= count;
        let message = Arc::new(world.message("r", "x"));
        let retain = Publish {
            retain: true,
            ..publish(&message)
        };
        let batch = vec![Request::Broker(Command::Publish(retain)); count];
        assert!(world.commit(batch).iter().all(Result::is_ok));
        world.take_notices();
    }
    for known in [Offset(0), first] {
        assert!(world.news(known, 10).changes_lost);
    }
    let end = world.snapshot().changes;
    let news = world.news(end, 10);
    assert_eq!((news.changes, news.changes_lost), (vec![], false));
    assert!(world.news(Offset(end.0 + 1), 10).changes_lost);
}

/// However sessions get it and lose it; what lies between is no news.
pub fn a_filter_is_announced_with_its_first_and_its_last_session(world: &mut World) {
    let ephemeral = world.claim_by(NODE, "ephemeral", 0);
    world.subscribe("ephemeral", ephemeral.epoch, &["x"]);
    assert_eq!(world.take_changes(), []);
    for ending in ["unsubscribe", "clean start", "expiry", "void", "release"] {
        let one = world.claim_by(NODE, "one", 60);
        let other = world.claim_by(NODE, "other", 60);
        world.subscribe("one", one.epoch, &["x"]);
        assert_eq!(world.take_changes(), [filter("x", true)], "{ending}");
        world.subscribe("one", one.epoch, &["x"]);
        world.subscribe("other", other.epoch, &["x"]);
        world.unsubscribe("one", one.epoch, "x");
        world.unsubscribe("one", one.epoch, "x");
        assert_eq!(world.take_changes(), [], "{ending}");
        assert_eq!(world.snapshot().filters, texts(["x"]));
        match ending {
            "unsubscribe" => world.unsubscribe("other", other.epoch, "x"),
            "clean start" => {
                world.claim_with("other", |claim| {
                    (claim.owner, claim.clean_start) = (NODE, true);
                });
            }
            "expiry" => {
                world.release("other", &other, 10);
                world.pass_seconds(10);
                world.sweep();
            }
            "void" => {
                let last = world.claim_by(Generation(0x402), "other", 0);
                assert!(last.resumed.is_some());
                world.void(Generation(0x402));
            }
            _ => world.release("other", &other, 0),
        }
        assert_eq!(world.take_changes(), [filter("x", false)], "{ending}");
        assert_eq!(world.snapshot().filters, [] as [Arc<str>; 0]);
        world.claim_with("other", |claim| {
            (claim.owner, claim.clean_start) = (NODE, true);
        });
    }
}

/// With what was granted to each; the same once more is no news.
pub fn members_of_shared_subscriptions_are_announced(world: &mut World) {
    const SHARED: &str = "$share/g/x";
    let granted = DurableMember {
        qos: QoS::ExactlyOnce,
        subscription_id: Some(268_435_455),
        retain_as_published: true,
    };
    let one = world.claim_by(NODE, "one", 60);
    let other = world.claim_by(NODE, "other", 60);
    let ephemeral = world.claim_by(NODE, "ephemeral", 0);
    world.subscribe("ephemeral", ephemeral.epoch, &[SHARED]);
    world.subscribe("one", one.epoch, &[SHARED]);
    world.subscribe("one", one.epoch, &[SHARED]);
    world.subscribe("other", other.epoch, &[SHARED]);
    let joined = |client_id: &str| member(SHARED, client_id, Some(granted));
    assert_eq!(world.take_changes(), [joined("one"), joined("other")]);
    let mut changed = subscription(SHARED);
    (changed.options.qos, changed.id) = (QoS::AtLeastOnce, None);
    world.change_subscriptions("one", one.epoch, vec![changed], &[]);
    let regranted = DurableMember {
        qos: QoS::AtLeastOnce,
        subscription_id: None,
        ..granted
    };
    assert_eq!(
        world.take_changes(),
        [member(SHARED, "one", Some(regranted))]
    );
    let mut members = world.snapshot().members;
    members.sort_by(|a, b| a.1.cmp(&b.1));
    let listed = |client_id: &str, granted| (SHARED.into(), client_id.into(), granted);
    assert_eq!(
        members,
        [listed("one", regranted), listed("other", granted)]
    );
    assert_eq!(world.snapshot().filters, [] as [Arc<str>; 0]);
    world.unsubscribe("other", other.epoch, SHARED);
    world.release("one", &one, 0);
    assert_eq!(
        world.take_changes(),
        [member(SHARED, "other", None), member(SHARED, "one", None)]
    );
    assert_eq!(world.snapshot().members, []);
}

/// It may be read instead of all changes up to its place.
pub fn a_snapshot_is_what_the_changes_say(world: &mut World) {
    let empty = world.snapshot();
    assert_eq!((empty.changes, empty.log_ends.len()), (Offset(0), 0));
    for (client_id, filters) in [
        ("a", &["x", "y", "$share/g/x"][..]),
        ("b", &["y", "z", "$share/g/x", "$share/h/x"][..]),
        ("c", &["z"][..]),
    ] {
        let claimed = world.claim_by(NODE, client_id, 60);
        world.subscribe(client_id, claimed.epoch, filters);
    }
    let b = world.claim_by(NODE, "b", 60);
    world.unsubscribe("b", b.epoch, "$share/g/x");
    world.unsubscribe("b", b.epoch, "y");
    let c = world.claim_by(NODE, "c", 60);
    world.release("c", &c, 0);
    for (topic, payload) in [
        ("r/1", "one"),
        ("r/2", "two"),
        ("r/1", ""),
        ("r/2", "three"),
    ] {
        world.retain(topic, payload);
    }
    world.append(TOPICS, "x");
    world.append(LogKind::Push, "y");
    let mut sum = Sum::default();
    let news = world.news(Offset(0), 1000);
    for entry in &news.changes {
        sum.add(&entry.change);
    }
    let mut snapshot = world.snapshot();
    assert_eq!(snapshot.changes, news.changes.last().expect("some").offset);
    snapshot.filters.sort();
    assert_eq!(snapshot.filters, texts(["x", "y", "z"]));
    let mut of_snapshot = Sum::default();
    for message in &snapshot.retained {
        of_snapshot.add(&Change::Retained {
            topic: message.topic().into(),
            message: Some(message.clone()),
        });
    }
    for name in &snapshot.filters {
        of_snapshot.add(&filter(name, true));
    }
    for (name, client_id, granted) in &snapshot.members {
        of_snapshot.add(&member(name, client_id, Some(*granted)));
    }
    assert_eq!(of_snapshot, sum);
    let ends: BTreeMap<LogKind, Offset> = snapshot.log_ends.into_iter().collect();
    for log in [TOPICS, LogKind::Push] {
        assert_eq!(ends.get(&log), Some(&world.read_log(log, Offset(0), 10).1));
    }
}

/// By its place in the batch, with the last change of each app. A subscription that changes nothing may rest on a change that not all know yet.
pub fn a_commit_names_the_requests_that_wait_for_changes(world: &mut World) {
    let claimed = world.claim_by(NODE, "a", 60);
    assert_eq!(world.changed, vec![]);
    world.take_notices();
    let retained = world.message("r", "x");
    let batch = vec![
        subscribe("a", claimed.epoch, &["x", "y", "$share/g/x"]),
        subscribe("a", claimed.epoch, &["x"]),
        Request::Broker(Command::Publish(Publish {
            retain: true,
            ..publish(&Arc::new(retained))
        })),
    ];
    world.commit(batch);
    let offsets: Vec<Offset> = world
        .take_notices()
        .iter()
        .map(|notice| match notice {
            Notice::Change { offset, .. } => *offset,
            other => panic!("no change: {other:?}"),
        })
        .collect();
    assert_eq!(offsets.len(), 4);
    let app = AppId::new(APP);
    assert_eq!(
        world.changed,
        [
            (0, app.clone(), offsets[2]),
            (1, app.clone(), offsets[2]),
            (2, app, offsets[3])
        ]
    );
    assert_eq!(world.snapshot().changes, offsets[3]);
}

/// Those of the others follow each other all the same.
pub fn a_refused_request_announces_nothing(world: &mut World) {
    let old = world.claim_by(NODE, "a", 60);
    let new = world.claim_by(NODE, "a", 60);
    let replies = world.commit(vec![
        subscribe("a", new.epoch, &["x"]),
        subscribe("a", old.epoch, &["y", "$share/g/y"]),
        subscribe("a", new.epoch, &["z"]),
    ]);
    let done = Ok(Reply::Broker(Outcome::Done));
    assert_eq!(replies, [done.clone(), Err(StoreError::Fenced), done]);
    let places: Vec<usize> = world.changed.iter().map(|(place, ..)| *place).collect();
    assert_eq!(places, [0, 2]);
    assert_eq!(world.take_changes(), [filter("x", true), filter("z", true)]);
    let changes = world.news(Offset(0), 10).changes;
    let changes: Vec<_> = changes.into_iter().map(|entry| entry.change).collect();
    assert_eq!(changes, [filter("x", true), filter("z", true)]);
}

/// After what is known of each; a log that ends before that has gone back.
pub fn news_of_logs_are_read_in_order(world: &mut World) {
    let unknown = LogKind::Topic(7);
    world.append(TOPICS, "1");
    world.append(LogKind::Push, "2");
    world.append(TOPICS, "3");
    let (entries, end, _) = world.read_log(TOPICS, Offset(0), 10);
    let logs = vec![
        (TOPICS, entries[0].offset),
        (LogKind::Push, Offset(0)),
        (unknown, Offset(0)),
    ];
    let ask = |logs| ChangesQuery {
        logs,
        ..query(Offset(0), 100)
    };
    let news = world.changes(ask(logs));
    assert_eq!(news.logs[0].entries, entries[1..]);
    let payloads: Vec<Vec<String>> = news
        .logs
        .iter()
        .map(|log| {
            log.entries
                .iter()
                .map(|entry| text(&entry.message))
                .collect()
        })
        .collect();
    assert_eq!(payloads, [vec!["3"], vec!["2"], vec![]]);
    assert!(news.logs.iter().all(|log| !log.went_back));
    let logs: Vec<LogKind> = news.logs.iter().map(|log| log.log).collect();
    assert_eq!(logs, [TOPICS, LogKind::Push, unknown]);
    let news = world.changes(ask(vec![(TOPICS, end), (LogKind::Push, Offset(end.0 + 1))]));
    assert_eq!(
        (news.logs[0].entries.len(), news.logs[0].went_back),
        (0, false)
    );
    assert_eq!(
        (news.logs[1].entries.len(), news.logs[1].went_back),
        (0, true)
    );
}

/// So that nobody judges whom it is for by what is older.
pub fn an_entry_with_an_audience_names_the_change_before_it(world: &mut World) {
    let claimed = world.claim("a", 60);
    assert_eq!(claimed.changes, Offset(0));
    world.subscribe("a", claimed.epoch, &["f"]);
    let change = world.changed.clone();
    let [(_, _, last)] = change[..] else {
        panic!("not changed: {change:?}");
    };
    assert_eq!(world.claim("b", 0).changes, last);
    world.take_notices();
    world.push_to_audience(100);
    world.push(None, 100);
    let known: Vec<Offset> = world
        .take_notices()
        .into_iter()
        .map(|notice| match notice {
            Notice::Log { entry, changes, .. } => {
                assert!(entry.offset > last);
                changes
            }
            other => panic!("no entry: {other:?}"),
        })
        .collect();
    assert_eq!(known, [last, Offset(0)]);
}

/// Changes added up.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    retained: BTreeMap<Arc<str>, String>,
    filters: BTreeSet<Arc<str>>,
    /// By filter, then by client.
    members: BTreeMap<Arc<str>, BTreeMap<Arc<str>, DurableMember>>,
    campaigns: BTreeMap<MessageId, Bytes>,
}

impl Sum {
    fn add(&mut self, change: &Change) {
        match change.clone() {
            Change::Retained { topic, message } => match message {
                Some(message) => {
                    self.retained.insert(topic, text(&message));
                }
                None => assert!(self.retained.remove(&topic).is_some()),
            },
            Change::Filter { filter, present } => match present {
                true => assert!(self.filters.insert(filter)),
                false => assert!(self.filters.remove(&filter)),
            },
            Change::Member {
                filter,
                client_id,
                member,
            } => {
                let members = self.members.entry(filter).or_default();
                match member {
                    Some(member) => drop(members.insert(client_id, member)),
                    None => assert!(members.remove(&client_id).is_some()),
                }
            }
            Change::Campaign { push, row } => match row {
                Some(row) => drop(self.campaigns.insert(push, row)),
                None => assert!(self.campaigns.remove(&push).is_some()),
            },
            Change::Profile { .. } => panic!("no snapshot has it: {change:?}"),
        }
    }
}

fn filter(filter: &str, present: bool) -> Change {
    Change::Filter {
        filter: filter.into(),
        present,
    }
}

fn member(filter: &str, client_id: &str, member: Option<DurableMember>) -> Change {
    Change::Member {
        filter: filter.into(),
        client_id: client_id.into(),
        member,
    }
}

fn subscribe(client_id: &str, epoch: Epoch, filters: &[&str]) -> Request {
    Request::Broker(Command::Subscribe(Subscribe {
        client: client(client_id),
        epoch,
        add: filters.iter().map(|filter| subscription(filter)).collect(),
        remove: vec![],
        inbox: vec![],
    }))
}

fn query(changes: Offset, limit: u32) -> ChangesQuery {
    ChangesQuery {
        app: AppId::new(APP),
        changes,
        logs: vec![],
        mailbox: NODE,
        notes: Offset(0),
        limit,
    }
}

impl World {
    fn news(&mut self, known: Offset, limit: u32) -> Changes {
        self.changes(query(known, limit))
    }

    fn snapshot(&mut self) -> Snapshot {
        let app = AppId::new(APP);
        match self.read(&Query::Snapshot { app }) {
            Page::Snapshot(snapshot) => *snapshot,
            other => panic!("no snapshot: {other:?}"),
        }
    }

    fn retain(&mut self, topic: &str, payload: &str) {
        let message = Arc::new(self.message(topic, payload));
        self.done(Command::Publish(Publish {
            retain: true,
            ..publish(&message)
        }));
    }

    fn unsubscribe(&mut self, client_id: &str, epoch: Epoch, filter: &str) {
        self.change_subscriptions(client_id, epoch, vec![], &[filter]);
    }

    fn change_subscriptions(
        &mut self,
        client_id: &str,
        epoch: Epoch,
        add: Vec<campanile_broker::store::StoredSubscription>,
        remove: &[&str],
    ) {
        self.done(Command::Subscribe(Subscribe {
            client: client(client_id),
            epoch,
            add,
            remove: remove.iter().map(|filter| (*filter).into()).collect(),
            inbox: vec![],
        }));
    }
}
