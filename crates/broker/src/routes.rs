//! The subscription index of one app on one shard: from a topic name to whoever wants it.
//!
//! A *filter* is an entry of its own, found by its text (exact filters) or through a tree of levels (filters with wildcards). It knows the shard's own
//! live subscribers, which other shards have live subscribers, which shards have durable sessions with it, and the members of
//! shared subscriptions of it. So one match answers everything that a publish must know.
//!
//! Of what other nodes want, which grows with the cluster, it knows an outline.

mod outline;

use std::{collections::HashMap, sync::Arc};

use campanile_mqtt::{QoS, topic};
use foldhash::fast::RandomState;

use self::outline::Outline;
use crate::{
    ids::{Epoch, ShardId},
    mail::Member,
};

/// Index of a filter within its app's [`Routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterIx(u32);

/// A live subscriber of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Slot of its connection.
    pub slot: u32,
    /// Subscription Identifier, 0 if there is none.
    pub subscription_id: u32,
    /// Granted quality of service.
    pub qos: QoS,
    /// Not for what the client itself published.
    pub no_local: bool,
    /// The retain flag stays as published.
    pub retain_as_published: bool,
    /// The session outlives its connection: QoS 1 and 2 come from the log.
    pub durable: bool,
}

/// A shared subscription of a filter.
#[derive(Debug)]
pub struct Group {
    /// The whole filter, `$share/group/filter`.
    pub text: Arc<str>,
    /// The members, in the order in which they joined.
    pub members: Vec<(Arc<str>, Member)>,
    /// In a cluster: durable members as the store knows them, among `members` as long as they are not connected.
    stored: HashMap<Arc<str>, Member, RandomState>,
    next: usize,
}

impl Group {
    /// The member whose turn it is: connected ones in turn; if none is, the ones that can wait for a message in their inbox.
    pub fn pick(&mut self, qos: QoS) -> Option<(Arc<str>, Member)> {
        let count = self.members.len();
        let turn = |start: usize, fits: &dyn Fn(&Member) -> bool| {
            (0..count)
                .map(|i| (start + i) % count)
                .find(|&i| fits(&self.members[i].1) && self.is_member(i))
        };
        let chosen = turn(self.next, &|m| m.live).or_else(|| {
            turn(self.next, &|m| {
                m.durable && m.qos.min(qos) > QoS::AtMostOnce
            })
        })?;
        self.next = (chosen + 1) % count;
        let (client_id, member) = &self.members[chosen];
        Some((client_id.clone(), *member))
    }

    /// Whether a member may be chosen. A durable one at a peer is one only while the store says so: the peer's word that it has left may be lost with the link,
    /// and nobody waits long for that; the store's is waited for.
    fn is_member(&self, at: usize) -> bool {
        let (client_id, member) = &self.members[at];
        let is_at_peer = ShardId::PEERS.contains(&member.shard.0);
        !(is_at_peer && member.durable) || self.stored.contains_key(client_id)
    }
}

/// One topic filter and who wants it.
#[derive(Debug)]
pub struct Filter {
    /// The filter, without `$share/...`.
    pub text: Arc<str>,
    /// Live subscribers of this shard.
    pub subscribers: Vec<Subscriber>,
    /// Bit per other shard that has live subscribers.
    pub remote: u64,
    /// Bit per shard, this one included, that has durable sessions with this filter.
    pub durable: u64,
    /// How many durable sessions of this shard have it.
    pub durable_here: u32,
    /// Shared subscriptions.
    pub groups: Vec<Group>,
    /// Jobs under which other shards were told last of this shard's live subscribers and durable sessions.
    pub told: Told,
}

/// See [`Filter::told`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Of live subscribers.
    pub live: u64,
    /// Of durable sessions.
    pub durable: u64,
}

