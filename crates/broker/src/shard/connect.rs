//! From CONNECT to CONNACK: who is it, may it, and which session does it take up. MQTT 5.0 sections 3.1, 3.2 and 4.12.

use std::{collections::VecDeque, sync::Arc};

use campanile_mqtt::{
    Auth as AuthPacket, ConnAck, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property,
    QoS, Reason, Version,
    session::{AliasesIn, AliasesOut, Inbound, Outbound},
    topic,
};
use smallvec::SmallVec;

use super::{
    Pending, Phase, Shard, Violation,
    conn::{
        Auth, Connecting, Live, Position, PushStream, Replay, Subscription, Tag, TagSource,
        TopicStream, Welcome,
    },
    publish::reserved_name,
};
use crate::{
    access::{AuthRequest, Identity, Verdict},
    ids::{ClientKey, ConnId, Millis},
    message::{Kind, Message},
    store::{
        Claim, Claimed, Command, Cursor, LogKind, Resumed, Source, StoreError, Unfinished, Will,
    },
};

impl Shard {
    /// Whether the connection goes on here.
    pub(super) fn on_connect(&mut self, slot: u32, connect: Connect<'_>) -> bool {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked");
        let (conn, app) = match &conn.phase {
            Phase::New { origin, .. } => (conn.id, origin.app.clone()),
            _ => return false,
        };
        let empty = connect.client_id.is_empty();
        if !empty {
            let home = Shard::of_client(&app, connect.client_id, self.count);
            if home != self.id {
                self.conns[slot as usize] = None;
                self.stats.connections -= 1;
                self.effects.handovers.push((conn, home));
                return false;
            }
        }
        if let Err(violation) = self.check_connect(&connect) {
            self.write_connack_refusal(conn, connect.version, violation.reason, &violation.text);
            self.stats.connects_refused += 1;
            self.close(slot, true);
            return false;
        }
        let client_id = if empty {
            self.assign_client_id(&app)
        } else {
            connect.client_id.into()
        };
        let connecting = Box::new(self.connecting(slot, connect, client_id, empty));
        self.authenticate(slot, connecting)
    }

    fn check_connect(&self, connect: &Connect<'_>) -> Result<(), Violation> {
        if self.stopping {
            return Err(Violation::new(
                self.goodbye(),
                "the server is shutting down",
            ));
        }
        if connect.client_id.is_empty() {
            let id_rule = match connect.version {
                Version::V31 => Some("client id: must have 1 to 23 characters in MQTT 3.1"),
                Version::V311 if !connect.clean_start => {
                    Some("client id: may be empty only with clean session 1 [MQTT-3.1.3-8]")
                }
                _ if !self.config.allow_empty_client_id => {
                    Some("client id: must not be empty on this server")
                }
                _ => None,
            };
            if let Some(rule) = id_rule {
                return Err(Violation::new(Reason::ClientIdentifierNotValid, rule));
            }
        }
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if will.qos > self.config.max_qos {
            return Err(Violation::new(
                Reason::QoSNotSupported,
                format!(
                    "will qos {}: this server serves up to {}",
                    will.qos as u8, self.config.max_qos as u8
                ),
            ));
        }
        if will.retain && !self.config.retain_available {
            return Err(Violation::new(
                Reason::RetainNotSupported,
                "will retain: this server does not retain messages",
            ));
        }
        if topic::levels(will.topic) > usize::from(self.config.max_topic_levels) {
            return Err(Violation::new(
                Reason::TopicNameInvalid,
                format!(
                    "will topic: has more than {} levels",
                    self.config.max_topic_levels
                ),
            ));
        }
        if reserved_name(will.topic) {
            return Err(Violation::new(
                Reason::NotAuthorized,
                format!("will topic {:?}: is reserved for the server", will.topic),
            ));
        }
        Ok(())
    }

    /// An unused identifier whose home is this shard.
    fn assign_client_id(&mut self, app: &crate::ids::AppId) -> Arc<str> {
        loop {
            self.assigned += 1;
            let id = self.ids.next(self.now);
            let client_id = format!("auto-{id}");
            if Shard::of_client(app, &client_id, self.count) == self.id {
                return client_id.into();
            }
        }
    }

