//! What the node does by the clock: removing what has expired, the figures under `$SYS`, and reading quotas.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use campanile_backends::Request;
use campanile_broker::{mail::Mail, store::Command};

use super::{
    Inner,
    quotas::{self, Shares},
    store::Tag,
    sys::Sys,
    totals::totals,
};
use crate::net::mailbox::Letter;

/// How long to wait for the answer to a sweep before going on without it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the recorder of the HTTP metrics is tidied up.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The thread.
pub struct Ticker {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// How often, and how much at a time; zero: never.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Removing what has expired.
    pub sweep_every: Duration,
    /// Removals of one commit.
    pub sweep_limit: u32,
    /// Figures under `$SYS`.
    pub sys_every: Duration,
}

impl Ticker {
    pub(super) fn spawn(node: Arc<Inner>, shares: Shares, rhythm: Rhythm) -> io::Result<Ticker> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("ticker".to_owned())
            .spawn(move || run(&node, &shares, rhythm, &stopped))?;
        Ok(Ticker { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the ticker panicked");
        }
    }
}

fn run(node: &Arc<Inner>, shares: &Shares, rhythm: Rhythm, stopped: &Receiver<()>) {
    let start = Instant::now();
    let mut sys = Sys::new(start);
    let mut sweep = Due::new(start, rhythm.sweep_every);
    let mut figures = Due::new(start, rhythm.sys_every);
    let mut tidy = Due::new(start, TIDY_EVERY);
    let mut quotas = Due::new(start, quotas::READ_EVERY);
    loop {
        let now = Instant::now();
        let next = [&sweep, &figures, &tidy, &quotas]
            .into_iter()
            .filter_map(|due| due.at);
        let wait = next
            .min()
            .map_or(TIDY_EVERY, |at| at.saturating_duration_since(now));
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        let now = Instant::now();
        if sweep.is_due(now) && node.may_sweep() {
            sweep_all(node, rhythm.sweep_limit, stopped);
        }
        if figures.is_due(now) {
            let uptime = node.shared.clock.uptime();
            let figures = sys.figures(&totals(&node.shared), uptime, now);
            for mailbox in &node.shared.mailboxes {
                mailbox.post(Letter::Mail(Mail::Sys(figures.clone())));
            }
        }
        if tidy.is_due(now) {
            super::metrics::recorder().run_upkeep();
        }
        if quotas.is_due(now) {
            read_quotas(node, shares);
        }
    }
}

/// Takes up the quotas of connections, and which apps are being deleted. Those of the last time hold while the store cannot be read.
pub(super) fn read_quotas(node: &Arc<Inner>, shares: &Shares) {
    match quotas::read(node) {
        Ok(read) => {
            let read = Arc::new(read);
            // Whoever comes from now on is refused; those that are here are sent away.
            shares.store(read.clone());
            quotas::dismiss(&node.shared, &read);
        }
        Err(reason) => tracing::debug!(%reason, "the quotas of apps could not be read"),
    }
}

/// Removes what has expired until nothing is left or the node stops.
fn sweep_all(node: &Inner, limit: u32, stopped: &Receiver<()>) {
    loop {
        let (done, answer) = channel();
        let now = node.shared.clock.now();
        let sweep = Request::Broker(Command::Sweep { now, limit });
        if !node.store.submit([(Tag::Sweep(done), sweep)]).is_empty() {
            return;
        }
        let more = answer.recv_timeout(PATIENCE).unwrap_or(false);
        if !more
            || !matches!(
                stopped.try_recv(),
                Err(std::sync::mpsc::TryRecvError::Empty)
            )
        {
            return;
        }
    }
}

struct Due {
    at: Option<Instant>,
    every: Duration,
}

impl Due {
    fn new(now: Instant, every: Duration) -> Due {
        let at = (!every.is_zero()).then(|| now + every);
        Due { at, every }
    }

    /// Whether its time has come; sets the next one.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.at = Some(now + self.every);
        }
        due
    }
}
