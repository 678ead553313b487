//! Webhooks of an app, what is kept of telling them, and the ends of pushes that are told to callback addresses.
//!
//! What a [`Courier`] must keep lies in rows beside its webhook: how far it was told, what is to be sent again, what was given up. They are written together, and only if nobody
//! else has written how far it was told: of two nodes that both believe that they lead, one meets a conflict and starts anew from the rows.
//!
//! The couriers of all apps run on the node that leads. It finds the apps by a list in [`Scope::System`], onto which an app is put *before* its first webhook or callback is
//! written, as a change is of one scope ([`announce`]). An app stays on it: one too many costs a look.

use std::collections::BTreeSet;

use prost::Message;

use super::{Context, Planned, Refusal, apps};
use crate::{
    app::AppName,
    event::EventId,
    rows::{Change, Key, Range, Row, SEPARATOR, Scope, Table, Version},
    store::Unavailable,
    webhook::{
        self, MAX_WEBHOOKS, Secret, Webhook, WebhookId,
        courier::{Courier, DeadLetter, Retry, Saving},
        delivery::Delivery,
    },
};

/// Dead letters that a webhook keeps; the oldest make room.
pub const MAX_DEAD_LETTERS: usize = 1000;
/// Milliseconds for which a dead letter is kept.
pub const DEAD_LETTER_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Stands for a webhook's id where the ends of pushes are told to callback addresses.
pub const CALLBACKS: &str = "callbacks";
/// Rows of a webhook that one change removes at most.
const MAX_REMOVED: usize = 1900;

/// How far a webhook was told.
#[derive(Clone, PartialEq, Message)]
struct ToldRecord {
    /// Place in the event log; 0: since the row was written.
    #[prost(uint64, tag = "1")]
    read: u64,
}

/// What a courier goes on from.
#[derive(Debug)]
pub struct Kept {
    /// It.
    pub courier: Courier,
    /// Of the row that says how far it got, to be expected by the next save.
    pub told: Version,
}

fn row_of(id: &str) -> Key {
    Key::new(Table::Webhook, id)
}

fn told_row(of: &str) -> Key {
    Key::new(Table::Told, of)
}

fn item(table: Table, of: &str, id: EventId) -> Key {
    Key::pair(table, of, &id.to_string())
}

fn scope_of(app: &AppName) -> Scope {
    Scope::App(app.clone())
}

fn missing(id: &str) -> Refusal {
    Refusal::Missing {
        what: "webhook",
        name: id.to_owned(),
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string().into())
}

fn webhook_of(row: &Row) -> Result<Webhook, Unavailable> {
    Webhook::decode(&row.value).map_err(|error| damaged(&error))
}

/// Puts an app onto the list of those that somebody is told of.
pub fn announce(context: &Context<'_>, app: &AppName) -> Result<Planned<()>, Refusal> {
    apps::check_stays(context, app)?;
    let key = Key::new(Table::Teller, app.as_str());
    let (row, _) = context.row(&Scope::System, &key)?;
    Ok(match row {
        Some(_) => Planned::nothing(()),
        None => Planned::change(context.change(Scope::System).put(key, Vec::new()), ()),
    })
}

/// The apps on that list, from the first after `after`, and whether there are more.
pub fn tellers(
    context: &Context<'_>,
    after: Option<&AppName>,
    limit: usize,
) -> Result<(Vec<AppName>, bool), Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::Teller,
        prefix: String::new(),
        after: after.map(ToString::to_string),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let name = |row: Row| AppName::new(&row.name).map_err(|bad| damaged(&bad));
    Ok((rows.into_iter().map(name).collect::<Result<_, _>>()?, more))
}

/// Keeps a new webhook. It is told what happens from then on.
pub fn create(
    context: &Context<'_>,
    app: &AppName,
    webhook: &Webhook,
) -> Result<Planned<()>, Refusal> {
    let id = webhook.id.to_string();
    let change = context
        .change(scope_of(app))
        .at_most(Table::Webhook, MAX_WEBHOOKS as u64)
        .expect(row_of(&id), Version::ABSENT)
        .put(row_of(&id), webhook.encode())
        .put(told_row(&id), ToldRecord::default().encode_to_vec())
        .audit(context, app, "webhook.created", &id, webhook.url.as_str());
    Ok(Planned::change(change, ()))
}

/// Webhooks by their ids, with the versions of their rows.
pub fn list(context: &Context<'_>, app: &AppName) -> Result<Vec<(Webhook, Version)>, Unavailable> {
    let range = Range {
        scope: scope_of(app),
        table: Table::Webhook,
        prefix: String::new(),
        after: None,
        limit: MAX_WEBHOOKS,
    };
    let (rows, _) = context.reader.rows(&range, context.now_ms)?;
    let read = |row: &Row| Ok((webhook_of(row)?, row.version));
    rows.iter().map(read).collect()
}

