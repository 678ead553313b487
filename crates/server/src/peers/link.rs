//! One link that is up: a reader, a writer, and what ends them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use campanile_broker::{cluster::peer::PeerMessage, ids::Generation};
use prost::{
    Message as _,
    bytes::{Buf, BytesMut},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    LinkEvent, Peer, Sent,
    convert::{Decoder, Encoder, Unread},
    events::EventSink,
    figures::{Counters, LinkFigures},
    frame,
    hello::Agreed,
    queue::{Offered, Queue, may_be_dropped, weight},
    wire::{Body, Empty, Frame},
};

/// What is queued is gathered up to this before it is written; a larger frame goes alone.
const WRITE_BYTES: usize = 256 * 1024;
/// Room for a read.
const READ_BYTES: usize = 128 * 1024;

/// Why a link has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The peer closed it, or its process ended.
    Closed,
    /// The peer said nothing for too long.
    Silent,
    /// A message that must not be missing found the queue full, so that the peer would not have noticed.
    Overrun,
    /// A message that must not be missing is larger than the peer reads.
    TooLarge,
    /// The peer is not listed any more.
    Unlisted,
    /// This node has another generation.
    Reregistered,
    /// The peer has made a new link.
    Replaced,
    /// The peer broke the protocol.
    Faulty(Arc<str>),
    /// The operating system or TLS says so.
    Failed(Arc<str>),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DownReason::Closed => "closed by the peer",
            DownReason::Silent => "silent",
            DownReason::Overrun => "overrun",
            DownReason::TooLarge => "message too large",
            DownReason::Unlisted => "not a member any more",
            DownReason::Reregistered => "registered anew",
            DownReason::Replaced => "replaced by a new link",
            DownReason::Faulty(what) => return write!(f, "broke the protocol: {what}"),
            DownReason::Failed(what) => return write!(f, "failed: {what}"),
        })
    }
}

/// A peer that is listed, with what was counted since.
#[derive(Debug)]
pub struct Known {
    /// Who.
    pub peer: Peer,
    /// Its counters.
    pub counters: Counters,
}

/// A connection whose ends agreed on a link.
pub struct Connection {
    /// From the peer.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the peer.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Read already.
    pub received: BytesMut,
    /// To be written first.
    pub to_send: BytesMut,
}

/// What is the same for all links of a node.
#[derive(Clone, Debug)]
pub struct LinkLimits {
    /// After so long without a word the peer counts as gone.
    pub silence: Duration,
    /// How long this end is silent at most.
    pub heartbeat: Duration,
    /// Larger frames are not read.
    pub frame_bytes_max: usize,
    /// Messages that wait for being written.
    pub queue_messages_max: usize,
    /// Their bytes, about.
    pub queue_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closing(DownReason),
    Gone,
}

/// A link, as senders see it.
#[derive(Debug)]
pub struct Link {
    /// This node's generation, of which the peer was told.
    pub own: Generation,
    /// The other end.
    pub known: Arc<Known>,
    agreed: Agreed,
    queue: Queue,
    phase: watch::Sender<Phase>,
    limits: LinkLimits,
    total: Arc<Counters>,
}

impl Link {
    /// A link that takes messages at once, and sends them when it runs.
    pub fn new(
        own: Generation,
        known: Arc<Known>,
        agreed: Agreed,
        limits: LinkLimits,
        total: Arc<Counters>,
    ) -> Link {
        Link {
            own,
            known,
            agreed,
            queue: Queue::new(limits.queue_messages_max, limits.queue_bytes_max),
            phase: watch::Sender::new(Phase::Open),
            limits,
            total,
        }
    }

    /// The peer's generation.
    pub fn generation(&self) -> Generation {
        self.known.peer.generation
    }

