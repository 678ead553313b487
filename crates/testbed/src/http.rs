//! As much of HTTP as asking a node needs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its content.
    pub body: String,
}

impl Response {
    /// The content as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Sends a request on a connection of its own. `head`: the request line without the version, then header lines.
pub fn request(
    address: SocketAddr,
    head: &[&str],
    body: &str,
    patience: Duration,
) -> anyhow::Result<Response> {
    let (line, headers) = head.split_first().context("a request has a line")?;
    let mut text = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer ended early")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("an answer has a status")?;
    let promised = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    ensure!(
        promised.is_none_or(|promised| promised == body.len()),
        "the answer ended early"
    );
    Ok(Response {
        status,
        body: body.to_owned(),
    })
}

/// `GET` of a path that needs no key.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<Response> {
    request(address, &[&format!("GET {path}")], "", patience)
}
