//! What a stored profile says of some facts, without reading the others.
//!
//! Whoever looks at a million profiles for two tags spends his time on what he skips.

use prost::{
    Message,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::{Damaged, Fact, Profile, record::FactRecord};

/// Facts that are looked at.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// As they are recorded: kind and name.
    facts: Vec<(u32, String)>,
}

impl Glance {
    /// At these facts.
    pub fn at<'f>(facts: impl IntoIterator<Item = &'f Fact>) -> Glance {
        let recorded = |fact: &Fact| {
            let (kind, name) = FactRecord::key(fact);
            (kind, name.to_owned())
        };
        let mut facts: Vec<_> = facts.into_iter().map(recorded).collect();
        facts.sort_unstable();
        facts.dedup();
        Glance { facts }
    }

    /// The profile that [`Profile::encode`] wrote, of which only these facts are known.
    pub fn profile(&self, stored: &[u8]) -> Result<Profile, Damaged> {
        self.read(stored).map_err(|why| Damaged {
            what: "the profile of a device",
            why,
        })
    }

    fn read(&self, mut stored: &[u8]) -> Result<Profile, String> {
        let mut profile = Profile::new(0);
        while stored.has_remaining() {
            let (tag, wire) = decode_key(&mut stored).map_err(text)?;
            match (tag, wire) {
                (1, WireType::Varint) => {
                    profile.created_ms = decode_varint(&mut stored).map_err(text)?
                }
                (2, WireType::Varint) => {
                    profile.updated_ms = decode_varint(&mut stored).map_err(text)?
                }
                (3 | 4, WireType::LengthDelimited) => {
                    let fact = part(&mut stored)?;
                    if !self.is_of_interest(fact)? {
                        continue;
                    }
                    let record = FactRecord::decode(fact).map_err(text)?;
                    match tag {
                        3 => profile.facts.extend(record.held()),
                        _ => profile.past.extend(record.past()),
                    }
                }
                _ => skip_field(wire, tag, &mut stored, DecodeContext::default()).map_err(text)?,
            }
        }
        Ok(profile)
    }

    /// Whether a recorded fact is one of those.
    fn is_of_interest(&self, mut fact: &[u8]) -> Result<bool, String> {
        let (mut kind, mut name) = (0, &[][..]);
        while fact.has_remaining() {
            match decode_key(&mut fact).map_err(text)? {
                (1, WireType::Varint) => kind = decode_varint(&mut fact).map_err(text)? as u32,
                (2, WireType::LengthDelimited) => name = part(&mut fact)?,
                // Kind and name are written first.
                _ => break,
            }
        }
        let mut facts = self.facts.iter();
        Ok(facts.any(|(of, called)| *of == kind && called.as_bytes() == name))
    }
}

fn text(error: prost::DecodeError) -> String {
    error.to_string()
}

/// The next length-delimited part.
fn part<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], String> {
    let length = usize::try_from(decode_varint(bytes).map_err(text)?).unwrap_or(usize::MAX);
    match bytes.split_at_checked(length) {
        Some((part, rest)) => {
            *bytes = rest;
            Ok(part)
        }
        None => Err("it ends too early".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{any_profile, any_targeting};

    proptest! {
        #[test]
        fn a_glance_is_enough_to_judge(
            profile in any_profile(),
            targetings in prop::collection::vec(any_targeting(), 1..4),
            number in 0..40_u32,
        ) {
            let expressions = targetings.iter().filter_map(|of| of.expression.as_ref());
            let glance = Glance::at(expressions.flat_map(|expression| expression.facts()));
            let seen = glance.profile(&profile.encode()).unwrap();
            for targeting in targetings {
                prop_assert_eq!(
                    targeting.meant("d", number, &seen),
                    targeting.meant("d", number, &profile)
                );
            }
        }

        #[test]
        fn what_is_no_profile_is_found_out_or_harmless(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let glance = Glance::at([&Fact::Platform]);
            let _ = glance.profile(&bytes);
        }
    }
}
