//! From the links to the node: bounded by number and by bytes. When it is full, links stop reading, and TCP tells their peers.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::LinkEvent;

/// Where links put what happened.
#[derive(Clone, Debug)]
pub struct EventSink {
    sender: mpsc::Sender<(LinkEvent, u32)>,
    /// Bytes that may be added.
    room: Arc<Semaphore>,
    room_bytes: u32,
}

/// What happened on the links, in order for each peer. Ends when the links have stopped.
#[derive(Debug)]
pub struct LinkEvents {
    receiver: mpsc::Receiver<(LinkEvent, u32)>,
    room: Arc<Semaphore>,
}

/// Both ends.
pub fn channel(events_max: usize, bytes_max: usize) -> (EventSink, LinkEvents) {
    let (sender, receiver) = mpsc::channel(events_max.max(1));
    let room_bytes = u32::try_from(bytes_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(room_bytes as usize));
    let sink = EventSink {
        sender,
        room: room.clone(),
        room_bytes,
    };
    (sink, LinkEvents { receiver, room })
}

impl EventSink {
    /// Adds what weighs nothing.
    pub async fn send(&self, event: LinkEvent) {
        // Without a receiver there is nobody to tell; the links end when they are told to.
        let _ = self.sender.send((event, 0)).await;
    }

    /// Adds an event of about so many bytes when there is room for it. A single one may be larger than the bound.
    pub async fn send_weighing(&self, event: LinkEvent, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = bytes.min(self.room_bytes);
        let Ok(room) = self.room.acquire_many(bytes).await else {
            return;
        };
        // Given back if the link ends while this waits, otherwise by the receiver.
        if self.sender.send((event, bytes)).await.is_ok() {
            room.forget();
        }
    }
}

impl LinkEvents {
    /// The next event; `None` when the links have stopped.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        let received = self.receiver.recv().await;
        self.taken(received)
    }

    /// As [`LinkEvents::recv`], for a thread of its own.
    ///
    /// # Panics
    ///
    /// In a task of tokio.
    pub fn blocking_recv(&mut self) -> Option<LinkEvent> {
        let received = self.receiver.blocking_recv();
        self.taken(received)
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        let received = self.receiver.try_recv().ok();
        self.taken(received)
    }

    fn taken(&self, received: Option<(LinkEvent, u32)>) -> Option<LinkEvent> {
        let (event, bytes) = received?;
        self.room.add_permits(bytes as usize);
        Some(event)
    }
}
