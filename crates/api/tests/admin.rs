//! Operators: all apps, their quotas, the nodes, the audit log.

mod common;

use axum::http::StatusCode;
use campanile_api::eraser;
use campanile_push::{key::ApiKey, registry::permission::Permissions};
use common::{Answer, Api, NOW_MS, api};
use serde_json::{Value, json};

impl Api {
    async fn operate(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = self
            .request(method.parse().unwrap(), &format!("/v1/admin/{path}"))
            .header("content-type", "application/json");
        self.send(request.body(body.to_string().into()).unwrap())
            .await
    }
}

#[tokio::test]
async fn a_key_that_may_do_everything_in_its_app_is_not_an_operators() {
    let api = api();
    let key = ApiKey::from_random([9; 32]);
    api.store.add_key("shop", &key, Permissions::ADMIN);
    let request = api
        .request("GET".parse().unwrap(), "/v1/admin/apps")
        .header("authorization", "none");
    let two_headers = api.send(request.body("".into()).unwrap()).await;
    assert_eq!(two_headers.problem(), "key_missing");
    let request = axum::http::Request::get("/v1/admin/apps")
        .header("authorization", format!("Bearer {}", key.reveal()));
    let answer = api.send(request.body("".into()).unwrap()).await;
    assert_eq!(answer.problem(), "not_permitted");
    let given = json!({"permissions": ["operator"]});
    let given = api.call("POST", "keys", given).await;
    assert_eq!(given.problem(), "invalid_field", "apps cannot give it");
}

#[tokio::test]
async fn apps_are_made_listed_changed_and_removed() {
    let api = api();
    let body = json!({"app": "toys", "quotas": {"devices": 5}});
    let made = api.operate("POST", "apps", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header("location"), Some("/v1/admin/apps/toys"));
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("cmp_"));
    assert_eq!(api.operate("POST", "apps", body).await.problem(), "exists");

    let first = api.operate("GET", "apps?limit=2", json!(null)).await.json();
    let names = |page: &Value| -> Vec<Value> {
        let apps = page["apps"].as_array().unwrap().iter();
        apps.map(|app| app["app"].clone()).collect()
    };
    assert_eq!(
        (names(&first), &first["next"]),
        (vec![json!("bank"), json!("shop")], &json!("shop"))
    );
    let rest = api
        .operate("GET", "apps?after=shop", json!(null))
        .await
        .json();
    assert_eq!(
        (names(&rest), rest.get("next")),
        (vec![json!("toys")], None)
    );

    let change = json!({"quotas": {"devices": null, "connections": 7}});
    let changed = api
        .operate("PATCH", "apps/toys", change.clone())
        .await
        .json();
    let quotas =
        json!({"devices": null, "connections": 7, "pushes_per_second": null, "stored_bytes": null});
    assert_eq!(changed["quotas"], quotas);
    let shown = api.operate("GET", "apps/toys", json!(null)).await.json();
    assert_eq!(shown["quotas"], quotas);
    assert_eq!(
        shown["usage"],
        json!({"devices": 0, "connections_here": 3, "stored_bytes": 0})
    );

    let leaving = api.operate("DELETE", "apps/toys", json!(null)).await;
    assert_eq!(leaving.status, StatusCode::ACCEPTED);
    // Until what was under way has ended.
    eraser::round(&api.state).await.unwrap();
    let shown = api.operate("GET", "apps/toys", json!(null)).await.json();
    assert_eq!(shown["deletion"], leaving.json()["deletion"]);
    assert_eq!(shown["deletion"]["erases_from"], "2026-11-23T06:00:15.000Z");
    let listed = api.operate("GET", "apps", json!(null)).await.json();
    assert_eq!(listed["apps"][2]["deletion"], shown["deletion"]);
    let body = json!({"app": "toys"});
    for (method, path) in [("POST", "apps"), ("PATCH", "apps/toys")] {
        let body = if method == "POST" {
            body.clone()
        } else {
            change.clone()
        };
        let refused = api.operate(method, path, body).await;
        assert_eq!(refused.problem(), "app_leaving", "{method}");
    }
    let request = axum::http::Request::get("/v1/apps/toys/pushes")
        .header("authorization", format!("Bearer {key}"));
    let refused = api.send(request.body("".into()).unwrap()).await;
    assert_eq!(refused.problem(), "app_leaving");
    api.now_ms
        .store(NOW_MS + 15_000, std::sync::atomic::Ordering::Relaxed);
    eraser::round(&api.state).await.unwrap();
    for (method, app) in [("GET", "toys"), ("DELETE", "toys"), ("GET", "No%20App")] {
        let answer = api
            .operate(method, &format!("apps/{app}"), json!(null))
            .await;
        assert_eq!(answer.problem(), "missing");
    }
    let own = api.operate("DELETE", "apps/shop", json!(null)).await;
    assert_eq!(own.problem(), "clash");

    let log = api.operate("GET", "audit", json!(null)).await.json();
    let entries = log["entries"].as_array().unwrap().iter();
    let of_toys = entries.filter(|entry| entry["app"] == "toys");
    let actions: Vec<Value> = of_toys.map(|entry| entry["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "app.created",
            "app.changed",
            "app.deletion_begun",
            "app.deleted"
        ]
    );
}

#[tokio::test]
async fn the_log_of_all_apps_has_pages_and_that_of_one_has_all_of_it() {
    let api = api();
    api.call("PUT", "segments/s", json!({"expr": "vip"})).await;
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("audit?limit=1{after}");
        let page = api.operate("GET", &path, json!(null)).await.json();
        seen.extend(
            page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["app"].clone()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["bank", "shop"]);
    let of_shop = api
        .operate("GET", "audit?app=shop", json!(null))
        .await
        .json();
    assert!(
        of_shop["entries"]
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["app"] == "shop")
    );
    for bad in ["after=x", "app=No+App", "app=shop&after=x"] {
        let answer = api
            .operate("GET", &format!("audit?{bad}"), json!(null))
            .await;
        assert_eq!(answer.problem(), "invalid_parameter", "{bad}");
    }
}

#[tokio::test]
async fn nodes_are_shown() {
    let api = api();
    api.cluster.add("n1", 5, &["mqtt://n1:1883"]);
    let nodes = api.operate("GET", "nodes", json!(null)).await.json();
    assert_eq!(nodes["nodes"][0]["connections"], 5);
    assert_eq!(nodes["nodes"][0]["addresses"], json!(["mqtt://n1:1883"]));
}

#[tokio::test]
async fn pushes_above_a_quota_are_refused_and_come_through_later() {
    let api = api();
    let body = r#"{"audience": {"devices": ["d"]}, "data": {}}"#;
    // Before the key is looked up for a push, with what the app may do.
    let bank = || {
        let request = axum::http::Request::post("/v1/apps/bank/pushes")
            .header("authorization", format!("Bearer {}", api.bank.reveal()))
            .header("content-type", "application/json");
        api.send(request.body(body.into()).unwrap())
    };
    let quota = json!({"quotas": {"pushes_per_second": 2}});
    api.operate("PATCH", "apps/bank", quota).await;
    for _ in 0..2 {
        assert_eq!(bank().await.status, StatusCode::ACCEPTED);
    }
    let refused = bank().await;
    assert_eq!(refused.problem(), "push_rate_exceeded");
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert_eq!(
        api.push(body).await.status,
        StatusCode::ACCEPTED,
        "of another app"
    );
    api.now_ms
        .store(NOW_MS + 500, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bank().await.status, StatusCode::ACCEPTED);
    assert_eq!(bank().await.problem(), "push_rate_exceeded");
}
