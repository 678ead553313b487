//! `/v1/apps/{app}/schedules`: pushes at times to come; and `not_before` of a push, which is a schedule of one run.

use axum::{
    body::Body,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    id::PushId,
    registry::{
        Context, Planned,
        permission::Permission,
        schedules::{self, Created, Edit},
    },
    schedule::{Change, Schedule, ScheduleId},
    store::Idempotency,
};

use crate::{
    ApiState,
    auth::{self, Caller},
    body,
    problem::{Code, Problem},
    pushes::{IDEMPOTENT_REPLAYED, idempotency_key, key_reused},
    query,
    routes::path_problem,
};

/// Schedules of a page where the caller does not say.
const DEFAULT_PAGE: usize = 100;
/// Most schedules of a page.
const MAX_PAGE: usize = 1000;

/// `GET /v1/apps/{app}/schedules`
pub(crate) async fn list(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
    let (mut limit, mut after) = (DEFAULT_PAGE, None::<ScheduleId>);
    for (name, value) in query::parse(&text.unwrap_or_default(), &["limit", "after"])? {
        if name == "limit" {
            limit = query::limit(&value, MAX_PAGE)?;
        } else {
            after = Some(value.parse().map_err(|bad| query::wrong(name, bad))?);
        }
    }
    let (page, more) = state
        .look(move |context| schedules::list(context, &caller.app, after, limit))
        .await?;
    let next = page.last().filter(|_| more);
    let next = next.map_or(String::new(), |last| format!(",\"next\":\"{}\"", last.id));
    let shown: Vec<String> = page.iter().map(Schedule::to_json).collect();
    let text = format!("{{\"schedules\":[{}]{next}}}", shown.join(","));
    Ok(json(StatusCode::OK, text))
}

/// `POST /v1/apps/{app}/schedules`
pub(crate) async fn create(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::PushSend).await?;
    let key = idempotency_key(&headers)?;
    body::check_type(&headers)?;
    let body = body::read(&headers, body, state.config()).await?;
    let now_ms = state.now_ms();
    let key = key.map(|key| key.bind(&body, now_ms));
    if let Some(key) = &key
        && let Some(before) = made_before(&state, &caller, key).await?
    {
        return answer(&caller.app, before);
    }
    let schedule = Schedule::create(&body, &state.limits(), state.new_id(), now_ms)?;
    let created = keep(&state, &caller, schedule, key).await?;
    answer(&caller.app, created)
}

fn answer(app: &AppName, created: Created) -> Result<Response, Problem> {
    let (schedule, is_new) = match created {
        Created::New(schedule) => (schedule, true),
        Created::Before(schedule) => (schedule, false),
        Created::KeyReused => return Err(key_reused()),
    };
    let location = format!("/v1/apps/{app}/schedules/{}", schedule.id);
    let mut response = json(StatusCode::CREATED, schedule.to_json());
    let location = location.parse().expect("names and ids are plain text");
    response.headers_mut().insert(header::LOCATION, location);
    if !is_new {
        let replayed = header::HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    Ok(response)
}

/// `GET /v1/apps/{app}/schedules/{id}`
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::Read).await?;
    let id = schedule_id(&id)?;
    let found = state
        .look(move |context| schedules::get(context, &caller.app, id))
        .await?;
    match found {
        Some(schedule) => Ok(json(StatusCode::OK, schedule.to_json())),
        None => Err(no_schedule(&id.to_string())),
    }
}

/// `PATCH /v1/apps/{app}/schedules/{id}`
pub(crate) async fn change(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::PushSend).await?;
    let id = schedule_id(&id)?;
    body::check_type(&headers)?;
    let body = body::read(&headers, body, state.config()).await?;
    let change = Change::parse(&body, &state.limits())?;
    edit(&state, &caller, id, Edit::Fields(Box::new(change))).await
}

