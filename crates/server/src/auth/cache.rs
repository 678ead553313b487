//! Remembers verified passwords, so that devices which come back in a storm cost no argon2 run each.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

type Fingerprint = [u8; 32];

/// Remembers about `capacity` recent successes in two generations: what was not used for a whole generation is forgotten.
///
/// An entry is a hash over a secret of this process, the user, the password and the stored hash: it is worthless once the stored hash
/// changes, and to anybody who sees the memory of another process.
pub(super) struct VerifiedCache {
    secret: [u8; 32],
    per_generation: usize,
    generations: Mutex<[HashSet<Fingerprint>; 2]>,
}

impl VerifiedCache {
    /// A cache of at most `capacity` entries; 0 remembers nothing.
    pub(super) fn new(capacity: usize) -> VerifiedCache {
        VerifiedCache {
            secret: super::decoy::random(),
            per_generation: capacity / 2,
            generations: Mutex::default(),
        }
    }

    /// Whether this password was verified against this stored hash lately.
    pub(super) fn contains(&self, user: &str, password: &[u8], hash: &str) -> bool {
        if self.per_generation == 0 {
            return false;
        }
        let fingerprint = self.fingerprint(user, password, hash);
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generations[0].contains(&fingerprint) {
            return true;
        }
        let known = generations[1].remove(&fingerprint);
        if known {
            self.remember(&mut generations, fingerprint);
        }
        known
    }

    /// Remembers a success.
    pub(super) fn insert(&self, user: &str, password: &[u8], hash: &str) {
        if self.per_generation > 0 {
            let fingerprint = self.fingerprint(user, password, hash);
            self.remember(
                &mut self
                    .generations
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
                fingerprint,
            );
        }
    }

    fn remember(&self, generations: &mut [HashSet<Fingerprint>; 2], fingerprint: Fingerprint) {
        if generations[0].len() >= self.per_generation {
            generations[1] = mem::take(&mut generations[0]);
        }
        generations[0].insert(fingerprint);
    }

    fn fingerprint(&self, user: &str, password: &[u8], hash: &str) -> Fingerprint {
        let mut digest = Sha256::new_with_prefix(self.secret);
        for part in [user.as_bytes(), password, hash.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_password_and_hash_is_remembered() {
        let cache = VerifiedCache::new(10);
        cache.insert("ann", b"secret", "hash");
        assert!(cache.contains("ann", b"secret", "hash"));
        for (user, password, hash) in [
            ("bob", "secret", "hash"),
            ("ann", "other", "hash"),
            ("ann", "secret", "new"),
            ("anns", "ecret", "hash"),
        ] {
            assert!(!cache.contains(user, password.as_bytes(), hash));
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = VerifiedCache::new(10);
        for n in 0..1000 {
            cache.insert("ann", b"secret", "hash");
            cache.insert(&n.to_string(), b"secret", "hash");
            assert!(cache.contains("ann", b"secret", "hash"));
        }
        assert!(!cache.contains("0", b"secret", "hash"));
        assert!(
            cache
                .generations
                .lock()
                .unwrap()
                .iter()
                .map(HashSet::len)
                .sum::<usize>()
                <= 10
        );
    }

    #[test]
    fn none_remembers_nothing() {
        let cache = VerifiedCache::new(0);
        cache.insert("ann", b"secret", "hash");
        assert!(!cache.contains("ann", b"secret", "hash"));
    }
}
