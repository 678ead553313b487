//! What became of a push: its report and its series.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use campanile_push::{
    app::AppName,
    campaign::{Ended, How},
    funnel::Funnel,
    id::PushId,
    info::Info,
    options::Receipts,
    receipt::{DropReason, FailReason, Mark},
    registry::{self, campaigns::Standing},
    request::{Limits, Request},
    schedule::Schedule,
    series::Point,
    store::Report,
    time::rfc3339,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    ApiState,
    auth::Caller,
    openapi::{self, of},
    path::InPath,
    problem::Problem,
    pushes::{no_such_push, push_id},
    schedules,
};

/// A push's report, to the document.
pub(crate) fn shape() -> openapi::Content {
    of::<Reported>()
}

/// Its series, to the document.
pub(crate) fn series_shape() -> openapi::Content {
    of::<ShownSeries>()
}

/// What became of a push so far.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Report")]
struct Reported {
    push_id: String,
    status: Status,
    /// The push whose collapse key took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    collapsed_by: Option<String>,
    /// This, `pending` and `expired` are `null` while the devices are being counted, and so are `recalled` and `collapsed`.
    targeted: Option<u64>,
    delivered: u64,
    pending: Option<u64>,
    expired: Option<u64>,
    recalled: Option<u64>,
    collapsed: Option<u64>,
    dropped: u64,
    /// The same by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    dropped_by: BTreeMap<DropReason, u64>,
    failed: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    failed_by: BTreeMap<FailReason, u64>,
    /// Of the delivered, as far as the devices told: this, and of these the two that follow. `null` where the push does not ask for it.
    displayed: Option<u64>,
    clicked: Option<u64>,
    dismissed: Option<u64>,
    accepted_at: String,
    expires_at: String,
    #[serde(flatten)]
    info: ShownInfo,
}

/// What the sender of a push wants to find again.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ShownInfo {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<String>,
    /// Which are asked for; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<Vec<&'static str>>,
}

