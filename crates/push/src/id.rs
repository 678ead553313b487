//! Identity of a push.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

/// Identity of a push: a ULID, made by the accepting node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub u128);

impl fmt::Display for PushId {
    /// The 26 characters of the ULID's canonical text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid::from(self.0).fmt(f)
    }
}

impl fmt::Debug for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no push id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a push id is a ULID: 26 characters of 0-9 and A-Z without I, L, O and U")]
pub struct BadPushId;

impl FromStr for PushId {
    type Err = BadPushId;

    /// Takes the canonical text, in either case.
    fn from_str(text: &str) -> Result<PushId, BadPushId> {
        let id = ulid::Ulid::from_string(text).map_err(|_| BadPushId)?;
        // The decoder lets bits beyond 128 fall off, so that several texts would mean the same push.
        if id.to_string().eq_ignore_ascii_case(text) {
            Ok(PushId(id.into()))
        } else {
            Err(BadPushId)
        }
    }
}

/// Makes a node's push ids, each greater than the one before, also when the clock stands still or goes back.
#[derive(Debug, Default)]
pub struct PushIds {
    last: Mutex<u128>,
}

impl PushIds {
    /// The next id: the time in the upper 48 bits, `random` (of which 79 bits are used) in the lower 80.
    pub fn next(&self, now_ms: u64, random: u128) -> PushId {
        // The topmost random bit stays clear, so that counting up within a millisecond has room before it reaches the time.
        let fresh = u128::from(now_ms & 0xffff_ffff_ffff) << 80 | random >> 49;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = fresh.max(last.wrapping_add(1));
        PushId(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let id = PushId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse::<PushId>().unwrap(), id);
        assert!("01ARZ3".parse::<PushId>().is_err());
        assert!(
            "81ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<PushId>().is_err(),
            "more than 128 bits"
        );
    }

    #[test]
    fn ids_grow_whatever_the_clock_and_the_randomness_do() {
        let ids = PushIds::default();
        let mut last = ids.next(1000, u128::MAX);
        assert_eq!(last.0 >> 80, 1000);
        for (now_ms, random) in [(1000, u128::MAX), (1000, 0), (999, 7), (1001, 0)] {
            let next = ids.next(now_ms, random);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last, PushId(1001 << 80));
    }
}
