//! How many devices a push would be for, and where they are: counted if they are few, estimated from some of them otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roaring::RoaringBitmap;

use super::{Context, cohorts::candidates};
use crate::{
    app::AppName,
    clock::Zone,
    device::{Fact, Glance, Profile, Value},
    hash,
    rows::{Key, Range, Row, Scope, Table},
    store::{Audience, Unavailable},
    targeting::Targeting,
};

/// Devices that one survey looks at: a tenth of a second of a store's time.
pub const MAX_LOOKED_AT: usize = 20_000;
/// Candidates that are told apart by what they are in; more are drawn from all devices instead.
const MAX_CANDIDATES: u64 = 100_000;
/// Devices that are read at a time.
const PAGE: usize = 1000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Devices that it would be for.
    pub targeted: u64,
    /// The truth is within so many of that, 95 times in 100; `None`: it was counted.
    pub margin: Option<u64>,
    /// Devices that were looked at.
    pub looked_at: u64,
    /// How many of those that it would be for are in which zone; `None`: in none that is known. Only if it was asked for.
    pub zones: Vec<(Option<Zone>, u64)>,
}

/// Counts whom a push to an audience, within a targeting, would be for. `draw` says which are looked at where not all are.
pub fn survey(
    context: &Context<'_>,
    app: &AppName,
    audience: &Audience,
    targeting: &Targeting,
    with_zones: bool,
    draw: u64,
) -> Result<Survey, Unavailable> {
    let expressions = targeting.expression.iter();
    let facts = expressions.flat_map(|expression| expression.facts());
    let look = Look {
        context,
        app,
        targeting,
        glance: Glance::at(facts.chain([&Fact::TimeZone])),
        draw,
    };
    let mut survey = match audience {
        Audience::Devices(names) => look.at_names(names, with_zones)?,
        Audience::All => look.at_sessions(with_zones)?,
        Audience::Matching(_) => look.at_matching()?.survey(),
    };
    if !with_zones {
        survey.zones.clear();
    }
    Ok(survey)
}

struct Look<'a> {
    context: &'a Context<'a>,
    app: &'a AppName,
    targeting: &'a Targeting,
    glance: Glance,
    draw: u64,
}

/// What was seen of some devices.
#[derive(Debug, Default)]
struct Seen {
    looked_at: u64,
    matched: u64,
    /// Of the matched. The empty name: none.
    zones: BTreeMap<Arc<str>, u64>,
    /// The devices that they are drawn from; `None`: all were looked at.
    drawn_from: Option<u64>,
}

