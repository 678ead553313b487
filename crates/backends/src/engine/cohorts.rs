//! Cohorts of registered devices: sets of their numbers, and whose a number is.
//!
//! A set is kept in parts of [`IN_PART`] numbers, small enough to be written anew for each device that comes or goes. Devices that are registered together have
//! numbers side by side, so that the parts that one commit writes are few.

use std::ops::ControlFlow;

use campanile_broker::{
    ids::{AppId, ClientKey},
    store::StoreError,
};
use campanile_push::{
    app::AppName,
    rows::{Enrolment, Row, Scope},
};
use roaring::RoaringBitmap;

use super::{
    keys::{Subject, Table},
    kv::{KvError, Value, View},
    records::damaged,
    rows::row_of_device,
    txn::Txn,
};

/// Numbers of a part.
const IN_PART: u32 = 2048;
/// Bytes of a part as a bitmap; a list of as many bytes or more is none.
const BITMAP_BYTES: usize = IN_PART as usize / 8;

impl Txn<'_> {
    /// Has devices leave cohorts before the rows are written, while they still have their numbers, or join them after that, when they have.
    pub fn set_cohorts(
        &mut self,
        scope: &Scope,
        cohorts: &[Enrolment],
        join: bool,
    ) -> Result<(), StoreError> {
        let Scope::App(app) = scope else {
            return Ok(());
        };
        let app = AppId::new(app.as_str());
        for enrolment in cohorts.iter().filter(|enrolment| enrolment.is_in == join) {
            let client = ClientKey::new(&app, &enrolment.device);
            let subject = Subject::client(&client);
            let Some(device) = self.device(&subject)? else {
                continue;
            };
            if !self.is_registered(&subject)? {
                continue;
            }
            let part = part_key(app.as_str(), &enrolment.cohort, device.ordinal / IN_PART);
            self.set_in_part(part, device.ordinal % IN_PART, join)?;
        }
        Ok(())
    }

    fn set_in_part(&mut self, key: Vec<u8>, number: u32, is_in: bool) -> Result<(), StoreError> {
        let stored = self.get(&key)?;
        let mut part = stored.map_or(Ok(RoaringBitmap::new()), |bytes| decode_part(&bytes, 0))?;
        let changed = match is_in {
            true => part.insert(number),
            false => part.remove(number),
        };
        match changed {
            false => Ok(()),
            true if part.is_empty() => self.remove(key),
            true => self.put(key, encode_part(&part)),
        }
    }

    /// A registered device is found by its number from now on.
    pub fn list_number(&mut self, client: &ClientKey, number: u32) -> Result<(), StoreError> {
        let key = number_key(client.app.as_str(), number);
        let name = client.client_id.as_bytes();
        if self.get(&key)?.is_some_and(|listed| *listed == *name) {
            return Ok(());
        }
        self.put(key, name.into())
    }

    /// A device is not registered any more.
    pub fn unlist_number(&mut self, app: &AppId, number: u32) -> Result<(), StoreError> {
        self.remove_if_there(number_key(app.as_str(), number))
            .map(drop)
    }
}

fn part_key(app: &str, cohort: &str, part: u32) -> Vec<u8> {
    let cohort = Subject::app(app).text(cohort);
    cohort.key_with(Table::Cohort, &part.to_be_bytes())
}

fn number_key(app: &str, number: u32) -> Vec<u8> {
    Subject::app(app).key_with(Table::Number, &number.to_be_bytes())
}

/// Two bytes for each number, or, where that is less, a bit.
fn encode_part(part: &RoaringBitmap) -> Value {
    if part.len() as usize * 2 < BITMAP_BYTES {
        let numbers = part.iter().flat_map(|number| (number as u16).to_be_bytes());
        return numbers.collect::<Vec<u8>>().into();
    }
    let mut bits = vec![0; BITMAP_BYTES];
    for number in part {
        bits[number as usize / 8] |= 1 << (number % 8);
    }
    bits.into()
}

/// The numbers of a part that begins with `first`.
fn decode_part(bytes: &[u8], first: u32) -> Result<RoaringBitmap, KvError> {
    let bad = || damaged("cohort");
    if bytes.len() == BITMAP_BYTES {
        // Parts begin at multiples of eight.
        return Ok(RoaringBitmap::from_lsb0_bytes(first, bytes));
    }
    let (numbers, []) = bytes.as_chunks::<2>() else {
        return Err(bad());
    };
    let numbers = numbers
        .iter()
        .map(|number| first + u32::from(u16::from_be_bytes(*number)));
    RoaringBitmap::from_sorted_iter(numbers).map_err(|_| bad())
}

/// The numbers of the devices in a cohort, unless they are more than `most`.
pub fn read_cohort(
    view: &dyn View,
    app: &AppName,
    cohort: &str,
    most: u64,
) -> Result<Option<RoaringBitmap>, KvError> {
    let cohort = Subject::app(app.as_str()).text(cohort);
    let (from, to) = cohort.range(Table::Cohort);
    let part_at = from.len();
    let (mut found, mut failed) = (RoaringBitmap::new(), None);
    view.scan(&from, &to, &mut |key, value| {
        let part = key[part_at..].try_into().map(u32::from_be_bytes).ok();
        let first = part.and_then(|part| part.checked_mul(IN_PART));
        match first
            .ok_or_else(|| damaged("cohort"))
            .and_then(|first| decode_part(value, first))
        {
            Ok(part) => found |= part,
            Err(error) => failed = Some(error),
        }
        match failed.is_some() || found.len() > most {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Some(found).filter(|found| found.len() <= most)),
    }
}

/// The rows of registered devices by their numbers.
pub fn read_devices_numbered(
    view: &dyn View,
    app: &AppName,
    numbers: &[u32],
) -> Result<Vec<Option<Row>>, KvError> {
    let row = |number: &u32| {
        let Some(name) = view.get(&number_key(app.as_str(), *number))? else {
            return Ok(None);
        };
        let name = std::str::from_utf8(&name).map_err(|_| damaged("device number"))?;
        row_of_device(view, app, name)
    };
    numbers.iter().map(row).collect()
}

/// All numbers that were given are below this one.
pub fn read_numbers_end(view: &dyn View, app: &AppName) -> Result<u32, KvError> {
    let reserved = view.get(&Subject::app(app.as_str()).key(Table::Ordinals))?;
    let Some(reserved) = reserved else {
        return Ok(0);
    };
    let reserved = (*reserved).try_into().map(u32::from_be_bytes);
    reserved.map_err(|_| damaged("device number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_list_or_a_bitmap() {
        for numbers in [
            vec![0],
            vec![7, 2047],
            (0..127).collect(),
            (0..128).map(|number| number * 16).collect(),
            (0..IN_PART).collect(),
        ] {
            let part: RoaringBitmap = numbers.iter().copied().collect();
            let stored = encode_part(&part);
            assert!(stored.len() <= BITMAP_BYTES);
            let moved = numbers.iter().map(|number| number + 3 * IN_PART);
            assert_eq!(decode_part(&stored, 3 * IN_PART), Ok(moved.collect()));
        }
        assert!(decode_part(&[1, 2, 3], 0).is_err());
    }
}
