//! The ends of pushes: which nobody writes down when they come, since time passes by itself.

use std::collections::HashMap;

use campanile_push::{
    app::AppName,
    event::{Draft, EventId, Key as Lane, What},
    id::PushId,
    info::Info,
    registry::{campaigns, open, open::Open},
    webhook::{
        courier::{Parcel, Retry},
        delivery::Delivery,
    },
};

use super::ACTOR;
use crate::{ApiState, problem::Problem, reports};

/// Open pushes of an app that are looked at in one round.
const PAGE: usize = 200;
/// Between two looks at a push, at most: longer the older it is.
const LONGEST_MS: u64 = 30_000;
const SHORTEST_MS: u64 = 500;

/// When which open push is looked at again, and where the next round of an app goes on. Only what this node has found out; another one looks anew.
#[derive(Default)]
pub struct Ends {
    next: HashMap<AppName, App>,
}

#[derive(Default)]
struct App {
    after: Option<PushId>,
    look_ms: HashMap<PushId, u64>,
}

impl Ends {
    /// Looks at some open pushes of an app, and tells the end of those that are done.
    pub async fn look(&mut self, state: &ApiState, app: &AppName) -> Result<(), Problem> {
        let known = self.next.entry(app.clone()).or_default();
        let (of, after) = (app.clone(), known.after);
        let page = state.look(move |context| open::list(context, &of, after, PAGE));
        let (pushes, more) = page.await?;
        known.after = pushes.last().map(|open| open.id).filter(|_| more);
        if after.is_none() && !more {
            let ids: std::collections::HashSet<_> = pushes.iter().map(|open| open.id).collect();
            known.look_ms.retain(|id, _| ids.contains(id));
        }
        let now_ms = state.now_ms();
        for open in pushes {
            let look_ms = known.look_ms.get(&open.id).copied().unwrap_or_default();
            if look_ms > now_ms {
                continue;
            }
            match look_at(state, app, &open, now_ms).await? {
                Some(again_ms) => drop(known.look_ms.insert(open.id, again_ms)),
                None => drop(known.look_ms.remove(&open.id)),
            }
        }
        Ok(())
    }
}

/// Tells the end of a push if it is done. Returns when to look again otherwise.
async fn look_at(
    state: &ApiState,
    app: &AppName,
    open: &Open,
    now_ms: u64,
) -> Result<Option<u64>, Problem> {
    let (of, id) = (app.clone(), open.id);
    let found = state.look(move |context| campaigns::report(context, &of, id));
    let found = found.await?;
    if let Some((report, _)) = &found
        && (report.counting || report.pending > 0)
    {
        let age_ms = now_ms.saturating_sub(report.accepted_ms);
        let wait_ms = (age_ms / 8).clamp(SHORTEST_MS, LONGEST_MS);
        let again_ms = now_ms + wait_ms;
        // At its expiry it is done, whatever it waits for.
        let is_before = now_ms < report.expires_ms && !report.counting;
        return Ok(Some(match is_before {
            true => again_ms.min(report.expires_ms),
            false => again_ms,
        }));
    }
    let told = found.map(|(report, standing)| {
        let what = What::PushDone {
            funnel: report.funnel(),
        };
        let callback = Info::decode(&open.info)
            .ok()
            .and_then(|info| info.callback_url)
            .map(|url| Retry {
                parcel: Parcel {
                    id: EventId(id.0),
                    key: Lane::Push(id),
                    body: reports::as_json(id, &report, standing),
                    url: Some(url),
                },
                delivery: Delivery::new(now_ms),
            });
        (Draft::new(None, Some(id), &what), callback)
    });
    let (of, open) = (app.clone(), open.clone());
    state
        .carry_out(ACTOR.to_owned(), move |context| {
            let told = told.as_ref().map(|(event, retry)| (event, retry.as_ref()));
            open::close(context, &of, &open, told)
        })
        .await?;
    Ok(None)
}
