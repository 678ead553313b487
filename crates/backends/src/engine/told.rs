//! What devices tell of their pushes.

use std::collections::{BTreeMap, BTreeSet};

use campanile_broker::store::{Outcome, StoreError, Tell};
use campanile_push::{ack::Acks, id::PushId, receipt::Mark};

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
        for (id, marks) in told {
            let push = Subject::push(tell.client.app.as_str(), id.0);
            let Some(record) = self.record::<PushRecord>(Table::Push, &push, "push")? else {
                continue;
            };
            if record.to_audience {
                // As with its acknowledgement: whoever counts may see the device otherwise than the node that sent it.
                self.mark(&push, Mark::Targeted, tell.ordinal)?;
            } else if !self.is_marked(&push, Mark::Targeted, tell.ordinal)? {
                continue;
            }
            for mark in marks {
                self.mark(&push, mark, tell.ordinal)?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// The marks that a device tells, or `None` if nobody understands it.
pub fn marks_told(tell: &Tell) -> Option<BTreeMap<PushId, BTreeSet<Mark>>> {
    let (client_id, app) = (&tell.client.client_id, &tell.client.app);
    match Acks::parse(&tell.payload) {
        Ok(acks) => {
            for refused in &acks.refused {
                tracing::debug!(%client_id, %app, at = %refused.at, reason = %refused.why, "part of a device's report is left out");
            }
            Some(acks.marks())
        }
        Err(reason) => {
            tracing::debug!(%client_id, %app, %reason, "a device's report is refused");
            None
        }
    }
}
