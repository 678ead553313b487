//! `/v1/admin`: all apps, the nodes, and who changed what. For operators: it needs a key with the permission `operator`, which only the command line of a node gives.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    id::PushId,
    registry::{
        Context, Refusal,
        apps::{self, AppRecord, MAX_QUOTA, NewApp, QuotaChange},
        audit,
        permission::Permissions,
    },
    rows::{Scope, Table},
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    ApiState,
    auth::Caller,
    body::JsonBody,
    cluster::NodeStatus,
    keys::{Audited, new_secret},
    openapi::{self, Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    query::{self, Paging},
};

/// What an app may use.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AppQuotas")]
struct Quotas {
    /// Registered devices. `null`, here and below: as much as there is.
    devices: Option<u64>,
    /// Connections at a time, over all nodes.
    connections: Option<u64>,
    /// Pushes that are accepted a second, over all nodes.
    pushes_per_second: Option<u64>,
    /// Bytes of messages that are kept.
    stored_bytes: Option<u64>,
}

/// An app.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "App")]
struct Shown {
    app: String,
    created_at: String,
    quotas: Quotas,
    /// Only where one app is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// The first key, only where the app is made: it is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// What an app uses.
#[derive(Serialize, JsonSchema)]
struct Usage {
    /// Registered devices.
    devices: u64,
    /// Connections to the node that answers.
    connections_here: u64,
    /// About how many bytes its messages take.
    stored_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Apps")]
struct List {
    apps: Vec<Shown>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The nodes, as the one that answers knows them.
#[derive(Serialize, JsonSchema)]
struct Nodes {
    /// The cluster's name; empty: the node is alone.
    cluster: String,
    /// Whether ZooKeeper answers; otherwise all of this is what was last known.
    membership_reachable: bool,
    /// Why the store refuses writes; absent: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_failing: Option<String>,
    nodes: Vec<Node>,
}

#[derive(Serialize, JsonSchema)]
struct Node {
    name: String,
    /// It is the node that answers.
    this: bool,
    version: String,
    started_at: String,
    /// What devices connect to.
    addresses: Vec<String>,
    /// Its HTTP API; empty: not told.
    http: String,
    connections: u64,
    /// Connections that it can hold.
    capacity: u64,
    /// It takes no new devices.
    draining: bool,
    /// It runs what must run once.
    leader: bool,
    /// Whether the link to it is up; absent of the node that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    linked: Option<bool>,
}

/// What was done to an app, to its keys or within it.
#[derive(Serialize, JsonSchema)]
struct AdminEntry {
    app: String,
    #[serde(flatten)]
    entry: Audited,
}

#[derive(Serialize, JsonSchema)]
struct AdminAuditPage {
    entries: Vec<AdminEntry>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The routes of operators.
pub(crate) fn routes() -> Routes {
    const ALL: &str = "/v1/admin/apps";
    const ONE: &str = "/v1/admin/apps/{app}";
    let quota = json!({"type": ["integer", "null"], "minimum": 1, "maximum": MAX_QUOTA});
    let quotas = json!({
        "type": "object", "additionalProperties": false,
        "description": "What is not named stays as it is; `null`: as much as there is.",
        "properties": {"devices": quota, "connections": quota, "pushes_per_second": quota, "stored_bytes": quota},
    });
    let exactly = |required: Value, properties: Value| json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties});
    let list = Operation::new("listApps", "Lists the apps")
        .tells("By their names.")
        .needs_operator()
        .paged()
        .answers(200, "A page of apps.", of::<List>());
    let create = Operation::new("createApp", "Makes an app with its first key")
        .needs_operator()
        .takes(
            exactly(
                json!(["app"]),
                json!({"app": openapi::reference("AppName"), "quotas": quotas}),
            ),
            json!({"app": "shop", "quotas": {"devices": 100_000}}),
        )
        .answers(201, "The app and its key.", of::<Shown>())
        .header("Location", "Of the app.")
        .may(&[Code::Exists]);
    let show = Operation::new("getApp", "Shows an app and what it uses")
        .tells("Stored bytes are an estimate: those of logs, inboxes and retained messages.")
        .needs_operator()
        .answers(200, "The app.", of::<Shown>())
        .may(&[Code::Missing]);
    let change = Operation::new("changeApp", "Changes what an app may use")
        .tells("It holds within five seconds, at every node.")
        .needs_operator()
        .takes(
            exactly(json!(["quotas"]), json!({"quotas": quotas})),
            json!({"quotas": {"connections": 5000, "pushes_per_second": null}}),
        )
        .answers(200, "The app as it is now.", of::<Shown>())
        .may(&[Code::Missing]);
    let delete = Operation::new("deleteApp", "Removes an app that keeps nothing, with its keys")
        .tells("One that has devices, segments, uploads, schedules, webhooks, device keys, sessions or messages is refused with `clash`, which says what there is. The key of the request cannot be of the app.")
        .needs_operator()
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing, Code::Clash]);
    let nodes = Operation::new("listNodes", "The nodes")
        .needs_operator()
        .answers(200, "All registered nodes.", of::<Nodes>());
    let audit = Operation::new("listAdminAudit", "Who changed what in all apps")
        .tells("Without `app`: what was done to apps and keys, by app, of each the oldest first; of apps that are gone, too. With it: all that was done in the app, the oldest first.")
        .needs_operator()
        .paged()
        .query("app", "Only of this app.", openapi::reference("AppName"))
        .answers(200, "A page of the log.", of::<AdminAuditPage>());
    Routes::of(
        "Operating",
        "All apps and the nodes. Needs a key with the permission `operator`, which `campanile app key APP --may operator` makes.",
    )
    .get(ALL, self::list, list)
    .post(ALL, self::create, create)
    .get(ONE, self::show, show)
    .patch(ONE, self::change, change)
    .delete(ONE, self::delete, delete)
    .get("/v1/admin/nodes", self::nodes, nodes)
    .get("/v1/admin/audit", self::audit, audit)
}

