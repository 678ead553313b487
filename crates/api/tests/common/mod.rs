//! An API over a store in memory, with a clock and ids that are known.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod conformance;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use campanile_api::{
    Answered, ApiState, Config, Node, Outgoing, Parts, Post, Store, Version,
    cluster::{self, ClientConnection, Cluster, DrainOrder, Located, NodeStatus, Overview},
    router,
};
use campanile_push::{
    app::AppName,
    event::{Draft, Event, EventId},
    explanation::AtDevice,
    funnel::Life,
    id::PushId,
    key::ApiKey,
    receipt::Mark,
    registry::{
        Context, Planned, Refusal,
        apps::{self, QuotaChange, Quotas},
        carry_out,
        permission::{Permission, Permissions},
    },
    rows::{Key, MemoryRows, Range, Row, Scope, Table},
    series::Series,
    store::{
        Accept, Audience, Away, Command, Erased, EventPage, Idempotency, Listed, Outcome, Past,
        Reader, Report, Stored, Unavailable,
    },
    webhook::delivery,
};
use http_body_util::BodyExt;
use roaring::RoaringBitmap;
use serde_json::Value;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// 2026-11-23T06:00:00Z.
pub const NOW_MS: u64 = 1_795_413_600_000;

/// How the store behaves.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Mood {
    #[default]
    Well,
    Down,
    /// Never answers.
    Hangs,
    /// Forgets the request.
    Drops,
    /// Answers with another command's outcome.
    Confused,
    Panics,
}

#[derive(Default)]
pub struct MemoryStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    mood: Mood,
    key_lookups: usize,
    rows: MemoryRows,
    sessions: u64,
    pushes: Vec<(Accept, u64)>,
    away: BTreeMap<String, Away>,
    events: Vec<Event>,
    trimmed_to: u64,
    hanging: Vec<oneshot::Sender<Result<Outcome, Unavailable>>>,
}

impl MemoryStore {
    pub fn set_mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub fn accepted(&self) -> Vec<Accept> {
        self.0
            .lock()
            .unwrap()
            .pushes
            .iter()
            .map(|(accept, _)| accept.clone())
            .collect()
    }

    /// Gives an app one more key.
    pub fn add_key(&self, app: &str, key: &ApiKey, permissions: Permissions) {
        let app = AppName::new(app).unwrap();
        self.change(|context| apps::add_key(context, &app, &key.hash(), permissions, ""));
    }

    /// Sets how many pushes a second an app may make.
    pub fn set_push_rate(&self, app: &str, pushes_per_second: u64) {
        let app = AppName::new(app).unwrap();
        let change = QuotaChange {
            pushes_per_second: Some(pushes_per_second),
            ..QuotaChange::default()
        };
        self.change(|context| apps::change_quotas(context, &app, &change));
    }

    fn change<T>(&self, plan: impl Fn(&Context<'_>) -> Result<Planned<T>, Refusal>) {
        let context = Context {
            reader: self,
            now_ms: NOW_MS,
            unique: 0,
            actor: "test",
        };
        let submit = |command| Ok(self.0.lock().unwrap().apply(command));
        carry_out(&context, submit, plan).unwrap();
    }

    /// A device keeps its session, and leaves.
    pub fn leave(&self, device: &str, away: Away) {
        let mut tables = self.0.lock().unwrap();
        tables.away.insert(device.to_owned(), away);
    }

    /// Something happens, whoever listens.
    pub fn tell(&self, draft: Draft) {
        self.0.lock().unwrap().tell(draft);
    }

    /// The event log has lost its beginning.
    pub fn trim(&self, to: u64) {
        let mut tables = self.0.lock().unwrap();
        tables.events.retain(|event| event.id.place() > to);
        tables.trimmed_to = to;
    }

    pub fn key_lookups(&self) -> usize {
        self.0.lock().unwrap().key_lookups
    }

    pub fn revoke_all_keys(&self) {
        self.0.lock().unwrap().rows = MemoryRows::default();
    }
}

impl Tables {
    fn apply(&mut self, command: Command) -> Outcome {
        match command {
            Command::Accept(accept) => self.accept(*accept),
            Command::Change(change) => {
                let outcome = self.rows.change(&change);
                for draft in self.rows.take_told() {
                    self.tell(draft);
                }
                outcome
            }
            Command::Target(_) | Command::Counted { .. } => Outcome::Done,
        }
    }

