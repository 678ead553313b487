//! `/v1/apps/{app}/devices`: registered devices.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    device::{Patch, Profile},
    expression::Expression,
    registry::{
        Context,
        devices::{self, Device, Page},
        permission::Permission,
    },
    store,
    time::rfc3339,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use crate::{
    ApiState,
    auth::Caller,
    body::JsonBody,
    cluster::{ClientConnection, Located},
    openapi::{self, Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    query::{self, Paging},
};

/// The routes of devices.
pub(crate) fn routes() -> Routes {
    const ONE: &str = "/v1/apps/{app}/devices/{device}";
    let change = || openapi::reference("DeviceChange");
    let example = || serde_json::json!({"platform": "ios", "app_version": "3.2", "user": "u1", "tags": ["vip"], "attributes": {"plan": "gold"}});
    let list = Operation::new("listDevices", "Lists devices")
        .tells("By their identifiers. With a filter a page looks at 1000 devices, so that it may be short, or empty, and yet have a `next`.")
        .needs(Permission::Read)
        .paged()
        .query(
            "filter",
            "Only those that match this expression now.",
            openapi::reference("Expression"),
        )
        .answers(200, "A page of devices.", of::<Listed>());
    let show = Operation::new("getDevice", "Shows a device")
        .tells("With `connection`, where it is connected; `null`: nowhere, and then with `away`, if it keeps a session.")
        .needs(Permission::Read)
        .answers(200, "The device.", of::<Shown>())
        .may(&[Code::Missing, Code::InvalidField]);
    let put = Operation::new("putDevice", "Registers a device, or makes it just this")
        .tells("What the body does not name ends.")
        .needs(Permission::DeviceWrite)
        .takes(change(), example())
        .answers(
            200,
            "It was registered before, and is this now.",
            of::<Shown>(),
        )
        .answers(201, "It is registered now.", of::<Shown>())
        .leads_to("getDevice", "device", "/device")
        .leads_to("patchDevice", "device", "/device")
        .leads_to("deleteDevice", "device", "/device")
        .may(&[Code::QuotaReached]);
    let patch = Operation::new("patchDevice", "Changes a device")
        .tells("Only what the body names.")
        .needs(Permission::DeviceWrite)
        .takes(change(), example())
        .answers(200, "The device as it is now.", of::<Shown>())
        .may(&[Code::Missing]);
    let delete = Operation::new("deleteDevice", "Forgets a device")
        .needs(Permission::DeviceWrite)
        .answers(204, "It is forgotten.", Content::None)
        .may(&[Code::Missing, Code::InvalidField]);
    Routes::of(
        "Devices",
        "Devices that are registered, and what is known of them.",
    )
    .get("/v1/apps/{app}/devices", self::list, list)
    .get(ONE, self::show, show)
    .put(ONE, self::put, put)
    .patch(ONE, self::patch, patch)
    .delete(ONE, self::delete, delete)
    .and(crate::users::routes())
}

/// A profile writes itself.
fn profile(_: &mut SchemaGenerator) -> Schema {
    serde_json::from_value(openapi::reference("Profile")).expect("a reference is a schema")
}

/// A device as callers see it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Device")]
pub(crate) struct Shown {
    device: String,
    #[serde(flatten)]
    #[schemars(schema_with = "profile")]
    profile: Profile,
    /// Absent where it was not asked for, or nobody can tell.
    #[serde(flatten)]
    whereabouts: Option<Whereabouts>,
}

/// Where a device is connected.
#[derive(Serialize, JsonSchema)]
struct Whereabouts {
    /// `null`: no node that answered has a connection of it.
    connection: Option<Connection>,
    /// A session that is kept for it while it is not connected; absent if there is none, or where it is cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    away: Option<Away>,
    /// Nodes that did not answer in time: it may be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Connection {
    node: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    subscriptions: u32,
    /// The first of them.
    filters: Vec<String>,
    in_flight: u32,
    lag: Lag,
}

/// A device that is to return.
#[derive(Serialize, JsonSchema)]
struct Away {
    /// When its connection ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When its session ends; `null`: it does not.
    expires_at: Option<String>,
    lag: Lag,
}

/// What a device was not sent yet, or, of one that is away, is not done with.
#[derive(Serialize, JsonSchema)]
struct Lag {
    /// Entries of the push log, for it or not; `null`: more than its node has in memory, or, of one that is away, more than 1000, or than about 1 MiB of them.
    push_log: Option<u32>,
    /// Its inbox holds something.
    inbox: bool,
    /// How many entries: of a device that is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    inbox_entries: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Devices")]
pub(crate) struct Listed {
    devices: Vec<Shown>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<Device> for Shown {
    fn from(device: Device) -> Shown {
        Shown {
            device: device.id.to_string(),
            profile: device.profile,
            whereabouts: None,
        }
    }
}

impl From<Page> for Listed {
    fn from(page: Page) -> Listed {
        Listed {
            devices: page.devices.into_iter().map(Shown::from).collect(),
            next: page.next.map(|next| next.to_string()),
        }
    }
}

impl From<Located> for Whereabouts {
    fn from(located: Located) -> Whereabouts {
        Whereabouts {
            connection: located.connection.map(Connection::from),
            away: None,
            silent_nodes: located.silent,
        }
    }
}

impl From<ClientConnection> for Connection {
    fn from(connection: ClientConnection) -> Connection {
        Connection {
            node: connection.node,
            protocol: match connection.protocol_level {
                5 => "MQTT 5.0",
                4 => "MQTT 3.1.1",
                _ => "MQTT 3.1",
            },
            since: (connection.since_ms > 0).then(|| rfc3339(connection.since_ms)),
            address: connection.address,
            subscriptions: connection.subscriptions,
            filters: connection.filters,
            in_flight: connection.in_flight,
            lag: Lag {
                push_log: connection.behind,
                inbox: connection.inbox_waits,
                inbox_entries: None,
            },
        }
    }
}

impl From<store::Away> for Away {
    fn from(away: store::Away) -> Away {
        Away {
            since: away.since_ms.map(rfc3339),
            expires_at: away.expires_ms.map(rfc3339),
            lag: Lag {
                push_log: away.behind,
                inbox: away.inbox > 0,
                inbox_entries: Some(away.inbox),
            },
        }
    }
}

/// `GET /v1/apps/{app}/devices?filter=&after=&limit=`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
) -> Result<Json<Listed>, Problem> {
    let (paging, filter) = Paging::with(text.as_deref(), "filter")?;
    let filter = filter
        .map(|text| Expression::parse(&text))
        .transpose()
        .map_err(|bad| query::wrong("filter", bad))?;
    let page = state
        .look(move |context| {
            let after = paging.after.as_deref();
            devices::list(context, &caller.app, filter.as_ref(), after, paging.limit)
        })
        .await?;
    Ok(Json(page.into()))
}

/// `GET /v1/apps/{app}/devices/{device}`
pub(crate) async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let app = caller.app;
    let device = {
        let (app, id) = (app.clone(), id.clone());
        state.ask(move |context| devices::get(context, &app, &id))
    };
    let mut shown = Shown::from(device.await?);
    shown.whereabouts = whereabouts(&state, app, id).await?;
    Ok(Json(shown))
}

/// A node that cannot tell says nothing of it: what is registered is worth showing all the same.
async fn whereabouts(
    state: &ApiState,
    app: AppName,
    id: String,
) -> Result<Option<Whereabouts>, Problem> {
    let mut found = match state.cluster().locate(&app, &id).await {
        Ok(located) => Whereabouts::from(located),
        Err(refusal) => {
            tracing::debug!(%app, device = id, reason = %refusal, "where a device is connected is not known");
            return Ok(None);
        }
    };
    // It may be connected to a node that did not answer, whatever the store says.
    if found.connection.is_none() && found.silent_nodes.is_empty() {
        let away = state.look(move |context| context.reader.away(&app, &id, context.now_ms));
        found.away = away.await?.map(Away::from);
    }
    Ok(Some(found))
}

/// `PUT /v1/apps/{app}/devices/{device}`
pub(crate) async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let patch = Patch::parse(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::put(context, &caller.app, &id, &patch);
    let written = state.carry_out(actor, plan).await?;
    let status = match written.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(Shown::from(written.device))).into_response())
}

/// `PATCH /v1/apps/{app}/devices/{device}`
pub(crate) async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Json<Shown>, Problem> {
    let patch = Patch::parse(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::patch(context, &caller.app, &id, &patch);
    let device = state.carry_out(actor, plan).await?;
    Ok(Json(device.into()))
}

/// `DELETE /v1/apps/{app}/devices/{device}`
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::delete(context, &caller.app, &id);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
