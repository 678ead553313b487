//! Pushes that come otherwise than one by one in our own words.

mod common;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use campanile_push::{lanes::Priority, store::Audience};
use common::{Answer, Api, Mood, api};
use serde_json::json;

const GOOD: &str = r#"{"audience":{"devices":["d1"]},"data":{"n":1}}"#;

async fn post(api: &Api, path: &str, body: &str) -> Answer {
    post_with(api, path, body, &[]).await
}

async fn post_with(api: &Api, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = api
        .request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(Body::from(body.to_owned())).unwrap())
        .await
}

#[tokio::test]
async fn a_push_is_checked_without_being_sent() {
    let api = api();
    let answer = post(&api, "/v1/apps/shop/pushes:validate", GOOD).await;
    let valid = answer.json();
    assert_eq!(
        (&valid["valid"], &valid["payload_bytes"]),
        (&json!(true), &json!(7))
    );
    assert_eq!(valid["audience"]["exact"], true, "{valid}");
    assert_eq!(valid["arrival"]["first_at"], valid["arrival"]["last_at"]);
    let bad = r#"{"audience":{"expr":"vip &&"},"data":{}}"#;
    let answer = post(&api, "/v1/apps/shop/pushes:validate", bad).await;
    assert_eq!(answer.problem(), "invalid_expression");
    let bad = r#"{"audience":{"segment":"none"},"data":{}}"#;
    let answer = post(&api, "/v1/apps/shop/pushes:validate", bad).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
    assert!(api.store.accepted().is_empty());
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_in_its_order() {
    let api = api();
    let body = format!(r#"{{"pushes":[{GOOD},{{"audience":{{"all":1}},"data":{{}}}},{GOOD},7]}}"#);
    let answer = post(&api, "/v1/apps/shop/pushes:batch", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let statuses: Vec<_> = results
        .iter()
        .map(|r| r["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [202, 400, 202, 400]);
    assert_eq!(results[1]["code"], "invalid_field");
    assert_eq!(results[1]["field"], "/pushes/1/audience/all");
    assert_ne!(results[0]["push_id"], results[2]["push_id"]);
    assert_eq!(api.store.accepted().len(), 2);
}

#[tokio::test]
async fn a_batch_is_idempotent_push_by_push() {
    let api = api();
    let path = "/v1/apps/shop/pushes:batch";
    let key = [("idempotency-key", "batch-1")];
    let one = format!(r#"{{"pushes":[{GOOD}]}}"#);
    let two = format!(r#"{{"pushes":[{GOOD},{GOOD}]}}"#);
    let first = post_with(&api, path, &one, &key).await.json();
    let again = post_with(&api, path, &two, &key).await.json();
    let id = |answer: &serde_json::Value, at: usize| answer["results"][at]["push_id"].clone();
    assert_eq!(id(&again, 0), id(&first, 0));
    assert_eq!(again["results"][0]["replayed"], true);
    assert_ne!(id(&again, 1), id(&first, 0), "another push of the batch");
    assert_eq!(api.store.accepted().len(), 2);
}

const FCM: &str = "/compat/fcm/v1/projects/shop/messages:send";

#[tokio::test]
async fn what_speaks_fcm_can_push() {
    let api = api();
    let body = r#"{"message":{"token":"d1","notification":{"title":"Hello"},"data":{"a":"b"},"android":{"ttl":"60s"}}}"#;
    let answer = post(&api, FCM, body).await;
    assert_eq!(
        answer.json(),
        json!({"name": "projects/shop/messages/00000000000000000000000001"})
    );
    let stored = api.store.accepted().pop().unwrap();
    assert_eq!(stored.audience, Audience::Devices(vec!["d1".into()]));
    assert_eq!(stored.expires_ms - stored.accepted_ms, 60_000);

    let body = r#"{"message":{"token":"d1","data":{"a":"b"},"android":{"priority":"HIGH","collapse_key":"score"},"apns":{"headers":{"apns-priority":"10","apns-collapse-id":"score"}}}}"#;
    assert_eq!(post(&api, FCM, body).await.status, StatusCode::OK);
    let stored = api.store.accepted().pop().unwrap();
    assert_eq!(stored.priority, Priority::High);
    assert_eq!(stored.collapse_key.as_deref(), Some("score"));

    let body = r#"{"message":{"topic":"news","data":{"a":"b"},"android":{"priority":"NORMAL"}}}"#;
    assert_eq!(post(&api, FCM, body).await.status, StatusCode::OK);
    let body = body.replace("NORMAL", "HIGH");
    assert_eq!(post(&api, FCM, &body).await.status, StatusCode::OK);
    let stored = api.store.accepted().pop().unwrap();
    assert!(stored.rows.is_some(), "to an audience it is a campaign");

    let body = r#"{"message":{"token":"d1","webpush":{}},"validate_only":true}"#;
    let answer = post(&api, FCM, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["error"]["status"], "INVALID_ARGUMENT");
    assert!(answer.body.contains("message.webpush"), "{answer:?}");

    api.store.set_mood(Mood::Down);
    let body = r#"{"message":{"token":"d1","data":{"a":"b"}}}"#;
    let answer = post(&api, FCM, body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"]["status"], "UNAVAILABLE");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn what_fcm_only_checks_is_not_sent() {
    let api = api();
    let body = r#"{"message":{"topic":"news","data":{"a":"b"}},"validate_only":true}"#;
    let answer = post(&api, FCM, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(api.store.accepted().is_empty());
}

#[tokio::test]
async fn what_speaks_jpush_can_push() {
    let api = api();
    let send = |user: String, body: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/compat/jpush/v3/push")
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", BASE64_STANDARD.encode(user)),
            );
        api.send(request.body(Body::from(body.to_owned())).unwrap())
    };
    let shop = format!("shop:{}", api.shop.reveal());
    let body = r#"{"platform":"all","audience":{"registration_id":["d1","d2"]},"notification":{"alert":"Hello"},"options":{"sendno":7,"time_to_live":60},"cid":"once"}"#;
    let first = send(shop.clone(), body).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(first.json()["sendno"], "7");
    let again = send(shop.clone(), body).await;
    assert_eq!(again.json(), first.json(), "the same cid");
    assert_eq!(api.store.accepted().len(), 1);

    let keyed = body
        .replace(r#""time_to_live":60"#, r#""apns_collapse_id":"score""#)
        .replace("once", "keyed");
    assert_eq!(send(shop.clone(), &keyed).await.status, StatusCode::OK);
    let stored = api.store.accepted().pop().unwrap();
    assert_eq!(stored.collapse_key.as_deref(), Some("score"));

    let answer = send("shop:cmp_wrong".into(), body).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.json()["error"]["code"], 1004);
    let answer = send(
        shop,
        r#"{"platform":"all","audience":"all","message":{"msg_content":"x"},"sms_message":{}}"#,
    )
    .await;
    assert_eq!(answer.json()["error"]["code"], 1003);
    assert!(answer.body.contains("sms_message"), "{answer:?}");
}
