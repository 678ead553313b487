//! The cluster of a node that is alone.

use std::sync::{Arc, PoisonError};

use campanile_api::cluster::{Answer, Cluster, DrainOrder, Located, NodeStatus, Overview, Refusal};
use campanile_push::app::AppName;

use super::{Inner, totals::totals};

/// A node without a cluster: it is the only one to connect to, and there is nobody to move devices to.
pub(super) struct Alone(pub(super) Arc<Inner>);

impl Cluster for Alone {
    fn overview(&self) -> Overview {
        let node = &self.0;
        let listeners = &node.shared.listeners;
        let figures = node.store_figures.lock();
        let store_failing = figures
            .unwrap_or_else(PoisonError::into_inner)
            .failing
            .as_ref()
            .map(ToString::to_string);
        let status = NodeStatus {
            name: node.name.clone(),
            this: true,
            generation: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: node.shared.clock.started().as_millis() as u64,
            addresses: listeners.iter().map(|listener| listener.url()).collect(),
            http: String::new(),
            connections: totals(&node.shared).shard.connections,
            capacity: listeners
                .iter()
                .map(|listener| listener.max_connections() as u64)
                .sum(),
            draining: false,
            drain: None,
            leader: true,
            linked: None,
        };
        Overview {
            cluster: String::new(),
            member: false,
            membership_reachable: true,
            store_failing,
            nodes: vec![status],
        }
    }

    fn locate<'a>(&'a self, _: &'a AppName, _: &'a str) -> Answer<'a, Located> {
        refused()
    }

    fn drain<'a>(&'a self, _: &'a str, _: DrainOrder) -> Answer<'a, ()> {
        refused()
    }

    fn undrain<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused()
    }

    fn rebalance(&self) -> Answer<'_, ()> {
        refused()
    }
}

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(Refusal::Alone) })
}
