//! Campaigns through the API: what is accepted, what can be done with them, and what cannot.

mod common;

use axum::http::{Method, StatusCode};
use campanile_push::{
    app::AppName,
    campaign::{Campaign, Row},
    event::Kind,
    rows::Table,
    store::{Accept, Audience, Channel, Reader as _},
    targeting::Targeting,
};
use common::{Answer, Api, Mood, api};
use serde_json::{Value, json};

/// Sends a push to all with these options; its id.
async fn send(api: &Api, options: Value) -> String {
    let answer = api.push(body(options)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.json()["push_id"].as_str().unwrap().to_owned()
}

fn body(options: Value) -> String {
    json!({"audience": {"all": true}, "data": {"n": 1}, "options": options}).to_string()
}

async fn act(api: &Api, push: &str, verb: &str) -> Answer {
    api.call("POST", &format!("pushes/{push}:{verb}"), Value::Null)
        .await
}

async fn status(api: &Api, push: &str, verb: &str) -> Value {
    let answer = act(api, push, verb).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["status"].clone()
}

async fn report(api: &Api, push: &str) -> Value {
    let answer = api.get(&format!("/v1/apps/shop/pushes/{push}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

/// The campaign that was accepted last.
fn accepted(api: &Api) -> (Accept, Campaign) {
    let accept = api.store.accepted().pop().unwrap();
    let rows = accept.rows.clone().expect("a campaign has rows");
    let write = rows
        .writes
        .iter()
        .find(|write| write.key.table == Table::Campaign)
        .unwrap();
    assert_eq!(write.key.name, accept.id.to_string());
    assert_eq!(write.expires_ms, Some(accept.expires_ms));
    match Row::decode(write.value.as_deref().unwrap(), accept.id).unwrap() {
        Row::Campaign(campaign) => (accept, *campaign),
        Row::Ended(_) => panic!("it has not ended"),
    }
}

#[tokio::test]
async fn a_campaign_is_accepted_with_its_row() {
    let api = api();
    send(&api, json!({"pace": {"over": 600}})).await;
    let (accept, campaign) = accepted(&api);
    assert_eq!(accept.audience, Audience::All);
    assert!(campaign.targeting.is_to_everyone());
    assert!(String::from_utf8_lossy(&campaign.payload).contains(r#""data":{"n":1}"#));
    send(&api, json!({"priority": "high", "portion": {"percent": 5}})).await;
    let (accept, campaign) = accepted(&api);
    let Audience::Matching(targeting) = &accept.audience else {
        panic!("a part of all is an audience");
    };
    assert_eq!(Targeting::decode(targeting).unwrap(), campaign.targeting);
    assert!(campaign.targeting.portion.is_some());
    let named = json!({"audience": {"devices": ["a", "b"]}, "data": {}, "options": {"local_time": "09:00"}});
    api.push(named.to_string()).await;
    let (accept, campaign) = accepted(&api);
    assert_eq!(
        accept.audience,
        Audience::Devices(vec!["a".into(), "b".into()])
    );
    assert_eq!(campaign.targeting.names.unwrap().len(), 2);
    // These are none.
    for options in [
        json!({}),
        json!({"portion": {"percent": 5}}),
        json!({"priority": "normal"}),
    ] {
        send(&api, options).await;
        assert_eq!(api.store.accepted().pop().unwrap().rows, None);
    }
}

#[tokio::test]
async fn a_campaign_is_paused_resumed_and_cancelled() {
    let api = api();
    let push = send(&api, json!({"priority": "low"})).await;
    assert_eq!(report(&api, &push).await["status"], "active");
    for (verb, expected) in [
        ("resume", "active"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("pause", "paused"),
        ("cancel", "cancelled"),
        ("cancel", "cancelled"),
        ("recall", "recalled"),
        ("cancel", "recalled"),
    ] {
        assert_eq!(status(&api, &push, verb).await, expected, "{verb}");
        assert_eq!(report(&api, &push).await["status"], expected, "{verb}");
    }
    let report = report(&api, &push).await;
    assert_eq!(
        (&report["pending"], &report["recalled"]),
        (&json!(0), &json!(42))
    );
    assert_eq!(act(&api, &push, "pause").await.problem(), "push_over");
    let audit = api.get("/v1/apps/shop/audit").await.json();
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|record| record["action"].as_str())
        .filter(|action| action.starts_with("push."))
        .collect();
    let expected = ["paused", "resumed", "paused", "cancelled", "recalled"];
    assert_eq!(actions, expected.map(|action| format!("push.{action}")));
}

#[tokio::test]
async fn a_recall_tells_the_devices_once() {
    let api = api();
    let push = send(&api, json!({})).await;
    for _ in 0..2 {
        assert_eq!(status(&api, &push, "recall").await, "recalled");
    }
    let accepted = api.store.accepted();
    let [_, order] = &accepted[..] else {
        panic!("one order: {accepted:?}");
    };
    assert_eq!(order.channel, Channel::Control);
    let payload: Value = serde_json::from_slice(&order.payload).unwrap();
    assert_eq!(
        (&payload["type"], &payload["push_id"]),
        (&json!("recall"), &json!(push))
    );
    let Audience::Matching(targeting) = &order.audience else {
        panic!("it is for some devices");
    };
    let numbers = Targeting::decode(targeting).unwrap().numbers.unwrap();
    assert_eq!(numbers, [3, 7].into_iter().collect());
}

#[tokio::test]
async fn a_newer_push_takes_the_place_of_an_older_one() {
    let api = api();
    let key = |key: &str| json!({"collapse_key": key});
    let first = send(&api, key("score")).await;
    let other = send(&api, key("weather")).await;
    let second = send(&api, key("score")).await;
    let shown = report(&api, &first).await;
    assert_eq!(
        (&shown["status"], &shown["collapsed"]),
        (&json!("collapsed"), &json!(42))
    );
    assert_eq!(shown["collapsed_by"], json!(second));
    assert_eq!(report(&api, &other).await["status"], "active");
    // A cancelled one stays cancelled.
    status(&api, &second, "cancel").await;
    send(&api, key("score")).await;
    assert_eq!(report(&api, &second).await["status"], "cancelled");
    assert_eq!(act(&api, &first, "resume").await.problem(), "push_over");
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let api = api();
    let plain = send(&api, json!({})).await;
    assert_eq!(act(&api, &plain, "pause").await.problem(), "not_a_campaign");
    assert_eq!(act(&api, &plain, "stop").await.problem(), "not_found");
    assert_eq!(
        act(&api, "nonsense", "pause").await.problem(),
        "invalid_push_id"
    );
    let unknown = "01JDY0000000000000000000ZZ";
    assert_eq!(
        act(&api, unknown, "cancel").await.problem(),
        "push_not_found"
    );
    let later = send(&api, json!({"not_before": "2030-01-01T00:00:00Z"})).await;
    assert_eq!(act(&api, &later, "cancel").await.problem(), "clash");
    let reader = json!({"label": "a reader", "permissions": ["read"]});
    let reader = api.call("POST", "keys", reader).await.json();
    let request = axum::http::Request::builder()
        .method(Method::POST)
        .uri(format!("/v1/apps/shop/pushes/{plain}:cancel"))
        .header(
            "authorization",
            format!("Bearer {}", reader["key"].as_str().unwrap()),
        );
    let refused = api
        .send(request.body(axum::body::Body::empty()).unwrap())
        .await;
    assert_eq!(refused.problem(), "not_permitted");
    api.store.set_mood(Mood::Confused);
    let contended = api.push(body(json!({"priority": "low"}))).await;
    assert_eq!(contended.problem(), "store_unavailable");
}

#[tokio::test]
async fn an_app_has_so_many_campaigns_at_a_time() {
    let api = api();
    let mut last = String::new();
    for _ in 0..100 {
        last = send(&api, json!({"priority": "low"})).await;
    }
    let refused = api.push(body(json!({"priority": "low"}))).await;
    assert_eq!(refused.problem(), "quota_reached");
    send(&api, json!({})).await;
    status(&api, &last, "cancel").await;
    send(&api, json!({"priority": "low"})).await;
}

/// Once, however often it is asked for.
#[tokio::test]
async fn what_is_done_with_a_campaign_is_told() {
    let api = api();
    let id = send(&api, json!({"pace": {"over": 60}})).await;
    for verb in ["pause", "resume", "cancel", "recall"] {
        for _ in 0..2 {
            status(&api, &id, verb).await;
        }
    }
    let shop = AppName::new("shop").unwrap();
    let events = api.store.events(&shop, 0, 100).unwrap().events;
    let of_push = events
        .iter()
        .filter(|event| event.draft.push.is_some_and(|push| push.to_string() == id));
    let kinds: Vec<Kind> = of_push.map(|event| event.draft.kind).collect();
    let expected = [
        Kind::PushPaused,
        Kind::PushResumed,
        Kind::PushCancelled,
        Kind::PushRecalled,
    ];
    assert_eq!(kinds, expected);
}
