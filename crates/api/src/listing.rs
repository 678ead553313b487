//! `GET /v1/apps/{app}/pushes`: the pushes of an app, newest first.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use campanile_push::{
    id::PushId,
    info::Info,
    registry::permission::Permission,
    store::Listed,
    time::{from_rfc3339, rfc3339},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    openapi::{Operation, of},
    problem::Problem,
    query::{Paging, wrong},
    reports::ShownInfo,
};

/// Pushes that are looked at for one page: a filter that few match gives short pages instead of slow ones.
const MAX_LOOKED_AT: usize = 2000;
/// Of these so many at a time.
const AT_A_TIME: usize = 200;

/// What the list takes and answers.
pub(crate) fn operation() -> Operation {
    Operation::new("listPushes", "Lists pushes")
        .tells(&format!("The newest first. A page looks at {MAX_LOOKED_AT} pushes, so that with a filter it may be short, or empty, and yet have a `next`."))
        .needs(Permission::Read)
        .paged_by_id()
        .query(
            "label",
            "Only those with this label: its name, or `name:value`.",
            json!({"type": "string", "example": "campaign:autumn"}),
        )
        .query(
            "external_id",
            "Only those that their sender calls so.",
            json!({"type": "string"}),
        )
        .query(
            "since",
            "Only those accepted then or later.",
            json!({"type": "string", "format": "date-time"}),
        )
        .query(
            "state",
            "Only those whose time is not up, or is.",
            json!({"type": "string", "enum": [ACTIVE, EXPIRED]}),
        )
        .answers(200, "A page of pushes.", of::<Page>())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PushPage")]
pub(crate) struct Page {
    pushes: Vec<Shown>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedPush")]
struct Shown {
    push_id: String,
    state: &'static str,
    accepted_at: String,
    expires_at: String,
    #[serde(flatten)]
    info: ShownInfo,
}

/// Which pushes are asked for.
#[derive(Default)]
struct Wanted {
    /// A name, and perhaps a value.
    label: Option<(String, Option<String>)>,
    external_id: Option<String>,
    since_ms: Option<u64>,
    state: Option<&'static str>,
}

const ACTIVE: &str = "active";
const EXPIRED: &str = "expired";

impl Wanted {
    fn parse(given: Vec<(&str, String)>) -> Result<Wanted, Problem> {
        let mut wanted = Wanted::default();
        for (name, value) in given {
            match name {
                "label" => {
                    wanted.label = Some(match value.split_once(':') {
                        Some((label, value)) => (label.to_owned(), Some(value.to_owned())),
                        None => (value, None),
                    });
                }
                "external_id" => wanted.external_id = Some(value),
                "since" => {
                    let since_ms = from_rfc3339(&value).ok_or_else(|| {
                        wrong(
                            name,
                            format_args!("{value:?} is no time such as \"2026-12-24T18:00:00Z\""),
                        )
                    });
                    wanted.since_ms = Some(since_ms?);
                }
                _ => {
                    let states = [ACTIVE, EXPIRED];
                    let state = states.into_iter().find(|state| *state == value);
                    let rule = format_args!("{value:?} is neither {ACTIVE:?} nor {EXPIRED:?}");
                    wanted.state = Some(state.ok_or_else(|| wrong(name, rule))?);
                }
            }
        }
        Ok(wanted)
    }

    fn matches(&self, push: &Listed, info: &Info, now_ms: u64) -> bool {
        let has_label = self.label.as_ref().is_none_or(|(name, value)| {
            let there = info.labels.get(name);
            there.is_some_and(|there| value.as_ref().is_none_or(|value| value == there))
        });
        let has_id = self.external_id.is_none() || self.external_id == info.external_id;
        let is_later = self.since_ms.is_none_or(|since| push.accepted_ms >= since);
        let is_of_state = self
            .state
            .is_none_or(|state| state == state_of(push, now_ms));
        has_label && has_id && is_later && is_of_state
    }
}

fn state_of(push: &Listed, now_ms: u64) -> &'static str {
    match now_ms < push.expires_ms {
        true => ACTIVE,
        false => EXPIRED,
    }
}

/// `GET /v1/apps/{app}/pushes?label=&external_id=&since=&state=&after=&limit=`
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    RawQuery(text): RawQuery,
) -> Result<Json<Page>, Problem> {
    let app = caller.app;
    let more = ["label", "external_id", "since", "state"];
    let (paging, given) = Paging::with_all(text.as_deref(), &more)?;
    let mut before: Option<PushId> = paging.after_id()?;
    let wanted = Wanted::parse(given)?;
    let now_ms = state.now_ms();
    let page = state.read(move |reader| {
        let mut pushes = Vec::new();
        for _ in 0..MAX_LOOKED_AT / AT_A_TIME {
            let (found, is_more) = reader.pushes(&app, before, AT_A_TIME)?;
            let mut found = found.into_iter();
            while pushes.len() < paging.limit
                && let Some(push) = found.next()
            {
                before = Some(push.id);
                // One that is damaged is listed as one that says nothing.
                let info = Info::decode(&push.info).unwrap_or_default();
                if wanted.matches(&push, &info, now_ms) {
                    pushes.push(Shown::of(&push, info, now_ms));
                }
            }
            if found.next().is_some() || pushes.len() >= paging.limit && is_more {
                break;
            }
            if !is_more {
                before = None;
                break;
            }
        }
        Ok(Page {
            pushes,
            next: before.map(|id| id.to_string()),
        })
    });
    page.await.map(Json)
}

impl Shown {
    fn of(push: &Listed, info: Info, now_ms: u64) -> Shown {
        Shown {
            push_id: push.id.to_string(),
            state: state_of(push, now_ms),
            accepted_at: rfc3339(push.accepted_ms),
            expires_at: rfc3339(push.expires_ms),
            info: info.into(),
        }
    }
}
