//! What a payload says: who sent it, which one it is, when; and a filling that can be checked.

/// Bytes before the filling, and the smallest payload.
pub const STAMP_BYTES: usize = 32;

/// The filling of message n begins at byte n mod 256 of this, so that neighbours differ and checking is one compare.
static FILLING: [u8; 256 + MAX_FILLING] = {
    let mut filling = [0; 256 + MAX_FILLING];
    let mut index = 0;
    while index < filling.len() {
        filling[index] = (index % 251) as u8;
        index += 1;
    }
    filling
};
const MAX_FILLING: usize = 64 * 1024;

/// The largest payload.
pub const MAX_PAYLOAD_BYTES: usize = STAMP_BYTES + MAX_FILLING;

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Drawn anew for every run, so that leftovers of another run are noticed.
    pub run: u32,
    /// Who sent it.
    pub source: u32,
    /// Counts from 0 for each source.
    pub sequence: u64,
    /// When it was handed to the socket, on the clock of the fleet.
    pub sent_ns: u64,
}

impl Stamp {
    /// Replaces `out` by a payload of `bytes` bytes, [`STAMP_BYTES`]..=[`MAX_PAYLOAD_BYTES`].
    pub fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.run.to_le_bytes());
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.sent_ns.to_le_bytes());
        out.extend_from_slice(&self.check(bytes).to_le_bytes());
        out.extend_from_slice(self.filling(bytes));
    }

    /// Reads a payload that should have `bytes` bytes; `None` if any bit of it is not as it was written.
    pub fn read(payload: &[u8], bytes: usize) -> Option<Stamp> {
        let (&run, rest) = payload.split_first_chunk()?;
        let (&source, rest) = rest.split_first_chunk()?;
        let (&sequence, rest) = rest.split_first_chunk()?;
        let (&sent_ns, rest) = rest.split_first_chunk()?;
        let (&check, filling) = rest.split_first_chunk()?;
        let stamp = Stamp {
            run: u32::from_le_bytes(run),
            source: u32::from_le_bytes(source),
            sequence: u64::from_le_bytes(sequence),
            sent_ns: u64::from_le_bytes(sent_ns),
        };
        let intact = payload.len() == bytes
            && u64::from_le_bytes(check) == stamp.check(bytes)
            && filling == stamp.filling(bytes);
        intact.then_some(stamp)
    }

    fn filling(&self, bytes: usize) -> &'static [u8] {
        let start = (self.sequence & 0xFF) as usize;
        &FILLING[start..start + bytes - STAMP_BYTES]
    }

    /// Each step is a bijection of the field that it takes in, so that a change of one field never goes unnoticed.
    fn check(&self, bytes: usize) -> u64 {
        let head = u64::from(self.run) << 32 | u64::from(self.source);
        [head, self.sequence, self.sent_ns, bytes as u64]
            .into_iter()
            .fold(0xCA3A_9A51_1E00_0001, |hash: u64, word| {
                (hash ^ word)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .rotate_left(29)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> (Stamp, Vec<u8>) {
        let stamp = Stamp {
            run: 7,
            source: 3,
            sequence: 1_000,
            sent_ns: 123_456_789,
        };
        let mut bytes = Vec::new();
        stamp.write(256, &mut bytes);
        (stamp, bytes)
    }

    #[test]
    fn reads_what_it_wrote() {
        let (stamp, bytes) = payload();
        assert_eq!(bytes.len(), 256);
        assert_eq!(Stamp::read(&bytes, 256), Some(stamp));
    }

    #[test]
    fn the_smallest_and_the_largest_payload_fit() {
        let (stamp, mut bytes) = payload();
        for size in [STAMP_BYTES, MAX_PAYLOAD_BYTES] {
            stamp.write(size, &mut bytes);
            assert_eq!(Stamp::read(&bytes, size), Some(stamp));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, bytes) = payload();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&broken, 256), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_of_another_length_is_noticed() {
        let (_, mut bytes) = payload();
        assert_eq!(Stamp::read(&bytes[..255], 256), None);
        bytes.push(0);
        assert_eq!(Stamp::read(&bytes, 256), None);
        assert_eq!(Stamp::read(&[], 256), None);
    }
}
