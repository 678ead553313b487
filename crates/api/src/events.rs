//! `/v1/apps/{app}/events`: what happens, as a stream of server-sent events; and a device's timeline.

use std::{convert::Infallible, fmt::Write, time::Duration};

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use campanile_push::{
    app::AppName,
    device::names,
    event::{Event, EventId, Filter},
    id::PushId,
    registry::{Context, apps, devices, listeners, permission::Permission},
    store::{EventPage, Past},
};
use futures_util::stream;
use serde_json::{json, value::RawValue};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

use crate::{
    ApiState,
    auth::Caller,
    openapi::{self, Content, Operation, Routes, named},
    path::InPath,
    problem::{Code, Problem},
    query::{self, Paging, wrong},
    webhooks,
};

/// The routes of the stream and of timelines.
pub(crate) fn routes() -> Routes {
    let text = json!({"type": "string"});
    let events = Content::Events(
        "Server-sent events: each with its `id`, its type as `event`, and an `Event` as `data`. An event `gap` says that some may have been lost, as they are no longer kept.",
        "id: 01KAR0M4G0ZJ9QX6T5V8C2N3B7\nevent: push.delivered\ndata: {..}\n\n",
    );
    let stream = Operation::new("streamEvents", "What happens, as it happens")
        .tells("It goes on until the caller or the node goes. It tells what happens from then on, or after the event that `Last-Event-ID` names. An event may come more than once.")
        .needs(Permission::Read)
        .query(
            "types",
            "Only these: names, families such as `push.*`, separated by commas.",
            json!({"type": "string", "example": "push.delivered,device.*"}),
        )
        .query("device", "Only what is about this device.", text)
        .query("push", "Only what is about this push.", openapi::reference("Ulid"))
        .takes_header(
            "Last-Event-ID",
            "The event after which the stream goes on.",
            openapi::reference("Ulid"),
        )
        .answers(200, "The stream.", events)
        // That somebody listens is written down.
        .may(&[Code::TooManyRequests, Code::OutcomeUnknown]);
    let timeline = Operation::new("getTimeline", "What happened to a device")
        .tells("The latest first, as far as events are kept, of times at which somebody listened. A page may be short, or empty, and yet have a `next`.")
        .needs(Permission::Read)
        .paged_by_id()
        .answers(200, "A page of events.", named("Timeline"))
        .may(&[Code::InvalidField]);
    Routes::of("Events", "What happens, as a stream and by device.")
        .get("/v1/apps/{app}/events", self::stream, stream)
        .get(
            "/v1/apps/{app}/devices/{device}/timeline",
            self::timeline,
            timeline,
        )
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Events read at a time.
const PAGE: usize = 200;
/// Between two reads of a log that has nothing new: the longer, the longer nothing happens.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
const LONGEST_POLL: Duration = Duration::from_secs(1);
/// Between two signs of life, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Between two looks whether the app is being deleted: well before it can be gone.
const LEAVING_EVERY: Duration = Duration::from_secs(3);
/// Milliseconds after which a client should come back.
const RETRY_MS: u64 = 1000;
/// Parts of the log that are looked through for one page of a timeline.
const LOOKS: usize = 5;

/// What of the events a stream wants.
struct Wanted {
    types: Filter,
    device: Option<String>,
    push: Option<PushId>,
}

impl Wanted {
    fn parse(text: Option<&str>) -> Result<Wanted, Problem> {
        let mut wanted = Wanted {
            types: Filter::all(),
            device: None,
            push: None,
        };
        let known = ["types", "device", "push"];
        for (name, value) in query::parse(text.unwrap_or_default(), &known)? {
            match name {
                "types" => {
                    let types = Filter::parse(value.split(','));
                    wanted.types = types.map_err(|bad| wrong(name, bad))?;
                }
                "device" => {
                    names::CLIENT_ID
                        .check(&value)
                        .map_err(|bad| wrong(name, bad))?;
                    wanted.device = Some(value);
                }
                _ => wanted.push = Some(value.parse().map_err(|bad| wrong(name, bad))?),
            }
        }
        Ok(wanted)
    }

    fn matches(&self, event: &Event) -> bool {
        let draft = &event.draft;
        let of_device = self.device.is_none() || self.device.as_deref() == draft.device.as_deref();
        let of_push = self.push.is_none() || self.push == draft.push;
        of_device && of_push && self.types.matches(draft.kind)
    }
}

/// `GET /v1/apps/{app}/events`
pub(crate) async fn stream(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = Wanted::parse(text.as_deref())?;
    let after = last_event_id(&headers)?;
    let Some(permit) = state.stream_permit() else {
        metrics::counter!("campanile_event_streams_refused_total").increment(1);
        let most = state.config().max_event_streams;
        return Err(Problem::new(
            Code::TooManyRequests,
            format!(
                "this node has {most} event streams open, as many as it may (http.max_event_streams)"
            ),
        ));
    };
    webhooks::announce(&state, &caller.app).await?;
    listen(&state, &caller.app).await?;
    let after = match after {
        Some(id) => id.place(),
        None => read(&state, &caller.app, u64::MAX).await?.end,
    };
    let open = Open::new(state, caller.app, wanted, after, permit);
    let body = Body::from_stream(stream::unfold(open, |mut open| async {
        let chunk = open.next().await?;
        Some((Ok::<_, Infallible>(chunk), open))
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect answers would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    let bad = "the header Last-Event-ID is no event id; leave it out to begin now";
    id.map(Some)
        .ok_or_else(|| Problem::new(Code::InvalidParameter, bad))
}

/// Has what happens written down for a while.
async fn listen(state: &ApiState, app: &AppName) -> Result<(), Problem> {
    let app = app.clone();
    let plan = move |context: &Context<'_>| listeners::listen(context, &app);
    state.carry_out("api".to_owned(), plan).await
}

async fn read(state: &ApiState, app: &AppName, after: u64) -> Result<EventPage, Problem> {
    let app = app.clone();
    state
        .read(move |reader| reader.events(&app, after, PAGE))
        .await
}

/// A stream that somebody reads.
struct Open {
    state: ApiState,
    app: AppName,
    wanted: Wanted,
    /// The place up to which the log was read.
    after: u64,
    poll: Duration,
    is_new: bool,
    last_sent: Instant,
    listened: Instant,
    looked_after: Instant,
    /// When it was last looked whether the app is being deleted.
    asked: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(
        state: ApiState,
        app: AppName,
        wanted: Wanted,
        after: u64,
        permit: OwnedSemaphorePermit,
    ) -> Open {
        metrics::gauge!("campanile_event_streams").increment(1);
        let now = Instant::now();
        Open {
            state,
            app,
            wanted,
            after,
            poll: Duration::ZERO,
            is_new: true,
            last_sent: now,
            listened: now,
            looked_after: now,
            asked: now,
            _permit: permit,
        }
    }

    /// What is sent next; `None`: the node goes, and the client shall come back elsewhere, or the app goes.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            return Some(format!("retry: {RETRY_MS}\n: open\n\n").into());
        }
        loop {
            sleep(self.poll).await;
            if self.is_to_end() || self.is_app_leaving().await {
                return None;
            }
            self.go_on_listening().await;
            self.poll = (self.poll * 2).clamp(SHORTEST_POLL, LONGEST_POLL);
            if let Ok(page) = read(&self.state, &self.app, self.after).await {
                let is_more = page.events.len() >= PAGE;
                self.after = page.read_to;
                let text = self.show(&page);
                if is_more || !text.is_empty() {
                    self.poll = Duration::ZERO;
                }
                if !text.is_empty() {
                    self.last_sent = Instant::now();
                    return Some(text.into());
                }
            }
            if self.last_sent.elapsed() >= KEEP_ALIVE {
                self.last_sent = Instant::now();
                // An id alone is no event, but the place from which the client goes on.
                let id = EventId::new(self.state.now_ms(), self.after);
                return Some(format!(": keep-alive\nid: {id}\n\n").into());
            }
        }
    }

    fn show(&self, page: &EventPage) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if page.gap {
            metrics::counter!("campanile_event_stream_gaps_total").increment(1);
            let _ = write!(
                text,
                "event: gap\ndata: {{\"detail\":\"there may have been events that are no longer kept\"}}\n\n"
            );
        }
        for event in page
            .events
            .iter()
            .filter(|event| self.wanted.matches(event))
        {
            let (id, kind) = (event.id, event.draft.kind.name());
            let json = event.to_json(&self.app);
            let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {json}\n\n");
        }
        text
    }

    fn is_to_end(&mut self) -> bool {
        if self.state.node().is_stopping() {
            return true;
        }
        if self.looked_after.elapsed() < LONGEST_POLL {
            return false;
        }
        self.looked_after = Instant::now();
        let nodes = self.state.cluster().overview().nodes;
        nodes.iter().any(|node| node.this && node.draining)
    }

    /// An app of the same name may follow, of which nothing is for whoever reads this stream.
    async fn is_app_leaving(&mut self) -> bool {
        if self.asked.elapsed() < LEAVING_EVERY {
            return false;
        }
        self.asked = Instant::now();
        let app = self.app.clone();
        let found = self
            .state
            .look(move |context| apps::deletion(context, &app));
        matches!(found.await, Ok(Some(_)))
    }

    async fn go_on_listening(&mut self) {
        if self.listened.elapsed() < Duration::from_millis(listeners::AGAIN_MS) {
            return;
        }
        match listen(&self.state, &self.app).await {
            Ok(()) => self.listened = Instant::now(),
            Err(problem) => {
                tracing::debug!(app = %self.app, reason = problem.detail(), "listening goes on later");
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("campanile_event_streams").decrement(1);
    }
}

/// `GET /v1/apps/{app}/devices/{device}/timeline`
pub(crate) async fn timeline(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, device)): InPath<(String, String)>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    devices::check_name(&device)?;
    let paging = Paging::parse(text.as_deref())?;
    let after: Option<EventId> = paging.after_id()?;
    let (app, limit) = (caller.app.clone(), paging.limit);
    let past = state.read(move |reader| {
        let mut past = Past {
            before: after.map(EventId::place),
            ..Past::default()
        };
        for _ in 0..LOOKS {
            let left = limit - past.events.len();
            let more = reader.past(&app, Some(&device), past.before, left)?;
            past.events.extend(more.events);
            past.before = more.before;
            if past.before.is_none() || past.events.len() >= limit {
                break;
            }
        }
        Ok(past)
    });
    let past = past.await?;
    let raw = |event: &Event| {
        let json = event.to_json(&caller.app);
        RawValue::from_string(json).expect("it is JSON")
    };
    let events: Vec<Box<RawValue>> = past.events.iter().map(raw).collect();
    let mut document = json!({"events": events});
    if let Some(before) = past.before {
        document["next"] = EventId::new(state.now_ms(), before).to_string().into();
    }
    Ok(axum::Json(document).into_response())
}
