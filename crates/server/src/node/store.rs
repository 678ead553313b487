//! Between the shards, the API and the threads that own the store.

use std::{
    mem::take,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use campanile_backends::{
    Reply, Request,
    worker::{CommitStats, Deliver, DeliverPages, ReadMailbox, StoreMailbox},
};
use campanile_broker::{
    access::AuthRequest,
    effects::{Statement, Ticket},
    ids::{AppId, ConnId, Offset, ShardId},
    mail::{ClusterMail, Mail},
    shard::Shard,
    store::{Command, Notice, Outcome, Page, Query, StoreError, Swept},
};
use campanile_push::store as push;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    alone::Questions,
    auth::AuthPool,
    cluster::{HubLetter, HubMailbox},
    registrar::Registrar,
};
use crate::net::{driver::Shared, figures::Histogram, mailbox::Letter, ports::Services};

/// Whose a request is.
#[derive(Debug)]
pub enum Tag {
    /// A shard's.
    Shard(ShardId, Ticket),
    /// The API's.
    Api(oneshot::Sender<Result<push::Outcome, push::Unavailable>>),
    /// Of whoever erases an app.
    Erase(oneshot::Sender<Result<push::Erased, push::Unavailable>>),
    /// The sweeper's; it is told whether there is more to remove.
    Sweep(mpsc::Sender<bool>),
    /// The hub's.
    Hub(u64),
}

/// Figures of the store, as others read them.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct StoreFigures {
    pub commits: Histogram,
    pub waits: Histogram,
    pub requests: u64,
    pub records: u64,
    pub inbox_dropped: u64,
    pub requests_failed: u64,
    /// Why the last commit failed; `None` once one has succeeded again.
    pub failing: Option<Arc<str>>,
}

/// Takes letters to shards, and answers of the store to whoever waits for them; what is for one shard in one batch.
#[derive(Debug)]
pub struct Postman {
    shared: Arc<Shared>,
    batches: Vec<Vec<Letter>>,
}

impl Postman {
    /// A postman to the shards of a node.
    pub fn new(shared: Arc<Shared>) -> Postman {
        Postman {
            batches: shared.mailboxes.iter().map(|_| Vec::new()).collect(),
            shared,
        }
    }

    /// Takes a letter along.
    pub fn take(&mut self, shard: ShardId, letter: Letter) {
        self.batches[shard.0 as usize].push(letter);
    }

    /// Delivers what was taken along.
    pub fn deliver(&mut self) {
        for (mailbox, batch) in self.shared.mailboxes.iter().zip(&mut self.batches) {
            if !batch.is_empty() {
                mailbox.post_all(take(batch));
            }
        }
    }

    /// Takes answers of the store to whoever waits for them, and what was taken along before. What a sweep found is returned.
    pub fn answer(&mut self, replies: Vec<(Tag, Result<Reply, StoreError>)>) -> Vec<Swept> {
        let (mut swept, mut others) = (Vec::new(), Vec::new());
        for (tag, reply) in replies {
            match (tag, reply) {
                (Tag::Shard(shard, ticket), reply) => {
                    self.take(shard, Letter::Outcome(ticket, reply.map(outcome_of_broker)));
                }
                (Tag::Erase(done), reply) => {
                    let erased = match reply.map(outcome_of_broker) {
                        Ok(Outcome::Swept(found)) => {
                            let (removed, more) = (found.removed, found.more);
                            swept.push(found);
                            Ok(push::Erased { removed, more })
                        }
                        Ok(other) => unreachable!("{other:?} is no answer to an erasure"),
                        Err(error) => Err(unavailable(&error)),
                    };
                    // Whoever leads no longer does not want to know.
                    let _ = done.send(erased);
                }
                (Tag::Sweep(done), reply) => {
                    let more = match reply.map(outcome_of_broker) {
                        Ok(Outcome::Swept(found)) => {
                            let more = found.more;
                            swept.push(found);
                            more
                        }
                        _ => false,
                    };
                    // Nobody waits for it any more when the node stops.
                    let _ = done.send(more);
                }
                other => others.push(other),
            }
        }
        self.deliver();
        for (tag, reply) in others {
            let Tag::Api(answer) = tag else { continue };
            if matches!(reply, Err(StoreError::Unknown(_))) {
                // Without an answer the API says that nobody knows.
                continue;
            }
            // A caller that has given up does not want to know.
            let _ = answer.send(match reply {
                Ok(Reply::Push(outcome)) => Ok(outcome),
                Ok(Reply::Broker(_)) => unreachable!("the API asks for nothing of the broker"),
                Err(error) => Err(unavailable(&error)),
            });
        }
        swept
    }

