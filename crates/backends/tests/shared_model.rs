//! Any history of a store that nodes share: it knows whose each connection is, and its changes add up to its snapshot.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use campanile_backends::suite::{APP, World, client, subscription, will};
use campanile_broker::{
    ids::{AppId, Generation, Offset},
    store::{
        Change, ChangesQuery, Claimed, Command, Outcome, Page, Previous, Query, StoreError,
        Subscribe,
    },
};
use common::MemoryPlace;
use proptest::prelude::*;

const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
const FILTERS: [&str; 4] = ["x", "y", "$share/g/x", "$share/g/y"];
const NODES: [Generation; 3] = [Generation(1), Generation(2), Generation(3)];

#[derive(Clone, Debug)]
enum Step {
    Claim {
        client: usize,
        node: usize,
        expiry_seconds: u32,
        clean_start: bool,
    },
    Release {
        client: usize,
        expiry_seconds: u32,
    },
    Subscribe {
        client: usize,
        filter: usize,
        remove: bool,
    },
    Restamp {
        client: usize,
        node: usize,
    },
    Void {
        node: usize,
        limit: u32,
    },
    Sweep {
        after_seconds: u32,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS.len();
    let node = 0..NODES.len();
    let expiry = prop_oneof![Just(0u32), Just(30), Just(u32::MAX)];
    prop_oneof![
        4 => (client.clone(), node.clone(), expiry.clone(), any::<bool>()).prop_map(
            |(client, node, expiry_seconds, clean_start)| Step::Claim {
                client,
                node,
                expiry_seconds,
                clean_start,
            }
        ),
        2 => (client.clone(), expiry)
            .prop_map(|(client, expiry_seconds)| Step::Release { client, expiry_seconds }),
        6 => (client.clone(), 0..FILTERS.len(), any::<bool>())
            .prop_map(|(client, filter, remove)| Step::Subscribe { client, filter, remove }),
        2 => (client, node.clone()).prop_map(|(client, node)| Step::Restamp { client, node }),
        2 => (node, 1..4u32).prop_map(|(node, limit)| Step::Void { node, limit }),
        2 => (0..40u32).prop_map(|after_seconds| Step::Sweep { after_seconds }),
        1 => Just(Step::Reopen),
    ]
}

struct Model {
    world: World,
    /// Connections with the nodes that have them.
    connected: BTreeMap<&'static str, (Generation, Claimed)>,
}

impl Model {
    fn take(&mut self, step: Step) {
        match step {
            Step::Claim {
                client,
                node,
                expiry_seconds,
                clean_start,
            } => self.claim(CLIENTS[client], NODES[node], expiry_seconds, clean_start),
            Step::Release {
                client,
                expiry_seconds,
            } => {
                if let Some((_, claimed)) = self.connected.remove(CLIENTS[client]) {
                    self.world
                        .release(CLIENTS[client], &claimed, expiry_seconds);
                }
            }
            Step::Subscribe {
                client,
                filter,
                remove,
            } => self.subscribe(CLIENTS[client], FILTERS[filter], remove),
            Step::Restamp { client, node } => {
                if let Some((owner, claimed)) = self.connected.get_mut(CLIENTS[client]) {
                    *owner = NODES[node];
                    let claimed = claimed.clone();
                    let outcome = self.world.restamp(CLIENTS[client], &claimed, NODES[node]);
                    assert_eq!(outcome, Ok(Outcome::Done));
                }
            }
            Step::Void { node, limit } => self.void(NODES[node], limit),
            Step::Sweep { after_seconds } => {
                self.world.pass_seconds(after_seconds);
                self.world.sweep();
            }
            Step::Reopen => self.world.reopen(),
        }
    }

    fn claim(&mut self, name: &'static str, node: Generation, expiry: u32, clean_start: bool) {
        let testament = will(self.world.message("w", "will"), 10);
        let claimed = self.world.claim_with(name, |claim| {
            (claim.owner, claim.expiry_seconds) = (node, expiry);
            (claim.clean_start, claim.will) = (clean_start, Some(testament));
        });
        let before = self.connected.insert(name, (node, claimed.clone()));
        let expected = before.as_ref().map(|(generation, claimed)| Previous {
            generation: *generation,
            epoch: claimed.epoch,
        });
        assert_eq!(claimed.previous, expected);
        if let Some((_, old)) = before {
            let late = self.world.progress(name, &old, |_| {});
            assert_eq!(late, Err(StoreError::Fenced));
        }
    }

    fn subscribe(&mut self, name: &'static str, filter: &str, remove: bool) {
        let Some((_, claimed)) = self.connected.get(name) else {
            return;
        };
        let subscribe = Subscribe {
            client: client(name),
            epoch: claimed.epoch,
            add: if remove {
                vec![]
            } else {
                vec![subscription(filter)]
            },
            remove: if remove { vec![filter.into()] } else { vec![] },
            inbox: vec![],
        };
        self.world.done(Command::Subscribe(subscribe));
    }

    /// Every connection has a will, so that wills name those that were lost.
    fn void(&mut self, node: Generation, limit: u32) {
        let voided = self.world.void_some(node, limit);
        for owed in &voided.wills {
            let lost = self.connected.remove(&*owed.client.client_id);
            assert_eq!(lost.map(|(owner, _)| owner), Some(node));
        }
        let left = self.connected.values().filter(|(owner, _)| *owner == node);
        assert_eq!(left.count() > 0, voided.more);
    }

    /// What a node knows that reads all changes is what one is told that reads a snapshot.
    fn check_changes(&mut self) {
        let app = AppId::new(APP);
        let Page::Snapshot(snapshot) = self.world.read(&Query::Snapshot { app: app.clone() })
        else {
            panic!("no snapshot");
        };
        let news = self.world.changes(ChangesQuery {
            app,
            changes: Offset(0),
            logs: vec![],
            mailbox: NODES[0],
            notes: Offset(0),
            limit: 10_000,
        });
        let mut filters = BTreeSet::new();
        let mut members = BTreeSet::new();
        for entry in news.changes {
            let is_news = match entry.change {
                Change::Filter { filter, present } if present => filters.insert(filter),
                Change::Filter { filter, .. } => filters.remove(&filter),
                Change::Member {
                    filter,
                    client_id,
                    member,
                } if member.is_some() => members.insert((filter, client_id)),
                Change::Member {
                    filter, client_id, ..
                } => members.remove(&(filter, client_id)),
                other @ (Change::Retained { .. }
                | Change::Profile { .. }
                | Change::Campaign { .. }) => {
                    panic!("nothing is retained, nothing is known of devices: {other:?}")
                }
            };
            assert!(is_news);
        }
        assert_eq!(filters, snapshot.filters.into_iter().collect());
        let listed = snapshot.members.into_iter();
        let listed = listed.map(|(filter, client_id, _)| (filter, client_id));
        assert_eq!(members, listed.collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_adds_up(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model {
            world: World::shared(MemoryPlace::default()),
            connected: BTreeMap::new(),
        };
        for step in steps {
            model.take(step);
        }
        model.check_changes();
        for node in NODES {
            model.void(node, 100);
        }
        assert!(model.connected.is_empty());
        model.world.pass_seconds(60);
        model.world.sweep();
        model.check_changes();
    }
}
