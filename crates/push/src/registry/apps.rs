//! Apps and their API keys. All of it is in [`Scope::System`].
//!
//! A key is found by its hash ([`Table::Key`]) and listed by its id within its app ([`Table::AppKey`]); both rows are written together. A rotated key
//! keeps its id and gets a new secret; the old one works on for a while.

mod deletion;
mod requests;

use prost::Message;

pub use self::{
    deletion::{
        Deletion, SETTLES_MS, check_stays, count_erased, delete, deletion, deletions, finish,
    },
    requests::{
        DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS, NewApp, NewKey, QuotaChange, grace_seconds,
    },
};

use super::{
    Context, Planned, Refusal, decode,
    permission::{Permission, Permissions},
};
use crate::{
    app::{AppName, KeyHash},
    rows::{Key, Range, SEPARATOR, Scope, Table, Version},
    store::{Reader, Unavailable},
};

/// API keys that an app may have.
pub const MAX_KEYS: usize = 100;
/// Longest label of a key, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;
/// Largest quota: numbers up to it are exact in JSON everywhere.
pub const MAX_QUOTA: u64 = 1 << 53;

/// What an app may use; 0: as much as there is.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Quotas {
    /// Registered devices.
    #[prost(uint64, tag = "1")]
    pub devices: u64,
    /// Connections at a time, over all nodes.
    #[prost(uint64, tag = "2")]
    pub connections: u64,
    /// Pushes that are accepted a second, over all nodes.
    #[prost(uint64, tag = "3")]
    pub pushes_per_second: u64,
    /// Bytes of messages that are kept: above it no push is accepted.
    #[prost(uint64, tag = "4")]
    pub stored_bytes: u64,
}

/// An app as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AppRecord {
    /// Unix milliseconds.
    #[prost(uint64, tag = "1")]
    pub created_ms: u64,
    /// What it may use.
    #[prost(message, required, tag = "2")]
    pub quotas: Quotas,
}

/// A key as it is found by its hash.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyRecord {
    /// The app.
    #[prost(string, tag = "1")]
    pub app: String,
    /// Its id within the app.
    #[prost(string, tag = "2")]
    pub id: String,
    /// [`Permissions::bits`].
    #[prost(uint32, tag = "3")]
    pub permissions: u32,
    /// For people.
    #[prost(string, tag = "4")]
    pub label: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "5")]
    pub created_ms: u64,
    /// Unix milliseconds of the last rotation; 0: never.
    #[prost(uint64, tag = "6")]
    pub rotated_ms: u64,
}

/// Where a key's secrets are.
#[derive(Clone, PartialEq, prost::Message)]
struct SecretsRecord {
    /// Hash of the present one, hexadecimal.
    #[prost(string, tag = "1")]
    hash: String,
    /// Hash of the one before, hexadecimal; empty: there is none.
    #[prost(string, tag = "2")]
    previous: String,
}

impl KeyRecord {
    /// What it may do.
    pub fn permissions(&self) -> Permissions {
        Permissions::from_bits(self.permissions)
    }
}

/// The id of a new key: short, and not a secret.
fn key_id(hash: &KeyHash) -> String {
    format!("k_{}", &hash.hex()[..12])
}

fn app_row(app: &AppName) -> Key {
    Key::new(Table::App, app.as_str())
}

fn hash_row(hash: &str) -> Key {
    Key::new(Table::Key, hash)
}

fn id_row(app: &AppName, id: &str) -> Key {
    Key::pair(Table::AppKey, app.as_str(), id)
}

fn no_app(app: &AppName) -> Refusal {
    Refusal::Missing {
        what: "app",
        name: app.to_string(),
    }
}

/// An app's record, if there is such an app.
pub fn app(context: &Context<'_>, app: &AppName) -> Result<Option<AppRecord>, Unavailable> {
    Ok(context.record(&Scope::System, &app_row(app))?.0)
}

/// Apps by name, from the first after `after`, and whether there are more.
pub fn list(
    context: &Context<'_>,
    after: Option<&AppName>,
    limit: usize,
) -> Result<(Vec<(AppName, AppRecord)>, bool), Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::App,
        prefix: String::new(),
        after: after.map(ToString::to_string),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let app = |row: crate::rows::Row| {
        let record = decode(&row.value, Table::App)?;
        let name = AppName::new(&row.name).map_err(|bad| Unavailable(bad.to_string().into()))?;
        Ok((name, record))
    };
    Ok((rows.into_iter().map(app).collect::<Result<_, _>>()?, more))
}

