//! What watches a node: `/healthz`, `/readyz`, `/metrics`, `/version`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    ApiState, Version,
    openapi::{Content, Operation, Routes, of},
};

/// The routes for whoever watches the node.
pub(crate) fn routes() -> Routes {
    let healthz = Operation::new("getHealth", "Whether the process answers").answers(
        200,
        "It does.",
        of::<Health>(),
    );
    let readyz = Operation::new("getReadiness", "Whether the node should get traffic")
        .answers(200, "It should.", of::<Health>())
        .answers(503, "It should not, for these reasons.", of::<Health>());
    let text = Content::Other(
        "text/plain",
        "Prometheus' text format.",
        "campanile_connections 3\n",
    );
    let metrics = Operation::new("getMetrics", "Metrics").answers(200, "All metrics.", text);
    let version = Operation::new("getVersion", "What runs here").answers(
        200,
        "The version of the program.",
        of::<Version>(),
    );
    Routes::of("Watching", "How a node is. No key is needed.")
        .get("/healthz", self::healthz, healthz)
        .get("/readyz", self::readyz, readyz)
        .get("/metrics", self::metrics, metrics)
        .get("/version", self::version, version)
}

/// An answer of `/healthz` or `/readyz`.
#[derive(Serialize, JsonSchema)]
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
