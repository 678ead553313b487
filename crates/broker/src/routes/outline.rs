//! What other nodes want, in outline: hashes of their filters instead of the filters, so that a node's memory hardly grows with its peers.
//!
//! A topic name is looked for under the hash of each filter that could match it: the name itself, and for each *shape* of a filter with wildcards
//! (`a/+/#` and `b/+/#` have one) the name with the shape's wildcards put in. So the text of a filter that is found is known, too.
//!
//! Two filters may have the same hash, of 64 bits under a secret key: among a million filters at a chance of one in forty million. Until the last of
//! them is removed that means a message too many for a peer, which looks itself; after the first is removed, one that the other does not get.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    mem,
};

use campanile_mqtt::topic;

/// Each shape costs a look with every message. Filters of further ones are not taken.
const MOST_SHAPES: usize = 32;
/// Levels that a filter with wildcards may have, one bit each.
const MOST_LEVELS: usize = 64;

/// A hash in two halves, so that an entry takes 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Print([u32; 2]);

/// Who wants a filter, a bit each.
type Wanted = HashMap<Print, u32, foldhash::fast::RandomState>;

/// Where a filter has wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Levels, `#` not counted.
    levels: u8,
    /// Those that are `+`, a bit each, the first one lowest.
    plus: u64,
    /// It ends in `#`.
    rest: bool,
}

impl Shape {
    /// `None` if it has too many levels.
    fn of(filter: &str) -> Option<Shape> {
        let mut shape = Shape {
            levels: 0,
            plus: 0,
            rest: false,
        };
        for level in filter.split('/') {
            if level == "#" {
                shape.rest = true;
            } else if usize::from(shape.levels) == MOST_LEVELS {
                return None;
            } else {
                shape.plus |= u64::from(level == "+") << shape.levels;
                shape.levels += 1;
            }
        }
        Some(shape)
    }

    /// Writes the filter of this shape that matches a name of so many levels. Whether there is one.
    fn filter_for(&self, name: &str, levels: usize, filter: &mut String) -> bool {
        let own = usize::from(self.levels);
        let begins_wild = self.plus & 1 == 1 || own == 0;
        // A leading wildcard does not match a name that begins with `$` [MQTT-4.7.2-1]; `a/#` matches its parent `a` too.
        if begins_wild && name.starts_with('$') || levels < own || levels > own && !self.rest {
            return false;
        }
        filter.clear();
        for (number, level) in name.split('/').take(own).enumerate() {
            if number > 0 {
                filter.push('/');
            }
            filter.push_str(if self.plus >> number & 1 == 1 {
                "+"
            } else {
                level
            });
        }
        if self.rest {
            filter.push_str(if own == 0 { "#" } else { "/#" });
        }
        true
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outline {
    secret: RandomState,
    exact: Wanted,
    shapes: Vec<(Shape, Wanted)>,
}

impl Outline {
    /// Notes that somebody, a bit, wants a filter. Whether there is room for its shape.
    pub fn add(&mut self, filter: &str, bit: u32) -> bool {
        let print = self.print(filter);
        if !topic::has_wildcard(filter) {
            *self.exact.entry(print).or_default() |= bit;
            return true;
        }
        let Some(shape) = Shape::of(filter) else {
            return false;
        };
        let at = match self.shapes.iter().position(|(known, _)| *known == shape) {
            Some(at) => at,
            None if self.shapes.len() == MOST_SHAPES => return false,
            None => {
                self.shapes.push((shape, Wanted::default()));
                self.shapes.len() - 1
            }
        };
        *self.shapes[at].1.entry(print).or_default() |= bit;
        true
    }

    /// Notes that somebody does not want a filter any more.
    pub fn remove(&mut self, filter: &str, bit: u32) {
        let print = self.print(filter);
        if !topic::has_wildcard(filter) {
            return remove(&mut self.exact, print, bit);
        }
        let shape = Shape::of(filter);
        let known = self
            .shapes
            .iter()
            .position(|(known, _)| Some(*known) == shape);
        if let Some(at) = known {
            remove(&mut self.shapes[at].1, print, bit);
            if self.shapes[at].1.is_empty() {
                self.shapes.swap_remove(at);
            }
        }
    }

    /// Notes that somebody wants nothing any more.
    pub fn forget(&mut self, bit: u32) {
        let forget = |wanted: &mut Wanted| {
            wanted.retain(|_, bits| {
                *bits &= !bit;
                *bits != 0
            });
            wanted.shrink_to_fit();
        };
        forget(&mut self.exact);
        self.shapes
            .iter_mut()
            .for_each(|(_, wanted)| forget(wanted));
        self.shapes.retain(|(_, wanted)| !wanted.is_empty());
    }

    /// Visits the filters that a topic name matches, with the bits of those who want them. The order is that in which shapes came.
    pub fn matching(&self, name: &str, mut visit: impl FnMut(&str, u32)) {
        if let Some(bits) = self.bits(&self.exact, name) {
            visit(name, bits);
        }
        if self.shapes.is_empty() {
            return;
        }
        let levels = topic::levels(name);
        let mut filter = String::with_capacity(name.len() + 2);
        for (shape, wanted) in &self.shapes {
            if shape.filter_for(name, levels, &mut filter)
                && let Some(bits) = self.bits(wanted, &filter)
            {
                visit(&filter, bits);
            }
        }
    }

    /// How many filters are wanted.
    pub fn len(&self) -> usize {
        let with_wildcards: usize = self.shapes.iter().map(|(_, wanted)| wanted.len()).sum();
        self.exact.len() + with_wildcards
    }

    fn bits(&self, wanted: &Wanted, filter: &str) -> Option<u32> {
        // A node alone has none, and pays no hash.
        if wanted.is_empty() {
            return None;
        }
        wanted.get(&self.print(filter)).copied()
    }

    fn print(&self, filter: &str) -> Print {
        let hash = self.secret.hash_one(filter);
        Print([(hash >> 32) as u32, hash as u32])
    }
}

fn remove(wanted: &mut Wanted, print: Print, bit: u32) {
    if let Some(bits) = wanted.get_mut(&print) {
        *bits &= !bit;
        if *bits == 0 {
            wanted.remove(&print);
        }
    }
    if wanted.len() < wanted.capacity() / 4 {
        wanted.shrink_to(wanted.len() * 2);
    }
}

const _: () = assert!(mem::size_of::<(Print, u32)>() == 12);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{0,2}", Just("+".to_owned()), Just("$x".to_owned())]
    }

