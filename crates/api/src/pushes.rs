//! `/v1/apps/{app}/pushes`: accepting pushes.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    audience::Audience,
    id::{BadPushId, PushId},
    idempotency::IdempotencyKey,
    registry::{apps::Quotas, audiences, open, permission::Permission, schedules::Created},
    request::Request,
    rows::{Scope, Table},
    store::{self, Idempotency, Outcome},
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    batch, body, campaigns, explanations, listing,
    openapi::{self, Operation, Routes, of},
    problem::{Code, Problem},
    reports, schedules, validation, webhooks,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The routes of pushes.
pub(crate) fn routes() -> Routes {
    let example = || json!({"audience": {"devices": ["phone-1"]}, "notification": {"title": "Shipped"}, "data": {"order": 1234}, "options": {"ttl": 86400}});
    let of_audiences = [
        Code::InvalidExpression,
        Code::PayloadTooLarge,
        Code::Missing,
        Code::Clash,
    ];
    let accept = Operation::new("sendPush", "Makes a push")
        .tells("The answer comes once the push is durable: from then on it reaches its devices, whatever happens to the node, until its time is up.")
        .needs(Permission::PushSend)
        .idempotent()
        .takes(openapi::reference("Push"), example())
        .answers(202, "It is accepted.", of::<Accepted>())
        .leads_to("getPush", "id", "/push_id")
        .leads_to("explainPush", "id", "/push_id")
        .header("Location", "Of the push's report.")
        .header("Idempotent-Replayed", "`true` if an earlier request of the same key made it.")
        .may(&of_audiences)
        .may(&[
            Code::QuotaReached,
            Code::PushRateExceeded,
            Code::StoredBytesExceeded,
        ]);
    let validate = Operation::new("validatePush", "Checks a push and does not make it")
        .tells("Says how many devices it would be for and how many of them are connected, and when they would have their turns. Of a large audience the count is an estimate, so that the work is bounded.")
        .needs(Permission::PushSend)
        .changes_nothing()
        .takes(openapi::reference("Push"), example())
        .answers(200, "It would be accepted.", validation::shape())
        .may(&of_audiences);
    let report = Operation::new("getPush", "Reports on a push")
        .tells("`targeted` = `delivered` + `pending` + `expired` + `collapsed` + `recalled` + `dropped` + `failed`.")
        .needs(Permission::Read)
        .answers(200, "What became of it so far.", reports::shape())
        .may(&[Code::InvalidPushId, Code::PushNotFound]);
    let series = Operation::new("getPushSeries", "Receipts of a push over time")
        .tells("New receipts of each stretch that has any, the earliest first: minutes in the first three hours, then hours.")
        .needs(Permission::Read)
        .answers(200, "The stretches.", reports::series_shape())
        .may(&[Code::InvalidPushId, Code::PushNotFound]);
    Routes::of("Pushes", "Making pushes, and what became of them.")
        .get("/v1/apps/{app}/pushes", listing::list, listing::operation())
        .post("/v1/apps/{app}/pushes", self::accept, accept)
        .post(
            "/v1/apps/{app}/pushes:validate",
            validation::validate,
            validate,
        )
        .post(
            "/v1/apps/{app}/pushes:batch",
            batch::accept,
            batch::operation(),
        )
        .get("/v1/apps/{app}/pushes/{id}", reports::report, report)
        .verbs(
            "/v1/apps/{app}/pushes/{id}",
            campaigns::act,
            campaigns::operations(),
        )
        .get("/v1/apps/{app}/pushes/{id}/series", reports::series, series)
        .get(
            "/v1/apps/{app}/pushes/{id}/devices/{device}",
            explanations::explain,
            explanations::operation(),
        )
}

/// The answer to a push.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Accepted {
    push_id: String,
    /// `null`: not counted yet.
    targeted: Option<u64>,
    accepted_at: String,
    expires_at: String,
}

/// A push that was accepted, now or by an earlier request of the same idempotency key.
pub(crate) struct Sent {
    pub id: PushId,
    /// Devices that it is for; `None`: they are counted later.
    pub targeted: Option<u64>,
    accepted_ms: u64,
    expires_ms: u64,
    pub replayed: bool,
}

