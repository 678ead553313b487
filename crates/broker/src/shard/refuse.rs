//! Saying no: CONNACK, DISCONNECT or nothing, as version and moment allow, then the end of the connection.

use campanile_mqtt::{ConnAck, Disconnect, Packet, PropertiesBuf, Property, Reason, Version};

use super::{Phase, Shard};
use crate::ids::ConnId;

impl Shard {
    /// Why a stopping node sends clients away.
    pub(super) fn goodbye(&self) -> Reason {
        if self.config.server_reference.is_empty() {
            Reason::ServerShuttingDown
        } else {
            Reason::UseAnotherServer
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
            Phase::New { .. } | Phase::Turning => {}
        }
        self.close(slot, true);
    }

    pub(super) fn write_disconnect(
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
}