impl Filter {
    fn is_unused(&self) -> bool {
        self.subscribers.is_empty()
            && self.remote == 0
            && self.durable == 0
            && self.durable_here == 0
            && self.groups.is_empty()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Routes {
    filters: Vec<Option<Box<Filter>>>,
    free: Vec<u32>,
    by_text: HashMap<Arc<str>, FilterIx, RandomState>,
    wildcards: Level,
    wildcard_count: usize,
    /// Live subscribers of other nodes, and all durable sessions of the cluster.
    outline: Outline,
    /// Who is away in a shared subscription is what the store says, and nobody else: a node may not have heard yet that its client has left.
    away_is_stored: bool,
}

/// A level in the tree of filters with wildcards.
#[derive(Debug, Default)]
struct Level {
    /// Next levels by their text.
    names: HashMap<Box<str>, Level, RandomState>,
    /// Next level `+`.
    plus: Option<Box<Level>>,
    /// The filter that ends here.
    here: Option<FilterIx>,
    /// The filter that ends in `#` below here.
    rest: Option<FilterIx>,
}

impl Level {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.plus.is_none() && self.here.is_none() && self.rest.is_none()
    }
}

impl Routes {
    /// Index of a filter's entry, made if there is none.
    pub fn intern(&mut self, text: &Arc<str>) -> FilterIx {
        if let Some(&ix) = self.by_text.get(text) {
            return ix;
        }
        let filter = Some(Box::new(Filter {
            text: text.clone(),
            subscribers: Vec::new(),
            remote: 0,
            durable: 0,
            durable_here: 0,
            groups: Vec::new(),
            told: Told::default(),
        }));
        let ix = match self.free.pop() {
            Some(ix) => {
                self.filters[ix as usize] = filter;
                FilterIx(ix)
            }
            None => {
                self.filters.push(filter);
                FilterIx(self.filters.len() as u32 - 1)
            }
        };
        self.by_text.insert(text.clone(), ix);
        if topic::has_wildcard(text) {
            self.wildcard_count += 1;
            *place(&mut self.wildcards, text) = Some(ix);
        }
        ix
    }

    /// Index of a filter's entry, if it has one.
    pub fn find(&self, text: &str) -> Option<FilterIx> {
        self.by_text.get(text).copied()
    }

    /// The entry.
    pub fn filter(&self, ix: FilterIx) -> &Filter {
        self.filters[ix.0 as usize]
            .as_ref()
            .expect("a FilterIx is dropped with its entry")
    }

    /// The entry, to change. Call [`Routes::tidy`] after taking something away.
    pub fn filter_mut(&mut self, ix: FilterIx) -> &mut Filter {
        self.filters[ix.0 as usize]
            .as_mut()
            .expect("a FilterIx is dropped with its entry")
    }

    /// Removes the entry if nothing is left in it.
    pub fn tidy(&mut self, ix: FilterIx) {
        if !self.filter(ix).is_unused() {
            return;
        }
        let filter = self.filters[ix.0 as usize].take().expect("just looked at");
        self.free.push(ix.0);
        self.by_text.remove(&filter.text);
        if topic::has_wildcard(&filter.text) {
            self.wildcard_count -= 1;
            let levels: Vec<&str> = filter.text.split('/').collect();
            prune(&mut self.wildcards, &levels);
        }
    }

    /// Appends the filters that a topic name matches. MQTT 5.0 section 4.7.
    pub fn matching(&self, name: &str, found: &mut Vec<FilterIx>) {
        if let Some(&ix) = self.by_text.get(name) {
            found.push(ix);
        }
        if self.wildcard_count > 0 {
            collect(&self.wildcards, Some(name), name.starts_with('$'), found);
        }
    }

    /// Adds or changes a live subscriber. Whether it is the filter's first on this shard.
    pub fn subscribe(&mut self, ix: FilterIx, subscriber: Subscriber) -> bool {
        let subscribers = &mut self.filter_mut(ix).subscribers;
        match subscribers
            .iter_mut()
            .rev()
            .find(|s| s.slot == subscriber.slot)
        {
            Some(known) => {
                *known = subscriber;
                false
            }
            None => {
                if subscribers.is_empty() {
                    // Most filters have one subscriber.
                    subscribers.reserve_exact(1);
                }
                subscribers.push(subscriber);
                subscribers.len() == 1
            }
        }
    }

    /// Removes a live subscriber. Whether it was the filter's last on this shard. The entry stays until [`Routes::tidy`].
    pub fn unsubscribe(&mut self, ix: FilterIx, slot: u32) -> bool {
        let subscribers = &mut self.filter_mut(ix).subscribers;
        let Some(at) = subscribers.iter().position(|s| s.slot == slot) else {
            return false;
        };
        subscribers.swap_remove(at);
        if subscribers.is_empty() {
            *subscribers = Vec::new();
        }
        subscribers.is_empty()
    }

