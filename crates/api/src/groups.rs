//! `/v1/apps/{app}/tags/{tag}:add` and `/v1/apps/{app}/topics/{topic}:subscribe`: one change of many devices.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use campanile_push::{
    device::{Patch, names::BadName},
    registry::{
        Context, Refusal,
        devices::{self, Edited},
        permission::Permission,
    },
    request::{Fault, Invalid},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    auth::Caller,
    body,
    openapi::{self, Operation, Routes, of},
    path::InPath,
    problem::{Code, Problem},
};

/// Bytes of a body: as many devices as it may name, with their names of at most 256 bytes in JSON.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// The routes of tags and topics.
pub(crate) fn routes() -> Routes {
    let edit = |id, summary| {
        Operation::new(id, summary)
            .tells("Devices that are not registered, or would have too many, are named; the others go. If the answer is a refusal, some may be changed and some not: send the same again.")
            .needs(Permission::DeviceWrite)
            .takes(openapi::reference("DeviceList"), json!({"devices": ["phone-1", "tablet-7"]}))
            .answers(200, "What became of them.", of::<Answer>())
    };
    let tags = [
        ("add", edit("addTag", "Gives devices a tag")),
        ("remove", edit("removeTag", "Takes a tag from devices")),
    ];
    let topics = [
        (
            "subscribe",
            edit("subscribeDevices", "Subscribes devices to a topic"),
        ),
        (
            "unsubscribe",
            edit(
                "unsubscribeDevices",
                "Ends subscriptions of devices to a topic",
            ),
        ),
    ];
    Routes::of("Tags and topics", "One change of many devices.")
        .verbs("/v1/apps/{app}/tags/{tag}", self::tags, tags)
        .verbs("/v1/apps/{app}/topics/{topic}", self::topics, topics)
}

/// What became of the devices. Each that was named counts in one of them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Edited")]
pub(crate) struct Answer {
    changed: u64,
    unchanged: u64,
    refused: Vec<Refused>,
}

/// A device that stays as it was.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RefusedDevice")]
struct Refused {
    device: String,
    code: &'static str,
    detail: String,
}

impl From<Edited> for Answer {
    fn from(edited: Edited) -> Answer {
        let refused = |(device, refusal): (std::sync::Arc<str>, Refusal)| {
            let detail = refusal.to_string();
            Refused {
                device: device.to_string(),
                code: Problem::from(refusal).code().text(),
                detail,
            }
        };
        Answer {
            changed: edited.changed,
            unchanged: edited.unchanged,
            refused: edited.refused.into_iter().map(refused).collect(),
        }
    }
}

/// What can be done to many devices: after which verb, and the change of each.
type Verb = (&'static str, fn(&str) -> Result<Patch, BadName>);

const OF_TAGS: [Verb; 2] = [("add", Patch::add_tag), ("remove", Patch::remove_tag)];
const OF_TOPICS: [Verb; 2] = [
    ("subscribe", Patch::add_topic),
    ("unsubscribe", Patch::remove_topic),
];

/// `POST /v1/apps/{app}/tags/{tag}:add`, `:remove`
pub(crate) async fn tags(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, last)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Problem> {
    edit(&state, caller, &last, &headers, body, &OF_TAGS).await
}

/// `POST /v1/apps/{app}/topics/{topic}:subscribe`, `:unsubscribe`
pub(crate) async fn topics(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, last)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Problem> {
    edit(&state, caller, &last, &headers, body, &OF_TOPICS).await
}

async fn edit(
    state: &ApiState,
    caller: Caller,
    last: &str,
    headers: &HeaderMap,
    body: Body,
    verbs: &[Verb],
) -> Result<Json<Answer>, Problem> {
    let patch = patch_of(last, verbs)?;
    body::check_type(headers)?;
    let body = body::read_at_most(headers, body, state.config(), MAX_BODY_BYTES).await?;
    let named = devices::parse_list(&body)?;
    let mut edited = Edited::default();
    // A failure on the way leaves some done and some not; asked again, those that are done count as unchanged.
    for chunk in named.chunks(devices::CHUNK) {
        let (app, chunk, patch) = (caller.app.clone(), chunk.to_vec(), patch.clone());
        let plan = move |context: &Context<'_>| devices::edit(context, &app, &chunk, &patch);
        edited = edited.and(state.carry_out(caller.actor(), plan).await?);
    }
    Ok(Json(edited.into()))
}

/// The change that the last segment of a path asks for: a name, which may contain colons, a colon, a verb.
fn patch_of(segment: &str, verbs: &[Verb]) -> Result<Patch, Problem> {
    let found = segment.rsplit_once(':').and_then(|(name, given)| {
        let verb = verbs.iter().find(|(verb, _)| *verb == given)?;
        Some((name, verb.1))
    });
    let Some((name, patch)) = found else {
        let verbs: Vec<String> = verbs.iter().map(|(verb, _)| format!(":{verb}")).collect();
        return Err(Problem::new(
            Code::NotFound,
            format!("a path here ends with {}", verbs.join(" or ")),
        ));
    };
    let bad_name = |bad: BadName| Invalid {
        fault: Fault::InvalidField,
        field: None,
        detail: bad.to_string(),
    };
    Ok(patch(name).map_err(bad_name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_contain_colons() {
        let patch = patch_of("a:b:add", &OF_TAGS).unwrap();
        assert_eq!(patch, Patch::add_tag("a:b").unwrap());
        for (segment, code) in [
            ("a", Code::NotFound),
            ("a:subscribe", Code::NotFound),
            (":add", Code::InvalidField),
        ] {
            assert_eq!(patch_of(segment, &OF_TAGS).unwrap_err().code(), code);
        }
    }
}
