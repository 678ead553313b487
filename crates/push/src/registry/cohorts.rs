//! Cohorts: what finds the registered devices of a selective audience without a look at all of them.
//!
//! Each tag and each topic has one: of the devices that have it, and of those that had it and whose profile remembers that, since an audience is judged as of the
//! time when its push was made. So all that may pass a test of the tag are in its cohort, and perhaps some more: each is judged by its profile.
//! Other facts have none: they have few values, which find too many, or one for each device.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use crate::{
    app::AppName,
    device::{Fact, Profile},
    expression::Term,
    rows::Change,
    store::{Reader, Unavailable},
    targeting::Targeting,
};

/// So few candidates are looked at faster than one more cohort is read.
const FEW: u64 = 256;

/// The cohort of a fact that has one.
fn cohort_of(fact: &Fact) -> Option<String> {
    match fact {
        Fact::Tag(tag) => Some(format!("t{tag}")),
        Fact::Topic(topic) => Some(format!("s{topic}")),
        Fact::Platform
        | Fact::AppVersion
        | Fact::Language
        | Fact::TimeZone
        | Fact::User
        | Fact::Attribute(_) => None,
    }
}

fn cohorts_of(profile: &Profile) -> BTreeSet<String> {
    let held = profile.facts().map(|(fact, _)| fact);
    let facts = held.chain(profile.past().iter().map(|past| &past.fact));
    facts.filter_map(cohort_of).collect()
}

/// Puts a device into the cohorts that it is in after a change, and out of the others; `None`: it was not registered before, or is not after it.
pub fn enrolled(
    change: Change,
    device: &str,
    before: Option<&Profile>,
    after: Option<&Profile>,
) -> Change {
    let old = before.map(cohorts_of).unwrap_or_default();
    let new = after.map(cohorts_of).unwrap_or_default();
    let left = old.difference(&new).map(|cohort| (cohort, false));
    let joined = new.difference(&old).map(|cohort| (cohort, true));
    left.chain(joined).fold(change, |change, (cohort, is_in)| {
        change.enrol(device, cohort.clone(), is_in)
    })
}

/// The numbers of the registered devices that a targeting may be for: all of those that it is for, perhaps others, perhaps such as are registered no more.
///
/// `None`: cohorts do not say, or one has more than `most`.
pub fn candidates(
    reader: &dyn Reader,
    app: &AppName,
    targeting: &Targeting,
    most: u64,
) -> Result<Option<RoaringBitmap>, Unavailable> {
    let listed = match (&targeting.names, &targeting.numbers) {
        (Some(names), _) => {
            let names: Vec<_> = names.iter().cloned().collect();
            let numbers = reader.device_numbers(app, &names)?;
            Some(numbers.into_iter().flatten().collect())
        }
        (None, Some(numbers)) => Some(numbers.clone()),
        (None, None) => None,
    };
    let search = Search { reader, app, most };
    match (&targeting.expression, listed) {
        (_, Some(listed)) if listed.len() <= FEW => Ok(Some(listed)),
        (Some(expression), Some(listed)) => {
            let cohort = search.term(expression.term())?;
            Ok(Some(match cohort {
                Some(cohort) => cohort & listed,
                None => listed,
            }))
        }
        (Some(expression), None) => search.term(expression.term()),
        (None, listed) => Ok(listed),
    }
}

struct Search<'a> {
    reader: &'a dyn Reader,
    app: &'a AppName,
    most: u64,
}

impl Search<'_> {
    fn term(&self, term: &Term) -> Result<Option<RoaringBitmap>, Unavailable> {
        match term {
            Term::All(terms) => {
                let mut left: Option<RoaringBitmap> = None;
                for term in terms {
                    if left.as_ref().is_some_and(|left| left.len() <= FEW) {
                        break;
                    }
                    left = match (left, self.term(term)?) {
                        (Some(left), Some(found)) => Some(left & found),
                        (left, found) => left.or(found),
                    };
                }
                Ok(left)
            }
            Term::Any(terms) => {
                let mut union = RoaringBitmap::new();
                for term in terms {
                    match self.term(term)? {
                        Some(found) => union |= found,
                        None => return Ok(None),
                    }
                }
                Ok(Some(union).filter(|union| union.len() <= self.most))
            }
            // Who lacks a tag is not said by those who have, or had, it.
            Term::Not(_) => Ok(None),
            // Whatever is asked of a fact, one that is not known does not pass.
            Term::Test(test) => match cohort_of(&test.fact) {
                Some(cohort) => self.reader.cohort(self.app, &cohort, self.most),
                None => Ok(None),
            },
        }
    }
}