/// A webhook, and the version of its row.
pub fn get(context: &Context<'_>, app: &AppName, id: &str) -> Result<(Webhook, Version), Refusal> {
    let (row, version) = context.row(&scope_of(app), &row_of(id))?;
    let row = row.ok_or_else(|| missing(id))?;
    Ok((webhook_of(&row)?, version))
}

/// What an owner does with a webhook.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Changes fields.
    Fields(webhook::Change),
    /// Takes a new secret.
    Rotate(Secret),
}

/// Changes a webhook.
pub fn edit(
    context: &Context<'_>,
    app: &AppName,
    id: &str,
    edit: &Edit,
) -> Result<Planned<Webhook>, Refusal> {
    let (mut webhook, version) = get(context, app, id)?;
    let action = match edit {
        Edit::Fields(change) => {
            webhook.apply(change.clone());
            "webhook.changed"
        }
        Edit::Rotate(secret) => {
            webhook.rotate(secret.clone(), context.now_ms);
            "webhook.rotated"
        }
    };
    let change = context
        .change(scope_of(app))
        .expect(row_of(id), version)
        .put(row_of(id), webhook.encode())
        .audit(context, app, action, id, webhook.url.as_str());
    Ok(Planned::change(change, webhook))
}

/// Removes a webhook with all that is kept for it.
pub fn delete(context: &Context<'_>, app: &AppName, id: &str) -> Result<Planned<()>, Refusal> {
    let (webhook, version) = get(context, app, id)?;
    let mut change = context
        .change(scope_of(app))
        .expect(row_of(id), version)
        .remove(row_of(id))
        .remove(told_row(id))
        .audit(context, app, "webhook.deleted", id, webhook.url.as_str());
    for table in [Table::Retry, Table::DeadLetter] {
        let (rows, _) = items(context, app, table, id, None, MAX_REMOVED)?;
        for row in rows {
            change = change.remove(Key::new(table, row.name));
        }
    }
    Ok(Planned::change(change, ()))
}

fn items(
    context: &Context<'_>,
    app: &AppName,
    table: Table,
    of: &str,
    after: Option<EventId>,
    limit: usize,
) -> Result<(Vec<Row>, bool), Unavailable> {
    let prefix = format!("{of}{SEPARATOR}");
    let range = Range {
        scope: scope_of(app),
        table,
        after: after.map(|id| format!("{prefix}{id}")),
        prefix,
        limit,
    };
    context.reader.rows(&range, context.now_ms)
}

/// All that is to be sent again to a webhook, or to callback addresses. Of very many the first.
pub fn retries(context: &Context<'_>, app: &AppName, of: &str) -> Result<Vec<Retry>, Unavailable> {
    let mut retries = Vec::new();
    let mut after = None;
    loop {
        let (rows, more) = items(context, app, Table::Retry, of, after, MAX_REMOVED)?;
        for row in &rows {
            retries.push(Retry::decode(&row.value).map_err(|error| damaged(&error))?);
        }
        after = retries.last().map(|retry| retry.parcel.id);
        if !more || retries.len() >= MAX_REMOVED {
            return Ok(retries);
        }
    }
}

/// Whether anything is to be sent again.
pub fn has_retries(context: &Context<'_>, app: &AppName, of: &str) -> Result<bool, Unavailable> {
    let (rows, _) = items(context, app, Table::Retry, of, None, 1)?;
    Ok(!rows.is_empty())
}

/// What the courier of a webhook, or of callbacks, goes on from.
pub fn kept(context: &Context<'_>, app: &AppName, of: &str) -> Result<Kept, Unavailable> {
    let (record, told) = context.record::<ToldRecord>(&scope_of(app), &told_row(of))?;
    let read = match record.unwrap_or_default().read {
        0 => told.0,
        read => read,
    };
    let courier = Courier::new(read, retries(context, app, of)?);
    Ok(Kept { courier, told })
}

/// Keeps what a courier did. `told` is the version of its last save; `webhook` is the webhook where that changed, with the version of its row.
pub fn save(
    context: &Context<'_>,
    app: &AppName,
    of: &str,
    told: Version,
    saving: &Saving,
    webhook: Option<(&Webhook, Version)>,
) -> Result<Change, Unavailable> {
    let record = ToldRecord { read: saving.read };
    let mut change = context
        .change(scope_of(app))
        .expect(told_row(of), told)
        .put(told_row(of), record.encode_to_vec());
    if let Some((webhook, version)) = webhook {
        change = change
            .expect(row_of(of), version)
            .put(row_of(of), webhook.encode());
    }
    for retry in &saving.keep {
        change = change.put(item(Table::Retry, of, retry.parcel.id), retry.encode());
    }
    for id in &saving.forget {
        change = change.remove(item(Table::Retry, of, *id));
    }
    if !saving.dead.is_empty() {
        let (rows, _) = items(context, app, Table::DeadLetter, of, None, MAX_DEAD_LETTERS)?;
        let too_many = (rows.len() + saving.dead.len()).saturating_sub(MAX_DEAD_LETTERS);
        let kept: BTreeSet<String> = saving
            .dead
            .iter()
            .map(|dead| item(Table::DeadLetter, of, dead.parcel.id).name)
            .collect();
        let oldest = rows.into_iter().map(|row| row.name);
        for name in oldest.filter(|name| !kept.contains(name)).take(too_many) {
            change = change.remove(Key::new(Table::DeadLetter, name));
        }
        let until_ms = context.now_ms + DEAD_LETTER_KEPT_MS;
        for dead in &saving.dead {
            let key = item(Table::DeadLetter, of, dead.parcel.id);
            change = change.put_until(key, dead.encode(), until_ms);
        }
    }
    Ok(change)
}