/// Makes an app with its first key.
pub fn create(
    context: &Context<'_>,
    app: &AppName,
    quotas: Quotas,
    key: &KeyHash,
    permissions: Permissions,
) -> Result<Planned<String>, Refusal> {
    let exists = || Refusal::Exists {
        what: "app",
        name: app.to_string(),
    };
    let (there, _) = context.row(&Scope::System, &app_row(app))?;
    check_stays(context, app)?;
    if there.is_some() {
        return Err(exists());
    }
    let record = AppRecord {
        created_ms: context.now_ms,
        quotas,
    };
    let planned = add(context, app, key, permissions, "first key")?;
    // The app has the key: another node made both between the two reads.
    let change = planned
        .change
        .ok_or_else(exists)?
        .expect(app_row(app), Version::ABSENT)
        .put(app_row(app), record.encode_to_vec())
        .audit(context, app, "app.created", app.as_str(), quotas.told());
    Ok(Planned::change(change, planned.answer))
}

impl Quotas {
    /// For the audit log.
    fn told(&self) -> String {
        let quotas = [
            ("devices", self.devices),
            ("connections", self.connections),
            ("pushes_per_second", self.pushes_per_second),
            ("stored_bytes", self.stored_bytes),
        ];
        let set = quotas.iter().filter(|(_, quota)| *quota > 0);
        let told: Vec<String> = set.map(|(name, quota)| format!("{name} {quota}")).collect();
        match told.is_empty() {
            true => "no quotas".to_owned(),
            false => told.join(", "),
        }
    }
}

/// Changes what an app may use.
pub fn change_quotas(
    context: &Context<'_>,
    app: &AppName,
    change: &QuotaChange,
) -> Result<Planned<AppRecord>, Refusal> {
    let (record, version) = context.record::<AppRecord>(&Scope::System, &app_row(app))?;
    let before = record.ok_or_else(|| no_app(app))?;
    check_stays(context, app)?;
    let after = AppRecord {
        quotas: change.apply(&before.quotas),
        ..before
    };
    if after == before {
        return Ok(Planned::nothing(after));
    }
    let change = context
        .change(Scope::System)
        .expect(app_row(app), version)
        .put(app_row(app), after.encode_to_vec())
        .audit(
            context,
            app,
            "app.changed",
            app.as_str(),
            after.quotas.told(),
        );
    Ok(Planned::change(change, after))
}

/// Gives an app one more key; one that it has already stays as it is. Answers the key's id.
pub fn add_key(
    context: &Context<'_>,
    app: &AppName,
    key: &KeyHash,
    permissions: Permissions,
    label: &str,
) -> Result<Planned<String>, Refusal> {
    let (record, version) = context.row(&Scope::System, &app_row(app))?;
    if record.is_none() {
        return Err(no_app(app));
    }
    check_stays(context, app)?;
    let mut planned = add(context, app, key, permissions, label)?;
    // The app must not go meanwhile.
    planned.change = planned
        .change
        .map(|change| change.expect(app_row(app), version))
        .map(|change| {
            change.audit(
                context,
                app,
                "key.created",
                &planned.answer,
                names(permissions),
            )
        });
    Ok(planned)
}

fn add(
    context: &Context<'_>,
    app: &AppName,
    key: &KeyHash,
    permissions: Permissions,
    label: &str,
) -> Result<Planned<String>, Refusal> {
    let (hash, id) = (key.hex(), key_id(key));
    let (there, _) = context.record::<KeyRecord>(&Scope::System, &hash_row(&hash))?;
    match there {
        Some(there) if there.app == app.as_str() => return Ok(Planned::nothing(there.id)),
        Some(_) => {
            let clash = "the key is that of another app; make a new one".to_owned();
            return Err(Refusal::Clash(clash));
        }
        None => {}
    }
    if keys(context, app)?.len() >= MAX_KEYS {
        return Err(Refusal::Full {
            what: "API keys",
            limit: MAX_KEYS as u64,
        });
    }
    let record = KeyRecord {
        app: app.to_string(),
        id: id.clone(),
        permissions: permissions.bits(),
        label: label.to_owned(),
        created_ms: context.now_ms,
        rotated_ms: 0,
    };
    let secrets = SecretsRecord {
        hash: hash.clone(),
        previous: String::new(),
    };
    let change = context
        .change(Scope::System)
        .expect(hash_row(&hash), Version::ABSENT)
        .expect(id_row(app, &id), Version::ABSENT)
        .put(hash_row(&hash), record.encode_to_vec())
        .put(id_row(app, &id), secrets.encode_to_vec());
    Ok(Planned::change(change, id))
}

