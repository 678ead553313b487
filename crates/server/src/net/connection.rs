//! One connection: its socket, its layers, and what was not taken yet, in either direction.

use std::{
    io::{self, IoSlice, Read, Write},
    mem::take,
    net::{Shutdown, SocketAddr},
    ops::Range,
};

use campanile_broker::ids::ConnId;
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    figures::DriverFigures, layers::Layers, listener::Listening, websocket::binary_header,
};

/// Most bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Room before them for an incomplete packet of earlier reads; a longer one is completed where it is kept.
const HEADROOM: usize = 4 * 1024;
/// Parts of one vectored write. More are copied together first, which then costs less than the kernel's walk over them.
const MAX_PARTS: usize = 32;
/// Output that may wait beyond what waited when the shard was told to hold back: what cannot be held back (acknowledgements, pongs).
const PENDING_SLACK_BYTES: usize = 4 << 20;
/// Output waiting above which nothing more is read, so that a peer that does not read cannot make us answer without end.
const PENDING_STOPS_READS_BYTES: usize = 256 * 1024;

/// A connection. Small while idle: 64 bytes in a release build for plain TCP.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    discarded_bytes: u32,
    /// Index of its listener.
    pub listener: u16,
    registered: Registered,
    /// The socket may have more to read than was read.
    pub readable: bool,
    /// The peer has ended its side: read on until the end shows.
    pub hung_up: bool,
    /// It is in the driver's queue of connections to read.
    pub queued: bool,
    /// The shard cannot take more for now.
    pub paused: bool,
    /// The shard does not know it any more, or never did.
    pub forgotten: bool,
    /// To be closed once everything is written.
    pub closing: bool,
    /// It is in the driver's queue of closing connections.
    pub lingers: bool,
    muted: bool,
    input: Vec<u8>,
    pending: Option<Box<Pending>>,
    layers: Option<Box<Layers>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registered {
    No,
    Reads,
    ReadsAndWrites,
}

impl Connection {
    /// The client's address, while the socket knows it.
    pub fn peer_address(&self) -> Option<std::net::SocketAddr> {
        self.stream.peer_addr().ok()
    }
}

/// Output that the kernel did not take.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    start: usize,
    limit: usize,
}

/// Buffers that all connections of a shard share.
#[derive(Debug)]
pub struct Workspace {
    read: Box<[u8]>,
    plain: Vec<u8>,
    decrypted: Vec<u8>,
    replies: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace {
            read: vec![0; HEADROOM + READ_BYTES].into_boxed_slice(),
            plain: Vec::new(),
            decrypted: Vec::new(),
            replies: Vec::new(),
            out: Vec::new(),
        }
    }
}

/// What a read gave.
#[derive(Debug)]
pub enum Received {
    /// Nothing for now.
    Nothing,
    /// Bytes for the shard, in this place; then, maybe, the end.
    Bytes(Place, Option<End>),
    /// The end.
    End(End),
}

/// Where received bytes are: together with those that were kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the read buffer.
    Read(Range<usize>),
    /// In the buffer behind the layers.
    Plain,
    /// Where incomplete packets are kept.
    Input,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The peer closed, or the transport failed.
    #[error("closed by the peer")]
    Closed,
    /// A layer was closed by the peer, or broken; what it should be told is in the output.
    #[error("{0}")]
    Layer(Box<str>),
}

/// What became of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took it.
    All,
    /// It was not the first to wait.
    Waiting,
    /// The kernel took less: this many bytes wait, where none did.
    Blocked(usize),
    /// More waits than may.
    Overflow,
    /// The transport failed.
    Failed,
}

impl Connection {
    /// A connection that a listener accepted.
    pub fn new(
        stream: TcpStream,
        index: u16,
        listener: &Listening,
    ) -> Result<Connection, rustls::Error> {
        let layers = Layers::of(listener)?.map(Box::new);
        Ok(Connection {
            stream,
            discarded_bytes: 0,
            listener: index,
            registered: Registered::No,
            readable: true,
            hung_up: false,
            queued: false,
            paused: false,
            forgotten: false,
            closing: false,
            lingers: false,
            muted: false,
            input: Vec::new(),
            pending: None,
            layers,
        })
    }

    /// The client's address.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Whether the driver is told of the socket's events.
    pub fn is_registered(&self) -> bool {
        self.registered != Registered::No
    }

    /// Asks to be told of what can be read. Events are edge-triggered; what can be read already is told at once.
    pub fn register(&mut self, registry: &Registry, id: ConnId) -> io::Result<()> {
        if self.registered == Registered::No {
            let interest = match self.pending {
                None => Interest::READABLE,
                Some(_) => Interest::READABLE | Interest::WRITABLE,
            };
            registry.register(&mut self.stream, token(id), interest)?;
            self.registered = match self.pending {
                None => Registered::Reads,
                Some(_) => Registered::ReadsAndWrites,
            };
        }
        Ok(())
    }

