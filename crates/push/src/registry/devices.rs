//! Registered devices, and the users that they are bound to.
//!
//! A device's row holds its [`Profile`]. A device that is bound to a user has a row in [`Table::UserDevice`] too, written with it, so that a user's
//! devices are found without a look at all; and it is in the cohorts of its tags and topics.

mod bulk;
pub mod told;

pub use self::bulk::{CHUNK, Edited, MAX_AT_A_TIME, edit, parse_list};

use std::sync::Arc;

use super::{Context, Planned, Refusal, apps, cohorts::enrolled, tokens};
use crate::{
    app::AppName,
    device::{Patch, Profile, names},
    event::{Draft, What},
    expression::Expression,
    fields::invalid,
    request::Invalid,
    rows::{Change, Key, Range, Row, SEPARATOR, Scope, Table, Version},
    store::Unavailable,
};

/// Devices of a page.
pub const MAX_PAGE: usize = 1000;
/// Rows that a page looks at: a filter that few devices match gives short pages instead of slow ones.
pub const MAX_SCAN: usize = 1000;

/// A registered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its client identifier.
    pub id: Arc<str>,
    /// What is known of it.
    pub profile: Profile,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Those found, by their identifiers. May be fewer than asked for, even none, while there are more.
    pub devices: Vec<Device>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Arc<str>>,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The device as it is now.
    pub device: Device,
    /// It was not registered before.
    pub created: bool,
}

fn row_of(device: &str) -> Key {
    Key::new(Table::Device, device)
}

fn scope_of(app: &AppName) -> Scope {
    Scope::App(app.clone())
}

fn missing(device: &str) -> Refusal {
    Refusal::Missing {
        what: "device",
        name: device.to_owned(),
    }
}

/// Whether a text can be the client identifier of a device that is registered, has a token, or is named in a path.
pub fn check_name(device: &str) -> Result<(), Invalid> {
    let check = names::CLIENT_ID.check(device);
    check.map_err(|bad| invalid("", bad.to_string()))
}

fn profile_of(value: &[u8]) -> Result<Profile, Unavailable> {
    let profile = Profile::decode(value);
    profile.map_err(|damaged| Unavailable(damaged.to_string().into()))
}

fn device_of(row: Row) -> Result<Device, Unavailable> {
    Ok(Device {
        profile: profile_of(&row.value)?,
        id: row.name.into(),
    })
}

fn read(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
) -> Result<(Option<Profile>, Version), Refusal> {
    check_name(device)?;
    let (row, version) = context.row(&scope_of(app), &row_of(device))?;
    let profile = row.map(|row| profile_of(&row.value)).transpose()?;
    Ok((profile, version))
}

/// Writes a device's row, and moves it from one user to another.
fn with_device(
    change: Change,
    device: &str,
    version: Version,
    before: Option<&Profile>,
    after: &Profile,
) -> Change {
    let what = match before {
        None => What::DeviceRegistered,
        Some(before) => What::DeviceUpdated {
            changed: before.changed_fields(after),
        },
    };
    let mut change = change
        .expect(row_of(device), version)
        .put(row_of(device), after.encode())
        .tell(Draft::new(Some(&device.into()), None, &what));
    change = enrolled(change, device, before, Some(after));
    let (old, new) = (before.and_then(Profile::user), after.user());
    if old == new {
        return change;
    }
    if let Some(old) = old {
        change = change.remove(Key::pair(Table::UserDevice, old, device));
    }
    if let Some(new) = new {
        change = change.put(Key::pair(Table::UserDevice, new, device), Vec::new());
    }
    change
}

/// What is known of a device.
pub fn get(context: &Context<'_>, app: &AppName, device: &str) -> Result<Device, Refusal> {
    let (profile, _) = read(context, app, device)?;
    Ok(Device {
        profile: profile.ok_or_else(|| missing(device))?,
        id: device.into(),
    })
}

/// Registers a device, or makes a registered one what the patch says and nothing else.
pub fn put(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    patch: &Patch,
) -> Result<Planned<Written>, Refusal> {
    let (before, version) = read(context, app, device)?;
    let created = before.is_none();
    let base = match &before {
        Some(profile) => profile.clone(),
        None => Profile::new(context.now_ms),
    };
    let after = base.apply(&patch.clone().replacing(), context.now_ms)?;
    if before.as_ref() == Some(&after) {
        return Ok(Planned::nothing(written(device, after, created)));
    }
    let change = registered(context, app, device, version, before.as_ref(), &after)?;
    Ok(Planned::change(change, written(device, after, created)))
}

/// Writes the row of a device that may be new, within the app's quota.
fn registered(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    version: Version,
    before: Option<&Profile>,
    after: &Profile,
) -> Result<Change, Refusal> {
    let change = context.change(scope_of(app));
    let change = with_device(change, device, version, before, after);
    let quotas = apps::app(context, app)?.map(|app| app.quotas);
    let most = quotas.map(|quotas| quotas.devices).filter(|most| *most > 0);
    Ok(match most {
        Some(most) => change.at_most(Table::Device, most),
        None => change,
    })
}

fn written(device: &str, profile: Profile, created: bool) -> Written {
    let id = device.into();
    Written {
        device: Device { id, profile },
        created,
    }
}

