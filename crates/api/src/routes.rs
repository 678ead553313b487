//! Which path is answered by what, and what all answers have in common.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Instant,
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};

use crate::{
    ApiState, admin, compat, connect, credentials, devices, events, groups, keys,
    openapi::{self, Routes},
    ops,
    problem::{Code, Problem},
    pushes, schedules, segments, uploads, webhooks,
};

/// Everything on one listener.
pub fn router(state: ApiState) -> Router {
    finished(all(), state)
}

/// Only the resources of app servers, for a listener of their own.
pub fn app_routes(state: ApiState) -> Router {
    finished(resources(), state)
}

/// Only health, metrics and version, for a listener of their own.
pub fn ops_routes(state: ApiState) -> Router {
    finished(ops::routes(), state)
}

/// What app servers use. A resource that is not in this list is not served, and not described.
fn resources() -> Routes {
    pushes::routes()
        .and(schedules::routes())
        .and(devices::routes())
        .and(credentials::routes())
        .and(groups::routes())
        .and(segments::routes())
        .and(uploads::routes())
        .and(events::routes())
        .and(webhooks::routes())
        .and(keys::routes())
        .and(admin::routes())
        .and(connect::routes())
        .and(compat::routes())
        .and(openapi::routes())
}

/// All that is served, for the document.
pub(crate) fn all() -> Routes {
    resources().and(ops::routes())
}

fn finished(routes: Routes, state: ApiState) -> Router {
    routes
        .into_router()
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async |method: Method| {
            Problem::new(
                Code::MethodNotAllowed,
                format!("{method} is not allowed at this path; the Allow header lists what is"),
            )
        })
        .layer(from_fn(observe))
        .with_state(state)
}

/// Counts and times every request, answers for a handler that panics, and keeps answers out of caches.
async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route
        .as_ref()
        .map_or("none", MatchedPath::as_str)
        .to_owned();

    let mut response = unless_it_panics(next.run(request)).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));

    let code = response
        .extensions()
        .get::<Code>()
        .map_or("", |code| code.text());
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    tracing::debug!(
        route,
        method,
        status,
        code,
        elapsed_ms = elapsed.as_secs_f64() * 1e3,
        "request"
    );
    metrics::histogram!("campanile_http_request_seconds", "route" => route.clone())
        .record(elapsed.as_secs_f64());
    metrics::counter!("campanile_http_requests_total", "route" => route, "method" => method, "status" => status.to_string(), "code" => code)
        .increment(1);
    response
}

async fn unless_it_panics(answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    // What a panicking handler may leave half changed are its own locals, which nobody sees again.
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(
                Problem::internal("the request met a bug of ours; the node's log has more")
                    .into_response(),
            ),
        },
    )
    .await
}

/// Methods are the caller's to invent, so that only the known ones become a label.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
