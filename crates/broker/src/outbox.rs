//! What a loop turn has to say to the sockets of a shard, collected so that each gets it in one write.

use crate::ids::ConnId;

/// Output of one turn. Bytes of all connections share one buffer; per connection a chain of ranges keeps the order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// First and last piece by connection slot; `NONE` where there is no output.
    chains: Vec<(u32, u32)>,
    dirty: Vec<ConnId>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    end: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Outbox {
    /// Appends what `write` writes to the output of a connection. Returns how many bytes that is.
    pub fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len() as u32;
        write(&mut self.bytes);
        let end = self.bytes.len() as u32;
        if end == start {
            return 0;
        }
        let slot = conn.slot as usize;
        if slot >= self.chains.len() {
            self.chains.resize(slot + 1, (NONE, NONE));
        }
        let (first, last) = self.chains[slot];
        if first != NONE && self.pieces[last as usize].end == start {
            self.pieces[last as usize].end = end;
            return (end - start) as usize;
        }
        let index = self.pieces.len() as u32;
        self.pieces.push(Piece {
            start,
            end,
            next: NONE,
        });
        if first == NONE {
            self.chains[slot] = (index, index);
            self.dirty.push(conn);
        } else {
            self.pieces[last as usize].next = index;
            self.chains[slot].1 = index;
        }
        (end - start) as usize
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
            Some(&self.bytes[piece.start as usize..piece.end as usize])
        })
    }

    /// Bytes of all connections together. A driver flushes early when a turn grows past its bound.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets everything that was written. Keeps at most 1 MiB of capacity.
    pub fn clear(&mut self) {
        for conn in self.dirty.drain(..) {
            self.chains[conn.slot as usize] = (NONE, NONE);
        }
        self.pieces.clear();
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        outbox.clear();
        assert!(outbox.dirty().is_empty() && outbox.slices(conn(0)).next().is_none());
    }
}
