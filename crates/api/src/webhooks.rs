//! `/v1/apps/{app}/webhooks`: where an app wants to be told what happens; and the secret of its callbacks.

use axum::{
    body::Body,
    extract::{RawQuery, State},
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
    webhook::{Change, MAX_WEBHOOKS, Secret, Webhook, WebhookId, courier::DeadLetter, replay_list},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use crate::{
    ApiState,
    auth::Caller,
    body::{self, JsonBody},
    keys,
    openapi::{Content, Operation, Routes, named, of, reference},
    outgoing::{self, Post},
    path::InPath,
    problem::{Code, Problem},
    query::Paging,
};

/// The routes of webhooks, and of the secret of callbacks.
pub(crate) fn routes() -> Routes {
    const ALL: &str = "/v1/apps/{app}/webhooks";
    const ONE: &str = "/v1/apps/{app}/webhooks/{id}";
    let list = Operation::new("listWebhooks", "Lists webhooks")
        .tells("By their ids, without their secrets.")
        .needs(Permission::Read)
        .paged_by_id()
        .answers(200, "A page of webhooks.", named("Webhooks"));
    let create = Operation::new("createWebhook", "Makes a webhook")
        .tells(&format!(
            "It is told what happens from then on. An app has at most {MAX_WEBHOOKS}."
        ))
        .needs(Permission::Admin)
        .takes(
            reference("WebhookRequest"),
            json!({"url": "https://example.com/campanile", "events": ["push.clicked", "device.*"]}),
        )
        .answers(201, "The webhook, with its secret.", named("Webhook"))
        .header("Location", "Of the webhook.")
        .leads_to("getWebhook", "id", "/id")
        .leads_to("changeWebhook", "id", "/id")
        .leads_to("rotateWebhook", "id", "/id")
        .leads_to("listDeadLetters", "id", "/id")
        .leads_to("deleteWebhook", "id", "/id")
        .may(&[Code::QuotaReached]);
    let show = Operation::new("getWebhook", "Shows a webhook")
        .needs(Permission::Read)
        .answers(200, "The webhook, without its secret.", named("Webhook"))
        .may(&[Code::Missing]);
    let change = Operation::new("changeWebhook", "Changes a webhook")
        .tells("Only what the body names. A new address, or `active`, gives one that was switched off a new chance.")
        .needs(Permission::Admin)
        .takes(reference("WebhookChange"), json!({"state": "paused"}))
        .answers(200, "The webhook as it is now.", named("Webhook"))
        .may(&[Code::Missing]);
    let delete = Operation::new("deleteWebhook", "Removes a webhook")
        .tells("With all that was still to be told, and its dead letters.")
        .needs(Permission::Admin)
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing]);
    let rotate = Operation::new("rotateWebhook", "Gives a webhook a new secret")
        .tells("For a day the secret before signs, too.")
        .needs(Permission::Admin)
        .answers(200, "The webhook, with its new secret.", named("Webhook"))
        .may(&[Code::Missing]);
    let test = Operation::new("testWebhook", "Sends an event of no meaning")
        .tells("Once, of the type `webhook.test`.")
        .needs(Permission::Admin)
        .changes_nothing()
        .answers(200, "What came of it.", of::<Tested>())
        .may(&[Code::Missing]);
    let verbs = [("rotate", rotate), ("test", test)];
    let dead = Operation::new("listDeadLetters", "Lists what was given up")
        .tells("The oldest first.")
        .needs(Permission::Read)
        .paged_by_id()
        .answers(200, "A page of dead letters.", of::<DeadLetters<'_>>())
        .may(&[Code::Missing]);
    let replay = Operation::new("replayDeadLetters", "Takes dead letters up again")
        .tells("Those that are not there are passed over.")
        .needs(Permission::Admin)
        .takes(
            reference("Replay"),
            json!({"ids": ["01KAR0M4G0ZJ9QX6T5V8C2N3B7"]}),
        )
        .answers(200, "How many it took.", of::<Replayed>())
        .may(&[Code::Missing]);
    let secret = Operation::new(
        "getCallbackSecret",
        "What signs requests to callback addresses",
    )
    .tells("It is made when it is asked for first.")
    .needs(Permission::Admin)
    .answers(200, "The secret.", of::<CallbackSecret>())
    .may(&[Code::OutcomeUnknown]);
    let rotate_secret = Operation::new("rotateCallbackSecret", "Gives callbacks a new secret")
        .tells("For a day the secret before signs, too.")
        .needs(Permission::Admin)
        .answers(200, "The new secret.", of::<CallbackSecret>());
    Routes::of(
        "Webhooks",
        "Where an app wants to be told what happens; and the secret of callbacks.",
    )
    .get(ALL, self::list, list)
    .post(ALL, self::create, create)
    .get(ONE, self::show, show)
    .patch(ONE, self::change, change)
    .delete(ONE, self::delete, delete)
    .verbs(ONE, act, verbs)
    .get(
        "/v1/apps/{app}/webhooks/{id}/dead-letters",
        dead_letters,
        dead,
    )
    .post(
        "/v1/apps/{app}/webhooks/{id}/dead-letters:replay",
        self::replay,
        replay,
    )
    .get("/v1/apps/{app}/callback-secret", callback_secret, secret)
    .post(
        "/v1/apps/{app}/callback-secret:rotate",
        rotate_callback_secret,
        rotate_secret,
    )
}

