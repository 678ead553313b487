//! `/v1/apps/{app}/webhooks`: where an app wants to be told what happens; and the secret of its callbacks.

use axum::{
    body::Body,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    event::EventId,
    registry::{
        Context,
        permission::Permission,
        webhooks::{self, CALLBACKS, Edit},
    },
    time::rfc3339,
    webhook::{Change, Secret, Webhook, WebhookId, courier::DeadLetter, replay_list},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    ApiState,
    auth::{self, Caller},
    body, keys,
    outgoing::{self, Post},
    problem::{Code, Problem},
    query::Paging,
    routes::path_problem,
};

/// `GET /v1/apps/{app}/webhooks`
pub(crate) async fn list(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
    let paging = Paging::parse(text.as_deref())?;
    let after: Option<WebhookId> = paging.after_id()?;
    let all = state
        .look(move |context| webhooks::list(context, &caller.app))
        .await?;
    let mut rest = all
        .into_iter()
        .map(|(webhook, _)| webhook)
        .filter(|webhook| after.is_none_or(|after| webhook.id > after));
    let page: Vec<Webhook> = rest.by_ref().take(paging.limit).collect();
    let next = page.last().filter(|_| rest.next().is_some());
    let next = next.map_or(String::new(), |last| format!(",\"next\":\"{}\"", last.id));
    let shown: Vec<String> = page.iter().map(|webhook| webhook.to_json(false)).collect();
    let text = format!("{{\"webhooks\":[{}]{next}}}", shown.join(","));
    Ok(json(StatusCode::OK, text))
}

/// `POST /v1/apps/{app}/webhooks`
pub(crate) async fn create(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let plain = state.config().webhooks.allow_http;
    let id = EventId(state.new_id().0);
    let secret = Secret::from_random(keys::random()?);
    let webhook = Webhook::create(&body, plain, id, secret, state.now_ms())?;
    announce(&state, &caller.app).await?;
    let (app, kept) = (caller.app.clone(), webhook.clone());
    let plan = move |context: &Context<'_>| webhooks::create(context, &app, &kept);
    state.carry_out(caller.actor(), plan).await?;
    let mut response = json(StatusCode::CREATED, webhook.to_json(true));
    let location = format!("/v1/apps/{}/webhooks/{}", caller.app, webhook.id);
    let location = location.parse().expect("names and ids are plain text");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Lets the node that leads know that somebody of this app is to be told something.
pub(crate) async fn announce(state: &ApiState, app: &AppName) -> Result<(), Problem> {
    let app = app.clone();
    let plan = move |context: &Context<'_>| webhooks::announce(context, &app);
    state.carry_out("api".to_owned(), plan).await
}

/// `GET /v1/apps/{app}/webhooks/{id}`
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
    let webhook = get(&state, &caller, &id).await?;
    Ok(json(StatusCode::OK, webhook.to_json(false)))
}

async fn get(state: &ApiState, caller: &Caller, id: &str) -> Result<Webhook, Problem> {
    let (app, id) = (caller.app.clone(), canonical(id)?);
    let found = state.ask(move |context| webhooks::get(context, &app, &id));
    Ok(found.await?.0)
}

/// `PATCH /v1/apps/{app}/webhooks/{id}`
pub(crate) async fn change(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let id = canonical(&id)?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let change = Change::parse(&body, state.config().webhooks.allow_http)?;
    let webhook = edit(&state, &caller, id, Edit::Fields(change)).await?;
    Ok(json(StatusCode::OK, webhook.to_json(false)))
}

async fn edit(
    state: &ApiState,
    caller: &Caller,
    id: String,
    edit: Edit,
) -> Result<Webhook, Problem> {
    let app = caller.app.clone();
    let plan = move |context: &Context<'_>| webhooks::edit(context, &app, &id, &edit);
    state.carry_out(caller.actor(), plan).await
}

/// `DELETE /v1/apps/{app}/webhooks/{id}`
pub(crate) async fn delete(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let (id, actor) = (canonical(&id)?, caller.actor());
    let plan = move |context: &Context<'_>| webhooks::delete(context, &caller.app, &id);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/apps/{app}/webhooks/{id}:rotate`, `:test`
pub(crate) async fn act(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, target)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let (id, action) = target.split_once(':').unwrap_or((&target, ""));
    match action {
        "rotate" => {
            let secret = Secret::from_random(keys::random()?);
            let edited = edit(&state, &caller, canonical(id)?, Edit::Rotate(secret));
            Ok(json(StatusCode::OK, edited.await?.to_json(true)))
        }
        "test" => test(&state, &caller, id).await,
        _ => Err(Problem::new(
            Code::NotFound,
            "what can be done with a webhook here is \":rotate\" and \":test\"",
        )),
    }
}

