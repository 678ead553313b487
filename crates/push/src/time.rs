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

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn always_shows_milliseconds_and_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_413_600_120), "2026-11-23T06:00:00.120Z");
    }

    #[test]
    fn far_future_is_clamped() {
        assert_eq!(rfc3339(u64::MAX), "9999-12-30T22:00:00.999Z");
    }
}
