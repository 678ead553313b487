//! Makes the pushes of schedules when their time comes.
//!
//! It runs on the node that leads. Nothing depends on there being only one: what becomes a run is settled in the schedule's row, which one node at a time can write, and a run
//! is accepted under its own push id, of which the store takes the first. So a node that leads no longer without knowing it does no harm, and the next one finishes what
//! another left behind. Every second it reads the beginning of the list of what is due, which is nothing at most times.

use std::{sync::Arc, time::Duration};

use campanile_push::{
    app::AppName,
    registry::{
        Context,
        apps::{self, Quotas},
        schedules::{self, Place, Work},
    },
    schedule::{Run, Schedule},
    store::Outcome,
};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

use crate::{ApiState, problem::Problem, pushes};

/// On whose behalf it writes.
const ACTOR: &str = "scheduler";
/// Schedules that are worked on at a time, so that many of the same minute do not wait for each other's writes.
const CONCURRENT: usize = 32;
/// Places read at a time.
const PAGE: usize = 256;
/// Steps for one schedule in a round: each settles up to a thousand planned times. After a long outage the others go on meanwhile.
const STEPS: usize = 32;
/// Longest wait between two rounds while the store cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Works until `stopped`, while `leads` says so.
pub async fn run(
    state: ApiState,
    leads: impl Fn() -> bool + Send + Sync,
    stopped: impl Future<Output = ()> + Send,
) {
    let rounds = async {
        let mut wait = Duration::ZERO;
        loop {
            sleep(wait.max(until_next_second(state.now_ms()))).await;
            if !leads() {
                wait = Duration::ZERO;
                continue;
            }
            match round(&state).await {
                Ok(()) => {
                    if !wait.is_zero() {
                        tracing::info!("schedules run again");
                    }
                    wait = Duration::ZERO;
                }
                Err(problem) => {
                    if wait.is_zero() {
                        let reason = problem.detail();
                        tracing::warn!(reason, "schedules wait");
                    }
                    wait = (wait * 2).clamp(Duration::from_secs(1), LONGEST_WAIT);
                }
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stopped => {}
    }
}

/// Planned times are whole seconds.
fn until_next_second(now_ms: u64) -> Duration {
    Duration::from_millis(1000 - now_ms % 1000)
}

/// Does all that is due. The first failure is answered, when the rest is done.
pub async fn round(state: &ApiState) -> Result<(), Problem> {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks = JoinSet::new();
    let mut after: Option<Place> = None;
    let mut outcome = Ok(());
    loop {
        let from = after.clone();
        let page = state
            .look(move |context| schedules::due(context, from.as_ref(), PAGE))
            .await;
        let (places, more) = match page {
            Ok(page) => page,
            Err(problem) => {
                outcome = Err(problem);
                break;
            }
        };
        after = places.last().cloned();
        for place in places {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let state = state.clone();
            tasks.spawn(async move {
                let _permit = permit.expect("the semaphore is never closed");
                attend(&state, &place).await
            });
        }
        if !more || after.is_none() {
            break;
        }
    }
    while let Some(attended) = tasks.join_next().await {
        let attended = attended
            .unwrap_or_else(|_| Err(Problem::internal("a scheduled run met a bug of ours")));
        outcome = outcome.and(attended);
    }
    outcome
}

/// Does what is due of a schedule, and gives its place up once nothing is.
async fn attend(state: &ApiState, place: &Place) -> Result<(), Problem> {
    let (app, id) = (&place.app, place.id);
    for _ in 0..STEPS {
        let Some(Work { schedule, missed }) = choose(state, place).await? else {
            break;
        };
        if missed > 0 {
            metrics::counter!("campanile_schedule_missed_runs_total").increment(missed);
            tracing::warn!(%app, schedule = %id, missed, "runs of a schedule were missed");
        }
        let Some(quotas) = quotas_of(state, app).await? else {
            return Ok(());
        };
        for run in schedule.pending() {
            if pushes::admit(state, app, &quotas).is_err() {
                // It waits for the next second, and keeps its place on the list.
                return Ok(());
            }
            make(state, app, &quotas, &schedule, *run).await?;
        }
        let is_settled = missed == 0 && schedule.pending().is_empty();
        if is_settled {
            break;
        }
    }
    let (of, place) = (app.clone(), place.clone());
    let still_due = state
        .look(move |context| {
            let schedule = schedules::get(context, &of, id)?;
            let due_ms = schedule.and_then(|schedule| schedule.due_ms());
            Ok(due_ms.is_some_and(|due_ms| due_ms <= context.now_ms))
        })
        .await?;
    if still_due {
        return Ok(());
    }
    state
        .carry_out(ACTOR.to_owned(), move |context| {
            schedules::strike(context, &place)
        })
        .await
}

/// What the app may use; `None`: it is being deleted.
async fn quotas_of(state: &ApiState, app: &AppName) -> Result<Option<Quotas>, Problem> {
    let of = app.clone();
    let look = state.look(move |context| {
        let is_leaving = apps::deletion(context, &of)?.is_some();
        Ok((!is_leaving).then_some(apps::app(context, &of)?))
    });
    Ok(look.await?.map(|record| record.unwrap_or_default().quotas))
}

/// Settles what is due, after taking the place of what comes next.
async fn choose(state: &ApiState, place: &Place) -> Result<Option<Work>, Problem> {
    let (app, id) = (place.app.clone(), place.id);
    let next = state
        .look(move |context| schedules::next_place(context, &app, id))
        .await?;
    if let Some(next) = next.filter(|next| !next.is_taken) {
        let app = place.app.clone();
        let plan = move |context: &Context<'_>| schedules::announce(context, &app, id, next.at_ms);
        state.carry_out(ACTOR.to_owned(), plan).await?;
    }
    let (app, next_ms) = (place.app.clone(), next.map(|next| next.at_ms));
    let plan = move |context: &Context<'_>| schedules::choose(context, &app, id, next_ms);
    state.carry_out(ACTOR.to_owned(), plan).await
}

/// Makes a run, for whom its audience is now. What would be refused by `POST pushes` is refused here too; then the schedule says why.
async fn make(
    state: &ApiState,
    app: &AppName,
    quotas: &Quotas,
    schedule: &Schedule,
    run: Run,
) -> Result<(), Problem> {
    let (id, push) = (schedule.id, run.push);
    let now_ms = state.now_ms();
    let failure = match send(state, app, quotas, schedule, run, now_ms).await {
        Ok(()) => None,
        Err(problem) if problem.code().status().is_server_error() => return Err(problem),
        Err(problem) => Some(problem.detail().to_owned()),
    };
    let lag_ms = now_ms.saturating_sub(run.planned_ms);
    let result = match &failure {
        None => "made",
        Some(_) => "refused",
    };
    let of = app.clone();
    let reason = failure.clone();
    state
        .carry_out(ACTOR.to_owned(), move |context| {
            schedules::finish(context, &of, id, push, reason.as_deref())
        })
        .await?;
    metrics::counter!("campanile_schedule_runs_total", "result" => result).increment(1);
    metrics::histogram!("campanile_schedule_lag_seconds").record(lag_ms as f64 / 1e3);
    match failure {
        None => tracing::info!(%app, schedule = %id, message_id = %push, lag_ms, "scheduled run"),
        Some(reason) => {
            tracing::warn!(%app, schedule = %id, message_id = %push, reason, "scheduled run refused");
        }
    }
    Ok(())
}

async fn send(
    state: &ApiState,
    app: &AppName,
    quotas: &Quotas,
    schedule: &Schedule,
    run: Run,
    now_ms: u64,
) -> Result<(), Problem> {
    pushes::check_stored(state, app, quotas).await?;
    let request = schedule.request(&run, &state.limits())?;
    let outcome = pushes::hand_in(state, app, run.push, request, now_ms, None).await?;
    match outcome {
        Outcome::Accepted { .. } | Outcome::Replayed { .. } => Ok(()),
        other => Err(pushes::senseless(app, &other)),
    }
}
