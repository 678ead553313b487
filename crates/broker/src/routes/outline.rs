//! What other nodes want, in outline: hashes of their filters instead of the filters, so that a node's memory hardly grows with its peers.
//!
//! A topic name is looked for under the hash of each filter that could match it: the name itself, and for each *shape* of a filter with wildcards
//! (`a/+/#` and `b/+/#` have one) the name with the shape's wildcards put in. So the text of a filter that is found is known, too.
//!
//! Two filters with the same hash would be one here, and the first that is removed would hide the other. How many there are cannot be counted: a peer may say
//! more than once that it wants a filter. So a hash is long: of 96 bits under a secret key, which among a million filters two share at a chance of one in
//! 10^17.

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

/// A hash in parts, so that an entry takes 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Print([u32; 3]);

/// Makes another hash of the same filter.
const FURTHER: u8 = 1;

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
pub struct Outline<S = RandomState> {
    secret: S,
    exact: Wanted,
    shapes: Vec<(Shape, Wanted)>,
}

impl<S: BuildHasher> Outline<S> {
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
        let (hash, more) = (
            self.secret.hash_one(filter),
            self.secret.hash_one((FURTHER, filter)),
        );
        Print([(hash >> 32) as u32, hash as u32, more as u32])
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

const _: () = assert!(mem::size_of::<(Print, u32)>() == 16);

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use proptest::prelude::*;

    use super::*;

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

    /// Filters, each with who wants it; which of them are removed; and who is forgotten then.
    type Wishes = (Vec<(String, u32)>, u32, u32);

    fn wishes() -> impl Strategy<Value = Wishes> {
        let filters = proptest::collection::vec((filter(), 0..4u32), 1..24);
        (filters, any::<u32>(), 0..4u32)
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(name(), 1..8)
    }

    fn check<S: BuildHasher>(
        mut outline: Outline<S>,
        (filters, removed, forgotten): &Wishes,
        names: &[String],
    ) -> Result<(), TestCaseError> {
        let mut wanted = std::collections::BTreeMap::<&str, u32>::new();
        for (filter, who) in filters {
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
        wanted
            .values_mut()
            .for_each(|bits| *bits &= !(1 << forgotten));
        wanted.retain(|_, bits| *bits != 0);
        prop_assert_eq!(outline.len(), wanted.len());
        for name in names.iter().filter(|name| !name.is_empty()) {
            let mut found = Vec::new();
            outline.matching(name, |filter, bits| found.push((filter.to_owned(), bits)));
            found.sort();
            let matching = wanted.iter();
            let matching = matching.filter(|(filter, _)| topic::matches(filter, name));
            let expected: Vec<_> = matching
                .map(|(filter, bits)| ((*filter).to_owned(), *bits))
                .collect();
            prop_assert_eq!(found, expected);
        }
        if wanted.is_empty() {
            prop_assert!(outline.shapes.is_empty());
        }
        Ok(())
    }

    /// Under which the first 64 bits of all prints are the same.
    #[derive(Default)]
    struct AlikeAtFirst(RandomState);

    struct AlikeAtFirstHasher {
        hasher: DefaultHasher,
        is_further: bool,
    }

    impl BuildHasher for AlikeAtFirst {
        type Hasher = AlikeAtFirstHasher;

        fn build_hasher(&self) -> AlikeAtFirstHasher {
            AlikeAtFirstHasher {
                hasher: self.0.build_hasher(),
                is_further: false,
            }
        }
    }

    impl Hasher for AlikeAtFirstHasher {
        fn write(&mut self, bytes: &[u8]) {
            self.is_further |= bytes == [FURTHER];
            self.hasher.write(bytes);
        }

        fn finish(&self) -> u64 {
            match self.is_further {
                true => self.hasher.finish(),
                false => 0,
            }
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds_and_forgets_what_was_removed(wishes in wishes(), names in names()) {
            check(Outline::<RandomState>::default(), &wishes, &names)?;
        }

        #[test]
        fn a_filter_is_not_hidden_by_one_whose_hash_begins_alike(wishes in wishes(), names in names()) {
            check(Outline::<AlikeAtFirst>::default(), &wishes, &names)?;
        }
    }

    /// As it does for each of its shards.
    #[test]
    fn a_peer_may_say_twice_what_it_wants() {
        let mut outline = Outline::<RandomState>::default();
        for filter in ["a/b", "a/b", "a/+", "a/+"] {
            assert!(outline.add(filter, 1));
        }
        for filter in ["a/b", "a/+"] {
            outline.remove(filter, 1);
        }
        outline.matching("a/b", |filter, _| panic!("{filter} is not wanted"));
        assert_eq!(outline.len(), 0);
    }

    #[test]
    fn shapes_are_bounded() {
        let mut outline = Outline::<RandomState>::default();
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