/// `POST /v1/apps/{app}/schedules/{id}:pause`, `:resume`, `:run`
pub(crate) async fn act(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, target)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::PushSend).await?;
    let (id, action) = target.split_once(':').unwrap_or((&target, ""));
    let action = match action {
        "pause" => Edit::Pause,
        "resume" => Edit::Resume,
        "run" => Edit::Run,
        _ => {
            return Err(Problem::new(
                Code::NotFound,
                "what can be done with a schedule here is \":pause\", \":resume\" and \":run\"",
            ));
        }
    };
    edit(&state, &caller, schedule_id(id)?, action).await
}

/// `DELETE /v1/apps/{app}/schedules/{id}`
pub(crate) async fn delete(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let caller = auth::authorise(&state, &headers, &app, Permission::PushSend).await?;
    let (id, app) = (schedule_id(&id)?, caller.app.clone());
    state
        .carry_out(caller.actor(), move |context| {
            schedules::delete(context, &app, id)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a push until its time; `None` if that has come already, so that it is to be made now.
pub(crate) async fn keep_push(
    state: &ApiState,
    caller: &Caller,
    body: &[u8],
    not_before_ms: u64,
    key: Option<Idempotency>,
) -> Result<Option<Created>, Problem> {
    if let Some(key) = &key
        && let Some(before) = made_before(state, caller, key).await?
    {
        return Ok(Some(before));
    }
    let now_ms = state.now_ms();
    if not_before_ms <= now_ms {
        return Ok(None);
    }
    let schedule = Schedule::of_push(body, not_before_ms, state.new_id(), now_ms)?;
    keep(state, caller, schedule, key).await.map(Some)
}

/// The push that waits under that id, if there is one.
pub(crate) async fn waiting_push(
    state: &ApiState,
    app: AppName,
    id: PushId,
) -> Result<Option<Schedule>, Problem> {
    let found = state
        .look(move |context| schedules::get(context, &app, id))
        .await?;
    Ok(found.filter(|schedule| schedule.is_push && schedule.is_open()))
}

async fn made_before(
    state: &ApiState,
    caller: &Caller,
    key: &Idempotency,
) -> Result<Option<Created>, Problem> {
    let (app, key) = (caller.app.clone(), key.clone());
    let plan = move |context: &Context<'_>| {
        Ok(Planned::nothing(schedules::made_before(
            context, &app, &key,
        )?))
    };
    state.carry_out(caller.actor(), plan).await
}

async fn keep(
    state: &ApiState,
    caller: &Caller,
    schedule: Schedule,
    key: Option<Idempotency>,
) -> Result<Created, Problem> {
    if let Some(due_ms) = schedule.due_ms() {
        announce(state, caller, schedule.id, due_ms).await?;
    }
    let app = caller.app.clone();
    let plan =
        move |context: &Context<'_>| schedules::create(context, &app, &schedule, key.as_ref());
    state.carry_out(caller.actor(), plan).await
}

async fn edit(
    state: &ApiState,
    caller: &Caller,
    id: ScheduleId,
    edit: Edit,
) -> Result<Response, Problem> {
    let (app, what) = (caller.app.clone(), edit.clone());
    let from_ms = state
        .carry_out(caller.actor(), move |context| {
            schedules::due_after(context, &app, id, &what).map(Planned::nothing)
        })
        .await?;
    if let Some(due_ms) = from_ms {
        announce(state, caller, id, due_ms).await?;
    }
    let app = caller.app.clone();
    let schedule = state
        .carry_out(caller.actor(), move |context| {
            schedules::edit(context, &app, id, &edit, from_ms)
        })
        .await?;
    Ok(json(StatusCode::OK, schedule.to_json()))
}

async fn announce(
    state: &ApiState,
    caller: &Caller,
    id: ScheduleId,
    due_ms: u64,
) -> Result<(), Problem> {
    let app = caller.app.clone();
    let plan = move |context: &Context<'_>| schedules::announce(context, &app, id, due_ms);
    state.carry_out(caller.actor(), plan).await
}

fn schedule_id(text: &str) -> Result<ScheduleId, Problem> {
    text.parse().map_err(|_| no_schedule(text))
}

fn no_schedule(id: &str) -> Problem {
    Problem::new(Code::Missing, format!("there is no schedule {id:?}"))
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