    fn connecting(
        &mut self,
        slot: u32,
        connect: Connect<'_>,
        client_id: Arc<str>,
        assigned: bool,
    ) -> Connecting {
        let conn = self.conns[slot as usize]
            .as_mut()
            .expect("the caller looked");
        let Phase::New { origin, since } = &conn.phase else {
            unreachable!("the caller looked")
        };
        let properties = connect.properties;
        let asked = match connect.version {
            Version::V5 => properties.session_expiry().unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => self.config.v3_session_expiry_seconds,
        };
        let expiry_seconds = asked.min(self.config.max_session_expiry_seconds);
        let will = connect.will.as_ref().map(|will| {
            let mut forwarded = Vec::new();
            will.properties.write_forwardable(&mut forwarded);
            let id = self.ids.next(self.now);
            let mut message = Message::new(id, Kind::Publish, will.topic, &forwarded, will.payload);
            message.qos = will.qos;
            message.retain = will.retain;
            message.publisher = Some(client_id.clone());
            Box::new(Will {
                message: Arc::new(message),
                delay_seconds: will.properties.will_delay().unwrap_or(0),
                expiry_seconds: will.properties.message_expiry(),
            })
        });
        Connecting {
            since: *since,
            origin: origin.clone(),
            version: connect.version,
            client_id,
            assigned,
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            expiry_seconds,
            expiry_cut: asked != expiry_seconds,
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
            max_packet_bytes: properties.maximum_packet_size().unwrap_or(u32::MAX),
            alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            problem_information: properties.request_problem_information().unwrap_or(true),
            response_information: properties.request_response_information().unwrap_or(false),
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            will,
            identity: Identity::default(),
            auth: properties.auth_method().map(|method| {
                Box::new(Auth {
                    method: method.into(),
                    data: properties.auth_data().map(Into::into),
                    state: None,
                    challenged: false,
                })
            }),
            auth_data: None,
            inbox_noticed: false,
        }
    }

    /// Judges what the client showed so far. Whether the connection is still there.
    fn authenticate(&mut self, slot: u32, connecting: Box<Connecting>) -> bool {
        let request = auth_request(&connecting);
        match self.access.authenticate(&request) {
            Verdict::Later => {
                let conn = self.conns[slot as usize]
                    .as_mut()
                    .expect("the caller looked");
                conn.phase = Phase::Authenticating(connecting);
                self.effects.authenticate.push((conn.id, Box::new(request)));
                true
            }
            verdict => self.on_connect_verdict(slot, connecting, verdict),
        }
    }

    /// Answer to an authentication.
    pub fn on_verdict(&mut self, conn: ConnId, verdict: Verdict, now: Millis) {
        self.now = now;
        let Some(slot) = self.slot_of(conn) else {
            return;
        };
        let phase = &mut self.conns[slot as usize]
            .as_mut()
            .expect("slot_of found it")
            .phase;
        match phase {
            Phase::Authenticating(_) => {
                let placeholder = Phase::New {
                    origin: placeholder_origin(phase),
                    since: now,
                };
                let Phase::Authenticating(connecting) = std::mem::replace(phase, placeholder)
                else {
                    unreachable!("just matched")
                };
                if self.on_connect_verdict(slot, connecting, verdict) {
                    self.effects.resume.push(conn);
                }
            }
            Phase::Live(_) => self.on_reauthentication_verdict(slot, verdict),
            _ => {}
        }
        self.close_doomed();
    }

