//! Figures of the embedded store on this machine: `cargo run --release -p campanile-backends --example store_throughput [directory]`.

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use campanile_backends::{
    Backend, Reply, Request,
    embedded::{Durability, Embedded, EmbeddedConfig},
};
use campanile_broker::{
    ids::{AppId, ClientKey, Generation, MessageId, Millis},
    message::{Kind, Message},
    store::{Claim, Claimed, Command, LogKind, Outcome, Progress, Publish},
};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    store::{self as push, Accept, Audience},
};

fn main() {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for durability in [Durability::Fsync, Durability::Os] {
        let path = parent.join(format!("campanile-throughput-{}", std::process::id()));
        let config = EmbeddedConfig {
            durability,
            ..EmbeddedConfig::new(&path)
        };
        let mut bench = Bench {
            store: Embedded::open(config).expect("a fresh directory"),
            next_id: 0,
        };
        bench.store.recover(Millis(1)).expect("nothing to recover");
        println!("durability {durability:?}");
        bench.run();
        drop(bench);
        std::fs::remove_dir_all(&path).expect("the directory is ours");
    }
}

struct Bench {
    store: Embedded,
    next_id: u128,
}

impl Bench {
    fn run(&mut self) {
        self.claims("ephemeral claims, new", 100_000, 1000, 0);
        self.claims("ephemeral claims, again", 100_000, 1000, 0);
        self.measure("pushes to all 100k ephemeral", 20, 1, |bench, _| {
            bench.push(Audience::All)
        });
        self.claims("durable claims, new", 20_000, 1000, 3600);
        let claims = self.claims("durable claims, resumed", 20_000, 1000, 3600);
        for batch in [1, 10, 100, 1000, 4000] {
            let name = format!("log appends of 256 B by {batch}");
            self.measure(&name, (batch * 50).min(200_000), batch, |bench, _| {
                bench.append(256)
            });
        }
        self.measure(
            "pushes to one device by 100",
            10_000,
            100,
            |bench, number| bench.push(Audience::Devices(vec![device(number)])),
        );
        self.measure("pushes to 1000 devices", 50, 1, |bench, _| {
            bench.push(Audience::Devices((0..1000).map(device).collect()))
        });
        let id = self.next_id + 1;
        self.measure("pushes to all 120k", 1, 1, |bench, _| {
            bench.push(Audience::All)
        });
        self.measure(
            "receipts with cursors by 1000",
            20_000,
            1000,
            |_, number| {
                let claimed = &claims[number];
                Request::Broker(Command::Progress(Progress {
                    client: client(number),
                    epoch: claimed.epoch,
                    ordinal: claimed.ordinal,
                    cursors: Some(vec![claimed.push_cursor.clone()]),
                    unfinished: None,
                    inbox_done: vec![],
                    receipts: vec![MessageId(id)],
                    settled: vec![],
                    memory: None,
                }))
            },
        );
    }

    fn claims(
        &mut self,
        name: &str,
        count: usize,
        batch: usize,
        expiry_seconds: u32,
    ) -> Vec<Claimed> {
        let replies = self.measure(name, count, batch, |_, number| {
            let client = client(number);
            let claim = Claim {
                client,
                owner: Generation::ALONE,
                now: Millis(1),
                clean_start: false,
                expiry_seconds,
                will: None,
            };
            Request::Broker(Command::Claim(claim))
        });
        let claimed = |reply| match reply {
            Reply::Broker(Outcome::Claimed(claimed)) => *claimed,
            other => panic!("no claim: {other:?}"),
        };
        replies.into_iter().map(claimed).collect()
    }

    fn measure(
        &mut self,
        name: &str,
        count: usize,
        batch: usize,
        mut request: impl FnMut(&mut Bench, usize) -> Request,
    ) -> Vec<Reply> {
        let mut batches: Vec<Vec<Request>> = Vec::new();
        for number in 0..count {
            if number % batch == 0 {
                batches.push(Vec::new());
            }
            let request = request(self, number);
            batches.last_mut().expect("just pushed").push(request);
        }
        let mut replies = Vec::with_capacity(count);
        let started = Instant::now();
        for batch in batches {
            let committed = self.store.commit(batch);
            replies.extend(
                committed
                    .replies
                    .into_iter()
                    .map(|reply| reply.expect("the disk has room")),
            );
        }
        let elapsed = started.elapsed();
        let each = elapsed / count as u32;
        println!(
            "  {name:36} {:>9.0} /s {each:>12.2?} each",
            count as f64 / elapsed.as_secs_f64()
        );
        replies
    }

    fn append(&mut self, bytes: usize) -> Request {
        self.next_id += 1;
        let mut payload = vec![0; bytes];
        payload[..16].copy_from_slice(
            &self
                .next_id
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_be_bytes(),
        );
        let message = Message::new(
            MessageId(self.next_id),
            Kind::Publish,
            "building/4/temperature",
            &[],
            &payload,
        );
        Request::Broker(Command::Publish(Publish {
            app: AppId::new("app"),
            message: Arc::new(message),
            log: Some(LogKind::Topic(0)),
            filters: vec![],
            inboxes: vec![],
            retain: false,
            received: None,
            spends_will: None,
            sender: None,
        }))
    }

    fn push(&mut self, audience: Audience) -> Request {
        self.next_id += 1;
        Request::Push(push::Command::Accept(Box::new(Accept {
            app: AppName::new("app").expect("a good name"),
            id: PushId(self.next_id),
            accepted_ms: 1,
            expires_ms: 1_000_000,
            audience,
            payload: Bytes::from(vec![b'x'; 256]),
            priority: Priority::Normal,
            collapse_key: None,
            idempotency: None,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        })))
    }
}

fn device(number: usize) -> Arc<str> {
    format!("device-{number}").into()
}

fn client(number: usize) -> ClientKey {
    ClientKey::new(&AppId::new("app"), &device(number))
}
