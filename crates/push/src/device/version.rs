//! Versions of apps, ordered by their numbers.

use std::{cmp::Ordering, fmt};

/// Numbers that a version may have.
pub const MAX_PARTS: usize = 6;

/// The numbers of a version: 1 to 6 of them with dots between, each below 2^64. Missing ones count as 0: 3.2 equals 3.2.0.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    parts: [u64; MAX_PARTS],
    /// How many were written, so that it can be shown as it was.
    written: usize,
}

impl Version {
    /// Reads numbers with dots between, and nothing else.
    pub fn exact(text: &str) -> Option<Version> {
        let mut version = Version {
            parts: [0; MAX_PARTS],
            written: 0,
        };
        for part in text.split('.') {
            // Unlike `parse`, no sign.
            if !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *version.parts.get_mut(version.written)? = part.parse().ok()?;
            version.written += 1;
        }
        Some(version)
    }

    /// Reads what a device reports: numbers, which `-`, `+` or a space and anything may follow, such as `3.2.0-beta` or `3.2 (77)`.
    /// What follows does not count.
    pub fn reported(text: &str) -> Option<Version> {
        let end = text.find(['-', '+', ' ']).unwrap_or(text.len());
        Version::exact(&text[..end])
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Version {}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.parts.cmp(&other.parts)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts[..self.written].iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let ordered = [
            "0", "1", "1.0.0.1", "1.2", "3.2", "3.2.1", "3.10", "20261127",
        ];
        for pair in ordered.windows(2) {
            assert!(
                Version::exact(pair[0]) < Version::exact(pair[1]),
                "{pair:?}"
            );
        }
        assert_eq!(Version::exact("3.2"), Version::exact("3.02.0"));
        assert_eq!(Version::exact("3.2.0").unwrap().to_string(), "3.2.0");
    }

    #[test]
    fn what_follows_the_numbers_does_not_count() {
        for text in ["3.2-beta.1", "3.2+77", "3.2 (77)", "3.2-"] {
            assert_eq!(Version::reported(text), Version::exact("3.2"), "{text}");
            assert_eq!(Version::exact(text), None);
        }
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in [
            "",
            ".",
            "3.",
            ".3",
            "v3",
            "3.2b",
            "+3",
            "1.2.3.4.5.6.7",
            "18446744073709551616",
            "٣",
        ] {
            assert_eq!(Version::reported(text), None, "{text}");
        }
    }
}
