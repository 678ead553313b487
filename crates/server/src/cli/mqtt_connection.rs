//! A connection of `pub` or `sub` to a broker: the client machine, its transport and its clock.

mod arguments;
mod transport;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use campanile_mqtt::client::{Client, Event};
use campanile_mqtt::{Properties, PropertiesBuf, Reason, Split, split};

pub use arguments::{AuthMethod, ConnectArgs, MqttVersion, Secret, Url, parse_qos, random_hex};

use super::scram_client::{ClientFinal, ClientFirst};
use transport::Transport;

/// A client and its transport.
///
/// Packets are handled one at a time, each when [`Connection::poll_event`] has nothing else to tell, and acknowledgements are
/// written when the next [`Connection::turn`] begins: only what the caller has seen is acknowledged.
pub struct Connection {
    args: ConnectArgs,
    url: Url,
    /// The machine. Requests go out with the next turn.
    pub client: Client,
    transport: Transport,
    scram: Option<ClientFirst>,
    started: Instant,
    /// Bytes that were read and not yet handled.
    input: Vec<u8>,
    handled: usize,
    more_to_read: bool,
    /// How the transport ended, while what came before is still to be handled.
    end: Option<io::Error>,
}

/// Why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The broker refused the connection.
    #[error("the broker refused the connection: {}", describe(*.reason, .properties))]
    Refused {
        /// Why.
        reason: Reason,
        /// Of its CONNACK.
        properties: PropertiesBuf,
    },
    /// The broker ended the connection.
    #[error("the broker ended the connection: {}", describe(*.reason, .properties))]
    Disconnected {
        /// Why.
        reason: Reason,
        /// Of its DISCONNECT.
        properties: PropertiesBuf,
    },
    /// The transport broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The broker broke a rule or did not answer.
    #[error(transparent)]
    Failed(campanile_mqtt::client::Failure),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Lost {
        Lost::Broken(error)
    }
}

impl Lost {
    /// Where the broker sends its clients, if it does.
    pub fn server_reference(&self) -> Option<&str> {
        match self {
            Lost::Refused { reason, properties } | Lost::Disconnected { reason, properties }
                if matches!(reason, Reason::UseAnotherServer | Reason::ServerMoved) =>
            {
                properties.as_properties().server_reference()
            }
            _ => None,
        }
    }

    /// Whether another attempt may succeed where this one failed.
    pub fn may_pass(&self) -> bool {
        match self {
            Lost::Refused { reason, .. } => matches!(
                reason,
                Reason::ServerUnavailable
                    | Reason::ServerBusy
                    | Reason::QuotaExceeded
                    | Reason::UseAnotherServer
                    | Reason::ServerMoved
                    | Reason::ConnectionRateExceeded
            ),
            Lost::Disconnected { reason, .. } => {
                !matches!(reason, Reason::SessionTakenOver | Reason::NotAuthorized)
            }
            Lost::Broken(_) | Lost::Failed(_) => true,
        }
    }
}

/// A reason with its code, and what the server added to it.
pub fn describe(reason: Reason, properties: &PropertiesBuf) -> String {
    let properties = properties.as_properties();
    let mut text = format!("{reason} (0x{:02x})", reason.code());
    if let Some(words) = properties.reason_string() {
        text += &format!(": {words}");
    }
    if let Some(reference) = properties.server_reference() {
        text += &format!(", see {reference}");
    }
    text
}

impl Connection {
    /// Connects and waits until the broker accepts: the connection and whether a session goes on.
    ///
    /// `adjust` changes the options that the arguments make.
    pub fn open(
        args: &ConnectArgs,
        clean_start: bool,
        adjust: impl FnOnce(&mut campanile_mqtt::client::Options),
    ) -> anyhow::Result<(Connection, bool)> {
        let (mut options, scram) = args.options()?;
        adjust(&mut options);
        let mut connection = Connection {
            url: args.url.clone(),
            client: Client::new(options),
            transport: Transport::connect(&args.url, args)?,
            args: args.clone(),
            scram,
            started: Instant::now(),
            input: Vec::new(),
            handled: 0,
            more_to_read: false,
            end: None,
        };
        let session_present = connection.hand_shake(clean_start)?;
        Ok((connection, session_present))
    }

    /// Connects again, to where `lost` says or to the same broker: whether the session goes on.
    pub fn reopen(&mut self, lost: &Lost) -> anyhow::Result<bool> {
        self.url = lost
            .server_reference()
            .and_then(|reference| self.url.moved_to(reference))
            .unwrap_or_else(|| self.args.url.clone());
        self.client.on_closed();
        self.input.clear();
        self.handled = 0;
        self.more_to_read = false;
        self.end = None;
        self.transport = Transport::connect(&self.url, &self.args)?;
        if self.scram.is_some() {
            // A nonce serves once.
            let (options, scram) = self.args.options()?;
            self.client.options_mut().authentication = options.authentication;
            self.scram = scram;
        }
        self.hand_shake(false)
    }