/// `POST /v1/apps/{app}/pushes`
pub(crate) async fn accept(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let idempotency = idempotency_key(&headers)?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let sent = send(&state, &caller, &body, idempotency).await?;
    let location = format!("/v1/apps/{}/pushes/{}", caller.app, sent.id);
    let mut response = (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        axum::Json(Accepted::of(&sent)),
    )
        .into_response();
    if sent.replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

impl Accepted {
    pub(crate) fn of(sent: &Sent) -> Accepted {
        Accepted {
            push_id: sent.id.to_string(),
            targeted: sent.targeted,
            accepted_at: rfc3339(sent.accepted_ms),
            expires_at: rfc3339(sent.expires_ms),
        }
    }
}

/// Checks and accepts a push; returns once it is durable. One whose time has not come is kept until then.
pub(crate) async fn send(
    state: &ApiState,
    caller: &Caller,
    body: &[u8],
    idempotency: Option<IdempotencyKey>,
) -> Result<Sent, Problem> {
    let request = Request::parse(body, &state.limits())?;
    check_quotas(state, caller).await?;
    let (id, now_ms) = (state.new_id(), state.now_ms());
    let ttl_ms = request.expires_ms(now_ms) - now_ms;
    let idempotency = idempotency.map(|key| key.bind(body, now_ms));
    if let Some(not_before_ms) = request.options.not_before_ms {
        let key = idempotency.clone();
        let kept = schedules::keep_push(state, caller, body, not_before_ms, key).await?;
        if let Some(created) = kept {
            return Sent::kept(created, not_before_ms.saturating_add(ttl_ms));
        }
    }
    let sent = |id, targeted, accepted_ms: u64, replayed| Sent {
        id,
        targeted,
        accepted_ms,
        // Of a replay the body is the same, so the time to live is.
        expires_ms: accepted_ms.saturating_add(ttl_ms),
        replayed,
    };
    let app = &caller.app;
    match hand_in(state, app, id, request, now_ms, idempotency).await? {
        Outcome::Accepted { targeted } => Ok(sent(id, targeted, now_ms, false)),
        Outcome::Replayed {
            id,
            targeted,
            accepted_ms,
        } => Ok(sent(id, targeted, accepted_ms, true)),
        Outcome::KeyReused => Err(key_reused()),
        other @ (Outcome::Done
        | Outcome::Changed { .. }
        | Outcome::Conflict
        | Outcome::Full { .. }) => Err(senseless(app, &other)),
    }
}

/// Refuses a push that is one too many for its app.
async fn check_quotas(state: &ApiState, caller: &Caller) -> Result<(), Problem> {
    let (app, quotas) = (&caller.app, &caller.quotas);
    if let Err(nodes) = admit(state, app, quotas) {
        metrics::counter!("campanile_quota_refusals_total", "quota" => "pushes_per_second")
            .increment(1);
        return Err(Problem::new(
            Code::PushRateExceeded,
            format!(
                "the app may make {} pushes a second, of which each of {nodes} nodes takes its share",
                quotas.pushes_per_second
            ),
        ));
    }
    check_stored(state, app, quotas).await
}

/// Counts one more push of an app against its pushes a second. One too many is not counted: the error is how many nodes have a share.
pub(crate) fn admit(state: &ApiState, app: &AppName, quotas: &Quotas) -> Result<(), u64> {
    if quotas.pushes_per_second == 0 {
        return Ok(());
    }
    let overview = state.cluster().overview();
    let nodes = overview.nodes.iter();
    // A node alone has no generation, and is one all the same.
    let nodes = nodes.filter(|node| node.this || node.generation.is_some());
    let nodes = nodes.count() as u64;
    let rates = state.push_rates();
    match rates.admit(app, quotas.pushes_per_second, nodes, state.now_ms()) {
        true => Ok(()),
        false => Err(nodes),
    }
}

/// Refuses a push while its app keeps as much as it may.
pub(crate) async fn check_stored(
    state: &ApiState,
    app: &AppName,
    quotas: &Quotas,
) -> Result<(), Problem> {
    if quotas.stored_bytes == 0 {
        return Ok(());
    }
    let stored = state.stored(app).await?;
    if stored.bytes < quotas.stored_bytes {
        return Ok(());
    }
    metrics::counter!("campanile_quota_refusals_total", "quota" => "stored_bytes").increment(1);
    Err(Problem::new(
        Code::StoredBytesExceeded,
        format!(
            "the app keeps about {} bytes of messages and may keep {}: wait until some are delivered or have run out, or have the quota raised",
            stored.bytes, quotas.stored_bytes
        ),
    ))
}

impl Sent {
    /// A push that is kept until its time.
    fn kept(created: Created, expires_ms: u64) -> Result<Sent, Problem> {
        let (push, replayed) = match created {
            Created::New(push) => (push, false),
            Created::Before(push) => (push, true),
            Created::KeyReused => return Err(key_reused()),
        };
        Ok(Sent {
            id: push.id,
            targeted: None,
            accepted_ms: push.created_ms,
            expires_ms,
            replayed,
        })
    }
}

/// Has a push accepted, for whom its audience is now.
pub(crate) async fn hand_in(
    state: &ApiState,
    app: &AppName,
    id: PushId,
    request: Request,
    now_ms: u64,
    idempotency: Option<Idempotency>,
) -> Result<Outcome, Problem> {
    // What the audience meant when the first request came may be gone by now, which is no reason to refuse the second.
    if request.audience.self_contained(now_ms).is_none()
        && let Some(key) = idempotency.clone()
    {
        let of = app.clone();
        let answered = state.read(move |reader| reader.answered(&of, &key, now_ms));
        if let Some(outcome) = answered.await? {
            return Ok(outcome);
        }
    }
    let audience = resolve(state, app, &request.audience, now_ms).await?;
    if request.options.callback_url.is_some() {
        watch(state, app).await?;
    }
    campaigns::hand_in(state, app, id, request, audience, now_ms, idempotency).await
}

/// Makes sure that the end of one more push will be told.
async fn watch(state: &ApiState, app: &AppName) -> Result<(), Problem> {
    webhooks::announce(state, app).await?;
    let scope = Scope::App(app.clone());
    let open = state.read(move |reader| {
        // Those whose end is there, and whose address has not taken it yet.
        let to_be_told = reader.count_rows(&scope, Table::Retry)?;
        Ok(reader.count_rows(&scope, Table::Open)? + to_be_told)
    });
    if open.await? < open::MAX_OPEN {
        return Ok(());
    }
    Err(Problem::new(
        Code::QuotaReached,
        format!(
            "the app has {} pushes whose end is still to be told, as many as it may; leave \"callback_url\" out",
            open::MAX_OPEN
        ),
    ))
}

pub(crate) fn key_reused() -> Problem {
    Problem::new(
        Code::IdempotencyKeyReused,
        "a request with another body used this Idempotency-Key within the last 24 hours; use a new key for a new request",
    )
}

/// The store answered a push with the outcome of another command.
pub(crate) fn senseless(app: &AppName, outcome: &Outcome) -> Problem {
    tracing::error!(%app, ?outcome, "the store answered a push with the outcome of another command");
    Problem::internal("the store gave an answer that makes no sense")
}

/// What an audience means now.
pub(crate) async fn resolve(
    state: &ApiState,
    app: &AppName,
    audience: &Audience,
    now_ms: u64,
) -> Result<store::Audience, Problem> {
    // Most say it all; those cost no read.
    if let Some(audience) = audience.self_contained(now_ms) {
        return Ok(audience);
    }
    let (app, audience) = (app.clone(), audience.clone());
    state
        .ask(move |context| audiences::resolve(context, &app, &audience, now_ms))
        .await
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match IdempotencyKey::new(value.as_bytes()) {
            Ok(key) => Ok(Some(key)),
            Err(bad) => Err(Problem::new(Code::InvalidIdempotencyKey, bad.to_string())),
        },
        (Some(_), Some(_)) => Err(Problem::new(
            Code::InvalidIdempotencyKey,
            "there is more than one Idempotency-Key header",
        )),
    }
}

pub(crate) fn push_id(id: &str) -> Result<PushId, Problem> {
    id.parse()
        .map_err(|bad: BadPushId| Problem::new(Code::InvalidPushId, bad.to_string()))
}

pub(crate) fn no_such_push() -> Problem {
    Problem::new(
        Code::PushNotFound,
        "the app has no push of that id, or its report is no longer kept",
    )
}
