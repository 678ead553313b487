//! Tells webhooks what happens, and callback addresses what became of their pushes.
//!
//! It runs on the node that leads. Nothing depends on there being only one: what a `courier` has done is saved only if nobody else has saved meanwhile, so that a node that leads
//! no longer without knowing it sends some events twice at worst. Every second it looks at the apps that have, or had, somebody to tell, and has one courier at work for each
//! webhook that is in use, and one for all callbacks of an app while there are any.

mod courier;
mod ends;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use campanile_push::{
    app::AppName,
    registry::webhooks::{self, CALLBACKS},
    rows::Version,
    webhook::{State, Webhook},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::{courier::Target, ends::Ends};
use crate::{ApiState, problem::Problem};

/// On whose behalf it writes.
const ACTOR: &str = "teller";
/// Between two looks at who is to be told.
const EVERY: Duration = Duration::from_secs(1);
/// Apps read at a time.
const PAGE: usize = 256;
/// Longest wait between two looks while the store cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// For a courier to save what it did before the node stops.
const LAST_SAVE: Duration = Duration::from_secs(3);

/// Works until `stopped`, while `leads` says so.
pub async fn run(
    state: ApiState,
    leads: impl Fn() -> bool + Send + Sync,
    stopped: impl Future<Output = ()> + Send,
) {
    let mut teller = Teller::new(state);
    let work = async {
        let mut wait = EVERY;
        loop {
            sleep(wait).await;
            if !leads() {
                teller.stop_all().await;
                wait = EVERY;
                continue;
            }
            match teller.look_around().await {
                Ok(()) => wait = EVERY,
                Err(problem) => {
                    if wait == EVERY {
                        tracing::warn!(reason = problem.detail(), "webhooks wait");
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
    teller.stop_all().await;
}

/// A courier at work.
struct AtWork {
    /// Changes of whom it tells; dropped: it shall end.
    target: watch::Sender<Arc<Target>>,
    version: Version,
    task: JoinHandle<()>,
}

struct Teller {
    state: ApiState,
    couriers: HashMap<(AppName, String), AtWork>,
    ends: Ends,
    /// Requests under way, of all couriers.
    permits: Arc<Semaphore>,
}

impl Teller {
    fn new(state: ApiState) -> Teller {
        let permits = state.config().webhooks.max_in_flight;
        Teller {
            state,
            couriers: HashMap::new(),
            ends: Ends::default(),
            permits: Arc::new(Semaphore::new(permits)),
        }
    }

    async fn look_around(&mut self) -> Result<(), Problem> {
        let mut wanted = HashSet::new();
        let mut after: Option<AppName> = None;
        loop {
            let from = after.clone();
            let page = self
                .state
                .look(move |context| webhooks::tellers(context, from.as_ref(), PAGE));
            let (apps, more) = page.await?;
            after = apps.last().cloned();
            for app in apps {
                self.attend(&app, &mut wanted).await?;
            }
            if !more || after.is_none() {
                break;
            }
        }
        let gone: Vec<_> = self.couriers.keys().cloned().collect();
        for key in gone.into_iter().filter(|key| !wanted.contains(key)) {
            if let Some(courier) = self.couriers.remove(&key) {
                courier.stop().await;
            }
        }
        Ok(())
    }

    async fn attend(
        &mut self,
        app: &AppName,
        wanted: &mut HashSet<(AppName, String)>,
    ) -> Result<(), Problem> {
        self.ends.look(&self.state, app).await?;
        let of = app.clone();
        let (hooks, has_callbacks) = self
            .state
            .look(move |context| {
                let callbacks = webhooks::has_retries(context, &of, CALLBACKS)?;
                Ok((webhooks::list(context, &of)?, callbacks))
            })
            .await?;
        for (webhook, version) in hooks {
            if webhook.state == State::Active {
                let id = webhook.id.to_string();
                wanted.insert((app.clone(), id.clone()));
                self.send_out(app, id, version, Target::Webhook(webhook, version));
            }
        }
        if has_callbacks {
            let signer = self.signer(app).await?;
            wanted.insert((app.clone(), CALLBACKS.to_owned()));
            let target = Target::Callbacks(signer);
            self.send_out(app, CALLBACKS.to_owned(), Version::ABSENT, target);
        }
        Ok(())
    }

    async fn signer(&self, app: &AppName) -> Result<Webhook, Problem> {
        let random = crate::keys::random()?;
        let app = app.clone();
        let plan = move |context: &campanile_push::registry::Context<'_>| {
            webhooks::callback_signer(context, &app, random)
        };
        self.state.carry_out(ACTOR.to_owned(), plan).await
    }

    /// Has a courier at work, with what is known of its target now.
    fn send_out(&mut self, app: &AppName, of: String, version: Version, target: Target) {
        let key = (app.clone(), of.clone());
        let target = Arc::new(target);
        if let Some(at_work) = self.couriers.get_mut(&key)
            && !at_work.task.is_finished()
        {
            // Callbacks have no row whose version says that something is new.
            if at_work.version != version || of == CALLBACKS {
                at_work.version = version;
                let _ = at_work.target.send(target);
            }
            return;
        }
        let (sender, receiver) = watch::channel(target);
        let round = courier::Round::new(self.state.clone(), app.clone(), of, self.permits.clone());
        let task = tokio::spawn(round.run(receiver));
        let at_work = AtWork {
            target: sender,
            version,
            task,
        };
        self.couriers.insert(key, at_work);
    }

    async fn stop_all(&mut self) {
        for (_, courier) in self.couriers.drain() {
            courier.stop().await;
        }
        self.ends = Ends::default();
    }
}

impl AtWork {
    /// Lets it save what it did, and waits for that.
    async fn stop(self) {
        drop(self.target);
        if timeout(LAST_SAVE, self.task).await.is_err() {
            tracing::warn!("a courier did not end in time; some events will be sent again");
        }
    }
}
