//! One courier's round: read from the log, send, save.

use std::{sync::Arc, time::Duration};

use campanile_push::{
    app::AppName,
    event::Key,
    registry::{
        Context,
        webhooks::{self, Kept},
    },
    rows::Version,
    store::{Command, Outcome},
    webhook::{
        State, Webhook,
        courier::{Courier, Parcel},
    },
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    ApiState,
    outgoing::{self, Answered, Post},
    problem::Problem,
};

/// Requests of one courier under way at a time.
const MAX_IN_FLIGHT: usize = 8;
/// Events read at a time.
const PAGE: usize = 200;
/// Between two reads of a log that has nothing new.
const POLL: Duration = Duration::from_millis(250);
/// Between two saves.
const SAVE: Duration = Duration::from_secs(1);
/// Before a courier tries again what the store refused.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom a courier tells.
#[derive(Clone, Debug)]
pub enum Target {
    /// A webhook, with the version of its row.
    Webhook(Webhook, Version),
    /// The callback addresses of an app's pushes; what signs the requests.
    Callbacks(Webhook),
}

/// A courier's round.
pub struct Round {
    state: ApiState,
    app: AppName,
    /// The webhook's id, or [`webhooks::CALLBACKS`].
    of: String,
    permits: Arc<Semaphore>,
}

/// Why a courier came back.
enum Back {
    /// It shall end.
    Stopped,
    /// Somebody else has saved: it starts anew from what is stored.
    Overtaken,
}

/// What changes while a courier is at work.
struct Work {
    courier: Courier,
    told: Version,
    webhook: Webhook,
    /// Of the webhook's row, if there is one.
    version: Option<Version>,
    health_changed: bool,
    under_way: JoinSet<(Key, Answered)>,
}

impl Round {
    pub fn new(state: ApiState, app: AppName, of: String, permits: Arc<Semaphore>) -> Round {
        Round {
            state,
            app,
            of,
            permits,
        }
    }

    /// Works until the sender of the target is gone.
    pub async fn run(self, mut target: watch::Receiver<Arc<Target>>) {
        loop {
            let kept = tokio::select! {
                kept = self.kept() => kept,
                true = is_gone(&mut target) => return,
            };
            let target_now = Arc::clone(&target.borrow_and_update());
            let (webhook, version) = match &*target_now {
                Target::Webhook(webhook, version) => (webhook.clone(), Some(*version)),
                Target::Callbacks(signer) => (signer.clone(), None),
            };
            let work = Work {
                courier: kept.courier,
                told: kept.told,
                webhook,
                version,
                health_changed: false,
                under_way: JoinSet::new(),
            };
            match self.work(work, &mut target).await {
                Back::Stopped => return,
                Back::Overtaken => sleep(PAUSE).await,
            }
        }
    }