    /// Routes of a node of a cluster.
    pub fn of_cluster() -> Routes {
        Routes {
            away_is_stored: true,
            ..Routes::default()
        }
    }

    /// Sets, changes or (`None`) removes a member of the shared subscription `text` of the filter behind `ix`.
    pub fn set_member(
        &mut self,
        ix: FilterIx,
        text: &Arc<str>,
        client_id: &Arc<str>,
        member: Option<Member>,
    ) {
        let member = match self.away_is_stored {
            true => member
                .filter(|member| member.live)
                .or_else(|| self.stored_member(ix, text, client_id)),
            false => member,
        };
        self.put_member(ix, text, client_id, member);
    }

    fn put_member(
        &mut self,
        ix: FilterIx,
        text: &Arc<str>,
        client_id: &Arc<str>,
        member: Option<Member>,
    ) {
        let groups = &mut self.filter_mut(ix).groups;
        let at = groups.iter().position(|g| g.text == *text);
        match (at, member) {
            (None, None) => {}
            (None, Some(member)) => groups.push(Group {
                text: text.clone(),
                members: vec![(client_id.clone(), member)],
                stored: HashMap::default(),
                next: 0,
            }),
            (Some(at), member) => {
                let group = &mut groups[at];
                let known = group.members.iter().position(|(id, _)| id == client_id);
                match (known, member) {
                    (Some(known), Some(member)) => group.members[known].1 = member,
                    (None, Some(member)) => group.members.push((client_id.clone(), member)),
                    (Some(known), None) => {
                        group.members.remove(known);
                        if group.next > known {
                            group.next -= 1;
                        }
                    }
                    (None, None) => {}
                }
                if group.members.is_empty() {
                    groups.remove(at);
                } else {
                    group.next %= group.members.len();
                }
            }
        }
    }

    /// Whether what a shard says of a member is the latest: who has a client's connection knows best. A client moves from shard to shard only with its
    /// connection, and words of different shards may overtake each other.
    pub fn may_say(
        &self,
        ix: FilterIx,
        text: &Arc<str>,
        client_id: &Arc<str>,
        from: ShardId,
        member: Option<&Member>,
    ) -> bool {
        let Some(known) = self.member(ix, text, client_id) else {
            return true;
        };
        if known.shard == from || !known.live {
            return true;
        }
        // A node may not have heard yet that a client was claimed elsewhere.
        member.is_some_and(|member| {
            member.live && (member.epoch >= known.epoch || member.epoch == Epoch(0))
        })
    }

    fn member(&self, ix: FilterIx, text: &Arc<str>, client_id: &Arc<str>) -> Option<&Member> {
        let group = self.filter(ix).groups.iter().find(|g| g.text == *text)?;
        let (_, member) = group.members.iter().find(|(id, _)| id == client_id)?;
        Some(member)
    }

    fn stored_member(&self, ix: FilterIx, text: &Arc<str>, client_id: &Arc<str>) -> Option<Member> {
        let group = self.filter(ix).groups.iter().find(|g| g.text == *text)?;
        group.stored.get(client_id).copied()
    }

    /// Sets or removes a durable member as the store knows it. One that is connected is known better by its node.
    pub fn set_stored_member(
        &mut self,
        text: &Arc<str>,
        client_id: &Arc<str>,
        member: Option<Member>,
    ) {
        let Ok(Some((_, behind))) = topic::parse_shared(text) else {
            return;
        };
        let ix = self.intern(&behind.into());
        let is_live = self
            .member(ix, text, client_id)
            .is_some_and(|known| known.live);
        let groups = &mut self.filter_mut(ix).groups;
        if let Some(group) = groups.iter_mut().find(|g| g.text == *text) {
            group.stored.remove(client_id);
        }
        if !is_live {
            self.put_member(ix, text, client_id, member);
        }
        let groups = &mut self.filter_mut(ix).groups;
        if let (Some(group), Some(member)) = (groups.iter_mut().find(|g| g.text == *text), member) {
            group.stored.insert(client_id.clone(), member);
        }
        self.tidy(ix);
    }