    fn tell(&mut self, draft: Draft) {
        // Behind all versions of rows, as in one sequence with them.
        let place = self
            .events
            .last()
            .map_or(1_000_000, |event| event.id.place())
            + 1;
        self.events.push(Event {
            id: EventId::new(NOW_MS, place),
            at_ms: NOW_MS,
            draft,
        });
    }

    fn answered(&self, wanted: &Idempotency, now_ms: u64) -> Option<Outcome> {
        self.pushes.iter().find_map(|(earlier, targeted)| {
            let kept = earlier.idempotency.as_ref()?;
            if kept.key != wanted.key || kept.expires_ms <= now_ms {
                return None;
            }
            Some(match kept.body_hash == wanted.body_hash {
                true => Outcome::Replayed {
                    id: earlier.id,
                    targeted: Some(*targeted),
                    accepted_ms: earlier.accepted_ms,
                },
                false => Outcome::KeyReused,
            })
        })
    }

    fn accept(&mut self, accept: Accept) -> Outcome {
        let key = accept.idempotency.as_ref();
        if let Some(outcome) = key.and_then(|key| self.answered(key, accept.accepted_ms)) {
            return outcome;
        }
        let same_id = self
            .pushes
            .iter()
            .find(|(earlier, _)| earlier.app == accept.app && earlier.id == accept.id);
        if let Some((_, targeted)) = same_id {
            return Outcome::Accepted {
                targeted: Some(*targeted),
            };
        }
        if let Some(rows) = &accept.rows {
            match self.rows.change(rows) {
                Outcome::Changed { .. } => {}
                refused => return refused,
            }
        }
        let targeted = match &accept.audience {
            Audience::Devices(devices) => devices.len() as u64,
            _ => 42,
        };
        self.pushes.push((accept, targeted));
        Outcome::Accepted {
            targeted: Some(targeted),
        }
    }
}

impl Reader for MemoryStore {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let mut tables = self.0.lock().unwrap();
        if tables.mood == Mood::Down {
            return Err(Unavailable("it is switched off".into()));
        }
        tables.key_lookups += keys.iter().filter(|key| key.table == Table::Key).count();
        let row = |key| tables.rows.row(scope, key, now_ms);
        Ok(keys.iter().map(row).collect())
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        let tables = self.0.lock().unwrap();
        if tables.mood == Mood::Down {
            return Err(Unavailable("it is switched off".into()));
        }
        Ok(tables.rows.rows(range, now_ms))
    }

    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable> {
        Ok(self.0.lock().unwrap().rows.count(scope, table))
    }

    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        let (tables, scope) = (self.0.lock().unwrap(), Scope::App(app.clone()));
        let number = |device: &Arc<str>| tables.rows.number(&scope, device);
        Ok(devices.iter().map(number).collect())
    }

    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable> {
        let numbers = (self.0.lock().unwrap().rows).cohort(&Scope::App(app.clone()), cohort);
        Ok(Some(numbers).filter(|numbers| numbers.len() <= most))
    }

    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let (tables, scope) = (self.0.lock().unwrap(), Scope::App(app.clone()));
        let row = |number: &u32| tables.rows.numbered(&scope, *number);
        Ok(numbers.iter().map(row).collect())
    }

    fn sessions(&self, _: &AppName) -> Result<u64, Unavailable> {
        Ok(self.0.lock().unwrap().sessions)
    }

    fn numbers_end(&self, _: &AppName) -> Result<u32, Unavailable> {
        Ok(self.0.lock().unwrap().rows.numbers_end())
    }

    fn answered(
        &self,
        _: &AppName,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Unavailable> {
        Ok(self.0.lock().unwrap().answered(idempotency, now_ms))
    }

    /// The payloads that were accepted.
    fn stored(&self, app: &AppName) -> Result<Stored, Unavailable> {
        let tables = self.0.lock().unwrap();
        let pushes = tables.pushes.iter().filter(|(push, _)| push.app == *app);
        Ok(Stored {
            bytes: pushes.map(|(push, _)| push.payload.len() as u64).sum(),
        })
    }

    /// Every push is for two devices.
    fn marked(&self, _: &AppName, _: PushId, mark: Mark) -> Result<RoaringBitmap, Unavailable> {
        Ok(match mark {
            Mark::Targeted => [3, 7].into_iter().collect(),
            _ => RoaringBitmap::new(),
        })
    }

    fn away(&self, _: &AppName, device: &str, _: u64) -> Result<Option<Away>, Unavailable> {
        Ok(self.0.lock().unwrap().away.get(device).copied())
    }

    fn at_device(&self, app: &AppName, id: PushId, _: &str) -> Result<AtDevice, Unavailable> {
        let tables = self.0.lock().unwrap();
        let mut pushes = tables.pushes.iter().map(|(accept, _)| accept);
        let push = pushes.find(|accept| accept.app == *app && accept.id == id);
        Ok(push.map_or_else(AtDevice::default, |accept| AtDevice {
            life: Some(Life {
                accepted_ms: accept.accepted_ms,
                expires_ms: accept.expires_ms,
                ended_ms: None,
            }),
            number: Some(7),
            marks: [Mark::Targeted, Mark::Delivered, Mark::Displayed].into(),
            ..AtDevice::default()
        }))
    }

    fn report(&self, app: &AppName, id: PushId, _: u64) -> Result<Option<Report>, Unavailable> {
        let tables = self.0.lock().unwrap();
        match tables.mood {
            Mood::Down => return Err(Unavailable("it is switched off".into())),
            Mood::Panics => panic!("the reader panics on purpose"),
            _ => {}
        }
        let push = tables
            .pushes
            .iter()
            .find(|(accept, _)| accept.app == *app && accept.id == id);
        Ok(push.map(|(accept, targeted)| Report {
            accepted_ms: accept.accepted_ms,
            expires_ms: accept.expires_ms,
            targeted: *targeted,
            pending: *targeted,
            info: accept.info.clone(),
            ..Report::default()
        }))
    }

    fn events(&self, _: &AppName, after: u64, limit: usize) -> Result<EventPage, Unavailable> {
        let tables = self.0.lock().unwrap();
        let events = tables.events.iter();
        let events: Vec<Event> = events
            .filter(|event| event.id.place() > after)
            .take(limit)
            .cloned()
            .collect();
        let end = tables.events.last().map_or(0, |event| event.id.place());
        let last = events.last().map(|event| event.id.place());
        Ok(EventPage {
            read_to: last.unwrap_or(after.max(end)),
            end,
            gap: after < tables.trimmed_to,
            events,
        })
    }

    fn past(
        &self,
        _: &AppName,
        device: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Past, Unavailable> {
        let tables = self.0.lock().unwrap();
        let events = tables.events.iter().rev();
        let mut events: Vec<Event> = events
            .filter(|event| before.is_none_or(|before| event.id.place() < before))
            .filter(|event| device.is_none() || event.draft.device.as_deref() == device)
            .take(limit + 1)
            .cloned()
            .collect();
        let more = events.len() > limit;
        events.truncate(limit);
        let last = events.last().map(|event| event.id.place());
        Ok(Past {
            before: last.filter(|_| more),
            events,
        })
    }

    fn series(&self, _: &AppName, _: PushId) -> Result<Series, Unavailable> {
        let mut series = Series::default();
        series.load(1, Mark::Delivered, 3);
        series.load(180, Mark::Clicked, 2);
        Ok(series)
    }

    fn pushes(
        &self,
        app: &AppName,
        before: Option<PushId>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable> {
        let tables = self.0.lock().unwrap();
        let pushes = tables.pushes.iter().rev().map(|(accept, _)| accept);
        let listed: Vec<Listed> = pushes
            .filter(|accept| accept.app == *app)
            .filter(|accept| before.is_none_or(|before| accept.id < before))
            .map(|accept| Listed {
                id: accept.id,
                accepted_ms: accept.accepted_ms,
                expires_ms: accept.expires_ms,
                info: accept.info.clone(),
            })
            .collect();
        let more = listed.len() > limit;
        Ok((listed.into_iter().take(limit).collect(), more))
    }
}

/// The port as the API wants it.
pub struct Port(pub Arc<MemoryStore>);

impl Store for Port {
    fn submit(&self, command: Command) -> oneshot::Receiver<Result<Outcome, Unavailable>> {
        let (sender, receiver) = oneshot::channel();
        let mut tables = self.0.0.lock().unwrap();
        match tables.mood {
            Mood::Well => drop(sender.send(Ok(tables.apply(command)))),
            Mood::Down => drop(sender.send(Err(Unavailable("it is switched off".into())))),
            Mood::Hangs => tables.hanging.push(sender),
            Mood::Drops => drop(sender),
            Mood::Confused => drop(sender.send(Ok(Outcome::Conflict))),
            Mood::Panics => {
                drop(tables);
                panic!("the store panics on purpose");
            }
        }
        receiver
    }

    /// A thing at a time: pushes only.
    fn erase(&self, app: &AppName, _: u32) -> oneshot::Receiver<Result<Erased, Unavailable>> {
        let mut tables = self.0.0.lock().unwrap();
        let before = tables.pushes.len();
        if let Some(at) = tables.pushes.iter().position(|(push, _)| push.app == *app) {
            tables.pushes.remove(at);
        }
        let removed = (before - tables.pushes.len()) as u32;
        let more = tables.pushes.iter().any(|(push, _)| push.app == *app);
        let (answer, outcome) = oneshot::channel();
        let _ = answer.send(Ok(Erased { removed, more }));
        outcome
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.clone()
    }
}

#[derive(Default)]
pub struct TestNode(pub Mutex<Vec<String>>);

impl Node for TestNode {
    fn not_ready(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn is_stopping(&self) -> bool {
        !self.not_ready().is_empty()
    }

    fn metrics(&self) -> String {
        "campanile_connections 3\n".into()
    }

    fn connections(&self, _: &AppName) -> u64 {
        3
    }

    fn version(&self) -> Version {
        Version {
            version: "1.2.3",
            commit: None,
        }
    }
}

/// A cluster as the test says it is.
#[derive(Default)]
pub struct TestCluster(pub Mutex<Vec<NodeStatus>>);

impl TestCluster {
    pub fn add(&self, name: &str, connections: u64, addresses: &[&str]) {
        self.0.lock().unwrap().push(NodeStatus {
            name: name.to_owned(),
            this: false,
            generation: None,
            version: "1.2.3".to_owned(),
            started_ms: NOW_MS,
            addresses: addresses.iter().map(|url| (*url).to_owned()).collect(),
            http: String::new(),
            connections,
            capacity: 1000,
            draining: false,
            drain: None,
            leader: false,
            linked: Some(true),
        });
    }
}

impl Cluster for TestCluster {
    fn overview(&self) -> Overview {
        Overview {
            cluster: "test".to_owned(),
            member: true,
            membership_reachable: true,
            store_failing: None,
            nodes: self.0.lock().unwrap().clone(),
        }
    }

    /// A client is connected to the node of its name, if there is one. Nodes without a link are silent. Without nodes nobody can tell.
    fn locate<'a>(&'a self, _: &'a AppName, client: &'a str) -> cluster::Answer<'a, Located> {
        let nodes = self.0.lock().unwrap();
        let node = nodes.iter().find(|node| node.name == client);
        let located = Located {
            connection: node.map(|node| ClientConnection {
                node: node.name.clone(),
                epoch: 1,
                protocol_level: 5,
                subscriptions: 2,
                in_flight: 3,
                filters: vec!["news/#".to_owned()],
                behind: Some(4),
                ..ClientConnection::default()
            }),
            silent: nodes
                .iter()
                .filter(|node| node.linked == Some(false))
                .map(|node| node.name.clone())
                .collect(),
        };
        let answer = match nodes.is_empty() {
            true => Err(cluster::Refusal::Alone),
            false => Ok(located),
        };
        Box::pin(async { answer })
    }

    fn kick<'a>(&'a self, app: &'a AppName, client: &'a str) -> cluster::Answer<'a, Located> {
        self.locate(app, client)
    }

    /// One that is registered; with nodes, the first does not answer.
    fn count_connected<'a>(
        &'a self,
        _: &'a AppName,
        _: PushId,
        _: Option<Bytes>,
    ) -> cluster::Answer<'a, cluster::Connected> {
        let nodes = self.0.lock().unwrap();
        let connected = cluster::Connected {
            known: 1,
            others: 0,
            silent: nodes
                .first()
                .map(|node| node.name.clone())
                .into_iter()
                .collect(),
        };
        Box::pin(async { Ok(connected) })
    }

    fn drain<'a>(&'a self, _: &'a str, _: DrainOrder) -> cluster::Answer<'a, ()> {
        unreachable!("operators ask elsewhere")
    }

    fn undrain<'a>(&'a self, _: &'a str) -> cluster::Answer<'a, ()> {
        unreachable!("operators ask elsewhere")
    }

    fn rebalance(&self) -> cluster::Answer<'_, ()> {
        unreachable!("operators ask elsewhere")
    }
}

