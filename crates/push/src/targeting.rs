//! Whom a push is for, as it stands in the push log: complete in itself, so that any node can tell for any device at any time.
//!
//! A device gets the push if it matched when the push was made *and* matches when it is delivered. So a tag that was added later does not
//! bring back old news, and a device that was muted meanwhile is left in peace.

use std::{collections::BTreeSet, fmt, sync::Arc};

use prost::Message;
use roaring::RoaringBitmap;

use crate::{
    device::{Damaged, Fact, Profile},
    expression::{Expression, SyntaxError},
    time::rfc3339,
};

/// Whom a push is for: the devices that pass all that is given here.
#[derive(Clone, Debug, PartialEq)]
pub struct Targeting {
    /// What must be known of a device.
    pub expression: Option<Expression>,
    /// The devices' numbers in their app.
    pub numbers: Option<RoaringBitmap>,
    /// The devices' client identifiers.
    pub names: Option<BTreeSet<Arc<str>>>,
    /// The part of the devices that gets it.
    pub portion: Option<Portion>,
    /// Unix milliseconds of when the push was made.
    pub pushed_ms: u64,
}

impl Eq for Targeting {}

/// A part of all devices that looks as if drawn by lot. With the same salt, a greater one contains a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Another salt draws other devices.
    pub salt: u64,
    /// Hundredths of a percent, 0..=10,000.
    pub basis_points: u16,
}

/// Why a device does not get a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// It is not on the list.
    NotListed,
    /// It is not in the part of the devices that gets it.
    NotInPortion,
    /// It was not known yet when the push was made.
    RegisteredLater {
        /// Unix milliseconds of its registration.
        at_ms: u64,
    },
    /// It does not match now, and did not when the push was made.
    NeverMatched,
    /// It matched when the push was made, but does not match now.
    NoLonger(Option<Changed>),
    /// It matches now, but did not when the push was made: a tag that was added later, say.
    OnlySince(Option<Changed>),
}

/// The last change of what the audience looks at, if it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What changed.
    pub fact: Fact,
    /// Unix milliseconds.
    pub at_ms: u64,
}

impl Targeting {
    /// Every device that is known when a push is made.
    pub fn everyone(pushed_ms: u64) -> Targeting {
        Targeting {
            expression: None,
            numbers: None,
            names: None,
            portion: None,
            pushed_ms,
        }
    }

    /// Whether it asks nothing of a device.
    pub fn is_to_everyone(&self) -> bool {
        self.expression.is_none()
            && self.numbers.is_none()
            && self.names.is_none()
            && self.portion.is_none()
    }

