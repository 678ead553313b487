//! The tasks of the node that leads: the one that makes the pushes of schedules (`campanile_api::scheduler`), the one that looks after campaigns
//! (`campanile_api::campaigns`), the one that tells webhooks and callback addresses (`campanile_api::teller`), and the one that deletes apps (`campanile_api::eraser`).

use std::sync::{Arc, atomic::Ordering};

use campanile_api::{self as api, ApiState};
use tokio::{
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{HTTP_DRAIN, Inner};

/// The tasks.
pub(super) struct Leading {
    stop: watch::Sender<()>,
    scheduler: JoinHandle<()>,
    campaigns: JoinHandle<()>,
    teller: JoinHandle<()>,
    eraser: JoinHandle<()>,
}

impl Leading {
    /// Begins.
    pub(super) fn start(runtime: &Runtime, node: &Arc<Inner>, state: &ApiState) -> Leading {
        let leads = || {
            let node = node.clone();
            move || node.may_sweep() && !node.stopping.load(Ordering::Relaxed)
        };
        let (stop, stopped) = watch::channel(());
        let stopped = || {
            let mut stopped = stopped.clone();
            async move { while stopped.changed().await.is_ok() {} }
        };
        let scheduler = api::scheduler::run(state.clone(), leads(), stopped());
        let watched = node.watched.clone();
        let campaigns = {
            let (state, leads, stopped) = (state.clone(), leads(), stopped());
            async move {
                tokio::select! {
                    () = api::campaigns::run(state, leads, || watched.list()) => {}
                    () = stopped => {}
                }
            }
        };
        let teller = api::teller::run(state.clone(), leads(), stopped());
        let eraser = api::eraser::run(state.clone(), leads(), stopped());
        Leading {
            scheduler: runtime.spawn(scheduler),
            campaigns: runtime.spawn(campaigns),
            teller: runtime.spawn(teller),
            eraser: runtime.spawn(eraser),
            stop,
        }
    }

    /// Ends them. What is about to be made or told is left to whoever comes next.
    pub(super) fn stop(self, runtime: &Runtime) {
        drop(self.stop);
        let until = Instant::now() + HTTP_DRAIN;
        let tasks = [
            ("scheduler", self.scheduler),
            ("campaigns", self.campaigns),
            ("teller", self.teller),
            ("eraser", self.eraser),
        ];
        for (name, task) in tasks {
            let ended = runtime.block_on(async { timeout_at(until, task).await });
            if ended.is_err() {
                tracing::warn!(name, "a task of the leading node did not end in time");
            }
        }
    }
}
