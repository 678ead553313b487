//! Bytes in: from the stream to one packet at a time, and each packet to its rule.

use campanile_mqtt::{Auth, Disconnect, Packet, Reason, Split, Version, encode_ping_resp, split};

use super::{Heard, Phase, Shard, TURN_BYTES, Violation, conn::Conn, doubt::may_be_kept};
use crate::{
    effects::{Origin, Progress},
    ids::{ConnId, Millis},
};

/// Incoming QoS 1 and 2 messages of one client that wait for the store, above which it is not read. Bounds 3.x clients, which know no receive maximum.
const MAX_WAITING_ACKS: usize = 1000;

/// What a packet leaves to do.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    /// Do not consume the packet; it is offered again.
    Wait,
    Gone,
}

impl Shard {
    /// A connection came in (or was handed over): bytes will follow.
    pub fn on_accept(&mut self, conn: ConnId, origin: &Origin, now: Millis) {
        self.now = now;
        let slot = conn.slot as usize;
        if slot >= self.conns.len() {
            self.conns.resize_with(slot + 1, || None);
            self.heard.resize(slot + 1, Heard::default());
        }
        debug_assert!(
            self.conns[slot].is_none(),
            "the driver gives a slot to one connection at a time"
        );
        let phase = Phase::New {
            origin: Box::new(origin.clone()),
            since: now,
        };
        self.conns[slot] = Some(Conn { id: conn, phase });
        self.stats.connections += 1;
    }

    /// Bytes of a connection, beginning with those not consumed before.
    pub fn on_bytes(&mut self, conn: ConnId, input: &[u8], now: Millis) -> Progress {
        self.now = now;
        let mut consumed = 0;
        let mut progress = Progress {
            consumed: 0,
            paused: false,
            gone: false,
            flush: false,
        };
        if let Some(heard) = self.heard.get_mut(conn.slot as usize) {
            heard.at = (now.0 / 1000) as u32;
        }
        loop {
            let Some(slot) = self.slot_of(conn) else {
                progress.gone = true;
                break;
            };
            if self.is_waiting(slot) {
                progress.paused = true;
                break;
            }
            if self.outbox.total_bytes() > TURN_BYTES && consumed > 0 {
                progress.flush = true;
                break;
            }
            let rest = &input[consumed..];
            let total = match split(rest, self.config.max_packet_bytes) {
                Ok(Split::Packet { total_len, .. }) => total_len,
                Ok(Split::NeedMore { .. }) => break,
                Err(error) => {
                    self.on_undecodable(slot, rest, error.reason, error.to_string());
                    progress.gone = true;
                    break;
                }
            };
            if may_be_kept(rest[0]) && self.must_look(slot, consumed..consumed + total, input.len())
            {
                progress.paused = true;
                break;
            }
            self.stats.packets_in += 1;
            match self.on_packet(slot, &rest[..total]) {
                Next::Go => consumed += total,
                Next::Wait => {
                    self.stats.packets_in -= 1;
                    progress.paused = true;
                    break;
                }
                Next::Gone => {
                    progress.gone = true;
                    break;
                }
            }
        }
        match self.slot_of(conn) {
            Some(slot) => self.end_look(slot),
            None => progress.gone = true,
        }
        progress.consumed = consumed;
        progress
    }

    /// Whether a connection must not be read now.
    fn is_waiting(&mut self, slot: u32) -> bool {
        match self.conns[slot as usize]
            .as_mut()
            .map(|conn| &mut conn.phase)
        {
            Some(Phase::Authenticating(connecting)) => {
                !connecting.auth.as_ref().is_some_and(|auth| auth.challenged)
            }
            Some(Phase::Claiming(_) | Phase::Announcing(_)) => true,
            Some(Phase::Live(live)) => {
                let behind = live
                    .rare
                    .as_ref()
                    .is_some_and(|rare| rare.acks.len() > MAX_WAITING_ACKS);
                live.paused |= behind;
                behind
            }
            _ => false,
        }
    }

    fn on_packet(&mut self, slot: u32, frame: &[u8]) -> Next {
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("slot_of found it");
        let version = match &conn.phase {
            Phase::New { .. } => return self.on_first_packet(slot, frame),
            Phase::Authenticating(connecting) => connecting.version,
            Phase::Live(live) => live.version,
            Phase::Claiming(_) | Phase::Announcing(_) | Phase::Turning => return Next::Wait,
        };
        let is_live = matches!(conn.phase, Phase::Live(_));
        let packet = match Packet::decode(frame, version) {
            Ok(packet) => packet,
            Err(error) => {
                self.on_undecodable(slot, frame, error.reason, error.to_string());
                return Next::Gone;
            }
        };
        let result = if is_live {
            self.on_live_packet(slot, packet)
        } else {
            self.on_packet_while_authenticating(slot, packet)
        };
        match result {
            Ok(next) => next,
            Err(violation) => {
                self.stats.protocol_errors += 1;
                self.refuse(slot, violation.reason, &violation.text);
                Next::Gone
            }
        }
    }

    fn on_first_packet(&mut self, slot: u32, frame: &[u8]) -> Next {
        match Packet::decode(frame, Version::V5) {
            Ok(Packet::Connect(connect)) => match self.on_connect(slot, connect) {
                true => Next::Go,
                false => Next::Gone,
            },
            // Nothing can be said to a client whose version is unknown [MQTT-3.1.0-1].
            Ok(_) => {
                self.stats.protocol_errors += 1;
                self.close(slot, true);
                Next::Gone
            }
            Err(error) => {
                self.on_undecodable(slot, frame, error.reason, error.to_string());
                Next::Gone
            }
        }
    }

