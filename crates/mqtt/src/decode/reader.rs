//! A cursor over the body of a packet.

use super::DecodeError;
use crate::topic::{self, FilterError, NameError};
use crate::{PacketId, Reason, wire};

/// What is left of a packet's body.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

#[cold]
fn short(what: &'static str) -> DecodeError {
    DecodeError::malformed(what, "the packet ends within it")
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes after the end.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed(
            "bytes after the end of the packet",
            "there must be none, section 2.1.4",
        )
        .number(self.rest.len() as u32))
    }

    /// All that is left.
    #[inline]
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    #[inline]
    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| short(what))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| short(what))?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| short(what))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer in its shortest form.
    #[inline]
    pub(super) fn variable(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let Some((value, len)) = wire::read_variable(self.rest) else {
            return Err(if self.rest.len() < 4 {
                short(what)
            } else {
                DecodeError::malformed(what, "must be at most four bytes long, section 1.5.5")
            });
        };
        if len != wire::variable_len(value) {
            return Err(DecodeError::long_length());
        }
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// The next `len` bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| short(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Binary data: two bytes of length, then as many.
    #[inline]
    pub(super) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = wire::split_bytes(self.rest).ok_or_else(|| short(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Text that may still hold U+0000, which the caller looks for.
    #[inline]
    fn text_or_null(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(what)?;
        std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::malformed(what, "must be well-formed UTF-8 [MQTT-1.5.4-1]"))
    }

    #[inline]
    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let text = self.text_or_null(what)?;
        if text.as_bytes().contains(&0) {
            return Err(
                DecodeError::malformed(what, "must not contain U+0000 [MQTT-1.5.4-2]").text(text),
            );
        }
        Ok(text)
    }

    /// A topic name; `""` where `may_be_empty`.
    #[inline]
    pub(super) fn topic_name(
        &mut self,
        what: &'static str,
        may_be_empty: bool,
    ) -> Result<&'a str, DecodeError> {
        let name = self.text_or_null(what)?;
        match topic::validate_name(name) {
            Ok(()) => Ok(name),
            Err(NameError::Empty) if may_be_empty => Ok(name),
            Err(error) => Err(name_error(what, name, error)),
        }
    }

    pub(super) fn topic_filter(&mut self) -> Result<&'a str, DecodeError> {
        let what = "topic filter";
        let filter = self.text_or_null(what)?;
        match topic::validate_filter(filter) {
            Ok(()) => Ok(filter),
            Err(error) => Err(filter_error(what, filter, error)),
        }
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let what = "packet identifier";
        let id = self.u16(what)?;
        PacketId::new(id).ok_or_else(|| {
            DecodeError::protocol(what, "must be 1..=65535 [MQTT-2.2.1-3] [MQTT-2.2.1-4]").number(0)
        })
    }
}

#[cold]
fn name_error(what: &'static str, name: &str, error: NameError) -> DecodeError {
    let reason = match error {
        NameError::Empty => Reason::ProtocolError,
        NameError::Null | NameError::TooLong | NameError::Wildcard => Reason::MalformedPacket,
    };
    DecodeError::new(reason, what, error.rule()).text(name)
}

#[cold]
fn filter_error(what: &'static str, filter: &str, error: FilterError) -> DecodeError {
    let reason = match error {
        FilterError::Empty => Reason::ProtocolError,
        _ => Reason::MalformedPacket,
    };
    DecodeError::new(reason, what, error.rule()).text(filter)
}
