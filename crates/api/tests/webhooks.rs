//! Webhooks as their owners manage them, and how they are told.

mod common;

use std::time::Duration;

use axum::http::StatusCode;
use campanile_api::teller;
use campanile_push::{
    event::{Draft, What},
    id::PushId,
    registry::permission::{Permission, Permissions},
    webhook::signature,
};
use common::{Api, NOW_MS, api};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

const HOOK: &str = "https://example.com/hook";

async fn make(api: &Api) -> Value {
    let made = api.call("POST", "webhooks", json!({"url": HOOK})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.json()
}

fn happened(number: u64) -> Draft {
    let device = format!("d{number}");
    let what = What::PushDelivered;
    Draft::new(Some(&device.as_str().into()), Some(PushId(9)), &what)
}

/// Lets the teller work until something is so.
async fn until(api: &Api, is_so: impl Fn(&Api) -> bool) {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let teller = tokio::spawn(teller::run(api.state.clone(), || true, stopped));
    let waited = async {
        while !is_so(api) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waited)
        .await
        .expect("it becomes so");
    drop(stop);
    teller.await.unwrap();
}

fn bodies(api: &Api) -> Vec<Value> {
    let got = api.receiver.got.lock().unwrap();
    got.iter()
        .map(|post| serde_json::from_str(&post.body).unwrap())
        .collect()
}

#[tokio::test]
async fn a_webhook_is_made_shown_changed_rotated_and_deleted() {
    let api = api();
    let made = make(&api).await;
    let (id, secret) = (
        made["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    assert!(secret.starts_with("whsec_"));
    let path = format!("webhooks/{id}");
    let shown = api.get(&format!("/v1/apps/shop/{path}")).await.json();
    assert_eq!(
        (&shown["url"], &shown["secret"]),
        (&json!(HOOK), &Value::Null)
    );
    let listed = api.get("/v1/apps/shop/webhooks").await.json();
    assert_eq!(listed, json!({"webhooks": [shown]}));
    let changed = api.call("PATCH", &path, json!({"state": "paused"})).await;
    assert_eq!(changed.json()["state"], "paused");
    let rotated = api.call("POST", &format!("{path}:rotate"), json!({})).await;
    assert_ne!(rotated.json()["secret"], secret);
    assert_eq!(
        api.call("DELETE", &path, json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        api.call("DELETE", &path, json!({})).await.problem(),
        "missing"
    );
    assert_eq!(
        api.get("/v1/apps/shop/webhooks/x").await.problem(),
        "missing"
    );
    let plain = json!({"url": "http://example.com/"});
    assert_eq!(
        api.call("POST", "webhooks", plain).await.problem(),
        "invalid_field"
    );
}

#[tokio::test]
async fn only_who_may_do_everything_manages_webhooks() {
    let api = api();
    let key = campanile_push::key::ApiKey::from_random([9; 32]);
    let permissions = Permissions::default().with(Permission::Read);
    api.store.add_key("shop", &key, permissions);
    let api = Api { shop: key, ..api };
    let refused = api.call("POST", "webhooks", json!({"url": HOOK})).await;
    assert_eq!(refused.problem(), "not_permitted");
    assert_eq!(
        api.get("/v1/apps/shop/callback-secret").await.problem(),
        "not_permitted"
    );
    assert_eq!(
        api.get("/v1/apps/shop/webhooks").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_test_says_what_the_receiver_answers() {
    let api = api();
    let made = make(&api).await;
    let path = format!("webhooks/{}:test", made["id"].as_str().unwrap());
    let tested = api.call("POST", &path, json!({})).await.json();
    assert_eq!(
        (&tested["taken"], &tested["answer"]),
        (&json!(true), &json!("HTTP 204"))
    );
    api.receiver.statuses.lock().unwrap().push(500);
    let tested = api.call("POST", &path, json!({})).await.json();
    assert_eq!(
        (&tested["taken"], &tested["answer"]),
        (&json!(false), &json!("HTTP 500"))
    );
    let got = api.receiver.got.lock().unwrap()[0].clone();
    assert_eq!(got.url, HOOK);
    let secret = made["secret"].as_str().unwrap();
    signature::verify(
        &got.signature,
        secret,
        got.body.as_bytes(),
        NOW_MS,
        signature::TOLERANCE,
    )
    .unwrap();
}

#[tokio::test]
async fn events_are_told_sent_again_given_up_and_replayed() {
    let api = api();
    let id = make(&api).await["id"].as_str().unwrap().to_owned();
    for number in 1..=3 {
        api.store.tell(happened(number));
    }
    api.receiver.statuses.lock().unwrap().extend([500, 422]);
    until(&api, |api| bodies(api).len() == 3).await;
    let devices: Vec<Value> = bodies(&api)
        .iter()
        .map(|body| body["device"].clone())
        .collect();
    assert_eq!(devices, ["d1", "d2", "d3"]);

    // What failed is kept for whoever tells next.
    api.now_ms
        .fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    until(&api, |api| bodies(api).len() == 4).await;
    assert_eq!(bodies(&api)[3], bodies(&api)[0]);

    let path = format!("webhooks/{id}/dead-letters");
    let dead = api.get(&format!("/v1/apps/shop/{path}")).await.json();
    let dead = dead["dead_letters"].as_array().unwrap().clone();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (&dead[0]["event"], &dead[0]["reason"]),
        (&bodies(&api)[1], &json!("refused"))
    );
    let body = json!({"ids": [dead[0]["id"]]});
    let replayed = api
        .call("POST", &format!("{path}:replay"), body)
        .await
        .json();
    assert_eq!(replayed, json!({"replayed": 1}));
    until(&api, |api| bodies(api).len() == 5).await;
    assert_eq!(bodies(&api)[4], bodies(&api)[1]);
    let dead = api.get(&format!("/v1/apps/shop/{path}")).await.json();
    assert_eq!(dead, json!({"dead_letters": []}));
}

#[tokio::test]
async fn a_webhook_that_is_gone_is_switched_off() {
    let api = api();
    let id = make(&api).await["id"].as_str().unwrap().to_owned();
    api.store.tell(happened(1));
    api.receiver.statuses.lock().unwrap().push(410);
    until(&api, |api| bodies(api).len() == 1).await;
    let shown = api
        .get(&format!("/v1/apps/shop/webhooks/{id}"))
        .await
        .json();
    assert_eq!(shown["state"], "disabled");
    api.store.tell(happened(2));
    let active = json!({"state": "active"});
    api.call("PATCH", &format!("webhooks/{id}"), active).await;
    until(&api, |api| bodies(api).len() == 2).await;
    assert_eq!(bodies(&api)[1]["device"], "d2");
}

#[tokio::test]
async fn callbacks_have_a_secret_of_the_app() {
    let api = api();
    let first = api.get("/v1/apps/shop/callback-secret").await.json();
    assert_eq!(first, api.get("/v1/apps/shop/callback-secret").await.json());
    let rotated = api
        .call("POST", "callback-secret:rotate", json!({}))
        .await
        .json();
    assert_ne!(first, rotated);
}
