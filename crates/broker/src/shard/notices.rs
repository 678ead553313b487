//! Mail and answers in: what other shards say, and what the store committed or read.

use std::sync::Arc;

use campanile_mqtt::{Reason, topic};

use super::{Pending, Phase, Shard, conn::Queued, live_in, outgoing::receipt_of};
use crate::{
    effects::Ticket,
    ids::{AppId, ClientKey, ConnId, MessageId, Millis, Offset, ShardId},
    lane::LaneSet,
    mail::{Interest, Mail},
    message::{Kind, Message},
    store::{InboxEntry, LogEntry, LogKind, Notice, Outcome, Page, StoreError},
};

impl Shard {
    /// From another shard, the store's notices, or the node.
    pub fn on_mail(&mut self, mail: Mail, now: Millis) {
        self.now = now;
        match mail {
            Mail::Notice(notice) => self.on_notice(notice),
            Mail::Deliver { app, message } => {
                let app = self.app(&app);
                self.on_deliver(app, &message);
            }
            Mail::DeliverShared {
                app,
                message,
                filter,
                client_id,
                keeper,
            } => {
                let app = self.app(&app);
                self.on_deliver_shared(app, &filter, &client_id, &message, keeper);
            }
            Mail::Interest {
                from,
                app,
                change,
                ticket,
            } => {
                self.on_interest(from, &app, change);
                if ticket != 0 {
                    self.effects
                        .mail
                        .push((from, Mail::InterestKnown { ticket }));
                }
            }
            Mail::InterestKnown { ticket } => self.on_job_answer(ticket, Ok(())),
            Mail::Sys(figures) => self.on_sys(&figures),
            Mail::Ended(sessions) => {
                for (client, filters) in sessions {
                    self.on_session_ended(&client, &filters);
                }
            }
            Mail::Wills(wills) => {
                for owed in &wills {
                    self.recover_will(owed);
                }
                self.publish_due_wills();
            }
            Mail::Dismiss(app) => self.dismiss(&app),
            Mail::Cluster(mail) => self.on_cluster_mail(mail),
        }
    }

    /// Closes all connections of an app.
    fn dismiss(&mut self, app: &AppId) {
        let app = self.app(app);
        let clients = self.apps[usize::from(app)].clients.values();
        let mut slots: Vec<u32> = clients.copied().collect();
        slots.sort_unstable();
        for slot in slots {
            if self.live(slot).is_some() {
                self.stats.kicked += 1;
                let text = "the app is being deleted";
                self.refuse(slot, Reason::AdministrativeAction, text);
            }
        }
    }

    fn on_interest(&mut self, from: ShardId, app: &AppId, change: Interest) {
        let app = self.app(app);
        let routes = &mut self.apps[usize::from(app)].routes;
        match change {
            Interest::Live { filter, present } => routes.set_remote(&filter, from, false, present),
            Interest::Durable { filter, present } => {
                routes.set_remote(&filter, from, true, present)
            }
            Interest::Member {
                filter,
                client_id,
                member,
            } => {
                let Ok(Some((_, behind))) = topic::parse_shared(&filter) else {
                    return;
                };
                let ix = routes.intern(&behind.into());
                if routes.may_say(ix, &filter, &client_id, from, member.as_ref()) {
                    routes.set_member(ix, &filter, &client_id, member);
                }
                routes.tidy(ix);
            }
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Log {
                app,
                log: LogKind::Push,
                previous,
                entry,
                ..
            } => {
                self.on_push_entry(&app, previous, entry);
            }
            Notice::Log {
                app,
                log: LogKind::Topic(partition),
                previous,
                entry,
                ..
            } => {
                self.on_topic_entry(&app, partition, previous, entry);
            }
            Notice::Inbox {
                client,
                previous,
                entry,
                replaced,
                ..
            } => self.on_inbox_entry(&client, previous, entry, replaced),
            Notice::Change {
                app,
                offset,
                change,
                ..
            } => self.on_change(&app, offset, change),
            Notice::Instant {
                app,
                clients,
                message,
            } => {
                let app = self.app(&app);
                let known = &self.apps[usize::from(app)].clients;
                let slots: Vec<u32> = match &clients {
                    Some(clients) => clients
                        .iter()
                        .filter_map(|id| known.get(id).copied())
                        .collect(),
                    None if message.audience.is_some() => self.select(app, &message),
                    None => known.values().copied().collect(),
                };
                for slot in slots {
                    self.send_instant(slot, &message);
                }
            }
        }
    }