/// Dead letters of a webhook, from the first after `after`, and whether there are more.
pub fn dead_letters(
    context: &Context<'_>,
    app: &AppName,
    of: &str,
    after: Option<EventId>,
    limit: usize,
) -> Result<(Vec<DeadLetter>, bool), Refusal> {
    if of != CALLBACKS {
        get(context, app, of)?;
    }
    let (rows, more) = items(context, app, Table::DeadLetter, of, after, limit)?;
    let read = |row: &Row| DeadLetter::decode(&row.value).map_err(|error| damaged(&error));
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, more))
}

/// Takes dead letters up again: these, or, if none are named, the oldest. Those that are not there are passed over. Answers how many it took.
pub fn replay(
    context: &Context<'_>,
    app: &AppName,
    of: &str,
    ids: &[EventId],
) -> Result<Planned<u64>, Refusal> {
    let mut change = context.change(scope_of(app));
    if of != CALLBACKS {
        // Written anew as it is, so that whoever tells it looks at the rows.
        let (webhook, version) = get(context, app, of)?;
        change = change
            .expect(row_of(of), version)
            .put(row_of(of), webhook.encode());
    }
    let rows = match ids {
        [] => items(context, app, Table::DeadLetter, of, None, MAX_DEAD_LETTERS)?.0,
        ids => {
            let keys: Vec<Key> = ids
                .iter()
                .map(|id| item(Table::DeadLetter, of, *id))
                .collect();
            let rows = context
                .reader
                .rows_at(&scope_of(app), &keys, context.now_ms)?;
            rows.into_iter().flatten().collect()
        }
    };
    let count = rows.len() as u64;
    for row in rows {
        let dead = DeadLetter::decode(&row.value).map_err(|error| damaged(&error))?;
        let retry = Retry {
            delivery: Delivery::new(context.now_ms),
            parcel: dead.parcel,
        };
        let dead = Key::new(Table::DeadLetter, row.name.clone());
        change = change
            .expect(dead.clone(), row.version)
            .remove(dead)
            .put(Key::new(Table::Retry, row.name), retry.encode());
    }
    Ok(match count {
        0 => Planned::nothing(0),
        _ => {
            let detail = format!("{count} events");
            let change = change.audit(context, app, "webhook.replayed", of, detail);
            Planned::change(change, count)
        }
    })
}

/// What signs the requests to callback addresses, made of these bytes if there is none yet. It is a webhook of no address.
pub fn callback_signer(
    context: &Context<'_>,
    app: &AppName,
    random: [u8; 32],
) -> Result<Planned<Webhook>, Refusal> {
    let key = Key::new(Table::CallbackSecret, CALLBACKS);
    let (row, version) = context.row(&scope_of(app), &key)?;
    if let Some(row) = row {
        return Ok(Planned::nothing(webhook_of(&row)?));
    }
    let signer = Webhook::signer(
        WebhookId::new(context.now_ms, 0),
        Secret::from_random(random),
    );
    let change = context
        .change(scope_of(app))
        .expect(key.clone(), version)
        .put(key, signer.encode());
    Ok(Planned::change(change, signer))
}

/// Gives it a new secret.
pub fn rotate_callback_secret(
    context: &Context<'_>,
    app: &AppName,
    random: [u8; 32],
) -> Result<Planned<Webhook>, Refusal> {
    let Planned {
        change,
        answer: mut signer,
    } = callback_signer(context, app, random)?;
    if change.is_some() {
        return Ok(Planned {
            change,
            answer: signer,
        });
    }
    let key = Key::new(Table::CallbackSecret, CALLBACKS);
    let (_, version) = context.row(&scope_of(app), &key)?;
    signer.rotate(Secret::from_random(random), context.now_ms);
    let change = context
        .change(scope_of(app))
        .expect(key.clone(), version)
        .put(key, signer.encode())
        .audit(context, app, "callback_secret.rotated", CALLBACKS, "");
    Ok(Planned::change(change, signer))
}

#[cfg(test)]
mod tests;
