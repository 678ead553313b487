//! Threads that own a backend: one that commits, a few that read.
//!
//! [`StoreWorker`] takes requests from a bounded mailbox, commits everything that is waiting in one go, and hands the notices and the
//! replies of a commit over in one call, so that a receiver wakes once per commit and not once per request. [`ReadPool`] does the same for queries.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use campanile_broker::{
    ids::{AppId, Offset},
    store::{Notice, Page, Query, StoreError},
};

use crate::{
    backend::{Backend, Reader, Reply, Request},
    order::Broken,
};

/// Where the results of commits go. `T` is what the submitter calls its request by.
pub trait Deliver<T>: Send + 'static {
    /// Takes the results of one commit. The notices are to be announced before the replies are passed on. `changed`: as [`Committed::changed`](crate::Committed).
    fn deliver(
        &mut self,
        notices: Vec<Notice>,
        replies: Vec<(T, Result<Reply, StoreError>)>,
        changed: Vec<(usize, AppId, Offset)>,
        stats: CommitStats,
    );
}

/// Where the results of queries go; called from several threads.
pub trait DeliverPages<T>: Send + Sync + 'static {
    /// Takes the results of a few queries.
    fn deliver(&self, pages: Vec<(T, Result<Page, StoreError>)>);
}

/// Figures of one commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Requests in it.
    pub requests: usize,
    /// Records written or removed; 0: nothing had to become durable.
    pub writes: u32,
    /// Inbox entries that the quota dropped.
    pub dropped: u32,
    /// Time that the backend took.
    pub elapsed: Duration,
    /// How long the oldest request had waited before.
    pub waited: Duration,
    /// Requests that waited when the commit was done.
    pub queued: usize,
}

/// Bounds of a [`StoreWorker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Requests in the mailbox; more are given back to the submitter.
    pub mailbox_requests: usize,
    /// Bytes in the mailbox; a request that finds that many waiting is given back.
    pub mailbox_bytes: usize,
    /// Requests in one commit.
    pub batch_requests: usize,
    /// Bytes in one commit; at least one request is taken.
    pub batch_bytes: usize,
}

impl Default for WorkerConfig {
    fn default() -> WorkerConfig {
        WorkerConfig {
            mailbox_requests: 65_536,
            mailbox_bytes: 64 * 1024 * 1024,
            batch_requests: 4096,
            batch_bytes: 8 * 1024 * 1024,
        }
    }
}

/// The thread that owns a backend.
#[derive(Debug)]
pub struct StoreWorker<T> {
    mailbox: StoreMailbox<T>,
    thread: JoinHandle<Result<(), StoreError>>,
}

/// The way in; clones share the mailbox.
#[derive(Debug)]
pub struct StoreMailbox<T> {
    mailbox: Arc<Mailbox<T, Request>>,
    broken: Arc<Mutex<Broken>>,
}

impl<T: Send + 'static> StoreWorker<T> {
    /// Starts the thread.
    pub fn spawn(
        mut backend: Box<dyn Backend>,
        config: WorkerConfig,
        mut deliver: impl Deliver<T>,
    ) -> io::Result<StoreWorker<T>> {
        let mailbox = Arc::new(Mailbox::new(config.mailbox_requests, config.mailbox_bytes));
        let waiting = mailbox.clone();
        let broken = Arc::<Mutex<Broken>>::default();
        let order = broken.clone();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                // A panic must not leave submitters before a mailbox that nobody empties.
                let _closes = CloseOnDrop(&waiting);
                while let Some((taken, since)) =
                    waiting.take(config.batch_requests, config.batch_bytes)
                {
                    let started = Instant::now();
                    let requests = taken.len();
                    let mut admitted = lock(&order).admit(taken);
                    let committed = backend.commit(std::mem::take(&mut admitted.batch));
                    let replies = lock(&order).settle(admitted, committed.replies);
                    let stats = CommitStats {
                        requests,
                        writes: committed.writes,
                        dropped: committed.dropped,
                        elapsed: started.elapsed(),
                        waited: started.duration_since(since),
                        queued: waiting.len(),
                    };
                    deliver.deliver(committed.notices, replies, committed.changed, stats);
                }
                backend.close()
            })?;
        Ok(StoreWorker {
            mailbox: StoreMailbox { mailbox, broken },
            thread,
        })
    }

    /// The way in.
    pub fn mailbox(&self) -> StoreMailbox<T> {
        self.mailbox.clone()
    }

    /// Refuses further requests, carries out those that wait, and closes the backend.
    pub fn shutdown(self) -> Result<(), StoreError> {
        self.mailbox.mailbox.close();
        self.thread.join().unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                "the store's thread panicked".into(),
            ))
        })
    }
}

impl<T> StoreMailbox<T> {
    /// Leaves requests for the next commit, in their order. Gives back those for which there is no room, or all once the worker stops:
    /// they were not carried out.
    pub fn submit(&self, requests: impl IntoIterator<Item = (T, Request)>) -> Vec<(T, Request)> {
        let refused = self.mailbox.put(
            requests
                .into_iter()
                .map(|(tag, request)| (request.size_bytes(), (tag, request))),
        );
        if !refused.is_empty() {
            let mut broken = lock(&self.broken);
            for (_, request) in &refused {
                broken.refused(request);
            }
        }
        refused
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.mailbox.len()
    }
}

impl<T> Clone for StoreMailbox<T> {
    fn clone(&self) -> StoreMailbox<T> {
        StoreMailbox {
            mailbox: self.mailbox.clone(),
            broken: self.broken.clone(),
        }
    }
}