fn names(permissions: Permissions) -> String {
    let names: Vec<&str> = permissions
        .iter()
        .map(|permission| permission.text())
        .collect();
    names.join(" ")
}

/// Gives a key a new secret; the old one works until `old_until_ms`.
pub fn rotate_key(
    context: &Context<'_>,
    app: &AppName,
    id: &str,
    new: &KeyHash,
    old_until_ms: u64,
) -> Result<Planned<KeyRecord>, Refusal> {
    let (mut record, mut secrets, version) = key(context, app, id)?;
    let hash = new.hex();
    record.rotated_ms = context.now_ms;
    let old = std::mem::replace(&mut secrets.hash, hash.clone());
    let oldest = std::mem::replace(&mut secrets.previous, old.clone());
    let mut change = context
        .change(Scope::System)
        .expect(id_row(app, id), version)
        .expect(hash_row(&hash), Version::ABSENT)
        .put(hash_row(&hash), record.encode_to_vec())
        .put(id_row(app, id), secrets.encode_to_vec());
    change = match old_until_ms > context.now_ms {
        true => change.put_until(hash_row(&old), record.encode_to_vec(), old_until_ms),
        false => change.remove(hash_row(&old)),
    };
    if !oldest.is_empty() {
        change = change.remove(hash_row(&oldest));
    }
    let change = change.audit(context, app, "key.rotated", id, "");
    Ok(Planned::change(change, record))
}

/// Ends a key, with the secret that it had before its last rotation. The last key that may do everything stays: without it, only the operator of
/// the node could make another.
pub fn revoke_key(context: &Context<'_>, app: &AppName, id: &str) -> Result<Planned<()>, Refusal> {
    let (record, secrets, version) = key(context, app, id)?;
    let is_admin = |key: &KeyRecord| key.permissions().allow(Permission::Admin);
    if is_admin(&record) {
        let others = keys(context, app)?;
        if !others.iter().any(|key| key.id != id && is_admin(key)) {
            return Err(Refusal::Clash(format!(
                "{id} is the last key of the app that may do everything; make another first"
            )));
        }
    }
    let mut change = context
        .change(Scope::System)
        .expect(id_row(app, id), version)
        .remove(hash_row(&secrets.hash))
        .remove(id_row(app, id));
    if !secrets.previous.is_empty() {
        change = change.remove(hash_row(&secrets.previous));
    }
    let change = change.audit(context, app, "key.revoked", id, record.label);
    Ok(Planned::change(change, ()))
}

fn key(
    context: &Context<'_>,
    app: &AppName,
    id: &str,
) -> Result<(KeyRecord, SecretsRecord, Version), Refusal> {
    let missing = || Refusal::Missing {
        what: "API key",
        name: id.to_owned(),
    };
    let (secrets, version) = context.record::<SecretsRecord>(&Scope::System, &id_row(app, id))?;
    let secrets = secrets.ok_or_else(missing)?;
    let (record, _) = context.record(&Scope::System, &hash_row(&secrets.hash))?;
    Ok((record.ok_or_else(missing)?, secrets, version))
}

/// All keys of an app, by their ids.
pub fn keys(context: &Context<'_>, app: &AppName) -> Result<Vec<KeyRecord>, Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::AppKey,
        prefix: format!("{app}{SEPARATOR}"),
        after: None,
        limit: MAX_KEYS,
    };
    let (rows, _) = context.reader.rows(&range, context.now_ms)?;
    let hash = |row: &crate::rows::Row| {
        let secrets: SecretsRecord = decode(&row.value, Table::AppKey)?;
        Ok(hash_row(&secrets.hash))
    };
    let hashes: Vec<Key> = rows.iter().map(hash).collect::<Result<_, Unavailable>>()?;
    let found = context
        .reader
        .rows_at(&Scope::System, &hashes, context.now_ms)?;
    let record = |row: crate::rows::Row| decode(&row.value, Table::Key);
    found.into_iter().flatten().map(record).collect()
}

/// Whose a key is and what it may do, if it is one of ours.
pub fn key_of_hash(
    reader: &dyn Reader,
    hash: &KeyHash,
    now_ms: u64,
) -> Result<Option<(AppName, KeyRecord)>, Unavailable> {
    let rows = reader.rows_at(&Scope::System, &[hash_row(&hash.hex())], now_ms)?;
    let Some(row) = rows.into_iter().next().flatten() else {
        return Ok(None);
    };
    let record: KeyRecord = decode(&row.value, Table::Key)?;
    let app = AppName::new(&record.app).map_err(|bad| Unavailable(bad.to_string().into()))?;
    Ok(Some((app, record)))
}

#[cfg(test)]
mod tests;
