//! A copy of the cluster's part of ZooKeeper's tree, kept current by watches.
//!
//! Each directory and each entry has one one-shot watch. A watch that fires marks its place stale, and [`Tree::refresh`] reads what is stale and
//! sets the watch anew. Persistent watches would be simpler, but the client loses them when it reconnects.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;
use zookeeper_client::{Client, Error, OneshotWatcher, Stat};

/// What the cluster keeps, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Registrations, ephemeral, by the node's name.
    Nodes,
    /// Candidates for the lead, ephemeral and sequential; the lowest leads.
    Leader,
    /// Orders to drain by the node's name.
    Drains,
    /// Settings by key.
    Settings,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Nodes, Kind::Leader, Kind::Drains, Kind::Settings];

    /// Its directory, under the chroot.
    pub(super) fn path(self) -> &'static str {
        match self {
            Kind::Nodes => "/nodes",
            Kind::Leader => "/leader",
            Kind::Drains => "/drains",
            Kind::Settings => "/settings",
        }
    }

    /// The path of one of its entries.
    pub(super) fn entry(self, name: &str) -> String {
        format!("{}/{name}", self.path())
    }
}

/// An entry as it was read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) data: Vec<u8>,
    pub(super) stat: Stat,
}

/// The copy. Of one session: watches end with it.
#[derive(Debug)]
pub(super) struct Tree {
    directories: BTreeMap<Kind, Directory>,
    watches: JoinSet<Place>,
}

#[derive(Debug)]
struct Directory {
    entries: BTreeMap<String, Entry>,
    is_stale: bool,
    is_watched: bool,
    stale_entries: BTreeSet<String>,
    watched_entries: BTreeSet<String>,
}

/// What a watch is on: a directory's list, or one entry.
type Place = (Kind, Option<String>);

impl Tree {
    /// All is stale.
    pub(super) fn new() -> Tree {
        let directory = |kind| {
            let directory = Directory {
                entries: BTreeMap::new(),
                is_stale: true,
                is_watched: false,
                stale_entries: BTreeSet::new(),
                watched_entries: BTreeSet::new(),
            };
            (kind, directory)
        };
        Tree {
            directories: Kind::ALL.into_iter().map(directory).collect(),
            watches: JoinSet::new(),
        }
    }

    /// The entries of a kind by name.
    pub(super) fn entries(&self, kind: Kind) -> &BTreeMap<String, Entry> {
        &self.directories[&kind].entries
    }

    /// Makes the next [`Tree::refresh`] read everything. For when events may have been missed.
    pub(super) fn distrust(&mut self) {
        for kind in Kind::ALL {
            self.distrust_kind(kind);
        }
    }

    /// Makes the next [`Tree::refresh`] read all of a kind.
    pub(super) fn distrust_kind(&mut self, kind: Kind) {
        let directory = self.directory(kind);
        directory.is_stale = true;
        directory
            .stale_entries
            .extend(directory.entries.keys().cloned());
    }

    /// Waits until something has changed in the ensemble; never comes back if nothing is watched.
    pub(super) async fn changed(&mut self) {
        match self.watches.join_next().await {
            Some(Ok(place)) => self.on_watch(place),
            // A watch that failed says nothing about where.
            Some(Err(_)) => self.distrust(),
            None => std::future::pending().await,
        }
        // Events come in bursts (a server's restart, a node's entries): one turn takes in all of them.
        while let Some(Ok(place)) = self.watches.try_join_next() {
            self.on_watch(place);
        }
    }

    /// Reads what is stale. May be dropped half-way: what was not read stays stale.
    pub(super) async fn refresh(&mut self, client: &Client) -> Result<(), Error> {
        for kind in Kind::ALL {
            if self.directory(kind).is_stale {
                self.read_directory(kind, client).await?;
            }
            while let Some(name) = self.directory(kind).stale_entries.first().cloned() {
                self.read_entry(kind, &name, client).await?;
            }
        }
        Ok(())
    }

    async fn read_directory(&mut self, kind: Kind, client: &Client) -> Result<(), Error> {
        let names = if self.directory(kind).is_watched {
            client.list_children(kind.path()).await?
        } else {
            let (names, watcher) = client.list_and_watch_children(kind.path()).await?;
            self.watch((kind, None), watcher);
            names
        };
        let names: BTreeSet<String> = names.into_iter().collect();
        let directory = self.directory(kind);
        directory.is_stale = false;
        directory.is_watched = true;
        directory.entries.retain(|name, _| names.contains(name));
        let unknown = names
            .into_iter()
            .filter(|name| !directory.entries.contains_key(name));
        directory.stale_entries.extend(unknown);
        Ok(())
    }

    async fn read_entry(&mut self, kind: Kind, name: &str, client: &Client) -> Result<(), Error> {
        let path = kind.entry(name);
        let read = if self.directory(kind).watched_entries.contains(name) {
            client.get_data(&path).await
        } else {
            let read = client.get_and_watch_data(&path).await;
            read.map(|(data, stat, watcher)| {
                self.watch((kind, Some(name.to_owned())), watcher);
                self.directory(kind).watched_entries.insert(name.to_owned());
                (data, stat)
            })
        };
        let directory = self.directory(kind);
        match read {
            Ok((data, stat)) => {
                directory
                    .entries
                    .insert(name.to_owned(), Entry { data, stat });
            }
            Err(Error::NoNode) => {
                directory.entries.remove(name);
            }
            Err(error) => return Err(error),
        }
        directory.stale_entries.remove(name);
        Ok(())
    }

    fn watch(&mut self, place: Place, watcher: OneshotWatcher) {
        self.watches.spawn(async move {
            watcher.changed().await;
            place
        });
    }

    fn on_watch(&mut self, (kind, name): Place) {
        let directory = self.directory(kind);
        match name {
            None => {
                directory.is_watched = false;
                directory.is_stale = true;
            }
            Some(name) => {
                directory.watched_entries.remove(&name);
                directory.stale_entries.insert(name);
            }
        }
    }

    fn directory(&mut self, kind: Kind) -> &mut Directory {
        self.directories
            .get_mut(&kind)
            .expect("there is a directory of every kind")
    }
}
