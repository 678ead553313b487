//! Random sequences of commands: the model of a shared store and a Redis answer, announce and read the same, but for the numbers that they give.

use std::{collections::BTreeMap, sync::Arc};

use campanile_backends::{
    Backend, Config, Reply, Request,
    memory::Memory,
    redis::{Durability, Redis, RedisConfig, Topology},
    suite::{APP, client, cursor, item, progress, publish, subscription, will},
};
use campanile_broker::{
    ids::{AppId, Epoch, Generation, MessageId, Millis, Offset},
    lane::{Lane, LaneSet},
    message::{Kind, Message},
    store::{
        Claim, Claimed, Command, Cursor, LogKind, Notice, Outcome, PacketId, Page, Progress,
        Publish, QoS, Query, Received, Release, StoreError, Subscribe, Tell,
    },
};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    receipt::{DropReason, FailReason, Mark},
    rows::{self, Key, Scope, Table},
    store::{self as push, Accept, Audience, Target},
};
use campanile_testbed::redis as servers;
use proptest::prelude::*;

const CLIENTS: [&str; 3] = ["a", "b", "c"];
const NODES: [Generation; 2] = [Generation(0x101), Generation(0x102)];
const FILTERS: [&str; 4] = ["x", "y/#", "$share/g/x", "$share/h/x"];

/// A number that no device has.
const NOBODY: u32 = 200_000;

/// What a step does, and four numbers that choose among what there is.
type Step = (u8, [u8; 4]);

/// One of the two stores. Numbers that it gives are replaced by the order in which it first gave them.
struct Side {
    backend: Box<dyn Backend>,
    /// Places by the order in which they were announced.
    places: Vec<Offset>,
    /// Those of each log.
    logs: BTreeMap<LogKind, Vec<Offset>>,
    /// Those under which something may still be reported, with the node that has the connection.
    claims: BTreeMap<&'static str, Vec<(Generation, Claimed)>>,
}

impl Side {
    fn new(backend: Box<dyn Backend>) -> Side {
        let places = vec![Offset(0)];
        let claims = BTreeMap::new();
        Side {
            backend,
            places,
            logs: BTreeMap::new(),
            claims,
        }
    }

    fn claimed(&self, index: u8, stale: u8) -> Claimed {
        let claims = self.claims.get(name(index)).map(Vec::as_slice);
        let claims = claims.unwrap_or_default();
        let claimed = if stale.is_multiple_of(8) {
            claims.first()
        } else {
            claims.last()
        };
        let claimed = claimed.map(|(_, claimed)| claimed.clone());
        claimed.unwrap_or_else(|| Claimed {
            epoch: Epoch(0),
            ordinal: NOBODY,
            resumed: None,
            ended_filters: vec![],
            owed_will: None,
            push_cursor: cursor(LogKind::Push, Offset(0)),
            topic_ends: vec![],
            inbox_waiting: LaneSet::NONE,
            previous: None,
            profile: None,
            memory: None,
            begins: false,
            changes: Offset(0),
        })
    }

    /// One of the latest places; the same one on both sides.
    fn place(&self, back: u8) -> Offset {
        let back = usize::from(back % 8).min(self.places.len() - 1);
        self.places[self.places.len() - 1 - back]
    }

    fn rank(&self, place: Offset) -> Offset {
        let rank = self.places.iter().position(|known| *known == place);
        Offset(rank.expect("every place was announced") as u64)
    }

    fn learn(&mut self, place: Offset) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    /// Of places between two entries of a log, a cursor may be at any.
    fn ranked(&self, mut of: Cursor) -> Cursor {
        let log = self.logs.get(&of.log).map(Vec::as_slice);
        let before = log.unwrap_or_default().iter().rev();
        let before = before.copied().find(|place| *place <= of.done);
        of.done = self.rank(before.unwrap_or_default());
        of.done_above
            .iter_mut()
            .for_each(|place| *place = self.rank(*place));
        of
    }

