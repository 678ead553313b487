//! `/v1/apps/{app}/users/{user}/devices`: which devices a user has.

use axum::{
    Json,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use campanile_push::registry::{Context, devices, permission::Permission};

use crate::{
    ApiState, auth,
    devices::{Listed, Shown},
    openapi::{Content, Operation, Routes, of},
    problem::{Code, Problem},
    query::Paging,
    routes::path_problem,
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
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Listed>, Problem> {
    let Path((app, user)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
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
    path: Result<Path<(String, String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Shown>, Problem> {
    let Path((app, user, device)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::DeviceWrite).await?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::bind(context, &caller.app, &user, &device);
    let device = state.carry_out(actor, plan).await?;
    Ok(Json(device.into()))
}

/// `DELETE /v1/apps/{app}/users/{user}/devices/{device}`
pub(crate) async fn unbind(
    State(state): State<ApiState>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Path((app, user, device)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::DeviceWrite).await?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| devices::unbind(context, &caller.app, &user, &device);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