/// Receivers of webhooks that answer as the test says, or take everything.
#[derive(Default)]
pub struct TestReceiver {
    pub got: Mutex<Vec<Post>>,
    /// Statuses of the next answers.
    pub statuses: Mutex<Vec<u16>>,
}

impl Outgoing for TestReceiver {
    fn post(&self, post: Post, _: Duration) -> Pin<Box<dyn Future<Output = Answered> + Send + '_>> {
        self.got.lock().unwrap().push(post);
        let mut statuses = self.statuses.lock().unwrap();
        let code = match statuses.is_empty() {
            true => 204,
            false => statuses.remove(0),
        };
        Box::pin(async move {
            Answered {
                answer: delivery::Answer::Status {
                    code,
                    retry_after_seconds: None,
                },
                detail: format!("HTTP {code}"),
            }
        })
    }
}

/// An API with an app `shop` and another, `bank`.
pub struct Api {
    pub state: ApiState,
    pub router: Router,
    pub store: Arc<MemoryStore>,
    pub node: Arc<TestNode>,
    pub cluster: Arc<TestCluster>,
    pub receiver: Arc<TestReceiver>,
    pub now_ms: Arc<AtomicU64>,
    pub shop: ApiKey,
    pub bank: ApiKey,
}

pub fn api() -> Api {
    api_with(Config::default())
}