impl Shown {
    fn of(app: &AppName, record: &AppRecord) -> Shown {
        let quota = |quota: u64| (quota > 0).then_some(quota);
        Shown {
            app: app.to_string(),
            created_at: rfc3339(record.created_ms),
            quotas: Quotas {
                devices: quota(record.quotas.devices),
                connections: quota(record.quotas.connections),
                pushes_per_second: quota(record.quotas.pushes_per_second),
                stored_bytes: quota(record.quotas.stored_bytes),
            },
            usage: None,
            key: None,
        }
    }
}

/// The app that a path names; one that cannot be is not there.
fn named(name: &str) -> Result<AppName, Problem> {
    AppName::new(name).map_err(|bad| Problem::new(Code::Missing, format!("there is no {bad}")))
}

/// `GET /v1/admin/apps`
async fn list(
    State(state): State<ApiState>,
    RawQuery(text): RawQuery,
) -> Result<Json<List>, Problem> {
    let paging = Paging::parse(text.as_deref())?;
    let after = app_named("after", paging.after.as_deref())?;
    let (found, more) = state
        .look(move |context| apps::list(context, after.as_ref(), paging.limit))
        .await?;
    let next = found.last().filter(|_| more);
    Ok(Json(List {
        next: next.map(|(app, _)| app.to_string()),
        apps: found
            .iter()
            .map(|(app, record)| Shown::of(app, record))
            .collect(),
    }))
}

fn app_named(parameter: &str, given: Option<&str>) -> Result<Option<AppName>, Problem> {
    let name = given.map(AppName::new).transpose();
    name.map_err(|bad| query::wrong(parameter, bad))
}

/// `POST /v1/admin/apps`
async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let NewApp { app, quotas } = NewApp::parse(&body)?;
    let secret = new_secret()?;
    let (name, hash) = (app.clone(), secret.hash());
    state
        .carry_out(caller.actor(), move |context| {
            apps::create(context, &name, quotas, &hash, Permissions::ADMIN)
        })
        .await?;
    let record = AppRecord {
        created_ms: state.now_ms(),
        quotas,
    };
    let shown = Shown {
        key: Some(secret.reveal().to_owned()),
        ..Shown::of(&app, &record)
    };
    let location = [(header::LOCATION, format!("/v1/admin/apps/{app}"))];
    Ok((StatusCode::CREATED, location, Json(shown)).into_response())
}

