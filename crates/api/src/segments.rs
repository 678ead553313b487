//! `/v1/apps/{app}/segments`: saved expressions.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use campanile_push::{
    registry::{
        Context,
        permission::Permission,
        segments::{self, Segment},
    },
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    body::JsonBody,
    openapi::{self, Content, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
    query::Paging,
};

/// The routes of segments.
pub(crate) fn routes() -> Routes {
    const ONE: &str = "/v1/apps/{app}/segments/{segment}";
    let list = Operation::new("listSegments", "Lists segments")
        .tells("By their names.")
        .needs(Permission::Read)
        .paged()
        .answers(200, "A page of segments.", of::<Listed>());
    let show = Operation::new("getSegment", "Shows a segment")
        .needs(Permission::Read)
        .answers(200, "The segment.", of::<Shown>())
        .may(&[Code::Missing, Code::InvalidField]);
    let put = Operation::new("putSegment", "Saves an expression under a name")
        .tells("A push to the segment takes the expression as it is then. An app has at most 1000.")
        .needs(Permission::DeviceWrite)
        .takes(
            openapi::reference("SegmentChange"),
            json!({"expr": "vip && platform == \"ios\""}),
        )
        .answers(200, "It was there before, and is this now.", of::<Shown>())
        .answers(201, "It is there now.", of::<Shown>())
        .leads_to("getSegment", "segment", "/segment")
        .leads_to("deleteSegment", "segment", "/segment")
        .may(&[Code::InvalidExpression, Code::QuotaReached]);
    let delete = Operation::new("deleteSegment", "Removes a segment")
        .needs(Permission::DeviceWrite)
        .answers(204, "It is gone.", Content::None)
        .may(&[Code::Missing, Code::InvalidField]);
    Routes::of("Segments", "Expressions under a name.")
        .get("/v1/apps/{app}/segments", self::list, list)
        .get(ONE, self::show, show)
        .put(ONE, self::put, put)
        .delete(ONE, self::delete, delete)
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Segment")]
pub(crate) struct Shown {
    segment: String,
    /// In its canonical form.
    expr: String,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Segments")]
pub(crate) struct Listed {
    segments: Vec<Shown>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<Segment> for Shown {
    fn from(segment: Segment) -> Shown {
        Shown {
            expr: segment.expression.to_string(),
            segment: segment.name,
            created_at: rfc3339(segment.created_ms),
            updated_at: rfc3339(segment.updated_ms),
        }
    }
}

/// `GET /v1/apps/{app}/segments?after=&limit=`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
) -> Result<Json<Listed>, Problem> {
    let paging = Paging::parse(text.as_deref())?;
    let (segments, more) = state
        .look(move |context| {
            let after = paging.after.as_deref();
            segments::list(context, &caller.app, after, paging.limit)
        })
        .await?;
    let next = segments.last().map(|last| last.name.clone());
    Ok(Json(Listed {
        segments: segments.into_iter().map(Shown::from).collect(),
        next: next.filter(|_| more),
    }))
}

/// `GET /v1/apps/{app}/segments/{segment}`
pub(crate) async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, name)): InPath<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let segment = state
        .ask(move |context| segments::get(context, &caller.app, &name))
        .await?;
    Ok(Json(segment.into()))
}

/// `PUT /v1/apps/{app}/segments/{segment}`
pub(crate) async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, name)): InPath<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let expression = segments::parse(&body)?;
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| segments::put(context, &caller.app, &name, &expression);
    let (segment, created) = state.carry_out(actor, plan).await?;
    let status = match created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(Shown::from(segment))).into_response())
}

/// `DELETE /v1/apps/{app}/segments/{segment}`
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, name)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = caller.actor();
    let plan = move |context: &Context<'_>| segments::delete(context, &caller.app, &name);
    state.carry_out(actor, plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
