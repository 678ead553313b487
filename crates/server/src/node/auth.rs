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

use super::NodeConfig;
use crate::{
    auth::Shape,
    net::{driver::Shared, mailbox::Letter},
};

type Job = (ShardId, ConnId, Box<AuthRequest>);

/// The way to the threads. They end when all copies of it are gone. Devices have threads and a queue of their own: many of them come back at once, each is
/// judged a hundred times faster than a password, and should not wait for one.
#[derive(Clone)]
pub struct AuthPool {
    passwords: SyncSender<Job>,
    devices: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl AuthPool {
    /// Starts the threads.
    pub fn spawn(
        config: &NodeConfig,
        shared: Arc<Shared>,
    ) -> io::Result<(AuthPool, Vec<JoinHandle<()>>)> {
        let mut threads = Vec::new();
        let mut lane = |name: &str, count: usize, capacity: usize| -> io::Result<SyncSender<Job>> {
            let (jobs, queue) = sync_channel(capacity);
            let queue = Arc::new(Mutex::new(queue));
            for number in 0..count.max(1) {
                let (queue, shared) = (queue.clone(), shared.clone());
                let access = config.access.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("{name}-{number}"))
                    .spawn(move || work(&queue, &*access, &shared))?;
                threads.push(thread);
            }
            Ok(jobs)
        };
        let passwords = lane("auth", config.auth_threads, config.auth_queue)?;
        let devices = lane(
            "auth-device",
            config.device_auth_threads,
            config.device_auth_queue,
        )?;
        let pool = AuthPool {
            passwords,
            devices,
            shared,
        };
        Ok((pool, threads))
    }

    /// Judges a request; the verdict goes to its shard. With a full queue that is "server busy", at once.
    pub fn judge(&self, shard: ShardId, conn: ConnId, request: Box<AuthRequest>) {
        let lane = match request.password.as_deref().map(Shape::of) {
            Some(Shape::Token | Shape::Signed) => &self.devices,
            Some(Shape::Password) | None => &self.passwords,
        };
        if lane.try_send((shard, conn, request)).is_err() {
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
