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
    extract::{MatchedPath, Request, rejection::PathRejection},
    http::{HeaderValue, Method, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};

use crate::{
    ApiState, batch, campaigns, compat, connect, credentials, devices, events, explanations,
    groups, keys, listing, ops,
    problem::{Code, Problem},
    pushes, schedules, segments, uploads, users, webhooks,
};

/// Everything on one listener.
pub fn router(state: ApiState) -> Router {
    finished(resources().merge(watching()), state)
}

/// Only the resources of app servers, for a listener of their own.
pub fn app_routes(state: ApiState) -> Router {
    finished(resources(), state)
}

/// Only health, metrics and version, for a listener of their own.
pub fn ops_routes(state: ApiState) -> Router {
    finished(watching(), state)
}

fn resources() -> Router<ApiState> {
    Router::new()
        .route("/v1/connect", get(connect::connect))
        .route(
            "/v1/apps/{app}/pushes",
            get(listing::list).post(pushes::accept),
        )
        .route("/v1/apps/{app}/pushes:validate", post(pushes::validate))
        .route("/v1/apps/{app}/pushes:batch", post(batch::accept))
        .route(
            "/v1/apps/{app}/pushes/{id}",
            get(pushes::report).post(campaigns::act),
        )
        .route("/v1/apps/{app}/pushes/{id}/series", get(pushes::series))
        .route(
            "/v1/apps/{app}/pushes/{id}/devices/{device}",
            get(explanations::explain),
        )
        .route(
            "/compat/fcm/v1/projects/{app}/messages:send",
            post(compat::fcm),
        )
        .route("/compat/jpush/v3/push", post(compat::jpush))
        .route("/v1/apps/{app}/keys", get(keys::list).post(keys::create))
        .route(
            "/v1/apps/{app}/keys/{id}",
            delete(keys::revoke).post(keys::act),
        )
        .route(
            "/v1/apps/{app}/schedules",
            get(schedules::list).post(schedules::create),
        )
        .route(
            "/v1/apps/{app}/schedules/{id}",
            get(schedules::show)
                .post(schedules::act)
                .patch(schedules::change)
                .delete(schedules::delete),
        )
        .route("/v1/apps/{app}/audit", get(keys::audit))
        .merge(told())
        .merge(registry())
}

/// Who is told what happens.
fn told() -> Router<ApiState> {
    Router::new()
        .route("/v1/apps/{app}/events", get(events::stream))
        .route(
            "/v1/apps/{app}/devices/{device}/timeline",
            get(events::timeline),
        )
        .route(
            "/v1/apps/{app}/webhooks",
            get(webhooks::list).post(webhooks::create),
        )
        .route(
            "/v1/apps/{app}/webhooks/{id}",
            get(webhooks::show)
                .post(webhooks::act)
                .patch(webhooks::change)
                .delete(webhooks::delete),
        )
        .route(
            "/v1/apps/{app}/webhooks/{id}/dead-letters",
            get(webhooks::dead_letters),
        )
        .route(
            "/v1/apps/{app}/webhooks/{id}/dead-letters:replay",
            post(webhooks::replay),
        )
        .route(
            "/v1/apps/{app}/callback-secret",
            get(webhooks::callback_secret),
        )
        .route(
            "/v1/apps/{app}/callback-secret:rotate",
            post(webhooks::rotate_callback_secret),
        )
}

/// What an app keeps beside its pushes.
fn registry() -> Router<ApiState> {
    Router::new()
        .route("/v1/apps/{app}/devices", get(devices::list))
        .route(
            "/v1/apps/{app}/devices/{device}",
            get(devices::show)
                .put(devices::put)
                .post(credentials::act)
                .patch(devices::patch)
                .delete(devices::delete),
        )
        .route(
            "/v1/apps/{app}/devices/{device}/token",
            delete(credentials::revoke),
        )
        .route(
            "/v1/apps/{app}/device-keys",
            get(credentials::list_keys).post(credentials::add_key),
        )
        .route(
            "/v1/apps/{app}/device-keys/{kid}",
            delete(credentials::remove_key),
        )
        .route(
            "/v1/apps/{app}/device-rules",
            get(credentials::rules).put(credentials::set_rules),
        )
        .route("/v1/apps/{app}/users/{user}/devices", get(users::list))
        .route(
            "/v1/apps/{app}/users/{user}/devices/{device}",
            put(users::bind).delete(users::unbind),
        )
        .route("/v1/apps/{app}/tags/{tag}", post(groups::tags))
        .route("/v1/apps/{app}/topics/{topic}", post(groups::topics))
        .route("/v1/apps/{app}/segments", get(segments::list))
        .route(
            "/v1/apps/{app}/segments/{segment}",
            get(segments::show)
                .put(segments::put)
                .delete(segments::delete),
        )
        .route("/v1/apps/{app}/uploads", post(uploads::create))
        .route(
            "/v1/apps/{app}/uploads/{upload}",
            get(uploads::show).delete(uploads::delete),
        )
}

fn watching() -> Router<ApiState> {
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/version", get(ops::version))
}

fn finished(routes: Router<ApiState>, state: ApiState) -> Router {
    routes
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

/// A path that matches a route but cannot be decoded.
pub(crate) fn path_problem(_: PathRejection) -> Problem {
    Problem::new(
        Code::NotFound,
        "the path is not valid UTF-8 after percent-decoding",
    )
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