    fn on_connect_verdict(
        &mut self,
        slot: u32,
        mut connecting: Box<Connecting>,
        verdict: Verdict,
    ) -> bool {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked")
            .id;
        match verdict {
            Verdict::Allow { identity, data } => {
                connecting.identity = identity;
                connecting.auth_data = data;
                if let Some(auth) = &mut connecting.auth {
                    (auth.state, auth.data, auth.challenged) = (None, None, false);
                }
                self.claim(slot, connecting)
            }
            Verdict::Challenge { data, state } => {
                let Some(auth) = &mut connecting.auth else {
                    unreachable!("only enhanced authentication has challenges")
                };
                (auth.state, auth.data, auth.challenged) = (Some(state), None, true);
                let method = auth.method.clone();
                self.write_auth(conn, Reason::ContinueAuthentication, &method, Some(&data));
                self.conns[slot as usize]
                    .as_mut()
                    .expect("the caller looked")
                    .phase = Phase::Authenticating(connecting);
                true
            }
            Verdict::Deny(reason) => {
                tracing::debug!(client_id = %connecting.client_id, %reason, "connect refused");
                self.write_connack_refusal(conn, connecting.version, reason, "");
                self.stats.connects_refused += 1;
                self.close(slot, true);
                false
            }
            Verdict::Later => unreachable!("answered before, or by authenticate_slowly"),
        }
    }

    /// AUTH 0x18 before the CONNACK.
    pub(super) fn on_auth_step(
        &mut self,
        slot: u32,
        properties: Properties<'_>,
    ) -> Result<(), Violation> {
        let phase = &mut self.conns[slot as usize]
            .as_mut()
            .expect("the caller looked")
            .phase;
        let placeholder = Phase::New {
            origin: placeholder_origin(phase),
            since: self.now,
        };
        let Phase::Authenticating(mut connecting) = std::mem::replace(phase, placeholder) else {
            unreachable!("the caller looked")
        };
        let auth = connecting
            .auth
            .as_mut()
            .expect("only challenged clients are read");
        let result = take_step(auth, properties);
        if let Err(violation) = result {
            self.conns[slot as usize]
                .as_mut()
                .expect("the caller looked")
                .phase = Phase::Authenticating(connecting);
            return Err(violation);
        }
        self.authenticate(slot, connecting);
        Ok(())
    }

    /// AUTH of a connected client: re-authentication. MQTT 5.0 section 4.12.1.
    pub(super) fn on_reauthenticate(
        &mut self,
        slot: u32,
        packet: AuthPacket<'_>,
    ) -> Result<(), Violation> {
        let live = self.live_mut(slot).expect("the caller looked");
        let Some(auth) = live.rare.as_mut().and_then(|rare| rare.auth.as_mut()) else {
            return Err(Violation::new(
                Reason::ProtocolError,
                "AUTH: the CONNECT named no authentication method [MQTT-4.12.0-7]",
            ));
        };
        let in_exchange = auth.challenged;
        match packet.reason {
            Reason::ReAuthenticate if !in_exchange && auth.state.is_none() => {}
            Reason::ContinueAuthentication if in_exchange => {}
            reason => {
                return Err(Violation::new(
                    Reason::ProtocolError,
                    format!(
                        "AUTH reason {:#04x}: not at this point of the exchange",
                        reason.code()
                    ),
                ));
            }
        }
        take_step(auth, packet.properties)?;
        let auth = auth.clone();
        let request = AuthRequest {
            app: live.listener.app.clone(),
            listener: live.listener.listener.clone(),
            peer: live.listener.peer,
            client_id: live.client_id.clone(),
            username: None,
            password: None,
            method: Some(auth.method),
            data: auth.data,
            state: auth.state,
            identity: Some(live.identity.clone()),
        };
        match self.access.authenticate(&request) {
            Verdict::Later => {
                let conn = self.conns[slot as usize]
                    .as_ref()
                    .expect("the caller looked")
                    .id;
                self.effects.authenticate.push((conn, Box::new(request)));
            }
            verdict => self.on_reauthentication_verdict(slot, verdict),
        }
        Ok(())
    }

    fn on_reauthentication_verdict(&mut self, slot: u32, verdict: Verdict) {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked")
            .id;
        let Some(live) = self.live_mut(slot) else {
            return;
        };
        let Some(auth) = live.rare.as_mut().and_then(|rare| rare.auth.as_mut()) else {
            return;
        };
        let method = auth.method.clone();
        match verdict {
            Verdict::Allow { identity, data } => {
                (auth.state, auth.data, auth.challenged) = (None, None, false);
                live.identity = identity;
                self.write_auth(conn, Reason::Success, &method, data.as_deref());
            }
            Verdict::Challenge { data, state } => {
                (auth.state, auth.data, auth.challenged) = (Some(state), None, true);
                self.write_auth(conn, Reason::ContinueAuthentication, &method, Some(&data));
            }
            Verdict::Deny(reason) => self.refuse(slot, reason, "re-authentication failed"),
            Verdict::Later => {}
        }
    }

