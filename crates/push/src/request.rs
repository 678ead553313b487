//! A push as an app server asks for it, in JSON.
//!
//! ```json
//! {
//!   "audience": {"devices": ["d1", "d2"]},
//!   "notification": {"title": "Hello"},
//!   "data": {"order": 7},
//!   "options": {"ttl": 3600}
//! }
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::AppName,
    id::PushId,
    json::{self, Node},
    payload::{self, Content},
    store::{Accept, Audience, Idempotency},
};

/// Different devices that one push may name.
pub const MAX_DEVICES: usize = 1000;
/// Bytes of a device's client identifier, as MQTT limits it.
pub const MAX_CLIENT_ID_BYTES: usize = 65_535;
/// Time to live of a push that does not say: 7 days, in seconds.
pub const DEFAULT_TTL_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Longest time to live: 28 days, in seconds.
pub const MAX_TTL_SECONDS: u64 = 28 * 24 * 60 * 60;

/// What a node may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `notification` and `data` together, minified.
    pub payload_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            payload_bytes: 4096,
        }
    }
}

/// A push that passed all checks, of no app yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub audience: Audience,
    /// What it says.
    pub content: Content,
    /// Seconds from acceptance; 0: now or never, only to devices that are connected.
    pub ttl_seconds: u64,
}

/// The first mistake found in a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    /// What kind of mistake.
    pub fault: Fault,
    /// JSON pointer (RFC 6901) to the field at fault; empty for the whole document, absent where the text is no JSON.
    pub field: Option<String>,
    /// For people: the value, the rule, the way out.
    pub detail: String,
}

/// Kinds of mistakes in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON in UTF-8.
    MalformedJson {
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1; 0 before the first byte of a line.
        column: usize,
    },
    /// A name occurs twice in an object.
    DuplicateField,
    /// Too many objects and arrays within each other.
    TooDeep,
    /// A field that does not exist.
    UnknownField,
    /// A field that must be there.
    MissingField,
    /// A field of the wrong type, or a value that is not allowed.
    InvalidField,
    /// `notification` and `data` are too large for a push.
    PayloadTooLarge,
}

impl Request {
    /// Reads and checks a request body.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Request, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let audience = audience(fields.required("audience", "whom the push is for")?)?;
        let notification = fields.take("notification");
        let data = fields.take("data");
        let options = fields.take("options");
        fields.no_others(&["audience", "notification", "data", "options"])?;

        if notification.is_none() && data.is_none() {
            let detail = "the push says nothing: give it \"notification\", \"data\" or both".into();
            return Err(Invalid {
                fault: Fault::MissingField,
                field: Some(String::new()),
                detail,
            });
        }
        notification.map_or(Ok(()), check_notification)?;
        data.map_or(Ok(()), |data| Fields::of("/data", data).map(drop))?;
        let ttl_seconds = options.map_or(Ok(DEFAULT_TTL_SECONDS), ttl_seconds)?;
        let content = content(body);
        check_size(&content, limits)?;
        Ok(Request {
            audience,
            content,
            ttl_seconds,
        })
    }

    /// The write that accepts the push.
    pub fn accept(
        self,
        app: AppName,
        id: PushId,
        now_ms: u64,
        idempotency: Option<Idempotency>,
    ) -> Accept {
        Accept {
            app,
            id,
            accepted_ms: now_ms,
            expires_ms: self.expires_ms(now_ms),
            payload: payload::document(id, &self.content, now_ms),
            audience: self.audience,
            idempotency,
        }
    }

    /// When a push that is accepted then runs out, in Unix milliseconds.
    pub fn expires_ms(&self, accepted_ms: u64) -> u64 {
        accepted_ms.saturating_add(self.ttl_seconds * 1000)
    }
}

