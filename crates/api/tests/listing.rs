//! The list of pushes, and what of a push its sender finds again.

mod common;

use axum::http::StatusCode;
use common::{Api, api};
use serde_json::{Value, json};

async fn push(api: &Api, options: Value) -> String {
    let body = json!({"audience": {"all": true}, "data": {"a": 1}, "options": options});
    let answer = api.push(body.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.json()["push_id"].as_str().unwrap().to_owned()
}

async fn listed(api: &Api, query: &str) -> (Vec<Value>, Value) {
    let page = api.get(&format!("/v1/apps/shop/pushes{query}")).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let page = page.json();
    let ids = page["pushes"].as_array().unwrap().iter();
    (
        ids.map(|push| push["push_id"].clone()).collect(),
        page["next"].clone(),
    )
}

#[tokio::test]
async fn pushes_are_listed_newest_first_and_by_what_their_sender_said() {
    let api = api();
    let team = |team: &str| json!({"labels": {"team": team}, "ttl": 60});
    let growth = push(&api, team("growth")).await;
    let sales = push(&api, team("sales")).await;
    let plain = push(&api, json!({"external_id": "order-7"})).await;
    assert_eq!(
        listed(&api, "").await,
        (vec![json!(plain), json!(sales), json!(growth)], Value::Null)
    );
    let (first, next) = listed(&api, "?limit=2").await;
    assert_eq!((first.len(), next.as_str()), (2, Some(sales.as_str())));
    let (rest, next) = listed(&api, &format!("?limit=2&after={sales}")).await;
    assert_eq!((rest, next), (vec![json!(growth)], Value::Null));
    assert_eq!(listed(&api, "?label=team:growth").await.0, [json!(growth)]);
    assert_eq!(
        listed(&api, "?label=team").await.0,
        [json!(sales), json!(growth)]
    );
    assert_eq!(listed(&api, "?label=other").await.0, [json!(null); 0]);
    assert_eq!(listed(&api, "?external_id=order-7").await.0, [json!(plain)]);
    assert_eq!(listed(&api, "?since=2026-11-23T06:00:00Z").await.0.len(), 3);
    assert_eq!(listed(&api, "?since=2026-11-23T06:00:01Z").await.0.len(), 0);
    api.now_ms
        .fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(listed(&api, "?state=active").await.0, [json!(plain)]);
    assert_eq!(
        listed(&api, "?state=expired").await.0,
        [json!(sales), json!(growth)]
    );
    for bad in ["?state=done", "?since=today", "?after=x", "?tag=a"] {
        let refused = api.get(&format!("/v1/apps/shop/pushes{bad}")).await;
        assert_eq!(refused.problem(), "invalid_parameter", "{bad}");
    }
}

#[tokio::test]
async fn a_report_shows_what_its_sender_wants_to_find_again() {
    let api = api();
    let options = json!({
        "labels": {"team": "growth"},
        "external_id": "order-7",
        "callback_url": "https://example.com/done",
        "receipts": ["displayed"],
    });
    let id = push(&api, options.clone()).await;
    let report = api.get(&format!("/v1/apps/shop/pushes/{id}")).await.json();
    for name in ["labels", "external_id", "callback_url"] {
        assert_eq!(report[name], options[name], "{name}");
    }
    assert_eq!(report["receipts"], json!(["delivered", "displayed"]));
    assert_eq!(
        (&report["displayed"], &report["clicked"]),
        (&json!(0), &Value::Null)
    );
    let accepted = api.store.accepted();
    assert!(accepted[0].watched);
    let plain = push(&api, json!({})).await;
    let report = api
        .get(&format!("/v1/apps/shop/pushes/{plain}"))
        .await
        .json();
    assert_eq!(
        (&report["labels"], &report["clicked"]),
        (&Value::Null, &json!(0))
    );
}

#[tokio::test]
async fn receipts_are_shown_over_time() {
    let api = api();
    let id = push(&api, json!({})).await;
    let shown = api
        .get(&format!("/v1/apps/shop/pushes/{id}/series"))
        .await
        .json();
    let none = json!({"delivered": 0, "displayed": 0, "clicked": 0, "dismissed": 0});
    let point = |from: &str, seconds: u64, name: &str, count: u64| {
        let mut point = none.clone();
        point["from"] = from.into();
        point["seconds"] = seconds.into();
        point[name] = count.into();
        point
    };
    assert_eq!(
        shown["points"],
        json!([
            point("2026-11-23T06:01:00.000Z", 60, "delivered", 3),
            point("2026-11-23T09:00:00.000Z", 3600, "clicked", 2),
        ])
    );
    let unknown = api
        .get("/v1/apps/shop/pushes/00000000000000000000000000/series")
        .await;
    assert_eq!(unknown.problem(), "push_not_found");
}
