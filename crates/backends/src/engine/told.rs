//! What devices tell of their pushes.

use std::collections::{BTreeMap, BTreeSet};

use campanile_broker::store::{Outcome, StoreError, Tell};
use campanile_push::{ack::Acks, event::What, id::PushId, receipt::Mark};

use super::{
    keys::{Subject, Table},
    records::PushRecord,
    txn::Txn,
};

impl Txn<'_> {
    /// Records what a device tells. Of a push that is for others, or not known any more, it has nothing to tell.
    pub fn tell(&mut self, tell: &Tell) -> Result<Outcome, StoreError> {
        let Some(told) = marks_told(tell) else {
            return Ok(Outcome::Nothing);
        };
        let client = &tell.client;
        for (id, told) in told {
            let push = Subject::push(tell.client.app.as_str(), id.0);
            let Some(record) = self.record::<PushRecord>(Table::Push, &push, "push")? else {
                continue;
            };
            let ordinal = self.number_in(&push, &record, client, tell.ordinal)?;
            if record.to_audience && !record.is_counted {
                // Whoever counts may not have come to the device yet. Later, only an acknowledgement adds one: it says that the push was sent to it.
                self.mark(&push, Mark::Targeted, ordinal)?;
            } else if !self.is_marked(&push, Mark::Targeted, ordinal)? {
                continue;
            }
            for mark in told.marks {
                if !self.mark(&push, mark, ordinal)? {
                    continue;
                }
                self.count_in_series(&push, &record, mark)?;
                if let Some(what) = told_event(mark, told.action.as_deref()) {
                    let device = Some(&*client.client_id);
                    self.tell_of_push(client.app.as_str(), id.0, device, &what)?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

/// What a device tells of a push.
#[derive(Debug)]
pub struct Told {
    /// What is true of it and the push.
    pub marks: BTreeSet<Mark>,
    /// The button that somebody clicked.
    pub action: Option<String>,
}

/// The event of a mark that was new.
pub fn told_event(mark: Mark, action: Option<&str>) -> Option<What> {
    Some(match mark {
        Mark::Delivered => What::PushDelivered,
        Mark::Displayed => What::PushDisplayed,
        Mark::Clicked => What::PushClicked {
            action: action.map(str::to_owned),
        },
        Mark::Dismissed => What::PushDismissed,
        _ => return None,
    })
}

/// The marks that a device tells, or `None` if nobody understands it.
pub fn marks_told(tell: &Tell) -> Option<BTreeMap<PushId, Told>> {
    let (client_id, app) = (&tell.client.client_id, &tell.client.app);
    match Acks::parse(&tell.payload) {
        Ok(acks) => {
            for refused in &acks.refused {
                tracing::debug!(%client_id, %app, at = %refused.at, reason = %refused.why, "part of a device's report is left out");
            }
            let told = |(id, marks)| {
                let action = acks.action(id).map(str::to_owned);
                (id, Told { marks, action })
            };
            Some(acks.marks().into_iter().map(told).collect())
        }
        Err(reason) => {
            tracing::debug!(%client_id, %app, %reason, "a device's report is refused");
            None
        }
    }
}
