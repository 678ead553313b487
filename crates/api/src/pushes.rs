//! `/v1/apps/{app}/pushes`: accepting pushes and reporting on them.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    id::{BadPushId, PushId},
    idempotency::IdempotencyKey,
    registry::permission::Permission,
    request::Request,
    store::{Command, Outcome, Report},
    time::rfc3339,
};
use serde::Serialize;

use crate::{
    ApiState, auth, body,
    problem::{Code, Problem},
    routes::path_problem,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The answer to a push.
#[derive(Serialize)]
struct Accepted {
    push_id: String,
    /// `null`: not counted yet.
    targeted: Option<u64>,
    accepted_at: String,
    expires_at: String,
}

/// `POST /v1/apps/{app}/pushes`
pub(crate) async fn accept(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(app) = path.map_err(path_problem)?;
    let app = auth::authorise(&state, &headers, &app, Permission::PushSend)
        .await?
        .app;
    let idempotency = idempotency_key(&headers)?;
    body::check_type(&headers)?;
    let body = body::read(&headers, body, state.config()).await?;
    let request = Request::parse(&body, &state.limits())?;

    let (id, now_ms) = (state.new_id(), state.now_ms());
    let ttl_ms = request.expires_ms(now_ms) - now_ms;
    let idempotency = idempotency.map(|key| key.bind(&body, now_ms));
    let audience = request
        .audience
        .self_contained(now_ms)
        .ok_or_else(|| Problem::new(Code::Missing, "there is no such audience"))?;
    let accept = request.accept(app.clone(), id, audience, now_ms, idempotency);
    match state.write(Command::Accept(Box::new(accept))).await? {
        Outcome::Accepted { targeted } => Ok(accepted(&app, id, targeted, now_ms, ttl_ms)),
        Outcome::Replayed {
            id,
            targeted,
            accepted_ms,
        } => {
            // The body is the same, so the time to live is.
            let mut response = accepted(&app, id, targeted, accepted_ms, ttl_ms);
            response
                .headers_mut()
                .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Outcome::KeyReused => Err(Problem::new(
            Code::IdempotencyKeyReused,
            "a request with another body used this Idempotency-Key within the last 24 hours; use a new key for a new push",
        )),
        other @ (Outcome::Done
        | Outcome::Changed { .. }
        | Outcome::Conflict
        | Outcome::Full { .. }) => {
            tracing::error!(%app, outcome = ?other, "the store answered a push with the outcome of another command");
            Err(Problem::internal(
                "the store gave an answer that makes no sense",
            ))
        }
    }
}

fn accepted(
    app: &AppName,
    id: PushId,
    targeted: Option<u64>,
    accepted_ms: u64,
    ttl_ms: u64,
) -> Response {
    let answer = Accepted {
        push_id: id.to_string(),
        targeted,
        accepted_at: rfc3339(accepted_ms),
        expires_at: rfc3339(accepted_ms.saturating_add(ttl_ms)),
    };
    let location = format!("/v1/apps/{app}/pushes/{id}");
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        axum::Json(answer),
    )
        .into_response()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match IdempotencyKey::new(value.as_bytes()) {
            Ok(key) => Ok(Some(key)),
            Err(bad) => Err(Problem::new(Code::InvalidIdempotencyKey, bad.to_string())),
        },
        (Some(_), Some(_)) => Err(Problem::new(
            Code::InvalidIdempotencyKey,
            "there is more than one Idempotency-Key header",
        )),
    }
}

/// What became of a push so far.
#[derive(Serialize)]
struct Reported {
    push_id: String,
    status: Status,
    /// This, `pending` and `expired` are `null` while the devices are being counted.
    targeted: Option<u64>,
    delivered: u64,
    pending: Option<u64>,
    expired: Option<u64>,
    dropped: u64,
    accepted_at: String,
    expires_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Some device may still get it.
    Active,
    /// The figures are final.
    Done,
}

/// `GET /v1/apps/{app}/pushes/{id}`
pub(crate) async fn report(
    State(state): State<ApiState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((app, id)) = path.map_err(path_problem)?;
    let app = auth::authorise(&state, &headers, &app, Permission::Read)
        .await?
        .app;
    let id: PushId = id
        .parse()
        .map_err(|bad: BadPushId| Problem::new(Code::InvalidPushId, bad.to_string()))?;
    let now_ms = state.now_ms();
    match state
        .read(move |reader| reader.report(&app, id, now_ms))
        .await?
    {
        Some(report) => Ok(axum::Json(Reported::new(id, &report)).into_response()),
        None => Err(Problem::new(
            Code::PushNotFound,
            "the app has no push of that id, or its report is no longer kept",
        )),
    }
}

impl Reported {
    fn new(id: PushId, report: &Report) -> Reported {
        let counted = |figure: u64| (!report.counting).then_some(figure);
        Reported {
            push_id: id.to_string(),
            status: if report.pending > 0 || report.counting {
                Status::Active
            } else {
                Status::Done
            },
            targeted: counted(report.targeted),
            delivered: report.delivered,
            pending: counted(report.pending),
            expired: counted(report.expired),
            dropped: report.dropped,
            accepted_at: rfc3339(report.accepted_ms),
            expires_at: rfc3339(report.expires_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_counted_is_null() {
        let id = PushId(7);
        let shown = |counting| {
            let report = Report {
                targeted: 3,
                delivered: 2,
                expired: 1,
                counting,
                ..Report::default()
            };
            let shown = serde_json::to_value(Reported::new(id, &report)).unwrap();
            let figures = ["targeted", "delivered", "pending", "expired", "status"];
            figures.map(|figure| shown[figure].clone())
        };
        let json = |figures: &str| serde_json::from_str::<[serde_json::Value; 5]>(figures).unwrap();
        assert_eq!(shown(true), json(r#"[null, 2, null, null, "active"]"#));
        assert_eq!(shown(false), json(r#"[3, 2, 0, 1, "done"]"#));
    }
}
