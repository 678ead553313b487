//! `/v1/apps/{app}/uploads`: long lists of devices, taken in as they come.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    registry::{
        Context,
        permission::Permission,
        uploads::{self, CHUNK, Format, Gathered, Lines, Upload},
    },
    time::rfc3339,
};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    ApiState,
    auth::Caller,
    body,
    openapi::{Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
};

/// Longest time for a whole list: a million lines over a slow line. Between two pieces of it, the time for a whole body of another kind.
const LONGEST: Duration = Duration::from_secs(600);

/// The routes of uploads.
pub(crate) fn routes() -> Routes {
    const ONE: &str = "/v1/apps/{app}/uploads/{upload}";
    let create = Operation::new("createUpload", "Takes a list of devices")
        .tells("Up to 1,000,000 devices, one a line. It is looked up while it comes in; a mistake in a line refuses the whole list and names the line. Kept for 7 days, at most 100 at a time.")
        .needs(Permission::DeviceWrite)
        .takes_other("text/plain", "A client identifier a line.", "phone-1\ntablet-7\n")
        .takes_other("application/x-ndjson", "A JSON string or `{\"device\": ..}` a line.", "\"phone-1\"\n\"tablet-7\"\n")
        .answers(201, "The list.", of::<Shown>())
        .leads_to("getUpload", "upload", "/upload")
        .leads_to("deleteUpload", "upload", "/upload")
        .header("Location", "Of the upload.")
        .may(&[Code::MalformedJson, Code::DuplicateField, Code::TooDeep, Code::UnknownField, Code::MissingField, Code::InvalidField, Code::QuotaReached]);
    let show = Operation::new("getUpload", "Shows an upload")
        .needs(Permission::Read)
        .answers(200, "The upload.", of::<Shown>())
        .may(&[Code::Missing, Code::InvalidField]);
    let delete = Operation::new("deleteUpload", "Removes an upload")
        .tells("Pushes to it that were made go on.")
        .needs(Permission::DeviceWrite)
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing, Code::InvalidField]);
    Routes::of("Uploads", "Long lists of devices.")
        .post("/v1/apps/{app}/uploads", self::create, create)
        .get(ONE, self::show, show)
        .delete(ONE, self::delete, delete)
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Upload")]
pub(crate) struct Shown {
    upload: String,
    /// Lines with a device.
    listed: u64,
    /// Different known devices.
    found: u64,
    /// Lines with a device that is not known.
    unknown: u64,
    /// The first of those; only in the answer to the list itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_devices: Option<Vec<String>>,
    created_at: String,
    expires_at: String,
}

impl From<Upload> for Shown {
    fn from(upload: Upload) -> Shown {
        Shown {
            upload: upload.id,
            listed: upload.listed,
            found: upload.found,
            unknown: upload.unknown,
            unknown_devices: None,
            created_at: rfc3339(upload.created_ms),
            expires_at: rfc3339(upload.expires_ms),
        }
    }
}

/// `POST /v1/apps/{app}/uploads`
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let format = format_of(&headers)?;
    body::check_encoding(&headers)?;
    let mut body = body;
    let gathered = match gather(&state, &caller.app, Lines::new(format), &mut body).await {
        Ok(gathered) => gathered,
        Err(problem) => {
            body::discard(&mut body, state.config()).await;
            return Err(problem);
        }
    };
    let unknown = gathered.named().iter().map(ToString::to_string).collect();
    let (actor, app) = (caller.actor(), caller.app.clone());
    let plan = move |context: &Context<'_>| uploads::create(context, &app, &gathered);
    let upload = state.carry_out(actor, plan).await?;
    let location = format!("/v1/apps/{}/uploads/{}", caller.app, upload.id);
    let shown = Shown {
        unknown_devices: Some(unknown),
        ..upload.into()
    };
    let location = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, location, Json(shown)).into_response())
}

/// Takes the list in and looks its devices up, a chunk at a time: while one is looked up, the next is not read.
async fn gather(
    state: &ApiState,
    app: &AppName,
    mut lines: Lines,
    body: &mut Body,
) -> Result<Gathered, Problem> {
    let until = Instant::now() + LONGEST;
    let mut gathered = Gathered::default();
    let mut devices: Vec<Arc<str>> = Vec::new();
    while let Some(piece) = next_piece(state, body, until).await? {
        lines.take(&piece, &mut devices)?;
        while devices.len() >= CHUNK {
            let rest = devices.split_off(CHUNK);
            let chunk = std::mem::replace(&mut devices, rest);
            gathered = add(state, app, gathered, chunk).await?;
        }
    }
    lines.finish(&mut devices)?;
    add(state, app, gathered, devices).await
}

async fn next_piece(
    state: &ApiState,
    body: &mut Body,
    until: Instant,
) -> Result<Option<bytes::Bytes>, Problem> {
    let wait = state.config().body_timeout();
    loop {
        let frame = timeout_at(until, timeout(wait, body.frame())).await;
        let Ok(Ok(frame)) = frame else {
            return Err(Problem::new(
                Code::BodyTimeout,
                format!(
                    "nothing came for {} ms, or the list took more than {} s",
                    wait.as_millis(),
                    LONGEST.as_secs()
                ),
            ));
        };
        let Some(frame) = frame else { return Ok(None) };
        if let Ok(data) = frame.map_err(|_| body::incomplete())?.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn add(
    state: &ApiState,
    app: &AppName,
    gathered: Gathered,
    devices: Vec<Arc<str>>,
) -> Result<Gathered, Problem> {
    let app = app.clone();
    state
        .look(move |context| gathered.add(context, &app, &devices))
        .await
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let given = headers.get(header::CONTENT_TYPE);
    let essence = given
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("text/plain") => Ok(Format::Text),
        Some("application/x-ndjson" | "application/jsonl") => Ok(Format::Json),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            format!(
                "the Content-Type is {:?}: send text/plain, a client identifier a line, or application/x-ndjson, a JSON string a line",
                given
                    .map_or(&b""[..], HeaderValue::as_bytes)
                    .escape_ascii()
                    .to_string()
            ),
        )),
    }
}

/// `GET /v1/apps/{app}/uploads/{upload}`
pub(crate) async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let upload = state
        .ask(move |context| uploads::get(context, &caller.app, &id))
        .await?;
    Ok(Json(upload.into()))
}

/// `DELETE /v1/apps/{app}/uploads/{upload}`
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| uploads::delete(context, &caller.app, &id);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
