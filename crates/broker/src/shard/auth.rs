//! Who a client is: its credentials at CONNECT, enhanced authentication, re-authentication. MQTT 5.0 section 4.12.

use campanile_mqtt::{
    Auth as AuthPacket, Packet, Properties, PropertiesBuf, Property, Reason, Version,
};

use super::{
    Phase, Shard, Violation,
    conn::{Auth, Connecting},
};
use crate::{
    access::{AuthRequest, Verdict},
    ids::{ConnId, Millis},
};

impl Shard {
    /// Judges what the client showed so far. Whether the connection is still there.
    pub(super) fn authenticate(&mut self, slot: u32, connecting: Box<Connecting>) -> bool {
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
                let Phase::Authenticating(connecting) = std::mem::replace(phase, Phase::Turning)
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
    }

    pub(super) fn on_connect_verdict(
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
                let (limit, reason) = (connecting.max_packet_bytes, Reason::ContinueAuthentication);
                if !self.write_auth(conn, limit, reason, &method, Some(&data)) {
                    let denied = Verdict::Deny(Reason::PacketTooLarge);
                    return self.on_connect_verdict(slot, connecting, denied);
                }
                self.conns[slot as usize]
                    .as_mut()
                    .expect("the caller looked")
                    .phase = Phase::Authenticating(connecting);
                true
            }
            Verdict::Deny(reason) => {
                tracing::debug!(client_id = %connecting.client_id, %reason, "connect refused");
                let limit = connecting.max_packet_bytes;
                self.write_connack_refusal(conn, connecting.version, limit, reason, "");
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
        let Phase::Authenticating(mut connecting) = std::mem::replace(phase, Phase::Turning) else {
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
        let origin = live.rare().origin.clone();
        let origin = *origin.expect("a client with a method has its origin");
        let request = AuthRequest {
            app: origin.app,
            listener: origin.listener,
            peer: origin.peer,
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

    pub(super) fn on_reauthentication_verdict(&mut self, slot: u32, verdict: Verdict) {
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
        let (method, limit) = (auth.method.clone(), live.max_packet_bytes);
        let fits = match verdict {
            Verdict::Allow { identity, data } => {
                (auth.state, auth.data, auth.challenged) = (None, None, false);
                let before = std::mem::replace(&mut live.identity, identity.clone());
                self.forget_expiry(conn, &before);
                self.note_expiry(conn, &identity);
                self.write_auth(conn, limit, Reason::Success, &method, data.as_deref())
            }
            Verdict::Challenge { data, state } => {
                (auth.state, auth.data, auth.challenged) = (Some(state), None, true);
                let reason = Reason::ContinueAuthentication;
                self.write_auth(conn, limit, reason, &method, Some(&data))
            }
            Verdict::Deny(reason) => {
                return self.refuse(slot, reason, "re-authentication failed");
            }
            Verdict::Later => return,
        };
        if !fits {
            let text = "the AUTH would exceed the maximum packet size";
            self.refuse(slot, Reason::PacketTooLarge, text);
        }
    }

    /// Writes an AUTH, if it is not larger than the client allows. Whether it is.
    fn write_auth(
        &mut self,
        conn: ConnId,
        max_packet_bytes: u32,
        reason: Reason,
        method: &str,
        data: Option<&[u8]>,
    ) -> bool {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthMethod(method));
        if let Some(data) = data {
            properties.push(Property::AuthData(data));
        }
        let packet = Packet::Auth(AuthPacket {
            reason,
            properties: properties.as_properties(),
        });
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        let fits = bytes.len() <= max_packet_bytes as usize;
        if fits {
            self.stats.packets_out += 1;
            self.outbox.write(conn, |out| out.extend_from_slice(&bytes));
        }
        fits
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