/// Changes a registered device.
pub fn patch(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    patch: &Patch,
) -> Result<Planned<Device>, Refusal> {
    let (before, version) = read(context, app, device)?;
    let before = before.ok_or_else(|| missing(device))?;
    let after = before.apply(patch, context.now_ms)?;
    let answer = Device {
        id: device.into(),
        profile: after.clone(),
    };
    if after == before {
        return Ok(Planned::nothing(answer));
    }
    let change = context.change(scope_of(app));
    let change = with_device(change, device, version, Some(&before), &after);
    Ok(Planned::change(change, answer))
}

/// Forgets what is known of a device, and its token. It may be pushed to by name as before, and connect if it can prove who it is without.
pub fn delete(context: &Context<'_>, app: &AppName, device: &str) -> Result<Planned<()>, Refusal> {
    let (profile, version) = read(context, app, device)?;
    let token = tokens::version(context, app, device)?;
    if profile.is_none() && token == Version::ABSENT {
        return Err(missing(device));
    }
    let mut change = context
        .change(scope_of(app))
        .expect(row_of(device), version)
        .remove(row_of(device))
        .expect(tokens::row(device), token)
        .remove(tokens::row(device));
    if profile.is_some() {
        change = change.tell(Draft::new(Some(&device.into()), None, &What::DeviceDeleted));
    }
    change = enrolled(change, device, profile.as_ref(), None);
    if let Some(user) = profile.as_ref().and_then(Profile::user) {
        change = change.remove(Key::pair(Table::UserDevice, user, device));
    }
    Ok(Planned::change(change, ()))
}

/// Devices from the first after `after`, 1..=[`MAX_PAGE`] of them; only those that match now, if there is a filter.
pub fn list(
    context: &Context<'_>,
    app: &AppName,
    filter: Option<&Expression>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, Unavailable> {
    let mut devices = Vec::new();
    let mut last: Option<Arc<str>> = after.map(Arc::from);
    let mut scanned = 0;
    loop {
        let wanted = match filter {
            Some(_) => MAX_SCAN - scanned,
            None => limit - devices.len(),
        };
        let range = Range {
            scope: scope_of(app),
            table: Table::Device,
            prefix: String::new(),
            after: last.as_deref().map(str::to_owned),
            limit: wanted,
        };
        let (rows, mut more) = context.reader.rows(&range, context.now_ms)?;
        scanned += rows.len();
        let mut rows = rows.into_iter();
        while devices.len() < limit
            && let Some(row) = rows.next()
        {
            let device = device_of(row)?;
            last = Some(Arc::clone(&device.id));
            if filter.is_none_or(|filter| filter.matches(device.profile.present())) {
                devices.push(device);
            }
        }
        more |= rows.next().is_some();
        if !more || devices.len() >= limit || scanned >= MAX_SCAN {
            let next = last.filter(|_| more);
            return Ok(Page { devices, next });
        }
    }
}

/// Names of a user's devices, from the first after `after`, and whether there are more.
pub fn names_of_user(
    context: &Context<'_>,
    app: &AppName,
    user: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Arc<str>>, bool), Unavailable> {
    let prefix = format!("{user}{SEPARATOR}");
    let range = Range {
        scope: scope_of(app),
        table: Table::UserDevice,
        after: after.map(|after| format!("{prefix}{after}")),
        prefix,
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let name = |row: &Row| row.name[range.prefix.len()..].into();
    Ok((rows.iter().map(name).collect(), more))
}

/// A user's devices, from the first after `after`.
pub fn of_user(
    context: &Context<'_>,
    app: &AppName,
    user: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, Refusal> {
    check_user(user)?;
    let (names, more) = names_of_user(context, app, user, after, limit)?;
    let keys: Vec<Key> = names.iter().map(|name| row_of(name)).collect();
    let rows = context
        .reader
        .rows_at(&scope_of(app), &keys, context.now_ms)?;
    let next = names.into_iter().next_back().filter(|_| more);
    // One that was removed between the two reads is left out.
    let devices = rows.into_iter().flatten().map(device_of);
    Ok(Page {
        devices: devices.collect::<Result<_, _>>()?,
        next,
    })
}

/// Binds a registered device to a user, whoever had it before.
pub fn bind(
    context: &Context<'_>,
    app: &AppName,
    user: &str,
    device: &str,
) -> Result<Planned<Device>, Refusal> {
    let bound = Patch::bind(Some(user)).map_err(|bad| invalid("", bad.to_string()))?;
    patch(context, app, device, &bound)
}

/// Unbinds a device from a user that has it.
pub fn unbind(
    context: &Context<'_>,
    app: &AppName,
    user: &str,
    device: &str,
) -> Result<Planned<Device>, Refusal> {
    check_user(user)?;
    let found = get(context, app, device)?;
    if found.profile.user() != Some(user) {
        return Err(Refusal::Missing {
            what: "device of that user",
            name: device.to_owned(),
        });
    }
    let unbound = Patch::bind(None).map_err(|bad| invalid("", bad.to_string()))?;
    patch(context, app, device, &unbound)
}

fn check_user(user: &str) -> Result<(), Invalid> {
    let check = names::USER.check(user);
    check.map_err(|bad| invalid("", bad.to_string()))
}

#[cfg(test)]
mod tests;
