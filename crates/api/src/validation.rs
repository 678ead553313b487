//! `POST /v1/apps/{app}/pushes:validate`: what would become of a push, without making it.
//!
//! The work is bounded: devices are counted or estimated (`campanile_push::registry::survey`), connected ones are counted by the nodes, each from its index, and
//! turns are foreseen from the plan of the push and those counts (`campanile_push::pacing`).

use std::collections::BTreeMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use campanile_push::{
    app::AppName,
    campaign::Campaign,
    id::PushId,
    pacing::{Forecast, Turns, Why},
    registry::survey::{Survey, survey},
    request::Request,
    store::Audience,
    targeting::{Portion, Targeting},
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    ApiState,
    auth::Caller,
    body::JsonBody,
    cluster::Connected,
    openapi::{self, of},
    problem::Problem,
    pushes::resolve,
};

/// To the document.
pub(crate) fn shape() -> openapi::Content {
    of::<Valid>()
}

/// What would become of the push.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Validation")]
struct Valid {
    valid: bool,
    /// Bytes of `notification` and `data` that count against the limit.
    payload_bytes: usize,
    audience: Counted,
    arrival: Arrival,
}

/// Whom it would be for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ValidationAudience")]
struct Counted {
    /// Devices that it would be for.
    targeted: u64,
    /// Whether `targeted` was counted, not estimated.
    exact: bool,
    /// Of an estimate: the truth is within so many devices of it, 95 times in 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    margin: Option<u64>,
    /// Devices that were looked at for it.
    looked_at: u64,
    /// Those of them that are connected now, to whichever node.
    connected: u64,
    /// The others.
    away: u64,
    /// Nodes that did not say in time how many are connected to them: `connected` is without theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

/// When devices would have their turns. One that is away then gets the push on return, until it expires.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ValidationArrival")]
struct Arrival {
    /// `null`, as the next two are: no device has a turn.
    first_at: Option<String>,
    /// Half of the devices that have a turn have had it.
    half_at: Option<String>,
    last_at: Option<String>,
    /// About how many devices have no turn, by reason: `quiet_hours`, `local_time_past`, `expires`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    never: BTreeMap<&'static str, u64>,
}

pub(crate) async fn validate(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let plan = Plan::of(&state, &caller.app, &body).await?;
    let valid = foresee(&state, &caller.app, plan).await?;
    Ok(axum::Json(valid).into_response())
}

/// Checks a push without sending it.
pub(crate) async fn dry_run(state: &ApiState, app: &AppName, body: &[u8]) -> Result<(), Problem> {
    Plan::of(state, app, body).await.map(drop)
}

/// A push as it would be accepted now.
struct Plan {
    id: PushId,
    payload_bytes: usize,
    audience: Audience,
    targeting: Targeting,
    /// The part of the audience that is drawn for it.
    portion: Option<Portion>,
    campaign: Option<Campaign>,
    begins_ms: u64,
}

impl Plan {
    async fn of(state: &ApiState, app: &AppName, body: &[u8]) -> Result<Plan, Problem> {
        let request = Request::parse(body, &state.limits())?;
        let (id, now_ms) = (state.new_id(), state.now_ms());
        let begins_ms = request.options.not_before_ms.unwrap_or(0).max(now_ms);
        let audience = resolve(state, app, &request.audience, now_ms).await?;
        let (audience, targeting) = request.in_portion(id, audience, now_ms)?;
        let is_campaign = request.options.make_a_campaign(&request.audience);
        let campaign = is_campaign
            .then(|| request.campaign(id, targeting.clone(), begins_ms))
            .transpose()?;
        Ok(Plan {
            id,
            payload_bytes: request.content.len(),
            audience,
            targeting,
            portion: request.options.targeted_portion(id),
            campaign,
            begins_ms,
        })
    }

