//! Wills: at once, after their delay, or never. MQTT 5.0 section 3.1.2.5.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use campanile_mqtt::QoS;

use super::{Shard, late::Late, routing::Incoming};
use crate::{
    ids::{ClientKey, Millis},
    message::Message,
    store::{Command, OwedWill, Will},
};

/// Wills whose delay runs, by when they are due.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    due: BTreeMap<(Millis, u64), (ClientKey, Will)>,
    by_client: HashMap<ClientKey, (Millis, u64), foldhash::fast::FixedState>,
    count: u64,
}

impl Delayed {
    /// The will of a client that is away; its return [removes](Delayed::remove) it.
    fn insert(&mut self, at: Millis, client: ClientKey, will: Will) {
        self.remove(&client);
        self.insert_final(at, client.clone(), will);
        self.by_client.insert(client, (at, self.count));
    }

    /// A will that nothing averts.
    pub(super) fn insert_final(&mut self, at: Millis, client: ClientKey, will: Will) {
        self.count += 1;
        self.due.insert((at, self.count), (client, will));
    }

    fn remove(&mut self, client: &ClientKey) -> Option<(Millis, Will)> {
        let key = self.by_client.remove(client)?;
        let (_, will) = self.due.remove(&key)?;
        Some((key.0, will))
    }

    fn pop_due(&mut self, now: Millis) -> Option<(ClientKey, Will)> {
        let (&key, _) = self
            .due
            .first_key_value()
            .filter(|((at, _), _)| *at <= now)?;
        let (client, will) = self.due.remove(&key)?;
        if self.by_client.get(&client) == Some(&key) {
            self.by_client.remove(&client);
        }
        Some((client, will))
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Shard {
    /// A connection was lost whose client has a will: publish it, or wait. When it is due.
    pub(super) fn after_connection_loss(
        &mut self,
        client: &ClientKey,
        will: Will,
        expiry_seconds: u32,
    ) -> Millis {
        // The end of the session makes a will due, too [MQTT-3.1.3-9].
        let delay = will.delay_seconds.min(expiry_seconds);
        let at = self.now.plus_seconds(delay);
        if delay == 0 {
            self.publish_will(client, &will);
        } else {
            self.wills.insert(at, client.clone(), will);
        }
        at
    }

    /// The client is back: the will that waits for it is void, unless the claim says that its session ended, or fails.
    pub(super) fn cancel_delayed_will(&mut self, client: &ClientKey) -> Option<(Millis, Will)> {
        self.wills.remove(client)
    }

    /// The client could not come back: its will waits on.
    pub(super) fn restore_delayed_will(&mut self, client: &ClientKey, at: Millis, will: Will) {
        self.wills.insert(at, client.clone(), will);
    }

    /// Takes a will that the store recovered.
    pub(super) fn recover_will(&mut self, owed: &OwedWill) {
        let delayed = self.now.plus_seconds(owed.will.delay_seconds);
        let at = owed.at.unwrap_or(delayed);
        let at = owed.session_expires_at.map_or(at, |end| at.min(end));
        let (client, will) = (owed.client.clone(), owed.will.clone());
        if owed.is_final {
            self.wills.insert_final(at, client, will);
        } else {
            self.wills.insert(at, client, will);
        }
    }

    pub(super) fn publish_due_wills(&mut self) {
        while let Some((client, will)) = self.wills.pop_due(self.now) {
            self.publish_will(&client, &will);
        }
    }

    /// Publishes a will now; the store, which still has it, drops it in the same commit.
    pub(super) fn publish_will(&mut self, client: &ClientKey, will: &Will) {
        if self.is_in_doubt() && will.message.qos > QoS::AtMostOnce {
            return self.look_before_will(client, will);
        }
        self.publish_will_now(client, will);
    }

    pub(super) fn publish_will_now(&mut self, client: &ClientKey, will: &Will) {
        let app = self.app(&client.app);
        let mut message = Message::clone(&will.message);
        // It is published now, not when it was given: subscriptions made in between are to get it.
        message.id = self.ids.next(self.now);
        message.expires_at = will
            .expiry_seconds
            .map(|seconds| self.now.plus_seconds(seconds));
        let message = Arc::new(message);
        let mut incoming = Incoming::of(&message);
        // In a cluster another node may have published it, or have taken the session: the store knows.
        let late = self.cluster.is_some();
        let mut routed = match late {
            true => self.plan(app, &mut incoming),
            false => self.route(app, &mut incoming),
        };
        let chosen = std::mem::take(&mut routed.chosen);
        if let Some(mut publish) = self.keep(app, &mut incoming, routed, true) {
            publish.spends_will = Some((client.client_id.clone(), will.message.id));
            let command = Command::Publish(publish);
            match late {
                true => self.command_late(
                    command,
                    Late {
                        app,
                        message,
                        chosen,
                    },
                ),
                false => self.command_fact(command),
            }
        }
        self.stats.wills_published += 1;
    }
}