fn audience(value: &Node) -> Result<Audience, Invalid> {
    let mut fields = Fields::of("/audience", value)?;
    let all = fields.take("all");
    let devices = fields.take("devices");
    fields.no_others(&["all", "devices"])?;
    match (all, devices) {
        (Some(Node::Bool(true)), None) => Ok(Audience::All),
        (Some(_), None) => Err(invalid(
            "/audience/all",
            "\"all\" can only be true; name \"devices\" instead",
        )),
        (None, Some(devices)) => device_list(devices),
        (Some(_), Some(_)) => Err(invalid(
            "/audience",
            "both \"all\" and \"devices\": an audience is exactly one of them",
        )),
        (None, None) => Err(invalid(
            "/audience",
            "an audience is {\"all\": true} or {\"devices\": [..]}",
        )),
    }
}

fn device_list(value: &Node) -> Result<Audience, Invalid> {
    const AT: &str = "/audience/devices";
    let Node::List(items) = value else {
        return Err(wrong_kind(AT, "an array of client identifiers", value));
    };
    let mut seen = HashSet::new();
    let mut devices: Vec<Arc<str>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{AT}/{index}");
        let Node::Text(client_id) = item else {
            return Err(wrong_kind(
                &at,
                "a client identifier, which is a string",
                item,
            ));
        };
        check_client_id(&at, client_id)?;
        if seen.insert(client_id.as_str()) {
            devices.push(client_id.as_str().into());
        }
    }
    match devices.len() {
        0 => Err(invalid(AT, "the list is empty: name 1 to 1000 devices")),
        1..=MAX_DEVICES => Ok(Audience::Devices(devices)),
        many => Err(invalid(
            AT,
            format!(
                "{many} different devices: a push can name at most {MAX_DEVICES}; make several pushes"
            ),
        )),
    }
}

fn check_client_id(at: &str, client_id: &str) -> Result<(), Invalid> {
    if client_id.is_empty() {
        Err(invalid(
            at,
            "a client identifier is empty: it has 1 to 65535 bytes",
        ))
    } else if client_id.len() > MAX_CLIENT_ID_BYTES {
        let bytes = client_id.len();
        Err(invalid(
            at,
            format!("a client identifier of {bytes} bytes: it has 1 to {MAX_CLIENT_ID_BYTES}"),
        ))
    } else if client_id.contains('\0') {
        Err(invalid(
            at,
            "a client identifier contains U+0000, which MQTT does not allow",
        ))
    } else {
        Ok(())
    }
}

fn check_notification(value: &Node) -> Result<(), Invalid> {
    let mut fields = Fields::of("/notification", value)?;
    for name in ["title", "body", "image", "click_action"] {
        match fields.take(name) {
            None | Some(Node::Text(_)) => {}
            Some(other) => {
                return Err(wrong_kind(
                    &json::pointer_to("/notification", name),
                    "a string",
                    other,
                ));
            }
        }
    }
    Ok(())
}

fn ttl_seconds(options: &Node) -> Result<u64, Invalid> {
    let mut fields = Fields::of("/options", options)?;
    let ttl = fields.take("ttl");
    fields.no_others(&["ttl"])?;
    match ttl {
        None => Ok(DEFAULT_TTL_SECONDS),
        Some(Node::Whole(seconds)) if *seconds <= MAX_TTL_SECONDS => Ok(*seconds),
        Some(Node::Whole(_) | Node::Number) => Err(invalid(
            "/options/ttl",
            format!(
                "the time to live is a whole number of seconds from 0 to {MAX_TTL_SECONDS} (28 days)"
            ),
        )),
        Some(other) => Err(wrong_kind(
            "/options/ttl",
            "a whole number of seconds",
            other,
        )),
    }
}

/// The two objects' own text, from a body that is known to be valid.
fn content(body: &[u8]) -> Content {
    #[derive(Deserialize)]
    struct Parts<'b> {
        #[serde(borrow)]
        notification: Option<&'b RawValue>,
        #[serde(borrow)]
        data: Option<&'b RawValue>,
    }
    let parts: Parts<'_> = serde_json::from_slice(body).expect("the body was read before");
    let minified = |part: &RawValue| json::minified(part.get());
    Content {
        notification: parts.notification.map(minified),
        data: parts.data.map(minified),
    }
}