    fn announce(&mut self, notice: Notice) {
        if let Notice::Inbox { client, .. } = &notice {
            let count = self.batches.len() as u8;
            let shard = Shard::of_client(&client.app, &client.client_id, count);
            return self.take(shard, Letter::Mail(Mail::Notice(notice)));
        }
        let (last, others) = self.batches.split_last_mut().expect("a node has shards");
        for batch in others {
            batch.push(Letter::Mail(Mail::Notice(notice.clone())));
        }
        last.push(Letter::Mail(Mail::Notice(notice)));
    }

    fn announce_ended(&mut self, swept: Swept) {
        let count = self.batches.len();
        let mut ended: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (client, filters) in swept.ended {
            let shard = Shard::of_client(&client.app, &client.client_id, count as u8);
            ended[shard.0 as usize].push((client, filters));
        }
        for (batch, ended) in self.batches.iter_mut().zip(ended) {
            if !ended.is_empty() {
                batch.push(Letter::Mail(Mail::Ended(ended)));
            }
        }
        self.deliver();
    }
}

/// Takes what the store's thread has done to those who wait for it: notices first, then answers. In a cluster, the hub does that.
#[derive(Debug)]
pub struct Router {
    postman: Postman,
    hub: Option<HubMailbox>,
    figures: Arc<Mutex<StoreFigures>>,
    failed: UnboundedSender<String>,
}

impl Router {
    /// A router to the shards of a node, by way of the hub if it has one. `failed` is told if the store's thread, which owns the router, panics.
    pub fn new(
        shared: Arc<Shared>,
        hub: Option<HubMailbox>,
        figures: Arc<Mutex<StoreFigures>>,
        failed: UnboundedSender<String>,
    ) -> Router {
        Router {
            postman: Postman::new(shared),
            hub,
            figures,
            failed,
        }
    }

    fn count(&self, replies: &[(Tag, Result<Reply, StoreError>)], stats: CommitStats) {
        let unavailable = |reply: &Result<Reply, StoreError>| match reply {
            Err(StoreError::Unavailable(reason) | StoreError::Unknown(reason)) => {
                Some(reason.clone())
            }
            _ => None,
        };
        let failed = replies.iter().filter_map(|(_, reply)| unavailable(reply));
        let (mut failures, mut failing) = (0, None);
        for reason in failed {
            failures += 1;
            failing = Some(reason);
        }
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.commits.record(stats.elapsed);
        figures.waits.record(stats.waited);
        figures.requests += stats.requests as u64;
        figures.records += u64::from(stats.writes);
        figures.inbox_dropped += u64::from(stats.dropped);
        figures.requests_failed += failures;
        // A commit that had nothing to write proves nothing.
        if failing.is_some() || stats.writes > 0 {
            if let Some(reason) = &failing
                && figures.failing.is_none()
            {
                tracing::error!(%reason, "the store refuses writes");
            } else if failing.is_none() && figures.failing.is_some() {
                tracing::info!("the store takes writes again");
            }
            figures.failing = failing;
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = "the store's thread panicked";
            tracing::error!(reason = failure, "the store has died, the node must stop");
            let _ = self.failed.send(failure.to_owned());
        }
    }
}

impl Deliver<Tag> for Router {
    fn deliver(
        &mut self,
        notices: Vec<Notice>,
        replies: Vec<(Tag, Result<Reply, StoreError>)>,
        changed: Vec<(usize, AppId, Offset)>,
        stats: CommitStats,
    ) {
        self.count(&replies, stats);
        if let Some(hub) = &self.hub {
            return hub.post(HubLetter::Commit {
                notices,
                replies,
                changed,
            });
        }
        for notice in notices {
            self.postman.announce(notice);
        }
        for swept in self.postman.answer(replies) {
            self.postman.announce_ended(swept);
        }
    }
}

/// The broker's part of an answer to it.
pub fn outcome_of_broker(reply: Reply) -> Outcome {
    match reply {
        Reply::Broker(outcome) => outcome,
        Reply::Push(_) => unreachable!("shards ask for nothing of the push domain"),
    }
}

fn unavailable(error: &StoreError) -> push::Unavailable {
    match error {
        StoreError::Unavailable(reason) => push::Unavailable(reason.clone()),
        StoreError::Unknown(_) | StoreError::Fenced => push::Unavailable(error.to_string().into()),
    }
}

