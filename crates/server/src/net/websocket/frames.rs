//! Frames after the upgrade. RFC 6455 section 5.

/// Longest frame payload, bytes: the longest MQTT packet. Nothing of a frame is buffered, so this only refuses nonsense.
const MAX_FRAME_BYTES: u64 = 268_435_460;
const MAX_CONTROL_BYTES: u64 = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why a WebSocket is closed. RFC 6455 section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The MQTT connection ended.
    Normal = 1000,
    /// The rules of RFC 6455 were broken.
    ProtocolError = 1002,
    /// A text frame, where MQTT is binary.
    Unsupported = 1003,
    /// A frame beyond all bounds.
    TooBig = 1009,
}

/// Where the stream of incoming frames stands. No heap memory unless half a control frame has arrived.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; 14],
    header_bytes: u8,
    opcode: u8,
    mask: [u8; 4],
    mask_at: u8,
    in_payload: bool,
    /// A data message has begun and its last frame has not come.
    in_message: bool,
    remaining: u64,
    control: Vec<u8>,
}

/// Why no more frames will come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    Closed,
    Broken(&'static str),
}

impl Frames {
    /// Takes all of `input`: payload of data frames to `data`, frames to send to `replies`.
    pub(super) fn take(
        &mut self,
        mut input: &[u8],
        data: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<(), Over> {
        loop {
            if !self.in_payload {
                match self.take_header(&mut input) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err((code, cause)) => {
                        close_frame(code, replies);
                        return Err(Over::Broken(cause));
                    }
                }
            }
            let now = usize::try_from(self.remaining)
                .unwrap_or(usize::MAX)
                .min(input.len());
            let (payload, rest) = input.split_at(now);
            input = rest;
            self.remaining -= now as u64;
            let is_control = self.opcode >= CLOSE;
            let target = if is_control {
                &mut self.control
            } else {
                &mut *data
            };
            unmask(payload, self.mask, &mut self.mask_at, target);
            if self.remaining > 0 {
                return Ok(());
            }
            self.in_payload = false;
            if is_control {
                self.on_control(replies)?;
            }
        }
    }

    /// Completes a frame header from `input`; `false` while it is incomplete.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, (CloseCode, &'static str)> {
        loop {
            let have = self.header_bytes as usize;
            let needed = header_bytes(&self.header[..have]);
            if have == needed {
                break;
            }
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            self.header[have] = byte;
            self.header_bytes += 1;
            *input = rest;
        }
        let header = self.header;
        let header_bytes = std::mem::take(&mut self.header_bytes) as usize;
        let length = match header[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => u64::from_be_bytes(header[2..10].try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        self.check(header[0], header[1], length)?;
        let is_final = header[0] & 0x80 != 0;
        self.opcode = header[0] & 0x0F;
        if self.opcode < CLOSE {
            self.in_message = !is_final;
        }
        self.mask = header[header_bytes - 4..header_bytes]
            .try_into()
            .expect("four bytes");
        self.mask_at = 0;
        self.remaining = length;
        self.in_payload = true;
        Ok(true)
    }

    fn check(&self, first: u8, second: u8, length: u64) -> Result<(), (CloseCode, &'static str)> {
        use CloseCode::{ProtocolError, TooBig, Unsupported};
        let is_final = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err((
                ProtocolError,
                "reserved bits are set, but no extension was agreed",
            ));
        }
        if second & 0x80 == 0 {
            return Err((ProtocolError, "a frame of a client must be masked"));
        }
        match first & 0x0F {
            CONTINUATION if !self.in_message => {
                return Err((ProtocolError, "a continuation of nothing"));
            }
            BINARY if self.in_message => {
                return Err((ProtocolError, "a new message inside a fragmented one"));
            }
            CONTINUATION | BINARY => {}
            TEXT => return Err((Unsupported, "MQTT needs binary frames [MQTT-6.0.0-1]")),
            CLOSE | PING | PONG if !is_final => {
                return Err((ProtocolError, "a fragmented control frame"));
            }
            CLOSE | PING | PONG if length > MAX_CONTROL_BYTES => {
                return Err((ProtocolError, "a control frame of more than 125 bytes"));
            }
            CLOSE | PING | PONG => {}
            _ => return Err((ProtocolError, "an unknown opcode")),
        }
        if length > MAX_FRAME_BYTES {
            return Err((TooBig, "a frame longer than any MQTT packet"));
        }
        Ok(())
    }

    fn on_control(&mut self, replies: &mut Vec<u8>) -> Result<(), Over> {
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            PING => {
                replies.extend_from_slice(&[0x80 | PONG, payload.len() as u8]);
                replies.extend_from_slice(&payload);
                Ok(())
            }
            CLOSE => {
                match payload.get(..2) {
                    Some(code) => {
                        replies.extend_from_slice(&[0x80 | CLOSE, 2, code[0], code[1]]);
                    }
                    None => replies.extend_from_slice(&[0x80 | CLOSE, 0]),
                }
                Err(Over::Closed)
            }
            _ => Ok(()),
        }
    }
}

/// Length of a frame header whose first bytes are known; 14 at most.
fn header_bytes(known: &[u8]) -> usize {
    match known.get(1) {
        Some(second) if second & 0x80 != 0 => match second & 0x7F {
            126 => 8,
            127 => 14,
            _ => 6,
        },
        // Not known yet, or unmasked, which is refused whatever follows.
        _ => 2,
    }
}

fn unmask(payload: &[u8], mask: [u8; 4], mask_at: &mut u8, target: &mut Vec<u8>) {
    let start = target.len();
    target.extend_from_slice(payload);
    let mut key = mask;
    key.rotate_left(*mask_at as usize);
    let mut chunks = target[start..].chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
    *mask_at = ((*mask_at as usize + payload.len()) % 4) as u8;
}

/// Header of a binary frame of the server, whole message in one frame. Returns it and its length, 2, 4 or 10 bytes.
pub fn binary_header(payload_bytes: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | BINARY;
    let length = match payload_bytes {
        0..=125 => {
            header[1] = payload_bytes as u8;
            2
        }
        126..=0xFFFF => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    (header, length)
}

/// Appends a close frame.
pub fn close_frame(code: CloseCode, replies: &mut Vec<u8>) {
    let [high, low] = (code as u16).to_be_bytes();
    replies.extend_from_slice(&[0x80 | CLOSE, 2, high, low]);
}
