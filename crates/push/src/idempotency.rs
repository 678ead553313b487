//! Idempotency keys: what makes it safe to send a request again.

use sha2::{Digest, Sha256};

use crate::store::Idempotency;

/// How long a key stands for the first request's answer.
pub const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// A key as the caller gave it: 1..=255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A key that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters without spaces")]
pub struct BadIdempotencyKey;

impl IdempotencyKey {
    /// Checks and takes a key.
    pub fn new(text: &[u8]) -> Result<IdempotencyKey, BadIdempotencyKey> {
        match std::str::from_utf8(text) {
            Ok(key)
                if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Ok(IdempotencyKey(key.to_owned()))
            }
            _ => Err(BadIdempotencyKey),
        }
    }

    /// The key of one of the pushes that were sent together under this one.
    pub fn of_item(&self, index: usize) -> IdempotencyKey {
        let hash = Sha256::new()
            .chain_update(self.0.as_bytes())
            .chain_update([0])
            .chain_update((index as u64).to_be_bytes())
            .finalize();
        IdempotencyKey(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The key bound to a request's body, byte for byte.
    pub fn bind(self, body: &[u8], now_ms: u64) -> Idempotency {
        Idempotency {
            key: self.0,
            body_hash: Sha256::digest(body).into(),
            expires_ms: now_ms.saturating_add(KEPT_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_of_some_length() {
        for good in [&b"a"[..], b"!~", b"\"8e03978e-40d5\"", &[b'x'; 255]] {
            assert!(IdempotencyKey::new(good).is_ok());
        }
        for bad in [
            &b""[..],
            b"a b",
            b"a\t",
            b"\xc3\xa9",
            b"\xff",
            b"\x7f",
            &[b'x'; 256],
        ] {
            assert_eq!(IdempotencyKey::new(bad), Err(BadIdempotencyKey));
        }
    }

    #[test]
    fn bodies_are_told_apart_and_the_key_runs_out_after_a_day() {
        let bind = |body: &[u8]| IdempotencyKey::new(b"k").unwrap().bind(body, 5);
        assert_eq!(bind(b"{}"), bind(b"{}"));
        assert_ne!(bind(b"{}").body_hash, bind(b"{ }").body_hash);
        assert_eq!(bind(b"{}").expires_ms, 86_400_005);
    }
}