    /// Whether a device is to get the push now, and if not, why.
    ///
    /// `profile` is what is known of it now; a device without one has always been there, and nothing is known of it.
    pub fn admits(
        &self,
        client_id: &str,
        number: u32,
        profile: Option<&Profile>,
    ) -> Result<(), Unmet> {
        if let Some(numbers) = &self.numbers
            && !numbers.contains(number)
        {
            return Err(Unmet::NotListed);
        }
        if let Some(names) = &self.names {
            // One that registers later was meant all the same.
            let is_named = names.contains(client_id);
            return is_named.then_some(()).ok_or(Unmet::NotListed);
        }
        if let Some(portion) = &self.portion
            && !portion.contains(client_id)
        {
            return Err(Unmet::NotInPortion);
        }
        match profile {
            Some(profile) => self.admits_profile(profile),
            None => match &self.expression {
                Some(expression) if !expression.matches(crate::device::Facts::NONE) => {
                    Err(Unmet::NeverMatched)
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether it may admit devices of which nothing is known, of some number and name.
    pub fn may_admit_the_unknown(&self) -> bool {
        let nothing = crate::device::Facts::NONE;
        let matches = |expression: &Expression| expression.matches(nothing);
        self.expression.as_ref().is_none_or(matches)
    }

    fn admits_profile(&self, profile: &Profile) -> Result<(), Unmet> {
        if profile.created_ms() > self.pushed_ms {
            let at_ms = profile.created_ms();
            return Err(Unmet::RegisteredLater { at_ms });
        }
        let Some(expression) = &self.expression else {
            return Ok(());
        };
        let now = expression.matches(profile.present());
        // Without a change since, both are the same.
        let then = match profile.updated_ms() > self.pushed_ms {
            true => expression.matches(profile.as_of(self.pushed_ms)),
            false => now,
        };
        match (then, now) {
            (true, true) => Ok(()),
            (false, false) => Err(Unmet::NeverMatched),
            (true, false) => Err(Unmet::NoLonger(self.last_change(expression, profile))),
            (false, true) => Err(Unmet::OnlySince(self.last_change(expression, profile))),
        }
    }

    /// Whether a device of this profile was meant when the push was made.
    pub fn meant(&self, client_id: &str, number: u32, profile: &Profile) -> bool {
        self.numbers.as_ref().is_none_or(|of| of.contains(number))
            && self.names.as_ref().is_none_or(|of| of.contains(client_id))
            && (self.portion.as_ref()).is_none_or(|portion| portion.contains(client_id))
            && self.admitted_then(profile)
    }

    /// Whether a device with this profile was in the audience when the push was made.
    pub(crate) fn admitted_then(&self, profile: &Profile) -> bool {
        profile.created_ms() <= self.pushed_ms
            && (self.expression.as_ref())
                .is_none_or(|expression| expression.matches(profile.as_of(self.pushed_ms)))
    }

    fn last_change(&self, expression: &Expression, profile: &Profile) -> Option<Changed> {
        let facts = expression.facts();
        let changes = facts.into_iter().flat_map(|fact| {
            let since_ms = profile.fact(fact).map(|held| held.since_ms);
            let ended = profile.past().iter().filter(move |past| past.fact == *fact);
            let times_ms = since_ms.into_iter().chain(ended.map(|past| past.until_ms));
            times_ms.map(move |at_ms| (fact, at_ms))
        });
        let (fact, at_ms) = changes
            .filter(|(_, at_ms)| *at_ms > self.pushed_ms)
            .max_by_key(|(_, at_ms)| *at_ms)?;
        Some(Changed {
            fact: fact.clone(),
            at_ms,
        })
    }

    /// The targeting as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |numbers: &RoaringBitmap| {
            let mut bytes = Vec::with_capacity(numbers.serialized_size());
            numbers
                .serialize_into(&mut bytes)
                .expect("a vector takes all bytes");
            bytes
        };
        TargetingRecord {
            expression: self.expression.as_ref().map(ToString::to_string),
            numbers: self.numbers.as_ref().map(bytes),
            portion: self.portion.map(|portion| PortionRecord {
                salt: portion.salt,
                basis_points: portion.basis_points.into(),
            }),
            pushed_ms: self.pushed_ms,
            is_named: self.names.is_some(),
            names: (self.names.iter().flatten().map(ToString::to_string)).collect(),
        }
        .encode_to_vec()
    }

    /// Reads what [`Targeting::encode`] wrote. An expression that only a later version understands is an error: guessing whom a push is
    /// for would be worse.
    pub fn decode(bytes: &[u8]) -> Result<Targeting, Damaged> {
        Targeting::decode_with(bytes, Expression::parse_canonical)
    }

    /// As [`Targeting::decode`], with another reader of expressions: one that has read some of them before.
    pub fn decode_with(
        bytes: &[u8],
        expression: impl FnOnce(&str) -> Result<Expression, SyntaxError>,
    ) -> Result<Targeting, Damaged> {
        fn damaged(why: impl fmt::Display) -> Damaged {
            Damaged {
                what: "the targeting of a push",
                why: why.to_string(),
            }
        }
        let record = TargetingRecord::decode(bytes).map_err(damaged)?;
        let expression = record.expression.as_deref().map(expression).transpose();
        let numbers = record.numbers.as_deref();
        let numbers = numbers.map(RoaringBitmap::deserialize_from).transpose();
        let portion = |record: PortionRecord| {
            let basis_points = u16::try_from(record.basis_points).ok();
            let basis_points = basis_points.filter(|points| *points <= Portion::WHOLE);
            Ok(Portion {
                salt: record.salt,
                basis_points: basis_points.ok_or_else(|| damaged("a portion above the whole"))?,
            })
        };
        Ok(Targeting {
            expression: expression.map_err(damaged)?,
            numbers: numbers.map_err(damaged)?,
            names: record
                .is_named
                .then(|| record.names.into_iter().map(Arc::from).collect()),
            portion: record.portion.map(portion).transpose()?,
            pushed_ms: record.pushed_ms,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct TargetingRecord {
    /// The canonical text.
    #[prost(string, optional, tag = "1")]
    expression: Option<String>,
    /// The portable serialisation of Roaring bitmaps.
    #[prost(bytes = "vec", optional, tag = "2")]
    numbers: Option<Vec<u8>>,
    #[prost(message, optional, tag = "3")]
    portion: Option<PortionRecord>,
    #[prost(uint64, tag = "4")]
    pushed_ms: u64,
    #[prost(bool, tag = "5")]
    is_named: bool,
    #[prost(string, repeated, tag = "6")]
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct PortionRecord {
    #[prost(fixed64, tag = "1")]
    salt: u64,
    #[prost(uint32, tag = "2")]
    basis_points: u32,
}

impl Portion {
    /// Basis points of the whole.
    pub const WHOLE: u16 = 10_000;

    /// Whether a device is in it: the same on every node and in every version.
    pub fn contains(&self, client_id: &str) -> bool {
        self.contains_hash(Portion::hash(client_id))
    }

    pub(crate) fn contains_hash(&self, hash: u64) -> bool {
        // The upper half of the product is uniform over 0..WHOLE, as the hash is over its range.
        let ticket =
            (u128::from(mixed(hash ^ mixed(self.salt))) * u128::from(Portion::WHOLE)) >> 64;
        ticket < u128::from(self.basis_points)
    }

    /// What a live device is remembered by: FNV-1a of 64 bits.
    pub(crate) fn hash(client_id: &str) -> u64 {
        client_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// The finalizer of SplitMix64: FNV alone leaves neighbours next to each other.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, changed) = match self {
            Unmet::NotListed => return f.write_str("not on the list that the push is for"),
            Unmet::NotInPortion => {
                return f.write_str("not in the part of the devices that the push is for");
            }
            Unmet::RegisteredLater { at_ms } => {
                return write!(
                    f,
                    "not known until {}, after the push was made",
                    rfc3339(*at_ms)
                );
            }
            Unmet::NeverMatched => return f.write_str("not in the audience"),
            Unmet::NoLonger(changed) => ("not in the audience any more", changed),
            Unmet::OnlySince(changed) => (
                "in the audience now, but not when the push was made",
                changed,
            ),
        };
        f.write_str(what)?;
        match changed {
            Some(Changed { fact, at_ms }) => write!(f, ": {fact} changed at {}", rfc3339(*at_ms)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
