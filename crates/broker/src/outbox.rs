//! What a loop turn has to say to the sockets of a shard, collected so that each gets it in one write.

use std::sync::Arc;

use crate::{ids::ConnId, message::Message};

/// Output of one turn. Bytes of all connections share one buffer; per connection a chain of ranges keeps the order. A large payload is not copied: its
/// message is referred to.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    messages: Vec<Arc<Message>>,
    pieces: Vec<Piece>,
    /// First and last piece by connection slot; `NONE` where there is no output.
    chains: Vec<(u32, u32)>,
    dirty: Vec<ConnId>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    content: Content,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// A range of the shared buffer.
    Bytes { start: u32, end: u32 },
    /// The payload of a message.
    Payload(u32),
}

const NONE: u32 = u32::MAX;

impl Outbox {
    /// Appends what `write` writes to the output of a connection. Returns how many bytes that is.
    pub fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let from = self.bytes.len() as u32;
        write(&mut self.bytes);
        let to = self.bytes.len() as u32;
        if to == from {
            return 0;
        }
        if let Some(&(_, last)) = self.chains.get(conn.slot as usize)
            && let Some(Piece {
                content: Content::Bytes { end, .. },
                ..
            }) = self.pieces.get_mut(last as usize)
            && *end == from
        {
            *end = to;
        } else {
            self.append(
                conn,
                Content::Bytes {
                    start: from,
                    end: to,
                },
            );
        }
        (to - from) as usize
    }

    /// Appends the payload of a message to the output of a connection, without copying it.
    pub fn write_payload(&mut self, conn: ConnId, message: &Arc<Message>) {
        if self
            .messages
            .last()
            .is_none_or(|last| !Arc::ptr_eq(last, message))
        {
            self.messages.push(message.clone());
        }
        self.append(conn, Content::Payload(self.messages.len() as u32 - 1));
    }

    fn append(&mut self, conn: ConnId, content: Content) {
        let slot = conn.slot as usize;
        if slot >= self.chains.len() {
            self.chains.resize(slot + 1, (NONE, NONE));
        }
        let index = self.pieces.len() as u32;
        self.pieces.push(Piece {
            content,
            next: NONE,
        });
        let (first, last) = self.chains[slot];
        if first == NONE {
            self.chains[slot] = (index, index);
            self.dirty.push(conn);
        } else {
            self.pieces[last as usize].next = index;
            self.chains[slot].1 = index;
        }
    }

    /// Connections with output, each once, in the order of their first write.
    pub fn dirty(&self) -> &[ConnId] {
        &self.dirty
    }

    /// The output of a connection, in order.
    pub fn slices(&self, conn: ConnId) -> impl Iterator<Item = &[u8]> {
        let mut next = self
            .chains
            .get(conn.slot as usize)
            .map_or(NONE, |chain| chain.0);
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some(match piece.content {
                Content::Bytes { start, end } => &self.bytes[start as usize..end as usize],
                Content::Payload(index) => self.messages[index as usize].payload(),
            })
        })
    }

    /// Bytes that the turn holds in memory; payloads that are referred to do not count. A driver flushes early when it grows past its bound.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets everything that was written. Keeps at most 1 MiB of capacity.
    pub fn clear(&mut self) {
        for conn in self.dirty.drain(..) {
            self.chains[conn.slot as usize] = (NONE, NONE);
        }
        self.pieces.clear();
        self.messages.clear();
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::MessageId, message::Kind};

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, use_count: 0 }
    }

    #[test]
    fn interleaved_writes_keep_their_order_per_connection() {
        let mut outbox = Outbox::default();
        for (slot, text) in [(0, "a"), (3, "x"), (0, "b"), (0, "c"), (3, "y")] {
            outbox.write(conn(slot), |out| out.extend_from_slice(text.as_bytes()));
        }
        assert_eq!(outbox.dirty(), [conn(0), conn(3)]);
        assert_eq!(
            outbox.slices(conn(0)).collect::<Vec<_>>(),
            [b"a".as_slice(), b"bc"]
        );
        assert_eq!(outbox.slices(conn(3)).collect::<Vec<_>>(), [b"x", b"y"]);
        let message = Message::new(MessageId(1), Kind::Publish, "t", &[], b"large");
        outbox.write_payload(conn(3), &Arc::new(message));
        outbox.write(conn(3), |out| out.push(b'z'));
        assert_eq!(
            outbox.slices(conn(3)).collect::<Vec<_>>(),
            [b"x".as_slice(), b"y", b"large", b"z"]
        );
        outbox.clear();
        assert!(outbox.dirty().is_empty() && outbox.slices(conn(0)).next().is_none());
    }
}