/// Takes pages to the shards, or the hub, that asked for them.
#[derive(Debug)]
pub struct PageRouter {
    /// The shards.
    pub shared: Arc<Shared>,
    /// The hub, if there is one.
    pub hub: Option<HubMailbox>,
}

impl DeliverPages<(ShardId, Ticket)> for PageRouter {
    fn deliver(&self, pages: Vec<((ShardId, Ticket), Result<Page, StoreError>)>) {
        for ((shard, ticket), page) in pages {
            match (&self.hub, shard) {
                (Some(hub), ShardId::HUB) => hub.post(HubLetter::Page(ticket.0, page)),
                _ => self.shared.mailboxes[shard.0 as usize].post(Letter::Page(ticket, page)),
            }
        }
    }
}

/// The rest of the node, as the driver of one shard sees it.
pub struct ShardServices {
    /// The shard.
    pub shard: ShardId,
    /// For answers that are known at once.
    pub shared: Arc<Shared>,
    /// The way to the store's thread.
    pub store: StoreMailbox<Tag>,
    /// The way to its readers.
    pub reads: ReadMailbox<(ShardId, Ticket)>,
    /// Where credentials are judged.
    pub auth: AuthPool,
    /// The hub, if there is one.
    pub hub: Option<HubMailbox>,
    /// Who takes what devices say of themselves.
    pub(super) registrar: Registrar,
    /// Without a hub: questions that the shard answers.
    pub(super) questions: Arc<Questions>,
}

impl Services for ShardServices {
    fn commands(&mut self, commands: Vec<(Ticket, Command)>) {
        let shard = self.shard;
        let requests = commands
            .into_iter()
            .map(|(ticket, command)| (Tag::Shard(shard, ticket), Request::Broker(command)));
        let refused = self.store.submit(requests);
        if refused.is_empty() {
            return;
        }
        let answers = refused.into_iter().filter_map(|(tag, _)| match tag {
            Tag::Shard(_, ticket) => Some(Letter::Outcome(ticket, Err(too_busy()))),
            _ => None,
        });
        self.shared.mailboxes[shard.0 as usize].post_all(answers);
    }

    fn queries(&mut self, queries: Vec<(Ticket, Query)>) {
        let shard = self.shard;
        let refused = self.reads.submit(
            queries
                .into_iter()
                .map(|(ticket, query)| ((shard, ticket), query)),
        );
        if refused.is_empty() {
            return;
        }
        let answers = refused
            .into_iter()
            .map(|((_, ticket), _)| Letter::Page(ticket, Err(too_busy())));
        self.shared.mailboxes[shard.0 as usize].post_all(answers);
    }

    fn cluster_mail(&mut self, mail: Vec<(ShardId, Mail)>) {
        if let Some(hub) = &self.hub {
            return hub.post(HubLetter::Mail(mail));
        }
        for (_, mail) in mail {
            match mail {
                Mail::Cluster(ClusterMail::Here {
                    ticket, connected, ..
                }) => self.questions.answer(ticket, connected),
                Mail::Cluster(ClusterMail::ThisMany { ticket, live }) => {
                    self.questions.on_counted(ticket, live);
                }
                _ => {}
            }
        }
    }

    fn statements(&mut self, statements: Vec<(Ticket, Box<Statement>)>) {
        self.registrar.post(self.shard, statements);
    }

    fn authenticate(&mut self, requests: Vec<(ConnId, Box<AuthRequest>)>) {
        for (conn, request) in requests {
            self.auth.judge(self.shard, conn, request);
        }
    }
}