/// What came of a test.
#[derive(Serialize)]
struct Tested {
    /// Whether the receiver took it.
    taken: bool,
    answer: String,
    elapsed_ms: u64,
}

/// Sends one event of no meaning, once, and says what came of it.
async fn test(state: &ApiState, caller: &Caller, id: &str) -> Result<Response, Problem> {
    let webhook = get(state, caller, id).await?;
    let now_ms = state.now_ms();
    let body = serde_json::json!({
        "id": EventId(state.new_id().0),
        "app": caller.app.as_str(),
        "time": rfc3339(now_ms),
        "type": "webhook.test",
    });
    let url = webhook.url.to_string();
    let post = Post::signed(&webhook, url, body.to_string(), now_ms);
    let timeout = state.config().webhooks.timeout();
    let (answered, elapsed) = outgoing::send(&state.outgoing(), post, timeout).await;
    let tested = Tested {
        taken: answered.answer.meaning() == campanile_push::webhook::delivery::Meaning::Taken,
        answer: answered.detail,
        elapsed_ms: elapsed.as_millis() as u64,
    };
    Ok(axum::Json(tested).into_response())
}

/// A dead letter as callers see it.
#[derive(Serialize)]
struct Shown<'d> {
    id: EventId,
    /// What was to be sent.
    event: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'d str>,
    reason: &'static str,
    attempts: u32,
    last_answer: &'d str,
    dead_at: String,
}

/// `GET /v1/apps/{app}/webhooks/{id}/dead-letters`
pub(crate) async fn dead_letters(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
    let of = canonical(&id)?;
    let paging = Paging::parse(text.as_deref())?;
    let after: Option<EventId> = paging.after_id()?;
    let page = state
        .ask(move |context| webhooks::dead_letters(context, &caller.app, &of, after, paging.limit));
    let (page, more) = page.await?;
    let shown: Vec<Shown<'_>> = page.iter().map(shown).collect();
    let next = page.last().filter(|_| more).map(|last| last.parcel.id);
    let mut document = serde_json::json!({"dead_letters": shown});
    if let Some(next) = next {
        document["next"] = next.to_string().into();
    }
    Ok(axum::Json(document).into_response())
}

fn shown(dead: &DeadLetter) -> Shown<'_> {
    let nothing = || RawValue::from_string("null".to_owned()).expect("it is JSON");
    Shown {
        id: dead.parcel.id,
        event: RawValue::from_string(dead.parcel.body.clone()).unwrap_or_else(|_| nothing()),
        url: dead.parcel.url.as_deref(),
        reason: dead.death.text(),
        attempts: dead.attempts,
        last_answer: &dead.last,
        dead_at: rfc3339(dead.dead_ms),
    }
}

/// `POST /v1/apps/{app}/webhooks/{id}/dead-letters:replay`
pub(crate) async fn replay(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let of = canonical(&id)?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let ids = replay_list(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| webhooks::replay(context, &caller.app, &of, &ids);
    let count = state.carry_out(actor, plan).await?;
    Ok(axum::Json(serde_json::json!({"replayed": count})).into_response())
}

/// `GET /v1/apps/{app}/callback-secret`
pub(crate) async fn callback_secret(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let (random, actor) = (keys::random()?, caller.actor());
    let plan = move |context: &Context<'_>| webhooks::callback_signer(context, &caller.app, random);
    let signer = state.carry_out(actor, plan).await?;
    Ok(secret(&signer))
}

/// `POST /v1/apps/{app}/callback-secret:rotate`
pub(crate) async fn rotate_callback_secret(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Admin).await?;
    let (random, actor) = (keys::random()?, caller.actor());
    let plan =
        move |context: &Context<'_>| webhooks::rotate_callback_secret(context, &caller.app, random);
    let signer = state.carry_out(actor, plan).await?;
    Ok(secret(&signer))
}

fn secret(signer: &Webhook) -> Response {
    let document = serde_json::json!({"secret": signer.secret.reveal()});
    axum::Json(document).into_response()
}

/// The one spelling under which a webhook is kept.
fn canonical(id: &str) -> Result<String, Problem> {
    if id == CALLBACKS {
        return Ok(id.to_owned());
    }
    let parsed: Result<WebhookId, _> = id.parse();
    parsed
        .map(|id| id.to_string())
        .map_err(|_| Problem::new(Code::Missing, format!("there is no webhook {id:?}")))
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