impl From<Info> for ShownInfo {
    fn from(info: Info) -> ShownInfo {
        let wanted = info.receipts;
        let names = [
            ("displayed", wanted.displayed),
            ("clicked", wanted.clicked),
            ("dismissed", wanted.dismissed),
        ];
        let names = names.into_iter().filter(|(_, wanted)| *wanted);
        let receipts = std::iter::once("delivered").chain(names.map(|(name, _)| name));
        ShownInfo {
            labels: info.labels,
            external_id: info.external_id,
            callback_url: info.callback_url,
            receipts: (wanted != Receipts::default()).then(|| receipts.collect()),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Its time, `not_before`, has not come.
    Scheduled,
    /// Its devices are being counted: its pace follows from that.
    Preparing,
    /// Some device may still get it.
    Active,
    /// Nobody gets it until it is resumed.
    Paused,
    /// The same: it stopped by itself, as too many devices failed.
    Halted,
    /// It ended before its time: it was cancelled, or devices were told to withdraw it, too.
    Cancelled,
    /// See there.
    Recalled,
    /// A newer push of its collapse key took its place.
    Collapsed,
    /// The figures are final.
    Done,
}

/// `GET /v1/apps/{app}/pushes/{id}`
pub(crate) async fn report(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app;
    if id.contains(':') {
        // What can be done with a push is not there to be read.
        return Err(no_such_push());
    }
    show(&state, &app, push_id(&id)?).await
}

/// How a push stands.
pub(crate) async fn show(state: &ApiState, app: &AppName, id: PushId) -> Result<Response, Problem> {
    let of = app.clone();
    let found = state.look(move |context| registry::campaigns::report(context, &of, id));
    if let Some((report, standing)) = found.await? {
        if let Err(difference) = report.funnel().check(report.targeted) {
            tracing::warn!(push_id = %id, %difference, "the figures of a push do not add up");
        }
        return Ok(axum::Json(Reported::new(id, &report, standing)).into_response());
    }
    match schedules::waiting_push(state, app.clone(), id).await? {
        Some(push) => {
            let waiting = Reported::waiting(&push, &state.limits());
            Ok(axum::Json(waiting).into_response())
        }
        None => Err(no_such_push()),
    }
}

/// New receipts of a stretch of time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SeriesPoint")]
struct ShownPoint {
    from: String,
    seconds: u64,
    delivered: u64,
    displayed: u64,
    clicked: u64,
    dismissed: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Series")]
struct ShownSeries {
    push_id: String,
    accepted_at: String,
    points: Vec<ShownPoint>,
}

/// `GET /v1/apps/{app}/pushes/{id}/series`
pub(crate) async fn series(
    State(state): State<ApiState>,
    caller: Caller,
    InPath((_, id)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let app = caller.app;
    let id = push_id(&id)?;
    let now_ms = state.now_ms();
    let found = state.read(move |reader| {
        let report = reader.report(&app, id, now_ms)?;
        Ok((report, reader.series(&app, id)?))
    });
    let (Some(report), series) = found.await? else {
        return Err(no_such_push());
    };
    let point = |point: Point| {
        let count = |mark| point.counts.get(&mark).copied().unwrap_or_default();
        ShownPoint {
            from: rfc3339(report.accepted_ms.saturating_add(point.from_ms)),
            seconds: point.width_ms / 1000,
            delivered: count(Mark::Delivered),
            displayed: count(Mark::Displayed),
            clicked: count(Mark::Clicked),
            dismissed: count(Mark::Dismissed),
        }
    };
    let shown = ShownSeries {
        push_id: id.to_string(),
        accepted_at: rfc3339(report.accepted_ms),
        points: series.points().into_iter().map(point).collect(),
    };
    Ok(axum::Json(shown).into_response())
}

/// What a callback address is told in the end.
pub(crate) fn as_json(id: PushId, report: &Report, standing: Standing) -> String {
    let reported = Reported::new(id, report, standing);
    serde_json::to_string(&reported).expect("it has only string keys")
}

impl Reported {
    /// Of a push whose time has not come: who it is for is decided then.
    fn waiting(push: &Schedule, limits: &Limits) -> Reported {
        // It was read before, by the limits of then.
        let request = Request::parse(push.push.as_bytes(), limits).ok();
        let runs_ms = push.due_ms().unwrap_or(push.created_ms);
        let info = request
            .as_ref()
            .map(|request| Info::of(&request.options))
            .unwrap_or_default();
        let expires_ms = request.map_or(runs_ms, |request| request.expires_ms(runs_ms));
        Reported {
            push_id: push.id.to_string(),
            status: Status::Scheduled,
            collapsed_by: None,
            targeted: None,
            delivered: 0,
            displayed: info.receipts.displayed.then_some(0),
            clicked: info.receipts.clicked.then_some(0),
            dismissed: info.receipts.dismissed.then_some(0),
            pending: None,
            expired: None,
            recalled: None,
            collapsed: None,
            dropped: 0,
            dropped_by: BTreeMap::new(),
            failed: 0,
            failed_by: BTreeMap::new(),
            accepted_at: rfc3339(push.created_ms),
            expires_at: rfc3339(expires_ms),
            info: info.into(),
        }
    }

    fn new(id: PushId, report: &Report, standing: Standing) -> Reported {
        let counted = |figure: u64| (!report.counting).then_some(figure);
        let Funnel {
            dropped, failed, ..
        } = report.funnel();
        let goes_on = report.pending > 0 || report.counting;
        // Without it the report is worth showing, too.
        let info = Info::decode(&report.info).unwrap_or_default();
        let wanted = info.receipts;
        Reported {
            push_id: id.to_string(),
            status: match standing {
                Standing::Ended(Ended { how, .. }) => match how {
                    How::Cancelled => Status::Cancelled,
                    How::Recalled => Status::Recalled,
                    How::Collapsed(_) => Status::Collapsed,
                },
                _ if !goes_on => Status::Done,
                Standing::Preparing => Status::Preparing,
                Standing::Paused => Status::Paused,
                Standing::Halted => Status::Halted,
                Standing::Running | Standing::Plain => Status::Active,
            },
            collapsed_by: match standing {
                Standing::Ended(Ended {
                    how: How::Collapsed(by),
                    ..
                }) => Some(by.to_string()),
                _ => None,
            },
            targeted: counted(report.targeted),
            delivered: report.delivered,
            pending: counted(report.pending),
            expired: counted(report.expired),
            recalled: counted(report.recalled),
            collapsed: counted(report.collapsed),
            dropped: dropped.values().sum(),
            dropped_by: dropped,
            failed: failed.values().sum(),
            failed_by: failed,
            displayed: wanted.displayed.then_some(report.displayed),
            clicked: wanted.clicked.then_some(report.clicked),
            dismissed: wanted.dismissed.then_some(report.dismissed),
            accepted_at: rfc3339(report.accepted_ms),
            expires_at: rfc3339(report.expires_ms),
            info: info.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_counted_is_null() {
        let id = PushId(7);
        let shown = |counting| {
            let report = Report {
                targeted: 3,
                delivered: 2,
                expired: 1,
                counting,
                ..Report::default()
            };
            let shown = serde_json::to_value(Reported::new(id, &report, Standing::Plain)).unwrap();
            let figures = ["targeted", "delivered", "pending", "expired", "status"];
            figures.map(|figure| shown[figure].clone())
        };
        let json = |figures: &str| serde_json::from_str::<[serde_json::Value; 5]>(figures).unwrap();
        assert_eq!(shown(true), json(r#"[null, 2, null, null, "active"]"#));
        assert_eq!(shown(false), json(r#"[3, 2, 0, 1, "done"]"#));
    }
}