    fn on_live_packet(&mut self, slot: u32, packet: Packet<'_>) -> Result<Next, Violation> {
        match packet {
            Packet::Publish(publish) => self.on_publish(slot, publish)?,
            Packet::PubAck(ack) => self.on_puback(slot, ack),
            Packet::PubRec(ack) => self.on_pubrec(slot, ack),
            Packet::PubRel(ack) => self.on_pubrel(slot, ack),
            Packet::PubComp(ack) => self.on_pubcomp(slot, ack),
            Packet::Subscribe(subscribe) => {
                if self.must_wait(slot, true) {
                    return Ok(Next::Wait);
                }
                self.on_subscribe(slot, subscribe)?;
            }
            Packet::Unsubscribe(unsubscribe) => {
                if self.must_wait(slot, false) {
                    return Ok(Next::Wait);
                }
                self.on_unsubscribe(slot, unsubscribe);
            }
            Packet::PingReq => {
                let conn = self.conns[slot as usize]
                    .as_ref()
                    .expect("on_packet looked")
                    .id;
                self.stats.packets_out += 1;
                self.outbox.write(conn, encode_ping_resp);
            }
            Packet::Disconnect(disconnect) => {
                // A change under way would find the session ended, and end what it was kept for once more.
                if disconnect.properties.session_expiry() == Some(0) && self.must_wait(slot, false)
                {
                    return Ok(Next::Wait);
                }
                return self.on_disconnect(slot, disconnect);
            }
            Packet::Auth(auth) => self.on_reauthenticate(slot, auth)?,
            Packet::Connect(_) => {
                return Err(Violation::new(
                    Reason::ProtocolError,
                    "CONNECT: must not be sent twice on a connection [MQTT-3.1.0-2]",
                ));
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(Violation::new(
                    Reason::ProtocolError,
                    "packet type: is sent by servers only, section 2.1.2",
                ));
            }
        }
        Ok(match self.live(slot) {
            Some(_) => Next::Go,
            None => Next::Gone,
        })
    }

    fn on_packet_while_authenticating(
        &mut self,
        slot: u32,
        packet: Packet<'_>,
    ) -> Result<Next, Violation> {
        match packet {
            Packet::Auth(Auth {
                reason: Reason::ContinueAuthentication,
                properties,
            }) => {
                self.on_auth_step(slot, properties)?;
                Ok(match self.conns[slot as usize] {
                    Some(_) => Next::Go,
                    None => Next::Gone,
                })
            }
            Packet::Disconnect(_) => {
                self.close(slot, true);
                Ok(Next::Gone)
            }
            _ => Err(Violation::new(
                Reason::ProtocolError,
                "packet: only AUTH 0x18 or DISCONNECT may follow while authentication goes on [MQTT-3.1.2-30]",
            )),
        }
    }

    fn on_disconnect(&mut self, slot: u32, disconnect: Disconnect<'_>) -> Result<Next, Violation> {
        let live = self.live_mut(slot).expect("on_packet looked");
        if let Some(expiry) = disconnect.properties.session_expiry() {
            if live.expiry_seconds == 0 && expiry > 0 {
                return Err(Violation::new(
                    Reason::ProtocolError,
                    "session expiry: cannot become more than 0 at DISCONNECT, section 3.14.2.2.2",
                ));
            }
            let was_durable = live.is_durable();
            let maximum = self.config.max_session_expiry_seconds;
            let live = self.live_mut(slot).expect("just seen");
            live.expiry_seconds = expiry.min(maximum);
            self.stats.durable_sessions_live -= u64::from(was_durable && expiry == 0);
        }
        let with_will = disconnect.reason != Reason::NormalDisconnection;
        self.close(slot, with_will);
        Ok(Next::Gone)
    }

    /// Bytes that are no packet, or not one that may come: say why if the version allows, and close.
    fn on_undecodable(&mut self, slot: u32, frame: &[u8], reason: Reason, text: String) {
        self.stats.protocol_errors += 1;
        let conn = self.conns[slot as usize]
            .as_ref()
            .expect("slot_of found it");
        if !matches!(conn.phase, Phase::New { .. }) {
            return self.refuse(slot, reason, &text);
        }
        let conn = conn.id;
        tracing::debug!(reason = %text, "no CONNECT");
        // Before 5.0 only these two have a return code [MQTT-3.1.2-2] [MQTT-3.1.3-8]; all else is answered by closing [MQTT-3.2.2-6].
        let has_code = matches!(
            reason,
            Reason::UnsupportedProtocolVersion | Reason::ClientIdentifierNotValid
        );
        match version_to_refuse_in(frame) {
            Some(version) if version.is_v5() || has_code => {
                self.write_connack_refusal(conn, version, u32::MAX, reason, &text);
            }
            _ => {}
        }
        self.close(slot, true);
    }
}

/// The version to refuse a CONNECT in, or `None` if the bytes are none. A level above 5 may come from a later client of 5.0's style; every other unknown
/// one gets the answer of 3.1.1, which all understand.
fn version_to_refuse_in(frame: &[u8]) -> Option<Version> {
    let [0x10..=0x1F, rest @ ..] = frame else {
        return None;
    };
    let length_bytes = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let rest = rest.get(length_bytes..)?;
    let name_bytes = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
    let level = *rest.get(2 + name_bytes)?;
    match rest.get(2..2 + name_bytes)? {
        b"MQTT" | b"MQIsdp" if level < 5 => Some(Version::V311),
        b"MQTT" if level < 0x80 => Some(Version::V5),
        _ => None,
    }
}