    /// What the nodes are asked; `None`: for all.
    fn asked_of_nodes(&self) -> Option<Bytes> {
        match &self.audience {
            Audience::All => None,
            Audience::Matching(targeting) => Some(targeting.clone()),
            Audience::Devices(_) => Some(self.targeting.encode().into()),
        }
    }

    fn asks_for_zones(&self) -> bool {
        let campaign = self.campaign.as_ref();
        campaign.is_some_and(|campaign| campaign.spread.asks_for_zones())
    }
}

async fn foresee(state: &ApiState, app: &AppName, plan: Plan) -> Result<Valid, Problem> {
    let connected = state
        .cluster()
        .count_connected(app, plan.id, plan.asked_of_nodes());
    let connected = connected.await.unwrap_or_else(|refusal| {
        tracing::debug!(%app, reason = %refusal, "how many devices are connected is not known");
        Connected::default()
    });
    let (of, with_zones) = (app.clone(), plan.asks_for_zones());
    let (audience, targeting) = (plan.audience.clone(), plan.targeting.clone());
    let draw = plan.id.0 as u64;
    let found = state
        .ask(move |context| {
            Ok(survey(
                context, &of, &audience, &targeting, with_zones, draw,
            )?)
        })
        .await?;
    Ok(Valid {
        valid: true,
        payload_bytes: plan.payload_bytes,
        arrival: arrival(&plan, &found, &connected).into(),
        audience: counted(&plan, &found, connected),
    })
}

/// Devices of which nothing is known are found only while they are connected.
fn strangers(plan: &Plan, connected: &Connected) -> u64 {
    match plan.audience {
        Audience::Matching(_) => connected.others,
        Audience::All | Audience::Devices(_) => 0,
    }
}

fn counted(plan: &Plan, found: &Survey, connected: Connected) -> Counted {
    let targeted = found.targeted + strangers(plan, &connected);
    // Another push draws other devices.
    let drawn = plan.portion.map(|portion| {
        let rest = 1.0 - f64::from(portion.basis_points) / f64::from(Portion::WHOLE);
        (2.0 * (targeted as f64 * rest).sqrt()).ceil() as u64
    });
    let margin = match (found.margin, drawn) {
        (None, None) => None,
        (counted, drawn) => Some(counted.unwrap_or(0) + drawn.unwrap_or(0)),
    };
    let now = connected.known + connected.others;
    Counted {
        targeted,
        exact: margin.is_none(),
        margin,
        looked_at: found.looked_at,
        connected: now,
        // Some may have come while others were counted.
        away: targeted.saturating_sub(now),
        silent_nodes: connected.silent,
    }
}

fn arrival(plan: &Plan, found: &Survey, connected: &Connected) -> Forecast {
    let strangers = strangers(plan, connected);
    let targeted = found.targeted + strangers;
    let Some(campaign) = plan.campaign.clone() else {
        let now = Turns {
            first_ms: plan.begins_ms,
            half_ms: plan.begins_ms,
            last_ms: plan.begins_ms,
        };
        return Forecast {
            turns: (targeted > 0).then_some(now),
            never: BTreeMap::new(),
        };
    };
    let groups = match plan.asks_for_zones() {
        true => [found.zones.clone(), vec![(None, strangers)]].concat(),
        false => vec![(None, targeted)],
    };
    let campaign = campaign.counted(targeted, plan.begins_ms);
    campaign.spread.forecast(&groups)
}

impl From<Forecast> for Arrival {
    fn from(forecast: Forecast) -> Arrival {
        let at = |of: fn(&Turns) -> u64| forecast.turns.as_ref().map(of).map(rfc3339);
        let name = |why| match why {
            Why::QuietHours => "quiet_hours",
            Why::LocalTimePast => "local_time_past",
            Why::Expires => "expires",
        };
        Arrival {
            first_at: at(|turns| turns.first_ms),
            half_at: at(|turns| turns.half_ms),
            last_at: at(|turns| turns.last_ms),
            never: (forecast
                .never
                .iter()
                .map(|(why, devices)| (name(*why), *devices)))
            .collect(),
        }
    }
}
