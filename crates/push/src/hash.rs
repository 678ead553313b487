//! Hashes that mean the same on every node and in every version: they are part of what is stored.

use crate::id::PushId;

/// Where a device stands among those of a push, evenly over 0..2^64, and independently from push to push.
pub(crate) fn position(push: PushId, client_id: &str) -> u64 {
    let seed = mixed(push.0 as u64) ^ mixed((push.0 >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15);
    mixed(fnv(seed, client_id.as_bytes()))
}

/// A short name for a text.
pub(crate) fn of_text(text: &str) -> u32 {
    mixed(fnv(0, text.as_bytes())) as u32
}

/// A number drawn by lot, evenly over 0..2^64, another for each turn of a draw. Of no meaning beyond the moment.
pub(crate) fn lot(draw: u64, turn: u64) -> u64 {
    mixed(mixed(draw) ^ turn.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// FNV-1a with a seed.
fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// MurmurHash3's finalizer: FNV alone leaves the upper bits of similar names alike, and they decide.
fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_meaning_does_not_change() {
        assert_eq!(position(PushId(1), "d1"), position(PushId(1), "d1"));
        assert_ne!(position(PushId(1), "d1"), position(PushId(2), "d1"));
        assert_ne!(position(PushId(1), "d1"), position(PushId(1 << 64), "d1"));
    }
}
