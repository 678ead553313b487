//! Deleting an app whole.
//!
//! There is too much of an app for one change, so that it goes in steps. First it is marked: a row in [`Table::Deletion`] beside that of the app. From then on its keys are
//! refused and its devices sent away; what was under way has [`SETTLES_MS`] to end. Then the node that leads has the store erase what the app keeps, as often as it takes, and
//! in the end its keys and its own row, which makes the name free. Each step can be repeated by whoever leads next.

use prost::Message;

use super::{app_row, hash_row, id_row, key, keys, no_app};
use crate::{
    app::AppName,
    registry::{Context, Planned, Refusal, decode},
    rows::{Key, Range, Scope, Table},
    store::Unavailable,
};

/// Milliseconds from the mark on after which nobody writes for the app any more: keys are believed for five seconds, nodes look for marks every five, and a request that was
/// let in before ends.
pub const SETTLES_MS: u64 = 15_000;
/// Deletions that are read at a time. There is hardly ever more than one.
const PAGE: usize = 100;

/// The deletion of an app, as it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct Deletion {
    /// When it was asked for, in Unix milliseconds.
    #[prost(uint64, tag = "1")]
    pub asked_ms: u64,
    /// On whose behalf.
    #[prost(string, tag = "2")]
    pub actor: String,
    /// About how many things are erased so far.
    #[prost(uint64, tag = "3")]
    pub removed: u64,
}

impl Deletion {
    /// Whether what was under way has ended, so that what the app keeps can go.
    pub fn is_settled(&self, now_ms: u64) -> bool {
        now_ms >= self.asked_ms.saturating_add(SETTLES_MS)
    }
}

fn row(app: &AppName) -> Key {
    Key::new(Table::Deletion, app.as_str())
}

/// The deletion of an app, if it is being deleted.
pub fn deletion(context: &Context<'_>, app: &AppName) -> Result<Option<Deletion>, Unavailable> {
    Ok(context.record(&Scope::System, &row(app))?.0)
}

/// Refuses what is asked for an app that is being deleted.
pub fn check_stays(context: &Context<'_>, app: &AppName) -> Result<(), Refusal> {
    match deletion(context, app)? {
        Some(_) => Err(Refusal::Leaving { app: app.clone() }),
        None => Ok(()),
    }
}

/// Apps that are being deleted, by name.
pub fn deletions(context: &Context<'_>) -> Result<Vec<(AppName, Deletion)>, Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::Deletion,
        prefix: String::new(),
        after: None,
        limit: PAGE,
    };
    let (rows, _) = context.reader.rows(&range, context.now_ms)?;
    let read = |row: crate::rows::Row| {
        let deletion = decode(&row.value, Table::Deletion)?;
        let app = AppName::new(&row.name).map_err(|bad| Unavailable(bad.to_string().into()))?;
        Ok((app, deletion))
    };
    rows.into_iter().map(read).collect()
}

/// Marks an app. Doing it twice changes nothing.
pub fn delete(context: &Context<'_>, app: &AppName) -> Result<Planned<Deletion>, Refusal> {
    let (there, app_version) = context.row(&Scope::System, &app_row(app))?;
    if there.is_none() {
        return Err(no_app(app));
    }
    let (before, version) = context.record::<Deletion>(&Scope::System, &row(app))?;
    if let Some(before) = before {
        return Ok(Planned::nothing(before));
    }
    let deletion = Deletion {
        asked_ms: context.now_ms,
        actor: context.actor.to_owned(),
        removed: 0,
    };
    let change = context
        .change(Scope::System)
        .expect(app_row(app), app_version)
        .expect(row(app), version)
        .put(row(app), deletion.encode_to_vec())
        // Nobody is told of what happens in it any more.
        .remove(Key::new(Table::Teller, app.as_str()))
        .audit(context, app, "app.deletion_begun", app.as_str(), "");
    Ok(Planned::change(change, deletion))
}

/// Counts what was erased.
pub fn count_erased(
    context: &Context<'_>,
    app: &AppName,
    removed: u64,
) -> Result<Planned<()>, Refusal> {
    let (deletion, version) = context.record::<Deletion>(&Scope::System, &row(app))?;
    let Some(mut deletion) = deletion else {
        return Ok(Planned::nothing(()));
    };
    deletion.removed += removed;
    let change = context
        .change(Scope::System)
        .expect(row(app), version)
        .put(row(app), deletion.encode_to_vec());
    Ok(Planned::change(change, ()))
}

/// Removes the keys and the row of an app of which nothing else is left, and its name is free. False: something is left, or came meanwhile.
pub fn finish(context: &Context<'_>, app: &AppName) -> Result<Planned<bool>, Refusal> {
    let (deletion, version) = context.record::<Deletion>(&Scope::System, &row(app))?;
    let Some(deletion) = deletion else {
        return Ok(Planned::nothing(true));
    };
    let scope = Scope::App(app.clone());
    for table in Table::ALL {
        if context.reader.count_rows(&scope, table)? > 0 {
            return Ok(Planned::nothing(false));
        }
    }
    let mut change = context
        .change(Scope::System)
        .expect(row(app), version)
        .remove(row(app))
        .remove(app_row(app))
        .remove(Key::new(Table::Teller, app.as_str()));
    for record in keys(context, app)? {
        let (_, secrets, version) = key(context, app, &record.id)?;
        change = change
            .expect(id_row(app, &record.id), version)
            .remove(id_row(app, &record.id))
            .remove(hash_row(&secrets.hash));
        if !secrets.previous.is_empty() {
            change = change.remove(hash_row(&secrets.previous));
        }
    }
    let detail = format!("{} things erased", deletion.removed);
    let change = change.audit(context, app, "app.deleted", app.as_str(), detail);
    Ok(Planned::change(change, true))
}
