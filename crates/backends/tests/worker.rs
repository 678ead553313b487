//! The threads around a backend.

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use campanile_backends::{
    Backend, Committed, Config, Reader, Reply, Request,
    memory::Memory,
    suite::{client, publish},
    worker::{CommitStats, Deliver, DeliverPages, ReadPool, StoreWorker, WorkerConfig},
};
use campanile_broker::{
    ids::{AppId, ConnId, MessageId, Millis, Offset, ShardId},
    message::{Kind, Message},
    store::{self, Command, LogKind, Notice, Outcome, Page, Publish, Query, Recovery, StoreError},
};

const LOG: LogKind = LogKind::Topic(0);

type Delivery = (
    Vec<Notice>,
    Vec<(u32, Result<Reply, StoreError>)>,
    CommitStats,
);

struct Deliveries(Sender<Delivery>);

impl Deliver<u32> for Deliveries {
    fn deliver(
        &mut self,
        notices: Vec<Notice>,
        replies: Vec<(u32, Result<Reply, StoreError>)>,
        _: Vec<(usize, AppId, Offset)>,
        stats: CommitStats,
    ) {
        let _ = self.0.send((notices, replies, stats));
    }
}

/// A backend that waits at a gate before each commit.
struct Gated(Memory, Arc<Gate>);

#[derive(Default)]
struct Gate {
    /// Commits that may pass, and commits that came.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
    /// Commits fail.
    is_closed: AtomicBool,
}

impl Gate {
    fn open(&self, commits: usize) {
        self.counts.lock().unwrap().0 += commits;
        self.changed.notify_all();
    }

    /// Waits until that many commits came.
    fn wait_for(&self, commits: usize) {
        let counts = self.counts.lock().unwrap();
        drop(
            self.changed
                .wait_while(counts, |(_, came)| *came < commits)
                .unwrap(),
        );
    }
}

