//! From CONNECT to CONNACK: who is it, may it, and which session does it take up. MQTT 5.0 sections 3.1, 3.2 and 4.12.

use std::sync::Arc;

use campanile_mqtt::{
    ConnAck, Connect, Packet, PropertiesBuf, Property, QoS, Reason, Version, topic,
};

use super::{
    Phase, Shard, Violation,
    conn::{Auth, Connecting},
    publish::{reserved_name, told_name},
};
use crate::{
    access::Identity,
    ids::Epoch,
    lane::LaneSet,
    message::{Kind, Message},
    store::Will,
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
            let limit = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
            let Violation { reason, text } = violation;
            self.write_connack_refusal(conn, connect.version, limit, reason, &text);
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

    pub(super) fn check_connect(&self, connect: &Connect<'_>) -> Result<(), Violation> {
        if self.stopping {
            return Err(Violation::new(
                self.goodbye(),
                "the server is shutting down",
            ));
        }
        if self.draining().is_some() {
            return Err(Violation::new(
                Reason::UseAnotherServer,
                "this server is being relieved",
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
        if reserved_name(will.topic) || told_name(will.topic) {
            return Err(Violation::new(
                Reason::NotAuthorized,
                format!("will topic {:?}: is reserved for the server", will.topic),
            ));
        }
        Ok(())
    }

    /// An unused identifier whose home is this shard.
    pub(super) fn assign_client_id(&mut self, app: &crate::ids::AppId) -> Arc<str> {
        loop {
            self.assigned += 1;
            let id = self.ids.next(self.now);
            let client_id = format!("auto-{id}");
            if Shard::of_client(app, &client_id, self.count) == self.id {
                return client_id.into();
            }
        }
    }

    pub(super) fn connecting(
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
            inbox_noticed: LaneSet::NONE,
            profile_noticed: None,
            outrun: Epoch::default(),
        }
    }

    pub(super) fn connack(&self, connecting: &Connecting, session_present: bool) -> Vec<u8> {
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

    /// Only 5.0 clients can be told of a shorter keep-alive; others keep theirs.
    pub(super) fn granted_keep_alive(&self, version: Version, asked: u16) -> u16 {
        let maximum = self.config.max_keep_alive_seconds;
        if version.is_v5() && maximum > 0 && (asked == 0 || asked > maximum) {
            maximum
        } else {
            asked
        }
    }

    pub(super) fn receive_maximum(&self, version: Version) -> u16 {
        if version.is_v5() {
            self.config.receive_maximum
        } else {
            u16::MAX
        }
    }
}