pub fn api_with(config: Config) -> Api {
    let store = Arc::new(MemoryStore::default());
    let node = Arc::new(TestNode::default());
    let cluster = Arc::new(TestCluster::default());
    let receiver = Arc::new(TestReceiver::default());
    let now_ms = Arc::new(AtomicU64::new(NOW_MS));
    let (shop, bank) = (ApiKey::from_random([1; 32]), ApiKey::from_random([2; 32]));
    for (app, key) in [("shop", &shop), ("bank", &bank)] {
        let app = AppName::new(app).unwrap();
        store.change(|context| {
            let permissions = Permissions::ADMIN.with(Permission::Operator);
            apps::create(context, &app, Quotas::default(), &key.hash(), permissions)
        });
    }
    store.0.lock().unwrap().key_lookups = 0;
    let ids = AtomicU64::new(1);
    let clock = Arc::clone(&now_ms);
    let state = ApiState::new(Parts {
        store: Arc::new(Port(Arc::clone(&store))),
        node: node.clone(),
        cluster: cluster.clone(),
        now_ms: Arc::new(move || clock.load(Ordering::Relaxed)),
        new_id: Arc::new(move || PushId(ids.fetch_add(1, Ordering::Relaxed).into())),
        outgoing: receiver.clone(),
        config,
    });
    Api {
        router: router(state.clone()),
        state,
        store,
        node,
        cluster,
        receiver,
        now_ms,
        shop,
        bank,
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that this is a sound problem document and returns its code.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16());
        let code = document["code"].as_str().unwrap().to_owned();
        assert!(
            document["type"]
                .as_str()
                .unwrap()
                .ends_with(&format!("#{code}"))
        );
        for member in ["title", "detail"] {
            assert!(!document[member].as_str().unwrap().is_empty());
        }
        code
    }
}

