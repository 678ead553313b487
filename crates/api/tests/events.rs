//! The event stream, and a device's timeline.

mod common;

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{Method, StatusCode},
};
use campanile_api::Config;
use campanile_push::{
    event::{Draft, What},
    id::PushId,
    rows::{Scope, Table},
};
use common::{Api, api, api_with};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt;

fn happened(device: &str, what: &What) -> Draft {
    Draft::new(Some(&device.into()), Some(PushId(9)), what)
}

/// A stream that is open.
struct Reading(BodyDataStream, String);

impl Reading {
    async fn open(api: &Api, query: &str, last: Option<&str>) -> Reading {
        let path = format!("/v1/apps/shop/events{query}");
        let mut request = api.request(Method::GET, &path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reading = Reading(response.into_body().into_data_stream(), String::new());
        assert!(reading.block().await.unwrap().contains("retry: 1000"));
        reading
    }

    /// The next block of lines.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.1.split_once("\n\n") {
                let block = block.to_owned();
                self.1 = rest.to_owned();
                return Some(block);
            }
            let next = timeout(Duration::from_secs(40), self.0.next());
            let chunk = next.await.expect("something comes")?.unwrap();
            self.1.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Id, type and document of the next event.
    async fn event(&mut self) -> (String, String, Value) {
        let block = self.block().await.expect("the stream goes on");
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let data = serde_json::from_str(&field("data:")).unwrap();
        (field("id:"), field("event:"), data)
    }
}

#[tokio::test]
async fn a_stream_tells_what_happens_from_then_on_and_can_be_resumed() {
    let api = api();
    api.store.tell(happened("before", &What::PushDelivered));
    let mut reading = Reading::open(&api, "", None).await;
    api.store.tell(happened("d1", &What::PushDelivered));
    api.store.tell(happened("d2", &What::PushDisplayed));
    let (first, kind, data) = reading.event().await;
    assert_eq!(
        (kind.as_str(), &data["device"]),
        ("push.delivered", &"d1".into())
    );
    assert_eq!(data["id"], first.as_str());
    assert_eq!(reading.event().await.2["device"], "d2");
    drop(reading);
    api.store.tell(happened("d3", &What::PushDisplayed));
    let mut reading = Reading::open(&api, "", Some(&first)).await;
    assert_eq!(reading.event().await.2["device"], "d2");
    assert_eq!(reading.event().await.2["device"], "d3");
}

#[tokio::test]
async fn a_stream_may_be_of_a_kind_a_device_or_a_push() {
    let api = api();
    let mut of_kind = Reading::open(&api, "?types=push.displayed,device.*", None).await;
    let mut of_device = Reading::open(&api, "?device=d2", None).await;
    let mut of_push = Reading::open(&api, &format!("?push={}", PushId(8)), None).await;
    api.store.tell(happened("d1", &What::PushDelivered));
    api.store.tell(happened("d2", &What::PushDisplayed));
    api.store
        .tell(Draft::new(None, Some(PushId(8)), &What::PushExpired));
    assert_eq!(of_kind.event().await.1, "push.displayed");
    assert_eq!(of_device.event().await.1, "push.displayed");
    assert_eq!(of_push.event().await.1, "push.expired");
    for bad in ["?types=push", "?device=%00", "?push=1", "?type=push.done"] {
        let refused = api.get(&format!("/v1/apps/shop/events{bad}")).await;
        assert_eq!(refused.problem(), "invalid_parameter", "{bad}");
    }
}

#[tokio::test]
async fn who_missed_events_is_told_so() {
    let api = api();
    for _ in 0..3 {
        api.store.tell(happened("d1", &What::PushDelivered));
    }
    let mut reading = Reading::open(&api, "", None).await;
    api.store.tell(happened("d1", &What::PushDelivered));
    let (last, ..) = reading.event().await;
    drop(reading);
    api.store.tell(happened("d2", &What::PushDelivered));
    api.store.tell(happened("d3", &What::PushDelivered));
    api.store.trim(1_000_005);
    let mut reading = Reading::open(&api, "", Some(&last)).await;
    assert_eq!(reading.event().await.1, "gap");
    assert_eq!(reading.event().await.2["device"], "d3");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_node() {
    let config = Config {
        max_event_streams: 1,
        ..Config::default()
    };
    let api = api_with(config);
    let mut reading = Reading::open(&api, "", None).await;
    let refused = api.get("/v1/apps/shop/events").await;
    assert_eq!(refused.problem(), "too_many_requests");
    api.node
        .0
        .lock()
        .unwrap()
        .push("the node is stopping".into());
    assert_eq!(reading.block().await, None);
    drop(reading);
    api.node.0.lock().unwrap().clear();
    Reading::open(&api, "", None).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_signs_of_life() {
    let api = api();
    api.store.tell(happened("d1", &What::PushDelivered));
    let mut reading = Reading::open(&api, "?types=push.done", None).await;
    let block = reading.block().await.unwrap();
    let id = block.strip_prefix(": keep-alive\nid: ").unwrap();
    let id: campanile_push::event::EventId = id.parse().unwrap();
    assert_eq!(id.place(), 1_000_001);
}

#[tokio::test]
async fn an_open_stream_is_a_listener() {
    let api = api();
    let reading = Reading::open(&api, "", None).await;
    let app = campanile_push::app::AppName::new("shop").unwrap();
    let reader: &dyn campanile_push::store::Reader = &*api.store;
    let count = reader.count_rows(&Scope::App(app), Table::Listener);
    assert_eq!(count, Ok(1));
    drop(reading);
}

#[tokio::test]
async fn a_timeline_is_of_one_device_newest_first() {
    let api = api();
    for what in [
        What::PushDelivered,
        What::PushDisplayed,
        What::PushDismissed,
    ] {
        api.store.tell(happened("d1", &what));
        api.store.tell(happened("d2", &what));
    }
    let page = api
        .get("/v1/apps/shop/devices/d1/timeline?limit=2")
        .await
        .json();
    let types = |page: &Value| -> Vec<Value> {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["type"].clone()).collect()
    };
    assert_eq!(types(&page), ["push.dismissed", "push.displayed"]);
    let next = page["next"].as_str().unwrap();
    let path = format!("/v1/apps/shop/devices/d1/timeline?limit=2&after={next}");
    let page = api.get(&path).await.json();
    assert_eq!(types(&page), ["push.delivered"]);
    assert_eq!(page["next"], Value::Null);
}
