//! What operators and the HTTP API see of the cluster, and order.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use campanile_api::cluster::{
    Answer, ClientConnection, Cluster, Connected, DrainOrder, Located, NodeStatus, Overview,
    Refusal,
};
use campanile_backends::zookeeper::Error as MembershipError;
use campanile_broker::{
    cluster::{
        membership::{Drain, Membership, Registered},
        peer::{self, Imagined},
    },
    ids::{AppId, ClientKey, Generation, MessageId},
};
use campanile_push::{app::AppName, id::PushId};
use tokio::sync::oneshot;

use super::{Member, hub::HubLetter, hub::load, relief::REBALANCE};
use crate::node::Inner;

/// How long the other nodes may take to say where a client is. The hub waits less.
const LOCATE: Duration = Duration::from_secs(2);

/// The cluster as one member shows it.
pub struct Desk {
    /// The node.
    pub node: Arc<Inner>,
    /// Its membership.
    pub member: Arc<Member>,
}

impl Desk {
    fn membership(&self) -> Arc<Membership> {
        self.member.zookeeper.membership()
    }

    fn status(
        &self,
        node: &Registered,
        membership: &Membership,
        linked: &[Generation],
    ) -> NodeStatus {
        let info = &node.info;
        let this = *info.name == *self.node.name;
        let load = if this {
            load(&self.node.shared)
        } else {
            info.load
        };
        let drain = membership.drains.get(&info.name);
        NodeStatus {
            name: info.name.to_string(),
            this,
            generation: Some(node.generation.to_string()),
            version: info.version.to_string(),
            started_ms: info.started_ms,
            addresses: info.addresses.iter().map(ToString::to_string).collect(),
            http: info.http_address.to_string(),
            connections: load.connections,
            capacity: load.capacity,
            draining: info.draining || drain.is_some(),
            drain: drain.map(|drain| DrainOrder {
                rate: (drain.rate != 0).then_some(drain.rate),
                deadline_ms: (drain.deadline_ms != 0).then_some(drain.deadline_ms),
            }),
            leader: membership.leader.as_ref() == Some(&info.name),
            linked: (!this).then(|| linked.contains(&node.generation)),
        }
    }

    fn known(&self, name: &str) -> Result<(), Refusal> {
        let membership = self.membership();
        if membership.nodes.contains_key(name) {
            return Ok(());
        }
        Err(Refusal::UnknownNode {
            name: name.to_owned(),
            known: membership.nodes.keys().map(ToString::to_string).collect(),
        })
    }
}

impl Desk {
    fn ask<'a>(&'a self, app: &'a AppName, client: &'a str, kick: bool) -> Answer<'a, Located> {
        Box::pin(async move {
            let (answer, found) = oneshot::channel();
            let client = ClientKey::new(&AppId::new(app.as_str()), client);
            self.member.hub.post(HubLetter::Ask {
                client,
                kick,
                answer,
            });
            let found = tokio::time::timeout(LOCATE, found).await;
            let found = found.ok().and_then(Result::ok);
            let silent = self.silent(found.as_ref().map(|found| &*found.silent));
            // While a client moves, two may answer: the later claim counts.
            let connections = found.unwrap_or_default().connections.into_iter();
            let latest = connections.max_by_key(|(_, connected)| connected.epoch);
            Ok(Located {
                connection: latest
                    .map(|(generation, connected)| shown(self.name_of(generation), connected)),
                silent,
            })
        })
    }
}

impl Desk {
    /// Nodes that did not answer: with those that were not asked, as they are not linked. `None`: this one did not.
    fn silent(&self, asked: Option<&[Generation]>) -> Vec<String> {
        let mut silent = self.unlinked();
        match asked {
            Some(asked) => silent.extend(asked.iter().map(|node| self.name_of(*node))),
            None => silent.push(self.node.name.clone()),
        }
        silent.sort_unstable();
        silent.dedup();
        silent
    }

    /// Nodes that are registered and not linked.
    fn unlinked(&self) -> Vec<String> {
        let membership = self.membership();
        let linked = self.member.figures.linked();
        let silent = membership.nodes.values().filter(|node| {
            *node.info.name != *self.node.name && !linked.contains(&node.generation)
        });
        silent.map(|node| node.info.name.to_string()).collect()
    }

    fn name_of(&self, generation: Generation) -> String {
        let membership = self.membership();
        let mut nodes = membership.nodes.values();
        let node = nodes.find(|node| node.generation == generation);
        node.map_or_else(|| generation.to_string(), |node| node.info.name.to_string())
    }
}

impl Cluster for Desk {
    fn overview(&self) -> Overview {
        let membership = self.membership();
        let linked = self.member.figures.linked();
        let figures = self.node.store_figures.lock();
        let store_failing = figures
            .unwrap_or_else(PoisonError::into_inner)
            .failing
            .as_ref()
            .map(ToString::to_string);
        Overview {
            cluster: self.member.spec.name.clone(),
            member: true,
            membership_reachable: membership.reachable,
            store_failing,
            nodes: membership
                .nodes
                .values()
                .map(|node| self.status(node, &membership, &linked))
                .collect(),
        }
    }

    fn locate<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        self.ask(app, client, false)
    }

    fn kick<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        self.ask(app, client, true)
    }

    fn count_connected<'a>(
        &'a self,
        app: &'a AppName,
        push: PushId,
        audience: Option<Bytes>,
    ) -> Answer<'a, Connected> {
        Box::pin(async move {
            let (answer, counted) = oneshot::channel();
            let imagined = Imagined {
                app: AppId::new(app.as_str()),
                push: MessageId(push.0),
                audience,
            };
            self.member.hub.post(HubLetter::Count { imagined, answer });
            let counted = tokio::time::timeout(LOCATE, counted).await;
            let counted = counted.ok().and_then(Result::ok);
            let silent = self.silent(counted.as_ref().map(|counted| &*counted.silent));
            let live = counted.map_or_else(Default::default, |counted| counted.live);
            Ok(Connected {
                known: live.known,
                others: live.others,
                silent,
            })
        })
    }

    fn drain<'a>(&'a self, node: &'a str, order: DrainOrder) -> Answer<'a, ()> {
        Box::pin(async move {
            self.known(node)?;
            let order = Drain {
                rate: order.rate.unwrap_or(self.member.spec.drain_rate),
                deadline_ms: order.deadline_ms.unwrap_or(0),
            };
            let ordered = self.member.zookeeper.order_drain(node, order).await;
            ordered.map_err(unreachable)
        })
    }

    fn undrain<'a>(&'a self, node: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let cancelled = self.member.zookeeper.cancel_drain(node).await;
            cancelled.map_err(unreachable)
        })
    }

    fn rebalance(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let now = self.node.shared.clock.now().0.to_string();
            let set = self.member.zookeeper.set_setting(REBALANCE, &now).await;
            set.map_err(unreachable)
        })
    }
}

/// A connection as the API and operators see it.
pub fn shown(node: String, connected: peer::Connected) -> ClientConnection {
    ClientConnection {
        node,
        epoch: connected.epoch.0,
        protocol_level: connected.protocol_level,
        subscriptions: connected.subscriptions,
        in_flight: connected.in_flight,
        since_ms: connected.since.0,
        address: connected.peer.map(|peer| peer.to_string()),
        filters: connected.filters.iter().map(ToString::to_string).collect(),
        behind: connected.behind,
        inbox_waits: connected.inbox_waits,
    }
}

fn unreachable(error: MembershipError) -> Refusal {
    Refusal::Unreachable(error.to_string())
}
