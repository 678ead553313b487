//! The HTTP API, spoken over a bare socket: what is sent and answered is visible byte for byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};

use super::{Node, PATIENCE, eventually};

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// 100..=599.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|fault| panic!("no JSON ({fault}): {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// Sends one request and reads the answer. `Err` if the connection breaks: the request may or may not have been carried out.
pub fn request(address: SocketAddr, head: &str, body: &str) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || {
        std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("broken answer: {answer:?}"),
        )
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix(name)
                .map(str::to_owned)
        })
    };
    let length = header("content-length:").and_then(|value| value.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(broken());
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(broken)?;
    Ok(Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// A push to be made.
#[derive(Clone)]
pub struct Push {
    body: Value,
    idempotency_key: Option<String>,
}

impl Push {
    /// To all devices. `data` carries a number.
    pub fn to_all(n: u32) -> Push {
        Push::to(json!({"all": true}), n)
    }

    /// To one device.
    pub fn to_device(device: &str, n: u32) -> Push {
        Push::to(json!({"devices": [device]}), n)
    }

    /// To several.
    pub fn to_devices(devices: &[&str], n: u32) -> Push {
        Push::to(json!({"devices": devices}), n)
    }

    fn to(audience: Value, n: u32) -> Push {
        let body =
            json!({"audience": audience, "notification": {"title": "Hello"}, "data": {"n": n}});
        Push {
            body,
            idempotency_key: None,
        }
    }

    /// Seconds until nobody is sent it any more; 0: now or never.
    pub fn ttl(mut self, seconds: u64) -> Push {
        self.body["options"]["ttl"] = seconds.into();
        self
    }

    /// What it goes before.
    pub fn priority(mut self, priority: &str) -> Push {
        self.body["options"]["priority"] = priority.into();
        self
    }

    /// It takes the place of the one of the same key.
    pub fn collapse_key(mut self, key: &str) -> Push {
        self.body["options"]["collapse_key"] = key.into();
        self
    }

    /// Makes it harmless to repeat.
    pub fn idempotency_key(mut self, key: &str) -> Push {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    /// Where it goes to, and the head of its request.
    pub fn prepare(&self, node: &Node) -> (SocketAddr, String) {
        let key = self
            .idempotency_key
            .as_ref()
            .map_or(String::new(), |key| format!("\r\nIdempotency-Key: {key}"));
        let head = format!(
            "POST /v1/apps/default/pushes HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json{key}",
            node.api_key()
        );
        (node.http(), head)
    }

    /// The body of its request.
    pub fn body(&self) -> String {
        self.body.to_string()
    }

    /// Sends it; `Err` if the connection breaks.
    pub fn try_send(&self, node: &Node) -> std::io::Result<Response> {
        let (address, head) = self.prepare(node);
        request(address, &head, &self.body())
    }

    /// Sends it; it must be accepted. Answers with its id.
    pub fn send(&self, node: &Node) -> String {
        let response = self.try_send(node).expect("the node answers");
        assert_eq!(response.status, 202, "{response:?}");
        response.json()["push_id"]
            .as_str()
            .expect("an accepted push has an id")
            .to_owned()
    }
}

/// The figures of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Devices that it is for.
    pub targeted: u64,
    /// Devices that acknowledged it.
    pub delivered: u64,
    /// Devices that may still get it.
    pub pending: u64,
    /// Devices whose time ran out.
    pub expired: u64,
}

impl Node {
    /// The figures of a push now.
    pub fn report(&self, push_id: &str) -> Report {
        let response = self.get_with_key(&format!("/v1/apps/default/pushes/{push_id}"));
        assert_eq!(response.status, 200, "{response:?}");
        let document = response.json();
        let figure = |name: &str| {
            document[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name} in {document}"))
        };
        let report = Report {
            targeted: figure("targeted"),
            delivered: figure("delivered"),
            pending: figure("pending"),
            expired: figure("expired"),
        };
        let lost = figure("collapsed") + figure("dropped");
        assert_eq!(
            report.targeted,
            report.delivered + report.pending + report.expired + lost,
            "the figures add up: {document}"
        );
        report
    }

    /// Waits until the figures of a push are these.
    pub fn await_report(&self, push_id: &str, expected: Report) {
        let mut last = None;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("figures", || {
                last = Some(self.report(push_id));
                (last == Some(expected)).then_some(())
            });
        }));
        assert!(
            found.is_ok(),
            "the figures of {push_id} are {last:?}, not {expected:?}"
        );
    }

    /// `GET` of a path of the default app.
    pub fn get_with_key(&self, path: &str) -> Response {
        let head = format!(
            "GET {path} HTTP/1.1\r\nAuthorization: Bearer {}",
            self.api_key()
        );
        request(self.http(), &head, "").expect("the node answers")
    }

    /// `GET` of a path that needs no key.
    pub fn get(&self, path: &str) -> Response {
        request(self.http(), &format!("GET {path} HTTP/1.1"), "").expect("the node answers")
    }
}