    /// Asks to be told when more can be written. Stays on from the first time: with edges, that costs nothing.
    pub fn await_writable(&mut self, registry: &Registry, id: ConnId) -> io::Result<()> {
        match self.registered {
            Registered::No => self.register(registry, id),
            Registered::Reads => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.reregister(&mut self.stream, token(id), interest)?;
                self.registered = Registered::ReadsAndWrites;
                Ok(())
            }
            Registered::ReadsAndWrites => Ok(()),
        }
    }

    /// Makes it ready to move to another driver.
    pub fn leave(&mut self, registry: &Registry) -> io::Result<()> {
        if self.registered != Registered::No {
            registry.deregister(&mut self.stream)?;
            self.registered = Registered::No;
        }
        self.readable = true;
        self.queued = false;
        self.paused = false;
        self.forgotten = false;
        Ok(())
    }

    /// Whether bytes may be read for the shard now.
    pub fn may_read(&self) -> bool {
        !self.paused && !self.forgotten && self.pending_bytes() <= PENDING_STOPS_READS_BYTES
    }

    /// Reads once and takes the layers off.
    pub fn receive(&mut self, space: &mut Workspace, figures: &mut DriverFigures) -> Received {
        let Workspace {
            read,
            plain,
            decrypted,
            replies,
            ..
        } = space;
        replies.clear();
        figures.reads += 1;
        let bytes = match retry(|| self.stream.read(&mut read[HEADROOM..])) {
            Ok(0) => return Received::End(End::Closed),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Received::Nothing;
            }
            Err(_) => return Received::End(End::Closed),
        };
        figures.bytes_in += bytes as u64;
        // Less than there was room for means that there is no more, unless the end is behind it.
        if bytes < READ_BYTES && !self.hung_up {
            self.readable = false;
        }
        let fits = self.input.len() <= HEADROOM;
        let Some(layers) = &mut self.layers else {
            if !fits {
                self.input
                    .extend_from_slice(&read[HEADROOM..HEADROOM + bytes]);
                return Received::Bytes(Place::Input, None);
            }
            let start = HEADROOM - self.input.len();
            read[start..HEADROOM].copy_from_slice(&self.input);
            return Received::Bytes(Place::Read(start..HEADROOM + bytes), None);
        };
        let raw = &read[HEADROOM..HEADROOM + bytes];
        let (target, place) = if fits {
            plain.clear();
            plain.extend_from_slice(&self.input);
            (plain, Place::Plain)
        } else {
            (&mut self.input, Place::Input)
        };
        let before = target.len();
        let end = layers
            .decode(raw, target, decrypted, replies, figures)
            .err();
        match (target.len() > before, end) {
            (true, end) => Received::Bytes(place, end),
            (false, Some(end)) => Received::End(end),
            (false, None) => Received::Nothing,
        }
    }

    /// The bytes that a place means.
    pub fn bytes<'a>(&'a self, space: &'a Workspace, place: &Place) -> &'a [u8] {
        match place {
            Place::Read(range) => &space.read[range.clone()],
            Place::Plain => &space.plain,
            Place::Input => &self.input,
        }
    }

    /// Keeps what the shard did not consume.
    pub fn keep(&mut self, space: &Workspace, place: Place, consumed: usize) {
        let rest = match &place {
            Place::Input => {
                self.input.drain(..consumed);
                if consumed > 0 {
                    self.input.shrink_to_fit();
                }
                return;
            }
            Place::Read(range) => &space.read[range.start + consumed..range.end],
            Place::Plain => &space.plain[consumed..],
        };
        if rest.is_empty() {
            if self.input.capacity() > 0 {
                self.input = Vec::new();
            }
        } else if rest.len() <= self.input.capacity() {
            self.input.clear();
            self.input.extend_from_slice(rest);
        } else {
            self.input = rest.to_vec();
        }
    }

    /// Whether there are bytes that the shard did not consume.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Sends what the layers have to say after [`Connection::receive`].
    pub fn send_replies(&mut self, space: &mut Workspace, figures: &mut DriverFigures) -> Sent {
        if space.replies.is_empty() {
            return Sent::All;
        }
        self.write(&mut [IoSlice::new(&space.replies)], figures)
    }

    /// Sends output of the shard in one write, in whole frames.
    pub fn send<'a>(
        &mut self,
        mut slices: impl Iterator<Item = &'a [u8]>,
        space: &mut Workspace,
        figures: &mut DriverFigures,
    ) -> Sent {
        let deaf = |layers: &Layers| !layers.takes_data();
        if self.muted || self.layers.as_deref().is_some_and(deaf) {
            return Sent::All;
        }
        let out = &mut space.out;
        out.clear();
        if let Some(layers) = &mut self.layers
            && layers.encrypts()
        {
            let plain = &mut space.plain;
            plain.clear();
            slices.for_each(|slice| plain.extend_from_slice(slice));
            layers.encode(plain, out);
            let sent = self.write(&mut [IoSlice::new(out)], figures);
            out.shrink_to(READ_BYTES);
            plain.shrink_to(READ_BYTES);
            return sent;
        }
        // Place 0 is for the header of a frame.
        let mut parts = [IoSlice::new(&[]); MAX_PARTS];
        let mut count = 1;
        let mut total = 0;
        for slice in slices.by_ref().take(MAX_PARTS - 1) {
            parts[count] = IoSlice::new(slice);
            count += 1;
            total += slice.len();
        }
        if count == MAX_PARTS {
            parts[1..]
                .iter()
                .for_each(|part| out.extend_from_slice(part));
            slices.for_each(|slice| out.extend_from_slice(slice));
            parts[1] = IoSlice::new(out);
            count = 2;
            total = out.len();
        }
        if self.layers.is_none() {
            return self.write(&mut parts[1..count], figures);
        }
        let (header, header_bytes) = binary_header(total);
        let mut framed = [IoSlice::new(&[]); MAX_PARTS];
        framed[..count].copy_from_slice(&parts[..count]);
        framed[0] = IoSlice::new(&header[..header_bytes]);
        self.write(&mut framed[..count], figures)
    }

    /// Writes what waits. `Ok(true)` when nothing waits any more.
    pub fn flush(&mut self, figures: &mut DriverFigures) -> io::Result<bool> {
        let Some(pending) = &mut self.pending else {
            return Ok(true);
        };
        while pending.start < pending.bytes.len() {
            figures.writes += 1;
            match retry(|| self.stream.write(&pending.bytes[pending.start..])) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    pending.start += bytes;
                    figures.bytes_out += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.pending = None;
        Ok(true)
    }

    /// Bytes of output that wait.
    pub fn pending_bytes(&self) -> usize {
        self.pending
            .as_ref()
            .map_or(0, |pending| pending.bytes.len() - pending.start)
    }

    /// Says goodbye in the layers; nothing is sent after it.
    pub fn say_goodbye(&mut self, space: &mut Workspace, figures: &mut DriverFigures) -> Sent {
        if self.muted {
            return Sent::All;
        }
        self.muted = true;
        self.input = Vec::new();
        let Some(layers) = &mut self.layers else {
            return Sent::All;
        };
        let out = &mut space.out;
        out.clear();
        layers.close(out);
        if out.is_empty() {
            return Sent::All;
        }
        self.write(&mut [IoSlice::new(out)], figures)
    }

    /// The transport takes no more. What the peer sent before is still there to read, then its end.
    pub fn give_up_writing(&mut self) {
        self.muted = true;
        self.pending = None;
        self.hung_up = true;
        self.readable = true;
    }

    /// Ends our side of the connection.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads and forgets. `true` when the peer has ended its side, or more than `limit` bytes were read.
    pub fn discard(&mut self, space: &mut Workspace, limit: u32) -> bool {
        loop {
            match retry(|| self.stream.read(&mut space.read)) {
                Ok(0) => return true,
                Ok(bytes) => {
                    self.discarded_bytes = self.discarded_bytes.saturating_add(bytes as u32);
                    if self.discarded_bytes > limit {
                        return true;
                    }
                }
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Takes out the bytes that the shard did not consume; give back what it still does not.
    pub fn take_input(&mut self) -> Vec<u8> {
        take(&mut self.input)
    }

    /// See [`Connection::take_input`].
    pub fn give_back(&mut self, mut input: Vec<u8>, consumed: usize) {
        debug_assert!(self.input.is_empty());
        input.drain(..consumed);
        input.shrink_to_fit();
        self.input = input;
    }

    fn write(&mut self, parts: &mut [IoSlice], figures: &mut DriverFigures) -> Sent {
        if let Some(pending) = &mut self.pending {
            // What was written is dropped when it is the larger part, so that the buffer does not creep.
            if pending.start > pending.bytes.len() / 2 {
                pending.bytes.drain(..pending.start);
                pending.start = 0;
            }
            parts
                .iter()
                .for_each(|part| pending.bytes.extend_from_slice(part));
            if pending.bytes.len() - pending.start > pending.limit {
                return Sent::Overflow;
            }
            return Sent::Waiting;
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        figures.writes += 1;
        let written = match retry(|| self.stream.write_vectored(parts)) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Failed,
        };
        figures.bytes_out += written as u64;
        if written == total {
            return Sent::All;
        }
        figures.writes_blocked += 1;
        let waiting = total - written;
        let mut bytes = Vec::with_capacity(waiting);
        let mut skip = written;
        for part in parts {
            let skipped = skip.min(part.len());
            bytes.extend_from_slice(&part[skipped..]);
            skip -= skipped;
        }
        self.pending = Some(Box::new(Pending {
            bytes,
            start: 0,
            limit: waiting + PENDING_SLACK_BYTES,
        }));
        Sent::Blocked(waiting)
    }
}

/// The event token of a connection; its inverse is [`id_of`].
fn token(id: ConnId) -> Token {
    Token(id.slot as usize | (id.use_count as usize) << 32)
}

/// The connection of an event token.
pub fn id_of(token: Token) -> ConnId {
    ConnId {
        slot: token.0 as u32,
        use_count: (token.0 >> 32) as u32,
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connection_is_small() {
        // A debug build adds what mio checks with.
        let extra = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(
            size_of::<Connection>() <= 64 + extra,
            "{}",
            size_of::<Connection>()
        );
    }
}
