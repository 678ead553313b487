//! The task that makes the pushes of schedules and looks after campaigns, on the node that leads (`campanile_api::scheduler`, `campanile_api::campaigns`).

use std::sync::{Arc, atomic::Ordering};

use campanile_api as api;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::timeout};

use super::{HTTP_DRAIN, Inner, http};

/// The task.
pub(super) struct Scheduler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Scheduler {
    /// Begins. `config` has the limits of pushes.
    pub(super) fn start(runtime: &Runtime, node: &Arc<Inner>, config: api::Config) -> Scheduler {
        let state = http::state(node, config);
        let node = node.clone();
        let watched = node.watched.clone();
        let leads = move || node.may_sweep() && !node.stopping.load(Ordering::Relaxed);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            let campaigns = api::campaigns::run(state.clone(), &leads, || watched.list());
            tokio::select! {
                () = api::scheduler::run(state, &leads, stopped) => {}
                () = campaigns => {}
            }
        });
        Scheduler { stop, task }
    }

    /// Ends it. What it is about to make is made by whoever comes next.
    pub(super) fn stop(self, runtime: &Runtime) {
        drop(self.stop);
        if runtime
            .block_on(async { timeout(HTTP_DRAIN, self.task).await })
            .is_err()
        {
            tracing::warn!("the scheduler did not end in time");
        }
    }
}
