//! WebSocket (RFC 6455), the server's side, as a codec without IO.
//!
//! The payload of MQTT over WebSocket is a stream: packets may span frames, and frames may hold many packets (MQTT 5.0 section 6). So nothing is
//! collected here: what arrives of a frame is unmasked and passed on at once, and an idle connection holds no buffer.

mod frames;
mod upgrade;

use std::sync::Arc;

pub use frames::{CloseCode, binary_header, close_frame};
use frames::{Frames, Over};
use upgrade::Upgrade;

/// One connection's codec: first the HTTP upgrade, then frames.
#[derive(Debug)]
pub struct WebSocket(State);

#[derive(Debug)]
enum State {
    Upgrading(Upgrade),
    Open(Frames),
    Over,
}

/// Why no more data will come. What the peer should be told is in the replies already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The HTTP request was refused.
    #[error("upgrade refused with {status}: {cause}")]
    Refused {
        /// Status code of the response.
        status: u16,
        /// What is wrong with the request.
        cause: &'static str,
    },
    /// The peer closed the WebSocket.
    #[error("closed by the peer")]
    Closed,
    /// The peer broke the rules of RFC 6455 or of MQTT's use of it.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
}

impl WebSocket {
    /// A connection that is to upgrade. `path` is where, beside `/`.
    pub fn new(path: Arc<str>) -> WebSocket {
        WebSocket(State::Upgrading(Upgrade::new(path)))
    }

    /// Takes all of `input`. MQTT bytes are appended to `data`; what the peer must be sent, in whole frames, to `replies`.
    ///
    /// After an error the connection is to be closed once the replies are written; further input is ignored.
    pub fn decode(
        &mut self,
        input: &[u8],
        data: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut rest = input;
        if let State::Upgrading(upgrade) = &mut self.0 {
            match upgrade.take(&mut rest, replies) {
                Ok(true) => self.0 = State::Open(Frames::default()),
                Ok(false) => return Ok(()),
                Err(fault) => {
                    self.0 = State::Over;
                    return Err(fault);
                }
            }
        }
        let State::Open(frames) = &mut self.0 else {
            return Ok(());
        };
        frames.take(rest, data, replies).map_err(|over| {
            self.0 = State::Over;
            match over {
                Over::Closed => Fault::Closed,
                Over::Broken(cause) => Fault::Protocol(cause),
            }
        })
    }

    /// Whether frames may be sent: the upgrade is done, and neither side has closed.
    pub fn is_open(&self) -> bool {
        matches!(self.0, State::Open(_))
    }

    /// Ends the sending side: appends a close frame if frames may be sent.
    pub fn close(&mut self, code: CloseCode, replies: &mut Vec<u8>) {
        if self.is_open() {
            close_frame(code, replies);
        }
        self.0 = State::Over;
    }
}

#[cfg(test)]
mod tests;
