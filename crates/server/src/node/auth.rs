//! Threads that judge credentials where that takes long.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use campanile_broker::{
    access::{Access, AuthRequest, Verdict},
    ids::{ConnId, ShardId},
};
use campanile_mqtt::Reason;

use crate::net::{driver::Shared, mailbox::Letter};

type Job = (ShardId, ConnId, Box<AuthRequest>);

/// The way to the threads. They end when all copies of it are gone.
#[derive(Clone)]
pub struct AuthPool {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl AuthPool {
    /// Starts `threads` threads before a queue of `capacity` requests.
    pub fn spawn(
        access: &Arc<dyn Access>,
        shared: Arc<Shared>,
        threads: usize,
        capacity: usize,
    ) -> io::Result<(AuthPool, Vec<JoinHandle<()>>)> {
        let (jobs, queue) = sync_channel(capacity);
        let queue = Arc::new(Mutex::new(queue));
        let threads: io::Result<Vec<_>> = (0..threads.max(1))
            .map(|number| {
                let (queue, access, shared) = (queue.clone(), access.clone(), shared.clone());
                std::thread::Builder::new()
                    .name(format!("auth-{number}"))
                    .spawn(move || work(&queue, &*access, &shared))
            })
            .collect();
        Ok((AuthPool { jobs, shared }, threads?))
    }

    /// Judges a request; the verdict goes to its shard. With a full queue that is "server busy", at once.
    pub fn judge(&self, shard: ShardId, conn: ConnId, request: Box<AuthRequest>) {
        if self.jobs.try_send((shard, conn, request)).is_err() {
            let busy = Verdict::Deny(Reason::ServerBusy);
            self.shared.mailboxes[shard.0 as usize].post(Letter::Verdict(conn, busy));
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, access: &dyn Access, shared: &Shared) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((shard, conn, request)) = next else {
            return;
        };
        // One credential that trips a bug must not take the thread from all that wait.
        let judged = catch_unwind(AssertUnwindSafe(|| access.authenticate_slowly(&request)));
        let verdict = judged.unwrap_or_else(|_| {
            tracing::error!(client_id = %request.client_id, "judging credentials panicked");
            Verdict::Deny(Reason::UnspecifiedError)
        });
        shared.mailboxes[shard.0 as usize].post(Letter::Verdict(conn, verdict));
    }
}