impl Backend for Gated {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        let mut counts = self.1.counts.lock().unwrap();
        counts.1 += 1;
        self.1.changed.notify_all();
        counts = self
            .1
            .changed
            .wait_while(counts, |(allowed, _)| *allowed == 0)
            .unwrap();
        counts.0 -= 1;
        drop(counts);
        if self.1.is_closed.load(Ordering::Relaxed) {
            let failed = |_| Err(StoreError::Unavailable("closed".into()));
            return Committed {
                replies: batch.iter().map(failed).collect(),
                ..Committed::default()
            };
        }
        self.0.commit(batch)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.0.recover(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

fn append(id: u32) -> (u32, Request) {
    let message = Message::new(MessageId(id.into()), Kind::Publish, "t", &[], b"x");
    let publish = Publish {
        log: Some(LOG),
        ..publish(&message.into())
    };
    (id, Request::Broker(Command::Publish(publish)))
}

fn start(config: WorkerConfig) -> (StoreWorker<u32>, Receiver<Delivery>, Arc<Gate>) {
    let (sender, deliveries) = channel();
    let gate = Arc::new(Gate::default());
    let backend = Box::new(Gated(Memory::new(Config::default()), gate.clone()));
    (
        StoreWorker::spawn(backend, config, Deliveries(sender)).unwrap(),
        deliveries,
        gate,
    )
}

fn tags(delivery: &Delivery) -> Vec<u32> {
    let done = Ok(Reply::Broker(Outcome::Done));
    assert!(delivery.1.iter().all(|(_, reply)| *reply == done));
    delivery.1.iter().map(|(tag, _)| *tag).collect()
}

#[test]
fn what_waits_is_committed_together() {
    let (worker, deliveries, gate) = start(WorkerConfig {
        batch_requests: 4,
        ..WorkerConfig::default()
    });
    assert!(worker.mailbox().submit([append(0)]).is_empty());
    gate.wait_for(1);
    assert!(worker.mailbox().submit((1..7).map(append)).is_empty());
    gate.open(10);
    let batches: Vec<_> = deliveries.iter().take(3).collect();
    assert_eq!(
        batches.iter().map(tags).collect::<Vec<_>>(),
        [vec![0], vec![1, 2, 3, 4], vec![5, 6]]
    );
    let figures: Vec<_> = batches
        .iter()
        .map(|(notices, _, stats)| (notices.len(), stats.requests, stats.queued))
        .collect();
    assert_eq!(figures[1..], [(4, 4, 2), (2, 2, 0)]);
    assert!(batches[1].2.writes > 0);
    worker.shutdown().unwrap();
}

#[test]
fn a_large_request_is_committed_alone() {
    let (worker, deliveries, gate) = start(WorkerConfig {
        batch_bytes: 1,
        ..WorkerConfig::default()
    });
    worker.mailbox().submit((0..3).map(append));
    gate.open(10);
    let batches: Vec<_> = deliveries.iter().take(3).collect();
    assert_eq!(
        batches.iter().map(tags).collect::<Vec<_>>(),
        [[0], [1], [2]]
    );
    worker.shutdown().unwrap();
}

#[test]
fn a_full_mailbox_gives_requests_back_in_their_order() {
    let (worker, deliveries, gate) = start(WorkerConfig {
        mailbox_requests: 2,
        ..WorkerConfig::default()
    });
    let mailbox = worker.mailbox();
    mailbox.submit([append(0)]);
    gate.wait_for(1);
    let refused: Vec<_> = mailbox
        .submit((1..5).map(append))
        .iter()
        .map(|(tag, _)| *tag)
        .collect();
    assert_eq!((refused, mailbox.queued()), (vec![3, 4], 2));
    gate.open(10);
    assert_eq!(
        deliveries
            .iter()
            .take(2)
            .flat_map(|delivery| tags(&delivery))
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    worker.shutdown().unwrap();
}

#[test]
fn a_shutdown_carries_out_what_waits_and_refuses_the_rest() {
    let (worker, deliveries, gate) = start(WorkerConfig {
        batch_requests: 1,
        ..WorkerConfig::default()
    });
    let mailbox = worker.mailbox();
    mailbox.submit((0..3).map(append));
    gate.open(10);
    worker.shutdown().unwrap();
    assert_eq!(mailbox.submit([append(3)]).len(), 1);
    assert_eq!(
        deliveries
            .iter()
            .flat_map(|delivery| tags(&delivery))
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

/// What a connection of MQTT 3.1.1 sends.
fn sent(id: u32, use_count: u32) -> (u32, Request) {
    let (id, mut request) = append(id);
    let Request::Broker(Command::Publish(publish)) = &mut request else {
        unreachable!()
    };
    publish.sender = Some(store::Sender {
        shard: ShardId(0),
        conn: ConnId { slot: 0, use_count },
        hears_refusals: false,
    });
    (id, request)
}

/// The connection ends when its shard hears that a message was not kept; its client sends both again on the next one.
#[test]
fn what_a_connection_sent_behind_what_was_not_kept_is_not_kept_either() {
    let (worker, deliveries, gate) = start(WorkerConfig {
        mailbox_requests: 2,
        ..WorkerConfig::default()
    });
    let mailbox = worker.mailbox();
    let kept = || -> Vec<(u32, bool)> {
        let (_, replies, _) = deliveries.recv().unwrap();
        replies.iter().map(|(tag, r)| (*tag, r.is_ok())).collect()
    };
    gate.is_closed.store(true, Ordering::Relaxed);
    mailbox.submit([sent(1, 0)]);
    gate.open(1);
    assert_eq!(kept(), [(1, false)]);
    gate.is_closed.store(false, Ordering::Relaxed);

    mailbox.submit([sent(2, 0), append(3)]);
    gate.open(1);
    assert_eq!(kept(), [(3, true), (2, false)]);
    mailbox.submit([sent(1, 1), sent(2, 1)]);
    gate.open(1);
    assert_eq!(kept(), [(1, true), (2, true)]);

    // For the last one there is no room.
    mailbox.submit([append(4)]);
    gate.wait_for(4);
    let refused = mailbox.submit([sent(5, 1), append(6), sent(7, 1)]);
    assert_eq!(refused.len(), 1);
    gate.open(1);
    assert_eq!(kept(), [(4, true)]);
    gate.wait_for(5);
    mailbox.submit([sent(8, 1)]);
    gate.open(2);
    assert_eq!(kept(), [(6, true), (5, false)]);
    assert_eq!(kept(), [(8, false)]);
    worker.shutdown().unwrap();
}

struct Pages(Mutex<Sender<(u32, Result<Page, StoreError>)>>);

impl DeliverPages<u32> for Pages {
    fn deliver(&self, pages: Vec<(u32, Result<Page, StoreError>)>) {
        for page in pages {
            let _ = self.0.lock().unwrap().send(page);
        }
    }
}

#[test]
fn queries_are_answered_by_tag() {
    let mut memory = Memory::new(Config::default());
    memory.commit((1..=10).map(|id| append(id).1).collect());
    let (sender, pages) = channel();
    let pool = ReadPool::spawn(memory.reader(), 2, 100, Pages(Mutex::new(sender))).unwrap();
    let app = client("a").app;
    let query = |tag: u32| {
        let after = Offset(tag.into());
        (
            tag,
            Query::Log {
                app: app.clone(),
                log: LOG,
                after,
                limit: 1,
            },
        )
    };
    assert!(pool.mailbox().submit((0..10).map(query)).is_empty());
    let mut answered = [false; 10];
    for (tag, page) in pages.iter().take(10) {
        let Ok(Page::Log { entries, .. }) = page else {
            panic!("{page:?}")
        };
        assert_eq!(entries[0].offset, Offset(u64::from(tag) + 1));
        answered[tag as usize] = true;
    }
    assert_eq!(answered, [true; 10]);
    let mailbox = pool.mailbox();
    pool.shutdown();
    assert_eq!(mailbox.submit([query(0)]).len(), 1);
}
