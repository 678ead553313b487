//! Taking a session: from the claim to the CONNACK, and what the store kept back into place.

use std::collections::VecDeque;

use campanile_mqtt::{
    Reason,
    session::{AliasesIn, AliasesOut, Inbound, Outbound},
};

use super::{
    Pending, Phase, Shard,
    conn::{
        Connecting, Live, Position, PushStream, Replay, Subscription, Tag, TagSource, TopicStream,
        Welcome,
    },
};
use crate::{
    ids::{ClientKey, ConnId, Millis, Offset},
    lane::LaneSet,
    store::{
        Claim, Claimed, Command, Cursor, LogKind, Resumed, Source, StoreError, Unfinished, Will,
    },
};

impl Shard {
    /// The client is who it says: take its session. Whether the connection is still there.
    pub(super) fn claim(&mut self, slot: u32, connecting: Box<Connecting>) -> bool {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked")
            .id;
        let (version, limit) = (connecting.version, connecting.max_packet_bytes);
        if limit != u32::MAX && self.connack(&connecting, false).len() > limit as usize {
            let text = "maximum packet size: too small for a CONNACK";
            self.write_connack_refusal(conn, version, limit, Reason::PacketTooLarge, text);
            self.stats.connects_refused += 1;
            self.close(slot, true);
            return false;
        }
        if let Some(will) = &connecting.will {
            let topic = will.message.topic();
            if !self
                .access
                .may_publish(&connecting.identity, &connecting.client_id, topic)
            {
                let text = format!("will topic {topic:?}: not allowed");
                self.write_connack_refusal(conn, version, limit, Reason::NotAuthorized, &text);
                self.stats.connects_refused += 1;
                self.close(slot, true);
                return false;
            }
        }
        let needs_store = connecting.expiry_seconds > 0 || connecting.will.is_some();
        if needs_store && self.store_is_behind() {
            self.stats.refused_store += 1;
            self.stats.connects_refused += 1;
            let text = "the store is behind; try again later";
            self.write_connack_refusal(conn, version, limit, Reason::ServerBusy, text);
            self.close(slot, true);
            return false;
        }
        let client = ClientKey {
            app: connecting.app().clone(),
            client_id: connecting.client_id.clone(),
        };
        let app = self.app(&client.app);
        let known = self.apps[usize::from(app)]
            .clients
            .get(&client.client_id)
            .copied();
        if let Some(other) = known.filter(|&other| other != slot) {
            self.take_over(other);
        }
        let delayed_will = self.cancel_delayed_will(&client).map(Box::new);
        self.apps[usize::from(app)]
            .clients
            .insert(client.client_id.clone(), slot);
        let claim = Claim {
            client: client.clone(),
            owner: self.generation(),
            now: self.now,
            clean_start: connecting.clean_start,
            expiry_seconds: connecting.expiry_seconds,
            will: connecting.will.as_deref().cloned(),
        };
        self.forget_last_words(&claim.client);
        let expiry_seconds = connecting.expiry_seconds;
        self.conns[slot as usize]
            .as_mut()
            .expect("the caller looked")
            .phase = Phase::Claiming(connecting);
        self.command(
            Command::Claim(claim),
            Pending::Claim {
                conn,
                client,
                expiry_seconds,
                delayed_will,
            },
        );
        true
    }

    /// Another connection claims this client [MQTT-3.1.4-3].
    pub(super) fn take_over(&mut self, slot: u32) {
        self.stats.takeovers += 1;
        self.refuse(
            slot,
            Reason::SessionTakenOver,
            "another connection uses this client id",
        );
    }

    pub(super) fn on_claimed(
        &mut self,
        conn: ConnId,
        client: ClientKey,
        expiry_seconds: u32,
        delayed_will: Option<Box<(Millis, Will)>>,
        mut result: Result<Box<Claimed>, StoreError>,
    ) {
        if let Ok(claimed) = &mut result {
            claimed.begins |= self.still_begins(&client, claimed);
        }
        match (&result, delayed_will) {
            (Ok(claimed), _) => self.after_claim_ended(&client, claimed),
            (Err(_), Some(delayed)) => self.restore_delayed_will(&client, delayed.0, delayed.1),
            (Err(_), None) => {}
        }
        let Some(slot) = self.slot_of(conn) else {
            if let Ok(claimed) = result {
                self.release_unwanted(client, expiry_seconds, &claimed);
            }
            return;
        };
        match result {
            Ok(claimed) => match self.elsewhere(&claimed) {
                Some(previous) => {
                    self.release_elsewhere(previous, conn, client, expiry_seconds, *claimed);
                }
                None => self.welcome_claimed(slot, *claimed),
            },
            Err(error) => {
                let connecting = self.take_claiming(slot);
                self.stats.refused_store += 1;
                self.stats.connects_refused += 1;
                let text = error.to_string();
                self.write_connack_refusal(
                    conn,
                    connecting.version,
                    connecting.max_packet_bytes,
                    Reason::ServerUnavailable,
                    &text,
                );
                self.forget_client(&client, slot);
                self.close(slot, true);
            }
        }
    }

