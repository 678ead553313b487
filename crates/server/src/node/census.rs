//! Counting whom pushes to audiences are for, on a thread of its own (`campanile_push::registry::census`).
//!
//! A push that this node accepted is counted at once; what a node left behind that died meanwhile, by the node that sweeps.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use campanile_backends::Request;
use campanile_push::{
    app::AppName,
    id::PushId,
    registry::{Context, apps, census},
    store::{Audience, Command, Unavailable},
};
use tokio::sync::oneshot;

use super::{Inner, store::Tag};

/// Pushes that wait to be counted. The rest is found by the rows that order it.
const QUEUE: usize = 1024;
/// How often a push whose acceptance is still under way is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it is looked for.
const LOOK_FOR: Duration = Duration::from_secs(10);
/// One whose push is not there when it is this old never will be: it was refused, or repeated an earlier one.
const NEVER_ACCEPTED_MS: u64 = 60_000;

/// Where pushes to be counted are put.
#[derive(Clone, Debug)]
pub struct CensusMailbox(SyncSender<(AppName, PushId)>);

impl CensusMailbox {
    /// The mailbox, and its other end for [`Census::spawn`].
    pub fn new() -> (CensusMailbox, Receiver<(AppName, PushId)>) {
        let (sender, receiver) = sync_channel(QUEUE);
        (CensusMailbox(sender), receiver)
    }

    /// What goes to the store before a command: the order to count a push to an audience. The thread is told, too.
    pub fn order(&self, command: &Command) -> Option<Command> {
        let Command::Accept(accept) = command else {
            return None;
        };
        let Audience::Matching(targeting) = &accept.audience else {
            return None;
        };
        let (app, push) = (&accept.app, accept.id);
        if let Err(TrySendError::Full(_)) = self.0.try_send((app.clone(), push)) {
            metrics::counter!("campanile_pushes_counted_late_total").increment(1);
        }
        let order = census::ordered(app, push, targeting.clone(), accept.accepted_ms);
        Some(Command::Change(Box::new(order)))
    }
}

/// The thread.
pub struct Census {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Census {
    pub(super) fn spawn(
        node: Arc<Inner>,
        orders: Receiver<(AppName, PushId)>,
        tidy_every: Duration,
    ) -> io::Result<Census> {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("census".to_owned())
            .spawn(move || {
                Counter {
                    node,
                    stopped,
                    waiting: Vec::new(),
                    tidy_every,
                }
                .run(&orders);
            })?;
        Ok(Census { thread, stop })
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the census panicked");
        }
    }
}

struct Counter {
    node: Arc<Inner>,
    stopped: oneshot::Receiver<()>,
    /// Ordered, and not seen accepted yet.
    waiting: Vec<(AppName, PushId, Instant)>,
    /// How often what others left behind is looked for, and how old an order is that is left behind. If it is not, both count it, which is harmless.
    tidy_every: Duration,
}

impl Counter {
    fn run(mut self, orders: &Receiver<(AppName, PushId)>) {
        let mut tidied = Instant::now();
        while !self.is_stopped() {
            match orders.recv_timeout(LOOK_EVERY) {
                Ok((app, push)) => {
                    let until = Instant::now() + LOOK_FOR;
                    self.waiting.push((app, push, until));
                    let more = orders.try_iter().take(QUEUE);
                    self.waiting
                        .extend(more.map(|(app, push)| (app, push, until)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut done = self.count_waiting();
            if tidied.elapsed() >= self.tidy_every {
                tidied = Instant::now();
                if self.node.may_sweep() {
                    done = done.and_then(|()| self.count_left_behind());
                }
            }
            if let Err(reason) = done {
                tracing::debug!(%reason, "a count was put off");
            }
        }
    }

    fn is_stopped(&mut self) -> bool {
        !matches!(
            self.stopped.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// Counts what is accepted of what waits.
    fn count_waiting(&mut self) -> Result<(), Unavailable> {
        let now = Instant::now();
        self.waiting.retain(|(.., until)| *until > now);
        let mut apps: Vec<AppName> = self.waiting.iter().map(|(app, ..)| app.clone()).collect();
        apps.sort();
        apps.dedup();
        for app in apps {
            let of_app = self.waiting.iter().filter(|(of, ..)| *of == app);
            let wanted: HashSet<PushId> = of_app.map(|(_, push, _)| *push).collect();
            let is_waiting = |push: PushId| wanted.contains(&push);
            let counted = self.count_of_app(&app, is_waiting)?;
            self.waiting
                .retain(|(of, push, _)| *of != app || !counted.contains(push));
        }
        Ok(())
    }

    fn count_left_behind(&mut self) -> Result<(), Unavailable> {
        let now_ms = self.now_ms();
        let left_behind_ms = self.tidy_every.as_millis() as u64;
        let is_old = |push: PushId| made_ms(push) + left_behind_ms < now_ms;
        let mut after: Option<AppName> = None;
        loop {
            let reader = self.node.reader.clone();
            let context = Context {
                reader: &*reader,
                now_ms,
                unique: 0,
                actor: "",
            };
            let (found, more) = apps::list(&context, after.as_ref(), 100)?;
            for (app, _) in &found {
                self.count_of_app(app, is_old)?;
            }
            after = found.last().map(|(app, _)| app.clone());
            if !more || self.is_stopped() {
                return Ok(());
            }
        }
    }

    /// Counts those of an app's pushes that are wanted, and forgets those that were never accepted. Returns those that need no more looking.
    fn count_of_app(
        &mut self,
        app: &AppName,
        is_wanted: impl Fn(PushId) -> bool,
    ) -> Result<Vec<PushId>, Unavailable> {
        let reader = self.node.reader.clone();
        let (mut accepted, mut void) = (Vec::new(), Vec::new());
        for (push, targeting) in census::due(&*reader, app, self.now_ms())? {
            if !is_wanted(push) {
                continue;
            }
            if reader.report(app, push, self.now_ms())?.is_some() {
                accepted.push((push, targeting));
            } else if made_ms(push) + NEVER_ACCEPTED_MS < self.now_ms() {
                void.push((push, targeting));
            }
        }
        if !void.is_empty() {
            self.write(census::forget(app, void, self.now_ms()))?;
        }
        let pushes: Vec<PushId> = accepted.iter().map(|(push, _)| *push).collect();
        if pushes.is_empty() {
            return Ok(pushes);
        }
        let mut count = census::Count::new(app.clone(), accepted);
        while !count.go_on(&*reader, self.now_ms())? {
            if self.is_stopped() {
                return Ok(Vec::new());
            }
        }
        for command in count.commands(self.now_ms()) {
            self.write(command)?;
        }
        Ok(pushes)
    }

    fn write(&self, command: Command) -> Result<(), Unavailable> {
        let (answer, outcome) = oneshot::channel();
        let request = (Tag::Api(answer), Request::Push(command));
        if !self.node.store.submit([request]).is_empty() {
            return Err(Unavailable("too many requests wait for it".into()));
        }
        match outcome.blocking_recv() {
            Ok(outcome) => outcome.map(drop),
            Err(_) => Err(Unavailable("it did not answer".into())),
        }
    }

    fn now_ms(&self) -> u64 {
        self.node.shared.clock.now().0
    }
}

/// When a push got its id, in Unix milliseconds.
fn made_ms(push: PushId) -> u64 {
    (push.0 >> 80) as u64
}
