//! What an app keeps beside its pushes: devices, users, tags, topics, segments, uploads.

mod common;

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{Method, StatusCode, header},
};
use campanile_push::{
    key::ApiKey,
    registry::permission::{Permission, Permissions},
    store::{Audience, Away},
    targeting::Targeting,
};
use common::{Answer, Api, NOW_MS, api};
use hyper::body::Frame;
use serde_json::{Value, json};

/// A body that comes in pieces.
struct Pieces(VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

impl Api {
    async fn upload(&self, kind: &str, body: impl Into<Body>) -> Answer {
        let request = self
            .request(Method::POST, "/v1/apps/shop/uploads")
            .header(header::CONTENT_TYPE, kind);
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn pushed_to(&self, audience: Value) -> Result<Audience, String> {
        let body = json!({"audience": audience, "data": {}});
        let answer = self.push(body.to_string()).await;
        match answer.status {
            StatusCode::ACCEPTED => Ok(self.store.accepted().pop().unwrap().audience),
            _ => Err(answer.problem()),
        }
    }
}

fn devices(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let devices = answer.json()["devices"].as_array().unwrap().clone();
    let name = |device: &Value| device["device"].as_str().unwrap().to_owned();
    devices.iter().map(name).collect()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status.as_u16(), answer.problem());
    assert_eq!(found, (status, code.to_owned()), "{answer:?}");
}

#[tokio::test]
async fn a_device_is_registered_shown_changed_and_forgotten() {
    let api = api();
    let all = json!({
        "platform": "ios", "app_version": "3.2", "language": "en-GB", "time_zone": "Europe/London", "user": "u1",
        "tags": ["vip"], "topics": ["news"], "attributes": {"plan": "gold", "logins": 7}, "tokens": {"apns": "secret"},
    });
    let answer = api.call("PUT", "devices/phone%2F1", all).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let at = "2026-11-23T06:00:00.000Z";
    let mut shown = json!({
        "device": "phone/1",
        "platform": "ios", "app_version": "3.2", "language": "en-GB", "time_zone": "Europe/London", "user": "u1",
        "tags": ["vip"], "topics": ["news"], "attributes": {"plan": "gold", "logins": 7}, "tokens": ["apns"],
        "since": answer.json()["since"],
        "created_at": at, "updated_at": at,
    });
    assert_eq!(answer.json(), shown);
    assert_eq!(answer.json()["since"]["attr.plan"], at);

    api.now_ms.fetch_add(1000, Ordering::Relaxed);
    let change = json!({"tags": ["beta"], "attributes": {"plan": null}});
    let answer = api.call("PATCH", "devices/phone%2F1", change).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    shown["tags"] = json!(["beta"]);
    shown["attributes"] = json!({"logins": 7});
    shown["since"] = answer.json()["since"].clone();
    shown["updated_at"] = json!("2026-11-23T06:00:01.000Z");
    assert_eq!(answer.json(), shown);
    let answer = api.get("/v1/apps/shop/devices/phone%2F1").await;
    assert_eq!(answer.json(), shown, "nobody can tell where it is");

    let answer = api.call("PUT", "devices/phone%2F1", json!({})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["tags"], json!([]));
    assert_eq!(answer.json()["platform"], Value::Null);

    let answer = api.call("DELETE", "devices/phone%2F1", json!({})).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::NO_CONTENT, "")
    );
    for method in ["GET", "PATCH", "DELETE"] {
        refused(
            &api.call(method, "devices/phone%2F1", json!({})).await,
            404,
            "missing",
        );
    }
}

#[tokio::test]
async fn a_device_is_shown_with_its_connection() {
    let api = api();
    api.cluster.add("here", 1, &[]);
    for device in ["here", "away"] {
        api.call("PUT", &format!("devices/{device}"), json!({}))
            .await;
    }
    let here = api.get("/v1/apps/shop/devices/here").await.json();
    let connection = json!({
        "node": "here", "protocol": "MQTT 5.0", "subscriptions": 2, "filters": ["news/#"], "in_flight": 3,
        "lag": {"push_log": 4, "inbox": false},
    });
    assert_eq!(here["connection"], connection);
    let away = api.get("/v1/apps/shop/devices/away").await.json();
    assert!(away.as_object().unwrap().contains_key("connection"));
    assert_eq!(away["connection"], Value::Null);
    assert!(here.get("away").is_none() && away.get("away").is_none());
}

