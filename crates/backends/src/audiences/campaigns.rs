//! Campaigns as a shard knows them: the rows, read once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use campanile_broker::{
    audience::{Standing, Turn},
    ids::{AppId, MessageId, Millis},
    lane::Lane,
    message::{Kind, Message},
    store::QoS,
};
use campanile_push::{
    app::AppName,
    campaign::{self, Campaign, Candidate, Memory, Row},
    id::PushId,
    lanes::Priority,
};

/// Campaigns that somebody must look after, as the shards hear of them: the node that leads does.
#[derive(Debug, Default)]
pub struct Watched(Mutex<BTreeSet<(AppName, PushId)>>);

impl Watched {
    /// All of them.
    pub fn list(&self) -> Vec<(AppName, PushId)> {
        self.lock().iter().cloned().collect()
    }

    fn set(&self, app: &AppId, push: PushId, is_watched: bool) {
        let Ok(app) = AppName::new(app.as_str()) else {
            return;
        };
        match is_watched {
            true => self.lock().insert((app, push)),
            false => self.lock().remove(&(app, push)),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(AppName, PushId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The campaigns that are under way, by app.
#[derive(Default)]
pub struct Known {
    apps: HashMap<AppId, BTreeMap<MessageId, Campaign>>,
    watched: Arc<Watched>,
}

impl Known {
    pub fn new(watched: Arc<Watched>) -> Known {
        Known {
            watched,
            ..Known::default()
        }
    }

    /// See [`campanile_broker::audience::Audiences::row`].
    pub fn set(&mut self, app: &AppId, push: MessageId, row: Option<&Bytes>) -> Standing {
        let id = PushId(push.0);
        let of_app = self.apps.entry(app.clone()).or_default();
        of_app.remove(&push);
        let row = row.map(|row| Row::decode(row, id));
        let (standing, is_watched) = match row {
            None => (Standing::Nothing, false),
            Some(Ok(Row::Ended(_))) => (Standing::Ended, false),
            Some(Ok(Row::Campaign(campaign))) => {
                let standing = Standing::Campaign(Arc::new(message(&campaign)), lane(&campaign));
                let is_watched = campaign.needs_watch();
                of_app.insert(push, *campaign);
                (standing, is_watched)
            }
            Some(Err(error)) => {
                tracing::error!(message_id = %push, %error, "a campaign cannot be read, nobody gets it here; upgrade this node");
                (Standing::Nothing, false)
            }
        };
        if of_app.is_empty() {
            self.apps.remove(app);
        }
        self.watched.set(app, id, is_watched);
        standing
    }

    /// See [`campanile_broker::audience::Audiences::turn`].
    pub fn turn(
        &self,
        app: &AppId,
        candidate: &Candidate<'_>,
        push: MessageId,
        under_way: &[MessageId],
        now: Millis,
    ) -> Turn {
        let Some(campaign) = self.campaign(app, push) else {
            return Turn::No;
        };
        match campaign.turn(candidate, now.0) {
            campaign::Turn::At(at_ms) => Turn::At(Millis(at_ms)),
            campaign::Turn::No => Turn::No,
            // Whether one of its kind that is under way counts is known when that is over.
            _ if self.is_behind(app, campaign, under_way) => Turn::Behind,
            campaign::Turn::Now => Turn::Now,
            campaign::Turn::Never(reason) => {
                Turn::Never(campanile_push::receipt::Mark::Dropped(reason).code())
            }
        }
    }

    fn is_behind(&self, app: &AppId, campaign: &Campaign, under_way: &[MessageId]) -> bool {
        let Some(cap) = &campaign.cap else {
            return false;
        };
        let caps = under_way
            .iter()
            .filter_map(|push| self.campaign(app, *push)?.cap.as_ref());
        caps.into_iter().any(|other| other.key == cap.key)
    }

    /// See [`campanile_broker::audience::Audiences::remember`].
    pub fn remember(
        &self,
        app: &AppId,
        push: MessageId,
        memory: &Bytes,
        reached: bool,
        now: Millis,
    ) -> Bytes {
        let mut memory = read(memory);
        memory.add(PushId(push.0));
        let cap = self.campaign(app, push).and_then(|of| of.cap.as_ref());
        if let (Some(cap), true) = (cap, reached) {
            memory.count(cap, now.0);
        }
        self.tidied(app, memory, now)
    }

    /// See [`campanile_broker::audience::Audiences::begin`].
    pub fn begin(&self, app: &AppId, memory: &Bytes, now: Millis) -> Bytes {
        self.tidied(app, read(memory).since(now.0), now)
    }

    fn tidied(&self, app: &AppId, mut memory: Memory, now: Millis) -> Bytes {
        let known = self.apps.get(app).into_iter().flatten();
        let known = known.map(|(push, campaign)| (PushId(push.0), campaign.accepted_ms));
        memory.tidy(known, now.0);
        memory.encode().into()
    }

    fn campaign(&self, app: &AppId, push: MessageId) -> Option<&Campaign> {
        self.apps.get(app)?.get(&push)
    }
}

/// A memory that cannot be read is of a later version: at worst something is repeated.
pub fn read(memory: &[u8]) -> Memory {
    Memory::decode(memory).unwrap_or_default()
}

fn message(campaign: &Campaign) -> Message {
    let id = MessageId(campaign.push.0);
    let mut message = Message::new(id, Kind::Push, "push/in", &[], &campaign.payload);
    message.qos = QoS::AtLeastOnce;
    message.expires_at = Some(Millis(campaign.expires_ms));
    message.audience = Some(campaign.targeting.encode().into());
    message
}

fn lane(campaign: &Campaign) -> Lane {
    match campaign.priority {
        Priority::High => Lane::High,
        Priority::Normal => Lane::Normal,
        Priority::Low => Lane::Low,
    }
}
