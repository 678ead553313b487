//! The values of one fact, and who has each.

use std::{borrow::Cow, collections::BTreeMap, ops::Bound};

use roaring::RoaringBitmap;

use crate::{
    device::{Fact, Number, Value},
    expression::Order,
};

/// The values of one fact, and the slots of the devices that have each.
#[derive(Debug)]
pub(super) struct Dictionary {
    known: RoaringBitmap,
    /// Absent for tags and topics: all that have one have the same value.
    by_value: Option<BTreeMap<Value, Holders>>,
}

/// The slots of one value. Most users have one device, and a bitmap would take some 200 bytes for it.
#[derive(Debug)]
enum Holders {
    One(u32),
    /// One or more.
    Many(Box<RoaringBitmap>),
}

impl Dictionary {
    pub(super) fn of(fact: &Fact) -> Dictionary {
        let has_values = !matches!(fact, Fact::Tag(_) | Fact::Topic(_));
        Dictionary {
            known: RoaringBitmap::new(),
            by_value: has_values.then(BTreeMap::new),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn insert(&mut self, slot: u32, value: &Value) {
        self.known.insert(slot);
        let Some(by_value) = &mut self.by_value else {
            return;
        };
        match by_value.get_mut(value) {
            Some(Holders::Many(slots)) => drop(slots.insert(slot)),
            Some(holders @ Holders::One(_)) => {
                let Holders::One(first) = *holders else {
                    return;
                };
                *holders = Holders::Many(Box::new([first, slot].into_iter().collect()));
            }
            None => drop(by_value.insert(value.clone(), Holders::One(slot))),
        }
    }

    pub(super) fn remove(&mut self, slot: u32, value: &Value) {
        self.known.remove(slot);
        let Some(by_value) = &mut self.by_value else {
            return;
        };
        let is_last = match by_value.get_mut(value) {
            Some(Holders::One(only)) => *only == slot,
            Some(Holders::Many(slots)) => slots.remove(slot) && slots.is_empty(),
            None => false,
        };
        if is_last {
            by_value.remove(value);
        }
    }

    /// Who has any value.
    pub(super) fn known(&self) -> &RoaringBitmap {
        &self.known
    }

    /// Who has one of these values.
    pub(super) fn with(&self, values: &[Value]) -> Cow<'_, RoaringBitmap> {
        let by_value = self.by_value.as_ref();
        let holders = |value| by_value.and_then(|by_value| by_value.get(value));
        if let [value] = values
            && let Some(Holders::Many(slots)) = holders(value)
        {
            return Cow::Borrowed(slots);
        }
        Cow::Owned(union(values.iter().filter_map(holders)))
    }

    /// Who has a number on that side of the bound.
    pub(super) fn with_number(&self, order: Order, bound: Number) -> RoaringBitmap {
        let bound = Value::Number(bound);
        // Numbers come after true and before any text.
        let (first, end) = (
            Bound::Excluded(Value::Bool(true)),
            Bound::Excluded(Value::Text("".into())),
        );
        let range = match order {
            Order::Less => (first, Bound::Excluded(bound)),
            Order::AtMost => (first, Bound::Included(bound)),
            Order::Greater => (Bound::Excluded(bound), end),
            Order::AtLeast => (Bound::Included(bound), end),
        };
        let by_value = self.by_value.as_ref();
        let values = by_value.map(|by_value| by_value.range(range));
        union(values.into_iter().flatten().map(|(_, holders)| holders))
    }

    /// Who has a value that passes: one look at each different value.
    pub(super) fn with_any(&self, accepts: impl Fn(&Value) -> bool) -> RoaringBitmap {
        let values = self.by_value.iter().flatten();
        union(values.filter_map(|(value, holders)| accepts(value).then_some(holders)))
    }
}

fn union<'d>(all: impl Iterator<Item = &'d Holders>) -> RoaringBitmap {
    let mut union = RoaringBitmap::new();
    let mut single = Vec::new();
    for holders in all {
        match holders {
            Holders::One(slot) => single.push(*slot),
            Holders::Many(slots) => union |= &**slots,
        }
    }
    // Many single slots in order are appended; out of order each would be searched for its place.
    single.sort_unstable();
    union | RoaringBitmap::from_iter(single)
}
