//! Shared subscriptions: one member of each group gets a message. MQTT 5.0 section 4.8.2.

use std::sync::Arc;

use campanile_mqtt::{QoS, topic};

use super::{
    Shard,
    conn::Queued,
    routing::{Incoming, Routed},
};
use crate::{
    ids::ShardId,
    lane::Lane,
    mail::{ClusterMail, Keeper, Mail},
    message::Message,
    store::InboxItem,
};

/// A member of a shared subscription that is to get a message once it is kept.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    text: Arc<str>,
    client_id: Arc<str>,
    shard: ShardId,
}

impl Shard {
    /// Picks a member of each group. Those that get the message by their inbox are put into `routed`; so are the others unless they are to get it now.
    pub(super) fn route_to_groups(
        &mut self,
        app: u16,
        incoming: &mut Incoming<'_>,
        filters: &[crate::routes::FilterIx],
        send: bool,
        routed: &mut Routed,
    ) {
        for &ix in filters {
            for at in 0..self.apps[usize::from(app)].routes.filter(ix).groups.len() {
                let group = &mut self.apps[usize::from(app)].routes.filter_mut(ix).groups[at];
                let text = group.text.clone();
                let Some((client_id, member)) = group.pick(incoming.qos) else {
                    continue;
                };
                routed.matched = true;
                let qos = member.qos.min(incoming.qos);
                let by_inbox = member.durable && qos > QoS::AtMostOnce;
                let (ids, now) = (self.ids.clone(), self.now);
                if by_inbox {
                    let message = incoming.shared_message(|| ids.next(now)).clone();
                    let retain = member.retain_as_published && incoming.retain;
                    let subscription_ids = member.subscription_id.into_iter().collect();
                    routed.inboxes.push((
                        client_id,
                        InboxItem {
                            lane: Lane::Normal,
                            message,
                            qos,
                            retain,
                            subscription_ids,
                        },
                    ));
                } else if send {
                    let message = incoming.shared_message(|| ids.next(now)).clone();
                    self.deliver_to_group(app, &text, &message, Some((client_id, member)), None);
                } else {
                    routed.chosen.push(Chosen {
                        text,
                        client_id,
                        shard: member.shard,
                    });
                }
            }
        }
    }

    /// Sends a message to a member of a shared subscription, chosen here unless given.
    pub(super) fn deliver_to_group(
        &mut self,
        app: u16,
        text: &Arc<str>,
        message: &Arc<Message>,
        chosen: Option<(Arc<str>, crate::mail::Member)>,
        keeper: Option<Keeper>,
    ) {
        let Ok(Some((_, behind))) = topic::parse_shared(text) else {
            return;
        };
        let routes = &mut self.apps[usize::from(app)].routes;
        let picked = chosen.or_else(|| {
            let ix = routes.find(behind)?;
            routes
                .filter_mut(ix)
                .groups
                .iter_mut()
                .find(|g| g.text == *text)?
                .pick(message.qos)
        });
        let Some((client_id, member)) = picked.filter(|(_, member)| member.live) else {
            return self.done_with_shared(keeper);
        };
        if member.shard == self.id {
            self.deliver_to_member(app, text, &client_id, message, &member, keeper);
        } else {
            self.mail_to_member(app, text, client_id, member.shard, message, keeper);
        }
    }

    /// The peer that keeps a message for other members may forget it.
    pub(super) fn done_with_shared(&mut self, keeper: Option<Keeper>) {
        if let Some(keeper) = keeper {
            self.mail_hub(ClusterMail::SharedDone(keeper));
        }
    }

    fn mail_to_member(
        &mut self,
        app: u16,
        text: &Arc<str>,
        client_id: Arc<str>,
        shard: ShardId,
        message: &Arc<Message>,
        keeper: Option<Keeper>,
    ) {
        let mail = Mail::DeliverShared {
            keeper,
            app: self.apps[usize::from(app)].id.clone(),
            message: message.clone(),
            filter: text.clone(),
            client_id,
        };
        self.effects.mail.push((shard, mail));
    }

    /// Sends a message to a member that was chosen before the message was kept.
    pub(super) fn deliver_to_chosen(&mut self, app: u16, chosen: &Chosen, message: &Arc<Message>) {
        let Chosen {
            text,
            client_id,
            shard,
        } = chosen;
        if *shard == self.id {
            self.on_deliver_shared(app, text, client_id, message, None);
        } else {
            self.mail_to_member(app, text, client_id.clone(), *shard, message, None);
        }
    }

    pub(super) fn deliver_to_member(
        &mut self,
        app: u16,
        text: &Arc<str>,
        client_id: &Arc<str>,
        message: &Arc<Message>,
        member: &crate::mail::Member,
        keeper: Option<Keeper>,
    ) {
        let Some(&slot) = self.apps[usize::from(app)].clients.get(client_id) else {
            return self.done_with_shared(keeper);
        };
        let queued = Queued {
            message: message.clone(),
            qos: member.qos.min(message.qos),
            retain: member.retain_as_published && message.retain,
            subscription_ids: member.subscription_id.into_iter().collect(),
            shared: Some(text.clone()),
            keeper,
        };
        self.send_or_queue(slot, queued);
    }

    /// From another shard, for a member here. One that has just left is replaced by another.
    pub(super) fn on_deliver_shared(
        &mut self,
        app: u16,
        text: &Arc<str>,
        client_id: &Arc<str>,
        message: &Arc<Message>,
        keeper: Option<Keeper>,
    ) {
        let behind = topic::parse_shared(text)
            .ok()
            .flatten()
            .map(|(_, behind)| behind);
        let routes = &self.apps[usize::from(app)].routes;
        let member = behind
            .and_then(|behind| routes.find(behind))
            .and_then(|ix| {
                let group = routes.filter(ix).groups.iter().find(|g| g.text == *text)?;
                group
                    .members
                    .iter()
                    .find(|(id, _)| id == client_id)
                    .map(|(_, member)| *member)
            });
        match member.filter(|member| member.live && member.shard == self.id) {
            Some(member) => {
                self.deliver_to_member(app, text, client_id, message, &member, keeper);
            }
            None => self.deliver_to_group(app, text, message, None, keeper),
        }
    }
}
