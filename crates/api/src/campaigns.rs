//! Campaigns: how they are accepted and looked after, and `POST /v1/apps/{app}/pushes/{id}:pause`, `:resume`, `:cancel`, `:recall`.
//!
//! A campaign needs somebody to look after it when its pace depends on how many devices it is for, which is counted after it was accepted, and when it shall halt by
//! itself. The node that leads does; two that do it at once do no harm, since a row is written only if it is what was read.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use campanile_push::{
    app::AppName,
    campaign::How,
    id::PushId,
    lanes::Priority,
    receipt::Mark,
    registry::{
        self, Refusal,
        campaigns::{self, Answer, Standing, Verb},
        permission::Permission,
        settle,
    },
    request::Request,
    store::{self, Accept, Audience, Channel, Command, Idempotency, Outcome},
    targeting::Targeting,
    time::rfc3339,
};
use tokio::time::sleep;

use crate::{
    ApiState,
    auth::Caller,
    openapi::Operation,
    path::InPath,
    problem::{Code, Problem},
    pushes, reports, schedules,
};

/// The verbs of `POST /v1/apps/{app}/pushes/{id}:..`.
pub(crate) fn operations() -> [(&'static str, Operation); 4] {
    let act = |id, summary| {
        Operation::new(id, summary)
            .needs(Permission::PushSend)
            .answers(200, "The push's report.", reports::shape())
            .may(&[
                Code::InvalidPushId,
                Code::PushNotFound,
                Code::NotACampaign,
                Code::PushOver,
                Code::Clash,
                Code::Missing,
            ])
    };
    [
        ("pause", act("pausePush", "Holds a campaign")),
        ("resume", act("resumePush", "Goes on with a campaign")),
        (
            "cancel",
            act(
                "cancelPush",
                "Keeps a push from devices that have not got it",
            ),
        ),
        (
            "recall",
            act("recallPush", "Cancels a push, and has devices withdraw it"),
        ),
    ]
}

/// On whose behalf campaigns are looked after.
const ACTOR: &str = "campaigns";
/// How often they are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long devices that are away are told to withdraw a push: as long as a push lives that does not say.
const RECALL_LIVES_MS: u64 = campanile_push::options::DEFAULT_TTL_SECONDS * 1000;

/// Has a push accepted, for whom its audience was found to be.
pub(crate) async fn hand_in(
    state: &ApiState,
    app: &AppName,
    id: PushId,
    request: Request,
    audience: Audience,
    now_ms: u64,
    idempotency: Option<Idempotency>,
) -> Result<Outcome, Problem> {
    let (audience, targeting) = request.in_portion(id, audience, now_ms)?;
    if !request.options.make_a_campaign(&request.audience) {
        let accept = request.accept(app.clone(), id, audience, now_ms, idempotency);
        return state.write(Command::Accept(Box::new(accept))).await;
    }
    let campaign = Arc::new(request.campaign(id, targeting, now_ms)?);
    let accept = request.accept(app.clone(), id, audience, now_ms, idempotency);
    for _ in 0..registry::ATTEMPTS {
        let (of, planned) = (app.clone(), Arc::clone(&campaign));
        let rows = state
            .ask(move |context| campaigns::accept(context, &of, &planned))
            .await?;
        let bounds = rows.bounds.clone();
        let accept = Accept {
            rows: Some(Box::new(rows)),
            // It is in the row.
            payload: Bytes::new(),
            ..accept.clone()
        };
        match state.write(Command::Accept(Box::new(accept))).await? {
            Outcome::Conflict => {}
            full @ Outcome::Full { .. } => drop(settle(full, &bounds)?),
            outcome => return Ok(outcome),
        }
    }
    Err(Refusal::Contended.into())
}

/// `POST /v1/apps/{app}/pushes/{id}:pause`, `:resume`, `:cancel`, `:recall`
pub(crate) async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, target)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let (id, verb) = target.split_once(':').unwrap_or((&target, ""));
    let verb = match verb {
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "cancel" => Verb::Cancel,
        "recall" => Verb::Recall,
        _ => {
            return Err(Problem::new(
                Code::NotFound,
                "what can be done with a push here is \":pause\", \":resume\", \":cancel\" and \":recall\"",
            ));
        }
    };
    let id = pushes::push_id(id)?;
    let app = caller.app.clone();
    let answer = state
        .carry_out(caller.actor(), move |context| {
            campaigns::apply(context, &app, id, verb)
        })
        .await?;
    match answer {
        Answer::Done(Standing::Ended(ended)) if ended.how == How::Recalled => {
            tell_to_withdraw(&state, &caller, id).await?;
        }
        Answer::Done(_) => {}
        Answer::NoPush => return Err(not_there(&state, &caller, id).await),
        Answer::NoCampaign => {
            return Err(Problem::new(
                Code::NotACampaign,
                "a push without pace, local time, quiet hours, cap, hold, priority or collapse key went to everybody who was connected at once: \":cancel\" keeps it from the others",
            ));
        }
        Answer::Over(ended) => {
            return Err(Problem::new(
                Code::PushOver,
                format!(
                    "the push ended before its time, at {}: send a new one",
                    rfc3339(ended.at_ms)
                ),
            ));
        }
        Answer::Expired => {
            return Err(Problem::new(
                Code::PushOver,
                "the push's time is up: nobody gets it any more; send a new one",
            ));
        }
    }
    reports::show(&state, &caller.app, id).await
}

