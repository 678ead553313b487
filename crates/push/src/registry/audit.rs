//! Who changed what: one record with each administrative change, written with it.

use super::{Context, decode};
use crate::{
    app::AppName,
    id::PushId,
    rows::{Change, Key, Range, SEPARATOR, Scope, Table},
    store::Unavailable,
};

/// How long records are kept: 400 days, so that a yearly review finds a whole year.
pub const KEPT_MS: u64 = 400 * 24 * 60 * 60 * 1000;

/// A record as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuditRecord {
    /// Unix milliseconds.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// On whose behalf.
    #[prost(string, tag = "2")]
    pub actor: String,
    /// What was done: `key.created`.
    #[prost(string, tag = "3")]
    pub action: String,
    /// To what.
    #[prost(string, tag = "4")]
    pub object: String,
    /// More of it, for people; never a secret.
    #[prost(string, tag = "5")]
    pub detail: String,
}

/// A record with its id, which ascends with time.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// A ULID.
    pub id: PushId,
    /// The record.
    pub record: AuditRecord,
}

impl Change {
    /// Writes down who asked for this change. `app` is whose audit log it goes to.
    pub fn audit(
        self,
        context: &Context<'_>,
        app: &AppName,
        action: &str,
        object: &str,
        detail: impl Into<String>,
    ) -> Change {
        let record = AuditRecord {
            at_ms: context.now_ms,
            actor: context.actor.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail: detail.into(),
        };
        let id = PushId(context.unique).to_string();
        let key = match &self.scope {
            Scope::System => Key::pair(Table::Audit, app.as_str(), &id),
            Scope::App(_) => Key::new(Table::Audit, id),
        };
        let until = context.now_ms + KEPT_MS;
        self.put_until(key, prost::Message::encode_to_vec(&record), until)
    }
}

/// A page of what was done to apps and their keys, of all apps: by app, and of each the oldest first. `after` is the app and the id of the last entry of the page
/// before.
pub fn list_of_system(
    context: &Context<'_>,
    after: Option<(&AppName, PushId)>,
    limit: usize,
) -> Result<(Vec<(String, Entry)>, bool), Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::Audit,
        prefix: String::new(),
        after: after.map(|(app, id)| format!("{app}{SEPARATOR}{id}")),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let mut entries = Vec::new();
    for row in rows {
        let (app, id) = row.name.split_once(SEPARATOR).unwrap_or_default();
        if let Ok(id) = id.parse() {
            let record = decode(&row.value, Table::Audit)?;
            entries.push((app.to_owned(), Entry { id, record }));
        }
    }
    Ok((entries, more))
}

/// A page of an app's audit log, the oldest first, and whether there is more. What was done to the app's own row and keys lies apart from what was done
/// within the app; the page has both.
pub fn list(
    context: &Context<'_>,
    app: &AppName,
    after: Option<PushId>,
    limit: usize,
) -> Result<(Vec<Entry>, bool), Unavailable> {
    let after = after.map(|id| id.to_string());
    let of_system = format!("{app}{SEPARATOR}");
    let ranges = [
        Range {
            scope: Scope::App(app.clone()),
            table: Table::Audit,
            prefix: String::new(),
            after: after.clone(),
            limit: limit + 1,
        },
        Range {
            scope: Scope::System,
            table: Table::Audit,
            after: after.map(|after| format!("{of_system}{after}")),
            prefix: of_system,
            limit: limit + 1,
        },
    ];
    let mut entries = Vec::new();
    for range in ranges {
        let (rows, _) = context.reader.rows(&range, context.now_ms)?;
        for row in rows {
            let id = row.name.rsplit(SEPARATOR).next().unwrap_or_default();
            if let Ok(id) = id.parse() {
                let record = decode(&row.value, Table::Audit)?;
                entries.push(Entry { id, record });
            }
        }
    }
    entries.sort_by_key(|entry| entry.id);
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok((entries, more))
}
