//! The filter lists of SUBSCRIBE and UNSUBSCRIBE.

use crate::{QoS, RetainHandling, SubscribeFilters, SubscriptionOptions, UnsubscribeFilters, wire};

impl SubscriptionOptions {
    /// The byte on the wire in 5.0; its low two bits are the byte before 5.0.
    pub const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    /// Reads the byte on the wire; `None` if a reserved bit is set, or quality of service or retain handling is 3.
    pub const fn from_byte(byte: u8) -> Option<SubscriptionOptions> {
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        let qos = match byte & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return None,
        };
        Some(SubscriptionOptions {
            qos,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }
}

impl<'a> SubscribeFilters<'a> {
    /// Takes a list that [`SubscribeFilters::write`] made.
    pub const fn trusted(bytes: &'a [u8]) -> SubscribeFilters<'a> {
        SubscribeFilters(bytes)
    }

    /// Appends one valid filter to a list in wire form.
    ///
    /// Panics if the filter is longer than 65535 bytes.
    pub fn write(filter: &str, options: SubscriptionOptions, out: &mut Vec<u8>) {
        wire::write_bytes(filter.as_bytes(), out);
        out.push(options.to_byte());
    }

    /// The filters in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (filter, after) = wire::split_bytes(rest)?;
            let (&options, after) = after.split_first()?;
            rest = after;
            Some((
                std::str::from_utf8(filter).ok()?,
                SubscriptionOptions::from_byte(options)?,
            ))
        })
    }

    /// The list in wire form.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Takes a list that [`UnsubscribeFilters::write`] made.
    pub const fn trusted(bytes: &'a [u8]) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters(bytes)
    }

    /// Appends one valid filter to a list in wire form.
    ///
    /// Panics if the filter is longer than 65535 bytes.
    pub fn write(filter: &str, out: &mut Vec<u8>) {
        wire::write_bytes(filter.as_bytes(), out);
    }

    /// The filters in their order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (filter, after) = wire::split_bytes(rest)?;
            rest = after;
            std::str::from_utf8(filter).ok()
        })
    }

    /// The list in wire form.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}
