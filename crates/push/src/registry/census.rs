//! Counting whom a push to an audience is for: after it was accepted, over the devices that it may be for, a page at a time.
//!
//! The push is accepted without knowing; a row of [`Table::Count`] says that it is to be counted, written before it, so that a node that dies meanwhile
//! leaves the work to another. Counting twice is harmless. Devices that are not registered, of which nothing is known, count when they get the push.

use std::{collections::BTreeMap, sync::Arc};

use roaring::RoaringBitmap;

use super::cohorts::candidates;
use crate::{
    app::AppName,
    device::{Glance, Profile},
    id::PushId,
    rows::{Change, Key, Range, Row, Scope, Table},
    store::{Command, Reader, Target, Unavailable},
    targeting::Targeting,
};

/// Devices that are looked at between two looks for other work.
pub const PAGE: usize = 1000;
/// A device that is looked for costs as much as so many that are looked at in their order: of a more popular cohort, all are.
const WORTH_IT: u64 = 8;
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
///
/// Whom cohorts, a list or names find is looked at one by one; for the other pushes, all registered devices are.
#[derive(Debug)]
pub struct Count {
    app: AppName,
    pushes: Vec<Counted>,
    glance: Glance,
    stage: Stage,
}

#[derive(Debug)]
struct Counted {
    push: PushId,
    targeting: Targeting,
    meant: RoaringBitmap,
    /// Only some devices can be meant, and those are known.
    is_selective: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was looked at.
    Begin,
    /// Of the candidates of selective pushes these are left.
    Candidates(RoaringBitmap),
    /// All devices are looked at, from the first after this one.
    All(Option<String>),
    /// All were seen.
    End,
}

impl Count {
    /// A count of these pushes that has not begun.
    pub fn new(app: AppName, pushes: Vec<(PushId, Targeting)>) -> Count {
        let expressions = pushes.iter().filter_map(|(_, of)| of.expression.as_ref());
        let glance = Glance::at(expressions.flat_map(|expression| expression.facts()));
        let nobody = |(push, targeting)| Counted {
            push,
            targeting,
            meant: RoaringBitmap::new(),
            is_selective: false,
        };
        Count {
            app,
            pushes: pushes.into_iter().map(nobody).collect(),
            glance,
            stage: Stage::Begin,
        }
    }

    /// Looks at the next devices. Returns whether all were seen.
    pub fn go_on(&mut self, reader: &dyn Reader, now_ms: u64) -> Result<bool, Unavailable> {
        self.stage = match &mut self.stage {
            Stage::Begin => self.begin(reader)?,
            Stage::Candidates(left) => {
                let page = left.iter().take(PAGE).collect::<Vec<u32>>();
                match page.last() {
                    Some(last) => {
                        left.remove_range(..=*last);
                        let left = std::mem::take(left);
                        self.look_at_candidates(reader, &page)?;
                        Stage::Candidates(left)
                    }
                    None if self.pushes.iter().all(|of| of.is_selective) => Stage::End,
                    None => Stage::All(None),
                }
            }
            Stage::All(after) => {
                let after = after.take();
                self.look_at_all(reader, after, now_ms)?
            }
            Stage::End => Stage::End,
        };
        Ok(matches!(self.stage, Stage::End))
    }

    /// Finds out which pushes are selective.
    fn begin(&mut self, reader: &dyn Reader) -> Result<Stage, Unavailable> {
        let registered = reader.count_rows(&Scope::App(self.app.clone()), Table::Device)?;
        let most = (registered / WORTH_IT).max(PAGE as u64);
        let mut all = RoaringBitmap::new();
        for of in &mut self.pushes {
            let found = candidates(reader, &self.app, &of.targeting, most)?;
            of.is_selective = found.is_some();
            all |= found.unwrap_or_default();
        }
        Ok(Stage::Candidates(all))
    }

    fn look_at_candidates(
        &mut self,
        reader: &dyn Reader,
        numbers: &[u32],
    ) -> Result<(), Unavailable> {
        let rows = reader.devices_numbered(&self.app, numbers)?;
        for (row, number) in rows.iter().zip(numbers) {
            // Not registered any more.
            let Some(row) = row else { continue };
            let profile = glimpse(&self.glance, row)?;
            for of in self.pushes.iter_mut().filter(|of| of.is_selective) {
                if of.targeting.meant(&row.name, *number, &profile) {
                    of.meant.insert(*number);
                }
            }
        }
        Ok(())
    }

    fn look_at_all(
        &mut self,
        reader: &dyn Reader,
        after: Option<String>,
        now_ms: u64,
    ) -> Result<Stage, Unavailable> {
        let range = Range {
            scope: Scope::App(self.app.clone()),
            table: Table::Device,
            prefix: String::new(),
            after,
            limit: PAGE,
        };
        let (rows, more) = reader.rows(&range, now_ms)?;
        let mut meant: Vec<(Arc<str>, Vec<usize>)> = Vec::new();
        for row in &rows {
            let profile = glimpse(&self.glance, row)?;
            let pushes = self.pushes.iter().enumerate();
            let of_device: Vec<usize> = pushes
                .filter(|(_, of)| !of.is_selective)
                // One with a list of numbers is selective.
                .filter(|(_, of)| of.targeting.meant(&row.name, u32::MAX, &profile))
                .map(|(index, _)| index)
                .collect();
            if !of_device.is_empty() {
                meant.push((row.name.as_str().into(), of_device));
            }
        }
        let names: Vec<Arc<str>> = meant.iter().map(|(name, _)| name.clone()).collect();
        let numbers = reader.device_numbers(&self.app, &names)?;
        for ((_, pushes), number) in meant.iter().zip(numbers) {
            // Removed between the two reads: it is no device any more.
            let Some(number) = number else { continue };
            for index in pushes {
                self.pushes[*index].meant.insert(number);
            }
        }
        let last = rows.last().map(|row| row.name.clone());
        Ok(match last.filter(|_| more) {
            Some(last) => Stage::All(Some(last)),
            None => Stage::End,
        })
    }

    /// What is to be written once all were seen, in this order.
    pub fn commands(self, now_ms: u64) -> Vec<Command> {
        debug_assert!(
            matches!(self.stage, Stage::End),
            "a count is written when all were seen"
        );
        let mut commands = Vec::new();
        for of in &self.pushes {
            let mut chunks: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
            for number in &of.meant {
                let chunk = chunks.entry((number >> 16) as u16).or_default();
                chunk.push(number as u16);
            }
            for (chunk, numbers) in chunks {
                let target = Target::of(&self.app, of.push, chunk, numbers);
                commands.push(Command::Target(target));
            }
            commands.push(Command::Counted {
                app: self.app.clone(),
                push: of.push,
            });
        }
        let done = self.pushes.iter().map(|of| of.push);
        commands.push(no_longer_ordered(&self.app, done, now_ms));
        commands
    }
}

/// What a count looks at of a device.
fn glimpse(glance: &Glance, row: &Row) -> Result<Profile, Unavailable> {
    let profile = glance.profile(&row.value);
    profile.map_err(|damaged| Unavailable(damaged.to_string().into()))
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

#[cfg(test)]
pub(super) mod tests;
