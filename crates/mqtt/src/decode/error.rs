use std::fmt;

use crate::Reason;

/// Why bytes are not a packet. The connection cannot go on.
///
/// Rules are cited from 5.0, also where 3.1.1 has the same one under another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What to tell the other end, if it can still be told.
    pub reason: Reason,
    what: &'static str,
    value: Value,
    rule: &'static str,
}

/// The offending value; text is cut, and the only thing that allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    None,
    Number(u32),
    Text(Box<str>),
}

/// The most characters of an offending text that an error shows.
const MAX_SHOWN_CHARS: usize = 64;

impl DecodeError {
    /// An error about `what`, which broke `rule`.
    #[cold]
    pub(crate) fn new(reason: Reason, what: &'static str, rule: &'static str) -> DecodeError {
        DecodeError {
            reason,
            what,
            value: Value::None,
            rule,
        }
    }

    #[cold]
    pub(super) fn malformed(what: &'static str, rule: &'static str) -> DecodeError {
        DecodeError::new(Reason::MalformedPacket, what, rule)
    }

    #[cold]
    pub(super) fn protocol(what: &'static str, rule: &'static str) -> DecodeError {
        DecodeError::new(Reason::ProtocolError, what, rule)
    }

    #[cold]
    pub(super) fn long_length() -> DecodeError {
        DecodeError::malformed(
            "variable byte integer",
            "must use the fewest bytes that hold it [MQTT-1.5.5-1]",
        )
    }

    #[cold]
    pub(super) fn number(mut self, value: u32) -> DecodeError {
        self.value = Value::Number(value);
        self
    }

    #[cold]
    pub(super) fn text(mut self, value: &str) -> DecodeError {
        let end = value
            .char_indices()
            .nth(MAX_SHOWN_CHARS)
            .map_or(value.len(), |(index, _)| index);
        self.value = Value::Text(value[..end].into());
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DecodeError { what, rule, .. } = self;
        match &self.value {
            Value::None => write!(f, "{what}: {rule}"),
            Value::Number(number) => write!(f, "{what} {number}: {rule}"),
            Value::Text(text) => write!(f, "{what} {text:?}: {rule}"),
        }
    }
}

impl std::error::Error for DecodeError {}
