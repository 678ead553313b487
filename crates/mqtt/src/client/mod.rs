//! The client's end of a conversation, as a machine without IO.
//!
//! A driver owns the transport and the clock. It calls [`Client::connect`] when the transport is open, passes what it reads to
//! [`Client::handle_bytes`], takes what happened from [`Client::poll_event`], *then* writes [`Client::output`]: acknowledgements
//! are part of the output, so that a message counts as received once the driver has handled its event. It calls
//! [`Client::on_tick`] at [`Client::next_deadline`], closes the transport when [`Client::is_closing`] and the output is
//! written, and reports the end of the transport with [`Client::on_closed`]. Then it may connect again: the session goes on
//! where it was, if the server still has it.
//!
//! Times are milliseconds on any clock that does not run backwards.
//!
//! Deliberately absent: the session on disk, queues of messages to be sent later, and when to try again.

mod error;
mod event;
mod keep_alive;
mod limits;
mod options;
mod receive;
mod request;
mod send;

use std::collections::{HashMap, VecDeque};

use crate::session::{AliasesIn, AliasesOut, Inbound, Outbound};
use crate::{Auth, Connect, Packet, PacketId, Properties, PropertiesBuf, Property, QoS, Reason};

pub use error::{Failure, RequestError};
pub use event::{Event, Message};
pub use limits::Limits;
pub use options::{Authentication, Options, WillMessage};
pub use send::Publication;

use keep_alive::KeepAlive;
use send::Kept;

/// One client: its options, its session, and its connection while there is one.
#[derive(Debug)]
pub struct Client {
    options: Options,
    phase: Phase,
    /// Whether this client has state that the server may have too.
    has_session: bool,
    /// What the server of this connection allows.
    limits: Limits,
    outbound: Outbound<()>,
    /// The messages of `outbound` that may have to be sent again: those without PUBACK or PUBREC.
    kept: HashMap<PacketId, Kept>,
    inbound: Inbound,
    /// SUBSCRIBEs and UNSUBSCRIBEs without an answer.
    requests: HashMap<PacketId, Request>,
    aliases_in: AliasesIn,
    aliases_out: AliasesOut,
    keep_alive: KeepAlive,
    /// The beginning of a packet.
    input: Vec<u8>,
    output: Vec<u8>,
    /// PUBACKs in `output`: the server cannot know of them, so their messages still count.
    unwritten_pubacks: u16,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    /// CONNECT is out, CONNACK not in.
    Connecting,
    Connected,
    /// What is left of the output is to be written, then the transport closed.
    Closing,
}

/// What an answer must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Subscribe { filters: usize },
    Unsubscribe { filters: usize },
}

impl Client {
    /// A client without a session.
    pub fn new(options: Options) -> Client {
        Client {
            phase: Phase::Offline,
            has_session: options.has_session,
            limits: Limits::UNTIL_CONNACK,
            outbound: Outbound::new(0),
            kept: HashMap::new(),
            inbound: Inbound::new(0),
            requests: HashMap::new(),
            aliases_in: AliasesIn::new(0),
            aliases_out: AliasesOut::new(0),
            keep_alive: KeepAlive::new(options.response_timeout_ms),
            input: Vec::new(),
            output: Vec::new(),
            unwritten_pubacks: 0,
            events: VecDeque::new(),
            options,
        }
    }

    /// The options; after a CONNACK that assigned a client identifier, with that one.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Options of the next connection.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// What the server of this connection allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins a conversation on a new transport: CONNECT. The answer is [`Event::Connected`], [`Event::Refused`] or
    /// [`Event::Failed`], before it [`Event::Challenge`] if the options ask for enhanced authentication.
    ///
    /// `clean_start` gives up the session, here and at the server; before 5.0 it also ends with the connection.
    pub fn connect(&mut self, clean_start: bool, now_ms: u64) -> Result<(), RequestError> {
        if self.phase != Phase::Offline {
            return Err(RequestError::StillConnected);
        }
        self.options.check(clean_start)?;
        self.input.clear();
        self.output.clear();
        self.unwritten_pubacks = 0;
        self.limits = Limits::UNTIL_CONNACK;
        self.limits.keep_alive = self.options.keep_alive;
        self.limits.session_expiry = self.options.session_expiry;
        self.keep_alive = KeepAlive::new(self.options.response_timeout_ms);
        self.keep_alive.expect_answer(now_ms);
        if clean_start {
            self.has_session = false;
        }
        let options = &self.options;
        let properties = options.connect_properties();
        let connect = Connect {
            version: options.version,
            clean_start,
            keep_alive: options.keep_alive,
            properties: properties.as_properties(),
            client_id: &options.client_id,
            will: options.will.as_ref().map(WillMessage::as_will),
            username: options.username.as_deref(),
            password: options.password.as_deref(),
        };
        self.phase = Phase::Connecting;
        Packet::Connect(connect).encode(options.version, &mut self.output);
        self.keep_alive.on_sent(now_ms);
        Ok(())
    }

