//! TLS session tickets (RFC 8446 section 4.6.1, RFC 5077 section 4) that every node of a cluster opens: a device whose node is gone resumes on another without a
//! full handshake, which is most of what a reconnect storm would cost.
//!
//! A [`KeyRing`] says which keys there are and when there must be another; it is text, so that the nodes can agree on it. [`Tickets`] seals and opens with the
//! ring it was given last. That an old key is dropped is what bounds the harm of one that leaks.

use std::{
    fmt, iter,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use rustls::server::ProducesTickets;

/// How long a key seals before another is made.
const SEALS_MS: u64 = 6 * 60 * 60 * 1000;
/// How long a ticket is good for, in seconds: sealed with a key in its last minutes, it must still be opened.
const LIFETIME_SECONDS: u32 = 12 * 60 * 60;
/// After so long a key opens nothing any more.
const OPENS_MS: u64 = SEALS_MS + LIFETIME_SECONDS as u64 * 1000;
/// A new key seals only then, when all nodes have it.
const SPREADS_MS: u64 = 60 * 1000;
/// Keys of a ring. More are not read.
const MAX_KEYS: usize = 16;
/// Bytes that name a key in its tickets.
const NAME_LEN: usize = 16;
/// Bytes of a key.
const SECRET_LEN: usize = 32;
/// Random bytes of a new key: its name and itself.
pub const KEY_LEN: usize = NAME_LEN + SECRET_LEN;

/// The keys of tickets, oldest first. Written as one line each: Unix milliseconds of its making, and [`KEY_LEN`] bytes in base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyRing(Vec<Made>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Made {
    at_ms: u64,
    bytes: [u8; KEY_LEN],
}

/// Text that is no key ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not keys of TLS tickets, line {line}: a line is Unix milliseconds, a space and {KEY_LEN} bytes in base64"
)]
pub struct BadKeyRing {
    line: usize,
}

impl KeyRing {
    /// Whether there must be another key by now.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.0
            .last()
            .is_none_or(|newest| now_ms >= newest.at_ms.saturating_add(SEALS_MS))
    }

    /// The ring with a new key, which must come from the system's random number generator, and without those that are too old.
    pub fn with(&self, random: [u8; KEY_LEN], now_ms: u64) -> KeyRing {
        let mut keys = self.0.clone();
        keys.retain(|key| now_ms < key.at_ms.saturating_add(OPENS_MS));
        keys.push(Made {
            at_ms: now_ms,
            bytes: random,
        });
        let surplus = keys.len().saturating_sub(MAX_KEYS);
        keys.drain(..surplus);
        KeyRing(keys)
    }

    /// The key that seals: the newest that all nodes know, else the oldest.
    fn sealing(&self, now_ms: u64) -> usize {
        self.0
            .iter()
            .rposition(|key| key.at_ms.saturating_add(SPREADS_MS) <= now_ms)
            .unwrap_or(0)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.at_ms,
            BASE64_STANDARD_NO_PAD.encode(self.bytes)
        )
    }
}

impl fmt::Display for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|key| writeln!(f, "{key}"))
    }
}

impl FromStr for KeyRing {
    type Err = BadKeyRing;

    fn from_str(text: &str) -> Result<KeyRing, BadKeyRing> {
        let made = |line: &str| {
            let (at_ms, bytes) = line.split_once(' ')?;
            let bytes = BASE64_STANDARD_NO_PAD.decode(bytes).ok()?;
            Some(Made {
                at_ms: at_ms.parse().ok()?,
                bytes: bytes.try_into().ok()?,
            })
        };
        let lines = iter::zip(1.., text.lines().take(MAX_KEYS));
        let keys: Result<_, _> = lines
            .map(|(line, text)| made(text).ok_or(BadKeyRing { line }))
            .collect();
        keys.map(KeyRing)
    }
}

/// The keys in use. Nothing is sealed before there are any.
#[derive(Debug, Default)]
pub struct Tickets(ArcSwap<Ready>);

#[derive(Debug, Default)]
struct Ready {
    ring: KeyRing,
    keys: Vec<RandomizedNonceKey>,
}

impl Tickets {
    /// Seals and opens with this ring from now on.
    pub fn replace(&self, ring: KeyRing) {
        let key = |made: &Made| {
            let (_, secret) = made.bytes.split_at(NAME_LEN);
            RandomizedNonceKey::new(&AES_256_GCM, secret).expect("as long as the cipher wants it")
        };
        let keys = ring.0.iter().map(key).collect();
        self.0.store(Arc::new(Ready { ring, keys }));
    }

    /// The ring in use.
    pub fn ring(&self) -> KeyRing {
        self.0.load().ring.clone()
    }

