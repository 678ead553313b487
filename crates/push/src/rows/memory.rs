//! Rows in memory: what a store does, without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use roaring::RoaringBitmap;

use super::{Change, Key, Range, Row, Scope, Table, Version, Write};
use crate::{
    app::AppName,
    event::Draft,
    explanation::AtDevice,
    id::PushId,
    receipt::Mark,
    series::Series,
    store::{
        Away, EventPage, Idempotency, Listed, Outcome, Past, Reader, Report, Stored, Unavailable,
    },
};

/// Rows that are gone with the process. For tests of whatever works on rows.
#[derive(Debug, Default)]
pub struct MemoryRows {
    rows: BTreeMap<(Scope, Table, String), Kept>,
    last_version: u64,
    /// What was told, of all apps.
    told: Vec<Draft>,
    /// Name of a cohort, and a device that is in it.
    cohorts: BTreeSet<(Scope, String, String)>,
    /// The numbers of devices that are, or were, registered.
    numbers: BTreeMap<(Scope, String), u32>,
    /// The same by number.
    numbered: Vec<(Scope, String)>,
}

#[derive(Debug)]
struct Kept {
    row: Row,
    expires_ms: Option<u64>,
}

impl Kept {
    fn is_there(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|at| at > now_ms)
    }
}

impl MemoryRows {
    /// Carries a change out, or finds a conflict.
    pub fn change(&mut self, change: &Change) -> Outcome {
        let is_as_expected = change.expect.iter().all(|(key, version)| {
            let found = self.row(&change.scope, key, change.now_ms);
            found.map_or(Version::ABSENT, |row| row.version) == *version
        });
        if !is_as_expected {
            return Outcome::Conflict;
        }
        for (table, bound) in &change.bounds {
            let is_there = |write: &Write| self.row(&change.scope, &write.key, 0).is_some();
            let of_table = change
                .writes
                .iter()
                .filter(|write| write.key.table == *table);
            let (mut added, mut removed) = (0, 0);
            for write in of_table {
                match (&write.value, is_there(write)) {
                    (Some(_), false) => added += 1,
                    (None, true) => removed += 1,
                    _ => {}
                }
            }
            if added > removed && self.count(&change.scope, *table) + added - removed > *bound {
                return Outcome::Full { table: *table };
            }
        }
        self.last_version += 1;
        let version = Version(self.last_version);
        for write in &change.writes {
            self.write(&change.scope, write, version);
        }
        self.told.extend(change.events.iter().cloned());
        for enrolment in &change.cohorts {
            let entry = (
                change.scope.clone(),
                enrolment.cohort.clone(),
                enrolment.device.clone(),
            );
            match enrolment.is_in {
                true => drop(self.cohorts.insert(entry)),
                false => drop(self.cohorts.remove(&entry)),
            }
        }
        Outcome::Changed { version }
    }

    fn write(&mut self, scope: &Scope, write: &Write, version: Version) {
        let Key { table, name } = write.key.clone();
        let at = (scope.clone(), table, name.clone());
        match write.value.clone() {
            None => drop(self.rows.remove(&at)),
            Some(value) => {
                let row = Row {
                    name,
                    version,
                    value,
                };
                if table == Table::Device {
                    let device = (scope.clone(), at.2.clone());
                    if !self.numbers.contains_key(&device) {
                        let next = self.numbers_end();
                        self.numbers.insert(device.clone(), next);
                        self.numbered.push(device);
                    }
                }
                let expires_ms = write.expires_ms;
                self.rows.insert(at, Kept { row, expires_ms });
            }
        }
    }

    /// What was told since the last call.
    pub fn take_told(&mut self) -> Vec<Draft> {
        std::mem::take(&mut self.told)
    }

    /// A row, if it is there.
    pub fn row(&self, scope: &Scope, key: &Key, now_ms: u64) -> Option<Row> {
        let kept = self
            .rows
            .get(&(scope.clone(), key.table, key.name.clone()))?;
        kept.is_there(now_ms).then(|| kept.row.clone())
    }

    /// How many rows a table has.
    pub fn count(&self, scope: &Scope, table: Table) -> u64 {
        let kept = self.rows.keys();
        kept.filter(|(of, at, _)| of == scope && *at == table)
            .count() as u64
    }

    /// The number of a registered device.
    pub fn number(&self, scope: &Scope, device: &str) -> Option<u32> {
        let row = (scope.clone(), Table::Device, device.to_owned());
        let number = self.numbers.get(&(scope.clone(), device.to_owned()))?;
        self.rows.contains_key(&row).then_some(*number)
    }

    /// The row of the registered device with a number.
    pub fn numbered(&self, scope: &Scope, number: u32) -> Option<Row> {
        let (of, device) = self.numbered.get(number as usize)?;
        let key = Key::new(Table::Device, device);
        self.row(scope, &key, 0).filter(|_| of == scope)
    }

    /// The numbers of the registered devices in a cohort.
    pub fn cohort(&self, scope: &Scope, cohort: &str) -> RoaringBitmap {
        let cohorts = self.cohorts.iter();
        cohorts
            .filter(|(of, found, _)| of == scope && found == cohort)
            .filter_map(|(_, _, device)| self.number(scope, device))
            .collect()
    }

    /// All numbers are below this one.
    pub fn numbers_end(&self) -> u32 {
        self.numbered.len() as u32
    }

