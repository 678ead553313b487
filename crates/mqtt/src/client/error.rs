//! What can go wrong, by what a caller can do about it.

use crate::{DecodeError, Reason};

/// Why a request was not sent. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Connect first.
    #[error("not connected")]
    NotConnected,
    /// [`super::Client::connect`] needs the end of the last connection, [`super::Client::on_closed`].
    #[error("the last connection has not ended")]
    StillConnected,
    /// The send window or the output is full, or messages of the last connection come first: try again when more was acknowledged and written.
    #[error("too much is under way; try again after the next acknowledgement")]
    Busy,
    /// The server of this connection said that it does not do this.
    #[error("{what}: not supported by the server {rule}")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// The rule, with its id.
        rule: &'static str,
    },
    /// The packet would be larger than the server takes.
    #[error("packet of {bytes} bytes: the server takes at most {maximum} [MQTT-3.2.2-15]")]
    TooLarge {
        /// Bytes of the packet.
        bytes: usize,
        /// What the server takes.
        maximum: u32,
    },
    /// A value breaks a rule of MQTT.
    #[error("{what} {value:?}: {rule}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// The value, or empty if it says nothing or is secret.
        value: String,
        /// The rule, with its id.
        rule: &'static str,
    },
}

impl RequestError {
    pub(super) fn invalid(what: &'static str, value: &str, rule: &'static str) -> RequestError {
        RequestError::Invalid {
            what,
            value: value.chars().take(64).collect(),
            rule,
        }
    }

    pub(super) fn unsupported(what: &'static str, rule: &'static str) -> RequestError {
        RequestError::Unsupported { what, rule }
    }
}

/// Why this end gave up a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the server was told, in 5.0; [`Reason::UnspecifiedError`] if it did not answer.
    pub reason: Reason,
    message: String,
}

impl Failure {
    /// The server broke a rule.
    pub(super) fn protocol(message: impl Into<String>) -> Failure {
        Failure::new(Reason::ProtocolError, message)
    }

    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure {
            reason,
            message: message.into(),
        }
    }

    pub(super) fn timeout() -> Failure {
        Failure::new(
            Reason::UnspecifiedError,
            "the server does not answer in time",
        )
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        Failure::new(error.reason, error.to_string())
    }
}
