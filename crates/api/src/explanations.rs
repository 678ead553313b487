//! `/v1/apps/{app}/pushes/{id}/devices/{device}`: why a device did or did not get a push.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use campanile_push::{
    explanation::{Explained, Explanation, Presence, explain as decide},
    registry::{
        campaigns::{self, Standing},
        permission::Permission,
    },
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use crate::{
    ApiState,
    auth::Caller,
    openapi::{self, Operation, of},
    path::InPath,
    problem::{Code, Problem},
    pushes::{no_such_push, push_id},
};

/// What `GET /v1/apps/{app}/pushes/{id}/devices/{device}` answers.
pub(crate) fn operation() -> Operation {
    Operation::new("explainPush", "Why a device did or did not get a push")
        .tells("Whom an audience kept out, and why, can be told until the push's time is up.")
        .needs(Permission::Read)
        .answers(200, "The reason.", of::<Answer>())
        .may(&[Code::InvalidPushId, Code::PushNotFound])
}

fn explained(_: &mut SchemaGenerator) -> Schema {
    serde_json::from_value(openapi::reference("Explained")).expect("a reference is a schema")
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
struct Answer {
    push_id: String,
    device: String,
    #[serde(flatten)]
    #[schemars(schema_with = "explained")]
    explained: Explained,
}

/// Whether it is a reason that the device is not connected.
fn says_away(explanation: &Explanation) -> bool {
    matches!(
        explanation,
        Explanation::Away { .. }
            | Explanation::Expired {
                away_since: Some(_),
                ..
            }
    )
}

/// `GET /v1/apps/{app}/pushes/{id}/devices/{device}`
pub(crate) async fn explain(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id, device)): InPath<(String, String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app;
    let id = push_id(&id)?;
    let (of, client_id) = (app.clone(), device.clone());
    let mut facts = state
        .look(move |context| {
            let mut found = context.reader.at_device(&of, id, &client_id)?;
            let (standing, campaign) = campaigns::standing(context, &of, id)?;
            if let Some(campaign) = &campaign {
                found.targeting = Some(campaign.targeting.encode().into());
            }
            let mut facts = found.facts(&client_id, context.now_ms);
            if let Some(campaign) = &campaign {
                facts.hold =
                    campaign.hold(&client_id, found.known_profile().as_ref(), context.now_ms);
            }
            if let Standing::Ended(ended) = standing {
                facts.end(&ended);
            }
            Ok(facts)
        })
        .await?;
    if facts.life.is_none() {
        return Err(no_such_push());
    }
    let mut explanation = decide(&facts);
    if says_away(&explanation) {
        // A node that was given up for lost may still serve the device, which the store does not know; it is said to be away only if no node has it.
        let located = state.cluster().locate(&app, &device).await;
        if located.is_ok_and(|located| located.connection.is_some()) {
            facts.presence = Presence::Connected;
            explanation = decide(&facts);
        }
    }
    let answer = Answer {
        push_id: id.to_string(),
        device,
        explained: explanation.into(),
    };
    Ok(axum::Json(answer).into_response())
}
