//! The cluster of a node that is alone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use campanile_api::cluster::{
    self, Answer, Cluster, DrainOrder, Located, NodeStatus, Overview, Refusal,
};
use campanile_broker::{
    cluster::peer::{Connected, Imagined, LiveCount},
    ids::{AppId, ClientKey, MessageId},
    mail::{ClusterMail, Mail},
    shard::Shard,
};
use campanile_push::{app::AppName, id::PushId};

use tokio::sync::oneshot;

use super::{Inner, cluster::shown, totals::totals};
use crate::net::mailbox::Letter;

/// How long a shard may take to say whether a client is connected.
const LOCATE: Duration = Duration::from_secs(2);

/// A node without a cluster: it is the only one to connect to, and there is nobody to move devices to.
pub(super) struct Alone(pub(super) Arc<Inner>);

/// Questions to the shards that are not answered yet. In a cluster the hub has them.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: AtomicU64,
    asked: Mutex<BTreeMap<u64, oneshot::Sender<Option<Connected>>>>,
    counts: Mutex<BTreeMap<u64, Counting>>,
}

/// A count that not all shards have answered.
#[derive(Debug)]
struct Counting {
    shards_left: usize,
    live: LiveCount,
    answer: oneshot::Sender<LiveCount>,
}

impl Questions {
    fn ask(&self) -> (u64, oneshot::Receiver<Option<Connected>>) {
        let (answer, found) = oneshot::channel();
        let ticket = self.last.fetch_add(1, Ordering::Relaxed);
        self.asked().insert(ticket, answer);
        (ticket, found)
    }

    /// A shard has answered.
    pub(super) fn answer(&self, ticket: u64, connected: Option<Connected>) {
        if let Some(answer) = self.asked().remove(&ticket) {
            let _ = answer.send(connected); // Whoever asked may have given up.
        }
    }

    fn count(&self, shards: usize) -> (u64, oneshot::Receiver<LiveCount>) {
        let (answer, counted) = oneshot::channel();
        let ticket = self.last.fetch_add(1, Ordering::Relaxed);
        let counting = Counting {
            shards_left: shards,
            live: LiveCount::default(),
            answer,
        };
        self.counts().insert(ticket, counting);
        (ticket, counted)
    }

    /// A shard has counted its own.
    pub(super) fn on_counted(&self, ticket: u64, live: LiveCount) {
        let mut counts = self.counts();
        let Some(counting) = counts.get_mut(&ticket) else {
            return;
        };
        counting.live += live;
        counting.shards_left -= 1;
        if counting.shards_left == 0
            && let Some(counting) = counts.remove(&ticket)
        {
            let _ = counting.answer.send(counting.live); // Whoever asked may have given up.
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u64, Counting>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Option<Connected>>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alone {
    fn ask<'a>(&'a self, app: &'a AppName, client: &'a str, kick: bool) -> Answer<'a, Located> {
        Box::pin(async move {
            let node = &self.0;
            let client = ClientKey::new(&AppId::new(app.as_str()), client);
            let mailboxes = &node.shared.mailboxes;
            let home = Shard::of_client(&client.app, &client.client_id, mailboxes.len() as u8);
            let (ticket, found) = node.questions.ask();
            let question = ClusterMail::WhereIs {
                client,
                ticket,
                kick,
            };
            mailboxes[home.0 as usize].post(Letter::Mail(Mail::Cluster(question)));
            let found = tokio::time::timeout(LOCATE, found).await;
            // Not answered, it is forgotten.
            node.questions.answer(ticket, None);
            let silent = match &found {
                Ok(_) => Vec::new(),
                Err(_) => vec![node.name.clone()],
            };
            let connected = found.ok().and_then(Result::ok).flatten();
            Ok(Located {
                connection: connected.map(|connected| shown(node.name.clone(), connected)),
                silent,
            })
        })
    }
}

impl Cluster for Alone {
    fn overview(&self) -> Overview {
        let node = &self.0;
        let listeners = &node.shared.listeners;
        let figures = node.store_figures.lock();
        let store_failing = figures
            .unwrap_or_else(PoisonError::into_inner)
            .failing
            .as_ref()
            .map(ToString::to_string);
        let status = NodeStatus {
            name: node.name.clone(),
            this: true,
            generation: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: node.shared.clock.started().as_millis() as u64,
            addresses: listeners.iter().map(|listener| listener.url()).collect(),
            http: String::new(),
            connections: totals(&node.shared).shard.connections,
            capacity: listeners
                .iter()
                .map(|listener| listener.max_connections() as u64)
                .sum(),
            draining: false,
            drain: None,
            leader: true,
            linked: None,
        };
        Overview {
            cluster: String::new(),
            member: false,
            membership_reachable: true,
            store_failing,
            nodes: vec![status],
        }
    }

    fn locate<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        self.ask(app, client, false)
    }

    fn kick<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        self.ask(app, client, true)
    }

    fn count_connected<'a>(
        &'a self,
        app: &'a AppName,
        push: PushId,
        audience: Option<Bytes>,
    ) -> Answer<'a, cluster::Connected> {
        Box::pin(async move {
            let node = &self.0;
            let imagined = Imagined {
                app: AppId::new(app.as_str()),
                push: MessageId(push.0),
                audience,
            };
            let mailboxes = &node.shared.mailboxes;
            let (ticket, counted) = node.questions.count(mailboxes.len());
            for mailbox in mailboxes {
                let question = ClusterMail::HowMany {
                    imagined: imagined.clone(),
                    ticket,
                };
                mailbox.post(Letter::Mail(Mail::Cluster(question)));
            }
            let counted = tokio::time::timeout(LOCATE, counted).await;
            // Not answered by all, it is forgotten.
            node.questions.counts().remove(&ticket);
            Ok(match counted.ok().and_then(Result::ok) {
                Some(live) => cluster::Connected {
                    known: live.known,
                    others: live.others,
                    silent: Vec::new(),
                },
                None => cluster::Connected {
                    silent: vec![node.name.clone()],
                    ..cluster::Connected::default()
                },
            })
        })
    }

    fn drain<'a>(&'a self, _: &'a str, _: DrainOrder) -> Answer<'a, ()> {
        refused()
    }

    fn undrain<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused()
    }

    fn rebalance(&self) -> Answer<'_, ()> {
        refused()
    }
}

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(Refusal::Alone) })
}