    /// Carries a batch out. Returns what can be compared.
    fn commit(
        &mut self,
        requests: Vec<Request>,
    ) -> (Vec<Result<Reply, StoreError>>, Vec<Notice>, u32) {
        let mut committed = self.backend.commit(requests.clone());
        for notice in &committed.notices {
            match notice {
                Notice::Log { log, entry, .. } => {
                    self.learn(entry.offset);
                    self.logs.entry(*log).or_default().push(entry.offset);
                }
                Notice::Inbox { entry, .. } => self.learn(entry.offset),
                Notice::Change { offset, .. } => self.learn(*offset),
                Notice::Instant { .. } => {}
            }
        }
        for notice in &mut committed.notices {
            match notice {
                Notice::Log {
                    previous,
                    entry,
                    changes,
                    ..
                } => {
                    (*previous, entry.offset) = (self.rank(*previous), self.rank(entry.offset));
                    *changes = self.rank(*changes);
                }
                Notice::Inbox {
                    previous,
                    entry,
                    replaced,
                    ..
                } => {
                    (*previous, entry.offset) = (self.rank(*previous), self.rank(entry.offset));
                    *replaced = replaced.map(|place| self.rank(place));
                }
                Notice::Change {
                    previous, offset, ..
                } => {
                    (*previous, *offset) = (self.rank(*previous), self.rank(*offset));
                }
                Notice::Instant { .. } => {}
            }
        }
        for (request, reply) in requests.iter().zip(&mut committed.replies) {
            match (request, reply) {
                (
                    Request::Broker(Command::Claim(claim)),
                    Ok(Reply::Broker(Outcome::Claimed(claimed))),
                ) => {
                    let name = CLIENTS
                        .iter()
                        .find(|name| ***name == *claim.client.client_id)
                        .unwrap();
                    let claims = self.claims.entry(name).or_default();
                    let is_later = |(_, before): &(_, Claimed)| before.epoch < claimed.epoch;
                    assert!(claims.iter().all(is_later));
                    // A node reports nothing more of a connection that another one through it took over.
                    claims.retain(|(owner, _)| *owner != claim.owner);
                    claims.push((claim.owner, claimed.as_ref().clone()));
                    self.normalise(claimed);
                }
                (
                    Request::Broker(Command::Restamp {
                        epoch, generation, ..
                    }),
                    Ok(_),
                ) => {
                    let claims = self.claims.values_mut().flatten();
                    for (owner, _) in claims.filter(|(_, claimed)| claimed.epoch == *epoch) {
                        *owner = *generation;
                    }
                }
                // Nor of one without a session that it let go of: its number may be given again.
                (Request::Broker(Command::Release(release)), _) => {
                    let Progress { client, epoch, .. } = &release.progress;
                    let app = AppName::new(APP).unwrap();
                    let ids = [client.client_id.clone()];
                    let numbers = self.backend.reader().device_numbers(&app, &ids);
                    if numbers.unwrap() == [None] {
                        let claims = self.claims.values_mut();
                        claims.for_each(|claims| {
                            claims.retain(|(_, claimed)| claimed.epoch != *epoch)
                        });
                    }
                }
                (_, Ok(Reply::Broker(Outcome::Swept(swept)))) => {
                    swept
                        .ended
                        .iter_mut()
                        .for_each(|(_, filters)| filters.sort());
                    swept.ended.sort();
                    swept.wills.sort_by(|a, b| {
                        (&a.client, a.will.message.id).cmp(&(&b.client, b.will.message.id))
                    });
                    // What is in the index in vain is counted by one of them only.
                    swept.more = false;
                }
                (_, Ok(Reply::Broker(Outcome::Voided(voided)))) => {
                    voided
                        .ended
                        .iter_mut()
                        .for_each(|(_, filters)| filters.sort());
                    voided.ended.sort();
                    voided.wills.sort_by(|a, b| a.client.cmp(&b.client));
                }
                _ => {}
            }
        }
        // Filters of one session, and sessions of one node, end in any order.
        committed.notices.sort_by_key(|notice| match notice {
            Notice::Change { change, .. } => format!("{change:?}"),
            _ => String::new(),
        });
        for notice in &mut committed.notices {
            if let Notice::Change {
                previous, offset, ..
            } = notice
            {
                (*previous, *offset) = (Offset(0), Offset(0));
            }
        }
        (committed.replies, committed.notices, committed.dropped)
    }

    fn normalise(&self, claimed: &mut Claimed) {
        claimed.epoch = Epoch(0);
        claimed.ordinal = 0;
        if let Some(previous) = &mut claimed.previous {
            previous.epoch = Epoch(0);
        }
        claimed.changes = Offset(0);
        claimed.push_cursor = self.ranked(claimed.push_cursor.clone());
        claimed
            .topic_ends
            .iter_mut()
            .for_each(|end| *end = self.rank(*end));
        claimed.ended_filters.sort();
        if let Some(resumed) = &mut claimed.resumed {
            resumed
                .subscriptions
                .sort_by(|a, b| a.filter.cmp(&b.filter));
            let cursors = std::mem::take(&mut resumed.cursors);
            resumed.cursors = cursors
                .into_iter()
                .map(|cursor| self.ranked(cursor))
                .collect();
            resumed.cursors.sort_by_key(|cursor| cursor.log);
        }
    }

