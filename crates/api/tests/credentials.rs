//! Credentials of devices, what devices may do, and the end of their connections.

mod common;

use axum::http::StatusCode;
use axum::http::{Request, header};
use campanile_push::{
    key::ApiKey,
    registry::permission::{Permission, Permissions},
};
use common::{Answer, Api, api};
use serde_json::{Value, json};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status.as_u16(), answer.problem());
    assert_eq!(found, (status, code.to_owned()), "{answer:?}");
}

async fn token(api: &Api, body: Value) -> Value {
    let answer = api.call("POST", "devices/phone%2F1:token", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_token_is_shown_once_replaced_and_revoked() {
    let api = api();
    let first = token(&api, json!({})).await;
    assert_eq!(first["device"], "phone/1");
    assert!(first["token"].as_str().unwrap().starts_with("cdt_"));
    assert_eq!(first.get("old_valid_until"), None);
    let second = token(&api, json!({"grace": 60})).await;
    assert_eq!(second["old_valid_until"], "2026-11-23T06:01:00.000Z");
    assert_ne!(first["token"], second["token"]);
    // The device is not registered by that.
    refused(
        &api.get("/v1/apps/shop/devices/phone%2F1").await,
        404,
        "missing",
    );
    let gone = api
        .call("DELETE", "devices/phone%2F1/token", json!({}))
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let again = api
        .call("DELETE", "devices/phone%2F1/token", json!({}))
        .await;
    refused(&again, 404, "missing");
    let audit = api.get("/v1/apps/shop/audit").await.json();
    let actions = audit["entries"].as_array().unwrap().iter();
    let actions: Vec<_> = actions.map(|entry| entry["action"].clone()).collect();
    for action in [
        "device.token_made",
        "device.token_rotated",
        "device.token_revoked",
    ] {
        assert!(actions.contains(&json!(action)), "{actions:?}");
    }
}

#[tokio::test]
async fn mistakes_are_told() {
    let api = api();
    let answer = api
        .call("POST", "devices/d:token", json!({"grace": -1}))
        .await;
    refused(&answer, 400, "invalid_field");
    refused(
        &api.call("POST", "devices/d:burn", json!({})).await,
        404,
        "not_found",
    );
    refused(
        &api.call("POST", "devices/d", json!({})).await,
        404,
        "not_found",
    );
    let reader = ApiKey::from_random([9; 32]);
    let permissions: Permissions = [Permission::Read].into_iter().collect();
    api.store.add_key("shop", &reader, permissions);
    for (method, path) in [
        ("POST", "devices/d:token"),
        ("POST", "devices/d:kick"),
        ("DELETE", "devices/d/token"),
        ("GET", "device-keys"),
        ("POST", "device-keys"),
        ("PUT", "device-rules"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/apps/shop/{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", reader.reveal()))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = api.send(request.body("{}".into()).unwrap()).await;
        refused(&answer, 403, "not_permitted");
    }
}

#[tokio::test]
async fn keys_are_added_listed_without_secrets_and_removed() {
    let api = api();
    let body = json!({"kid": "k1", "algorithm": "HS256", "secret": SECRET});
    let added = api.call("POST", "device-keys", body.clone()).await;
    assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
    refused(&api.call("POST", "device-keys", body).await, 409, "exists");
    let listed = api.get("/v1/apps/shop/device-keys").await;
    assert!(!listed.body.contains(SECRET));
    let shown =
        json!({"kid": "k1", "algorithm": "HS256", "created_at": "2026-11-23T06:00:00.000Z"});
    assert_eq!(listed.json(), json!({"device_keys": [shown]}));
    let wrong = json!({"kid": "k2", "algorithm": "ES256", "public_key": "x"});
    refused(
        &api.call("POST", "device-keys", wrong).await,
        400,
        "invalid_field",
    );
    let removed = api.call("DELETE", "device-keys/k1", json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    refused(
        &api.call("DELETE", "device-keys/k1", json!({})).await,
        404,
        "missing",
    );
}

#[tokio::test]
async fn rules_are_set_and_shown() {
    let api = api();
    let rules = || api.get("/v1/apps/shop/device-rules");
    let default = json!({"publish": [], "subscribe": ["users/{user}/#"], "tags": null});
    assert_eq!(rules().await.json(), default);
    let body = json!({"publish": ["d/{client}"], "tags": ["beta"]});
    let set = api.call("PUT", "device-rules", body).await;
    assert_eq!(set.status, StatusCode::OK, "{set:?}");
    assert_eq!(rules().await.json(), set.json());
    let wrong = api
        .call("PUT", "device-rules", json!({"publish": ["a#"]}))
        .await;
    refused(&wrong, 400, "invalid_field");
    assert_eq!(wrong.json()["field"], "/publish/0");
}

#[tokio::test]
async fn a_kick_says_where_it_found_the_device() {
    let api = api();
    api.cluster.add("a", 1, &[]);
    let kicked = api.call("POST", "devices/a:kick", json!({})).await;
    assert_eq!(kicked.json(), json!({"kicked": true, "node": "a"}));
    let nobody = api.call("POST", "devices/nobody:kick", json!({})).await;
    assert_eq!(nobody.json(), json!({"kicked": false}));
}
