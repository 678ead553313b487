//! What is judged of an app when a client connects: that it stays, and its quota of connections.
//!
//! Devices of an app that is being deleted are refused, and those that are connected are sent away.
//!
//! Each node grants its share: the app's quota, divided by the nodes that are registered, rounded up. So all nodes together may exceed it by one
//! connection less than there are nodes, for a while by more when a node comes or goes, and a node that gets more than its share refuses while others have
//! room. A connection counts from its first byte, so that a client that comes back before its old connection is noticed counts twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use campanile_broker::{
    access::{Access, AuthRequest, Identity, Verdict},
    ids::AppId,
    mail::Mail,
};
use campanile_mqtt::Reason;
use campanile_push::{
    app::AppName,
    registry::{Context, apps},
    store::Unavailable,
};

use super::Inner;
use crate::net::{driver::Shared, mailbox::Letter};

/// How often quotas and deletions are read: a change holds after this time.
pub(super) const READ_EVERY: Duration = Duration::from_secs(5);

/// What this node grants.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// Connections by app; an app that is not in it has no quota.
    shares: BTreeMap<AppId, u64>,
    /// Apps that are being deleted: none.
    pub leaving: BTreeSet<AppId>,
}

/// What this node grants, as it was read last.
pub(super) type Shares = Arc<ArcSwap<Grants>>;

/// Judges as another does, and refuses those that are too many.
pub(super) struct WithinQuotas {
    pub access: Arc<dyn Access>,
    pub shared: Arc<Shared>,
    pub shares: Shares,
}

impl WithinQuotas {
    fn judge(&self, request: &AuthRequest, verdict: Verdict) -> Verdict {
        // One that is connected already only proves itself anew.
        if !matches!(verdict, Verdict::Allow { .. }) || request.identity.is_some() {
            return verdict;
        }
        let grants = self.shares.load();
        if grants.leaving.contains(&request.app) {
            tracing::debug!(app = %request.app, client_id = %request.client_id, "connect refused: the app is being deleted");
            return Verdict::Deny(Reason::NotAuthorized);
        }
        let Some(share) = grants.shares.get(&request.app) else {
            return verdict;
        };
        if connections(&self.shared, &request.app) <= *share {
            return verdict;
        }
        tracing::debug!(app = %request.app, client_id = %request.client_id, share, "connect refused: the app's quota of connections is reached");
        ::metrics::counter!("campanile_quota_refusals_total", "quota" => "connections")
            .increment(1);
        Verdict::Deny(Reason::QuotaExceeded)
    }
}

/// Connections of an app to this node, those that are not let in yet among them.
pub(super) fn connections(shared: &Shared, app: &AppId) -> u64 {
    let listeners = shared.listeners.iter();
    let of_app = listeners.filter(|listener| listener.app == *app);
    of_app.map(|listener| listener.connections() as u64).sum()
}

impl Access for WithinQuotas {
    fn authenticate(&self, request: &AuthRequest) -> Verdict {
        self.judge(request, self.access.authenticate(request))
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        self.judge(request, self.access.authenticate_slowly(request))
    }

    fn may_publish(&self, who: &Identity, client_id: &str, topic: &str) -> bool {
        self.access.may_publish(who, client_id, topic)
    }

    fn may_subscribe(&self, who: &Identity, client_id: &str, filter: &str) -> bool {
        self.access.may_subscribe(who, client_id, filter)
    }
}

/// Sends the devices of apps away that are being deleted.
pub(super) fn dismiss(shared: &Shared, grants: &Grants) {
    let is_busy = |app: &&AppId| connections(shared, app) > 0;
    for app in grants.leaving.iter().filter(is_busy) {
        tracing::info!(%app, "the app is being deleted: its connections end");
        for mailbox in &shared.mailboxes {
            mailbox.post(Letter::Mail(Mail::Dismiss(app.clone())));
        }
    }
}

/// Reads what is granted to the apps that this node has listeners of.
pub(super) fn read(node: &Arc<Inner>) -> Result<Grants, Unavailable> {
    let overview = node.cluster().overview();
    let nodes = overview.nodes.iter();
    let nodes = nodes.filter(|node| node.this || node.generation.is_some());
    let nodes = nodes.count().max(1) as u64;
    let context = Context {
        reader: &*node.reader,
        now_ms: node.shared.clock.now().0,
        unique: 0,
        actor: "",
    };
    let listeners = node.shared.listeners.iter();
    let of_listeners: BTreeSet<&AppId> = listeners.map(|listener| &listener.app).collect();
    let mut grants = Grants::default();
    for app in of_listeners {
        // A listener may have an app that nobody has made.
        let Ok(name) = AppName::new(app.as_str()) else {
            continue;
        };
        let record = apps::app(&context, &name)?;
        let quota = record.map_or(0, |record| record.quotas.connections);
        if quota > 0 {
            grants.shares.insert(app.clone(), quota.div_ceil(nodes));
        }
        if apps::deletion(&context, &name)?.is_some() {
            grants.leaving.insert(app.clone());
        }
    }
    Ok(grants)
}