/// Has a request answered.
pub async fn answer(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.into()).unwrap(),
    }
}

impl Api {
    /// Sends a request, and checks that the document of the API tells of the answer.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = answer(self.router.clone(), request).await;
        let document = conformance::document(self.router.clone()).await;
        conformance::check(document, &method, &path, &answer);
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Body::empty()).unwrap())
            .await
    }

    /// Pushes with the app's key and no idempotency key.
    pub async fn push(&self, body: impl Into<Body>) -> Answer {
        self.send(self.push_request().body(body.into()).unwrap())
            .await
    }

    pub async fn push_once(&self, key: &str, body: &str) -> Answer {
        self.send(
            self.push_request()
                .header("idempotency-key", key)
                .body(body.to_owned().into())
                .unwrap(),
        )
        .await
    }

    pub fn push_request(&self) -> axum::http::request::Builder {
        self.request(Method::POST, "/v1/apps/shop/pushes")
            .header(header::CONTENT_TYPE, "application/json")
    }

    /// Sends JSON with the key of `shop`, to a path below the app's.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let method = method.parse().unwrap();
        let request = self
            .request(method, &format!("/v1/apps/shop/{path}"))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string().into()).unwrap())
            .await
    }

    /// A request with the key of `shop`.
    pub fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let authorization = format!("Bearer {}", self.shop.reveal());
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, authorization)
    }
}