impl Look<'_> {
    fn scope(&self) -> Scope {
        Scope::App(self.app.clone())
    }

    /// Named devices are meant whether they are known or not.
    fn at_names(&self, names: &[Arc<str>], with_zones: bool) -> Result<Survey, Unavailable> {
        let targeted = names.len() as u64;
        let mut seen = Seen::default();
        if with_zones {
            let keys: Vec<Key> = names
                .iter()
                .map(|name| Key::new(Table::Device, &**name))
                // Longer names are none of registered devices.
                .filter(|key| key.name.len() <= crate::rows::MAX_NAME_BYTES)
                .collect();
            let now_ms = self.context.now_ms;
            let rows = self.context.reader.rows_at(&self.scope(), &keys, now_ms)?;
            for row in rows.iter().flatten() {
                let profile = self.profile(row)?;
                seen.count(&profile);
            }
        }
        seen.add_without_zone(targeted);
        Ok(Survey {
            looked_at: targeted,
            ..seen.survey()
        })
    }

    /// A push to all is for those with a session. Where they are is taken from devices that are registered.
    fn at_sessions(&self, with_zones: bool) -> Result<Survey, Unavailable> {
        let sessions = self.context.reader.sessions(self.app)?;
        let mut seen = match with_zones {
            true => self.at_matching()?,
            false => Seen::default(),
        };
        let registered = seen.drawn_from.unwrap_or(seen.looked_at).min(sessions);
        seen.scale(registered);
        seen.add_without_zone(sessions);
        seen.drawn_from = None;
        Ok(seen.survey())
    }

    fn at_matching(&self) -> Result<Seen, Unavailable> {
        let reader = self.context.reader;
        let found = candidates(reader, self.app, self.targeting, MAX_CANDIDATES)?;
        let Some(candidates) = found else {
            return self.at_registered();
        };
        if candidates.len() <= MAX_LOOKED_AT as u64 {
            return self.at_numbers(candidates.iter());
        }
        let drawn = self.drawn(&candidates);
        Ok(Seen {
            drawn_from: Some(candidates.len()),
            // Also at those that are registered no more.
            looked_at: drawn.len(),
            ..self.at_numbers(drawn.into_iter())?
        })
    }

    /// All registered devices, or some that are drawn by lot.
    fn at_registered(&self) -> Result<Seen, Unavailable> {
        let reader = self.context.reader;
        let registered = reader.count_rows(&self.scope(), Table::Device)?;
        if registered <= MAX_LOOKED_AT as u64 {
            return self.at_rows();
        }
        let end = u64::from(reader.numbers_end(self.app)?);
        let numbers: BTreeSet<u32> = self.lots(end).map(|number| number as u32).collect();
        Ok(Seen {
            drawn_from: Some(registered),
            ..self.at_numbers(numbers.into_iter())?
        })
    }

    fn at_rows(&self) -> Result<Seen, Unavailable> {
        let mut seen = Seen::default();
        let mut after = None;
        loop {
            let range = Range {
                scope: self.scope(),
                table: Table::Device,
                prefix: String::new(),
                after,
                limit: PAGE,
            };
            let (rows, more) = self.context.reader.rows(&range, self.context.now_ms)?;
            for row in &rows {
                // An audience with a list of numbers has candidates.
                self.judge(row, u32::MAX, &mut seen)?;
            }
            after = rows.last().map(|row| row.name.clone());
            // Others may be registered meanwhile, without end.
            if !more || after.is_none() || seen.looked_at >= 2 * MAX_LOOKED_AT as u64 {
                return Ok(seen);
            }
        }
    }

    fn at_numbers(&self, mut numbers: impl Iterator<Item = u32>) -> Result<Seen, Unavailable> {
        let mut seen = Seen::default();
        loop {
            let page: Vec<u32> = numbers.by_ref().take(PAGE).collect();
            if page.is_empty() {
                return Ok(seen);
            }
            let rows = self.context.reader.devices_numbered(self.app, &page)?;
            for (row, number) in rows.iter().zip(page) {
                if let Some(row) = row {
                    self.judge(row, number, &mut seen)?;
                }
            }
        }
    }

    fn judge(&self, row: &Row, number: u32, seen: &mut Seen) -> Result<(), Unavailable> {
        let profile = self.profile(row)?;
        seen.looked_at += 1;
        if self.targeting.meant(&row.name, number, &profile) {
            seen.count(&profile);
        }
        Ok(())
    }

    fn profile(&self, row: &Row) -> Result<Profile, Unavailable> {
        let profile = self.glance.profile(&row.value);
        profile.map_err(|damaged| Unavailable(damaged.to_string().into()))
    }

    /// Some of the candidates.
    fn drawn(&self, candidates: &RoaringBitmap) -> RoaringBitmap {
        let ranks = self.lots(candidates.len());
        ranks
            .filter_map(|rank| candidates.select(rank as u32))
            .collect()
    }

    /// Numbers below `end`, drawn by lot.
    fn lots(&self, end: u64) -> impl Iterator<Item = u64> {
        let draw = self.draw;
        (0..MAX_LOOKED_AT as u64).map(move |turn| {
            let lot = hash::lot(draw, turn);
            ((u128::from(lot) * u128::from(end)) >> 64) as u64
        })
    }
}

impl Seen {
    fn count(&mut self, profile: &Profile) {
        self.matched += 1;
        let zone = match profile.fact(&Fact::TimeZone).map(|held| &held.value) {
            Some(Value::Text(zone)) => zone.clone(),
            _ => "".into(),
        };
        *self.zones.entry(zone).or_default() += 1;
    }

    /// As many as that matched, the rest in no zone that is known.
    fn add_without_zone(&mut self, matched: u64) {
        let rest = matched.saturating_sub(self.zones.values().sum());
        *self.zones.entry("".into()).or_default() += rest;
        self.matched = matched;
    }

    /// Of each zone so many that they are `matched` together.
    fn scale(&mut self, matched: u64) {
        let before = self.matched.max(1);
        for devices in self.zones.values_mut() {
            let share = u128::from(*devices) * u128::from(matched) / u128::from(before);
            *devices = share as u64;
        }
        self.matched = matched;
    }

    fn survey(mut self) -> Survey {
        let looked_at = self.looked_at;
        let mut margin = None;
        if let Some(all) = self.drawn_from {
            let share = self.matched as f64 / looked_at.max(1) as f64;
            margin = Some(margin_of(share, looked_at, all));
            self.scale((share * all as f64).round() as u64);
        }
        let zone = |(name, devices): (Arc<str>, u64)| (Zone::find(&name).ok(), devices);
        Survey {
            targeted: self.matched,
            margin,
            looked_at,
            zones: self.zones.into_iter().map(zone).collect(),
        }
    }
}

/// Twice the standard error of a share among so many of all; of none or all that were looked at, three devices' worth.
fn margin_of(share: f64, looked_at: u64, all: u64) -> u64 {
    let looked_at = looked_at.max(1) as f64;
    let error = 2.0 * (share * (1.0 - share) / looked_at).sqrt();
    (error.max(3.0 / looked_at) * all as f64).ceil() as u64
}

#[cfg(test)]
mod tests;
