//! Saying no: CONNACK, DISCONNECT or nothing, as version and moment allow, then the end of the connection.

use campanile_mqtt::{
    ConnAck, Disconnect, Packet, Properties, PropertiesBuf, Property, Reason, Version,
};

use super::{Phase, Shard};
use crate::ids::ConnId;

impl Shard {
    /// Why a stopping node sends clients away.
    pub(super) fn goodbye(&self) -> Reason {
        if self.server_reference(Reason::UseAnotherServer).is_empty() {
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
        max_packet_bytes: u32,
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
        let encode = |version, properties: Properties<'_>, out: &mut Vec<u8>| {
            let packet = ConnAck {
                session_present: false,
                reason,
                properties,
            };
            Packet::ConnAck(packet).encode(version, out);
        };
        self.write_explained(conn, version, max_packet_bytes, reason, text, encode);
    }

    /// Writes a packet with a reason string and a server reference, as far as the version knows and the client takes them. If it is too large without
    /// them, nothing is written, and the answer is no.
    pub(super) fn write_explained(
        &mut self,
        conn: ConnId,
        version: Version,
        max_packet_bytes: u32,
        reason: Reason,
        text: &str,
        encode: impl Fn(Version, Properties<'_>, &mut Vec<u8>),
    ) -> bool {
        let reference = self.server_reference(reason);
        let reference = &*reference;
        let mut bytes = Vec::new();
        for (text, reference) in [(text, reference), ("", reference), ("", "")] {
            let mut properties = PropertiesBuf::new();
            if version.is_v5() && !text.is_empty() {
                properties.push(Property::ReasonString(text));
            }
            if version.is_v5() && !reference.is_empty() {
                properties.push(Property::ServerReference(reference));
            }
            bytes.clear();
            encode(version, properties.as_properties(), &mut bytes);
            if bytes.len() <= max_packet_bytes as usize {
                self.stats.packets_out += 1;
                self.outbox.write(conn, |out| out.extend_from_slice(&bytes));
                return true;
            }
        }
        false
    }

    /// Writes an answer that must fit into what the client takes; if it does not, the connection ends.
    pub(super) fn answer(
        &mut self,
        conn: ConnId,
        text: &str,
        encode: impl Fn(Version, Properties<'_>, &mut Vec<u8>),
    ) -> bool {
        let Some(live) = self.answered(conn) else {
            return false;
        };
        let (version, limit) = (live.version, live.max_packet_bytes);
        let text = if live.problem_information { text } else { "" };
        let fits = self.write_explained(conn, version, limit, Reason::Success, text, encode);
        if !fits {
            let text = "the answer would exceed the maximum packet size";
            self.refuse(conn.slot, Reason::PacketTooLarge, text);
        }
        fits
    }

    /// Tells a client why, if its version allows and it is not too early, and closes its connection.
    pub(super) fn refuse(&mut self, slot: u32, reason: Reason, text: &str) {
        self.say_goodbye(slot, reason, text);
        self.close(slot, true);
    }

    /// Tells a client why it is cut off, if its version and its phase allow.
    pub(super) fn say_goodbye(&mut self, slot: u32, reason: Reason, text: &str) {
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
                let (version, limit) = (connecting.version, connecting.max_packet_bytes);
                self.write_connack_refusal(id, version, limit, reason, text);
                self.stats.connects_refused += 1;
            }
            Phase::Announcing(live) => {
                let (version, limit) = (live.version, live.max_packet_bytes);
                self.write_connack_refusal(id, version, limit, reason, text);
            }
            Phase::New { .. } | Phase::Turning => {}
        }
    }

    pub(super) fn write_disconnect(
        &mut self,
        conn: ConnId,
        reason: Reason,
        text: &str,
        max_packet_bytes: u32,
    ) {
        // Reasons that only a CONNACK can give; a second CONNECT that is wrong in itself comes here [MQTT-3.1.0-2].
        let reason = match reason {
            Reason::UnsupportedProtocolVersion
            | Reason::ClientIdentifierNotValid
            | Reason::BadUserNameOrPassword => Reason::ProtocolError,
            reason => reason,
        };
        let encode = |version, properties: Properties<'_>, out: &mut Vec<u8>| {
            Packet::Disconnect(Disconnect { reason, properties }).encode(version, out);
        };
        self.write_explained(conn, Version::V5, max_packet_bytes, reason, text, encode);
    }
}