    fn hand_shake(&mut self, clean_start: bool) -> anyhow::Result<bool> {
        self.client.connect(clean_start, self.now_ms())?;
        let mut proof: Option<ClientFinal> = None;
        loop {
            while let Some(event) = self.poll_event() {
                match event {
                    Event::Challenge { data } => {
                        let Some(first) = self.scram.as_ref().filter(|_| proof.is_none()) else {
                            bail!("the broker asks for more authentication than was agreed on");
                        };
                        let (last, message) = first.on_challenge(&data)?;
                        self.client
                            .authenticate(message.as_bytes(), self.now_ms())?;
                        proof = Some(last);
                    }
                    Event::Connected {
                        session_present,
                        properties,
                    } => {
                        if self.scram.is_some() {
                            let data = properties.as_properties().auth_data();
                            let last = proof
                                .as_ref()
                                .ok_or_else(|| anyhow!("the broker skipped the authentication"))?;
                            last.on_outcome(data.unwrap_or_default())?;
                        }
                        return Ok(session_present);
                    }
                    // Of the session that ends with this connection's beginning; `pub` and `sub` keep none.
                    Event::Dropped { .. } => {}
                    other => return Err(lost_by(other)),
                }
            }
            self.turn(None)?;
        }
    }

    /// Milliseconds on the clock of [`Connection::client`].
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Lets another thread end a [`Connection::turn`].
    pub fn waker(&self) -> Arc<mio::Waker> {
        self.transport.waker()
    }

    /// Where this is connected to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.client.poll_event() {
                return Some(event);
            }
            let rest = &self.input[self.handled..];
            let maximum = self.client.options().maximum_packet_size;
            let len = match split(rest, maximum) {
                Ok(Split::NeedMore { .. }) => {
                    self.input.drain(..self.handled);
                    self.handled = 0;
                    return None;
                }
                Ok(Split::Packet { total_len, .. }) => total_len,
                // The client finds the same error and acts on it.
                Err(_) => rest.len(),
            };
            let now_ms = self.started.elapsed().as_millis() as u64;
            self.client.handle_bytes(&rest[..len], now_ms);
            self.handled += len;
        }
    }

    /// Writes what is due, waits until something happens or the time has come, and reads.
    pub fn turn(&mut self, until: Option<Instant>) -> Result<(), Lost> {
        if let Some(end) = self.end.take() {
            return Err(end.into());
        }
        let before = self.input.len();
        if let Err(end) = self.exchange(until) {
            // The broker may have said why before it closed: that comes first. So it does if writing failed.
            while let Ok(true) = self.transport.read(&mut self.input) {}
            if self.input.len() == before {
                return Err(end.into());
            }
            self.end = Some(end);
        }
        self.client.on_tick(self.now_ms());
        Ok(())
    }

    fn exchange(&mut self, until: Option<Instant>) -> io::Result<()> {
        self.write()?;
        if !self.more_to_read {
            let deadline = self
                .client
                .next_deadline()
                .map(|due_ms| self.started + Duration::from_millis(due_ms));
            let until = [until, deadline].into_iter().flatten().min();
            self.transport.wait(until)?;
            self.write()?;
        }
        self.more_to_read = self.transport.read(&mut self.input)?;
        Ok(())
    }

    /// Writes what the transport takes without waiting: whether nothing is left.
    pub fn write(&mut self) -> io::Result<bool> {
        let written = self.transport.write(self.client.output())?;
        self.client.on_written(written);
        let flushed = self.transport.flush()?;
        Ok(flushed && self.client.output().is_empty())
    }

    /// Says goodbye and waits until the broker has closed too, so that it surely heard it; not for long.
    pub fn close(mut self, properties: Properties<'_>) {
        let now_ms = self.now_ms();
        // Not connected any more: then there is nobody to say it to.
        let _ = self
            .client
            .disconnect(Reason::NormalDisconnection, properties, now_ms);
        let until = Instant::now() + Duration::from_secs(2);
        let mut said = false;
        while Instant::now() < until {
            match self.write() {
                Ok(true) if !said => {
                    said = true;
                    self.transport.finish();
                    if matches!(self.transport.flush(), Ok(true)) {
                        self.transport.shut_down();
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
            self.input.clear();
            if !matches!(self.transport.read(&mut self.input), Ok(false)) {
                return;
            }
            if self.transport.wait(Some(until)).is_err() {
                return;
            }
        }
    }
}

/// The error that an event which ends a connection is.
pub fn lost_by(event: Event) -> anyhow::Error {
    match event {
        Event::Refused { reason, properties } => Lost::Refused { reason, properties }.into(),
        Event::Disconnected { reason, properties } => {
            Lost::Disconnected { reason, properties }.into()
        }
        Event::Failed(failure) => Lost::Failed(failure).into(),
        other => anyhow!("unexpected event {other:?}"),
    }
}

#[cfg(test)]
pub(super) mod tests;
