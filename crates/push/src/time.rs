//! Times as people and app servers read them.

use jiff::Timestamp;

/// RFC 3339 in UTC with milliseconds, such as `2026-11-23T06:00:00.000Z`. Times past the year 9999 are shown as its end.
pub fn rfc3339(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

/// Unix milliseconds of a text of RFC 3339, if it is one and not before 1970. Finer parts of a second are cut off.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    // The parser takes more than RFC 3339 does: signed years, a missing part, a space. What is written must have the common shape.
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00")?;
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches('0');
            (1..=9)
                .contains(&(fraction.len() - offset.len()))
                .then_some(offset)?
        }
        None => rest,
    };
    if !matches!(offset, "Z" | "+00:00" | "-00:00") {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::{from_rfc3339, rfc3339};

    #[test]
    fn always_shows_milliseconds_and_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_413_600_120), "2026-11-23T06:00:00.120Z");
    }

    #[test]
    fn times_are_read_in_any_offset_and_only_in_full() {
        assert_eq!(
            from_rfc3339("2026-11-23T06:00:00.120Z"),
            Some(1_795_413_600_120)
        );
        assert_eq!(
            from_rfc3339("2026-11-23T07:00:00.1209+01:00"),
            Some(1_795_413_600_120)
        );
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23T06:00Z",
            "2026-11-23T06:00:00",
            "2026-11-23 06:00:00Z",
            "2026-11-23T06:00:00.Z",
            "2026-11-23T06:00:00+01",
            "2026-13-23T06:00:00Z",
            "2026-02-30T06:00:00Z",
            "2026-11-23T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T06:00:00Z[Europe/Vienna]",
        ] {
            assert_eq!(from_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn far_future_is_clamped() {
        assert_eq!(rfc3339(u64::MAX), "9999-12-30T22:00:00.999Z");
    }
}
