//! Many clients on one thread: an epoll loop with a small state per connection.
//!
//! The fleet dials, greets, subscribes and acknowledges by itself; a [`Crew`] says what to do with the rest. It has to be
//! much cheaper than the server that it loads, since they share a machine: one read per wake-up, one write per connection
//! and turn, no allocation per message.

mod conversation;
mod dial;
mod http;
mod links;

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use campanile_mqtt::{PacketId, Publish, Reason};
use mio::{Events, Poll, Token};

use crate::process;

pub use dial::Options;
pub use links::{LinkId, Links, Member};

/// What a scenario does when something happens on a link. Acknowledgements and handshakes are the fleet's.
pub trait Crew {
    /// The link is connected, and subscribed to all that its member asked for.
    fn on_ready(&mut self, _links: &mut Links, _link: LinkId, _welcome: Welcome) {}
    /// An application message came; it is acknowledged already.
    fn on_message(&mut self, _links: &mut Links, _link: LinkId, _message: &Publish<'_>) {}
    /// The server ended the exchange of a message that this link sent with QoS 1 or 2.
    fn on_acknowledged(&mut self, _links: &mut Links, _link: LinkId, _id: PacketId, _: Reason) {}
    /// A PINGRESP came.
    fn on_pong(&mut self, _links: &mut Links, _link: LinkId) {}
    /// A connection ended unasked, `why` says who and how. Without a crew that knows better, that is a fault.
    fn on_lost(&mut self, links: &mut Links, _link: LinkId, why: String) {
        links.fault(why);
    }
    /// An HTTP response came.
    fn on_response(&mut self, _links: &mut Links, _link: LinkId, _status: u16, _body: &[u8]) {}
}

/// How a connection began.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// Whether the server had a session.
    pub session_present: bool,
    /// From the SYN to the last answer of the handshake.
    pub elapsed: Duration,
}

/// Why [`Fleet::drive`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was done.
    Done,
    /// Nothing came for as long as [`Options::stall`] allows, or too much went wrong.
    Stalled,
}

/// Packets larger than this are refused; also what one read takes.
const INBOX_BYTES: usize = 256 * 1024;
/// Sockets that one wait reports. Their answers leave together when all have been read.
const EVENTS: usize = 1024;
/// Faults after which going on tells nothing more.
const MAX_FAULTS: u64 = 1000;

/// The loop.
pub struct Fleet {
    poll: Poll,
    events: Events,
    inbox: Box<[u8]>,
    /// The connections.
    pub links: Links,
}

impl Fleet {
    /// A fleet without connections.
    pub fn new(options: Options) -> Result<Fleet> {
        let poll = Poll::new().context("cannot create an epoll instance")?;
        let registry = poll.registry().try_clone()?;
        Ok(Fleet {
            poll,
            events: Events::with_capacity(EVENTS),
            inbox: vec![0; INBOX_BYTES].into(),
            links: Links::new(registry, options),
        })
    }

    /// Runs until `done`, or until nothing came for too long.
    pub fn drive<C: Crew>(
        &mut self,
        crew: &mut C,
        mut done: impl FnMut(&mut C, &mut Links) -> bool,
    ) -> Result<Ended> {
        let stall = self.links.options().stall;
        let mut received = self.links.received();
        let mut last_progress = Instant::now();
        loop {
            if done(crew, &mut self.links) {
                return Ok(Ended::Done);
            }
            self.turn(crew, Duration::from_millis(50))?;
            if self.links.received() != received {
                received = self.links.received();
                last_progress = Instant::now();
            } else if last_progress.elapsed() > stall {
                return Ok(Ended::Stalled);
            }
            if self.links.faults().count() > MAX_FAULTS {
                return Ok(Ended::Stalled);
            }
        }
    }

    /// Runs until nothing came for `quiet`, to see what comes although nothing should.
    pub fn settle<C: Crew>(&mut self, crew: &mut C, quiet: Duration) -> Result<()> {
        loop {
            let received = self.links.received();
            let until = Instant::now() + quiet;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.turn(crew, left)?;
            }
            if self.links.received() == received {
                return Ok(());
            }
        }
    }

    /// Connects and subscribes `links`, and waits for all of them.
    pub fn connect<C: Crew>(
        &mut self,
        crew: &mut C,
        links: impl IntoIterator<Item = LinkId>,
    ) -> Result<()> {
        let mut count = self.links.ready();
        for link in links {
            self.links.dial(link);
            count += 1;
        }
        let ended = self.drive(crew, |_, links| links.ready() >= count)?;
        let ready = self.links.ready();
        if ended == Ended::Stalled {
            let why = self.links.faults().examples().join("; ");
            anyhow::bail!("only {ready} of {count} connections are up: {why}");
        }
        Ok(())
    }

    /// One wait, what it brought, and the answers.
    pub fn turn<C: Crew>(&mut self, crew: &mut C, timeout: Duration) -> Result<()> {
        anyhow::ensure!(!process::interrupted(), "interrupted");
        self.links.dial_waiting();
        self.links.flush();
        // What a flush found broken.
        self.tell_lost(crew);
        let timeout = match self.links.longest_wait() {
            Some(longest) => timeout.min(longest),
            None => timeout,
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.context("epoll")?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let link = LinkId(index);
            if event.is_writable() {
                self.links.on_writable(link, crew);
            }
            if event.is_readable() {
                let ends = event.is_read_closed() || event.is_error();
                read(&mut self.links, &mut self.inbox, crew, link, ends);
            }
        }
        self.tell_lost(crew);
        Ok(())
    }

    fn tell_lost<C: Crew>(&mut self, crew: &mut C) {
        while let Some((link, why)) = self.links.next_lost() {
            crew.on_lost(&mut self.links, link, why);
        }
    }
}

/// Reads a socket until it is empty. Registered edge-triggered: a read that does not fill the buffer has emptied it, unless the
/// other side has closed, which only the next read tells.
fn read<C: Crew>(links: &mut Links, inbox: &mut [u8], crew: &mut C, link: LinkId, ends: bool) {
    links.tick();
    loop {
        let Some((stream, partial)) = links.source(link) else {
            return;
        };
        let held = partial.len();
        let read = stream.read(&mut inbox[held..]);
        let filled = match read {
            Ok(0) => return links.on_end(link, "closed by the server"),
            Ok(bytes) => held + bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return links.on_end(link, &error.to_string()),
        };
        inbox[..held].copy_from_slice(partial);
        partial.clear();
        match links.digest(link, &inbox[..filled], crew) {
            Ok(used) => links.keep(link, &inbox[used..filled]),
            Err(fault) => return links.on_end(link, &fault),
        }
        if filled < inbox.len() && !ends {
            return;
        }
    }
}