#[tokio::test]
async fn a_device_that_is_away_is_shown_with_what_waits_for_it() {
    let api = api();
    api.cluster.add("here", 1, &[]);
    let left = Away {
        since_ms: Some(NOW_MS),
        expires_ms: Some(NOW_MS + 1000),
        behind: Some(3),
        inbox: 2,
    };
    let endless = Away {
        expires_ms: None,
        behind: None,
        inbox: 0,
        ..left
    };
    let unknown = Away {
        since_ms: None,
        ..endless
    };
    let shown = |device: &'static str| {
        let api = &api;
        async move {
            api.call("PUT", &format!("devices/{device}"), json!({}))
                .await;
            let path = format!("/v1/apps/shop/devices/{device}");
            api.get(&path).await.json()["away"].take()
        }
    };
    let (since, end) = ("2026-11-23T06:00:00.000Z", "2026-11-23T06:00:01.000Z");
    for (device, away, expected) in [
        (
            "left",
            left,
            json!({"since": since, "expires_at": end, "lag": {"push_log": 3, "inbox": true, "inbox_entries": 2}}),
        ),
        (
            "endless",
            endless,
            json!({"since": since, "expires_at": null, "lag": {"push_log": null, "inbox": false, "inbox_entries": 0}}),
        ),
        (
            "unknown",
            unknown,
            json!({"expires_at": null, "lag": {"push_log": null, "inbox": false, "inbox_entries": 0}}),
        ),
        // Where it is connected is known better by its node.
        ("here", left, Value::Null),
    ] {
        api.store.leave(device, away);
        assert_eq!(shown(device).await, expected, "{device}");
    }
    api.cluster.0.lock().unwrap()[0].linked = Some(false);
    assert_eq!(shown("left").await, Value::Null, "it may be there");
}

#[tokio::test]
async fn what_is_wrong_with_a_device_is_said() {
    let api = api();
    let long = "d".repeat(257);
    for (path, body, code, field) in [
        ("devices/d1", json!([]), "invalid_field", Some("")),
        (
            "devices/d1",
            json!({"tag": []}),
            "unknown_field",
            Some("/tag"),
        ),
        (
            "devices/d1",
            json!({"tags": "vip"}),
            "invalid_field",
            Some("/tags"),
        ),
        (
            "devices/d1",
            json!({"time_zone": "Mars/X"}),
            "invalid_field",
            Some("/time_zone"),
        ),
        (&format!("devices/{long}"), json!({}), "invalid_field", None),
        ("devices/a%00b", json!({}), "invalid_field", None),
    ] {
        let answer = api.call("PUT", path, body).await;
        refused(&answer, 400, code);
        if let Some(field) = field {
            assert_eq!(answer.json()["field"], field);
        }
    }
    for query in ["limit=0", "filter=%26%26", "where=vip"] {
        let answer = api.get(&format!("/v1/apps/shop/devices?{query}")).await;
        refused(&answer, 400, "invalid_parameter");
    }
}

#[tokio::test]
async fn devices_are_listed_by_pages_and_by_filter() {
    let api = api();
    for (device, tags) in [
        ("a", json!(["vip"])),
        ("b", json!([])),
        ("c", json!(["vip"])),
    ] {
        let path = format!("devices/{device}");
        api.call("PUT", &path, json!({"tags": tags})).await;
    }
    let page = api.get("/v1/apps/shop/devices?limit=2").await;
    assert_eq!(devices(&page), ["a", "b"]);
    assert_eq!(page.json()["next"], "b");
    let page = api.get("/v1/apps/shop/devices?limit=2&after=b").await;
    assert_eq!(
        (devices(&page), page.json()["next"].clone()),
        (vec!["c".to_owned()], Value::Null)
    );
    let page = api
        .get("/v1/apps/shop/devices?filter=vip+%26%26+true")
        .await;
    refused(&page, 400, "invalid_parameter");
    let page = api.get("/v1/apps/shop/devices?filter=vip").await;
    assert_eq!(devices(&page), ["a", "c"]);
}

#[tokio::test]
async fn keys_may_do_what_they_are_for() {
    let mut api = api();
    api.call("PUT", "devices/d1", json!({})).await;
    let reader = ApiKey::from_random([3; 32]);
    let permissions: Permissions = [Permission::Read].into_iter().collect();
    api.store.add_key("shop", &reader, permissions);
    api.shop = reader;
    assert_eq!(
        api.get("/v1/apps/shop/devices/d1").await.status,
        StatusCode::OK
    );
    for (method, path) in [
        ("PUT", "devices/d1"),
        ("PATCH", "devices/d1"),
        ("DELETE", "devices/d1"),
        ("PUT", "users/u1/devices/d1"),
        ("DELETE", "users/u1/devices/d1"),
        ("POST", "tags/vip:add"),
        ("POST", "topics/news:subscribe"),
        ("PUT", "segments/s1"),
        ("DELETE", "segments/s1"),
        ("POST", "uploads"),
        ("DELETE", "uploads/u7"),
    ] {
        refused(
            &api.call(method, path, json!({})).await,
            403,
            "not_permitted",
        );
    }
    let other = api.get("/v1/apps/bank/devices").await;
    refused(&other, 403, "wrong_app");
}

