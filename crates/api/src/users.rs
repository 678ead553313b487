//! `/v1/apps/{app}/users/{user}/devices`: which devices a user has.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use campanile_push::registry::{Context, devices, permission::Permission};

use crate::{
    ApiState,
    auth::Caller,
    devices::{Listed, Shown},
    openapi::{Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    query::Paging,
};

/// The routes of users.
pub(crate) fn routes() -> Routes {
    const ONE: &str = "/v1/apps/{app}/users/{user}/devices/{device}";
    let list = Operation::new("listDevicesOfUser", "Lists the devices of a user")
        .needs(Permission::Read)
        .paged()
        .answers(200, "A page of devices.", of::<Listed>())
        .may(&[Code::InvalidField]);
    let bind = Operation::new(
        "bindDevice",
        "Binds a device to a user, whoever had it before",
    )
    .needs(Permission::DeviceWrite)
    .answers(200, "The device as it is now.", of::<Shown>())
    .may(&[Code::Missing, Code::InvalidField]);
    let unbind = Operation::new("unbindDevice", "Takes a device from its user")
        .needs(Permission::DeviceWrite)
        .answers(204, "It has no user now.", Content::None)
        .may(&[Code::Missing, Code::InvalidField]);
    Routes::of(
        "Users",
        "A user has many devices; a device has one user or none.",
    )
    .get("/v1/apps/{app}/users/{user}/devices", self::list, list)
    .put(ONE, self::bind, bind)
    .delete(ONE, self::unbind, unbind)
}

/// `GET /v1/apps/{app}/users/{user}/devices?after=&limit=`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, user)): InPath<(String, String)>,
    RawQuery(text): RawQuery,
) -> Result<Json<Listed>, Problem> {
    let paging = Paging::parse(text.as_deref())?;
    let page = state
        .ask(move |context| {
            let after = paging.after.as_deref();
            devices::of_user(context, &caller.app, &user, after, paging.limit)
        })
        .await?;
    Ok(Json(page.into()))
}

/// `PUT /v1/apps/{app}/users/{user}/devices/{device}`
pub(crate) async fn bind(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, user, device)): InPath<(String, String, String)>,
) -> Result<Json<Shown>, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::bind(context, &caller.app, &user, &device);
    let device = state.carry_out(actor, plan).await?;
    Ok(Json(device.into()))
}

/// `DELETE /v1/apps/{app}/users/{user}/devices/{device}`
pub(crate) async fn unbind(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, user, device)): InPath<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::unbind(context, &caller.app, &user, &device);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
