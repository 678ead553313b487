//! API keys.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::app::KeyHash;

const PREFIX: &str = "cmp_";
const RANDOM_BYTES: usize = 32;

/// The longest key that is looked up.
const MAX_BYTES: usize = 255;

/// An API key in clear. One that we make is `cmp_` and 32 random bytes as base64url without padding; an operator may choose another for
/// development. Shown once, when it is made; only its [hash](ApiKey::hash) is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// Text that cannot be an API key. It does not carry the text, which may be a mistyped key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key is 1 to 255 visible ASCII characters")]
pub struct BadApiKey;

impl ApiKey {
    /// The key made of these bytes, which must come from the system's random number generator.
    pub fn from_random(bytes: [u8; RANDOM_BYTES]) -> ApiKey {
        ApiKey(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Takes a key that a caller presents. Whether it is one of ours, the store knows.
    pub fn parse(text: &str) -> Result<ApiKey, BadApiKey> {
        if (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            Ok(ApiKey(text.to_owned()))
        } else {
            Err(BadApiKey)
        }
    }

    /// The key in clear, to be shown to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_presented() {
        let key = ApiKey::from_random([0xfb; 32]);
        assert_eq!(key.reveal().len(), 47);
        assert!(key.reveal().starts_with("cmp_-_v7"));
        assert_eq!(ApiKey::parse(key.reveal()).unwrap().hash(), key.hash());
    }

    #[test]
    fn texts_that_cannot_be_sent_in_a_header_are_refused() {
        for text in ["", "a b", "tab\t", "ümlaut", &"x".repeat(256)] {
            assert_eq!(ApiKey::parse(text), Err(BadApiKey), "{text}");
        }
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        assert_eq!(format!("{:?}", ApiKey::from_random([1; 32])), "ApiKey(..)");
    }
}