    async fn kept(&self) -> Kept {
        loop {
            let (app, of) = (self.app.clone(), self.of.clone());
            match self
                .state
                .look(move |context| webhooks::kept(context, &app, &of))
                .await
            {
                Ok(kept) => return kept,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn work(&self, mut work: Work, target: &mut watch::Receiver<Arc<Target>>) -> Back {
        let (mut poll_at, mut save_at) = (Instant::now(), Instant::now() + SAVE);
        loop {
            if work.version.is_some() && Instant::now() >= poll_at {
                poll_at = Instant::now() + self.read(&mut work).await;
            }
            self.send(&mut work);
            if Instant::now() >= save_at {
                save_at = Instant::now() + SAVE;
                if let Err(back) = self.save(&mut work).await {
                    return back;
                }
            }
            let due_in = work
                .courier
                .next_ms()
                .filter(|_| work.under_way.len() < MAX_IN_FLIGHT)
                .map(|at_ms| at_ms.saturating_sub(self.state.now_ms()));
            let due_at = due_in.map(|ms| Instant::now() + Duration::from_millis(ms));
            let wake_at = [Some(save_at), Some(poll_at), due_at];
            // Of callbacks there is nothing to read.
            let wake_at = wake_at.into_iter().flatten();
            let wake_at = wake_at.filter(|at| work.version.is_some() || *at != poll_at);
            let wake_at = wake_at.min().unwrap_or(save_at);
            tokio::select! {
                Some(answer) = work.under_way.join_next(), if !work.under_way.is_empty() => {
                    let Ok((key, answered)) = answer else {
                        // A task that panicked says not which; the rows do.
                        return Back::Overtaken;
                    };
                    if self.settle(&mut work, &key, &answered) {
                        return self.save(&mut work).await.err().unwrap_or(Back::Overtaken);
                    }
                }
                changed = target.changed() => {
                    if changed.is_err() {
                        let _ = self.save(&mut work).await;
                        return Back::Stopped;
                    }
                    let now = Arc::clone(&target.borrow_and_update());
                    self.take_news(&mut work, &now).await;
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Its target has changed, or what is kept for it.
    async fn take_news(&self, work: &mut Work, target: &Target) {
        match target {
            // Saved by the courier itself.
            Target::Webhook(_, version) if work.version == Some(*version) => return,
            Target::Webhook(webhook, version) => {
                work.webhook = webhook.clone();
                work.version = Some(*version);
                work.health_changed = false;
            }
            Target::Callbacks(signer) => work.webhook = signer.clone(),
        }
        let (app, of) = (self.app.clone(), self.of.clone());
        let kept = self
            .state
            .look(move |context| webhooks::retries(context, &app, &of));
        if let Ok(kept) = kept.await {
            work.courier.take_kept(kept);
        }
    }

    /// Reads on in the log. Returns when to read again.
    async fn read(&self, work: &mut Work) -> Duration {
        let limit = work.courier.room().min(PAGE);
        if limit == 0 {
            return POLL;
        }
        let (app, after) = (self.app.clone(), work.courier.read_to());
        let page = self
            .state
            .read(move |reader| reader.events(&app, after, limit));
        let Ok(page) = page.await else {
            return PAUSE;
        };
        if page.gap {
            metrics::counter!("campanile_webhook_gaps_total").increment(1);
            tracing::warn!(app = %self.app, webhook = %self.of, "events were trimmed before the webhook was told; raise store.events_max_entries or store.events_retention");
        }
        let is_all = page.events.len() < limit;
        let wanted = page
            .events
            .iter()
            .filter(|event| work.webhook.events.matches(event.draft.kind))
            .map(|event| Parcel::of(event, &self.app));
        let now_ms = self.state.now_ms();
        work.courier.take(wanted, page.read_to, now_ms);
        match is_all {
            true => POLL,
            false => Duration::ZERO,
        }
    }

    /// Sends what is due.
    fn send(&self, work: &mut Work) {
        let now_ms = self.state.now_ms();
        while work.under_way.len() < MAX_IN_FLIGHT
            && let Some(parcel) = work.courier.take_due(now_ms)
        {
            let Parcel { key, body, url, .. } = parcel;
            let url = url.unwrap_or_else(|| work.webhook.url.to_string());
            let post = Post::signed(&work.webhook, url, body, now_ms);
            let (outgoing, permits) = (self.state.outgoing(), Arc::clone(&self.permits));
            let timeout = self.state.config().webhooks.timeout();
            work.under_way.spawn(async move {
                let _permit = permits.acquire_owned().await;
                (key, outgoing::send(&outgoing, post, timeout).await.0)
            });
        }
    }

    /// Takes an answer. Returns whether the webhook is switched off by it.
    fn settle(&self, work: &mut Work, key: &Key, answered: &Answered) -> bool {
        let now_ms = self.state.now_ms();
        let Answered { answer, detail } = answered;
        let death = work.courier.settle(key, *answer, detail, now_ms, jitter());
        if let Some(death) = death {
            let reason = death.text();
            metrics::counter!("campanile_webhook_dead_letters_total", "reason" => reason)
                .increment(1);
            tracing::info!(app = %self.app, webhook = %self.of, reason, answer = %detail, "event given up");
        }
        if work.version.is_none() {
            return false;
        }
        let before = work.webhook.health;
        let off = work.webhook.on_answer(*answer, now_ms);
        work.health_changed |= off || work.webhook.health != before;
        if off {
            metrics::counter!("campanile_webhooks_disabled_total").increment(1);
            tracing::warn!(app = %self.app, webhook = %self.of, answer = %detail, "webhook switched off");
        }
        off
    }

    /// Saves what was done, if anything was.
    async fn save(&self, work: &mut Work) -> Result<(), Back> {
        let saving = work.courier.saving();
        if saving.is_none() && !work.health_changed {
            return Ok(());
        }
        let saving = saving.unwrap_or_else(|| work.courier.standing());
        let row = work.version.filter(|_| work.health_changed);
        let changed = row.map(|version| (work.webhook.clone(), version));
        let (app, of, told, kept) = (self.app.clone(), self.of.clone(), work.told, saving.clone());
        let plan = self.state.look(move |context: &Context<'_>| {
            let webhook = changed
                .as_ref()
                .map(|(webhook, version)| (webhook, *version));
            webhooks::save(context, &app, &of, told, &kept, webhook)
        });
        let outcome = match plan.await {
            Ok(change) => self.state.write(Command::Change(Box::new(change))).await,
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok(Outcome::Changed { version }) => {
                work.courier.on_saved(&saving);
                work.told = version;
                if row.is_some() {
                    work.version = Some(version);
                    work.health_changed = false;
                }
                match work.webhook.state {
                    State::Active => Ok(()),
                    State::Paused | State::Disabled { .. } => Err(Back::Stopped),
                }
            }
            // Another node tells too, or the owner has changed the webhook.
            Ok(_) => Err(Back::Overtaken),
            Err(problem) => {
                self.log_trouble(&problem);
                Ok(())
            }
        }
    }

    fn log_trouble(&self, problem: &Problem) {
        tracing::debug!(app = %self.app, webhook = %self.of, reason = problem.detail(), "what a courier did is saved later");
    }
}

/// Ready once nobody has news of the target any more.
async fn is_gone(target: &mut watch::Receiver<Arc<Target>>) -> bool {
    while target.changed().await.is_ok() {}
    true
}

/// 0..=1.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}
