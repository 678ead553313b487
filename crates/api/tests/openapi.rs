//! The document of the API, against the router that it is about.

mod common;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use campanile_push::{
    key::ApiKey,
    registry::permission::{Permission, Permissions},
};
use common::{api, conformance};
use serde_json::{Value, json};

/// A path of the document with something in each place.
fn filled(path: &str) -> String {
    let mut filled = String::new();
    for (index, part) in path.split(['{', '}']).enumerate() {
        filled += match (index % 2, part) {
            (0, literal) => literal,
            (_, "app") => "shop",
            (_, "id") => "01KAR0M4G0ZJ9QX6T5V8C2N3B7",
            _ => "a",
        };
    }
    filled
}

#[tokio::test]
async fn what_is_in_the_document_is_served() {
    let api = api();
    // Streams of events end when the node does.
    *api.node.0.lock().unwrap() = vec!["it is stopping".to_owned()];
    let document = conformance::document(api.router.clone()).await;
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = api
                .request(method.clone(), &filled(path))
                .header("content-type", "application/json");
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = match example {
                Value::Null => Body::empty(),
                example => Body::from(example.to_string()),
            };
            let answer = api.send(request.body(body).unwrap()).await;
            let code = answer
                .status
                .is_client_error()
                .then(|| answer.json()["code"].clone());
            assert!(
                !matches!(code, Some(code) if code == "not_found" || code == "method_not_allowed"),
                "{method} {path} is in the document, but not served: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_operation_needs_the_permission_that_the_document_names() {
    let api = api();
    *api.node.0.lock().unwrap() = vec!["it is stopping".to_owned()];
    let keys = Permission::ALL.map(|permission| {
        let key = ApiKey::from_random([0x40 | permission as u8; 32]);
        let permissions: Permissions = [permission].into_iter().collect();
        api.store.add_key("shop", &key, permissions);
        (key, permissions)
    });
    let document = conformance::document(api.router.clone()).await;
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            // The others need none, or a password.
            let Some(named) = operation["security"][0]["bearer"][0].as_str() else {
                continue;
            };
            let needed = Permission::parse(named).unwrap();
            for (key, permissions) in &keys {
                let request = Request::builder()
                    .method(method.to_uppercase().as_str())
                    .uri(filled(path))
                    .header("authorization", format!("Bearer {}", key.reveal()))
                    .header("content-type", "application/json");
                let answer = api.send(request.body("{}".into()).unwrap()).await;
                // In whatever shape: the key is of this app.
                let is_refused = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(
                    is_refused,
                    !permissions.allow(needed),
                    "{method} {path} with {permissions:?}: {answer:?}"
                );
                asked += 1;
            }
        }
    }
    assert!(asked > 300, "only {asked} requests");
}

#[tokio::test]
async fn examples_are_accepted() {
    let api = api();
    let document = conformance::document(api.router.clone()).await;
    for (path, body) in [
        ("devices/a", json!({})),
        ("tags/vip:add", json!({"devices": ["a"]})),
    ] {
        let method = if path.starts_with("devices") {
            "PUT"
        } else {
            "POST"
        };
        assert!(api.call(method, path, body).await.status.is_success());
    }
    // In an order in which what one needs, another has made.
    for (method, path) in [
        ("post", "/v1/apps/{app}/pushes"),
        ("post", "/v1/apps/{app}/pushes:validate"),
        ("post", "/v1/apps/{app}/pushes:batch"),
        ("put", "/v1/apps/{app}/devices/{device}"),
        ("patch", "/v1/apps/{app}/devices/{device}"),
        ("put", "/v1/apps/{app}/segments/{segment}"),
        ("post", "/v1/apps/{app}/tags/{tag}:add"),
        ("post", "/v1/apps/{app}/keys"),
        ("post", "/v1/apps/{app}/schedules"),
        ("post", "/v1/apps/{app}/webhooks"),
        ("post", "/v1/apps/{app}/devices/{device}:token"),
        ("post", "/v1/apps/{app}/device-keys"),
        ("put", "/v1/apps/{app}/device-rules"),
        ("post", "/compat/fcm/v1/projects/{app}/messages:send"),
    ] {
        let operation = &document["paths"][path][method];
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let request = api
            .request(method.to_uppercase().parse().unwrap(), &filled(path))
            .header("content-type", "application/json");
        let answer = api
            .send(request.body(example.to_string().into()).unwrap())
            .await;
        assert!(answer.status.is_success(), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_page_brings_all_that_it_needs() {
    let answer = api().get("/docs").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
        assert!(
            !answer.body.contains(elsewhere),
            "the page refers to {elsewhere}"
        );
    }
}
