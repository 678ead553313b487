//! How much of what the ensemble says about lost nodes is believed, and when.
//!
//! A node that dies vanishes from the list, and must be given up at once. But when most of the others vanish together, the likelier cause is
//! the list: an ensemble that lost its sessions, a network that cut off the ensemble and not the nodes. Giving up living nodes does harm, waiting does
//! little, so a *mass loss* (more than half of the other nodes, and at least two, within the confirmation time) is doubted: those nodes
//! stay until they come back, until every read for the confirmation time says the same, or until their peer link is down too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::membership::Registered;
use crate::ids::{Generation, Millis};

/// The nodes that are believed to live, and the doubt about some.
#[derive(Clone, Debug)]
pub struct Belief {
    confirmation_ms: u64,
    nodes: BTreeMap<Arc<str>, Registered>,
    doubted: BTreeMap<Arc<str>, Doubt>,
    /// Who was given up at face value within the last confirmation time: a mass loss may come in several reads.
    given_up: BTreeMap<Arc<str>, Millis>,
}

/// A node that the reads leave out.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When the first of an unbroken row of reads left it out; `None` since the row broke.
    since: Option<Millis>,
}

impl Belief {
    /// Nobody is known. `confirmation_ms` should exceed the time that sessions take to end, or a restart of the ensemble is no different from the
    /// nodes' death.
    pub fn new(confirmation_ms: u64) -> Belief {
        Belief {
            confirmation_ms,
            nodes: BTreeMap::new(),
            doubted: BTreeMap::new(),
            given_up: BTreeMap::new(),
        }
    }

    /// Takes in what the ensemble lists now. `own` is this node's name, never doubted; `is_link_down` says of a generation that its peer link is
    /// known to be down (not: that there never was one).
    ///
    /// A name with another generation replaces the older one at once: the ensemble would not have taken it while the older one was registered.
    pub fn on_read(
        &mut self,
        own: &str,
        read: &BTreeMap<Arc<str>, Registered>,
        is_link_down: impl Fn(Generation) -> bool,
        now: Millis,
    ) {
        let confirmation_ms = self.confirmation_ms;
        self.given_up
            .retain(|name, at| now.since(*at) < confirmation_ms && !read.contains_key(name));
        self.doubted.retain(|name, _| !read.contains_key(name));
        let missing: Vec<(Arc<str>, Generation)> = self
            .nodes
            .iter()
            .filter(|(name, _)| !read.contains_key(*name))
            .map(|(name, node)| (name.clone(), node.generation))
            .collect();
        let is_mass_loss = self.is_mass_loss(own, &missing);
        for (name, generation) in missing {
            let is_given_up = match self.doubted.get_mut(&name) {
                _ if &*name == own || is_link_down(generation) => true,
                Some(doubt) => now.since(*doubt.since.get_or_insert(now)) >= confirmation_ms,
                None => !is_mass_loss,
            };
            if is_given_up {
                self.nodes.remove(&name);
                self.doubted.remove(&name);
                self.given_up.insert(name, now);
            } else {
                let doubt = Doubt { since: Some(now) };
                self.doubted.entry(name).or_insert(doubt);
            }
        }
        let listed = read.iter().map(|(name, node)| (name.clone(), node.clone()));
        self.nodes.extend(listed);
    }

    /// The ensemble does not answer: what is doubted must be confirmed from the beginning, as nobody knows what it would have said meanwhile.
    pub fn on_outage(&mut self) {
        for doubt in self.doubted.values_mut() {
            doubt.since = None;
        }
    }

    /// All nodes that are believed to live, by name.
    pub fn nodes(&self) -> &BTreeMap<Arc<str>, Registered> {
        &self.nodes
    }

    /// The names of those that only this belief keeps.
    pub fn doubted(&self) -> BTreeSet<Arc<str>> {
        self.doubted.keys().cloned().collect()
    }

