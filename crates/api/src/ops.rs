//! What watches a node: `/healthz`, `/readyz`, `/metrics`, `/version`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::ApiState;

/// An answer of `/healthz` or `/readyz`.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// The process is alive and answers.
pub(crate) async fn healthz() -> Response {
    Json(Health {
        status: "ok",
        reasons: Vec::new(),
    })
    .into_response()
}

/// Whether the node should get traffic, and if not, why.
pub(crate) async fn readyz(State(state): State<ApiState>) -> Response {
    let reasons = state.node().not_ready();
    if reasons.is_empty() {
        Json(Health {
            status: "ready",
            reasons,
        })
        .into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(Health {
                status: "not_ready",
                reasons,
            }),
        )
            .into_response()
    }
}

/// Metrics in Prometheus' text format.
pub(crate) async fn metrics(State(state): State<ApiState>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        state.node().metrics(),
    )
        .into_response()
}

/// What runs here.
pub(crate) async fn version(State(state): State<ApiState>) -> Response {
    Json(state.node().version()).into_response()
}
