//! Counting whom a push to an audience is for: after it was accepted, over all registered devices, a page at a time.
//!
//! The push is accepted without knowing; a row of [`Table::Count`] says that it is to be counted, written before it, so that a node that dies meanwhile
//! leaves the work to another. Counting twice is harmless. Devices that are not registered, of which nothing is known, count when they get the push.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::decode_profile;
use crate::{
    app::AppName,
    id::PushId,
    rows::{Change, Key, Range, Row, Scope, Table},
    store::{Command, Reader, Target, Unavailable},
    targeting::Targeting,
};

/// Devices that are looked at between two looks for other work.
pub const PAGE: usize = 1000;
/// Pushes of an app that are counted in one go.
pub const AT_ONCE: usize = 64;
/// How long the row waits for somebody to count: as long as the longest push lives.
const KEPT_MS: u64 = 28 * 24 * 60 * 60 * 1000;

/// Says that a push is to be counted. To be written no later than the push is accepted.
pub fn ordered(
    app: &AppName,
    push: PushId,
    targeting: impl Into<bytes::Bytes>,
    now_ms: u64,
) -> Change {
    let key = Key::new(Table::Count, push.to_string());
    Change::new(Scope::App(app.clone()), now_ms).put_until(key, targeting, now_ms + KEPT_MS)
}

/// Pushes of an app that are still to be counted, at most [`AT_ONCE`].
pub fn due(
    reader: &dyn Reader,
    app: &AppName,
    now_ms: u64,
) -> Result<Vec<(PushId, Targeting)>, Unavailable> {
    let range = Range {
        scope: Scope::App(app.clone()),
        table: Table::Count,
        prefix: String::new(),
        after: None,
        limit: AT_ONCE,
    };
    let (rows, _) = reader.rows(&range, now_ms)?;
    rows.into_iter()
        .filter_map(|row| due_row(&row).transpose())
        .collect()
}

fn due_row(row: &Row) -> Result<Option<(PushId, Targeting)>, Unavailable> {
    let Ok(id) = row.name.parse() else {
        return Ok(None);
    };
    let targeting =
        Targeting::decode(&row.value).map_err(|damaged| Unavailable(damaged.to_string().into()))?;
    Ok(Some((id, targeting)))
}

/// A count under way.
#[derive(Debug)]
pub struct Count {
    app: AppName,
    pushes: Vec<(PushId, Targeting, RoaringBitmap)>,
    after: Option<String>,
    is_complete: bool,
}

impl Count {
    /// A count of these pushes that has not begun.
    pub fn new(app: AppName, pushes: Vec<(PushId, Targeting)>) -> Count {
        let nobody = |(id, targeting)| (id, targeting, RoaringBitmap::new());
        Count {
            app,
            pushes: pushes.into_iter().map(nobody).collect(),
            after: None,
            is_complete: false,
        }
    }

    /// Looks at the next devices. Returns whether all were seen.
    pub fn go_on(&mut self, reader: &dyn Reader, now_ms: u64) -> Result<bool, Unavailable> {
        let range = Range {
            scope: Scope::App(self.app.clone()),
            table: Table::Device,
            prefix: String::new(),
            after: self.after.clone(),
            limit: PAGE,
        };
        let (rows, more) = reader.rows(&range, now_ms)?;
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str().into()).collect();
        let numbers = reader.device_numbers(&self.app, &names)?;
        for (row, number) in rows.iter().zip(numbers) {
            // Removed between the two reads: it is no device any more.
            let Some(number) = number else { continue };
            let profile = decode_profile(&row.value)?;
            for (_, targeting, meant) in &mut self.pushes {
                if targeting.meant(&row.name, number, &profile) {
                    meant.insert(number);
                }
            }
        }
        self.after = rows
            .last()
            .map(|row| row.name.clone())
            .or(self.after.take());
        self.is_complete = !more;
        Ok(self.is_complete)
    }

    /// What is to be written once all were seen, in this order.
    pub fn commands(self, now_ms: u64) -> Vec<Command> {
        debug_assert!(self.is_complete, "a count is written when all were seen");
        let mut commands = Vec::new();
        for (push, _, meant) in &self.pushes {
            let mut chunks: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
            for number in meant {
                let chunk = chunks.entry((number >> 16) as u16).or_default();
                chunk.push(number as u16);
            }
            for (chunk, numbers) in chunks {
                commands.push(Command::Target(Target::of(
                    &self.app, *push, chunk, numbers,
                )));
            }
            commands.push(Command::Counted {
                app: self.app.clone(),
                push: *push,
            });
        }
        let done = self.pushes.iter().map(|(push, ..)| *push);
        commands.push(no_longer_ordered(&self.app, done, now_ms));
        commands
    }
}

/// Takes back orders to count pushes that were never accepted.
pub fn forget(
    app: &AppName,
    pushes: impl IntoIterator<Item = (PushId, Targeting)>,
    now_ms: u64,
) -> Command {
    no_longer_ordered(app, pushes.into_iter().map(|(push, _)| push), now_ms)
}

fn no_longer_ordered(app: &AppName, pushes: impl Iterator<Item = PushId>, now_ms: u64) -> Command {
    let change = Change::new(Scope::App(app.clone()), now_ms);
    let change = pushes.fold(change, |change, push| {
        change.remove(Key::new(Table::Count, push.to_string()))
    });
    Command::Change(Box::new(change))
}