    /// Rows of a range, and whether there are more.
    pub fn rows(&self, range: &Range, now_ms: u64) -> (Vec<Row>, bool) {
        let first = (range.scope.clone(), range.table, range.prefix.clone());
        let mut found: Vec<Row> = self
            .rows
            .range(first..)
            .take_while(|((scope, table, name), _)| {
                *scope == range.scope && *table == range.table && name.starts_with(&range.prefix)
            })
            .filter(|((_, _, name), kept)| {
                kept.is_there(now_ms) && range.after.as_ref().is_none_or(|after| name > after)
            })
            .map(|(_, kept)| kept.row.clone())
            .take(range.limit.saturating_add(1))
            .collect();
        let more = found.len() > range.limit;
        found.truncate(range.limit);
        (found, more)
    }
}

/// Only rows and cohorts: there are no pushes, and no event log. Devices are numbered in the order in which they were first registered, those of all apps together.
impl Reader for Mutex<MemoryRows> {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let rows = locked(self);
        let row = |key| rows.row(scope, key, now_ms);
        Ok(keys.iter().map(row).collect())
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        Ok(locked(self).rows(range, now_ms))
    }

    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable> {
        Ok(locked(self).count(scope, table))
    }

    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        let (rows, scope) = (locked(self), Scope::App(app.clone()));
        let number = |device: &Arc<str>| rows.number(&scope, device);
        Ok(devices.iter().map(number).collect())
    }

    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable> {
        let numbers = locked(self).cohort(&Scope::App(app.clone()), cohort);
        Ok(Some(numbers).filter(|numbers| numbers.len() <= most))
    }

    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let (rows, scope) = (locked(self), Scope::App(app.clone()));
        let row = |number: &u32| rows.numbered(&scope, *number);
        Ok(numbers.iter().map(row).collect())
    }

    fn sessions(&self, _: &AppName) -> Result<u64, Unavailable> {
        Ok(0)
    }

    fn numbers_end(&self, _: &AppName) -> Result<u32, Unavailable> {
        Ok(locked(self).numbers_end())
    }

    fn answered(
        &self,
        _: &AppName,
        _: &Idempotency,
        _: u64,
    ) -> Result<Option<Outcome>, Unavailable> {
        Ok(None)
    }

    fn stored(&self, _: &AppName) -> Result<Stored, Unavailable> {
        Ok(Stored::default())
    }

    fn marked(&self, _: &AppName, _: PushId, _: Mark) -> Result<RoaringBitmap, Unavailable> {
        Ok(RoaringBitmap::new())
    }

    fn at_device(&self, _: &AppName, _: PushId, _: &str) -> Result<AtDevice, Unavailable> {
        Ok(AtDevice::default())
    }

    fn away(&self, _: &AppName, _: &str, _: u64) -> Result<Option<Away>, Unavailable> {
        Ok(None)
    }

    fn report(&self, _: &AppName, _: PushId, _: u64) -> Result<Option<Report>, Unavailable> {
        Ok(None)
    }

    fn events(&self, _: &AppName, _: u64, _: usize) -> Result<EventPage, Unavailable> {
        Ok(EventPage::default())
    }

    fn past(
        &self,
        _: &AppName,
        _: Option<&str>,
        _: Option<u64>,
        _: usize,
    ) -> Result<Past, Unavailable> {
        Ok(Past::default())
    }

    fn series(&self, _: &AppName, _: PushId) -> Result<Series, Unavailable> {
        Ok(Series::default())
    }

    fn pushes(
        &self,
        _: &AppName,
        _: Option<PushId>,
        _: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable> {
        Ok((Vec::new(), false))
    }
}

fn locked(rows: &Mutex<MemoryRows>) -> MutexGuard<'_, MemoryRows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_happens_if_the_rows_are_what_was_read() {
        let mut rows = MemoryRows::default();
        let key = || Key::new(Table::Segment, "s");
        let write = |version, value: &'static str| {
            Change::new(Scope::System, 1)
                .expect(key(), version)
                .put(key(), value)
        };
        let Outcome::Changed { version } = rows.change(&write(Version::ABSENT, "one")) else {
            panic!("nothing stood in the way");
        };
        assert_eq!(
            rows.change(&write(Version::ABSENT, "two")),
            Outcome::Conflict
        );
        assert_ne!(rows.change(&write(version, "three")), Outcome::Conflict);
        let row = rows.row(&Scope::System, &key(), 1).expect("written");
        assert_eq!(&row.value[..], b"three");
    }

    #[test]
    fn ranges_are_of_one_table_and_in_order() {
        let mut rows = MemoryRows::default();
        let change = ["b", "a2", "a1", "c"]
            .into_iter()
            .fold(Change::new(Scope::System, 1), |change, name| {
                change.put(Key::new(Table::Segment, name), name)
            })
            .put(Key::new(Table::Upload, "a3"), "")
            .put_until(Key::new(Table::Segment, "a0"), "", 5);
        rows.change(&change);
        let names = |prefix: &str, after: Option<&str>, limit| {
            let range = Range {
                scope: Scope::System,
                table: Table::Segment,
                prefix: prefix.into(),
                after: after.map(Into::into),
                limit,
            };
            let (rows, more) = rows.rows(&range, 5);
            let names: Vec<String> = rows.into_iter().map(|row| row.name).collect();
            (names.join(" "), more)
        };
        assert_eq!(names("", None, 9), ("a1 a2 b c".into(), false));
        assert_eq!(names("", Some("a1"), 2), ("a2 b".into(), true));
        assert_eq!(names("a", None, 2), ("a1 a2".into(), false));
        assert_eq!(names("a", Some("a2"), 2), (String::new(), false));
    }
}