    fn filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec(level(), 0..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest || levels.concat().is_empty() {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof!["[ab]{0,2}", Just("$x".to_owned())], 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds_and_forgets_what_was_removed(
            filters in proptest::collection::vec((filter(), 0..4u32), 1..24),
            names in proptest::collection::vec(name(), 1..8),
            removed in any::<u32>(),
            forgotten in 0..4u32,
        ) {
            let mut outline = Outline::default();
            let mut wanted = std::collections::BTreeMap::<&str, u32>::new();
            for (filter, who) in &filters {
                prop_assert!(outline.add(filter, 1 << who));
                *wanted.entry(filter).or_default() |= 1 << who;
            }
            for (at, (filter, who)) in filters.iter().enumerate() {
                if removed >> at & 1 == 1 {
                    outline.remove(filter, 1 << who);
                    *wanted.get_mut(filter.as_str()).unwrap() &= !(1 << who);
                }
            }
            outline.forget(1 << forgotten);
            wanted.values_mut().for_each(|bits| *bits &= !(1 << forgotten));
            wanted.retain(|_, bits| *bits != 0);
            prop_assert_eq!(outline.len(), wanted.len());
            for name in names.iter().filter(|name| !name.is_empty()) {
                let mut found = Vec::new();
                outline.matching(name, |filter, bits| found.push((filter.to_owned(), bits)));
                found.sort();
                let expected = wanted.iter().filter(|(filter, _)| topic::matches(filter, name));
                let expected: Vec<_> = expected.map(|(filter, bits)| ((*filter).to_owned(), *bits)).collect();
                prop_assert_eq!(found, expected);
            }
            if wanted.is_empty() {
                prop_assert!(outline.shapes.is_empty());
            }
        }
    }

    #[test]
    fn shapes_are_bounded() {
        let mut outline = Outline::default();
        let shape = |levels: usize| format!("{}+", "a/".repeat(levels));
        for levels in 0..MOST_SHAPES {
            assert!(outline.add(&shape(levels), 1));
        }
        assert!(!outline.add(&shape(MOST_SHAPES), 1));
        assert!(
            outline.add(&format!("b{}", &shape(5)[1..]), 1),
            "a known shape"
        );
        outline.forget(1);
        assert!(!outline.add(&shape(MOST_LEVELS), 1), "too many levels");
        assert_eq!(outline.len(), 0);
    }
}