    /// The session is this connection's: CONNACK, unless another node was faster.
    pub(super) fn welcome_claimed(&mut self, slot: u32, claimed: Claimed) {
        let connecting = self.take_claiming(slot);
        if claimed.epoch >= connecting.outrun {
            return self.welcome(slot, connecting, claimed);
        }
        self.conns[slot as usize]
            .as_mut()
            .expect("the caller looked")
            .phase = Phase::Claiming(connecting);
        self.take_over(slot);
    }

    fn take_claiming(&mut self, slot: u32) -> Box<Connecting> {
        let phase = &mut self.conns[slot as usize]
            .as_mut()
            .expect("the caller looked")
            .phase;
        match std::mem::replace(phase, Phase::Turning) {
            Phase::Claiming(connecting) => connecting,
            _ => unreachable!("a claim has one answer"),
        }
    }

    /// A session of the client ended with the claim.
    pub(super) fn after_claim_ended(&mut self, client: &ClientKey, claimed: &Claimed) {
        // An earlier claim may have failed meanwhile.
        self.cancel_delayed_will(client);
        self.on_session_ended(client, &claimed.ended_filters);
        let owed = claimed.owed_will.as_ref();
        // The store may have refused to write that it was published.
        if let Some(will) = owed.filter(|will| !self.is_publishing_will(will.message.id)) {
            self.publish_will(client, will);
        }
    }

    pub(super) fn welcome(&mut self, slot: u32, connecting: Box<Connecting>, claimed: Claimed) {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked")
            .id;
        let app = self.app(connecting.app());
        let present = claimed.resumed.is_some();
        let connack = self.connack(&connecting, present);
        let window = connecting
            .receive_maximum
            .min(self.config.max_inflight)
            .max(1);
        let mut live = Live {
            conn,
            app,
            version: connecting.version,
            identity: connecting.identity,
            keep_alive: self.granted_keep_alive(connecting.version, connecting.keep_alive),
            since: (self.now.0 / 1000) as u32,
            problem_information: connecting.problem_information,
            blocked: false,
            dirty: false,
            paused: false,
            has_profile: false,
            epoch: claimed.epoch,
            ordinal: claimed.ordinal,
            expiry_seconds: connecting.expiry_seconds,
            max_packet_bytes: connecting.max_packet_bytes,
            outbound: Outbound::new(window),
            inbound: Inbound::new(self.receive_maximum(connecting.version)),
            aliases_in: AliasesIn::new(self.config.topic_alias_maximum),
            aliases_out: AliasesOut::new(
                connecting
                    .alias_maximum
                    .min(self.config.max_outgoing_aliases),
            ),
            subscriptions: Vec::new(),
            push: self.push_stream(app, &claimed, connecting.inbox_noticed),
            topics: Vec::new(),
            will: connecting.will,
            client_id: connecting.client_id,
            rare: None,
            unsaved: None,
            campaigns: None,
        };
        if let Some(auth) = connecting.auth {
            let rare = live.rare();
            rare.auth = Some(auth);
            rare.origin = Some(connecting.origin);
        }
        let profile = claimed.profile.clone();
        self.join_audiences(
            slot,
            &mut live,
            claimed.profile,
            claimed.changes,
            connecting.profile_noticed,
        );
        self.state_connected(&live, profile);
        self.join_campaigns(&mut live, claimed.memory, claimed.begins);
        let resumed = claimed.resumed.unwrap_or_default();
        self.restore(&mut live, &resumed, window);
        self.set_patience(slot, live.keep_alive);
        self.note_expiry(conn, &live.identity);
        if live.is_durable() {
            self.stats.durable_sessions_live += 1;
        }
        self.stats.connects += 1;
        let job = self.next_job;
        let waits = self.attach(slot, &mut live, &resumed.subscriptions, job);
        let resend = resumed.unfinished;
        if waits == 0 {
            self.conns[slot as usize]
                .as_mut()
                .expect("the caller looked")
                .phase = Phase::Live(Box::new(live));
            self.begin(conn, &connack, resend);
        } else {
            live.rare().welcome = Some(Box::new(Welcome { connack, resend }));
            self.conns[slot as usize]
                .as_mut()
                .expect("the caller looked")
                .phase = Phase::Announcing(Box::new(live));
            self.start_job(waits, super::subscribe::JobKind::Welcome(conn));
        }
    }

