//! The data representations that everything is made of, MQTT 5.0 section 1.5.

/// The largest value of a variable byte integer, 268435455.
pub(crate) const MAX_VARIABLE: u32 = 0x0FFF_FFFF;

/// Reads a variable byte integer of up to four bytes: its value and the number of bytes it takes. `None` if `bytes` ends within it
/// or the fourth byte announces a fifth. Accepts more bytes than the value needs; see [`variable_len`].
#[inline]
pub(crate) fn read_variable(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The bytes that a variable byte integer takes, 1..=4.
#[inline]
pub(crate) const fn variable_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer in the fewest bytes.
///
/// Panics above 268435455.
#[inline]
pub(crate) fn write_variable(mut value: u32, out: &mut Vec<u8>) {
    assert!(
        value <= MAX_VARIABLE,
        "variable byte integer {value}: must be at most 268435455"
    );
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends two bytes of length and `bytes`.
///
/// Panics above 65535 bytes.
#[inline]
pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(bytes.len())
        .expect("strings and binary data are checked to be at most 65535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Splits off what two bytes of length announce.
#[inline]
pub(crate) fn split_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
