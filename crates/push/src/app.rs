//! Apps (tenants) and their API keys.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

/// Name of an app: 1..=64 bytes of `[a-z0-9_-]`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(Arc<str>);

/// A name that no app can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("app name {0:?}: 1 to 64 of a-z, 0-9, \"_\" and \"-\", beginning with a letter or digit")]
pub struct BadAppName(pub String);

impl AppName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<AppName, BadAppName> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let starts_well = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if name.len() <= 64 && starts_well && name.bytes().all(allowed) {
            Ok(AppName(name.into()))
        } else {
            Err(BadAppName(name.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is stored of an API key. A key has 256 random bits, so that a plain hash of it is safe to keep.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Hash of a key as the caller presents it.
    pub fn of(key: &str) -> KeyHash {
        KeyHash(Sha256::digest(key.as_bytes()).into())
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "0", "shop", "my-app_2", &"a".repeat(64)] {
            assert_eq!(AppName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "Shop",
            "a b",
            "a/b",
            "é",
            "a\0",
            &"a".repeat(65),
        ] {
            assert_eq!(
                AppName::new(bad),
                Err(BadAppName(bad.to_owned())),
                "{bad:?}"
            );
        }
    }
}
