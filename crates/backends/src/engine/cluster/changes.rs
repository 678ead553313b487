//! The log of what all nodes of an app must know: what is retained, which filters durable sessions have, who is in shared subscriptions,
//! what is known of devices.

use campanile_broker::{
    ids::{AppId, ClientKey, Offset},
    store::{Change, Notice, StoreError},
};

use super::records::{ChangeRecord, ChangesRecord, FilterRecord, MemberRecord, member_of};
use crate::{
    config::MAX_CHANGES,
    engine::{
        inbox::offset_of_key,
        keys::{Subject, Table},
        kv::{KvError, View},
        records::{SubscriptionRecord, decode},
        txn::Txn,
    },
};

/// The app's last change.
pub fn last_change(view: &dyn View, app: &AppId) -> Result<Offset, KvError> {
    let log = view.get(&Subject::app(app.as_str()).key(Table::Changes))?;
    let log: Option<ChangesRecord> = log
        .map(|bytes| decode(&bytes, "log of changes"))
        .transpose()?;
    Ok(Offset(log.map_or(0, |log| log.end)))
}

/// Shared subscriptions begin with it.
const SHARE: &str = "$share/";

impl Txn<'_> {
    /// Announces a change to all shards, and keeps it for other nodes.
    pub fn announce_change(&mut self, app: &AppId, change: Change) -> Result<(), StoreError> {
        let (previous, offset) = match self.config.shared {
            true => self.append_change(app, &change)?,
            false => self.number_change(app),
        };
        self.announce(Notice::Change {
            app: app.clone(),
            previous,
            offset,
            change,
        });
        Ok(())
    }

    /// The places of the change before, and of the next one, in the store of a node alone, which keeps no changes: they are counted since it was opened. A place
    /// whose change is taken back is not given again, as a claim may have seen it.
    fn number_change(&mut self, app: &AppId) -> (Offset, Offset) {
        let state = self.state.app(app);
        state.changes += 1;
        (Offset(state.changes - 1), Offset(state.changes))
    }

    /// The app's last change.
    pub fn last_change(&self, app: &AppId) -> Result<Offset, KvError> {
        match self.config.shared {
            true => last_change(self, app),
            false => Ok(Offset(
                self.state.apps.get(app).map_or(0, |app| app.changes),
            )),
        }
    }

    /// The request is answered once all nodes know the changes before it. What makes others keep messages for a filter may be the change of another
    /// request, which not all nodes know yet.
    pub fn wait_for_changes(&mut self, app: &AppId) -> Result<(), KvError> {
        let last = self.last_change(app)?;
        if self.config.shared && last > Offset::default() {
            self.count_change(app, last);
        }
        Ok(())
    }

    /// Appends to the log of changes. Returns the place of the change before, and that of this one.
    fn append_change(
        &mut self,
        app: &AppId,
        change: &Change,
    ) -> Result<(Offset, Offset), StoreError> {
        let subject = Subject::app(app.as_str());
        let log: Option<ChangesRecord> = self.record(Table::Changes, &subject, "log of changes")?;
        let mut log = log.unwrap_or_default();
        let previous = Offset(log.end);
        let offset = self.next_offset();
        self.put_record(
            Table::Change,
            &subject.clone().offset(offset),
            &ChangeRecord::of(change),
        )?;
        (log.end, log.entries) = (offset.0, log.entries + 1);
        while log.entries > MAX_CHANGES {
            let oldest = self.list(Table::Change, &subject, 1)?;
            for (key, _) in oldest {
                log.trimmed_to = offset_of_key(&key)?.0;
                self.remove(key)?;
            }
            log.entries -= 1;
        }
        self.put_record(Table::Changes, &subject, &log)?;
        self.count_change(app, offset);
        Ok((previous, offset))
    }

    /// A stored session has another subscription to a filter than before, or none, or did not have one.
    pub fn change_subscription(
        &mut self,
        client: &ClientKey,
        filter: &str,
        before: Option<&SubscriptionRecord>,
        after: Option<&SubscriptionRecord>,
    ) -> Result<(), StoreError> {
        if !self.config.shared {
            return Ok(());
        }
        if filter.starts_with(SHARE) {
            return self.change_member(client, filter, before, after);
        }
        match (before, after) {
            (None, Some(_)) => self.count_filter(&client.app, filter, true),
            (Some(_), None) => self.count_filter(&client.app, filter, false),
            _ => Ok(()),
        }
    }

    fn change_member(
        &mut self,
        client: &ClientKey,
        filter: &str,
        before: Option<&SubscriptionRecord>,
        after: Option<&SubscriptionRecord>,
    ) -> Result<(), StoreError> {
        let before = before.map(member_of).transpose()?;
        let member = after.map(member_of).transpose()?;
        if before == member {
            return Ok(());
        }
        let row = Subject::app(client.app.as_str())
            .text(filter)
            .text(&client.client_id);
        match member {
            Some(_) => {
                let record = MemberRecord::of(filter, &client.client_id, member);
                self.put_record(Table::Member, &row, &record)?;
            }
            None => {
                self.remove_if_there(row.key(Table::Member))?;
            }
        }
        let change = Change::Member {
            filter: filter.into(),
            client_id: client.client_id.clone(),
            member,
        };
        self.announce_change(&client.app, change)
    }

    /// One stored session more, or less, has the filter.
    fn count_filter(&mut self, app: &AppId, filter: &str, more: bool) -> Result<(), StoreError> {
        let row = Subject::app(app.as_str()).text(filter);
        let record: Option<FilterRecord> = self.record(Table::Filter, &row, "filter")?;
        let before = record.map_or(0, |record| record.sessions);
        let sessions = match more {
            true => before + 1,
            false => before.saturating_sub(1),
        };
        if sessions == 0 {
            self.remove_if_there(row.key(Table::Filter))?;
        } else {
            let filter = filter.to_owned();
            self.put_record(Table::Filter, &row, &FilterRecord { filter, sessions })?;
        }
        if (before == 0) == (sessions == 0) {
            return Ok(());
        }
        let change = Change::Filter {
            filter: filter.into(),
            present: more,
        };
        self.announce_change(app, change)
    }
}