    /// Queues a message, or finds out that this link is not to be relied upon any more.
    pub fn send(&self, message: PeerMessage) -> Sent {
        let droppable = may_be_dropped(&message);
        match self.queue.offer(message) {
            Offered::Queued => Sent::Queued,
            Offered::Closed => Sent::NoLink,
            Offered::Full if droppable => {
                self.count(|counters| &counters.messages_dropped, 1);
                Sent::Full
            }
            Offered::Full => {
                self.reset(DownReason::Overrun);
                Sent::NoLink
            }
        }
    }

    /// Ends it. The first reason counts.
    pub fn close(&self, reason: DownReason) -> bool {
        self.queue.close();
        self.phase.send_if_modified(|phase| {
            let is_open = *phase == Phase::Open;
            if is_open {
                *phase = Phase::Closing(reason);
            }
            is_open
        })
    }

    /// Waits until nothing of it can follow any more.
    pub async fn gone(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase == Phase::Gone).await;
    }

    /// What there is to see of it.
    pub fn figures(&self) -> LinkFigures {
        let (messages, bytes) = self.queue.length();
        LinkFigures {
            protocol: self.agreed.protocol,
            program: self.agreed.program.clone(),
            queued_messages: messages as u64,
            queued_bytes: bytes as u64,
        }
    }

    /// Says that nothing can follow any more.
    pub fn finish(&self) {
        self.close(DownReason::Closed);
        self.phase.send_replace(Phase::Gone);
    }

    /// Serves the connection until the link ends, and says so.
    pub async fn run(&self, connection: Connection, events: &EventSink) {
        let peer = &self.known.peer;
        let up = events.send(LinkEvent::Up {
            generation: peer.generation,
            name: peer.name.clone(),
            protocol: self.agreed.protocol,
            capabilities: self.agreed.capabilities,
        });
        let is_up = tokio::select! {
            biased;
            _ = self.closing() => false,
            () = up => true,
        };
        if is_up {
            self.count(|counters| &counters.ups, 1);
            info!(peer = %peer.name, generation = %peer.generation, protocol = self.agreed.protocol, version = %self.agreed.program, "link up");
            let reason = self.serve(connection, events).await;
            self.count(|counters| &counters.downs, 1);
            match reason {
                DownReason::Unlisted | DownReason::Reregistered => {
                    info!(peer = %peer.name, generation = %peer.generation, %reason, "link down");
                }
                _ => warn!(peer = %peer.name, generation = %peer.generation, %reason, "link down"),
            }
            let generation = peer.generation;
            events.send(LinkEvent::Down { generation, reason }).await;
        }
    }

    async fn serve(&self, connection: Connection, events: &EventSink) -> DownReason {
        let Connection {
            reader,
            writer,
            received,
            to_send,
        } = connection;
        let reason = tokio::select! {
            reason = self.closing() => reason,
            reason = self.read(reader, received, events) => reason,
            reason = self.write(writer, to_send) => reason,
        };
        // Another reason may have been first.
        self.close(reason);
        self.closing().await
    }

    /// Waits for the reason to end.
    async fn closing(&self) -> DownReason {
        let mut phase = self.phase.subscribe();
        let closing = phase.wait_for(|phase| *phase != Phase::Open).await;
        match closing.as_deref() {
            Ok(Phase::Closing(reason)) => reason.clone(),
            // Its end is what waits for this.
            _ => DownReason::Closed,
        }
    }

    /// Reads frames and passes them on. While the receiver of events is busy nothing is read, and the peer not called silent.
    async fn read(
        &self,
        mut reader: Box<dyn AsyncRead + Send + Unpin>,
        mut buffer: BytesMut,
        events: &EventSink,
    ) -> DownReason {
        let mut decoder = Decoder::default();
        loop {
            loop {
                let bytes = match frame::take(&mut buffer, self.limits.frame_bytes_max) {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => break,
                    Err(too_large) => return DownReason::Faulty(too_large.to_string().into()),
                };
                let read = match Frame::decode(bytes) {
                    Ok(frame) => decoder.message(frame),
                    Err(error) => return DownReason::Faulty(error.to_string().into()),
                };
                match read {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        self.count(|counters| &counters.messages_in, 1);
                        let weight = weight(&message);
                        let generation = self.generation();
                        let event = LinkEvent::Message {
                            generation,
                            message,
                        };
                        events.send_weighing(event, weight).await;
                    }
                    Err(Unread::Later) => self.count(|counters| &counters.messages_unknown, 1),
                    Err(Unread::Faulty(part)) => {
                        return DownReason::Faulty(format!("{part}: not valid").into());
                    }
                }
            }
            buffer.reserve(READ_BYTES);
            match timeout(self.limits.silence, reader.read_buf(&mut buffer)).await {
                Err(_) => return DownReason::Silent,
                Ok(Ok(0)) => return DownReason::Closed,
                Ok(Ok(bytes)) => self.count(|counters| &counters.bytes_in, bytes as u64),
                Ok(Err(error)) => return failed(&error),
            }
        }
    }

    /// Writes what is queued, as much at once as there is, and a heartbeat when there is nothing for a while.
    async fn write(
        &self,
        mut writer: Box<dyn AsyncWrite + Send + Unpin>,
        mut buffer: BytesMut,
    ) -> DownReason {
        let mut encoder = Encoder::default();
        let mut taken = VecDeque::new();
        loop {
            let (mut messages, mut weights, mut dropped) = (0, 0, 0);
            while buffer.len() < WRITE_BYTES {
                if taken.is_empty() {
                    self.queue.take(&mut taken);
                }
                let Some(message) = taken.pop_front() else {
                    break;
                };
                messages += 1;
                weights += weight(&message);
                let droppable = may_be_dropped(&message);
                let frame = encoder.frame(message);
                match frame::put(&frame, self.agreed.frame_bytes_max, &mut buffer) {
                    Ok(()) => {}
                    Err(_) if droppable => dropped += 1,
                    Err(too_large) => {
                        warn!(peer = %self.known.peer.name, %too_large, "a message is larger than the peer reads; raise its frame bound above the largest message");
                        self.reset(DownReason::TooLarge);
                        return DownReason::TooLarge;
                    }
                }
            }
            if buffer.is_empty() {
                tokio::select! {
                    biased;
                    () = self.queue.filled() => continue,
                    () = sleep_until(Instant::now() + self.limits.heartbeat) => {
                        let heartbeat = Frame { body: Some(Body::Heartbeat(Empty {})) };
                        frame::put(&heartbeat, usize::MAX, &mut buffer).expect("there is no bound");
                    }
                }
            }
            let bytes = buffer.len() as u64;
            if let Err(error) = write_all(&mut writer, &mut buffer).await {
                return failed(&error);
            }
            self.count(|counters| &counters.bytes_out, bytes);
            self.count(
                |counters| &counters.messages_out,
                (messages - dropped) as u64,
            );
            self.count(|counters| &counters.messages_dropped, dropped as u64);
            self.queue.written(messages, weights);
        }
    }

    fn reset(&self, reason: DownReason) {
        if self.close(reason) {
            self.count(|counters| &counters.resets, 1);
        }
    }

    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64, more: u64) {
        which(&self.known.counters).fetch_add(more, Ordering::Relaxed);
        which(&self.total).fetch_add(more, Ordering::Relaxed);
    }
}

/// TLS holds records back until it is flushed. What a large frame took is given back.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
) -> std::io::Result<()> {
    while buffer.has_remaining() {
        writer.write_buf(buffer).await?;
    }
    if buffer.capacity() > 2 * WRITE_BYTES {
        *buffer = BytesMut::new();
    }
    buffer.clear();
    writer.flush().await
}

fn failed(error: &std::io::Error) -> DownReason {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::BrokenPipe => DownReason::Closed,
        _ => DownReason::Failed(error.to_string().into()),
    }
}