fn lock(broken: &Mutex<Broken>) -> MutexGuard<'_, Broken> {
    broken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that answer queries.
#[derive(Debug)]
pub struct ReadPool<T> {
    mailbox: ReadMailbox<T>,
    threads: Vec<JoinHandle<()>>,
}

/// The way in; clones share the mailbox.
#[derive(Debug)]
pub struct ReadMailbox<T>(Arc<Mailbox<T, Query>>);

impl<T: Send + 'static> ReadPool<T> {
    /// Starts `threads` threads before a mailbox of `capacity` queries.
    pub fn spawn(
        reader: Arc<dyn Reader>,
        threads: usize,
        capacity: usize,
        deliver: impl DeliverPages<T>,
    ) -> io::Result<ReadPool<T>> {
        /// Pages are up to 1 MiB; a thread that took many would hold much memory and answer the first late.
        const QUERIES_AT_ONCE: usize = 8;
        let mailbox = Arc::new(Mailbox::new(capacity, usize::MAX));
        let deliver = Arc::new(deliver);
        let mut pool = ReadPool {
            mailbox: ReadMailbox(mailbox.clone()),
            threads: Vec::new(),
        };
        for number in 0..threads {
            let (mailbox, reader, deliver) = (mailbox.clone(), reader.clone(), deliver.clone());
            let spawned = std::thread::Builder::new()
                .name(format!("store-read-{number}"))
                .spawn(move || {
                    while let Some((taken, _)) = mailbox.take(QUERIES_AT_ONCE, usize::MAX) {
                        deliver.deliver(
                            taken
                                .into_iter()
                                .map(|(tag, query)| (tag, reader.read(&query)))
                                .collect(),
                        );
                    }
                });
            match spawned {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => {
                    pool.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// The way in.
    pub fn mailbox(&self) -> ReadMailbox<T> {
        self.mailbox.clone()
    }

    /// Refuses further queries, answers those that wait, and ends the threads.
    pub fn shutdown(self) {
        self.mailbox.0.close();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a reading thread of the store panicked");
            }
        }
    }
}

impl<T> ReadMailbox<T> {
    /// Leaves queries. Gives back those for which there is no room, or all once the pool stops.
    pub fn submit(&self, queries: impl IntoIterator<Item = (T, Query)>) -> Vec<(T, Query)> {
        self.0.put(queries.into_iter().map(|entry| (0, entry)))
    }

    /// Queries that wait.
    pub fn queued(&self) -> usize {
        self.0.len()
    }
}

impl<T> Clone for ReadMailbox<T> {
    fn clone(&self) -> ReadMailbox<T> {
        ReadMailbox(self.0.clone())
    }
}

/// A bounded queue that several threads fill and empty.
#[derive(Debug)]
struct Mailbox<T, R> {
    queue: Mutex<Queue<T, R>>,
    filled: Condvar,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Queue<T, R> {
    entries: VecDeque<Waiting<T, R>>,
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<T, R> {
    entry: (T, R),
    bytes: usize,
    since: Instant,
}

impl<T, R> Mailbox<T, R> {
    fn new(max_entries: usize, max_bytes: usize) -> Mailbox<T, R> {
        let queue = Queue {
            entries: VecDeque::new(),
            bytes: 0,
            closed: false,
        };
        Mailbox {
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            max_entries,
            max_bytes,
        }
    }

    fn put(&self, entries: impl Iterator<Item = (usize, (T, R))>) -> Vec<(T, R)> {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return Vec::new();
        }
        let since = Instant::now();
        let mut refused = Vec::new();
        let mut queue = self.lock();
        for (bytes, entry) in entries {
            // Once one is refused the rest is too, so that the order of a submitter's requests holds.
            if queue.closed
                || !refused.is_empty()
                || queue.entries.len() >= self.max_entries
                || queue.bytes >= self.max_bytes
            {
                refused.push(entry);
            } else {
                queue.bytes += bytes;
                queue.entries.push_back(Waiting {
                    entry,
                    bytes,
                    since,
                });
            }
        }
        drop(queue);
        self.filled.notify_one();
        refused
    }

    /// Waits for entries and takes some, with the time the first was left; `None` when the mailbox is closed and empty.
    fn take(&self, max_entries: usize, max_bytes: usize) -> Option<(Vec<(T, R)>, Instant)> {
        let mut queue = self.lock();
        while queue.entries.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let since = queue.entries.front()?.since;
        let mut taken = Vec::with_capacity(queue.entries.len().min(max_entries));
        let mut bytes = 0;
        while taken.len() < max_entries {
            let Some(next) = queue.entries.front() else {
                break;
            };
            if !taken.is_empty() && bytes + next.bytes > max_bytes {
                break;
            }
            bytes += next.bytes;
            taken.extend(queue.entries.pop_front().map(|waiting| waiting.entry));
        }
        queue.bytes -= bytes;
        let more = !queue.entries.is_empty();
        drop(queue);
        if more {
            self.filled.notify_one();
        }
        Some((taken, since))
    }

    fn len(&self) -> usize {
        self.lock().entries.len()
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// A panic while the lock was held cannot have left the queue half changed: nothing under it panics.
    fn lock(&self) -> MutexGuard<'_, Queue<T, R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CloseOnDrop<'a, T, R>(&'a Mailbox<T, R>);

impl<T, R> Drop for CloseOnDrop<'_, T, R> {
    fn drop(&mut self) {
        self.0.close();
    }
}