/// `GET /v1/admin/apps/{app}`
async fn show(
    State(state): State<ApiState>,
    InPath(name): InPath<String>,
) -> Result<Json<Shown>, Problem> {
    let app = named(&name)?;
    let of = app.clone();
    let (record, devices, stored) = state
        .ask(move |context| {
            let record = apps::app(context, &of)?.ok_or_else(|| missing(&of))?;
            let reader = context.reader;
            let devices = reader.count_rows(&Scope::App(of.clone()), Table::Device)?;
            Ok((record, devices, reader.stored(&of)?))
        })
        .await?;
    let usage = Usage {
        devices,
        connections_here: state.node().connections(&app),
        stored_bytes: stored.bytes,
    };
    Ok(Json(Shown {
        usage: Some(usage),
        ..Shown::of(&app, &record)
    }))
}

fn missing(app: &AppName) -> Refusal {
    Refusal::Missing {
        what: "app",
        name: app.to_string(),
    }
}

/// `PATCH /v1/admin/apps/{app}`
async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    InPath(name): InPath<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Shown>, Problem> {
    let app = named(&name)?;
    let change = QuotaChange::parse(&body)?;
    let name = app.clone();
    let plan = move |context: &Context<'_>| apps::change_quotas(context, &name, &change);
    let record = state.carry_out(caller.actor(), plan).await?;
    Ok(Json(Shown::of(&app, &record)))
}

/// `DELETE /v1/admin/apps/{app}`
async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> Result<StatusCode, Problem> {
    let app = named(&name)?;
    if caller.app == app {
        return Err(Problem::new(
            Code::Clash,
            "the key of this request is of that app, and would go with it: use a key of another app",
        ));
    }
    let plan = move |context: &Context<'_>| apps::delete(context, &app);
    state.carry_out(caller.actor(), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<NodeStatus> for Node {
    fn from(node: NodeStatus) -> Node {
        Node {
            name: node.name,
            this: node.this,
            version: node.version,
            started_at: rfc3339(node.started_ms),
            addresses: node.addresses,
            http: node.http,
            connections: node.connections,
            capacity: node.capacity,
            draining: node.draining,
            leader: node.leader,
            linked: node.linked,
        }
    }
}

/// `GET /v1/admin/nodes`
async fn nodes(State(state): State<ApiState>) -> Result<Json<Nodes>, Problem> {
    let overview = state.cluster().overview();
    Ok(Json(Nodes {
        cluster: overview.cluster,
        membership_reachable: overview.membership_reachable,
        store_failing: overview.store_failing,
        nodes: overview.nodes.into_iter().map(Node::from).collect(),
    }))
}

/// `GET /v1/admin/audit`
async fn audit(
    State(state): State<ApiState>,
    RawQuery(text): RawQuery,
) -> Result<Json<AdminAuditPage>, Problem> {
    let (paging, app) = Paging::with(text.as_deref(), "app")?;
    let app = app_named("app", app.as_deref())?;
    let of_all = app.is_none();
    let (found, more) = match app {
        Some(app) => {
            let (name, after) = (app.to_string(), paging.after_id()?);
            let page = state.look(move |context| audit::list(context, &app, after, paging.limit));
            let (entries, more) = page.await?;
            let named = entries.into_iter().map(|entry| (name.clone(), entry));
            (named.collect::<Vec<_>>(), more)
        }
        None => {
            let after = paging.after.as_deref().map(place).transpose()?;
            let list = move |context: &Context<'_>| {
                let after = after.as_ref().map(|(app, id)| (app, *id));
                audit::list_of_system(context, after, paging.limit)
            };
            state.look(list).await?
        }
    };
    let next = found
        .last()
        .filter(|_| more)
        .map(|(app, entry)| match of_all {
            true => format!("{app}:{}", entry.id),
            false => entry.id.to_string(),
        });
    let entries = found.into_iter().map(|(app, entry)| AdminEntry {
        app,
        entry: entry.into(),
    });
    Ok(Json(AdminAuditPage {
        entries: entries.collect(),
        next,
    }))
}

/// Where a page of the log of all apps begins: `APP:ID`.
fn place(text: &str) -> Result<(AppName, PushId), Problem> {
    let parts = text.split_once(':');
    let place = parts.and_then(|(app, id)| Some((AppName::new(app).ok()?, id.parse().ok()?)));
    place.ok_or_else(|| query::wrong("after", "it is no `next` of a page of this log"))
}