    /// Seals and opens for one realm: what is sealed in one is not opened in another.
    pub fn of_realm(tickets: &Arc<Tickets>, realm: [u8; 32]) -> impl ProducesTickets + use<> {
        RealmTickets {
            tickets: tickets.clone(),
            realm,
        }
    }

    fn seal(&self, realm: &[u8; 32], plain: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let ready = self.0.load();
        let sealing = ready.ring.sealing(now_ms);
        let (made, key) = (ready.ring.0.get(sealing)?, ready.keys.get(sealing)?);
        let name = &made.bytes[..NAME_LEN];
        let mut sealed = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(realm), &mut sealed)
            .ok()?;
        Some([name, nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, realm: &[u8; 32], ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let ready = self.0.load();
        let is_named = |made: &Made| &made.bytes[..NAME_LEN] == name;
        let key = &ready.keys[ready.ring.0.iter().position(is_named)?];
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key
            .open_in_place(nonce, Aad::from(realm), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

#[derive(Debug)]
struct RealmTickets {
    tickets: Arc<Tickets>,
    realm: [u8; 32],
}

impl ProducesTickets for RealmTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        self.tickets
            .seal(&self.realm, plain, now.as_millis() as u64)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(&self.realm, cipher)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_413_600_000;
    const HERE: [u8; 32] = [0; 32];

    fn with(ring: KeyRing) -> Tickets {
        let tickets = Tickets::default();
        tickets.replace(ring);
        tickets
    }

    #[test]
    fn what_one_node_seals_another_opens_until_the_key_is_dropped() {
        let first = KeyRing::default().with([1; KEY_LEN], NOW);
        let ticket = with(first.clone()).seal(&HERE, b"session", NOW).unwrap();
        let mut ring: KeyRing = first.to_string().parse().unwrap();
        let mut now = NOW;
        while now < NOW + OPENS_MS {
            assert_eq!(
                with(ring.clone()).open(&HERE, &ticket).as_deref(),
                Some(&b"session"[..])
            );
            assert!(!ring.is_due(now));
            now += SEALS_MS;
            assert!(ring.is_due(now));
            ring = ring.with([(now >> 16) as u8; KEY_LEN], now);
        }
        assert_eq!(with(ring).open(&HERE, &ticket), None);
    }

    #[test]
    fn a_new_key_seals_once_all_nodes_have_it() {
        let old = KeyRing::default().with([1; KEY_LEN], NOW);
        let new = old.with([2; KEY_LEN], NOW + SEALS_MS);
        let sealed_at = |at_ms| with(new.clone()).seal(&HERE, b"session", at_ms).unwrap();
        let old = with(old);
        assert!(
            old.open(&HERE, &sealed_at(NOW + SEALS_MS + SPREADS_MS - 1))
                .is_some()
        );
        assert!(
            old.open(&HERE, &sealed_at(NOW + SEALS_MS + SPREADS_MS))
                .is_none()
        );
    }

    #[test]
    fn a_ticket_of_another_realm_is_not_opened() {
        let tickets = with(KeyRing::default().with([1; KEY_LEN], NOW));
        let ticket = tickets.seal(&HERE, b"session", NOW).unwrap();
        assert_eq!(tickets.open(&[1; 32], &ticket), None);
    }

    #[test]
    fn without_keys_nothing_is_sealed() {
        assert_eq!(Tickets::default().seal(&HERE, b"session", NOW), None);
        assert!(KeyRing::default().is_due(NOW));
        assert_eq!("".parse(), Ok(KeyRing::default()));
    }

    #[test]
    fn a_ring_that_is_none_is_refused_by_line() {
        let line = KeyRing::default().with([1; KEY_LEN], NOW).to_string();
        for bad in ["x", "1 x", "1 AAAA", "x AAAA"] {
            let error = format!("{line}{bad}").parse::<KeyRing>().unwrap_err();
            assert_eq!(error, BadKeyRing { line: 2 }, "{bad}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let tickets = with(KeyRing::default().with([77; KEY_LEN], NOW));
        assert!(!format!("{tickets:?}").contains("77"));
    }

    proptest! {
        #[test]
        fn a_changed_ticket_is_not_opened(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX, cut in any::<prop::sample::Index>()) {
            let tickets = with(KeyRing::default().with([1; KEY_LEN], NOW));
            let ticket = tickets.seal(&HERE, b"session", NOW).unwrap();
            let mut changed = ticket.clone();
            changed[at.index(ticket.len())] ^= flip;
            prop_assert_eq!(tickets.open(&HERE, &changed), None);
            prop_assert_eq!(tickets.open(&HERE, &ticket[..cut.index(ticket.len())]), None);
        }
    }
}
