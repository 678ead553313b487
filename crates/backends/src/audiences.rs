//! Whom a push is for, as the shards ask it: the push domain's index of live devices behind the broker's port.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use campanile_broker::{
    audience::{Audiences, Device, Standing, Turn},
    ids::{AppId, MessageId, Millis},
    message::Message,
};
use campanile_push::{
    campaign::Candidate, device::Profile, expression::ReadOnce, live::LiveIndex,
    targeting::Targeting,
};

/// Audiences that a shard remembers as read: a storm of returning devices asks for the same ones again and again. Past it, all are forgotten.
const REMEMBERED: usize = 4096;

mod campaigns;

pub use campaigns::Watched;

/// One shard's live devices with a profile, by app.
#[derive(Default)]
pub struct LiveAudiences {
    apps: HashMap<AppId, LiveIndex>,
    campaigns: campaigns::Known,
    read: HashMap<MessageId, Option<Arc<Targeting>>>,
    expressions: ReadOnce,
}

impl LiveAudiences {
    /// Of nobody yet. Campaigns that somebody must look after are put on the list.
    pub fn new(watched: Arc<Watched>) -> LiveAudiences {
        LiveAudiences {
            campaigns: campaigns::Known::new(watched),
            ..LiveAudiences::default()
        }
    }

    /// The audience of a message; `None` where it cannot be read, which is nobody.
    fn targeting(&mut self, message: &Message) -> Option<Arc<Targeting>> {
        if let Some(read) = self.read.get(&message.id) {
            return read.clone();
        }
        let bytes = message.audience.as_deref().unwrap_or_default();
        let targeting = Targeting::decode_with(bytes, |text| self.expressions.read(text));
        let read = match targeting {
            Ok(targeting) => Some(Arc::new(targeting)),
            Err(error) => {
                tracing::error!(message_id = %message.id, %error, "the audience of a push cannot be read, nobody gets it here; upgrade this node");
                None
            }
        };
        if self.read.len() >= REMEMBERED {
            self.read.clear();
        }
        self.read.insert(message.id, read.clone());
        read
    }
}

impl Audiences for LiveAudiences {
    fn join(&mut self, app: &AppId, device: &Device<'_>, profile: &Bytes) {
        let profile = match Profile::decode(profile) {
            Ok(profile) => Arc::new(profile),
            Err(error) => {
                tracing::error!(client_id = %device.client_id, %error, "the profile of a device cannot be read, it counts as empty");
                Arc::new(Profile::new(0))
            }
        };
        let live = self.apps.entry(app.clone()).or_default();
        live.join(device.slot, device.client_id, device.ordinal, Some(profile));
    }

    fn leave(&mut self, app: &AppId, slot: u32) {
        let Some(live) = self.apps.get_mut(app) else {
            return;
        };
        live.leave(slot);
        if live.is_empty() {
            self.apps.remove(app);
        }
    }

    fn select(&mut self, app: &AppId, message: &Message, _: Millis, slots: &mut Vec<u32>) -> bool {
        let Some(targeting) = self.targeting(message) else {
            return false;
        };
        if let Some(live) = self.apps.get(app) {
            slots.extend(live.select(&targeting));
        }
        targeting.may_admit_the_unknown()
    }

    fn admits(&mut self, app: &AppId, device: &Device<'_>, message: &Message, _: Millis) -> bool {
        let Some(targeting) = self.targeting(message) else {
            return false;
        };
        let live = self.apps.get(app);
        let profile = live.and_then(|live| live.profile(device.slot));
        targeting
            .admits(device.client_id, device.ordinal, profile)
            .is_ok()
    }

    fn row(&mut self, app: &AppId, push: MessageId, row: Option<&Bytes>) -> Standing {
        self.campaigns.set(app, push, row)
    }

    fn turn(
        &mut self,
        app: &AppId,
        device: &Device<'_>,
        push: MessageId,
        memory: &Bytes,
        under_way: &[MessageId],
        now: Millis,
    ) -> Turn {
        let live = self.apps.get(app);
        let profile = live.and_then(|live| live.profile(device.slot));
        let candidate = Candidate {
            client_id: device.client_id,
            number: device.ordinal,
            profile,
            memory: &campaigns::read(memory),
        };
        let campaigns = &self.campaigns;
        campaigns.turn(app, &candidate, push, under_way, now)
    }

    fn remember(
        &mut self,
        app: &AppId,
        push: MessageId,
        memory: &Bytes,
        reached: bool,
        now: Millis,
    ) -> Bytes {
        self.campaigns.remember(app, push, memory, reached, now)
    }

    fn begin(&mut self, app: &AppId, memory: &Bytes, now: Millis) -> Bytes {
        self.campaigns.begin(app, memory, now)
    }
}

#[cfg(test)]
mod tests {
    use campanile_broker::message::Kind;
    use campanile_push::{device::Patch, expression::Expression};

    use super::*;

    fn message(id: u128, expression: &str) -> Message {
        let targeting = Targeting {
            expression: Some(Expression::parse(expression).unwrap()),
            ..Targeting::everyone(10)
        };
        let mut message = Message::new(MessageId(id), Kind::Push, "push/in", &[], b"{}");
        message.audience = Some(targeting.encode().into());
        message
    }

    fn profile(tags: &str) -> Bytes {
        let patch = Patch::parse(format!("{{\"tags\":{tags}}}").as_bytes()).unwrap();
        let profile = Profile::new(1).apply(&patch, 1).unwrap();
        profile.encode().into()
    }

    fn select(live: &mut LiveAudiences, message: &Message) -> (Vec<u32>, bool) {
        let mut slots = Vec::new();
        let unknown = live.select(&AppId::new("a"), message, Millis(20), &mut slots);
        (slots, unknown)
    }

    #[test]
    fn devices_are_selected_by_their_tags() {
        let app = AppId::new("a");
        let mut live = LiveAudiences::default();
        let ids: [Arc<str>; 2] = ["d0".into(), "d1".into()];
        let device = |slot: u32| Device {
            slot,
            client_id: &ids[slot as usize],
            ordinal: slot,
        };
        live.join(&app, &device(0), &profile(r#"["vip"]"#));
        live.join(&app, &device(1), &profile(r#"["beta"]"#));
        let (vip, others) = (message(1, "vip"), message(2, "!vip"));
        assert_eq!(select(&mut live, &vip), (vec![0], false));
        assert_eq!(select(&mut live, &others), (vec![1], true));
        assert!(live.admits(&app, &device(0), &vip, Millis(20)));
        assert!(!live.admits(&app, &device(1), &vip, Millis(20)));
        live.leave(&app, 0);
        assert_eq!(select(&mut live, &vip), (vec![], false));
        live.leave(&app, 1);
        assert!(live.apps.is_empty());
    }

    #[test]
    fn an_audience_that_cannot_be_read_is_nobody() {
        let mut message = message(1, "vip");
        message.audience = Some(vec![0xff; 7].into());
        assert_eq!(
            select(&mut LiveAudiences::default(), &message),
            (vec![], false)
        );
    }
}
