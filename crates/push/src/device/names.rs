//! What devices, users, tags and the rest may be called, and how long what is known of a device may be.
//!
//! Control characters are refused everywhere: nobody can read them back, and the audience language has no way to write them.

use jiff::tz::TimeZone;

use crate::fields::shown;

/// Text that cannot be what it is meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text}: {rule}")]
pub struct BadName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

/// What a text may be.
#[derive(Debug)]
pub struct Rule {
    what: &'static str,
    bytes: std::ops::RangeInclusive<usize>,
    allowed: fn(&str) -> bool,
    rule: &'static str,
}

impl Rule {
    /// Whether the text is allowed, and if not, why.
    pub fn check(&self, text: &str) -> Result<(), BadName> {
        if self.bytes.contains(&text.len()) && (self.allowed)(text) {
            return Ok(());
        }
        Err(BadName {
            what: self.what,
            text: shown(text),
            rule: self.rule,
        })
    }

    /// What the text is, for messages: `tag`, `time zone`.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

/// A device that can be registered. MQTT allows more; this is what fits into a key of the store, a path and a line of a log.
pub const CLIENT_ID: Rule = Rule {
    what: "client identifier",
    bytes: 1..=256,
    allowed: is_plain,
    rule: "a registered device's has 1 to 256 bytes of UTF-8 without control characters",
};

/// A user, as the app's own backend names it.
pub const USER: Rule = Rule {
    what: "user",
    bytes: 1..=128,
    allowed: is_plain,
    rule: "1 to 128 bytes of UTF-8 without control characters",
};

/// A tag. Short, as a device may have many and each is kept per device.
pub const TAG: Rule = Rule {
    what: "tag",
    bytes: 1..=64,
    allowed: is_plain,
    rule: "1 to 64 bytes of UTF-8 without control characters",
};

/// A topic that the server subscribes a device to. Wildcards are not for names of topics, as in MQTT.
pub const TOPIC: Rule = Rule {
    what: "topic",
    bytes: 1..=128,
    allowed: |text| is_plain(text) && !text.contains(['+', '#']),
    rule: "1 to 128 bytes of UTF-8 without control characters, \"+\" and \"#\"",
};

/// Name of an attribute: one that can follow `attr.` in an expression.
pub const ATTRIBUTE: Rule = Rule {
    what: "attribute name",
    bytes: 1..=64,
    allowed: is_word,
    rule: "1 to 64 of a-z, A-Z, 0-9, \"_\" and \"-\", beginning with a letter or \"_\"",
};

/// Value of an attribute that is a string.
pub const TEXT: Rule = Rule {
    what: "value",
    bytes: 0..=256,
    allowed: is_plain,
    rule: "a string value has at most 256 bytes of UTF-8 without control characters",
};

/// Platform, such as `ios`, `android`, `web`. Lower case, so that there is one way to write it.
pub const PLATFORM: Rule = Rule {
    what: "platform",
    bytes: 1..=32,
    allowed: is_lower,
    rule: "1 to 32 of a-z, 0-9, \"_\" and \"-\", such as \"ios\"",
};

/// Version of the app on the device. Any text; [`Version`](super::Version) says which can be ordered.
pub const APP_VERSION: Rule = Rule {
    what: "app version",
    bytes: 1..=64,
    allowed: is_plain,
    rule: "1 to 64 bytes of UTF-8 without control characters",
};

/// Language tag of BCP 47 by its shape; 35 bytes hold all but the most private ones (RFC 5646 section 4.4.1).
pub const LANGUAGE: Rule = Rule {
    what: "language",
    bytes: 1..=35,
    allowed: |text| {
        text.split('-').all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    },
    rule: "a language tag of BCP 47, such as \"en\" or \"pt-BR\"",
};

/// Name of a time zone in the IANA database.
pub const TIME_ZONE: Rule = Rule {
    what: "time zone",
    bytes: 1..=64,
    allowed: |text| is_plain(text) && TimeZone::get(text).is_ok(),
    rule: "a name of the IANA database, such as \"Europe/Berlin\"",
};

/// Vendor of a push channel, such as `apns`.
pub const VENDOR: Rule = Rule {
    what: "vendor",
    bytes: 1..=32,
    allowed: is_lower,
    rule: "1 to 32 of a-z, 0-9, \"_\" and \"-\", such as \"fcm\"",
};

/// A vendor's token for a device; the longest seen are web push subscriptions, well below 1 KiB.
pub const TOKEN: Rule = Rule {
    what: "token",
    bytes: 1..=2048,
    allowed: is_plain,
    rule: "1 to 2048 bytes of UTF-8 without control characters",
};

/// A saved segment.
pub const SEGMENT: Rule = Rule {
    what: "segment",
    bytes: 1..=64,
    allowed: is_word_or_digits,
    rule: "1 to 64 of a-z, A-Z, 0-9, \"_\" and \"-\"",
};

/// An upload.
pub const UPLOAD: Rule = Rule {
    what: "upload",
    bytes: 1..=64,
    allowed: is_word_or_digits,
    rule: "1 to 64 of a-z, A-Z, 0-9, \"_\" and \"-\"",
};

/// A word of the audience language: ASCII letters, digits, `_` and `-`, beginning with a letter or `_`.
pub(crate) fn is_word(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') && is_word_or_digits(text)
}

fn is_word_or_digits(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}

fn is_lower(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_rule() {
        let long = |bytes| "x".repeat(bytes);
        let table: &[(&Rule, &[&str], &[&str])] = &[
            (
                &CLIENT_ID,
                &["d", "a b/é", &long(256)],
                &["", "a\0", &long(257)],
            ),
            (&USER, &["u", &long(128)], &["", "\n", &long(129)]),
            (
                &TAG,
                &["vip", "ünï \"x\"", &long(64)],
                &["", "\u{85}", &long(65)],
            ),
            (&TOPIC, &["news/sport"], &["", "news/+", "#"]),
            (
                &ATTRIBUTE,
                &["plan", "_a-1"],
                &["", "1a", "-a", "a.b", "é", "a b"],
            ),
            (&TEXT, &["", &long(256)], &["\t", &long(257)]),
            (&PLATFORM, &["ios", "wear_os-2"], &["", "iOS", "a b"]),
            (&APP_VERSION, &["3.2", "beta"], &[""]),
            (
                &LANGUAGE,
                &["en", "pt-BR", "zh-Hant-TW"],
                &["", "en-", "en_US", "abcdefghi"],
            ),
            (
                &TIME_ZONE,
                &["Europe/Berlin", "UTC"],
                &["", "Europe/Atlantis", "+02:00"],
            ),
            (&VENDOR, &["fcm"], &["", "FCM"]),
            (&TOKEN, &["abc:def"], &["", "a\nb"]),
            (&SEGMENT, &["s1", "1s", "a-b_C"], &["", "a b", "é"]),
        ];
        for (rule, good, bad) in table {
            for text in *good {
                assert_eq!(rule.check(text), Ok(()), "{}", rule.what());
            }
            for text in *bad {
                assert!(rule.check(text).is_err(), "{} {text:?}", rule.what());
            }
        }
        assert_eq!(
            PLATFORM.check("iOS").unwrap_err().to_string(),
            "platform \"iOS\": 1 to 32 of a-z, 0-9, \"_\" and \"-\", such as \"ios\""
        );
    }
}