    /// Answers [`Event::Challenge`]. 5.0 only.
    pub fn authenticate(&mut self, data: &[u8], now_ms: u64) -> Result<(), RequestError> {
        if !matches!(self.phase, Phase::Connecting | Phase::Connected) {
            return Err(RequestError::NotConnected);
        }
        self.send_auth(Reason::ContinueAuthentication, data, now_ms)
    }

    /// Proves anew who this is, on a connection that began with enhanced authentication. Ends with
    /// [`Event::ReAuthenticated`], or the server disconnects. 5.0 only.
    pub fn reauthenticate(&mut self, data: &[u8], now_ms: u64) -> Result<(), RequestError> {
        if self.phase != Phase::Connected {
            return Err(RequestError::NotConnected);
        }
        self.send_auth(Reason::ReAuthenticate, data, now_ms)
    }

    fn send_auth(&mut self, reason: Reason, data: &[u8], now_ms: u64) -> Result<(), RequestError> {
        let Some(authentication) = &self.options.authentication else {
            return Err(RequestError::invalid(
                "authentication method",
                "",
                "must have been chosen in CONNECT [MQTT-4.12.1-1]",
            ));
        };
        let properties: PropertiesBuf = [
            Property::AuthMethod(&authentication.method),
            Property::AuthData(data),
        ]
        .into_iter()
        .collect();
        let properties = properties.as_properties();
        self.send(Packet::Auth(Auth { reason, properties }), now_ms);
        Ok(())
    }

    /// Ends the connection: DISCONNECT. With reason 0 the server drops the will, with 0x04 it publishes it (5.0).
    pub fn disconnect(
        &mut self,
        reason: Reason,
        properties: Properties<'_>,
        now_ms: u64,
    ) -> Result<(), RequestError> {
        if self.phase != Phase::Connected {
            return Err(RequestError::NotConnected);
        }
        if self.options.session_expiry == 0 && properties.session_expiry().unwrap_or(0) != 0 {
            return Err(RequestError::invalid(
                "session expiry",
                "",
                "cannot be raised from 0 when disconnecting, section 3.14.2.2.2",
            ));
        }
        let packet = crate::Disconnect { reason, properties };
        self.send(Packet::Disconnect(packet), now_ms);
        self.phase = Phase::Closing;
        Ok(())
    }

    /// The transport is gone, by whichever end. What is unfinished waits for the next [`Client::connect`].
    pub fn on_closed(&mut self) {
        self.phase = Phase::Offline;
        self.input = Vec::new();
        self.output = Vec::new();
        self.unwritten_pubacks = 0;
        self.keep_alive.stop();
        self.requests.clear();
    }

    /// Bytes to write, in order. Report with [`Client::on_written`] what the transport took.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The transport took so many bytes of [`Client::output`].
    pub fn on_written(&mut self, bytes: usize) {
        self.output.drain(..bytes);
        if self.output.is_empty() {
            for _ in 0..std::mem::take(&mut self.unwritten_pubacks) {
                self.inbound.finish_qos1();
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether CONNACK has come and nothing has ended the connection.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Whether the transport is to be closed as soon as the output is written.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// QoS 1 and 2 messages that may be published now.
    pub fn free_window(&self) -> usize {
        match self.phase {
            Phase::Connected => self.outbound.free(),
            _ => 0,
        }
    }

    /// Published QoS 1 and 2 messages whose exchange is not over.
    pub fn unfinished(&self) -> impl Iterator<Item = (PacketId, QoS)> {
        self.outbound
            .unfinished()
            .map(|unfinished| (unfinished.packet_id, unfinished.qos))
    }

    /// When [`Client::on_tick`] is needed next.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Connecting | Phase::Connected => self.keep_alive.deadline(),
            Phase::Offline | Phase::Closing => None,
        }
    }

    /// Sends PINGREQ when it is time, gives up on a server that does not answer. Calling too often is harmless.
    pub fn on_tick(&mut self, now_ms: u64) {
        if !matches!(self.phase, Phase::Connecting | Phase::Connected) {
            return;
        }
        if self.keep_alive.is_overdue(now_ms) {
            // Nothing says goodbye to a server that does not listen.
            self.close(Failure::timeout());
        } else if self.keep_alive.wants_ping(now_ms) {
            self.send(Packet::PingReq, now_ms);
            self.keep_alive.expect_answer(now_ms);
        }
    }

    fn send(&mut self, packet: Packet<'_>, now_ms: u64) {
        packet.encode(self.options.version, &mut self.output);
        self.keep_alive.on_sent(now_ms);
    }

    fn close(&mut self, failure: Failure) {
        self.phase = Phase::Closing;
        self.events.push_back(Event::Failed(failure));
    }
}