    /// When the next read could end a doubt; `None`: nothing is doubted, or not until the ensemble answers again.
    pub fn deadline(&self) -> Option<Millis> {
        let ends =
            |doubt: &Doubt| Some(Millis(doubt.since?.0.saturating_add(self.confirmation_ms)));
        self.doubted.values().filter_map(ends).min()
    }

    /// Whether those that are missing now, with those that were given up lately, are most of the others.
    fn is_mass_loss(&self, own: &str, missing: &[(Arc<str>, Generation)]) -> bool {
        let is_other = |name: &Arc<str>| &**name != own;
        let lately = self
            .given_up
            .keys()
            .filter(|name| is_other(name) && !self.nodes.contains_key(*name))
            .count();
        let others = lately + self.nodes.keys().filter(|name| is_other(name)).count();
        let lost = lately + missing.iter().filter(|(name, _)| is_other(name)).count();
        lost >= 2 && lost * 2 > others
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{membership::NodeInfo, peer::Load};

    const CONFIRMATION_MS: u64 = 10_000;

    fn registered(name: &str, generation: u64) -> (Arc<str>, Registered) {
        let info = NodeInfo {
            name: name.into(),
            peer_address: ([127, 0, 0, 1], 1).into(),
            addresses: Vec::new(),
            http_address: "".into(),
            version: "".into(),
            started_ms: 0,
            load: Load::default(),
            draining: false,
        };
        let generation = Generation(generation);
        (name.into(), Registered { generation, info })
    }

    /// Node `a`'s reads: names by letter, all of generation 1.
    struct Reader {
        belief: Belief,
        down: Vec<u64>,
    }

    impl Reader {
        fn knowing(names: &str) -> Reader {
            let mut reader = Reader {
                belief: Belief::new(CONFIRMATION_MS),
                down: Vec::new(),
            };
            reader.reads(0, names);
            reader
        }

        fn reads(&mut self, now: u64, names: &str) {
            let generation = |name: char| u64::from(u32::from(name));
            let read = names
                .chars()
                .map(|name| registered(&name.to_string(), generation(name)))
                .collect();
            self.takes(now, &read);
        }

        fn takes(&mut self, now: u64, read: &BTreeMap<Arc<str>, Registered>) {
            let down = self.down.clone();
            self.belief.on_read(
                "a",
                read,
                |generation| down.contains(&generation.0),
                Millis(now),
            );
        }

        fn believes(&self) -> String {
            self.belief.nodes().keys().map(|name| &**name).collect()
        }

        fn doubts(&self) -> String {
            self.belief.doubted().iter().map(|name| &**name).collect()
        }
    }

    #[test]
    fn a_single_loss_is_believed_at_once() {
        let mut reader = Reader::knowing("abc");
        reader.reads(1, "ab");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("ab".into(), "".into())
        );
        let mut pair = Reader::knowing("ab");
        pair.reads(1, "a");
        assert_eq!(pair.believes(), "a");
    }

    #[test]
    fn half_of_the_others_may_vanish() {
        let mut reader = Reader::knowing("abcde");
        reader.reads(1, "abc");
        assert_eq!(reader.believes(), "abc");
    }