/// The answer to requests for which the store's mailbox has no room.
pub fn too_busy() -> StoreError {
    StoreError::Unavailable("too many requests wait for it, or it is closing".into())
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, time::Instant};

    use campanile_broker::{
        ids::{AppId, ClientKey, Generation, MessageId, Offset},
        lane::Lane,
        message::{Kind, Message},
        store::{Change, InboxEntry, InboxItem},
    };
    use campanile_mqtt::QoS;

    use super::*;
    use crate::net::{clock::Clock, driver::seat, listener::AcceptBudget};

    const SHARDS: u8 = 3;

    fn shared() -> (Vec<mio::Poll>, Arc<Shared>) {
        let (polls, mailboxes): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| seat().unwrap()).unzip();
        let shared = Shared {
            clock: Clock::start(),
            listeners: Vec::new(),
            tickets: Arc::default(),
            accept_budget: AcceptBudget::new(0, 0, Instant::now()),
            max_sockets: 1,
            figures: mailboxes.iter().map(|_| Mutex::default()).collect(),
            hub_waiting: Arc::default(),
            mailboxes,
        };
        (polls, Arc::new(shared))
    }

    fn router(shared: &Arc<Shared>) -> (Router, Arc<Mutex<StoreFigures>>) {
        let figures = Arc::<Mutex<StoreFigures>>::default();
        let (failed, _) = tokio::sync::mpsc::unbounded_channel();
        (
            Router::new(shared.clone(), None, figures.clone(), failed),
            figures,
        )
    }

    fn message() -> Arc<Message> {
        Arc::new(Message::new(MessageId(1), Kind::Publish, "a", &[], b"x"))
    }

    /// What each shard was told: "notice", "inbox", "ended" or the number of a ticket.
    fn told(shared: &Shared) -> Vec<Vec<String>> {
        let read = |letter| match letter {
            Letter::Mail(Mail::Notice(Notice::Inbox { .. })) => "inbox".to_owned(),
            Letter::Mail(Mail::Notice(_)) => "notice".to_owned(),
            Letter::Mail(Mail::Ended(ended)) => format!("ended {}", ended.len()),
            Letter::Outcome(ticket, Ok(_)) => ticket.0.to_string(),
            Letter::Outcome(ticket, Err(_)) => format!("{} failed", ticket.0),
            other => panic!("{other:?}"),
        };
        let take = |mailbox: &crate::net::mailbox::Mailbox| {
            let mut letters = Vec::new();
            mailbox.take(&mut letters);
            letters.into_iter().map(read).collect()
        };
        shared.mailboxes.iter().map(take).collect()
    }

    #[test]
    fn notices_come_before_answers_and_go_to_whom_they_concern() {
        let (_polls, shared) = shared();
        let (mut router, _) = router(&shared);
        let client = ClientKey::new(&AppId::new("default"), "someone");
        let home = Shard::of_client(&client.app, &client.client_id, SHARDS);
        let item = InboxItem {
            message: message(),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Default::default(),
            lane: Lane::Normal,
        };
        let notices = vec![
            Notice::Change {
                app: client.app.clone(),
                previous: Offset(0),
                offset: Offset(0),
                change: Change::Retained {
                    topic: "a".into(),
                    message: Some(message()),
                },
            },
            Notice::Inbox {
                client: client.clone(),
                owner: Generation::ALONE,
                previous: Offset::default(),
                entry: InboxEntry {
                    offset: Offset(1),
                    item,
                },
                replaced: None,
            },
        ];
        let (sweep, more) = mpsc::channel();
        let swept = Swept {
            ended: vec![(client, Vec::new())],
            removed: 1,
            more: true,
            wills: Vec::new(),
        };
        let replies = vec![
            (
                Tag::Shard(home, Ticket(7)),
                Ok(Reply::Broker(Outcome::Done)),
            ),
            (Tag::Shard(home, Ticket(8)), Err(StoreError::Fenced)),
            (Tag::Sweep(sweep), Ok(Reply::Broker(Outcome::Swept(swept)))),
        ];
        router.deliver(notices, replies, Vec::new(), CommitStats::default());
        for (shard, told) in told(&shared).into_iter().enumerate() {
            if shard == home.0 as usize {
                assert_eq!(told, ["notice", "inbox", "7", "8 failed", "ended 1"]);
            } else {
                assert_eq!(told, ["notice"]);
            }
        }
        assert_eq!(more.recv(), Ok(true));
    }

    #[test]
    fn store_counts_as_failing_until_a_write_succeeds() {
        let (_polls, shared) = shared();
        let (mut router, figures) = router(&shared);
        let mut commit = |reply, writes| {
            let replies = vec![(Tag::Shard(ShardId(0), Ticket(1)), reply)];
            let stats = CommitStats {
                writes,
                ..CommitStats::default()
            };
            router.deliver(Vec::new(), replies, Vec::new(), stats);
            figures.lock().unwrap().failing.is_some()
        };
        let done = || Ok(Reply::Broker(Outcome::Done));
        assert!(!commit(done(), 1));
        assert!(commit(Err(StoreError::Unavailable("full".into())), 0));
        assert!(commit(done(), 0), "nothing was written");
        assert!(!commit(done(), 1));
    }

    #[test]
    fn panic_of_the_owner_is_reported() {
        let (_polls, shared) = shared();
        let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
        let router = Router::new(shared, None, Arc::default(), failed);
        let died = AtomicBool::new(false);
        let thread = std::thread::spawn(move || {
            let _owned = router;
            assert!(died.load(std::sync::atomic::Ordering::Relaxed), "asked to");
        });
        assert!(thread.join().is_err());
        assert!(failures.try_recv().unwrap().contains("panicked"));
    }
}
