//! Sizes and durations as people write them.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const TIMES: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
];

/// Reads a number of bytes: `"1 MiB"`, `"64KiB"`, `"2 GB"`, `"512"`. Units are case-sensitive; 1 KiB is 1,024 bytes, 1 kB is 1,000.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit, rest) = number_and_unit(text)?;
    if !rest.is_empty() {
        return Err(format!(
            "{text:?}: one number with one unit, such as \"1 MiB\""
        ));
    }
    let factor = match unit {
        "" => 1,
        unit => factor_of(&SIZES, unit).ok_or_else(|| {
            format!("{text:?}: the unit {unit:?} is none of B, KiB, MiB, GiB, TiB, kB, MB, GB")
        })?,
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Reads a duration: `"10s"`, `"30d"`, `"1h 30m"`, `"250 ms"`. Every number needs its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total: u64 = 0;
    let mut rest = text;
    loop {
        let (number, unit, after) = number_and_unit(rest)?;
        if unit.is_empty() {
            return Err(format!(
                "{text:?} lacks a unit (ms, s, m, h, d, w), such as \"10s\""
            ));
        }
        let factor = factor_of(&TIMES, unit)
            .ok_or_else(|| format!("{text:?}: the unit {unit:?} is none of ms, s, m, h, d, w"))?;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("{text:?} is too long"))?;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total));
        }
    }
}

/// Bytes in the largest unit that divides them: `1 MiB`, `1000 B`.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, factor) in SIZES
        .iter()
        .rev()
        .filter(|(unit, factor)| unit.contains('i') && *factor > 1)
    {
        if bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{} {unit}", bytes / factor);
        }
    }
    format!("{bytes} B")
}

/// A duration in the largest unit below weeks that divides it: `30d`, `90s`.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    for (unit, factor) in TIMES.iter().rev().filter(|(unit, _)| *unit != "w") {
        if ms.is_multiple_of(*factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

fn factor_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

/// Splits `"10 s rest"` into 10, `s` and `rest`.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(trimmed.len());
    let (number, after) = trimmed.split_at(digits);
    let number = number.replace('_', "");
    if number.is_empty() {
        return Err(format!("{text:?} does not begin with a whole number"));
    }
    let number = number
        .parse()
        .map_err(|_| format!("{text:?} is too large"))?;
    let after = after.trim_start();
    let letters = after
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(after.len());
    let (unit, rest) = after.split_at(letters);
    if unit.is_empty() && !rest.is_empty() {
        return Err(format!("{text:?}: a whole number and a unit are expected"));
    }
    Ok((number, unit, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        for (text, bytes) in [
            ("1 MiB", 1 << 20),
            ("64KiB", 65_536),
            ("512", 512),
            ("2 GB", 2_000_000_000),
            ("1_000 B", 1000),
            (" 3 kB ", 3000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1 XB",
            "1 mib",
            "1.5 MiB",
            "-1",
            "99999999999999999999",
            "99999999999 TiB",
            "1 MiB 2 KiB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_add_up_and_need_units() {
        for (text, ms) in [
            ("10s", 10_000),
            ("30d", 30 * 86_400_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250 ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "10 sec",
            "s",
            "1.5h",
            "-1s",
            "99999999999999999999s",
            "9999999999999w",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, 5 << 30, (1 << 20) + 1] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 90_000, 86_400_000, 30 * 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }
}
