//! API keys and the audit log.

mod common;

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use campanile_push::key::ApiKey;
use common::{Answer, Api, NOW_MS, api};
use serde_json::json;
use std::sync::atomic::Ordering;

async fn send(api: &Api, method: Method, path: &str, body: &str) -> Answer {
    let request = api
        .request(method, path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()));
    api.send(request.unwrap()).await
}

/// Makes a key and returns its id and secret.
async fn make(api: &Api, permissions: &str) -> (String, String) {
    let body = format!("{{\"label\":\"a server\",\"permissions\":{permissions}}}");
    let answer = send(api, Method::POST, "/v1/apps/shop/keys", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

/// What a key gets for a GET.
async fn get_with(api: &Api, key: &str, path: &str) -> Answer {
    let request = axum::http::Request::builder()
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"));
    api.send(request.body(Body::empty()).unwrap()).await
}

const NO_PUSH: &str = "/v1/apps/shop/pushes/00000000000000000000000000";

#[tokio::test]
async fn a_key_may_do_what_it_was_made_for() {
    let api = api();
    let (id, reader) = make(&api, r#"["read"]"#).await;
    let (_, sender) = make(&api, r#"["push:send"]"#).await;
    let answer = get_with(&api, &reader, NO_PUSH).await;
    assert_eq!(answer.problem(), "push_not_found", "it may look");
    let answer = get_with(&api, &reader, "/v1/apps/shop/keys").await;
    assert_eq!(answer.problem(), "not_permitted");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(
        detail,
        format!("this needs a key with the permission admin; key {id} has read")
    );
    let answer = get_with(&api, &sender, NO_PUSH).await;
    assert_eq!(answer.problem(), "not_permitted");
}

#[tokio::test]
async fn keys_are_listed_without_their_secrets() {
    let api = api();
    let (id, secret) = make(&api, r#"["read", "push:send"]"#).await;
    let answer = api.get("/v1/apps/shop/keys").await;
    assert!(!answer.body.contains(&secret));
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    let made = keys.iter().find(|key| key["id"] == id.as_str()).unwrap();
    assert_eq!(
        *made,
        json!({
            "id": id,
            "label": "a server",
            "permissions": ["push:send", "read"],
            "created_at": "2026-11-23T06:00:00.000Z",
        })
    );
    assert_eq!(keys.len(), 2);
}

#[tokio::test]
async fn a_revoked_key_is_no_key() {
    let api = api();
    let (id, secret) = make(&api, r#"["read"]"#).await;
    let path = format!("/v1/apps/shop/keys/{id}");
    let answer = send(&api, Method::DELETE, &path, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        get_with(&api, &secret, NO_PUSH).await.problem(),
        "key_invalid"
    );
    let answer = send(&api, Method::DELETE, &path, "").await;
    assert_eq!(answer.problem(), "missing");
}

#[tokio::test]
async fn the_last_key_that_may_do_everything_stays() {
    let api = api();
    let keys = api.get("/v1/apps/shop/keys").await.json();
    let id = keys["keys"][0]["id"].as_str().unwrap();
    let path = format!("/v1/apps/shop/keys/{id}");
    let answer = send(&api, Method::DELETE, &path, "").await;
    assert_eq!(answer.problem(), "clash");
    make(&api, r#"["admin"]"#).await;
    let answer = send(&api, Method::DELETE, &path, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let api = api();
    let (id, old) = make(&api, r#"["read"]"#).await;
    let path = format!("/v1/apps/shop/keys/{id}:rotate");
    let answer = send(&api, Method::POST, &path, r#"{"grace": 60}"#).await;
    assert_eq!(answer.json()["old_valid_until"], "2026-11-23T06:01:00.000Z");
    let new = answer.json()["key"].as_str().unwrap().to_owned();
    assert!(ApiKey::parse(&new).is_ok());
    api.now_ms.store(NOW_MS + 59_999, Ordering::Relaxed);
    assert_eq!(
        get_with(&api, &new, NO_PUSH).await.problem(),
        "push_not_found"
    );
    api.now_ms.store(NOW_MS + 60_000, Ordering::Relaxed);
    assert_eq!(get_with(&api, &old, NO_PUSH).await.problem(), "key_invalid");
    let path = format!("/v1/apps/shop/keys/{id}:burn");
    let answer = send(&api, Method::POST, &path, "").await;
    assert_eq!(answer.problem(), "not_found");
}

#[tokio::test]
async fn who_changed_what_is_written_down() {
    let api = api();
    let (id, _) = make(&api, r#"["read"]"#).await;
    send(
        &api,
        Method::DELETE,
        &format!("/v1/apps/shop/keys/{id}"),
        "",
    )
    .await;
    let first = api.get("/v1/apps/shop/audit?limit=2").await.json();
    let next = first["next"].as_str().unwrap();
    let rest = api.get(&format!("/v1/apps/shop/audit?after={next}")).await;
    assert_eq!(rest.json()["next"], serde_json::Value::Null);
    let entries: Vec<_> = [&first, &rest.json()]
        .iter()
        .flat_map(|page| page["entries"].as_array().unwrap().clone())
        .map(|entry| format!("{} {}", entry["action"], entry["object"]).replace('"', ""))
        .collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        entries[1..],
        [format!("key.created {id}"), format!("key.revoked {id}")]
    );
    let answer = api.get("/v1/apps/shop/audit?limit=0").await;
    assert_eq!(answer.problem(), "invalid_parameter");
}
