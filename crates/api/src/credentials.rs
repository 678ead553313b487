//! What devices prove with who they are, and what they may do then: `/v1/apps/{app}/devices/{device}:token`, `/v1/apps/{app}/device-keys` and
//! `/v1/apps/{app}/device-rules`; and the end of a device's connection.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    registry::{
        Context, apps,
        device_keys::{self, DeviceKeyRecord, MAX_KEYS, NewDeviceKey},
        device_rules::{self, DeviceRules},
        devices,
        permission::Permission,
        tokens::{self, DeviceToken},
    },
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    body::{self, JsonBody},
    keys,
    openapi::{Content, Operation, Routes, named, of, reference},
    path::InPath,
    problem::{Code, Problem},
};

/// The routes of credentials.
pub(crate) fn routes() -> Routes {
    const KEYS: &str = "/v1/apps/{app}/device-keys";
    const RULES: &str = "/v1/apps/{app}/device-rules";
    let token = Operation::new("makeDeviceToken", "Gives a device a token")
        .tells("Registered or not. It is the device's password in MQTT, and is shown this once.")
        .needs(Permission::DeviceWrite)
        .takes_optional(keys::grace(), json!({"grace": 3600}))
        .answers(201, "The token. It is not shown again.", of::<Made>())
        .leads_to("revokeDeviceToken", "device", "/device")
        .may(&[Code::Missing, Code::QuotaReached]);
    let kick = Operation::new("kickDevice", "Closes a device's connection")
        .tells("It may come back at once.")
        .needs(Permission::DeviceWrite)
        .changes_nothing()
        .may(&[
            Code::IncompleteBody,
            Code::BodyTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::InvalidField,
        ])
        .answers(200, "What became of it.", of::<Kicked>());
    let revoke = Operation::new("revokeDeviceToken", "Ends a device's token")
        .tells("The one before it too, and its connection.")
        .needs(Permission::DeviceWrite)
        .answers(204, "It is ended.", Content::None)
        .may(&[Code::Missing, Code::InvalidField]);
    let list = Operation::new("listDeviceKeys", "Lists the keys that sign for devices")
        .needs(Permission::Admin)
        .answers(200, "All of them, without secrets.", of::<List>());
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJhvYHzqxPP9MJnDphWOS2pmiz2CBIzexXwk0EUPHGNY=\n-----END PUBLIC KEY-----\n";
    let add = Operation::new("addDeviceKey", "Adds a key that signs for devices")
        .tells(&format!("An app has at most {MAX_KEYS}."))
        .needs(Permission::Admin)
        .takes(
            reference("DeviceKeyRequest"),
            json!({"kid": "2026-11", "algorithm": "EdDSA", "public_key": pem}),
        )
        .answers(201, "The key, without its secret.", of::<Shown>())
        .leads_to("removeDeviceKey", "kid", "/kid")
        .may(&[Code::Exists, Code::QuotaReached]);
    let remove = Operation::new("removeDeviceKey", "Removes a key that signs for devices")
        .tells(
            "What it has signed proves nothing any more; connections that were made with it stay.",
        )
        .needs(Permission::Admin)
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing]);
    let rules = Operation::new("getDeviceRules", "What devices may do")
        .needs(Permission::Read)
        .answers(200, "The rules.", named("DeviceRules"));
    let set_rules = Operation::new("setDeviceRules", "Says what devices may do")
        .tells("What the body does not name is as without a setting.")
        .needs(Permission::Admin)
        .takes(
            reference("DeviceRulesRequest"),
            json!({"publish": ["devices/{client}/#"], "subscribe": ["users/{user}/#"], "tags": ["beta"]}),
        )
        .answers(200, "The rules.", named("DeviceRules"));
    Routes::of(
        "Credentials",
        "What devices prove with who they are, and what they may do then.",
    )
    .verbs(
        "/v1/apps/{app}/devices/{device}",
        act,
        [("token", token), ("kick", kick)],
    )
    .delete(
        "/v1/apps/{app}/devices/{device}/token",
        self::revoke,
        revoke,
    )
    .get(KEYS, list_keys, list)
    .post(KEYS, add_key, add)
    .delete("/v1/apps/{app}/device-keys/{kid}", remove_key, remove)
    .get(RULES, self::rules, rules)
    .put(RULES, self::set_rules, set_rules)
}

/// A device's token: the only time that it is shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeviceToken")]
struct Made {
    device: String,
    token: String,
    /// Absent if the device had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_valid_until: Option<String>,
}