    /// What readers see.
    fn read(&self, pushes: &[PushId], now: Millis) -> Vec<String> {
        let reader = self.backend.reader();
        let app = AppId::new(APP);
        let mut seen = Vec::new();
        for log in [LogKind::Push, LogKind::Topic(0), LogKind::Topic(1)] {
            let query = Query::Log {
                app: app.clone(),
                log,
                after: Offset(0),
                limit: 100,
            };
            let Page::Log {
                entries,
                read_to,
                gap,
            } = reader.read(&query).unwrap()
            else {
                panic!()
            };
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| (self.rank(entry.offset), &entry.message))
                .collect();
            seen.push(format!(
                "{log:?} {entries:?} {:?} {gap}",
                self.rank(read_to)
            ));
        }
        for name in CLIENTS.iter().chain(&["unknown"]) {
            for lane in Lane::ALL {
                let query = Query::Inbox {
                    client: client(name),
                    lane,
                    after: Offset(0),
                    limit: 100,
                };
                let Page::Inbox {
                    entries,
                    more,
                    lanes,
                } = reader.read(&query).unwrap()
                else {
                    panic!()
                };
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| (self.rank(entry.offset), &entry.item))
                    .collect();
                seen.push(format!("{name} {lane:?} {entries:?} {more} {lanes:?}"));
            }
            let of = AppName::new(APP).unwrap();
            let away = reader.away(&of, name, now.0).unwrap();
            seen.push(format!("{name} {away:?}"));
            let Page::Session(session) = reader
                .read(&Query::Session {
                    client: client(name),
                })
                .unwrap()
            else {
                panic!()
            };
            seen.push(format!(
                "{:?}",
                session.map(|session| (
                    session.owner,
                    session.inbox_waiting,
                    session.memory,
                    session.state.unfinished,
                    session.state.received
                ))
            ));
        }
        let Page::Snapshot(mut snapshot) = reader.read(&Query::Snapshot { app }).unwrap() else {
            panic!()
        };
        snapshot.filters.sort();
        snapshot
            .members
            .sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        snapshot.campaigns.sort();
        let campaigns = snapshot.campaigns;
        seen.push(format!(
            "{:?} {:?} {campaigns:?}",
            snapshot.filters, snapshot.members
        ));
        let app = AppName::new(APP).unwrap();
        let numbers = reader.device_numbers(&app, &CLIENTS.map(Arc::from));
        let keep_theirs = numbers.unwrap().into_iter().map(|number| number.is_some());
        seen.push(format!("{:?}", keep_theirs.collect::<Vec<_>>()));
        for id in pushes {
            seen.push(format!("{:?}", reader.report(&app, *id, now.0).unwrap()));
            for name in CLIENTS {
                let mut at = reader.at_device(&app, *id, name).unwrap();
                // Other marks of a push that is for others count nowhere, and need not be kept.
                if !at.marks.contains(&Mark::Targeted) {
                    at.marks.clear();
                }
                let is = (at.number.is_some(), at.counting, at.presence, at.is_passed);
                let marks = (&at.marks, at.collapsed_by);
                seen.push(format!("{name} {:?} {marks:?} {is:?}", at.life));
            }
        }
        seen
    }
}

fn name(index: u8) -> &'static str {
    CLIENTS[usize::from(index) % CLIENTS.len()]
}

/// What both sides have in common.
struct World {
    now: Millis,
    last_id: u128,
    pushes: Vec<PushId>,
    wills: BTreeMap<&'static str, MessageId>,
}

impl World {
    fn message(&mut self, payload: &str, ttl: u8) -> Arc<Message> {
        self.last_id += 1;
        let mut message = Message::new(
            MessageId(self.last_id),
            Kind::Publish,
            "t",
            &[],
            payload.as_bytes(),
        );
        message.qos = QoS::AtLeastOnce;
        message.expires_at = ttl
            .is_multiple_of(3)
            .then(|| self.now.plus_seconds(u32::from(ttl % 16)));
        Arc::new(message)
    }

