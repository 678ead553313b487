//! `/compat`: requests of other push services, mapped to our own (`docs/compat.md`).

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    compat::{fcm, jpush},
    idempotency::IdempotencyKey,
    registry::permission::Permission,
};

use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    body,
    openapi::{self, Content, Operation, Routes, Shape},
    problem::{Code, Problem},
    pushes,
};

/// Refusals that our own request may get, whoever's words it came in.
const OF_PUSHES: &[Code] = &[
    Code::InvalidExpression,
    Code::PayloadTooLarge,
    Code::Missing,
    Code::Clash,
    Code::PushRateExceeded,
    Code::StoredBytesExceeded,
];

/// The routes of other services.
pub(crate) fn routes() -> Routes {
    let text = || json!({"type": "string"});
    let named = json!({"type": "object", "required": ["name"], "properties": {"name": text()}});
    let fcm = Operation::new("sendAsFcm", "A push in the words of FCM's HTTP v1")
        .needs(Permission::PushSend)
        .takes(
            openapi::reference("FcmRequest"),
            json!({"message": {"token": "phone-1", "notification": {"title": "Hello"}}}),
        )
        .answers(
            200,
            "It is accepted: `projects/APP/messages/PUSH_ID`.",
            Content::Told(named),
        )
        .may(OF_PUSHES)
        .refuses_as(Shape::Fcm);
    let numbered = json!({"type": "object", "required": ["sendno", "msg_id"], "properties": {"sendno": text(), "msg_id": text()}});
    let jpush = Operation::new("sendAsJpush", "A push in the words of JPush's Push API v3")
        .needs_password(Permission::PushSend)
        .takes(
            openapi::reference("JpushRequest"),
            json!({"platform": "all", "audience": "all", "notification": {"alert": "Hello"}}),
        )
        .answers(
            200,
            "It is accepted; `msg_id` is the push id.",
            Content::Told(numbered),
        )
        .may(OF_PUSHES)
        .may(&[Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused])
        .refuses_as(Shape::Jpush);
    Routes::of(
        "Other services",
        "Requests of FCM and JPush. Fields that mean nothing here are refused by name.",
    )
    .post(
        "/compat/fcm/v1/projects/{app}/messages:send",
        self::fcm,
        fcm,
    )
    .post("/compat/jpush/v3/push", self::jpush, jpush)
}

/// `POST /compat/fcm/v1/projects/{app}/messages:send`
pub(crate) async fn fcm(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let sent = send_as_fcm(&state, &caller, &headers, body).await;
    sent.unwrap_or_else(|problem| refusal(problem, Shape::Fcm))
}

async fn send_as_fcm(
    state: &ApiState,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(headers, body, state.config()).await?;
    let mapped = match fcm::map(&body, state.now_ms()) {
        Ok(mapped) => mapped,
        Err(violations) => return Ok(json(StatusCode::BAD_REQUEST, fcm::refused(&violations))),
    };
    let request = mapped.to_json();
    let id = if mapped.validate_only {
        pushes::dry_run(state, &caller.app, request.as_bytes()).await?;
        state.new_id()
    } else {
        pushes::send(state, caller, request.as_bytes(), None)
            .await?
            .id
    };
    Ok(json(StatusCode::OK, fcm::accepted(caller.app.as_str(), id)))
}

/// `POST /compat/jpush/v3/push`
pub(crate) async fn jpush(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let sent = send_as_jpush(&state, &caller, &headers, body).await;
    sent.unwrap_or_else(|problem| refusal(problem, Shape::Jpush))
}

async fn send_as_jpush(
    state: &ApiState,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(headers, body, state.config()).await?;
    let request = match jpush::map(&body) {
        Ok(request) => request,
        Err(violations) => return Ok(json(StatusCode::BAD_REQUEST, jpush::refused(&violations))),
    };
    let key = request.mapped.idempotency_key.as_ref();
    let key = key
        .map(|key| IdempotencyKey::new(key.as_bytes()))
        .transpose()
        .map_err(|bad| Problem::new(Code::InvalidIdempotencyKey, format!("cid: {bad}")))?;
    let ours = request.mapped.to_json();
    let sent = pushes::send(state, caller, ours.as_bytes(), key).await?;
    Ok(json(
        StatusCode::OK,
        jpush::accepted(request.sendno, sent.id),
    ))
}

/// A problem in the shape of the service that the caller takes us for.
pub(crate) fn refusal(problem: Problem, shape: Shape) -> Response {
    let in_their_words = match shape {
        Shape::Ours => return problem.into_response(),
        Shape::Fcm => fcm::problem,
        Shape::Jpush => jpush::problem,
    };
    let code = problem.code();
    let (status, body) = in_their_words(code.status().as_u16(), code.text(), problem.detail());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    response.extensions_mut().insert(code);
    for (name, value) in problem.headers() {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
