//! Schedules through the router, and the scheduler over the same store.

mod common;

use std::sync::atomic::Ordering;

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use campanile_api::scheduler;
use campanile_push::store::Audience;
use common::{Answer, Api, Mood, NOW_MS, api};
use serde_json::{Value, json};

const SCHEDULES: &str = "/v1/apps/shop/schedules";
const MINUTE_MS: u64 = 60_000;

impl Api {
    async fn send_json(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self
            .request(method, path)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    async fn schedule(&self, when: Value) -> String {
        let body = json!({"name": "n", "when": when, "push": push()});
        let answer = self.send_json(Method::POST, SCHEDULES, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let location = format!("{SCHEDULES}/{id}");
        assert_eq!(answer.header("location"), Some(&*location));
        location
    }

    async fn act(&self, path: &str, action: &str) -> Answer {
        let request = self.request(Method::POST, &format!("{path}:{action}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        let request = self.request(Method::DELETE, path);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// The time, as so many milliseconds after the beginning.
    fn set_time(&self, after_ms: u64) {
        self.now_ms.store(NOW_MS + after_ms, Ordering::Relaxed);
    }

    /// A round of the scheduler then; answers how many pushes were accepted all in all.
    async fn round_at(&self, after_ms: u64) -> usize {
        self.set_time(after_ms);
        scheduler::round(&self.state).await.unwrap();
        self.store.accepted().len()
    }
}

fn push() -> Value {
    json!({"audience": {"devices": ["d1"]}, "data": {"n": 1}, "options": {"ttl": 60}})
}

fn every_minute() -> Value {
    json!({"cron": "* * * * *", "time_zone": "UTC"})
}

#[tokio::test]
async fn a_schedule_is_made_shown_listed_changed_and_deleted() {
    let api = api();
    let daily = json!({"cron": "0 9 * * 1-5", "time_zone": "Europe/Vienna"});
    let path = api.schedule(daily.clone()).await;
    let shown = api.get(&path).await.json();
    assert_eq!(shown["when"], daily);
    assert_eq!(shown["push"], push());
    let next = [23, 24, 25, 26, 27].map(|day| format!("2026-11-{day}T08:00:00.000Z"));
    assert_eq!(shown["next_runs"], json!(next));

    let second = api.schedule(every_minute()).await;
    let page = api.get(&format!("{SCHEDULES}?limit=1")).await.json();
    assert_eq!(page["schedules"], json!([shown]));
    let after = page["next"].as_str().unwrap();
    let rest = api.get(&format!("{SCHEDULES}?after={after}")).await.json();
    assert_eq!(rest["schedules"].as_array().unwrap().len(), 1);
    assert_eq!(rest.get("next"), None);

    let change = json!({"when": {"at": "2026-12-24T18:00:00+01:00"}, "name": "m"});
    let changed = api.send_json(Method::PATCH, &path, change).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let changed = changed.json();
    assert_eq!(changed["next_runs"], json!(["2026-12-24T17:00:00.000Z"]));
    assert_eq!((&changed["name"], &changed["push"]), (&json!("m"), &push()));

    let deleted = api.delete(&second).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for gone in [&*second, "/v1/apps/shop/schedules/none"] {
        assert_eq!(api.get(gone).await.problem(), "missing");
        assert_eq!(api.delete(gone).await.problem(), "missing");
        assert_eq!(api.act(gone, "run").await.problem(), "missing");
    }
    assert_eq!(api.act(&path, "stop").await.problem(), "not_found");
}

#[tokio::test]
async fn a_run_comes_at_its_time_for_whom_its_audience_is_then() {
    let api = api();
    let path = api.schedule(json!({"at": "2026-11-23T06:00:01Z"})).await;
    assert_eq!(api.round_at(999).await, 0);
    assert_eq!(api.round_at(1000).await, 1);
    assert_eq!(api.round_at(1000).await, 1);
    let accepted = api.store.accepted().pop().unwrap();
    assert_eq!(accepted.audience, Audience::Devices(vec!["d1".into()]));
    assert_eq!(accepted.accepted_ms, NOW_MS + 1000);
    assert_eq!(
        accepted.expires_ms,
        NOW_MS + 61_000,
        "ttl counts from the run"
    );
    let shown = api.get(&path).await.json();
    assert_eq!(
        (&shown["state"], &shown["runs"]),
        (&json!("ended"), &json!(1))
    );
    let push_id = shown["last_run"]["push_id"].as_str().unwrap();
    assert_eq!(push_id, accepted.id.to_string());
    let report = api.get(&format!("/v1/apps/shop/pushes/{push_id}")).await;
    assert_eq!(report.json()["targeted"], 1);
}

#[tokio::test]
async fn an_outage_is_made_up_for_once_and_a_pause_is_none() {
    let api = api();
    let path = api.schedule(every_minute()).await;
    assert_eq!(api.round_at(MINUTE_MS).await, 1);
    assert_eq!(api.round_at(2 * MINUTE_MS + 500).await, 2);
    assert_eq!(api.round_at(60 * MINUTE_MS + 30_000).await, 3);
    let shown = api.get(&path).await.json();
    assert_eq!(
        (&shown["runs"], &shown["runs_missed"]),
        (&json!(3), &json!(57))
    );

    assert_eq!(api.act(&path, "pause").await.json()["state"], "paused");
    assert_eq!(api.round_at(70 * MINUTE_MS).await, 3);
    assert_eq!(api.act(&path, "resume").await.json()["state"], "active");
    assert_eq!(api.round_at(70 * MINUTE_MS).await, 3);
    assert_eq!(api.round_at(71 * MINUTE_MS).await, 4);
    assert_eq!(api.get(&path).await.json()["runs_missed"], 57);
}

#[tokio::test]
async fn a_run_by_hand_comes_at_once_and_the_plan_stays() {
    let api = api();
    let path = api
        .schedule(json!({"cron": "0 * * * *", "time_zone": "UTC"}))
        .await;
    let ran = api.act(&path, "run").await.json();
    let push_id = ran["waiting"][0]["push_id"].as_str().unwrap();
    assert_eq!(ran["next_runs"][0], "2026-11-23T07:00:00.000Z");
    assert_eq!(api.round_at(1).await, 1);
    assert_eq!(api.store.accepted()[0].id.to_string(), push_id);
    assert_eq!(api.round_at(60 * MINUTE_MS).await, 2);
    let shown = api.get(&path).await.json();
    assert_eq!(
        (&shown["runs"], &shown["runs_by_hand"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn while_the_store_is_away_runs_wait_and_none_comes_twice() {
    let api = api();
    api.schedule(every_minute()).await;
    api.set_time(MINUTE_MS);
    for mood in [Mood::Down, Mood::Drops, Mood::Confused] {
        api.store.set_mood(mood);
        assert!(scheduler::round(&api.state).await.is_err());
    }
    api.store.set_mood(Mood::Well);
    assert_eq!(api.round_at(MINUTE_MS + 1).await, 1);
    assert_eq!(api.round_at(MINUTE_MS + 2).await, 1);
}

#[tokio::test]
async fn several_schedulers_at_a_time_make_each_run_once() {
    let api = api();
    for _ in 0..5 {
        api.schedule(every_minute()).await;
    }
    for n in 1..=3 {
        api.set_time(n * MINUTE_MS);
        // One may find the other in its way, and leaves the rest to the next round.
        let _ = tokio::join!(
            scheduler::round(&api.state),
            scheduler::round(&api.state),
            scheduler::round(&api.state)
        );
        assert_eq!(api.round_at(n * MINUTE_MS).await, 5 * n as usize);
    }
}

#[tokio::test]
async fn a_run_that_is_refused_says_why_and_the_next_one_comes() {
    let api = api();
    let body =
        json!({"when": every_minute(), "push": {"audience": {"segment": "gone"}, "data": {}}});
    let answer = api.send_json(Method::POST, SCHEDULES, body).await;
    let path = answer.header("location").unwrap().to_owned();
    assert_eq!(api.round_at(MINUTE_MS).await, 0);
    let shown = api.get(&path).await.json();
    assert_eq!(
        (&shown["runs"], &shown["runs_failed"]),
        (&json!(1), &json!(1))
    );
    assert!(shown["last_failure"].is_string());
    let change = json!({"push": push()});
    assert_eq!(
        api.send_json(Method::PATCH, &path, change).await.status,
        StatusCode::OK
    );
    assert_eq!(api.round_at(2 * MINUTE_MS).await, 1);
}

#[tokio::test]
async fn a_push_that_waits_has_its_id_at_once_and_is_made_once() {
    let api = api();
    let mut body = push();
    body["options"]["not_before"] = json!("2026-11-23T06:10:00Z");
    let text = body.to_string();
    let answer = api.push_once("k1", &text).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let accepted = answer.json();
    assert_eq!(accepted["targeted"], Value::Null);
    assert_eq!(accepted["expires_at"], "2026-11-23T06:11:00.000Z");
    let id = accepted["push_id"].as_str().unwrap();
    let again = api.push_once("k1", &text).await;
    assert_eq!(again.json(), accepted);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = api.push_once("k1", &text.replace("06:10", "06:20")).await;
    assert_eq!(other.problem(), "idempotency_key_reused");

    let report = format!("/v1/apps/shop/pushes/{id}");
    let waiting = api.get(&report).await.json();
    assert_eq!(waiting["status"], "scheduled");
    assert_eq!(waiting["expires_at"], "2026-11-23T06:11:00.000Z");
    assert_eq!(api.round_at(10 * MINUTE_MS - 1).await, 0);
    assert_eq!(api.round_at(10 * MINUTE_MS).await, 1);
    assert_eq!(api.store.accepted()[0].id.to_string(), id);
    assert_eq!(api.get(&report).await.json()["status"], "active");
    // Its time has come; the same request is still the same push.
    assert_eq!(api.push_once("k1", &text).await.json()["push_id"], id);
    assert_eq!(api.store.accepted().len(), 1);
    let late = api.push(text).await.json();
    assert_eq!(
        late["targeted"], 1,
        "without a key, a time that has come is now"
    );
}

#[tokio::test]
async fn a_push_that_waits_can_be_sent_early_or_taken_back() {
    let api = api();
    let mut body = push();
    body["options"]["not_before"] = json!("2026-11-23T06:10:00Z");
    let mut paths = Vec::new();
    for _ in 0..2 {
        let id = api.push(body.to_string()).await.json()["push_id"].clone();
        paths.push(format!("{SCHEDULES}/{}", id.as_str().unwrap()));
    }
    assert_eq!(api.act(&paths[0], "run").await.status, StatusCode::OK);
    assert_eq!(api.delete(&paths[1]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.round_at(1).await, 1);
    assert_eq!(api.act(&paths[0], "run").await.problem(), "clash");
    assert_eq!(api.round_at(10 * MINUTE_MS).await, 1);
    let change = api
        .send_json(Method::PATCH, &paths[0], json!({"name": "x"}))
        .await;
    assert_eq!(change.problem(), "clash");
}

#[tokio::test]
async fn a_repeated_request_makes_one_schedule() {
    let api = api();
    let body = json!({"when": every_minute(), "push": push()}).to_string();
    let make = async |body: &str| {
        let request = api
            .request(Method::POST, SCHEDULES)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", "k");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        api.send(request).await
    };
    let first = make(&body).await;
    let again = make(&body).await;
    assert_eq!(
        (again.status, again.json()),
        (StatusCode::CREATED, first.json())
    );
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        make(&format!("{body} ")).await.problem(),
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn mistakes_are_refused_and_nothing_is_kept() {
    let api = api();
    for (when, code) in [
        (
            json!({"cron": "0 0 30 2 *", "time_zone": "UTC"}),
            "invalid_field",
        ),
        (json!({"at": "2026-11-23T06:00:00Z"}), "invalid_field"),
        (json!({"local_time": "09:00"}), "unknown_field"),
        (json!({"cron": "* * * * *"}), "missing_field"),
        (json!({"every": 1}), "unknown_field"),
    ] {
        let body = json!({"when": when, "push": push()});
        let answer = api.send_json(Method::POST, SCHEDULES, body).await;
        assert_eq!(answer.problem(), code, "{answer:?}");
    }
    let far = json!({"audience": {"all": true}, "data": {}, "options": {"not_before": "2036-01-01T00:00:00Z"}});
    assert_eq!(api.push(far.to_string()).await.problem(), "invalid_field");
    assert_eq!(api.get(SCHEDULES).await.json()["schedules"], json!([]));
    assert_eq!(
        api.get(&format!("{SCHEDULES}?limit=0")).await.problem(),
        "invalid_parameter"
    );
    let foreign = api.get("/v1/apps/bank/schedules").await;
    assert_eq!(foreign.problem(), "wrong_app");
}

#[tokio::test]
async fn a_time_by_the_devices_clocks_is_one_campaign_that_begins_with_the_first() {
    let api = api();
    // 2026-11-24T00:00 on the first clock is four hours from now.
    let when = json!({"at": "2026-11-24T00:00", "time_zone": "device", "if_past": "skip"});
    let body = json!({"when": when, "push": {"audience": {"all": true}, "data": {"n": 1}}});
    let made = api.send_json(Method::POST, SCHEDULES, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.json()["when"], when);
    let runs = json!([{
        "local_time": "2026-11-24T00:00",
        "first_at": "2026-11-23T10:00:00.000Z", "last_at": "2026-11-24T12:00:00.000Z",
    }]);
    assert_eq!(made.json()["next_local_runs"], runs);
    let begins = 4 * 60 * MINUTE_MS;
    assert_eq!(api.round_at(begins - 1).await, 0);
    assert_eq!(api.round_at(begins).await, 1);
    assert_eq!(api.round_at(begins + 27 * 60 * MINUTE_MS).await, 1);
    let accepted = api.store.accepted().pop().unwrap();
    assert!(accepted.rows.is_some(), "a campaign");

    let body = json!({"when": when, "push": {"audience": {"all": true}, "data": {}, "options": {"ttl": 60}}});
    api.set_time(0);
    let short = api.send_json(Method::POST, SCHEDULES, body).await;
    assert_eq!(short.problem(), "invalid_field");
}

#[tokio::test]
async fn runs_count_as_pushes_a_second_and_wait_for_their_turn() {
    let api = api();
    api.store.set_push_rate("shop", 2);
    for _ in 0..5 {
        api.schedule(json!({"at": "2026-11-23T06:00:01Z"})).await;
    }
    assert_eq!(api.round_at(1000).await, 2);
    assert_eq!(
        api.round_at(1000).await,
        2,
        "not before a second has passed"
    );
    assert_eq!(api.round_at(2000).await, 4);
    assert_eq!(api.round_at(3000).await, 5);
    let list = api.get(SCHEDULES).await.json();
    for shown in list["schedules"].as_array().unwrap() {
        let figures = (&shown["runs"], &shown["runs_missed"], &shown["runs_failed"]);
        assert_eq!(figures, (&json!(1), &json!(0), &json!(0)));
    }
}
