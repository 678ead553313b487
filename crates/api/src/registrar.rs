//! Takes what devices say of themselves through MQTT, by the same rules as what app servers say of them through HTTP.

use std::sync::Arc;

use campanile_push::{
    ack::{BadMessage, REGISTRATION_TOPIC},
    app::AppName,
    device::Profile,
    registry::{Context, device_rules, devices::told},
    request::Invalid,
    sync::{SYNC_TOPIC, Sync},
};
use serde::Serialize;

use crate::{
    ApiState,
    problem::{Code, Problem},
};

/// On whose behalf it writes.
const ACTOR: &str = "device";

/// What a device says.
#[derive(Clone, Debug)]
pub enum Said {
    /// It has connected with credentials of its app.
    Connected {
        /// What was known of it, as [`Profile::encode`] wrote it; `None`: it was not registered.
        profile: Option<bytes::Bytes>,
        /// Whose it is, if the credentials say so.
        user: Option<Arc<str>>,
    },
    /// What it is.
    Registration(bytes::Bytes),
    /// How far it has got.
    Sync(bytes::Bytes),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done and durable.
    Done,
    /// It was refused: the device is told this, a JSON document.
    Told(Vec<u8>),
    /// Pushes go on after this place of the push log; `None`: the device is told its place.
    Sync(Option<u64>),
    /// It cannot be done now.
    Unavailable(String),
}

/// A refusal as a device gets it on `push/ctl`.
#[derive(Serialize)]
struct Refused<'r> {
    r#type: &'static str,
    topic: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'r str>,
    detail: &'r str,
}

fn refused(topic: &'static str, problem: &Problem) -> Answer {
    let document = Refused {
        r#type: "refused",
        topic,
        code: problem.code().text(),
        field: problem.field(),
        detail: problem.detail(),
    };
    Answer::Told(serde_json::to_vec(&document).expect("it has only strings"))
}

/// Takes what a device says.
pub async fn take(state: &ApiState, app: &AppName, device: &str, said: Said) -> Answer {
    let answer = match said {
        Said::Sync(message) => Sync::parse(&message)
            .map(|sync| Answer::Sync(sync.after))
            .map_err(|bad| (SYNC_TOPIC, problem_of(bad))),
        Said::Registration(message) => describe(state, app, device, &message)
            .await
            .map_err(|problem| (REGISTRATION_TOPIC, problem)),
        Said::Connected { profile, user } => connected(state, app, device, profile, user)
            .await
            .map_err(|problem| (REGISTRATION_TOPIC, problem)),
    };
    match answer {
        Ok(answer) => answer,
        Err((topic, problem)) => {
            let (code, detail) = (problem.code(), problem.detail());
            metrics::counter!("campanile_device_statements_refused_total", "topic" => topic, "code" => code.text())
                .increment(1);
            tracing::debug!(%app, client_id = device, topic, code = code.text(), detail, "what a device says is refused");
            match code {
                Code::StoreUnavailable | Code::OutcomeUnknown | Code::Internal => {
                    Answer::Unavailable(detail.to_owned())
                }
                _ => refused(topic, &problem),
            }
        }
    }
}

fn problem_of(bad: BadMessage) -> Problem {
    match bad {
        BadMessage::Invalid(invalid) => Problem::from(invalid),
        other => Problem::from(Invalid {
            fault: campanile_push::request::Fault::InvalidField,
            field: None,
            detail: other.to_string(),
        }),
    }
}

async fn describe(
    state: &ApiState,
    app: &AppName,
    device: &str,
    message: &[u8],
) -> Result<Answer, Problem> {
    let patch = told::parse(message).map_err(problem_of)?;
    let (app, device) = (app.clone(), device.to_owned());
    let plan = move |context: &Context<'_>| {
        let rules = device_rules::get(context.reader, &app, context.now_ms)?;
        told::describe(context, &app, &device, &patch, &rules)
    };
    state.carry_out(ACTOR.to_owned(), plan).await?;
    Ok(Answer::Done)
}

async fn connected(
    state: &ApiState,
    app: &AppName,
    device: &str,
    profile: Option<bytes::Bytes>,
    user: Option<Arc<str>>,
) -> Result<Answer, Problem> {
    let profile = profile.and_then(|profile| Profile::decode(&profile).ok());
    if profile.is_some_and(|profile| told::is_known(&profile, user.as_deref())) {
        return Ok(Answer::Done);
    }
    let (app, device) = (app.clone(), device.to_owned());
    let plan =
        move |context: &Context<'_>| told::connected(context, &app, &device, user.as_deref());
    state.carry_out(ACTOR.to_owned(), plan).await?;
    Ok(Answer::Done)
}