    /// Sends the CONNACK and takes up the session.
    pub(super) fn begin(&mut self, conn: ConnId, connack: &[u8], resend: Vec<Unfinished>) {
        self.stats.packets_out += 1;
        self.outbox
            .write(conn, |out| out.extend_from_slice(connack));
        self.effects.resume.push(conn);
        self.greet(conn.slot);
        self.take_up(conn, resend);
    }

    pub(super) fn push_stream(&self, app: u16, claimed: &Claimed, noticed: LaneSet) -> PushStream {
        let end = self.apps[usize::from(app)].push_tail.end();
        let Cursor {
            done, done_above, ..
        } = &claimed.push_cursor;
        let position = Position::at(*done, end.max(*done), done_above.clone());
        let mut lanes = claimed.inbox_waiting;
        lanes.add(noticed);
        let replay = (position.lagging || !lanes.is_empty()).then(|| Box::new(Replay::of(lanes)));
        PushStream {
            position,
            inbox_read: Offset::default(),
            replay,
        }
    }

    /// Puts back what the store kept of the session.
    pub(super) fn restore(&mut self, live: &mut Live, resumed: &Resumed, window: u16) {
        for &packet_id in &resumed.received {
            live.inbound.restore(packet_id);
        }
        for unfinished in &resumed.unfinished {
            let source = match unfinished.source {
                Source::Log(log) => TagSource::Log(log),
                Source::Inbox => TagSource::Inbox,
                Source::Campaign(_) => TagSource::Campaign,
            };
            let tag = Tag {
                source,
                offset: unfinished.offset,
                push: match unfinished.source {
                    Source::Campaign(push) => push,
                    _ => crate::ids::MessageId(0),
                },
            };
            live.outbound.restore(
                unfinished.packet_id,
                unfinished.qos,
                unfinished.released,
                tag,
            );
        }
        live.outbound.reconnect(window);
        if !resumed.unfinished.is_empty() {
            live.rare().has_resent = true;
        }
        let from_inbox = |u: &&Unfinished| u.source == Source::Inbox;
        let mut in_inbox: Vec<Offset> = resumed
            .unfinished
            .iter()
            .filter(from_inbox)
            .map(|u| u.offset)
            .collect();
        if !in_inbox.is_empty() {
            in_inbox.sort_unstable();
            live.rare().resent_inbox = in_inbox;
        }
        let from_topics = |u: &Unfinished| matches!(u.source, Source::Log(LogKind::Topic(_)));
        if resumed.subscriptions.is_empty() && !resumed.unfinished.iter().any(from_topics) {
            return;
        }
        let app = &self.apps[usize::from(live.app)];
        for (partition, tail) in app.topic_tails.iter().enumerate() {
            let log = LogKind::Topic(partition as u8);
            let cursor = resumed.cursors.iter().find(|cursor| cursor.log == log);
            let position = match cursor {
                Some(cursor) => Position::at(
                    cursor.done,
                    tail.end().max(cursor.done),
                    cursor.done_above.clone(),
                ),
                None => Position::at(tail.end(), tail.end(), Vec::new()),
            };
            live.topics.push(TopicStream {
                position,
                page: VecDeque::new(),
                page_end: Offset::default(),
                reading: false,
                outdated: false,
            });
        }
    }

    /// The subscription entry of a stored subscription.
    pub(super) fn subscription_of(
        filter: crate::routes::FilterIx,
        stored: &crate::store::StoredSubscription,
        shared: bool,
    ) -> Subscription {
        Subscription {
            filter,
            shared: shared.then(|| stored.filter.clone()),
            options: stored.options,
            id: stored.id,
            since: stored.since.place(),
            counted: false,
        }
    }
}