/// Why there is nothing to be done with a push that was never accepted.
async fn not_there(state: &ApiState, caller: &Caller, id: PushId) -> Problem {
    match schedules::waiting_push(state, caller.app.clone(), id).await {
        Ok(Some(_)) => Problem::new(
            Code::Clash,
            format!(
                "the push waits for its \"not_before\" and is a schedule until then: DELETE /v1/apps/{}/schedules/{id} takes it back",
                caller.app
            ),
        ),
        Ok(None) => pushes::no_such_push(),
        Err(problem) => problem,
    }
}

/// Tells the devices that a push was for to withdraw it; those that never got it have nothing to withdraw. Doing it again changes nothing.
async fn tell_to_withdraw(state: &ApiState, caller: &Caller, push: PushId) -> Result<(), Problem> {
    let app = caller.app.clone();
    let devices = state
        .read(move |reader| {
            let targeted = reader.marked(&app, push, Mark::Targeted)?;
            Ok(targeted | reader.marked(&app, push, Mark::Delivered)?)
        })
        .await?;
    if devices.is_empty() {
        return Ok(());
    }
    let now_ms = state.now_ms();
    let targeting = Targeting {
        numbers: Some(devices),
        ..Targeting::everyone(now_ms)
    };
    let payload = serde_json::json!({
        "type": "recall",
        "push_id": push.to_string(),
        "at": rfc3339(now_ms),
    });
    let accept = Accept {
        app: caller.app.clone(),
        id: recall_of(push),
        accepted_ms: now_ms,
        expires_ms: now_ms + RECALL_LIVES_MS,
        audience: store::Audience::Matching(targeting.encode().into()),
        payload: payload.to_string().into(),
        priority: Priority::default(),
        collapse_key: None,
        idempotency: None,
        rows: None,
        channel: Channel::Control,
        info: Bytes::new(),
        watched: false,
    };
    match state.write(Command::Accept(Box::new(accept))).await? {
        Outcome::Accepted { .. } => Ok(()),
        other => Err(pushes::senseless(&caller.app, &other)),
    }
}

/// The id of the word that recalls a push: always the same, so that it is said once.
fn recall_of(push: PushId) -> PushId {
    const RECALLS: u128 = 0x7265_6361_6c6c;
    PushId(push.0 ^ RECALLS)
}

/// Looks after the campaigns that `watched` names, while `leads` says so. Never ends.
pub async fn run(
    state: ApiState,
    leads: impl Fn() -> bool + Send + Sync,
    watched: impl Fn() -> Vec<(AppName, PushId)> + Send + Sync,
) {
    loop {
        sleep(LOOK_EVERY).await;
        if !leads() {
            continue;
        }
        for (app, push) in watched() {
            let of = app.clone();
            let attended = state
                .carry_out(ACTOR.to_owned(), move |context| {
                    campaigns::attend(context, &of, push)
                })
                .await;
            match attended {
                Ok(Some(Standing::Halted)) => {
                    metrics::counter!("campanile_campaigns_halted_total").increment(1);
                    tracing::warn!(%app, message_id = %push, "a campaign halted: too many devices failed");
                }
                Ok(_) => {}
                Err(problem) => {
                    let reason = problem.detail();
                    tracing::debug!(%app, message_id = %push, reason, "a campaign waits to be looked after");
                }
            }
        }
    }
}