    /// A push that is for now or never.
    fn send_instant(&mut self, slot: u32, message: &Arc<Message>) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if !live.has_room() || live.has_queue() {
            self.stats.dropped_queue_full += 1;
            return;
        }
        let mut message = Message::clone(message);
        message.expires_at = None;
        let qos = message.qos;
        debug_assert!(
            receipt_of(&message) != MessageId(0),
            "only pushes are instant"
        );
        let queued = Queued {
            message: Arc::new(message),
            qos,
            retain: false,
            subscription_ids: Default::default(),
            shared: None,
            keeper: None,
        };
        self.send_or_queue(slot, queued);
    }

    fn on_push_entry(&mut self, app: &AppId, previous: Offset, entry: LogEntry) {
        let app = self.app(app);
        let state = &mut self.apps[usize::from(app)];
        let missed = previous != state.push_tail.end();
        let end_before = state.push_tail.end();
        let is_judged = entry.message.audience.is_none() || state.profiles.are_known();
        state.push_tail.push(previous, entry.clone());
        let slots: Vec<u32> = match entry.message.audience {
            // For the others it counts as read, as everything up to the log's end.
            Some(_) if !missed && is_judged => self.select(app, &entry.message),
            // Some of the entries in between may have been for anybody.
            _ => state.clients.values().copied().collect(),
        };
        for slot in slots {
            let Some((_, live)) = live_in(&mut self.conns, slot) else {
                continue;
            };
            let unread = entry.offset > live.push.position.read;
            if !missed && is_judged && unread && live.push.replay.is_none() && live.has_room() {
                self.send_push_entry(slot, &entry);
                continue;
            }
            let position = &mut live.push.position;
            if !position.lagging {
                if entry.offset <= position.read {
                    // It was read from the store before this notice came.
                    continue;
                }
                position.lagging = true;
                position.read = position.read.max(end_before);
            }
            live.push.replay.get_or_insert_default();
            if missed || !is_judged {
                self.pump(slot);
            }
        }
    }

    fn on_inbox_entry(
        &mut self,
        client: &ClientKey,
        previous: Offset,
        entry: InboxEntry,
        replaced: Option<Offset>,
    ) {
        let lane = entry.item.lane;
        let app = self.app(&client.app);
        let Some(&slot) = self.apps[usize::from(app)].clients.get(&client.client_id) else {
            return;
        };
        let live = match self.conns[slot as usize]
            .as_mut()
            .map(|conn| &mut conn.phase)
        {
            Some(Phase::Live(live)) => live,
            Some(Phase::Announcing(live)) => {
                live.push.replay.get_or_insert_default().note(lane.into());
                return;
            }
            Some(Phase::Claiming(connecting)) => {
                connecting.inbox_noticed.add(lane.into());
                return;
            }
            _ => return,
        };
        if let (Some(replaced), Some(replay)) = (replaced, &mut live.push.replay) {
            replay.forget(replaced);
        }
        let read = live.inbox_read(lane);
        if entry.offset <= read {
            // It was read from the store before this notice came.
            return;
        }
        if previous > read {
            // The word of an entry before it is still under way: both are read.
            return self.look_into_inbox(slot, lane.into());
        }
        if live.push.replay.is_none() && live.has_room() {
            live.note_inbox_read(lane, entry.offset);
            return self.send_inbox_entry(slot, entry);
        }
        if live.push.replay.get_or_insert_default().hold(&entry) {
            live.note_inbox_read(lane, entry.offset);
            // What the others wait for, it does not.
            return self.pump(slot);
        }
        live.push.replay.get_or_insert_default().note(lane.into());
    }

    fn on_topic_entry(&mut self, app: &AppId, partition: u8, previous: Offset, entry: LogEntry) {
        let app = self.app(app);
        let at = usize::from(partition);
        let state = &mut self.apps[usize::from(app)];
        let Some(tail) = state.topic_tails.get_mut(at) else {
            return;
        };
        let missed = previous != tail.end();
        let end_before = tail.end();
        tail.push(previous, entry.clone());
        let mut filters = std::mem::take(&mut self.scratch.filters);
        filters.clear();
        let mut slots = Vec::new();
        if missed {
            // Some of the entries in between may have been for anybody.
            slots.extend(state.clients.values().copied());
        } else {
            state.routes.matching(entry.message.topic(), &mut filters);
            self.durable_slots(app, &filters, &mut slots);
        }
        self.scratch.filters = filters;
        for slot in slots {
            let Some((_, live)) = live_in(&mut self.conns, slot) else {
                continue;
            };
            let room = live.has_room();
            let resending = live.outbound.resends_left() > 0;
            let Some(stream) = live.topics.get_mut(at) else {
                continue;
            };
            if !stream.position.lagging {
                if entry.offset <= stream.position.read {
                    // It was read from the store before this notice came.
                    continue;
                }
                if room && !missed && !resending {
                    let mut to_save = Vec::new();
                    self.offer_topic_entry(slot, partition, &entry, &mut to_save);
                    self.save_and_send(slot, to_save);
                    continue;
                }
                stream.position.lagging = true;
                stream.position.read = stream.position.read.max(end_before);
            }
            if missed {
                self.pump(slot);
            }
        }
    }

    fn on_sys(&mut self, figures: &[(Box<str>, Box<str>)]) {
        for (name, value) in figures {
            let id = self.ids.next(self.now);
            let mut message = Message::new(id, Kind::Publish, name, &[], value.as_bytes());
            message.retain = true;
            let message = Arc::new(message);
            self.sys.insert(name.as_ref().into(), message.clone());
            for app in 0..self.apps.len() as u16 {
                self.on_deliver(app, &message);
            }
        }
    }

    /// Answer to a command.
    pub fn on_outcome(
        &mut self,
        ticket: Ticket,
        outcome: Result<Outcome, StoreError>,
        now: Millis,
    ) {
        self.now = now;
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        self.settle_fact(ticket, &outcome);
        if outcome == Err(StoreError::Fenced)
            && self.cluster.is_some()
            && let Some(conn) = self.conn_of(&pending)
        {
            self.lose(conn);
        }
        match pending {
            Pending::Nobody | Pending::Save(_) => {
                if let Err(error) = &outcome {
                    self.on_lazy_failure(error);
                }
            }
            Pending::Claim {
                conn,
                client,
                expiry_seconds,
                delayed_will,
            } => {
                let result = match outcome {
                    Ok(Outcome::Claimed(claimed)) => Ok(claimed),
                    Ok(_) => Err(StoreError::Unavailable("an answer of another kind".into())),
                    Err(error) => Err(error),
                };
                self.on_claimed(conn, client, expiry_seconds, delayed_will, result);
            }
            Pending::Publish {
                conn,
                packet_id,
                retained,
            } => {
                self.on_kept(ticket, conn, packet_id, retained, outcome);
            }
            Pending::Statement { conn, packet_id } => {
                let answer = outcome.as_ref().ok().cloned();
                self.on_kept(ticket, conn, packet_id, false, outcome);
                self.on_stated(conn, answer);
            }
            Pending::PubComp { conn, packet_id } => {
                self.on_forgotten(conn, packet_id, outcome.map(drop))
            }
            Pending::PubRel { conn, packet_id } => {
                self.on_released(conn, packet_id, outcome.map(drop))
            }
            Pending::Send { conn, items } => match outcome {
                Ok(_) => self.on_saved(conn, items),
                Err(error) => {
                    self.stats.refused_store += 1;
                    if self.answered(conn).is_some() {
                        // What was not sent is still in the log: the client gets it after a reconnect.
                        let reason = campanile_mqtt::Reason::UnspecifiedError;
                        self.refuse(conn.slot, reason, &error.to_string());
                    }
                }
            },
            Pending::Job(job) => self.on_job_answer(job, outcome.map(drop)),
            Pending::Restamp(conn) => match outcome {
                // Between the generations nobody may have been told of what came.
                Ok(_) if self.slot_of(conn).is_some() => {
                    self.look_into_inbox(conn.slot, LaneSet::ALL);
                }
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
                    self.restamp_later(conn);
                }
                _ => {}
            },
            Pending::Elsewhere(_) => unreachable!("the hub answers this"),
            Pending::Reread(_)
            | Pending::TopicPage { .. }
            | Pending::PushPage(_)
            | Pending::InboxPage(..)
            | Pending::Profiles(..)
            | Pending::Resend(_) => {
                unreachable!("queries are answered by pages")
            }
        }
    }

    /// The connection that a request was made for.
    fn conn_of(&self, pending: &Pending) -> Option<ConnId> {
        match pending {
            Pending::Publish { conn, .. }
            | Pending::Statement { conn, .. }
            | Pending::PubComp { conn, .. }
            | Pending::PubRel { conn, .. }
            | Pending::Send { conn, .. }
            | Pending::Save(conn)
            | Pending::Restamp(conn) => Some(*conn),
            Pending::Job(job) => self.jobs.get(job)?.conn(),
            _ => None,
        }
    }

    /// Answer to a query.
    pub fn on_page(&mut self, ticket: Ticket, page: Result<Page, StoreError>, now: Millis) {
        self.now = now;
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        match (pending, page) {
            (Pending::TopicPage { conn, partition }, page) => {
                self.on_replay_page(conn, Some(partition), page.ok());
            }
            (Pending::PushPage(conn), page) => self.on_replay_page(conn, None, page.ok()),
            (Pending::InboxPage(conn, lane), page) => self.on_inbox_page(conn, lane, page.ok()),
            (Pending::Profiles(app, clients), page) => self.on_profiles_page(app, clients, page),
            (Pending::Reread(elsewhere), page) => self.on_reread(*elsewhere, page),
            (Pending::Resend(conn), Ok(Page::Entries(items))) => self.on_resend_page(conn, items),
            (Pending::Resend(conn), _) => {
                if self.answered(conn).is_some() {
                    let reason = campanile_mqtt::Reason::UnspecifiedError;
                    self.refuse(conn.slot, reason, "the store is unavailable");
                }
            }
            _ => unreachable!("commands are answered by outcomes"),
        }
    }
}
