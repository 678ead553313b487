//! Keeps the keys of TLS tickets fresh: a node alone makes its own, those of a cluster use what the one that leads has written down.

use std::{sync::Arc, time::Duration};

use campanile_broker::cluster::membership::Membership;
use tokio::time::{MissedTickBehavior, interval};

use super::{Inner, cluster::Member};
use crate::net::tickets::{KEY_LEN, KeyRing, Tickets};

/// How often it is looked whether the keys have changed or should.
const EVERY: Duration = Duration::from_secs(1);
/// The setting of the cluster that holds the keys. As secret as the rest of what the ensemble keeps: give it credentials.
const SETTING: &str = "tls-tickets";

/// A ring of one key that nobody else has.
pub(super) fn own_ring(now_ms: u64) -> Result<KeyRing, getrandom::Error> {
    with_fresh_key(&KeyRing::default(), now_ms)
}

/// Runs until the node ends.
pub(super) async fn keep_fresh(node: Arc<Inner>) {
    let mut adopted: Option<Arc<str>> = None;
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now_ms = node.shared.clock.now().0;
        let tickets = &node.shared.tickets;
        let kept = match node.member.get() {
            Some(member) => keep_agreed(&node, member, &mut adopted, now_ms).await,
            None if tickets.ring().is_due(now_ms) => {
                with_fresh_key(&tickets.ring(), now_ms).map(|ring| tickets.replace(ring))
            }
            None => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "no random numbers for a new key of TLS tickets, the old one goes on being used");
        }
    }
}

/// Takes over what is written down, and writes it if that is this node's to do.
async fn keep_agreed(
    node: &Inner,
    member: &Member,
    adopted: &mut Option<Arc<str>>,
    now_ms: u64,
) -> Result<(), getrandom::Error> {
    let membership = member.zookeeper.membership();
    let tickets = &node.shared.tickets;
    let text = membership.settings.get(SETTING);
    if text != adopted.as_ref() {
        adopt(tickets, text);
        *adopted = text.cloned();
    }
    if !leads(node, &membership) || text.is_some() && !tickets.ring().is_due(now_ms) {
        return Ok(());
    }
    let ring = with_fresh_key(&tickets.ring(), now_ms)?.to_string();
    if let Err(error) = member.zookeeper.set_setting(SETTING, &ring).await {
        tracing::warn!(%error, "the keys of TLS tickets could not be written down, the old ones go on being used");
    }
    Ok(())
}

fn adopt(tickets: &Tickets, text: Option<&Arc<str>>) {
    match text.map(|text| text.parse()) {
        None => {}
        Some(Ok(ring)) => tickets.replace(ring),
        Some(Err(error)) => {
            tracing::error!(%error, setting = SETTING, "the old keys go on being used; remove the setting, and the node that leads makes new ones");
        }
    }
}

fn leads(node: &Inner, membership: &Membership) -> bool {
    membership.reachable
        && membership
            .leader
            .as_deref()
            .is_some_and(|leader| leader == &*node.name)
}

fn with_fresh_key(ring: &KeyRing, now_ms: u64) -> Result<KeyRing, getrandom::Error> {
    let mut random = [0; KEY_LEN];
    getrandom::fill(&mut random)?;
    Ok(ring.with(random, now_ms))
}
