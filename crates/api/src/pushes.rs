//! `/v1/apps/{app}/pushes`: accepting pushes and reporting on them.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    audience::Audience,
    campaign::{Ended, How},
    funnel::Funnel,
    id::{BadPushId, PushId},
    idempotency::IdempotencyKey,
    info::Info,
    options::Receipts,
    receipt::{DropReason, FailReason, Mark},
    registry::{
        self, audiences, campaigns::Standing, open, permission::Permission, schedules::Created,
    },
    request::{Limits, Request},
    rows::{Scope, Table},
    schedule::Schedule,
    series::Point,
    store::{self, Idempotency, Outcome, Report},
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    batch,
    body::{self, JsonBody},
    campaigns, explanations, listing,
    openapi::{self, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    schedules, webhooks,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A push's report, to the document.
pub(crate) fn report_shape() -> openapi::Content {
    of::<Reported>()
}

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
        .needs(Permission::PushSend)
        .changes_nothing()
        .takes(openapi::reference("Push"), example())
        .answers(200, "It would be accepted.", of::<Valid>())
        .may(&of_audiences);
    let report = Operation::new("getPush", "Reports on a push")
        .tells("`targeted` = `delivered` + `pending` + `expired` + `collapsed` + `dropped`.")
        .needs(Permission::Read)
        .answers(200, "What became of it so far.", of::<Reported>())
        .may(&[Code::InvalidPushId, Code::PushNotFound]);
    let series = Operation::new("getPushSeries", "Receipts of a push over time")
        .tells("New receipts of each stretch that has any, the earliest first: minutes in the first three hours, then hours.")
        .needs(Permission::Read)
        .answers(200, "The stretches.", of::<ShownSeries>())
        .may(&[Code::InvalidPushId, Code::PushNotFound]);
    Routes::of("Pushes", "Making pushes, and what became of them.")
        .get("/v1/apps/{app}/pushes", listing::list, listing::operation())
        .post("/v1/apps/{app}/pushes", self::accept, accept)
        .post("/v1/apps/{app}/pushes:validate", self::validate, validate)
        .post(
            "/v1/apps/{app}/pushes:batch",
            batch::accept,
            batch::operation(),
        )
        .get("/v1/apps/{app}/pushes/{id}", self::report, report)
        .verbs(
            "/v1/apps/{app}/pushes/{id}",
            campaigns::act,
            campaigns::operations(),
        )
        .get("/v1/apps/{app}/pushes/{id}/series", self::series, series)
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
    let (app, quotas) = (&caller.app, caller.quotas);
    if quotas.pushes_per_second > 0 {
        let overview = state.cluster().overview();
        let nodes = overview.nodes.iter();
        // A node alone has no generation, and is one all the same.
        let nodes = nodes.filter(|node| node.this || node.generation.is_some());
        let nodes = nodes.count() as u64;
        let rates = state.push_rates();
        if !rates.admit(app, quotas.pushes_per_second, nodes, state.now_ms()) {
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
    }
    if quotas.stored_bytes > 0 {
        let stored = state.stored(app).await?;
        if stored.bytes >= quotas.stored_bytes {
            metrics::counter!("campanile_quota_refusals_total", "quota" => "stored_bytes")
                .increment(1);
            return Err(Problem::new(
                Code::StoredBytesExceeded,
                format!(
                    "the app keeps about {} bytes of messages and may keep {}: wait until some are delivered or have run out, or have the quota raised",
                    stored.bytes, quotas.stored_bytes
                ),
            ));
        }
    }
    Ok(())
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

/// What `POST /v1/apps/{app}/pushes:validate` found.
#[derive(Serialize, JsonSchema)]
struct Valid {
    valid: bool,
    /// Bytes of `notification` and `data` that count against the limit.
    payload_bytes: usize,
}

/// `POST /v1/apps/{app}/pushes:validate`: checks a push as if it were sent, its audience too, and does nothing.
pub(crate) async fn validate(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let app = caller.app;
    check(&state, &app, &body)
        .await
        .map(|valid| axum::Json(valid).into_response())
}

async fn check(state: &ApiState, app: &AppName, body: &[u8]) -> Result<Valid, Problem> {
    let request = Request::parse(body, &state.limits())?;
    resolve(state, app, &request.audience, state.now_ms()).await?;
    Ok(Valid {
        valid: true,
        payload_bytes: request.content.len(),
    })
}

/// Checks a push without sending it.
pub(crate) async fn dry_run(state: &ApiState, app: &AppName, body: &[u8]) -> Result<(), Problem> {
    check(state, app, body).await.map(drop)
}

/// What an audience means now.
async fn resolve(
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

/// What became of a push so far.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Report")]
struct Reported {
    push_id: String,
    status: Status,
    /// The push whose collapse key took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    collapsed_by: Option<String>,
    /// This, `pending` and `expired` are `null` while the devices are being counted, and so are `recalled` and `collapsed`.
    targeted: Option<u64>,
    delivered: u64,
    pending: Option<u64>,
    expired: Option<u64>,
    recalled: Option<u64>,
    collapsed: Option<u64>,
    dropped: u64,
    /// The same by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    dropped_by: BTreeMap<DropReason, u64>,
    failed: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    failed_by: BTreeMap<FailReason, u64>,
    /// Of the delivered, as far as the devices told: this, and of these the two that follow. `null` where the push does not ask for it.
    displayed: Option<u64>,
    clicked: Option<u64>,
    dismissed: Option<u64>,
    accepted_at: String,
    expires_at: String,
    #[serde(flatten)]
    info: ShownInfo,
}

/// What the sender of a push wants to find again.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ShownInfo {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<String>,
    /// Which are asked for; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<Vec<&'static str>>,
}

impl From<Info> for ShownInfo {
    fn from(info: Info) -> ShownInfo {
        let wanted = info.receipts;
        let names = [
            ("displayed", wanted.displayed),
            ("clicked", wanted.clicked),
            ("dismissed", wanted.dismissed),
        ];
        let names = names.into_iter().filter(|(_, wanted)| *wanted);
        let receipts = std::iter::once("delivered").chain(names.map(|(name, _)| name));
        ShownInfo {
            labels: info.labels,
            external_id: info.external_id,
            callback_url: info.callback_url,
            receipts: (wanted != Receipts::default()).then(|| receipts.collect()),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Its time, `not_before`, has not come.
    Scheduled,
    /// Its devices are being counted: its pace follows from that.
    Preparing,
    /// Some device may still get it.
    Active,
    /// Nobody gets it until it is resumed.
    Paused,
    /// The same: it stopped by itself, as too many devices failed.
    Halted,
    /// It ended before its time: it was cancelled, or devices were told to withdraw it, too.
    Cancelled,
    /// See there.
    Recalled,
    /// A newer push of its collapse key took its place.
    Collapsed,
    /// The figures are final.
    Done,
}

/// `GET /v1/apps/{app}/pushes/{id}`
pub(crate) async fn report(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app;
    if id.contains(':') {
        // What can be done with a push is not there to be read.
        return Err(no_such_push());
    }
    show(&state, &app, push_id(&id)?).await
}

/// How a push stands.
pub(crate) async fn show(state: &ApiState, app: &AppName, id: PushId) -> Result<Response, Problem> {
    let of = app.clone();
    let found = state.look(move |context| registry::campaigns::report(context, &of, id));
    if let Some((report, standing)) = found.await? {
        if let Err(difference) = report.funnel().check(report.targeted) {
            tracing::warn!(push_id = %id, %difference, "the figures of a push do not add up");
        }
        return Ok(axum::Json(Reported::new(id, &report, standing)).into_response());
    }
    match schedules::waiting_push(state, app.clone(), id).await? {
        Some(push) => {
            let waiting = Reported::waiting(&push, &state.limits());
            Ok(axum::Json(waiting).into_response())
        }
        None => Err(no_such_push()),
    }
}

/// New receipts of a stretch of time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SeriesPoint")]
struct ShownPoint {
    from: String,
    seconds: u64,
    delivered: u64,
    displayed: u64,
    clicked: u64,
    dismissed: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Series")]
struct ShownSeries {
    push_id: String,
    accepted_at: String,
    points: Vec<ShownPoint>,
}

/// `GET /v1/apps/{app}/pushes/{id}/series`
pub(crate) async fn series(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app;
    let id = push_id(&id)?;
    let now_ms = state.now_ms();
    let found = state.read(move |reader| {
        let report = reader.report(&app, id, now_ms)?;
        Ok((report, reader.series(&app, id)?))
    });
    let (Some(report), series) = found.await? else {
        return Err(no_such_push());
    };
    let point = |point: Point| {
        let count = |mark| point.counts.get(&mark).copied().unwrap_or_default();
        ShownPoint {
            from: rfc3339(report.accepted_ms.saturating_add(point.from_ms)),
            seconds: point.width_ms / 1000,
            delivered: count(Mark::Delivered),
            displayed: count(Mark::Displayed),
            clicked: count(Mark::Clicked),
            dismissed: count(Mark::Dismissed),
        }
    };
    let shown = ShownSeries {
        push_id: id.to_string(),
        accepted_at: rfc3339(report.accepted_ms),
        points: series.points().into_iter().map(point).collect(),
    };
    Ok(axum::Json(shown).into_response())
}

/// What a callback address is told in the end.
pub(crate) fn report_json(id: PushId, report: &Report, standing: Standing) -> String {
    let reported = Reported::new(id, report, standing);
    serde_json::to_string(&reported).expect("it has only string keys")
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

impl Reported {
    /// Of a push whose time has not come: who it is for is decided then.
    fn waiting(push: &Schedule, limits: &Limits) -> Reported {
        // It was read before, by the limits of then.
        let request = Request::parse(push.push.as_bytes(), limits).ok();
        let runs_ms = push.due_ms().unwrap_or(push.created_ms);
        let info = request
            .as_ref()
            .map(|request| Info::of(&request.options))
            .unwrap_or_default();
        let expires_ms = request.map_or(runs_ms, |request| request.expires_ms(runs_ms));
        Reported {
            push_id: push.id.to_string(),
            status: Status::Scheduled,
            collapsed_by: None,
            targeted: None,
            delivered: 0,
            displayed: info.receipts.displayed.then_some(0),
            clicked: info.receipts.clicked.then_some(0),
            dismissed: info.receipts.dismissed.then_some(0),
            pending: None,
            expired: None,
            recalled: None,
            collapsed: None,
            dropped: 0,
            dropped_by: BTreeMap::new(),
            failed: 0,
            failed_by: BTreeMap::new(),
            accepted_at: rfc3339(push.created_ms),
            expires_at: rfc3339(expires_ms),
            info: info.into(),
        }
    }

    fn new(id: PushId, report: &Report, standing: Standing) -> Reported {
        let counted = |figure: u64| (!report.counting).then_some(figure);
        let Funnel {
            dropped, failed, ..
        } = report.funnel();
        let goes_on = report.pending > 0 || report.counting;
        // Without it the report is worth showing, too.
        let info = Info::decode(&report.info).unwrap_or_default();
        let wanted = info.receipts;
        Reported {
            push_id: id.to_string(),
            status: match standing {
                Standing::Ended(Ended { how, .. }) => match how {
                    How::Cancelled => Status::Cancelled,
                    How::Recalled => Status::Recalled,
                    How::Collapsed(_) => Status::Collapsed,
                },
                _ if !goes_on => Status::Done,
                Standing::Preparing => Status::Preparing,
                Standing::Paused => Status::Paused,
                Standing::Halted => Status::Halted,
                Standing::Running | Standing::Plain => Status::Active,
            },
            collapsed_by: match standing {
                Standing::Ended(Ended {
                    how: How::Collapsed(by),
                    ..
                }) => Some(by.to_string()),
                _ => None,
            },
            targeted: counted(report.targeted),
            delivered: report.delivered,
            pending: counted(report.pending),
            expired: counted(report.expired),
            recalled: counted(report.recalled),
            collapsed: counted(report.collapsed),
            dropped: dropped.values().sum(),
            dropped_by: dropped,
            failed: failed.values().sum(),
            failed_by: failed,
            displayed: wanted.displayed.then_some(report.displayed),
            clicked: wanted.clicked.then_some(report.clicked),
            dismissed: wanted.dismissed.then_some(report.dismissed),
            accepted_at: rfc3339(report.accepted_ms),
            expires_at: rfc3339(report.expires_ms),
            info: info.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_counted_is_null() {
        let id = PushId(7);
        let shown = |counting| {
            let report = Report {
                targeted: 3,
                delivered: 2,
                expired: 1,
                counting,
                ..Report::default()
            };
            let shown = serde_json::to_value(Reported::new(id, &report, Standing::Plain)).unwrap();
            let figures = ["targeted", "delivered", "pending", "expired", "status"];
            figures.map(|figure| shown[figure].clone())
        };
        let json = |figures: &str| serde_json::from_str::<[serde_json::Value; 5]>(figures).unwrap();
        assert_eq!(shown(true), json(r#"[null, 2, null, null, "active"]"#));
        assert_eq!(shown(false), json(r#"[3, 2, 0, 1, "done"]"#));
    }
}
