//! Deletes apps whole: has erased what they keep, a part at a time, and frees their names.
//!
//! It runs on the node that leads. Nothing depends on there being only one: what was marked stays marked until nothing is left, and to erase what is gone does nothing. So
//! whoever leads next goes on.

use std::time::Duration;

use campanile_push::{
    app::AppName,
    registry::apps::{self, Deletion},
    store::Erased,
};
use tokio::time::sleep;

use crate::{ApiState, problem::Problem};

/// Between two looks at what is to be deleted.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait between two looks while the store cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Things that one step erases: what else is written waits behind it.
const STEP: u32 = 500;
/// Steps for one app in a round, so that another is not kept waiting, and it is seen how far this one is.
const STEPS: usize = 64;

/// Works until `stopped`, while `leads` says so.
pub async fn run(
    state: ApiState,
    leads: impl Fn() -> bool + Send + Sync,
    stopped: impl Future<Output = ()> + Send,
) {
    let rounds = async {
        let mut wait = EVERY;
        loop {
            sleep(wait).await;
            if !leads() {
                wait = EVERY;
                continue;
            }
            wait = match round(&state).await {
                Ok(()) => EVERY,
                Err(problem) => {
                    if wait == EVERY {
                        let reason = problem.detail();
                        tracing::warn!(reason, "the deletion of apps waits");
                    }
                    (wait * 2).min(LONGEST_WAIT)
                }
            };
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stopped => {}
    }
}

/// Goes on with all deletions.
pub async fn round(state: &ApiState) -> Result<(), Problem> {
    for (app, deletion) in state.look(apps::deletions).await? {
        if deletion.is_settled(state.now_ms()) {
            go_on(state, &app, &deletion).await?;
        }
    }
    Ok(())
}

async fn go_on(state: &ApiState, app: &AppName, deletion: &Deletion) -> Result<(), Problem> {
    let (mut removed, mut more) = (0, true);
    for _ in 0..STEPS {
        let erased: Erased = state.erase(app, STEP).await?;
        removed += u64::from(erased.removed);
        more = erased.more;
        if !more {
            break;
        }
    }
    let actor = deletion.actor.clone();
    if removed > 0 {
        let app = app.clone();
        state
            .carry_out(actor.clone(), move |context| {
                apps::count_erased(context, &app, removed)
            })
            .await?;
    }
    if more {
        return Ok(());
    }
    let of = app.clone();
    let is_gone = state
        .carry_out(actor, move |context| apps::finish(context, &of))
        .await?;
    if is_gone {
        tracing::info!(%app, removed = deletion.removed + removed, "an app was deleted");
    }
    Ok(())
}
