//! The API through its router, without sockets.

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use campanile_api::{Config, problem::Code};
use campanile_push::{key::ApiKey, store::Audience};
use common::{Api, Mood, NOW_MS, api, api_with};
use proptest::prelude::*;
use serde_json::json;

const HELLO: &str = r#"{"audience":{"devices":["d1","d2","d1"]},"notification":{"title":"Hello"},"data":{"n":1},"options":{"ttl":60}}"#;

#[tokio::test]
async fn a_push_is_accepted_once_it_is_in_the_store() {
    let api = api();
    let answer = api.push(HELLO).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({
            "push_id": "00000000000000000000000001",
            "targeted": 2,
            "accepted_at": "2026-11-23T06:00:00.000Z",
            "expires_at": "2026-11-23T06:01:00.000Z",
        })
    );
    assert_eq!(
        answer.header("location"),
        Some("/v1/apps/shop/pushes/00000000000000000000000001")
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("idempotent-replayed"), None);

    let stored = api.store.accepted().pop().unwrap();
    assert_eq!(stored.app.as_str(), "shop");
    assert_eq!(
        stored.audience,
        Audience::Devices(vec!["d1".into(), "d2".into()])
    );
    assert_eq!(
        (stored.accepted_ms, stored.expires_ms),
        (NOW_MS, NOW_MS + 60_000)
    );
    assert_eq!(
        stored.payload,
        r#"{"id":"00000000000000000000000001","notification":{"title":"Hello"},"data":{"n":1},"sent_at":"2026-11-23T06:00:00.000Z"}"#
    );
    assert_eq!(stored.idempotency, None);
}

#[tokio::test]
async fn devices_are_told_where_to_connect_by_scheme() {
    let api = api();
    api.cluster.add(
        "full",
        1000,
        &[
            "mqtt://full:1883",
            "wss://full:443/mqtt",
            "ws://0.0.0.0:80/mqtt",
        ],
    );
    api.cluster
        .add("free", 10, &["mqtt://free:1883", "wss://free:443/mqtt"]);
    let without_key = Request::get("/v1/connect?app=shop&device=d1");
    let answer = api.send(without_key.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({
            "addresses": {
                "mqtt": ["mqtt://free:1883", "mqtt://full:1883"],
                "wss": ["wss://free:443/mqtt", "wss://full:443/mqtt"],
            },
            "ttl_seconds": 60,
        })
    );
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let answer = api.get("/v1/connect?scheme=wss").await;
    assert_eq!(answer.json()["addresses"]["mqtt"], json!(null));

    api.cluster.0.lock().unwrap()[1].draining = true;
    let answer = api.get("/v1/connect?scheme=mqtt").await;
    assert_eq!(
        answer.json()["addresses"],
        json!({ "mqtt": ["mqtt://full:1883"] })
    );
    for (query, status, code) in [
        ("scheme=ws", StatusCode::SERVICE_UNAVAILABLE, "no_node"),
        ("scheme=tcp", StatusCode::BAD_REQUEST, "invalid_parameter"),
        ("app=Shop", StatusCode::BAD_REQUEST, "invalid_parameter"),
        ("devise=d1", StatusCode::BAD_REQUEST, "invalid_parameter"),
    ] {
        let answer = api.get(&format!("/v1/connect?{query}")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code));
    }
}

#[tokio::test]
async fn a_storm_of_devices_spreads_and_each_comes_back_to_its_node() {
    let api = api();
    for name in ["a", "b", "c"] {
        let address = format!("mqtt://{name}:1883");
        api.cluster.add(name, 100, &[&address]);
    }
    let mut firsts = std::collections::BTreeMap::<String, u32>::new();
    for device in 0..300 {
        let path = format!("/v1/connect?device=d{device}");
        let answer = api.get(&path).await.json();
        assert_eq!(answer, api.get(&path).await.json());
        let first = answer["addresses"]["mqtt"][0].as_str().unwrap().to_owned();
        *firsts.entry(first).or_default() += 1;
    }
    assert!(firsts.len() == 3 && firsts.values().all(|count| *count > 60));
}

