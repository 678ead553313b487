//! What the tree means: entries become nodes, orders and settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use campanile_broker::{
    cluster::membership::{Drain, Registered},
    ids::Generation,
};

use super::{
    payload,
    tree::{Entry, Kind},
};

/// The tree, understood.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) nodes: BTreeMap<Arc<str>, Registered>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) drains: BTreeMap<Arc<str>, Drain>,
    pub(super) settings: BTreeMap<Arc<str>, Arc<str>>,
    /// Entries that cannot be understood, and why. They count as absent.
    pub(super) unreadable: BTreeSet<String>,
}

impl View {
    /// Of the entries of each kind.
    pub(super) fn of<'a>(entries: impl Fn(Kind) -> &'a BTreeMap<String, Entry>) -> View {
        let mut view = View::default();
        for (name, entry) in entries(Kind::Nodes) {
            let info = payload::read_node(name, &entry.data);
            if let Some(info) = view.readable(Kind::Nodes, name, info) {
                let generation = Generation(entry.stat.czxid.cast_unsigned());
                let node = Registered { generation, info };
                view.nodes.insert(name.as_str().into(), node);
            }
        }
        for (name, entry) in entries(Kind::Drains) {
            let order = payload::read_drain(&entry.data);
            if let Some(order) = view.readable(Kind::Drains, name, order) {
                view.drains.insert(name.as_str().into(), order);
            }
        }
        for (key, entry) in entries(Kind::Settings) {
            let value = std::str::from_utf8(&entry.data);
            if let Some(value) = view.readable(Kind::Settings, key, value) {
                view.settings.insert(key.as_str().into(), value.into());
            }
        }
        // Names are `n-` and ten digits: their order is that of their creation.
        if let Some((name, entry)) = entries(Kind::Leader).first_key_value() {
            let candidate = payload::read_candidate(&entry.data);
            let candidate = view.readable(Kind::Leader, name, candidate);
            view.leader = candidate.map(|candidate| candidate.name.into());
        }
        view
    }

    fn readable<T, E: Display>(&mut self, kind: Kind, name: &str, read: Result<T, E>) -> Option<T> {
        let note = |error: &E| {
            self.unreadable
                .insert(format!("{}: {error}", kind.entry(name)));
        };
        read.inspect_err(note).ok()
    }
}

#[cfg(test)]
mod tests {
    use zookeeper_client::Stat;

    use super::*;

    fn entry(data: &str) -> Entry {
        Entry {
            data: data.into(),
            stat: Stat {
                czxid: 0x1_0000_0002,
                mzxid: 0,
                pzxid: 0,
                ctime: 0,
                mtime: 0,
                version: 0,
                cversion: 0,
                aversion: 0,
                ephemeral_owner: 1,
                data_length: 0,
                num_children: 0,
            },
        }
    }

    fn view(kind: Kind, entries: &[(&str, &str)]) -> View {
        let none = BTreeMap::new();
        let entries: BTreeMap<String, Entry> = entries
            .iter()
            .map(|(name, data)| ((*name).to_owned(), entry(data)))
            .collect();
        View::of(|asked| if asked == kind { &entries } else { &none })
    }

    #[test]
    fn the_creation_id_is_the_generation() {
        let data = r#"{"format":1,"instance":"x","peer_address":"10.0.0.1:7000"}"#;
        let view = view(Kind::Nodes, &[("a", data)]);
        assert_eq!(view.nodes["a"].generation, Generation(0x1_0000_0002));
    }

    #[test]
    fn the_lowest_candidate_leads() {
        let candidates = [
            ("n-0000000010", r#"{"format":1,"name":"b","instance":"y"}"#),
            ("n-0000000009", r#"{"format":1,"name":"a","instance":"x"}"#),
        ];
        let view = view(Kind::Leader, &candidates);
        assert_eq!(view.leader.as_deref(), Some("a"));
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_named() {
        let view = view(Kind::Drains, &[("a", "soon"), ("b", r#"{"format":1}"#)]);
        assert_eq!(view.drains.len(), 1);
        let named = view.unreadable.first().expect("one is unreadable");
        assert!(named.starts_with("/drains/a: "), "{named}");
    }
}
