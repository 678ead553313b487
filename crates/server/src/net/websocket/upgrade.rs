//! The HTTP request that opens a WebSocket, and its answer.

use std::{mem::take, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use super::Fault;

/// Longest request head, bytes. Browsers send cookies along; 8 KiB is what web servers commonly allow.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Subprotocols that are MQTT, best first.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// A request on its way in.
#[derive(Debug)]
pub(super) struct Upgrade {
    path: Arc<str>,
    head: Vec<u8>,
}

impl Upgrade {
    pub(super) fn new(path: Arc<str>) -> Upgrade {
        let head = Vec::new();
        Upgrade { path, head }
    }

    /// Takes bytes up to the end of the request, then writes the response. `true` once the WebSocket is open.
    pub(super) fn take(&mut self, input: &mut &[u8], replies: &mut Vec<u8>) -> Result<bool, Fault> {
        let before = self.head.len();
        let room = MAX_HEAD_BYTES - before;
        let offered = &input[..input.len().min(room)];
        self.head.extend_from_slice(offered);
        let search_from = before.saturating_sub(END_OF_HEAD.len() - 1);
        let end = self.head[search_from..]
            .windows(END_OF_HEAD.len())
            .position(|window| window == END_OF_HEAD);
        let Some(end) = end.map(|at| search_from + at + END_OF_HEAD.len()) else {
            if self.head.len() == MAX_HEAD_BYTES {
                return refuse(431, "the request head is longer than 8 KiB", replies);
            }
            *input = &[];
            return Ok(false);
        };
        *input = &input[end - before..];
        let head = take(&mut self.head);
        match judge(&head[..end], &self.path) {
            Ok(accepted) => {
                accepted.answer(replies);
                Ok(true)
            }
            Err((status, cause)) => refuse(status, cause, replies),
        }
    }
}

struct Accepted {
    accept: String,
    subprotocol: &'static str,
}

impl Accepted {
    fn answer(&self, replies: &mut Vec<u8>) {
        let Accepted {
            accept,
            subprotocol,
        } = self;
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        replies.extend_from_slice(response.as_bytes());
    }
}

fn judge(head: &[u8], path: &str) -> Result<Accepted, (u16, &'static str)> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err((431, "more than 64 headers")),
        _ => return Err((400, "not an HTTP request")),
    }
    if request.method != Some("GET") {
        return Err((400, "the method must be GET"));
    }
    let target = request.path.unwrap_or_default();
    let asked = target.split('?').next().unwrap_or_default();
    if asked != path && asked != "/" {
        return Err((404, "no WebSocket under this path"));
    }
    let all = |name: &'static str| {
        let same_name = |header: &&httparse::Header| header.name.eq_ignore_ascii_case(name);
        let values = request.headers.iter().filter(same_name);
        values
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    };
    if !all("upgrade").any(|token| token.eq_ignore_ascii_case("websocket")) {
        return Err((426, "only WebSocket is spoken here"));
    }
    if request.version != Some(1) {
        return Err((400, "a WebSocket needs HTTP/1.1"));
    }
    if !all("connection").any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err((400, "the header \"Connection: Upgrade\" is missing"));
    }
    if all("sec-websocket-version").next() != Some("13") {
        return Err((426, "the WebSocket version must be 13"));
    }
    let key = all("sec-websocket-key").next().unwrap_or_default();
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err((400, "Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    let offered: Vec<&str> = all("sec-websocket-protocol").collect();
    let chosen = SUBPROTOCOLS
        .into_iter()
        .find(|known| offered.contains(known));
    let Some(subprotocol) = chosen else {
        return Err((400, "the subprotocol \"mqtt\" must be offered"));
    };
    Ok(Accepted {
        accept: accept_key(key),
        subprotocol,
    })
}

/// RFC 6455 section 4.2.2.
pub(super) fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

fn refuse(status: u16, cause: &'static str, replies: &mut Vec<u8>) -> Result<bool, Fault> {
    let (phrase, extra) = match status {
        404 => ("Not Found", ""),
        426 => (
            "Upgrade Required",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        ),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    let length = cause.len() + 1;
    let response = format!(
        "HTTP/1.1 {status} {phrase}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{cause}\n"
    );
    replies.extend_from_slice(response.as_bytes());
    Err(Fault::Refused { status, cause })
}