    fn write_auth(&mut self, conn: ConnId, reason: Reason, method: &str, data: Option<&[u8]>) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthMethod(method));
        if let Some(data) = data {
            properties.push(Property::AuthData(data));
        }
        let packet = Packet::Auth(AuthPacket {
            reason,
            properties: properties.as_properties(),
        });
        self.write(conn, Version::V5, &packet);
    }

    /// The client is who it says: take its session. Whether the connection is still there.
    fn claim(&mut self, slot: u32, connecting: Box<Connecting>) -> bool {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("the caller looked")
            .id;
        if let Some(will) = &connecting.will {
            let topic = will.message.topic();
            if !self
                .access
                .may_publish(&connecting.identity, &connecting.client_id, topic)
            {
                let text = format!("will topic {topic:?}: not allowed");
                self.write_connack_refusal(conn, connecting.version, Reason::NotAuthorized, &text);
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
            self.write_connack_refusal(conn, connecting.version, Reason::ServerBusy, text);
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
        self.cancel_delayed_will(&client);
        self.apps[usize::from(app)]
            .clients
            .insert(client.client_id.clone(), slot);
        let claim = Claim {
            client: client.clone(),
            now: self.now,
            clean_start: connecting.clean_start,
            expiry_seconds: connecting.expiry_seconds,
            will: connecting.will.as_deref().cloned(),
        };
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
            },
        );
        true
    }

    /// Another connection claims this client [MQTT-3.1.4-3].
    fn take_over(&mut self, slot: u32) {
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
        result: Result<Box<Claimed>, StoreError>,
    ) {
        if let Ok(claimed) = &result {
            self.after_claim_ended(&client, claimed);
        }
        let Some(slot) = self.slot_of(conn) else {
            if let Ok(claimed) = result {
                self.release_unwanted(client, expiry_seconds, &claimed);
            }
            return;
        };
        let phase = &mut self.conns[slot as usize]
            .as_mut()
            .expect("slot_of found it")
            .phase;
        let placeholder = Phase::New {
            origin: placeholder_origin(phase),
            since: self.now,
        };
        let Phase::Claiming(connecting) = std::mem::replace(phase, placeholder) else {
            unreachable!("a claim has one answer")
        };
        match result {
            Ok(claimed) => self.welcome(slot, connecting, *claimed),
            Err(error) => {
                self.stats.refused_store += 1;
                self.stats.connects_refused += 1;
                let text = error.to_string();
                self.write_connack_refusal(
                    conn,
                    connecting.version,
                    Reason::ServerUnavailable,
                    &text,
                );
                self.forget_client(&client, slot);
                self.close(slot, true);
            }
        }
    }

    /// A session of the client ended with the claim.
    fn after_claim_ended(&mut self, client: &ClientKey, claimed: &Claimed) {
        self.on_session_ended(client, &claimed.ended_filters);
        if let Some(will) = &claimed.owed_will {
            self.publish_will(client, will, false);
        }
    }

    fn welcome(&mut self, slot: u32, connecting: Box<Connecting>, claimed: Claimed) {
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
            listener: Arc::new(*connecting.origin),
            identity: connecting.identity,
            keep_alive: self.granted_keep_alive(connecting.version, connecting.keep_alive),
            problem_information: connecting.problem_information,
            blocked: false,
            dirty: false,
            paused: false,
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
            topics: SmallVec::new(),
            will: connecting.will,
            client_id: connecting.client_id,
            rare: None,
            unsaved: None,
        };
        if let Some(auth) = connecting.auth {
            live.rare().auth = Some(auth);
        }
        let resumed = claimed.resumed.unwrap_or_default();
        self.restore(&mut live, &resumed, window);
        self.set_patience(slot, live.keep_alive);
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
        self.take_up(conn, resend);
    }

    fn push_stream(&self, app: u16, claimed: &Claimed, noticed: bool) -> PushStream {
        let end = self.apps[usize::from(app)].push_tail.end();
        let Cursor {
            done, done_above, ..
        } = &claimed.push_cursor;
        let position = Position::at(*done, end.max(*done), done_above.clone());
        let inbox_more = claimed.inbox_waiting || noticed;
        let replay = (position.lagging || inbox_more).then(|| {
            Box::new(Replay {
                inbox_more,
                ..Replay::default()
            })
        });
        PushStream { position, replay }
    }

    /// Puts back what the store kept of the session.
    fn restore(&mut self, live: &mut Live, resumed: &Resumed, window: u16) {
        for &packet_id in &resumed.received {
            live.inbound.restore(packet_id);
        }
        for unfinished in &resumed.unfinished {
            let source = match unfinished.source {
                Source::Log(log) => TagSource::Log(log),
                Source::Inbox => TagSource::Inbox,
            };
            let tag = Tag {
                source,
                offset: unfinished.offset,
                push: crate::ids::MessageId(0),
            };
            live.outbound.restore(
                unfinished.packet_id,
                unfinished.qos,
                unfinished.released,
                tag,
            );
        }
        live.outbound.reconnect(window);
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
                reading: false,
            });
        }
    }

    fn connack(&self, connecting: &Connecting, session_present: bool) -> Vec<u8> {
        let config = &*self.config;
        let response_information =
            format!("{}{}", config.response_information, connecting.client_id);
        let mut properties = PropertiesBuf::new();
        if connecting.version.is_v5() {
            if connecting.expiry_cut {
                properties.push(Property::SessionExpiry(connecting.expiry_seconds));
            }
            if config.receive_maximum != u16::MAX {
                properties.push(Property::ReceiveMaximum(config.receive_maximum));
            }
            if config.max_qos < QoS::ExactlyOnce {
                properties.push(Property::MaximumQoS(config.max_qos));
            }
            if !config.retain_available {
                properties.push(Property::RetainAvailable(false));
            }
            properties.push(Property::MaximumPacketSize(config.max_packet_bytes));
            if connecting.assigned {
                properties.push(Property::AssignedClientId(&connecting.client_id));
            }
            if config.topic_alias_maximum > 0 {
                properties.push(Property::TopicAliasMaximum(config.topic_alias_maximum));
            }
            let keep_alive = self.granted_keep_alive(connecting.version, connecting.keep_alive);
            if keep_alive != connecting.keep_alive {
                properties.push(Property::ServerKeepAlive(keep_alive));
            }
            if connecting.response_information && !config.response_information.is_empty() {
                properties.push(Property::ResponseInformation(&response_information));
            }
            if let Some(auth) = &connecting.auth {
                properties.push(Property::AuthMethod(&auth.method));
                if let Some(data) = &connecting.auth_data {
                    properties.push(Property::AuthData(data));
                }
            }
        }
        let packet = Packet::ConnAck(ConnAck {
            session_present,
            reason: Reason::Success,
            properties: properties.as_properties(),
        });
        let mut bytes = Vec::new();
        packet.encode(connecting.version, &mut bytes);
        bytes
    }

    /// Why a stopping node sends clients away.
    pub(super) fn goodbye(&self) -> Reason {
        if self.config.server_reference.is_empty() {
            Reason::ServerShuttingDown
        } else {
            Reason::UseAnotherServer
        }
    }

    /// Only 5.0 clients can be told of a shorter keep-alive; others keep theirs.
    fn granted_keep_alive(&self, version: Version, asked: u16) -> u16 {
        let maximum = self.config.max_keep_alive_seconds;
        if version.is_v5() && maximum > 0 && (asked == 0 || asked > maximum) {
            maximum
        } else {
            asked
        }
    }

    fn receive_maximum(&self, version: Version) -> u16 {
        if version.is_v5() {
            self.config.receive_maximum
        } else {
            u16::MAX
        }
    }

    /// CONNACK that says no.
    pub(super) fn write_connack_refusal(
        &mut self,
        conn: ConnId,
        version: Version,
        reason: Reason,
        text: &str,
    ) {
        // Reasons that only a DISCONNECT can give have their nearest kin in a CONNACK, section 3.2.2.2.
        let reason = match reason {
            Reason::ServerShuttingDown | Reason::SessionTakenOver => Reason::ServerUnavailable,
            Reason::TopicAliasInvalid | Reason::ReceiveMaximumExceeded => Reason::ProtocolError,
            Reason::KeepAliveTimeout | Reason::TopicFilterInvalid => Reason::UnspecifiedError,
            reason => reason,
        };
        let config = self.config.clone();
        let mut properties = PropertiesBuf::new();
        if version.is_v5() {
            if !text.is_empty() {
                properties.push(Property::ReasonString(text));
            }
            if reason == Reason::UseAnotherServer && !config.server_reference.is_empty() {
                properties.push(Property::ServerReference(&config.server_reference));
            }
        }
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties: properties.as_properties(),
        });
        self.write(conn, version, &packet);
    }

    /// Tells a client why, if its version allows and it is not too early, and closes its connection.
    pub(super) fn refuse(&mut self, slot: u32, reason: Reason, text: &str) {
        let Some(conn) = &self.conns[slot as usize] else {
            return;
        };
        let id = conn.id;
        match &conn.phase {
            Phase::Live(live) => {
                tracing::debug!(client_id = %live.client_id, %reason, text, "disconnecting");
                let (version, max_packet_bytes) = (live.version, live.max_packet_bytes);
                if version.is_v5() {
                    self.write_disconnect(id, reason, text, max_packet_bytes);
                }
            }
            Phase::Authenticating(connecting) | Phase::Claiming(connecting) => {
                let version = connecting.version;
                self.write_connack_refusal(id, version, reason, text);
                self.stats.connects_refused += 1;
            }
            Phase::Announcing(live) => {
                let version = live.version;
                self.write_connack_refusal(id, version, reason, text);
            }
            Phase::New { .. } => {}
        }
        self.close(slot, true);
    }

    fn write_disconnect(
        &mut self,
        conn: ConnId,
        reason: Reason,
        text: &str,
        max_packet_bytes: u32,
    ) {
        let mut properties = PropertiesBuf::new();
        if !text.is_empty() && text.len() + 64 < max_packet_bytes as usize {
            properties.push(Property::ReasonString(text));
        }
        let config = self.config.clone();
        if reason == Reason::UseAnotherServer && !config.server_reference.is_empty() {
            properties.push(Property::ServerReference(&config.server_reference));
        }
        let packet = Packet::Disconnect(Disconnect {
            reason,
            properties: properties.as_properties(),
        });
        self.write(conn, Version::V5, &packet);
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
            since: stored.since,
            counted: false,
        }
    }
}