    /// Forgets what a peer had: its live subscribers and members. Durable members remain as the store knows them; with [`ShardId::STORE`] that is
    /// forgotten.
    pub fn forget_peer(&mut self, peer: ShardId) {
        let bit = !(1 << peer.0);
        if let Some(bit) = outline_bit(peer) {
            self.outline.forget(bit);
        }
        for ix in (0..self.filters.len() as u32).map(FilterIx) {
            let Some(filter) = &mut self.filters[ix.0 as usize] else {
                continue;
            };
            filter.remote &= bit;
            filter.durable &= bit;
            for group in &mut filter.groups {
                if peer == ShardId::STORE {
                    group.stored.clear();
                }
                let stored = &group.stored;
                group.members.retain_mut(|(client_id, member)| {
                    if member.shard != peer {
                        return true;
                    }
                    let known = stored.get(client_id);
                    if let Some(known) = known {
                        *member = *known;
                    }
                    known.is_some()
                });
                group.next = match group.members.len() {
                    0 => 0,
                    count => group.next % count,
                };
            }
            filter.groups.retain(|group| !group.members.is_empty());
            self.tidy(ix);
        }
    }

    /// Forgets that another shard has live subscribers or durable sessions with a filter, or learns that it has.
    pub fn set_remote(&mut self, text: &Arc<str>, shard: ShardId, durable: bool, present: bool) {
        let of_cluster = outline_bit(shard).filter(|_| durable == (shard == ShardId::STORE));
        if let Some(bit) = of_cluster {
            if present && self.outline.add(text, bit) {
                return;
            }
            if !present {
                self.outline.remove(text, bit);
                // It may have come while there was no room for its shape.
                if self.find(text).is_none() {
                    return;
                }
            }
        }
        let ix = self.intern(text);
        let filter = self.filter_mut(ix);
        let bits = if durable {
            &mut filter.durable
        } else {
            &mut filter.remote
        };
        if present {
            *bits |= 1 << shard.0;
        } else {
            *bits &= !(1 << shard.0);
            self.tidy(ix);
        }
    }

    /// Visits the filters of a topic name that other nodes have live subscribers for (a bit each), or durable sessions.
    pub fn matching_elsewhere(&self, name: &str, mut visit: impl FnMut(&str, u64, bool)) {
        const STORE: u32 = 1 << (ShardId::STORE.0 - ShardId::PEERS.start);
        self.outline.matching(name, |filter, bits| {
            let live = u64::from(bits & !STORE) << ShardId::PEERS.start;
            visit(filter, live, bits & STORE != 0);
        });
    }

    /// Number of filters, those of other nodes counted once more.
    pub fn len(&self) -> usize {
        self.by_text.len() + self.outline.len()
    }
}

/// The bit of a peer, or of the store, in the outline.
fn outline_bit(shard: ShardId) -> Option<u32> {
    let number = shard.0.checked_sub(ShardId::PEERS.start)?;
    1_u32.checked_shl(number.into())
}

/// The place in the tree where a filter's index belongs; levels are made as needed.
fn place<'a>(root: &'a mut Level, text: &str) -> &'a mut Option<FilterIx> {
    let mut level = root;
    for name in text.split('/') {
        match name {
            "#" => return &mut level.rest,
            "+" => level = level.plus.get_or_insert_default(),
            name => {
                if !level.names.contains_key(name) {
                    level.names.insert(name.into(), Level::default());
                }
                level = level.names.get_mut(name).expect("just inserted");
            }
        }
    }
    &mut level.here
}

/// Removes the filter of these levels and the levels that it leaves empty.
fn prune(level: &mut Level, names: &[&str]) {
    match names {
        [] => level.here = None,
        ["#"] => level.rest = None,
        ["+", rest @ ..] => {
            if let Some(next) = &mut level.plus {
                prune(next, rest);
                if next.is_empty() {
                    level.plus = None;
                }
            }
        }
        [name, rest @ ..] => {
            if let Some(next) = level.names.get_mut(*name) {
                prune(next, rest);
                if next.is_empty() {
                    level.names.remove(*name);
                }
            }
        }
    }
}