/// What became of a connection.
#[derive(Serialize, JsonSchema)]
struct Kicked {
    /// Whether there was one.
    kicked: bool,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Nodes that did not answer in time: it may be there still.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

/// `POST /v1/apps/{app}/devices/{device}:token` and `:kick`
pub(crate) async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, target)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read(&headers, body, state.config()).await?;
    if !body.is_empty() {
        body::check_type(&headers)?;
    }
    if let Some(device) = target.strip_suffix(":token") {
        return issue(&state, caller, device.to_owned(), &body).await;
    }
    if let Some(device) = target.strip_suffix(":kick") {
        devices::check_name(device)?;
        return Ok(Json(kick(&state, &caller.app, device).await?).into_response());
    }
    let detail = "what can be done with a device here is \":token\" and \":kick\"";
    Err(Problem::new(Code::NotFound, detail))
}

async fn issue(
    state: &ApiState,
    caller: Caller,
    device: String,
    body: &[u8],
) -> Result<Response, Problem> {
    let until = state.now_ms() + apps::grace_seconds(body)? * 1000;
    let token = DeviceToken::from_random(keys::random()?);
    let (app, hash, id) = (caller.app.clone(), token.hash(), device.clone());
    let plan = move |context: &Context<'_>| tokens::issue(context, &app, &id, &hash, until);
    let had_one = state.carry_out(caller.actor(), plan).await?;
    let made = Made {
        device,
        token: token.reveal().to_owned(),
        old_valid_until: had_one.then(|| rfc3339(until)),
    };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn kick(state: &ApiState, app: &AppName, device: &str) -> Result<Kicked, Problem> {
    let found = state.cluster().kick(app, device).await;
    let found = found.map_err(|refusal| Problem::internal(&refusal.to_string()))?;
    Ok(Kicked {
        kicked: found.connection.is_some(),
        node: found.connection.map(|connection| connection.node),
        silent_nodes: found.silent,
    })
}

/// `DELETE /v1/apps/{app}/devices/{device}/token`
pub(crate) async fn revoke(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, device)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let (app, id) = (caller.app.clone(), device.clone());
    let plan = move |context: &Context<'_>| tokens::revoke(context, &app, &id);
    state.carry_out(actor, plan).await?;
    // Whoever has stolen the token may be connected with it. What cannot be reached now finds out at its next connect.
    if let Err(problem) = kick(&state, &caller.app, &device).await {
        tracing::debug!(app = %caller.app, device, reason = problem.detail(), "a device whose token was revoked may still be connected");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A key as it may be shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeviceKey")]
struct Shown {
    kid: String,
    algorithm: &'static str,
    /// Absent of a secret, which is never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    created_at: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeviceKeys")]
struct List {
    device_keys: Vec<Shown>,
}

fn shown(kid: String, record: &DeviceKeyRecord) -> Shown {
    Shown {
        kid,
        algorithm: record.algorithm().map_or("", |algorithm| algorithm.text()),
        public_key: record.public_key().map(str::to_owned),
        created_at: rfc3339(record.created_ms),
    }
}

/// `GET /v1/apps/{app}/device-keys`
pub(crate) async fn list_keys(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Response, Problem> {
    let found = state
        .look(move |context| device_keys::list(context.reader, &caller.app, context.now_ms))
        .await?;
    let device_keys = found.into_iter().map(|(kid, record)| shown(kid, &record));
    let list = List {
        device_keys: device_keys.collect(),
    };
    Ok(Json(list).into_response())
}

/// `POST /v1/apps/{app}/device-keys`
pub(crate) async fn add_key(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let new = NewDeviceKey::parse(&body)?;
    let kid = new.kid.clone();
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| device_keys::add(context, &caller.app, &new);
    let record = state.carry_out(actor, plan).await?;
    Ok((StatusCode::CREATED, Json(shown(kid, &record))).into_response())
}

/// `DELETE /v1/apps/{app}/device-keys/{kid}`
pub(crate) async fn remove_key(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, kid)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| device_keys::remove(context, &caller.app, &kid);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/apps/{app}/device-rules`
pub(crate) async fn rules(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<DeviceRules>, Problem> {
    let rules = state
        .look(move |context| device_rules::get(context.reader, &caller.app, context.now_ms))
        .await?;
    Ok(Json(rules))
}

/// `PUT /v1/apps/{app}/device-rules`
pub(crate) async fn set_rules(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<DeviceRules>, Problem> {
    let rules = DeviceRules::parse(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| device_rules::put(context, &caller.app, &rules);
    Ok(Json(state.carry_out(actor, plan).await?))
}