/// `GET /v1/apps/{app}/webhooks`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
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
    Ok(written(StatusCode::OK, text))
}

/// `POST /v1/apps/{app}/webhooks`
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, state.config()).await?;
    let plain = state.config().webhooks.allow_http;
    let id = EventId(state.new_id().0);
    let secret = Secret::from_random(keys::random()?);
    let webhook = Webhook::create(&body, plain, id, secret, state.now_ms())?;
    announce(&state, &caller.app).await?;
    let (app, kept) = (caller.app.clone(), webhook.clone());
    let plan = move |context: &Context<'_>| webhooks::create(context, &app, &kept);
    state.carry_out(caller.actor(), plan).await?;
    let mut response = written(StatusCode::CREATED, webhook.to_json(true));
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
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let webhook = get(&state, &caller, &id).await?;
    Ok(written(StatusCode::OK, webhook.to_json(false)))
}

async fn get(state: &ApiState, caller: &Caller, id: &str) -> Result<Webhook, Problem> {
    let (app, id) = (caller.app.clone(), canonical(id)?);
    let found = state.ask(move |context| webhooks::get(context, &app, &id));
    Ok(found.await?.0)
}

/// `PATCH /v1/apps/{app}/webhooks/{id}`
pub(crate) async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = canonical(&id)?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let change = Change::parse(&body, state.config().webhooks.allow_http)?;
    let webhook = edit(&state, &caller, id, Edit::Fields(change)).await?;
    Ok(written(StatusCode::OK, webhook.to_json(false)))
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
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (id, actor) = (canonical(&id)?, caller.actor());
    let plan = move |context: &Context<'_>| webhooks::delete(context, &caller.app, &id);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/apps/{app}/webhooks/{id}:rotate`, `:test`
pub(crate) async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, target)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let (id, action) = target.split_once(':').unwrap_or((&target, ""));
    match action {
        "rotate" => {
            let secret = Secret::from_random(keys::random()?);
            let edited = edit(&state, &caller, canonical(id)?, Edit::Rotate(secret));
            Ok(written(StatusCode::OK, edited.await?.to_json(true)))
        }
        "test" => test(&state, &caller, id).await,
        _ => Err(Problem::new(
            Code::NotFound,
            "what can be done with a webhook here is \":rotate\" and \":test\"",
        )),
    }
}

/// What came of a test.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WebhookTest")]
struct Tested {
    /// Whether the receiver took it.
    taken: bool,
    /// The receiver's, or why there is none.
    answer: String,
    elapsed_ms: u64,
}

/// Sends one event of no meaning, once, and says what came of it.
async fn test(state: &ApiState, caller: &Caller, id: &str) -> Result<Response, Problem> {
    let webhook = get(state, caller, id).await?;
    let now_ms = state.now_ms();
    let body = json!({
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
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct Shown<'d> {
    #[schemars(with = "String")]
    id: EventId,
    /// What was to be sent: an event, or a push's report.
    #[schemars(with = "serde_json::Value")]
    event: Box<RawValue>,
    /// The callback address.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'d str>,
    reason: &'static str,
    attempts: u32,
    last_answer: &'d str,
    dead_at: String,
}

#[derive(Serialize, JsonSchema)]
struct DeadLetters<'d> {
    dead_letters: Vec<Shown<'d>>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /v1/apps/{app}/webhooks/{id}/dead-letters`
pub(crate) async fn dead_letters(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let of = canonical(&id)?;
    let paging = Paging::parse(text.as_deref())?;
    let after: Option<EventId> = paging.after_id()?;
    let page = state
        .ask(move |context| webhooks::dead_letters(context, &caller.app, &of, after, paging.limit));
    let (page, more) = page.await?;
    let next = page.last().filter(|_| more);
    let letters = DeadLetters {
        dead_letters: page.iter().map(shown).collect(),
        next: next.map(|last| last.parcel.id.to_string()),
    };
    Ok(axum::Json(letters).into_response())
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

#[derive(Serialize, JsonSchema)]
struct Replayed {
    replayed: u64,
}

/// `POST /v1/apps/{app}/webhooks/{id}/dead-letters:replay`
pub(crate) async fn replay(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let of = canonical(&id)?;
    let ids = replay_list(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| webhooks::replay(context, &caller.app, &of, &ids);
    let replayed = state.carry_out(actor, plan).await?;
    Ok(axum::Json(Replayed { replayed }).into_response())
}

#[derive(Serialize, JsonSchema)]
struct CallbackSecret {
    secret: String,
}

/// `GET /v1/apps/{app}/callback-secret`
pub(crate) async fn callback_secret(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Response, Problem> {
    let (random, actor) = (keys::random()?, caller.actor());
    let plan = move |context: &Context<'_>| webhooks::callback_signer(context, &caller.app, random);
    let signer = state.carry_out(actor, plan).await?;
    Ok(secret(&signer))
}

/// `POST /v1/apps/{app}/callback-secret:rotate`
pub(crate) async fn rotate_callback_secret(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Response, Problem> {
    let (random, actor) = (keys::random()?, caller.actor());
    let plan =
        move |context: &Context<'_>| webhooks::rotate_callback_secret(context, &caller.app, random);
    let signer = state.carry_out(actor, plan).await?;
    Ok(secret(&signer))
}

fn secret(signer: &Webhook) -> Response {
    let secret = signer.secret.reveal().to_owned();
    axum::Json(CallbackSecret { secret }).into_response()
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

fn written(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