fn check_size(content: &Content, limits: &Limits) -> Result<(), Invalid> {
    let (bytes, limit) = (content.len(), limits.payload_bytes);
    if bytes <= limit {
        return Ok(());
    }
    let size = |part: &Option<String>| part.as_ref().map_or(0, String::len);
    let larger = if size(&content.notification) > size(&content.data) {
        "/notification"
    } else {
        "/data"
    };
    let detail = format!(
        "\"notification\" and \"data\" have {bytes} bytes without white space: the limit is {limit}; send a reference and let the device fetch the rest"
    );
    Err(Invalid {
        fault: Fault::PayloadTooLarge,
        field: Some(larger.into()),
        detail,
    })
}

/// The fields of an object that nobody has asked for yet.
pub(crate) struct Fields<'n> {
    at: &'static str,
    left: BTreeMap<&'n str, &'n Node>,
}

impl<'n> Fields<'n> {
    pub(crate) fn of(at: &'static str, value: &'n Node) -> Result<Fields<'n>, Invalid> {
        match value {
            Node::Object(fields) => Ok(Fields {
                at,
                left: fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value))
                    .collect(),
            }),
            other => Err(wrong_kind(at, "an object", other)),
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<&'n Node> {
        self.left.remove(name)
    }

    pub(crate) fn required(&mut self, name: &str, what: &str) -> Result<&'n Node, Invalid> {
        self.take(name).ok_or_else(|| Invalid {
            fault: Fault::MissingField,
            field: Some(json::pointer_to(self.at, name)),
            detail: format!("\"{name}\" is missing: {what}"),
        })
    }

    pub(crate) fn no_others(&self, known: &[&str]) -> Result<(), Invalid> {
        let Some(name) = self.left.keys().next() else {
            return Ok(());
        };
        Err(Invalid {
            fault: Fault::UnknownField,
            field: Some(json::pointer_to(self.at, name)),
            detail: format!(
                "there is no field {}; known here: {}",
                shown(name),
                known.join(", ")
            ),
        })
    }
}

pub(crate) fn invalid(at: &str, detail: impl Into<String>) -> Invalid {
    Invalid {
        fault: Fault::InvalidField,
        field: Some(at.into()),
        detail: detail.into(),
    }
}

pub(crate) fn wrong_kind(at: &str, expected: &str, found: &Node) -> Invalid {
    let subject = if at.is_empty() { "the body" } else { at };
    let hint = if matches!(found, Node::Null) {
        "; leave it out instead"
    } else {
        ""
    };
    invalid(
        at,
        format!("{subject} must be {expected}, not {}{hint}", found.kind()),
    )
}

/// A name from outside for a message: quoted, and cut where it is long.
pub(crate) fn shown(name: &str) -> String {
    const CHARACTERS: usize = 64;
    match name.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{:?}..", &name[..end]),
        None => format!("{name:?}"),
    }
}

impl From<json::Refused> for Invalid {
    fn from(refused: json::Refused) -> Invalid {
        match refused {
            json::Refused::Malformed {
                message,
                line,
                column,
            } => Invalid {
                fault: Fault::MalformedJson { line, column },
                field: None,
                detail: format!("the body is no JSON: {message} at line {line}, column {column}"),
            },
            json::Refused::Duplicate { pointer } => Invalid {
                fault: Fault::DuplicateField,
                field: Some(pointer),
                detail: "a field occurs twice in its object".into(),
            },
            json::Refused::TooDeep { pointer } => Invalid {
                fault: Fault::TooDeep,
                field: Some(pointer),
                detail: format!(
                    "more than {} objects and arrays within each other",
                    json::MAX_DEPTH
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests;