    #[test]
    fn most_others_at_once_are_doubted_until_confirmed_by_time() {
        let mut reader = Reader::knowing("abcd");
        reader.reads(1000, "ab");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("abcd".into(), "cd".into())
        );
        assert_eq!(reader.belief.deadline(), Some(Millis(11_000)));
        reader.reads(10_999, "ab");
        assert_eq!(reader.believes(), "abcd");
        reader.reads(11_000, "ab");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("ab".into(), "".into())
        );
        assert_eq!(reader.belief.deadline(), None);
    }

    #[test]
    fn who_comes_back_is_no_longer_doubted() {
        let mut reader = Reader::knowing("abcd");
        reader.reads(1000, "a");
        reader.reads(2000, "abc");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("abcd".into(), "d".into())
        );
    }

    #[test]
    fn a_link_that_is_down_confirms_at_once() {
        let mut reader = Reader::knowing("abcd");
        reader.down = vec![u64::from(u32::from('c'))];
        reader.reads(1000, "a");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("abd".into(), "bd".into())
        );
        reader.down.push(u64::from(u32::from('b')));
        reader.reads(1001, "a");
        assert_eq!(reader.believes(), "ad");
    }

    #[test]
    fn a_mass_loss_in_several_reads_is_doubted_from_where_it_is_one() {
        let mut reader = Reader::knowing("abcde");
        reader.reads(1000, "abcd");
        reader.reads(1010, "abc");
        reader.reads(1020, "ab");
        reader.reads(1030, "a");
        assert_eq!(
            (reader.believes(), reader.doubts()),
            ("abc".into(), "bc".into())
        );
    }

    #[test]
    fn losses_far_apart_are_no_mass_loss() {
        let mut reader = Reader::knowing("abcd");
        reader.reads(1000, "abc");
        reader.reads(1000 + CONFIRMATION_MS, "ab");
        assert_eq!(reader.believes(), "ab");
    }

    #[test]
    fn an_outage_makes_the_confirmation_begin_anew() {
        let mut reader = Reader::knowing("abc");
        reader.reads(1000, "a");
        reader.belief.on_outage();
        assert_eq!(reader.belief.deadline(), None);
        reader.reads(60_000, "a");
        assert_eq!(reader.believes(), "abc");
        reader.reads(70_000, "a");
        assert_eq!(reader.believes(), "a");
    }

    #[test]
    fn a_new_generation_replaces_the_old_at_once() {
        let mut reader = Reader::knowing("abc");
        reader.reads(1000, "a");
        let read = BTreeMap::from([registered("a", 97), registered("b", 500)]);
        reader.takes(1001, &read);
        assert_eq!(reader.belief.nodes()["b"].generation, Generation(500));
        assert_eq!(reader.doubts(), "c");
    }

    #[test]
    fn the_own_name_is_never_kept_by_doubt() {
        let mut reader = Reader::knowing("abc");
        reader.reads(1000, "");
        assert_eq!(reader.believes(), "bc");
    }

    proptest! {
        /// Whatever is read: what is listed is believed as listed, what is believed beyond that is doubted, and no doubt outlives a
        /// confirmation time of reads without an outage.
        #[test]
        fn belief_is_the_list_and_the_doubted(
            reads in prop::collection::vec((1u64..4000, prop::collection::btree_map(0u8..7, 1u64..4, 0..7), any::<bool>()), 1..40)
        ) {
            let mut reader = Reader::knowing("");
            let mut now = 0;
            let mut absent_since: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            for (pause, listed, outage) in reads {
                now += pause;
                if outage {
                    reader.belief.on_outage();
                    absent_since.clear();
                }
                let read: BTreeMap<_, _> = listed
                    .iter()
                    .map(|(name, generation)| registered(&char::from(b'a' + name).to_string(), *generation))
                    .collect();
                let before = reader.belief.nodes().clone();
                let doubted = reader.belief.doubted();
                reader.takes(now, &read);
                absent_since.retain(|name, _| !read.contains_key(name));
                for (name, node) in reader.belief.nodes() {
                    match read.get(name) {
                        Some(listed) => prop_assert_eq!(node, listed),
                        None => {
                            prop_assert!(reader.belief.doubted().contains(name));
                            prop_assert_eq!(Some(node), before.get(name));
                            let since = *absent_since.entry(name.clone()).or_insert(now);
                            prop_assert!(now - since < CONFIRMATION_MS);
                        }
                    }
                }
                prop_assert!(reader.belief.doubted().iter().all(|name| reader.belief.nodes().contains_key(name)));
                let others = before.keys().filter(|name| &***name != "a").count();
                let fresh: Vec<_> = before
                    .keys()
                    .filter(|name| &***name != "a" && !read.contains_key(*name) && !doubted.contains(*name))
                    .collect();
                if fresh.len() >= 2 && fresh.len() * 2 > others {
                    prop_assert!(fresh.iter().all(|name| reader.belief.nodes().contains_key(*name)));
                }
            }
        }
    }
}
