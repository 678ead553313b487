//! `POST /v1/apps/{app}/pushes:batch`: different pushes in one request, with a result for each.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use campanile_push::{
    idempotency::IdempotencyKey, registry::permission::Permission, request::batch,
};
use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    ApiState,
    auth::Caller,
    body,
    openapi::{self, Operation, of},
    problem::Problem,
    pushes::{self, Accepted},
};

/// Bytes of a body: a thousand pushes of the default size.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Pushes of one request that are on their way to the store at a time: enough to fill its commits, and no more than one caller's share.
const AT_ONCE: usize = 64;

/// What `POST /v1/apps/{app}/pushes:batch` takes and answers.
pub(crate) fn operation() -> Operation {
    let one = serde_json::json!({"audience": {"devices": ["phone-1"]}, "data": {"n": 1}});
    Operation::new("sendPushes", "Makes many pushes at once")
        .tells("Up to 8 MiB. Each is taken or refused by itself. With an `Idempotency-Key` the batch can be sent again whole: each push has a key of its own by its place.")
        .needs(Permission::PushSend)
        .idempotent()
        .takes(openapi::reference("Pushes"), serde_json::json!({"pushes": [one]}))
        .answers(200, "What became of each, in their order.", of::<Results>())
}

/// What became of each, in the order of the request.
#[derive(Serialize, JsonSchema)]
struct Results {
    results: Vec<Item>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Result")]
#[serde(untagged)]
enum Item {
    Accepted {
        status: u16,
        #[serde(flatten)]
        accepted: Accepted,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    Refused {
        status: u16,
        code: &'static str,
        detail: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
    },
}

/// Takes the pushes one by one; one that is refused does not disturb the others.
pub(crate) async fn accept(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let idempotency = pushes::idempotency_key(&headers)?;
    body::check_type(&headers)?;
    let body = body::read_at_most(&headers, body, state.config(), MAX_BODY_BYTES).await?;
    let requests = batch::split(&body)?;
    let requests: Vec<String> = requests.into_iter().map(Into::into).collect();
    let send = |(index, request): (usize, String)| {
        let key = idempotency.as_ref().map(|key| key.of_item(index));
        let (state, caller) = (state.clone(), caller.clone());
        async move { item(&state, &caller, index, &request, key).await }
    };
    let results = stream::iter(requests.into_iter().enumerate())
        .map(send)
        .buffered(AT_ONCE)
        .collect()
        .await;
    Ok(Json(Results { results }).into_response())
}

async fn item(
    state: &ApiState,
    caller: &Caller,
    index: usize,
    request: &str,
    key: Option<IdempotencyKey>,
) -> Item {
    match pushes::send(state, caller, request.as_bytes(), key).await {
        Ok(sent) => Item::Accepted {
            status: 202,
            accepted: Accepted::of(&sent),
            replayed: sent.replayed,
        },
        Err(problem) => Item::Refused {
            status: problem.code().status().as_u16(),
            code: problem.code().text(),
            detail: problem.detail().to_owned(),
            field: problem
                .field()
                .map(|field| format!("/pushes/{index}{field}")),
        },
    }
}
