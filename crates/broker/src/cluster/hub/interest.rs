//! What the node's shards have live subscribers for, as peers need to know it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ids::{AppId, ShardId},
    mail::{Interest, Member},
};

/// Interest of all shards of the node, taken together.
#[derive(Debug, Default)]
pub struct LocalInterest {
    /// Filters by the shards that have live subscribers, a bit each.
    live: BTreeMap<(AppId, Arc<str>), u64>,
    /// Members of shared subscriptions: app, whole filter, client.
    members: BTreeMap<(AppId, Arc<str>, Arc<str>), Member>,
}

impl LocalInterest {
    /// Takes what a shard says. Whether peers route differently by it.
    pub fn note(&mut self, from: ShardId, app: &AppId, change: &Interest) -> bool {
        match change {
            Interest::Live { filter, present } => {
                let key = (app.clone(), filter.clone());
                let shards = self.live.entry(key.clone()).or_default();
                let before = *shards;
                match present {
                    true => *shards |= 1 << from.0,
                    false => *shards &= !(1 << from.0),
                }
                let after = *shards;
                if after == 0 {
                    self.live.remove(&key);
                }
                (before == 0) != (after == 0)
            }
            Interest::Member {
                filter,
                client_id,
                member,
            } => {
                let key = (app.clone(), filter.clone(), client_id.clone());
                // One that is away is known from the store.
                match member.filter(|member| member.live) {
                    Some(member) => self.members.insert(key, member),
                    None => self.members.remove(&key),
                };
                true
            }
            // The store announces it.
            Interest::Durable { .. } => false,
        }
    }

    /// All of it, for a peer that knows nothing.
    pub fn all(&self) -> impl Iterator<Item = (AppId, Interest)> {
        let live = self.live.keys().map(|(app, filter)| {
            let filter = filter.clone();
            let present = true;
            (app.clone(), Interest::Live { filter, present })
        });
        let members = self
            .members
            .iter()
            .map(|((app, filter, client_id), member)| {
                let change = Interest::Member {
                    filter: filter.clone(),
                    client_id: client_id.clone(),
                    member: Some(*member),
                };
                (app.clone(), change)
            });
        live.chain(members)
    }
}
