//! `/v1/apps/{app}/keys` and `/v1/apps/{app}/audit`: API keys, and who changed what.

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use campanile_push::{
    id::PushId,
    key::ApiKey,
    registry::{
        apps::{
            self, DEFAULT_GRACE_SECONDS, KeyRecord, MAX_GRACE_SECONDS, MAX_KEYS, MAX_LABEL_BYTES,
            NewKey,
        },
        audit,
        permission::{Permission, Permissions},
    },
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    ApiState,
    auth::Caller,
    body::{self, JsonBody},
    openapi::{Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    query::Paging,
};

/// The routes of keys and of the audit log.
pub(crate) fn routes() -> Routes {
    let list = Operation::new("listKeys", "Lists the keys")
        .tells("Never the keys themselves: those are shown once, when they are made.")
        .needs(Permission::Admin)
        .answers(200, "All keys of the app.", of::<List>());
    let label = json!({"type": "string", "maxLength": MAX_LABEL_BYTES});
    let permissions = json!({"type": "array", "minItems": 1, "items": {"type": "string", "enum": Permission::OF_APPS.map(Permission::text)}});
    let wanted = json!({
        "type": "object", "additionalProperties": false, "required": ["permissions"],
        "properties": {"label": label, "permissions": permissions},
    });
    let create = Operation::new("createKey", "Makes a key")
        .tells(&format!("An app has at most {MAX_KEYS} keys."))
        .needs(Permission::Admin)
        .takes(
            wanted,
            json!({"label": "checkout server", "permissions": ["push:send", "read"]}),
        )
        .answers(201, "The key. It is not shown again.", of::<Made>())
        .leads_to("rotateKey", "id", "/id")
        .leads_to("revokeKey", "id", "/id")
        .may(&[Code::Missing, Code::Clash, Code::QuotaReached]);
    let revoke = Operation::new("revokeKey", "Ends a key")
        .tells("It may work for five more seconds. The last key with `admin` cannot be ended.")
        .needs(Permission::Admin)
        .answers(204, "It is ended.", Content::None)
        .may(&[Code::Missing, Code::Clash]);
    let rotate = Operation::new("rotateKey", "Gives a key a new secret")
        .needs(Permission::Admin)
        .takes_optional(grace(), json!({"grace": 3600}))
        .answers(200, "The new secret. It is not shown again.", of::<Made>())
        .may(&[Code::Missing]);
    let audit = Operation::new("listAudit", "Who changed what")
        .tells("The oldest first; kept for 400 days.")
        .needs(Permission::Admin)
        .paged_by_id()
        .answers(200, "A page of the log.", of::<AuditPage>());
    Routes::of("Keys", "API keys, and the audit log of the app.")
        .get("/v1/apps/{app}/keys", self::list, list)
        .post("/v1/apps/{app}/keys", self::create, create)
        .delete("/v1/apps/{app}/keys/{id}", self::revoke, revoke)
        .verbs("/v1/apps/{app}/keys/{id}", act, [("rotate", rotate)])
        .get("/v1/apps/{app}/audit", self::audit, audit)
}

/// What says how long a secret outlives its successor's making.
pub(crate) fn grace() -> Value {
    let grace = json!({
        "type": "integer", "minimum": 0, "maximum": MAX_GRACE_SECONDS, "default": DEFAULT_GRACE_SECONDS,
        "description": "Seconds for which the old secret goes on to work.",
    });
    json!({"type": "object", "additionalProperties": false, "properties": {"grace": grace}})
}

/// A key, as it may be shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Key")]
struct Shown {
    id: String,
    label: String,
    permissions: Vec<&'static str>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
}

impl Shown {
    fn of(record: &KeyRecord) -> Shown {
        Shown {
            id: record.id.clone(),
            label: record.label.clone(),
            permissions: names(record.permissions()),
            created_at: rfc3339(record.created_ms),
            rotated_at: (record.rotated_ms > 0).then(|| rfc3339(record.rotated_ms)),
        }
    }
}

fn names(permissions: Permissions) -> Vec<&'static str> {
    permissions.iter().map(Permission::text).collect()
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Keys")]
struct List {
    keys: Vec<Shown>,
}

/// A key with its secret: the only time that it is shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewKey")]
struct Made {
    id: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_valid_until: Option<String>,
}

pub(crate) fn new_secret() -> Result<ApiKey, Problem> {
    Ok(ApiKey::from_random(random()?))
}

/// Bytes for a secret.
pub(crate) fn random() -> Result<[u8; 32], Problem> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|_| Problem::internal("the system gave no random numbers for a secret"))?;
    Ok(random)
}

/// `GET /v1/apps/{app}/keys`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Response, Problem> {
    let app = caller.app;
    let records = state.look(move |context| apps::keys(context, &app)).await?;
    let keys = records.iter().map(Shown::of).collect();
    Ok(Json(List { keys }).into_response())
}

/// `POST /v1/apps/{app}/keys`
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let NewKey { label, permissions } = NewKey::parse(&body)?;
    let secret = new_secret()?;
    let (app, hash) = (caller.app.clone(), secret.hash());
    let id = state
        .carry_out(caller.actor(), move |context| {
            apps::add_key(context, &app, &hash, permissions, &label)
        })
        .await?;
    let made = Made {
        id,
        key: secret.reveal().to_owned(),
        permissions: Some(names(permissions)),
        old_valid_until: None,
    };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// `DELETE /v1/apps/{app}/keys/{id}`
pub(crate) async fn revoke(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app.clone();
    state
        .carry_out(caller.actor(), move |context| {
            apps::revoke_key(context, &app, &id)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/apps/{app}/keys/{id}:rotate`
pub(crate) async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, target)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Some(id) = target.strip_suffix(":rotate").map(str::to_owned) else {
        return Err(Problem::new(
            Code::NotFound,
            "the only thing to do with a key here is \":rotate\"",
        ));
    };
    let body = body::read(&headers, body, state.config()).await?;
    if !body.is_empty() {
        body::check_type(&headers)?;
    }
    let until = state.now_ms() + apps::grace_seconds(&body)? * 1000;
    let secret = new_secret()?;
    let (app, hash) = (caller.app.clone(), secret.hash());
    let record = state
        .carry_out(caller.actor(), move |context| {
            apps::rotate_key(context, &app, &id, &hash, until)
        })
        .await?;
    let made = Made {
        id: record.id,
        key: secret.reveal().to_owned(),
        permissions: None,
        old_valid_until: Some(rfc3339(until)),
    };
    Ok(Json(made).into_response())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
pub(crate) struct Audited {
    id: String,
    at: String,
    actor: String,
    action: String,
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

#[derive(Serialize, JsonSchema)]
struct AuditPage {
    entries: Vec<Audited>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /v1/apps/{app}/audit`
pub(crate) async fn audit(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let app = caller.app;
    let paging = Paging::parse(query.as_deref())?;
    let after: Option<PushId> = paging.after_id()?;
    let (entries, more) = state
        .look(move |context| audit::list(context, &app, after, paging.limit))
        .await?;
    let next = entries.last().filter(|_| more);
    let page = AuditPage {
        next: next.map(|entry| entry.id.to_string()),
        entries: entries.into_iter().map(Audited::from).collect(),
    };
    Ok(Json(page).into_response())
}

impl From<audit::Entry> for Audited {
    fn from(entry: audit::Entry) -> Audited {
        Audited {
            id: entry.id.to_string(),
            at: rfc3339(entry.record.at_ms),
            actor: entry.record.actor,
            action: entry.record.action,
            object: entry.record.object,
            detail: entry.record.detail,
        }
    }
}