    /// The request of a step, for one side; `None`: time passes.
    fn request(&mut self, side: &Side, step: Step) -> Option<Request> {
        let (kind, [a, b, c, d]) = step;
        let seconds = [0, 5, 50, u32::MAX, 5000][usize::from(b % 5)];
        let who = client(name(a));
        let owned = side.claimed(a, d);
        let command = match kind % 15 {
            0 | 1 => {
                let testament = c.is_multiple_of(2).then(|| {
                    let message = self.message("will", 1);
                    self.wills.insert(name(a), message.id);
                    will(Message::clone(&message), u32::from(c % 8))
                });
                Command::Claim(Claim {
                    client: who,
                    owner: NODES[usize::from(c) % 2],
                    now: self.now,
                    clean_start: d.is_multiple_of(3),
                    expiry_seconds: seconds,
                    will: testament,
                })
            }
            2 | 3 => {
                let filter = FILTERS[usize::from(b) % FILTERS.len()];
                let message = self.message("retained", 1);
                Command::Subscribe(Subscribe {
                    client: who,
                    epoch: owned.epoch,
                    add: if c.is_multiple_of(3) {
                        vec![]
                    } else {
                        vec![subscription(filter)]
                    },
                    remove: if c.is_multiple_of(3) {
                        vec![filter.into()]
                    } else {
                        vec![]
                    },
                    inbox: if c.is_multiple_of(4) {
                        vec![item(&message)]
                    } else {
                        vec![]
                    },
                })
            }
            4 => {
                let mut progress = progress(name(a), &owned);
                progress.inbox_done = vec![side.place(b), side.place(c)];
                progress.receipts = self
                    .pushes
                    .iter()
                    .rev()
                    .take(usize::from(b % 3))
                    .map(|id| MessageId(id.0))
                    .collect();
                if c.is_multiple_of(2) {
                    let mut saved = cursor(LogKind::Topic(1), side.place(b));
                    saved.done_above = vec![side.place(c)];
                    progress.cursors = Some(vec![saved, cursor(LogKind::Push, side.place(d))]);
                }
                let settled = [
                    Mark::Failed(FailReason::TooLarge),
                    Mark::Dropped(DropReason::FrequencyCap),
                    Mark::Dropped(DropReason::QuietHours),
                ];
                let last = self.pushes.last().filter(|_| d % 4 == 1);
                let mark = settled[usize::from(d) % settled.len()];
                progress.settled = last
                    .map(|id| (MessageId(id.0), mark.code()))
                    .into_iter()
                    .collect();
                progress.memory = (d % 4 > 1).then(|| vec![c; usize::from(c % 3)].into());
                Command::Progress(progress)
            }
            5 => Command::Release(Release {
                progress: progress(name(a), &owned),
                expires_at: (seconds != u32::MAX).then(|| self.now.plus_seconds(seconds)),
                now: self.now,
                will_at: c
                    .is_multiple_of(2)
                    .then(|| self.now.plus_seconds(u32::from(c % 8))),
            }),
            6 | 7 => {
                let message = self.message(if d.is_multiple_of(3) { "" } else { "payload" }, c);
                Command::Publish(Publish {
                    log: b.is_multiple_of(2).then_some(LogKind::Topic(b % 4 / 2)),
                    inboxes: if c.is_multiple_of(2) {
                        vec![(name(a).into(), item(&message))]
                    } else {
                        vec![]
                    },
                    retain: d.is_multiple_of(2),
                    ..publish(&message)
                })
            }
            8 => {
                let message = self.message("qos 2", 1);
                Command::Publish(Publish {
                    log: Some(LogKind::Topic(0)),
                    received: Some(Received {
                        client: who,
                        epoch: owned.epoch,
                        packet_id: PacketId::new(1 + u16::from(b % 2)).unwrap(),
                    }),
                    ..publish(&message)
                })
            }
            9 => {
                let id = self.wills.get(name(a)).copied().unwrap_or(MessageId(1));
                let message = self.message("w", 1);
                Command::Publish(Publish {
                    log: Some(LogKind::Topic(1)),
                    spends_will: Some((name(a).into(), id)),
                    ..publish(&message)
                })
            }
            10 if a.is_multiple_of(4) && !self.pushes.is_empty() => {
                let app = AppName::new(APP).unwrap();
                let push = self.pushes[usize::from(b) % self.pushes.len()];
                return Some(Request::Push(match c.is_multiple_of(3) {
                    true => push::Command::Counted { app, push },
                    // Numbers that no device has: those differ.
                    false => push::Command::Target(Target::of(&app, push, 1, [d.into()])),
                }));
            }
            10 => {
                self.last_id += 1;
                let id = PushId(self.last_id);
                self.pushes.push(id);
                let names: Vec<Arc<str>> = CLIENTS
                    .iter()
                    .chain(&["unknown"])
                    .enumerate()
                    .filter(|(bit, _)| (b | 1) >> bit & 1 == 1)
                    .map(|(_, name)| (*name).into())
                    .collect();
                return Some(Request::Push(push::Command::Accept(Box::new(Accept {
                    app: AppName::new(APP).unwrap(),
                    id,
                    accepted_ms: self.now.0,
                    expires_ms: self.now.plus_seconds(u32::from(c % 32)).0,
                    audience: match d % 3 {
                        0 if d.is_multiple_of(2) => Audience::All,
                        0 => Audience::Matching(vec![c; 5].into()),
                        _ => Audience::Devices(names),
                    },
                    payload: vec![b'p'; usize::from(c)].into(),
                    priority: Priority::ALL[usize::from(c % 3)],
                    collapse_key: (d % 4 > 1).then(|| format!("key {}", c % 2)),
                    idempotency: None,
                    // Named devices that were never seen have a number before they have anything else: the stores may tell of it or not.
                    rows: (c % 32 > 0 && c % 2 == 0 && d % 3 == 0).then(|| {
                        let key = Key::new(Table::Campaign, id.to_string());
                        let until_ms = self.now.plus_seconds(u32::from(c % 32)).0;
                        let scope = Scope::App(AppName::new(APP).unwrap());
                        let change = rows::Change::new(scope, self.now.0);
                        Box::new(change.put_until(key, vec![c; 3], until_ms))
                    }),
                    channel: Default::default(),
                    info: Default::default(),
                    watched: false,
                }))));
            }
            11 => Command::Sweep {
                now: self.now,
                limit: 1000,
            },
            12 if c.is_multiple_of(2) => Command::Void {
                generation: NODES[usize::from(b) % 2],
                now: self.now,
                limit: 1000,
            },
            12 => Command::Restamp {
                client: who,
                epoch: owned.epoch,
                generation: NODES[usize::from(b) % 2],
            },
            13 => {
                let verbs = ["displayed", "clicked", "dismissed"];
                let told = self.pushes.iter().rev().take(usize::from(b % 4));
                let told: Vec<_> = told.map(|id| format!("\"{id}\"")).collect();
                let verb = verbs[usize::from(c) % verbs.len()];
                Command::Tell(Tell {
                    client: who,
                    ordinal: owned.ordinal,
                    payload: format!(r#"{{"{verb}":[{}]}}"#, told.join(",")).into(),
                })
            }
            _ => {
                // Now and then the hour changes, by which sessions that are away are listed.
                let seconds = if c.is_multiple_of(8) { 2000 } else { 0 };
                self.now = self.now.plus_seconds(u32::from(b % 32) + seconds);
                return None;
            }
        };
        Some(Request::Broker(command))
    }
}

fn check(steps: &[Step]) {
    let config = Config {
        inbox_max_entries: 4,
        inbox_max_bytes: 500,
        push_retention_ms: 50_000,
        topic_log_max_age_ms: 60_000,
        topic_partitions: 2,
        shared: true,
        ..Config::default()
    };
    let server = servers::Redis::start().unwrap();
    let redis = RedisConfig {
        topology: Topology::Standalone {
            servers: vec![server.address()],
        },
        durability: Durability::Primary,
        allow_no_persistence: true,
        ..RedisConfig::default()
    };
    let mut model = Side::new(Box::new(Memory::new(config.clone())));
    let mut real = Side::new(Box::new(Redis::open(redis, config).unwrap()));
    let mut world = World {
        now: Millis(1_000_000),
        last_id: 100,
        pushes: vec![],
        wills: BTreeMap::new(),
    };
    for side in [&mut model, &mut real] {
        side.backend.recover(world.now).unwrap();
        // A log entry is dated by the latest time that a command brought.
        let (now, limit) = (world.now, 1);
        side.commit(vec![Request::Broker(Command::Sweep { now, limit })]);
    }
    for step in steps {
        // The same for both, but for the numbers that each of them gave.
        let mut of_model = World {
            now: world.now,
            last_id: world.last_id,
            pushes: world.pushes.clone(),
            wills: world.wills.clone(),
        };
        let (expected, request) = (of_model.request(&model, *step), world.request(&real, *step));
        if let (Some(expected), Some(request)) = (expected, request) {
            let told = format!("{expected:?}");
            assert_eq!(
                real.commit(vec![request]),
                model.commit(vec![expected]),
                "{told}"
            );
            assert_eq!(
                real.read(&world.pushes, world.now),
                model.read(&world.pushes, world.now),
                "after {told}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_model_and_redis_agree(steps in prop::collection::vec((any::<u8>(), any::<[u8; 4]>()), 1..120)) {
        check(&steps);
    }
}