#[tokio::test]
async fn a_user_has_devices_and_a_push_finds_them() {
    let api = api();
    for device in ["d1", "d2", "d3"] {
        api.call("PUT", &format!("devices/{device}"), json!({"user": "u2"}))
            .await;
    }
    for device in ["d1", "d3"] {
        let answer = api
            .call("PUT", &format!("users/u1/devices/{device}"), json!({}))
            .await;
        assert_eq!(answer.json()["user"], "u1", "{answer:?}");
    }
    let page = api.get("/v1/apps/shop/users/u1/devices?limit=1").await;
    assert_eq!(
        (devices(&page), page.json()["next"].clone()),
        (vec!["d1".to_owned()], json!("d1"))
    );
    let found = api.pushed_to(json!({"users": ["u1", "u9"]})).await;
    assert_eq!(found, Ok(Audience::Devices(vec!["d1".into(), "d3".into()])));

    refused(
        &api.call("DELETE", "users/u1/devices/d2", json!({})).await,
        404,
        "missing",
    );
    let answer = api.call("DELETE", "users/u1/devices/d1", json!({})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    api.call("DELETE", "devices/d3", json!({})).await;
    assert_eq!(
        devices(&api.get("/v1/apps/shop/users/u1/devices").await),
        [""; 0]
    );
    assert_eq!(
        api.pushed_to(json!({"users": ["u1"]})).await,
        Err("missing".into())
    );
    refused(
        &api.call("PUT", "users/u1/devices/d9", json!({})).await,
        404,
        "missing",
    );
}

#[tokio::test]
async fn tags_and_topics_go_to_many_devices_and_the_unknown_are_named() {
    let api = api();
    let many: Vec<String> = (0..250).map(|n| format!("d{n:03}")).collect();
    for device in &many {
        api.call("PUT", &format!("devices/{device}"), json!({}))
            .await;
    }
    let body =
        json!({"devices": ([many.clone(), vec!["x".into(), "y".into(), "d000".into()]].concat())});
    for (path, filter) in [
        ("tags/a:b", "tag:\"a:b\""),
        ("topics/news%2Fsport", "topic:\"news/sport\""),
    ] {
        let [add, remove] = match path.starts_with("tags") {
            true => ["add", "remove"],
            false => ["subscribe", "unsubscribe"],
        };
        let answer = api
            .call("POST", &format!("{path}:{add}"), body.clone())
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let refused = |device: &str| json!({"device": device, "code": "missing", "detail": format!("there is no device {device:?}")});
        assert_eq!(
            answer.json(),
            json!({"changed": 250, "unchanged": 0, "refused": [refused("x"), refused("y")]})
        );
        let filter = filter.replace('"', "%22").replace('/', "%2F");
        let listed = format!("/v1/apps/shop/devices?limit=1000&filter={filter}");
        assert_eq!(devices(&api.get(&listed).await), many);
        let some = json!({"devices": ["d001", "d002"]});
        let answer = api.call("POST", &format!("{path}:{remove}"), some).await;
        assert_eq!(answer.json()["changed"], 2, "{answer:?}");
        let answer = api
            .call("POST", &format!("{path}:{add}"), body.clone())
            .await;
        assert_eq!(
            (&answer.json()["changed"], &answer.json()["unchanged"]),
            (&json!(2), &json!(248))
        );
    }
    refused(
        &api.call("POST", "tags/vip", json!({})).await,
        404,
        "not_found",
    );
    refused(
        &api.call("POST", "tags/vip:toggle", json!({})).await,
        404,
        "not_found",
    );
    refused(
        &api.call("POST", "topics/a%23:subscribe", json!({})).await,
        400,
        "invalid_field",
    );
    refused(
        &api.call("POST", "tags/vip:add", json!({})).await,
        400,
        "missing_field",
    );
    let too_many: Vec<String> = (0..1001).map(|n| format!("d{n}")).collect();
    let answer = api
        .call("POST", "tags/vip:add", json!({"devices": too_many}))
        .await;
    refused(&answer, 400, "invalid_field");
}

#[tokio::test]
async fn a_segment_is_saved_and_a_push_takes_it_as_it_is() {
    let api = api();
    let answer = api
        .call(
            "PUT",
            "segments/s1",
            json!({"expr": "vip&&platform==\"ios\""}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let at = "2026-11-23T06:00:00.000Z";
    let shown = json!({"segment": "s1", "expr": "vip && platform == \"ios\"", "created_at": at, "updated_at": at});
    assert_eq!(answer.json(), shown);
    assert_eq!(api.get("/v1/apps/shop/segments/s1").await.json(), shown);
    let listed = api.get("/v1/apps/shop/segments").await.json();
    assert_eq!(listed, json!({"segments": [shown]}));

    let Ok(Audience::Matching(bytes)) = api.pushed_to(json!({"segment": "s1"})).await else {
        panic!("the segment is there");
    };
    let targeting = Targeting::decode(&bytes).unwrap();
    assert_eq!(
        targeting.expression.unwrap().to_string(),
        "vip && platform == \"ios\""
    );
    assert_eq!(targeting.pushed_ms, NOW_MS);

    let bad = api
        .call("PUT", "segments/s1", json!({"expr": "vip &&"}))
        .await;
    refused(&bad, 400, "invalid_expression");
    assert_eq!(
        (&bad.json()["line"], &bad.json()["field"]),
        (&json!(1), &json!("/expr"))
    );
    refused(
        &api.call("PUT", "segments/a%20b", json!({"expr": "vip"}))
            .await,
        400,
        "invalid_field",
    );
    let answer = api.call("DELETE", "segments/s1", json!({})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        api.pushed_to(json!({"segment": "s1"})).await,
        Err("missing".into())
    );
}

#[tokio::test]
async fn a_long_list_is_taken_in_as_it_comes() {
    let api = api();
    for device in ["d0", "d1", "d2"] {
        api.call("PUT", &format!("devices/{device}"), json!({}))
            .await;
    }
    let mut text = String::from("d2\r\nd0\n");
    for n in 0..120_000 {
        text.push_str(&format!("stranger-{n}\n"));
    }
    let pieces = text.as_bytes().chunks(10_007);
    let body = Body::new(Pieces(pieces.map(Bytes::copy_from_slice).collect()));
    let answer = api.upload("text/plain; charset=utf-8", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.status);
    let shown = answer.json();
    let counts = json!([shown["listed"], shown["found"], shown["unknown"]]);
    assert_eq!(counts, json!([120_002, 2, 120_000]));
    let named = shown["unknown_devices"].as_array().unwrap();
    assert_eq!((named.len(), &named[99]), (100, &json!("stranger-99")));
    assert_eq!(shown["expires_at"], "2026-11-30T06:00:00.000Z");

    let location = answer.header("location").unwrap().to_owned();
    let read = api.get(&location).await.json();
    assert_eq!(read["found"], 2);
    let audience = api.pushed_to(json!({"upload": shown["upload"]})).await;
    let Ok(Audience::Matching(bytes)) = audience else {
        panic!("the upload is there");
    };
    let numbers = Targeting::decode(&bytes).unwrap().numbers.unwrap();
    assert_eq!(numbers.iter().collect::<Vec<u32>>(), [0, 2]);

    let id = shown["upload"].as_str().unwrap();
    let answer = api
        .call("DELETE", &format!("uploads/{id}"), json!({}))
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    refused(&api.get(&location).await, 404, "missing");
    assert_eq!(
        api.pushed_to(json!({"upload": id})).await,
        Err("missing".into())
    );
}

#[tokio::test]
async fn a_bad_list_is_refused_whole() {
    let api = api();
    for (kind, body, status, code) in [
        (
            "application/json",
            "[\"d1\"]",
            415,
            "unsupported_media_type",
        ),
        ("text/plain", "", 400, "invalid_field"),
        ("text/plain", "d1\nd\t2\n", 400, "invalid_field"),
        (
            "application/x-ndjson",
            "\"d1\"\nd2\n",
            400,
            "malformed_json",
        ),
        (
            "application/x-ndjson",
            "{\"id\": \"d1\"}\n",
            400,
            "missing_field",
        ),
    ] {
        refused(&api.upload(kind, body).await, status, code);
    }
    let answer = api
        .upload("application/x-ndjson", "{\"device\": \"d1\"}\n\"d2\"")
        .await;
    assert_eq!(answer.json()["unknown_devices"], json!(["d1", "d2"]));
}
