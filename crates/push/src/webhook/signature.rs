//! How a receiver knows that a request is ours: HMAC-SHA-256 over the time and the body.
//!
//! The header is `Campanile-Signature: t=UNIX_SECONDS,v1=HEX`. What is signed is the decimal time, a full stop, and the body. The
//! time keeps a recorded request from being played again much later. While a secret is being rotated there is a `v1` for either.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// Name of the header.
pub const HEADER: &str = "Campanile-Signature";
/// How far a receiver's clock and ours should be allowed to differ.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The value of the header, with one signature per secret.
pub fn sign<'s>(secrets: impl IntoIterator<Item = &'s str>, body: &[u8], now_ms: u64) -> String {
    use std::fmt::Write;
    let seconds = now_ms / 1000;
    let mut header = format!("t={seconds}");
    for secret in secrets {
        header.push_str(",v1=");
        for byte in code(secret, seconds, body) {
            // Writing to a string cannot fail.
            let _ = write!(header, "{byte:02x}");
        }
    }
    header
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Not `t=..,v1=..`.
    #[error("the header is not \"t=SECONDS,v1=HEX\"")]
    Malformed,
    /// Too old, or from the future.
    #[error("the time of the signature is {0} seconds away: an old request, or a wrong clock")]
    Stale(u64),
    /// No signature is of this secret and body.
    #[error("no signature fits the secret and the body")]
    Mismatch,
}

/// What a receiver does: checks the header's value against the body exactly as it arrived.
pub fn verify(
    header: &str,
    secret: &str,
    body: &[u8],
    now_ms: u64,
    tolerance: Duration,
) -> Result<(), NotOurs> {
    let mut seconds = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.split_once('=') {
            Some(("t", text)) if seconds.is_none() => {
                seconds = Some(text.parse::<u64>().map_err(|_| NotOurs::Malformed)?);
            }
            Some(("v1", text)) => signatures.push(text),
            // Later versions may sign in other ways as well.
            Some((name, _)) if name != "t" => {}
            _ => return Err(NotOurs::Malformed),
        }
    }
    let seconds = seconds.ok_or(NotOurs::Malformed)?;
    let away = (now_ms / 1000).abs_diff(seconds);
    if away > tolerance.as_secs() {
        return Err(NotOurs::Stale(away));
    }
    let expected = sign([secret], body, seconds.saturating_mul(1000));
    let (_, expected) = expected.split_once("v1=").ok_or(NotOurs::Malformed)?;
    let mut fits = Choice::from(0);
    for signature in signatures {
        fits |= signature.as_bytes().ct_eq(expected.as_bytes());
    }
    match bool::from(fits) {
        true => Ok(()),
        false => Err(NotOurs::Mismatch),
    }
}

fn code(secret: &str, seconds: u64, body: &[u8]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_c2VjcmV0IG9mIHRoZSBkb2N1bWVudGF0aW9u";
    const BODY: &[u8] = br#"{"id":"01KAR0M4G0ZJ9QX6T5V8C2N3B7","type":"push.delivered"}"#;
    const AT_MS: u64 = 1_795_413_600_120;

    /// The value that `docs/webhooks.md` shows, made there by Python's `hmac`.
    const GOLDEN: &str =
        "t=1795413600,v1=dc9b3b6ce36b81417ed00d35a1c660fb65f2000eaf4ddd28b196c72927fe41c0";

    #[test]
    fn the_header_is_as_documented() {
        assert_eq!(sign([SECRET], BODY, AT_MS), GOLDEN);
    }

    fn check(header: &str, body: &[u8], now_ms: u64) -> Result<(), NotOurs> {
        verify(header, SECRET, body, now_ms, TOLERANCE)
    }

    #[test]
    fn only_the_same_body_in_time_is_believed() {
        assert_eq!(check(GOLDEN, BODY, AT_MS), Ok(()));
        assert_eq!(check(GOLDEN, b"{}", AT_MS), Err(NotOurs::Mismatch));
        for away in [300_000, -300_000] {
            assert_eq!(
                check(GOLDEN, BODY, AT_MS.saturating_add_signed(away)),
                Ok(())
            );
        }
        for away in [301_000, -301_000] {
            let now_ms = AT_MS.saturating_add_signed(away);
            assert_eq!(check(GOLDEN, BODY, now_ms), Err(NotOurs::Stale(301)));
        }
        // Another time makes another signature.
        let moved = GOLDEN.replace("600", "601");
        assert_eq!(check(&moved, BODY, AT_MS), Err(NotOurs::Mismatch));
        assert_eq!(
            verify(GOLDEN, "other", BODY, AT_MS, TOLERANCE),
            Err(NotOurs::Mismatch)
        );
    }

    #[test]
    fn while_a_secret_is_rotated_either_fits() {
        let header = sign(["new", SECRET], BODY, AT_MS);
        assert_eq!(header.matches("v1=").count(), 2);
        assert_eq!(check(&header, BODY, AT_MS), Ok(()));
        assert_eq!(verify(&header, "new", BODY, AT_MS, TOLERANCE), Ok(()));
    }

    #[test]
    fn headers_that_are_none() {
        for header in [
            "",
            "v1=00",
            "t=x,v1=00",
            "t=1,t=2,v1=00",
            "t",
            "t=1795413600,v1",
        ] {
            assert_eq!(
                check(header, BODY, AT_MS),
                Err(NotOurs::Malformed),
                "{header}"
            );
        }
        assert_eq!(check("t=1795413600", BODY, AT_MS), Err(NotOurs::Mismatch));
        let later = format!("{GOLDEN},v2=abc");
        assert_eq!(check(&later, BODY, AT_MS), Ok(()));
    }
}