fn auth_request(connecting: &Connecting) -> AuthRequest {
    let auth = connecting.auth.as_ref();
    AuthRequest {
        app: connecting.origin.app.clone(),
        listener: connecting.origin.listener.clone(),
        peer: connecting.origin.peer,
        client_id: connecting.client_id.clone(),
        username: connecting.username.clone(),
        password: connecting.password.clone(),
        method: auth.map(|auth| auth.method.clone()),
        data: auth.and_then(|auth| auth.data.clone()),
        state: auth.and_then(|auth| auth.state.clone()),
        identity: None,
    }
}

/// Takes the client's step of an exchange: same method, new data.
fn take_step(auth: &mut Auth, properties: Properties<'_>) -> Result<(), Violation> {
    if properties.auth_method() != Some(&auth.method) {
        return Err(Violation::new(
            Reason::BadAuthenticationMethod,
            "authentication method: must be that of the CONNECT [MQTT-4.12.0-5]",
        ));
    }
    auth.data = properties.auth_data().map(Into::into);
    auth.challenged = false;
    Ok(())
}

/// The origin of a connection whose phase is being exchanged.
fn placeholder_origin(phase: &Phase) -> Box<crate::effects::Origin> {
    match phase {
        Phase::New { origin, .. } => origin.clone(),
        Phase::Authenticating(connecting) | Phase::Claiming(connecting) => {
            connecting.origin.clone()
        }
        Phase::Announcing(live) | Phase::Live(live) => Box::new((*live.listener).clone()),
    }
}