#[tokio::test]
async fn nothing_is_answered_before_the_store_has_an_outcome() {
    let api = api_with(Config {
        store_timeout_ms: 20,
        ..Config::default()
    });
    for mood in [Mood::Hangs, Mood::Drops] {
        api.store.set_mood(mood);
        let answer = api.push(HELLO).await;
        assert_eq!(answer.problem(), "outcome_unknown");
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn the_same_request_again_gets_the_first_answer() {
    let api = api();
    let first = api.push_once("k1", HELLO).await;
    api.now_ms.fetch_add(5000, Ordering::Relaxed);
    let again = api.push_once("k1", HELLO).await;
    assert_eq!(
        (again.status, again.json()),
        (StatusCode::ACCEPTED, first.json())
    );
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(
        (
            first.header("idempotent-replayed"),
            again.header("idempotent-replayed")
        ),
        (None, Some("true"))
    );
    assert_eq!(api.store.accepted().len(), 1);

    let other_key = api.push_once("k2", HELLO).await;
    assert_ne!(other_key.json()["push_id"], first.json()["push_id"]);
}

#[tokio::test]
async fn the_same_request_again_gets_the_first_answer_when_its_segment_is_gone() {
    let api = api();
    api.call("PUT", "segments/s1", json!({"expr": "vip"})).await;
    let body = r#"{"audience": {"segment": "s1"}, "data": {}}"#;
    let first = api.push_once("order-1", body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    api.call("DELETE", "segments/s1", json!(null)).await;
    let again = api.push_once("order-1", body).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert_eq!(again.json()["push_id"], first.json()["push_id"]);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = r#"{"audience": {"segment": "s1"}, "data": {"n": 1}}"#;
    let reused = api.push_once("order-1", other).await;
    assert_eq!(reused.problem(), "idempotency_key_reused");
    assert_eq!(api.push_once("order-2", body).await.problem(), "missing");
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_body_for_a_day() {
    let api = api();
    api.push_once("k", HELLO).await;
    let other = HELLO.replace("Hello", "Bye");
    let refused = api.push_once("k", &other).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem().as_str()),
        (422, "idempotency_key_reused")
    );
    api.now_ms.fetch_add(24 * 60 * 60 * 1000, Ordering::Relaxed);
    assert_eq!(
        api.push_once("k", &other).await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_idempotency_key() {
    let api = api();
    assert_eq!(api.push_once("k", "{}").await.problem(), "missing_field");
    assert_eq!(api.push_once("k", HELLO).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn idempotency_keys_that_cannot_be_are_refused() {
    let api = api();
    for bad in ["", "two words", "é", &"x".repeat(256)] {
        assert_eq!(
            api.push_once(bad, HELLO).await.problem(),
            "invalid_idempotency_key",
            "{bad}"
        );
    }
    let two = api
        .push_request()
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    assert_eq!(
        api.send(two.body(HELLO.into()).unwrap()).await.problem(),
        "invalid_idempotency_key"
    );
    assert_eq!(
        api.push_once(&"x".repeat(255), HELLO).await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn a_report_tells_what_became_of_a_push() {
    let api = api();
    let accepted = api.push(HELLO).await;
    let location = accepted.header("location").unwrap();
    let report = api.get(location).await;
    assert_eq!(report.status, StatusCode::OK);
    assert_eq!(
        report.json(),
        json!({
            "push_id": "00000000000000000000000001", "status": "active",
            "targeted": 2, "delivered": 0, "pending": 2, "expired": 0, "recalled": 0,
            "collapsed": 0, "dropped": 0, "failed": 0,
            "displayed": 0, "clicked": 0, "dismissed": 0,
            "accepted_at": "2026-11-23T06:00:00.000Z", "expires_at": "2026-11-23T06:01:00.000Z",
        })
    );
}

#[tokio::test]
async fn a_push_is_explained_for_each_device() {
    let api = api();
    let accepted = api.push(HELLO).await;
    let location = accepted.header("location").unwrap();
    let explained = api.get(&format!("{location}/devices/phone%20%2F1")).await;
    assert_eq!(explained.status, StatusCode::OK);
    assert_eq!(
        explained.json(),
        json!({
            "push_id": "00000000000000000000000001", "device": "phone /1", "code": "displayed", "message": "the device showed it",
        })
    );
    let unknown = "/v1/apps/shop/pushes/01KAR0M4G0ZJ9QX6T5V8C2N3B7/devices/a";
    assert_eq!(api.get(unknown).await.problem(), "push_not_found");
    let bad = "/v1/apps/shop/pushes/7/devices/a";
    assert_eq!(api.get(bad).await.problem(), "invalid_push_id");
}

#[tokio::test]
async fn reports_of_unknown_pushes_and_texts_that_are_no_ids() {
    let api = api();
    let problem = async |id: &str| {
        api.get(&format!("/v1/apps/shop/pushes/{id}"))
            .await
            .problem()
    };
    assert_eq!(
        problem("01KAR0M4G0ZJ9QX6T5V8C2N3B7").await,
        "push_not_found"
    );
    assert_eq!(problem("1").await, "invalid_push_id");
    assert_eq!(
        problem("81KAR0M4G0ZJ9QX6T5V8C2N3B7").await,
        "invalid_push_id"
    );
    assert_eq!(problem("%ff").await, "not_found");
}

#[tokio::test]
async fn pushes_of_another_app_are_not_seen() {
    let api = api();
    api.push(HELLO).await;
    let path = "/v1/apps/bank/pushes/00000000000000000000000001";
    let authorization = format!("Bearer {}", api.bank.reveal());
    let request = Request::get(path)
        .header("authorization", authorization)
        .body(Body::empty())
        .unwrap();
    assert_eq!(api.send(request).await.problem(), "push_not_found");
}

#[tokio::test]
async fn a_key_is_needed_and_must_be_the_apps() {
    let api = api();
    let unknown = ApiKey::from_random([9; 32]);
    let bearer = |key: &ApiKey| format!("Bearer {}", key.reveal());
    let table: &[(&[String], u16, &str)] = &[
        (&[], 401, "key_missing"),
        (&[bearer(&api.shop), bearer(&api.shop)], 401, "key_missing"),
        (&[String::new()], 401, "key_invalid"),
        (&["Bearer".into()], 401, "key_invalid"),
        (&["Bearer cmp_short".into()], 401, "key_invalid"),
        (
            &[bearer(&api.shop).replace("Bearer", "Basic")],
            401,
            "key_invalid",
        ),
        (&[bearer(&unknown)], 401, "key_invalid"),
        (&[bearer(&api.bank)], 403, "wrong_app"),
        (&[bearer(&api.shop).replace("Bearer", "bearer ")], 202, ""),
    ];
    for (authorization, status, code) in table {
        let mut request =
            Request::post("/v1/apps/shop/pushes").header("content-type", "application/json");
        for value in *authorization {
            request = request.header("authorization", value);
        }
        let answer = api.send(request.body(HELLO.into()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), *status, "{authorization:?}");
        if *status != 202 {
            assert_eq!(answer.problem(), *code);
            assert_eq!(answer.header("www-authenticate").is_some(), *status == 401);
        }
    }
    assert_eq!(api.store.accepted().len(), 1);
}

#[tokio::test]
async fn a_key_says_nothing_about_which_other_apps_exist() {
    let api = api();
    for app in ["bank", "nobody", "NO-APP", "%20"] {
        let answer = api
            .get(&format!("/v1/apps/{app}/pushes/01KAR0M4G0ZJ9QX6T5V8C2N3B7"))
            .await;
        assert_eq!(answer.problem(), "wrong_app", "{app}");
    }
}

#[tokio::test]
async fn keys_are_looked_up_once_in_a_while_and_a_revoked_one_stops_soon() {
    tokio::time::pause();
    let api = api();
    for _ in 0..3 {
        assert_eq!(api.push(HELLO).await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(api.store.key_lookups(), 1);
    api.store.revoke_all_keys();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(api.push(HELLO).await.problem(), "key_invalid");
}

#[tokio::test]
async fn mistakes_in_a_body_name_code_and_field() {
    let api = api();
    let table = [
        ("{", "malformed_json", None),
        ("[]", "invalid_field", Some("")),
        (r#"{"a":1,"a":1}"#, "duplicate_field", Some("/a")),
        (r#"{"audience":{"all":true}}"#, "missing_field", Some("")),
        (
            r#"{"audience":{"all":true},"data":{},"x":1}"#,
            "unknown_field",
            Some("/x"),
        ),
        (
            r#"{"audience":{"all":true},"data":{},"options":{"ttl":2419201}}"#,
            "invalid_field",
            Some("/options/ttl"),
        ),
    ];
    for (body, code, field) in table {
        let answer = api.push(body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (400, code),
            "{body}"
        );
        assert_eq!(
            answer.json().get("field").and_then(|field| field.as_str()),
            field,
            "{body}"
        );
    }
    let deep = "[".repeat(60_000);
    assert_eq!(api.push(deep).await.problem(), "too_deep");
    assert!(api.store.accepted().is_empty());
}

#[tokio::test]
async fn malformed_json_has_line_and_column() {
    let answer = api().push("{\n  \"audience\": nil}").await;
    assert_eq!(answer.problem(), "malformed_json");
    assert_eq!(
        (&answer.json()["line"], &answer.json()["column"]),
        (&json!(2), &json!(16))
    );
    assert_eq!(api().push(vec![b'"', 0xff, b'"']).await.json()["column"], 2);
}

#[tokio::test]
async fn size_limits_are_settings() {
    let api = api_with(Config {
        max_body_bytes: 1024,
        max_payload_bytes: 100,
        ..Config::default()
    });
    let body = |fill: usize| {
        json!({"audience": {"all": true}, "data": {"k": "x".repeat(fill)}}).to_string()
    };
    assert_eq!(api.push(body(92)).await.status, StatusCode::ACCEPTED);
    let answer = api.push(body(93)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (413, "payload_too_large")
    );
    assert_eq!(answer.json()["field"], "/data");
    assert_eq!(api.push(" ".repeat(1024)).await.problem(), "malformed_json");
    let answer = api.push(" ".repeat(1025)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (413, "body_too_large")
    );
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn bodies_of_other_types_are_refused() {
    let api = api();
    for (name, value) in [
        ("x-none", ""),
        ("content-type", "text/plain"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-type", "application/x-www-form-urlencoded"),
    ] {
        let request = api
            .request(Method::POST, "/v1/apps/shop/pushes")
            .header(name, value)
            .body(HELLO.into())
            .unwrap();
        let answer = api.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (415, "unsupported_media_type")
        );
    }
    let compressed = api
        .push_request()
        .header("content-encoding", "gzip")
        .body(HELLO.into())
        .unwrap();
    assert_eq!(
        api.send(compressed).await.problem(),
        "unsupported_media_type"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let api = api();
    for path in [
        "/",
        "/v1",
        "/v1/apps/shop",
        "/v1/apps/shop/pushes/",
        "/v1/apps/shop/pushes/a/b",
        "/metrics/",
    ] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    for (method, path, allow) in [
        (Method::PUT, "/v1/apps/shop/pushes", "GET,HEAD,POST"),
        (Method::DELETE, "/v1/apps/shop/pushes/1", "GET,HEAD,POST"),
        (Method::POST, "/healthz", "GET,HEAD"),
        (Method::from_bytes(b"BREW").unwrap(), "/metrics", "GET,HEAD"),
    ] {
        let answer = api
            .send(api.request(method, path).body(Body::empty()).unwrap())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (405, "method_not_allowed"),
            "{path}"
        );
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_a_retryable_refusal() {
    let api = api();
    assert_eq!(api.push(HELLO).await.status, StatusCode::ACCEPTED);
    api.store.set_mood(Mood::Down);
    // The key is still believed, so that the write itself is refused here, ...
    for answer in [
        api.push(HELLO).await,
        api.get("/v1/apps/shop/pushes/00000000000000000000000001")
            .await,
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (503, "store_unavailable")
        );
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains("switched off")
        );
    }
    // ... and here the key cannot be looked up.
    let authorization = format!("Bearer {}", api.bank.reveal());
    let request = Request::post("/v1/apps/bank/pushes").header("authorization", authorization);
    assert_eq!(
        api.send(request.body(HELLO.into()).unwrap())
            .await
            .problem(),
        "store_unavailable"
    );
    api.store.set_mood(Mood::Well);
    assert_eq!(api.push(HELLO).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn bugs_behind_the_api_are_answered() {
    let api = api();
    api.push(HELLO).await;
    for mood in [Mood::Confused, Mood::Panics] {
        api.store.set_mood(mood);
        let answer = api.push(HELLO).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (500, "internal")
        );
    }
}

#[tokio::test]
async fn health_readiness_metrics_and_version_need_no_key() {
    let api = api();
    let get = async |path: &str| {
        api.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    };
    assert_eq!(get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(get("/readyz").await.json(), json!({"status": "ready"}));
    assert_eq!(get("/version").await.json(), json!({"version": "1.2.3"}));
    let metrics = get("/metrics").await;
    assert_eq!(metrics.body, "campanile_connections 3\n");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );

    *api.node.0.lock().unwrap() = vec!["the store does not answer".into()];
    let answer = get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.json(),
        json!({"status": "not_ready", "reasons": ["the store does not answer"]})
    );
    assert_eq!(get("/healthz").await.status, StatusCode::OK);
}

/// Runs one request on a runtime of its own; properties are not async.
fn push_once(api: &Api, body: Vec<u8>) -> common::Answer {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(api.push(body))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_sent_is_accepted_or_a_problem_with_a_known_code(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            // Nearly right: one byte of a good request replaced.
            (0..HELLO.len(), any::<u8>()).prop_map(|(at, byte)| {
                let mut body = HELLO.as_bytes().to_vec();
                body[at] = byte;
                body
            }),
        ]
    ) {
        let api = api();
        let answer = push_once(&api, body);
        if answer.status != StatusCode::ACCEPTED {
            let code = answer.problem();
            prop_assert!(Code::ALL.iter().any(|known| known.text() == code));
            prop_assert!(answer.status.is_client_error());
        }
    }
}
