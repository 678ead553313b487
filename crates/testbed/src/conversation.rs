//! A device that is driven by hand: the client's end of MQTT on a real connection.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use campanile_mqtt::{
    PacketId, Properties, QoS, Reason, SubscriptionOptions, Version,
    client::{Client, Event, Message, Options, Publication},
};

/// How long connecting may take, and a write to a node that stands still.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a conversation waits for an answer that must come.
const ANSWER: Duration = Duration::from_secs(20);

/// A device. It acknowledges what it gets when it is driven, unless it is mute.
#[derive(Debug)]
pub struct Conversation {
    client: Client,
    stream: Option<TcpStream>,
    began: Instant,
    /// Nothing is written: what arrives stays without an acknowledgement.
    pub is_mute: bool,
    /// Messages that came while something else was waited for.
    messages: Vec<Message>,
}

/// Options of a session that is kept.
pub fn kept(client_id: &str, version: Version) -> Options {
    Options {
        version,
        client_id: client_id.to_owned(),
        session_expiry: if version.is_v5() { 3600 } else { 0 },
        keep_alive: 3,
        response_timeout_ms: 3000,
        ..Options::default()
    }
}

/// Options of a session that ends with its connection.
pub fn passing(client_id: &str) -> Options {
    Options {
        session_expiry: 0,
        ..kept(client_id, Version::V5)
    }
}

impl Conversation {
    /// A device that is not connected.
    pub fn new(options: Options) -> Conversation {
        Conversation {
            client: Client::new(options),
            stream: None,
            began: Instant::now(),
            is_mute: false,
            messages: Vec::new(),
        }
    }

    /// Opens a connection and says CONNECT. What the node answers comes with [`Conversation::turn`].
    pub fn dial(&mut self, address: SocketAddr, clean_start: bool) -> io::Result<()> {
        self.close();
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let now = self.now();
        self.client
            .connect(clean_start, now)
            .map_err(io::Error::other)?;
        self.stream = Some(stream);
        self.flush()
    }

    /// Opens a connection; the node must accept it. Tells whether the session goes on.
    pub fn connect(&mut self, address: SocketAddr, clean_start: bool) -> anyhow::Result<bool> {
        self.dial(address, clean_start)?;
        self.wait("CONNACK", |event| match event {
            Event::Connected {
                session_present, ..
            } => Ok(Some(*session_present)),
            Event::Refused { reason, .. } => bail!("refused: {reason:?}"),
            _ => Ok(None),
        })
    }

    /// Subscribes, and waits until the node has granted it.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> anyhow::Result<()> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let now = self.now();
        let asked = self
            .client
            .subscribe(&[(filter, options)], Properties::EMPTY, now)?;
        self.flush()?;
        self.wait("SUBACK", |event| match event {
            Event::Subscribed {
                packet_id, granted, ..
            } if *packet_id == asked => {
                ensure!(granted == &[Ok(qos)], "{filter}: granted {granted:?}");
                Ok(Some(()))
            }
            _ => Ok(None),
        })
    }

    /// Publishes, and waits for the end of the exchange.
    pub fn publish(&mut self, publication: &Publication<'_>) -> anyhow::Result<()> {
        let Some(sent) = self.send(publication)? else {
            return Ok(());
        };
        self.wait("the end of the exchange", |event| match event {
            Event::Published {
                packet_id, reason, ..
            } if *packet_id == sent => {
                ensure!(!reason.is_error(), "refused: {reason:?}");
                Ok(Some(()))
            }
            _ => Ok(None),
        })
    }

    /// Publishes without waiting.
    pub fn send(&mut self, publication: &Publication<'_>) -> anyhow::Result<Option<PacketId>> {
        let now = self.now();
        let sent = self.client.publish(publication, now)?;
        self.flush()?;
        Ok(sent)
    }

    /// The next message.
    pub fn message(&mut self, patience: Duration) -> Option<Message> {
        let deadline = Instant::now() + patience;
        loop {
            if !self.messages.is_empty() {
                return Some(self.messages.remove(0));
            }
            if Instant::now() >= deadline {
                return None;
            }
            let is_open = self.turn(Duration::from_millis(10));
            while let Some(event) = self.client.poll_event() {
                if let Event::Message(message) = event {
                    self.messages.push(message);
                }
            }
            if !is_open && self.messages.is_empty() {
                return None;
            }
        }
    }

    /// Waits until the node closes the connection; tells the reason that it gave, if it did.
    pub fn closed(&mut self, patience: Duration) -> anyhow::Result<Option<Reason>> {
        let deadline = Instant::now() + patience;
        let mut told = None;
        while Instant::now() < deadline {
            let is_open = self.turn(Duration::from_millis(10));
            while let Some(event) = self.client.poll_event() {
                match event {
                    Event::Disconnected { reason, .. } => told = Some(reason),
                    Event::Message(message) => self.messages.push(message),
                    _ => {}
                }
            }
            if !is_open {
                return Ok(told);
            }
        }
        bail!("the connection is still open after {patience:?}")
    }

    /// Says goodbye; the session stays for its time.
    pub fn disconnect(&mut self) {
        let now = self.now();
        if self
            .client
            .disconnect(Reason::Success, Properties::EMPTY, now)
            .is_ok()
        {
            let _ = self.flush();
        }
        self.close();
    }

    /// Leaves without a word.
    pub fn close(&mut self) {
        if self.stream.take().is_some() {
            self.client.on_closed();
        }
    }

    /// Leaves the connection open and to its fate; for this device it is over.
    pub fn abandon(&mut self) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        self.client.on_closed();
        Some(stream)
    }

    /// Whether there is a connection.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The machine.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Milliseconds on the device's clock.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Reads what comes within a time and answers it. `false`: the connection is over. What happened comes from [`Client::poll_event`], also after the end.
    pub fn turn(&mut self, wait: Duration) -> bool {
        if self.try_turn(wait).is_err() || (self.client.is_closing() && self.flush().is_ok()) {
            self.close();
        }
        self.stream.is_some()
    }

    fn try_turn(&mut self, wait: Duration) -> io::Result<()> {
        let now = self.now();
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.client.handle_bytes(&buffer[..count], now),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        let now = self.now();
        self.client.on_tick(now);
        self.flush()
    }

    /// Writes what the machine wants written.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        if self.is_mute {
            return Ok(());
        }
        let count = self.client.output().len();
        stream.write_all(self.client.output())?;
        self.client.on_written(count);
        Ok(())
    }

    fn wait<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Event) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let is_open = self.turn(Duration::from_millis(10));
            let mut found = None;
            while let Some(event) = self.client.poll_event() {
                if let Some(answer) = wanted(&event)? {
                    found = Some(answer);
                }
                if let Event::Message(message) = event {
                    self.messages.push(message);
                }
            }
            match found {
                Some(answer) => return Ok(answer),
                None if !is_open => bail!("the connection ended before {what}"),
                None => ensure!(Instant::now() < deadline, "waited in vain for {what}"),
            }
        }
    }
}