/// Walks the tree along the levels of a name. `rest` is `None` after the last level; `dollar` bars wildcards at the first level [MQTT-4.7.2-1].
fn collect(level: &Level, rest: Option<&str>, dollar: bool, found: &mut Vec<FilterIx>) {
    if let Some(ix) = level.rest.filter(|_| !dollar) {
        found.push(ix);
    }
    let Some(rest) = rest else {
        found.extend(level.here);
        return;
    };
    let (name, rest) = match rest.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (rest, None),
    };
    if let Some(next) = level.names.get(name) {
        collect(next, rest, false, found);
    }
    if let Some(next) = level.plus.as_ref().filter(|_| !dollar) {
        collect(next, rest, false, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscriber(slot: u32) -> Subscriber {
        Subscriber {
            slot,
            subscription_id: 0,
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            durable: false,
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{0,2}", Just("+".to_owned()), Just("$x".to_owned())]
    }

    fn filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec(level(), 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
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
            filters in proptest::collection::hash_set(filter(), 1..12),
            names in proptest::collection::vec(name(), 1..8),
            removed in any::<u16>(),
        ) {
            let mut routes = Routes::default();
            let filters: Vec<Arc<str>> = filters.iter().map(|f| f.as_str().into()).collect();
            for (slot, text) in filters.iter().enumerate() {
                let ix = routes.intern(text);
                prop_assert!(routes.subscribe(ix, subscriber(slot as u32)));
            }
            let mut left = Vec::new();
            for (slot, text) in filters.iter().enumerate() {
                if removed >> slot & 1 == 1 {
                    let ix = routes.find(text).unwrap();
                    prop_assert!(routes.unsubscribe(ix, slot as u32));
                    routes.tidy(ix);
                } else {
                    left.push(text.clone());
                }
            }
            prop_assert_eq!(routes.len(), left.len());
            for name in names.iter().filter(|n| !n.is_empty()) {
                let mut found = Vec::new();
                routes.matching(name, &mut found);
                let mut found: Vec<_> = found.iter().map(|&ix| routes.filter(ix).text.clone()).collect();
                let mut expected: Vec<_> = left.iter().filter(|f| topic::matches(f, name)).cloned().collect();
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
            if left.is_empty() {
                prop_assert!(routes.wildcards.is_empty());
            }
        }
    }

    #[test]
    fn who_claimed_a_client_last_says_where_it_is() {
        let mut routes = Routes::default();
        let ix = routes.intern(&"a".into());
        let (text, id): (Arc<str>, Arc<str>) = ("$share/g/a".into(), "x".into());
        let member = |shard, epoch, live| Member {
            shard: ShardId(shard),
            qos: QoS::AtLeastOnce,
            durable: false,
            live,
            epoch: Epoch(epoch),
            subscription_id: None,
            retain_as_published: false,
        };
        let known = member(1, 7, true);
        for (from, said, expected) in [
            (2, Some(member(2, 8, true)), true),
            (2, Some(member(2, 6, true)), false),
            (2, Some(member(2, 0, true)), true),
            (2, Some(member(2, 8, false)), false),
            (2, None, false),
            (1, Some(member(1, 6, true)), true),
            (1, None, true),
        ] {
            routes.set_member(ix, &text, &id, Some(known));
            let may = routes.may_say(ix, &text, &id, ShardId(from), said.as_ref());
            assert_eq!(may, expected, "{from} says {said:?}");
        }
    }

    #[test]
    fn a_group_takes_turns_and_falls_back_to_members_that_can_wait() {
        let mut routes = Routes::default();
        let ix = routes.intern(&"a".into());
        let text: Arc<str> = "$share/g/a".into();
        let member = |live| Member {
            shard: ShardId(0),
            qos: QoS::AtLeastOnce,
            durable: true,
            live,
            epoch: Epoch(0),
            subscription_id: None,
            retain_as_published: false,
        };
        for id in ["x", "y", "z"] {
            routes.set_member(ix, &text, &id.into(), Some(member(true)));
        }
        let pick = |routes: &mut Routes, qos| {
            routes.filter_mut(ix).groups[0]
                .pick(qos)
                .map(|(id, _)| id.to_string())
        };
        let picked: Vec<_> = (0..4)
            .filter_map(|_| pick(&mut routes, QoS::AtMostOnce))
            .collect();
        assert_eq!(picked, ["x", "y", "z", "x"]);
        routes.set_member(ix, &text, &"y".into(), Some(member(false)));
        assert_eq!(pick(&mut routes, QoS::AtMostOnce).as_deref(), Some("z"));
        for id in ["x", "z"] {
            routes.set_member(ix, &text, &id.into(), Some(member(false)));
        }
        assert_eq!(pick(&mut routes, QoS::AtMostOnce), None);
        assert_eq!(pick(&mut routes, QoS::AtLeastOnce).as_deref(), Some("x"));
    }
}
