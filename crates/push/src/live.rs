//! The connected devices of an app on one shard, indexed by what is known of them: who gets a push is found by set operations instead of
//! a look at each device.
//!
//! A device is a *slot*, a small number that the shard gives to its connection and reuses: the sets are bitmaps over slots.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use roaring::RoaringBitmap;

use crate::{
    device::{Fact, Profile},
    targeting::{Portion, Targeting},
};

mod dictionary;
mod select;

use dictionary::Dictionary;

/// The connected devices of an app on one shard.
///
/// A device costs 24 bytes and its bit, also while its slot is free; one with a profile, what the profile takes and a few bytes per fact.
#[derive(Debug, Default)]
pub struct LiveIndex {
    /// By slot; meaningless where it is not in `live`.
    slots: Vec<Live>,
    live: RoaringBitmap,
    /// What is known of any of them.
    facts: HashMap<Fact, Dictionary>,
    /// When each device with a profile changed last, and its slot.
    changes: BTreeSet<(u64, u32)>,
}

#[derive(Clone, Debug, Default)]
struct Live {
    number: u32,
    /// Of its client identifier.
    hash: u64,
    profile: Option<Arc<Profile>>,
}

impl LiveIndex {
    /// An index of nobody.
    pub fn new() -> LiveIndex {
        LiveIndex::default()
    }

    /// Devices in it.
    pub fn len(&self) -> u64 {
        self.live.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// What is known of the device of a slot.
    pub fn profile(&self, slot: u32) -> Option<&Profile> {
        self.slots.get(slot as usize)?.profile.as_deref()
    }

    /// A device connected. Whoever had the slot before is gone.
    pub fn join(&mut self, slot: u32, client_id: &str, number: u32, profile: Option<Arc<Profile>>) {
        self.leave(slot);
        let index = slot as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Live::default());
        }
        self.slots[index] = Live {
            number,
            hash: Portion::hash(client_id),
            profile: None,
        };
        self.live.insert(slot);
        self.change(slot, profile);
    }

    /// The device of a slot is gone. A slot of nobody stays so.
    pub fn leave(&mut self, slot: u32) {
        if self.live.contains(slot) {
            self.change(slot, None);
            self.live.remove(slot);
        }
    }

    /// Something else is known of a device now. A slot of nobody stays so.
    pub fn change(&mut self, slot: u32, profile: Option<Arc<Profile>>) {
        if !self.live.contains(slot) {
            return;
        }
        let before = std::mem::replace(&mut self.slots[slot as usize].profile, profile.clone());
        if let Some(before) = &before {
            self.changes.remove(&(before.updated_ms(), slot));
        }
        if let Some(after) = &profile {
            self.changes.insert((after.updated_ms(), slot));
        }
        self.forget(slot, before.as_deref(), profile.as_deref());
        self.learn(slot, before.as_deref(), profile.as_deref());
    }

    /// Takes out what is not known any more.
    fn forget(&mut self, slot: u32, before: Option<&Profile>, after: Option<&Profile>) {
        for (fact, held) in before.into_iter().flat_map(Profile::facts) {
            let stays = after.and_then(|after| after.fact(fact));
            if stays.is_some_and(|stays| stays.value == held.value) {
                continue;
            }
            if let Some(dictionary) = self.facts.get_mut(fact) {
                dictionary.remove(slot, &held.value);
                if dictionary.is_empty() {
                    self.facts.remove(fact);
                }
            }
        }
    }

    /// Puts in what was not known before.
    fn learn(&mut self, slot: u32, before: Option<&Profile>, after: Option<&Profile>) {
        for (fact, held) in after.into_iter().flat_map(Profile::facts) {
            let stays = before.and_then(|before| before.fact(fact));
            if stays.is_some_and(|stays| stays.value == held.value) {
                continue;
            }
            match self.facts.get_mut(fact) {
                Some(dictionary) => dictionary.insert(slot, &held.value),
                None => {
                    let mut dictionary = Dictionary::of(fact);
                    dictionary.insert(slot, &held.value);
                    self.facts.insert(fact.clone(), dictionary);
                }
            }
        }
    }

    /// The slots of the devices that are to get a push now: those that [`Targeting::admits`].
    pub fn select(&self, targeting: &Targeting) -> RoaringBitmap {
        let mut selected = match &targeting.expression {
            Some(expression) => self.matching(expression).into_owned(),
            None => self.live.clone(),
        };
        // Of the others, the present is what was when the push was made.
        let later = (
            Bound::Excluded((targeting.pushed_ms, u32::MAX)),
            Bound::Unbounded,
        );
        for (_, slot) in self.changes.range(later) {
            let profile = self.slots[*slot as usize].profile.as_deref();
            if selected.contains(*slot)
                && !profile.is_some_and(|profile| targeting.admitted_then(profile))
            {
                selected.remove(*slot);
            }
        }
        if let Some(names) = &targeting.names {
            let hashes: HashSet<u64> = names.iter().map(|name| Portion::hash(name)).collect();
            selected.retain(|slot| hashes.contains(&self.slots[slot as usize].hash));
        }
        if let Some(portion) = &targeting.portion {
            selected.retain(|slot| portion.contains_hash(self.slots[slot as usize].hash));
        }
        if let Some(numbers) = &targeting.numbers {
            selected.retain(|slot| numbers.contains(self.slots[slot as usize].number));
        }
        selected
    }
}

#[cfg(test)]
mod tests;
