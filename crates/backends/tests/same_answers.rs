//! Random sequences of commands: the model and the embedded store answer, announce and read the same, across restarts.

mod common;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use campanile_backends::{
    Backend, Config, Reply, Request,
    suite::{APP, Place, client, cursor, item, publish, subscription, will},
};
use campanile_broker::store::{PacketId, QoS};
use campanile_broker::{
    ids::{Epoch, Generation, MessageId, Millis, Offset},
    lane::Lane,
    message::{Kind, Message},
    store::{
        Claim, Claimed, Command, LogKind, Notice, Outcome, Page, Progress, Publish, Query,
        Received, Recovery, Release, Source, Subscribe, Unfinished,
    },
};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    receipt::{DropReason, Mark},
    rows,
    store::{self as push, Accept, Audience, Idempotency},
};
use common::{EmbeddedPlace, MemoryPlace};
use proptest::prelude::*;

const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];

/// A step, in terms of what happened before: numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Claim {
        client: usize,
        clean_start: bool,
        expiry_seconds: u32,
        will_delay: Option<u32>,
    },
    Subscribe {
        client: usize,
        stale: bool,
        filter: u8,
        remove: bool,
        inbox: bool,
    },
    Progress {
        client: usize,
        stale: bool,
        save: bool,
        inbox_done: u8,
        receipts: u8,
    },
    Release {
        client: usize,
        stale: bool,
        expires: Option<u32>,
        will_after: Option<u32>,
    },
    Publish {
        log: Option<u8>,
        inbox: Option<usize>,
        retain: bool,
        empty: bool,
        ttl: Option<u32>,
        topic: u8,
    },
    PublishQos2 {
        client: usize,
        stale: bool,
        packet_id: u8,
    },
    Forget {
        client: usize,
        packet_id: u8,
    },
    SpendWill {
        client: usize,
    },
    DropWill {
        client: usize,
    },
    Sweep {
        limit: u32,
    },
    Push {
        all: bool,
        devices: u8,
        ttl: u32,
        key: Option<u8>,
        priority: Priority,
        collapses: bool,
    },
    Rows {
        name: u8,
        expect_absent: bool,
        remove: bool,
        ttl: Option<u32>,
    },
    Pass {
        seconds: u32,
    },
    Commit,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..CLIENTS.len();
    let stale = prop::bool::weighted(0.1);
    let seconds = prop::sample::select(vec![0u32, 1, 10, 100]);
    let maybe_seconds = prop::option::of(seconds.clone());
    prop_oneof![
        5 => (who.clone(), prop::bool::weighted(0.3), prop::sample::select(vec![0, 10, 100, u32::MAX]), maybe_seconds.clone())
            .prop_map(|(client, clean_start, expiry_seconds, will_delay)| Step::Claim { client, clean_start, expiry_seconds, will_delay }),
        3 => (who.clone(), stale, 0..5u8, any::<bool>(), any::<bool>())
            .prop_map(|(client, stale, filter, remove, inbox)| Step::Subscribe { client, stale, filter, remove, inbox }),
        5 => (who.clone(), stale, any::<bool>(), any::<u8>(), any::<u8>())
            .prop_map(|(client, stale, save, inbox_done, receipts)| Step::Progress { client, stale, save, inbox_done, receipts }),
        3 => (who.clone(), stale, maybe_seconds.clone(), maybe_seconds.clone())
            .prop_map(|(client, stale, expires, will_after)| Step::Release { client, stale, expires, will_after }),
        5 => (prop::option::of(0..2u8), prop::option::of(who.clone()), any::<bool>(), prop::bool::weighted(0.3), maybe_seconds.clone(), 0..3u8)
            .prop_map(|(log, inbox, retain, empty, ttl, topic)| Step::Publish { log, inbox, retain, empty, ttl, topic }),
        2 => (who.clone(), stale, 1..4u8).prop_map(|(client, stale, packet_id)| Step::PublishQos2 { client, stale, packet_id }),
        1 => (who.clone(), 1..4u8).prop_map(|(client, packet_id)| Step::Forget { client, packet_id }),
        1 => who.clone().prop_map(|client| Step::SpendWill { client }),
        1 => who.prop_map(|client| Step::DropWill { client }),
        2 => prop::sample::select(vec![1u32, 3, 1000]).prop_map(|limit| Step::Sweep { limit }),
        5 => (prop::bool::weighted(0.3), 1..32u8, seconds.clone(), prop::option::weighted(0.3, 0..2u8), priority(), any::<bool>())
            .prop_map(|(all, devices, ttl, key, priority, collapses)| Step::Push { all, devices, ttl, key, priority, collapses }),
        4 => (0..6u8, prop::bool::weighted(0.3), prop::bool::weighted(0.3), prop::option::weighted(0.3, seconds.clone()))
            .prop_map(|(name, expect_absent, remove, ttl)| Step::Rows { name, expect_absent, remove, ttl }),
        3 => seconds.prop_map(|seconds| Step::Pass { seconds }),
        10 => Just(Step::Commit),
        1 => Just(Step::Restart),
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

/// Both backends, and what the next steps refer to.
struct Both {
    memory_place: MemoryPlace,
    embedded_place: EmbeddedPlace,
    config: Config,
    memory: Option<Box<dyn Backend>>,
    embedded: Option<Box<dyn Backend>>,
    now: Millis,
    last_id: u128,
    batch: Vec<Request>,
    claims: HashMap<usize, Vec<Claimed>>,
    wills: HashMap<usize, Arc<Message>>,
    pushes: Vec<PushId>,
    last_offset: Offset,
}

impl Both {
    fn new() -> Both {
        let config = Config {
            inbox_max_entries: 5,
            inbox_max_bytes: 500,
            push_retention_ms: 50_000,
            topic_log_max_age_ms: 60_000,
            topic_log_max_bytes: 800,
            topic_partitions: 2,
            shared: false,
            ..Config::default()
        };
        let mut both = Both {
            memory_place: MemoryPlace::default(),
            embedded_place: EmbeddedPlace::default(),
            config,
            memory: None,
            embedded: None,
            now: Millis(1_000_000),
            last_id: 0,
            batch: Vec::new(),
            claims: HashMap::new(),
            wills: HashMap::new(),
            pushes: Vec::new(),
            last_offset: Offset(0),
        };
        both.restart();
        both
    }

    /// Returns what both recovered.
    fn restart(&mut self) -> Recovery {
        self.now = self.now.plus_seconds(1);
        (self.memory, self.embedded) = (None, None);
        let mut memory = self.memory_place.open(self.config.clone());
        let mut embedded = self.embedded_place.open(self.config.clone());
        let recovery: Recovery = memory.recover(self.now).unwrap();
        assert_eq!(embedded.recover(self.now).unwrap(), recovery);
        (self.memory, self.embedded) = (Some(memory), Some(embedded));
        recovery
    }

    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let expected = self.memory.as_mut().unwrap().commit(batch.clone());
        let embedded = self.embedded.as_mut().unwrap().commit(batch.clone());
        assert_eq!(embedded, expected, "{batch:?}");
        for (request, reply) in batch.into_iter().zip(expected.replies) {
            if let (
                Request::Broker(Command::Claim(claim)),
                Ok(Reply::Broker(Outcome::Claimed(claimed))),
            ) = (request, reply)
            {
                let index = CLIENTS
                    .iter()
                    .position(|name| **name == *claim.client.client_id)
                    .unwrap();
                self.claims.entry(index).or_default().push(*claimed);
            }
        }
        for notice in expected.notices {
            if let Notice::Log {
                previous, entry, ..
            } = notice
            {
                assert!(previous < entry.offset && entry.offset > self.last_offset);
                self.last_offset = entry.offset;
            }
        }
    }

    /// What readers see is the same, and reports add up.
    fn compare_reads(&mut self) {
        let readers = [
            self.memory.as_ref().unwrap().reader(),
            self.embedded.as_ref().unwrap().reader(),
        ];
        let read = |query: &Query| {
            let [memory, embedded] = readers.each_ref().map(|reader| reader.read(query).unwrap());
            assert_eq!(embedded, memory, "{query:?}");
            memory
        };
        let app = client("a").app;
        for log in [LogKind::Push, LogKind::Topic(0), LogKind::Topic(1)] {
            for after in [0, 3, 10] {
                read(&Query::Log {
                    app: app.clone(),
                    log,
                    after: Offset(after),
                    limit: 4,
                });
            }
        }
        for name in CLIENTS {
            let mut places = Vec::new();
            for lane in Lane::ALL {
                let page = read(&Query::Inbox {
                    client: client(name),
                    lane,
                    after: Offset(0),
                    limit: 100,
                });
                let Page::Inbox {
                    entries,
                    more,
                    lanes,
                } = page
                else {
                    panic!("no inbox")
                };
                assert_eq!((more, lanes.contains(lane)), (false, !entries.is_empty()));
                places.extend(entries.iter().map(|entry| (Source::Inbox, entry.offset)));
            }
            assert!(places.len() <= self.config.inbox_max_entries as usize);
            read(&Query::Entries {
                client: client(name),
                places,
            });
        }
        let app = AppName::new(APP).unwrap();
        for id in &self.pushes {
            let [memory, embedded] = readers
                .each_ref()
                .map(|reader| reader.report(&app, *id, self.now.0).unwrap());
            assert_eq!(embedded, memory);
            if let Some(report) = memory {
                assert_eq!(report.funnel().check(report.targeted), Ok(()), "{report:?}");
            }
        }
        let [memory, embedded] = readers.each_ref().map(|reader| {
            let cohort = reader.cohort(&app, "cohort", 100).unwrap();
            let end = reader.numbers_end(&app).unwrap().min(100);
            let numbered = reader.devices_numbered(&app, &(0..end).collect::<Vec<_>>());
            (cohort, numbered.unwrap(), reader.sessions(&app).unwrap())
        });
        assert_eq!(embedded, memory);
        for table in [rows::Table::Device, rows::Table::Segment] {
            let range = rows::Range {
                scope: app_rows(),
                table,
                prefix: String::new(),
                after: None,
                limit: 100,
            };
            let [memory, embedded] = readers.each_ref().map(|reader| {
                let (rows, more) = reader.rows(&range, self.now.0).unwrap();
                let count = reader.count_rows(&range.scope, table).unwrap();
                assert!(
                    rows.len() as u64 <= count,
                    "expired rows count until they are swept"
                );
                (rows, more, count)
            });
            assert_eq!(embedded, memory);
        }
    }

    fn owner(&self, index: usize, stale: bool) -> (Epoch, u32) {
        let claims = self
            .claims
            .get(&index)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let claimed = if stale { claims.first() } else { claims.last() };
        claimed.map_or((Epoch(0), 0), |claimed| (claimed.epoch, claimed.ordinal))
    }

    fn message(&mut self, topic: u8, payload: &str, ttl: Option<u32>) -> Arc<Message> {
        self.last_id += 1;
        let topic = format!("t/{topic}");
        let mut message = Message::new(
            MessageId(self.last_id),
            Kind::Publish,
            &topic,
            &[],
            payload.as_bytes(),
        );
        message.qos = QoS::ExactlyOnce;
        message.expires_at = ttl.map(|ttl| self.now.plus_seconds(ttl));
        Arc::new(message)
    }

    fn progress(
        &self,
        index: usize,
        stale: bool,
        save: bool,
        inbox_done: u8,
        receipts: u8,
    ) -> Progress {
        let (epoch, ordinal) = self.owner(index, stale);
        let chosen = |bits: u8| (0..8u64).filter(move |bit| bits >> bit & 1 == 1);
        let latest = self.pushes.len().saturating_sub(8);
        let base = self.last_offset.0.saturating_sub(4);
        let place = Offset(base);
        let packet_id = PacketId::new(7).unwrap();
        let source = Source::Log(LogKind::Push);
        let exchange = Unfinished {
            packet_id,
            source,
            offset: place,
            qos: QoS::ExactlyOnce,
            released: true,
        };
        Progress {
            client: client(CLIENTS[index]),
            epoch,
            ordinal,
            cursors: save.then(|| {
                vec![
                    cursor(LogKind::Push, place),
                    cursor(LogKind::Topic(1), place),
                ]
            }),
            unfinished: save.then(|| {
                if inbox_done & 1 == 1 {
                    vec![exchange]
                } else {
                    vec![]
                }
            }),
            inbox_done: chosen(inbox_done).map(|bit| Offset(base + bit)).collect(),
            receipts: chosen(receipts)
                .filter_map(|bit| self.pushes.get(latest + bit as usize))
                .map(|id| MessageId(id.0))
                .collect(),
            settled: chosen(receipts >> 4)
                .filter_map(|bit| self.pushes.get(latest + bit as usize))
                .map(|id| {
                    (
                        MessageId(id.0),
                        Mark::Dropped(DropReason::FrequencyCap).code(),
                    )
                })
                .collect(),
            memory: save.then(|| vec![receipts; usize::from(receipts % 3)].into()),
        }
    }

    /// Ends all sessions, lets everything expire, and finds nothing left: every record has something that removes it.
    fn end_everything(&mut self) {
        let clients: Vec<_> = CLIENTS
            .iter()
            .chain(["unknown"].iter())
            .map(|name| client(name))
            .collect();
        for client in clients {
            let (now, will) = (self.now, None);
            let claim = Claim {
                client: client.clone(),
                owner: Generation::ALONE,
                now,
                clean_start: true,
                expiry_seconds: 10,
                will,
            };
            self.batch.push(Request::Broker(Command::Claim(claim)));
            self.batch
                .push(Request::Broker(Command::DropWill { client }));
        }
        for topic in 0..3 {
            let message = self.message(topic, "", None);
            self.batch.push(Request::Broker(Command::Publish(Publish {
                retain: true,
                ..publish(&message)
            })));
        }
        let batch = std::mem::take(&mut self.batch);
        for backend in [&mut self.memory, &mut self.embedded] {
            backend.as_mut().unwrap().commit(batch.clone());
        }
        for owed in self.restart().wills {
            assert!(owed.is_final);
            self.batch.push(Request::Broker(Command::Publish(Publish {
                spends_will: Some((owed.client.client_id, owed.will.message.id)),
                ..publish(&owed.will.message)
            })));
        }
        for name in 0..6 {
            self.take(Step::Rows {
                name,
                expect_absent: false,
                remove: true,
                ttl: None,
            });
        }
        for _ in 0..3 {
            self.now = self.now.plus_seconds(1_000_000);
            self.take(Step::Sweep { limit: u32::MAX });
            self.commit();
        }
        self.compare_reads();
        self.memory = None;
        let disk = self.memory_place.0.lock().unwrap().clone();
        // Singletons, device numbers, ends of logs.
        let left: Vec<_> = disk
            .entries()
            .filter(|(key, _)| ![0x01, 0x12, 0x30].contains(&key[0]))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn take(&mut self, step: Step) {
        let request = match step {
            Step::Claim {
                client: index,
                clean_start,
                expiry_seconds,
                will_delay,
            } => {
                let will = will_delay.map(|delay| {
                    let message = self.message(9, "will", None);
                    self.wills.insert(index, message.clone());
                    will(Message::clone(&message), delay)
                });
                let client = client(CLIENTS[index]);
                Command::Claim(Claim {
                    client,
                    owner: Generation::ALONE,
                    now: self.now,
                    clean_start,
                    expiry_seconds,
                    will,
                })
            }
            Step::Subscribe {
                client: index,
                stale,
                filter,
                remove,
                inbox,
            } => {
                let filter = format!("f/{filter}");
                let message = self.message(1, "retained", None);
                let (add, remove) = match remove {
                    true => (vec![], vec![filter.as_str().into()]),
                    false => (vec![subscription(&filter)], vec![]),
                };
                let inbox = if inbox { vec![item(&message)] } else { vec![] };
                let epoch = self.owner(index, stale).0;
                Command::Subscribe(Subscribe {
                    client: client(CLIENTS[index]),
                    epoch,
                    add,
                    remove,
                    inbox,
                })
            }
            Step::Progress {
                client,
                stale,
                save,
                inbox_done,
                receipts,
            } => Command::Progress(self.progress(client, stale, save, inbox_done, receipts)),
            Step::Release {
                client,
                stale,
                expires,
                will_after,
            } => Command::Release(Release {
                progress: self.progress(client, stale, true, 2, 1),
                expires_at: expires.map(|seconds| self.now.plus_seconds(seconds)),
                now: self.now,
                will_at: will_after.map(|seconds| self.now.plus_seconds(seconds)),
            }),
            Step::Publish {
                log,
                inbox,
                retain,
                empty,
                ttl,
                topic,
            } => {
                let message = self.message(topic, if empty { "" } else { "payload" }, ttl);
                let inboxes = inbox.map(|index| (CLIENTS[index].into(), item(&message)));
                Command::Publish(Publish {
                    log: log.map(LogKind::Topic),
                    inboxes: inboxes.into_iter().collect(),
                    retain,
                    ..publish(&message)
                })
            }
            Step::PublishQos2 {
                client: index,
                stale,
                packet_id,
            } => {
                let message = self.message(0, "qos 2", None);
                let packet_id = PacketId::new(packet_id.into()).unwrap();
                let epoch = self.owner(index, stale).0;
                let received = Some(Received {
                    client: client(CLIENTS[index]),
                    epoch,
                    packet_id,
                });
                Command::Publish(Publish {
                    log: Some(LogKind::Topic(0)),
                    received,
                    ..publish(&message)
                })
            }
            Step::Forget {
                client: index,
                packet_id,
            } => {
                let packet_id = PacketId::new(packet_id.into()).unwrap();
                let epoch = self.owner(index, false).0;
                Command::ForgetReceived {
                    client: client(CLIENTS[index]),
                    epoch,
                    packet_id,
                }
            }
            Step::SpendWill { client: index } => {
                let message = self.wills.get(&index).cloned();
                let message = message.unwrap_or_else(|| self.message(0, "no will", None));
                let log = Some(LogKind::Topic(1));
                let spends_will = Some((CLIENTS[index].into(), message.id));
                Command::Publish(Publish {
                    log,
                    spends_will,
                    ..publish(&message)
                })
            }
            Step::DropWill { client: index } => Command::DropWill {
                client: client(CLIENTS[index]),
            },
            Step::Sweep { limit } => Command::Sweep {
                now: self.now,
                limit,
            },
            Step::Push {
                all,
                devices,
                ttl,
                key,
                priority,
                collapses,
            } => {
                let mut accept = self.push(all, devices, ttl, key);
                accept.priority = priority;
                accept.collapse_key = collapses.then(|| "score".to_owned());
                let accept = push::Command::Accept(Box::new(accept));
                return self.batch.push(Request::Push(accept));
            }
            Step::Rows {
                name,
                expect_absent,
                remove,
                ttl,
            } => {
                let key = || match CLIENTS.get(usize::from(name)) {
                    Some(client) => rows::Key::new(rows::Table::Device, *client),
                    None => rows::Key::new(rows::Table::Segment, format!("s{name}")),
                };
                let mut change = rows::Change::new(app_rows(), self.now.0);
                if expect_absent {
                    change = change.expect(key(), rows::Version::ABSENT);
                }
                if let Some(client) = CLIENTS.get(usize::from(name)) {
                    // Rows of devices have no end: nobody would take them out of a cohort then.
                    let is_in = !remove && !expect_absent && ttl.is_none();
                    change = change.enrol(client, "cohort".into(), is_in);
                }
                change = match (remove, ttl) {
                    (true, _) => change.remove(key()),
                    (false, None) => change.put(key(), "value"),
                    (false, Some(ttl)) => {
                        change.put_until(key(), "value", self.now.plus_seconds(ttl).0)
                    }
                };
                let change = push::Command::Change(Box::new(change));
                return self.batch.push(Request::Push(change));
            }
            Step::Pass { seconds } => return self.now = self.now.plus_seconds(seconds),
            Step::Commit => return self.commit(),
            Step::Restart => {
                self.commit();
                self.compare_reads();
                self.restart();
                return;
            }
        };
        self.batch.push(Request::Broker(request));
    }

    fn push(&mut self, all: bool, devices: u8, ttl: u32, key: Option<u8>) -> Accept {
        self.last_id += 1;
        let id = PushId(self.last_id);
        self.pushes.push(id);
        let names = CLIENTS.iter().chain(["unknown"].iter()).enumerate();
        let named = names
            .filter(|(bit, _)| devices >> bit & 1 == 1)
            .map(|(_, name)| (*name).into());
        Accept {
            app: AppName::new(APP).unwrap(),
            id,
            accepted_ms: self.now.0,
            expires_ms: self.now.plus_seconds(ttl).0,
            audience: if all {
                Audience::All
            } else {
                Audience::Devices(named.collect())
            },
            payload: Bytes::from(format!("push {id}")),
            priority: Priority::Normal,
            collapse_key: None,
            idempotency: key.map(|key| Idempotency {
                key: "key".to_owned(),
                body_hash: [key; 32],
                expires_ms: self.now.plus_seconds(20).0,
            }),
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        }
    }
}

fn app_rows() -> rows::Scope {
    rows::Scope::App(AppName::new(APP).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn the_model_and_the_embedded_store_agree(steps in prop::collection::vec(step(), 1..150)) {
        let mut both = Both::new();
        for step in steps {
            both.take(step);
        }
        both.commit();
        both.compare_reads();
        both.restart();
        both.compare_reads();
        both.end_everything();
    }
}
