//! `/v1/apps/{app}/schedules`: pushes at times to come; and `not_before` of a push, which is a schedule of one run.

use axum::{
    body::Body,
    extract::{RawQuery, State},
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
    auth::Caller,
    body,
    openapi::{self, Content, Operation, Routes, named},
    path::InPath,
    problem::{Code, Problem},
    pushes::{IDEMPOTENT_REPLAYED, idempotency_key, key_reused},
    query::Paging,
};

/// The routes of schedules.
pub(crate) fn routes() -> Routes {
    const ALL: &str = "/v1/apps/{app}/schedules";
    const ONE: &str = "/v1/apps/{app}/schedules/{id}";
    let example = || {
        serde_json::json!({
            "name": "weekly offers", "when": {"cron": "0 9 * * 1", "time_zone": "Europe/Vienna"},
            "push": {"audience": {"all": true}, "notification": {"title": "New this week"}}, "missed": "skip",
        })
    };
    let list = Operation::new("listSchedules", "Lists schedules")
        .tells("By their ids; pushes that wait for their `not_before` are among them.")
        .needs(Permission::Read)
        .paged_by_id()
        .answers(200, "A page of schedules.", named("Schedules"));
    let create = Operation::new("createSchedule", "Makes a schedule")
        .needs(Permission::PushSend)
        .idempotent()
        .takes(openapi::reference("ScheduleRequest"), example())
        .answers(201, "The schedule.", named("Schedule"))
        .leads_to("getSchedule", "id", "/id")
        .leads_to("changeSchedule", "id", "/id")
        .leads_to("pauseSchedule", "id", "/id")
        .leads_to("resumeSchedule", "id", "/id")
        .leads_to("runSchedule", "id", "/id")
        .leads_to("deleteSchedule", "id", "/id")
        .header("Location", "Of the schedule.")
        .header(
            "Idempotent-Replayed",
            "`true` if an earlier request of the same key made it.",
        )
        .may(&[
            Code::Clash,
            Code::InvalidExpression,
            Code::PayloadTooLarge,
            Code::QuotaReached,
        ]);
    let show = Operation::new("getSchedule", "Shows a schedule")
        .needs(Permission::Read)
        .answers(
            200,
            "The schedule with its next five runs.",
            named("Schedule"),
        )
        .may(&[Code::Missing]);
    let change = Operation::new("changeSchedule", "Changes a schedule")
        .tells("Only what the body names; `null` takes `until` or `max_runs` away.")
        .needs(Permission::PushSend)
        .takes(
            openapi::reference("ScheduleChange"),
            serde_json::json!({"max_runs": 10}),
        )
        .answers(200, "The schedule as it is now.", named("Schedule"))
        .may(&[
            Code::Missing,
            Code::Clash,
            Code::InvalidExpression,
            Code::PayloadTooLarge,
        ]);
    let act = |id, summary, description| {
        Operation::new(id, summary)
            .tells(description)
            .needs(Permission::PushSend)
            .answers(200, "The schedule as it is now.", named("Schedule"))
            .may(&[Code::Missing, Code::Clash])
    };
    let verbs = [
        (
            "pause",
            act(
                "pauseSchedule",
                "Plans nothing until it is resumed",
                "What would have been meanwhile does not happen and is not missed.",
            ),
        ),
        (
            "resume",
            act(
                "resumeSchedule",
                "Goes on with what is planned from now",
                "",
            ),
        ),
        (
            "run",
            act(
                "runSchedule",
                "Makes one run now",
                "Beside what is planned. The answer has its push id in `waiting`.",
            ),
        ),
    ];
    let delete = Operation::new("deleteSchedule", "Removes a schedule")
        .tells("Of a push that waits for its `not_before`: takes it back.")
        .needs(Permission::PushSend)
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing, Code::Clash]);
    Routes::of("Schedules", "Pushes at times to come.")
        .get(ALL, self::list, list)
        .post(ALL, self::create, create)
        .get(ONE, self::show, show)
        .patch(ONE, self::change, change)
        .delete(ONE, self::delete, delete)
        .verbs(ONE, self::act, verbs)
}

/// `GET /v1/apps/{app}/schedules`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let paging = Paging::parse(text.as_deref())?;
    let after: Option<ScheduleId> = paging.after_id()?;
    let (page, more) = state
        .look(move |context| schedules::list(context, &caller.app, after, paging.limit))
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
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let body = body::read_json(&headers, body, state.config()).await?;
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
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
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
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = schedule_id(&id)?;
    let body = body::read_json(&headers, body, state.config()).await?;
    let change = Change::parse(&body, &state.limits())?;
    edit(&state, &caller, id, Edit::Fields(Box::new(change))).await
}

/// `POST /v1/apps/{app}/schedules/{id}:pause`, `:resume`, `:run`
pub(crate) async fn act(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, target)): InPath<(String, String)>,
) -> Result<Response, Problem> {
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
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
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
    state
        .ask(move |context| schedules::made_before(context, &app, &key))
        .await
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
