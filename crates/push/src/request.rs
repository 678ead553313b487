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

pub mod batch;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::AppName,
    audience::Audience,
    fields::{Fields, wrong_kind},
    id::PushId,
    json::{self, Node},
    options::Options,
    payload::{self, Content},
    store::{self, Accept, Channel, Idempotency},
};

/// What a node may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `notification` and `data` together, minified.
    pub payload_bytes: usize,
    /// Whether `callback_url` may be `http`, which anybody on the way can read and forge.
    pub plain_callbacks: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            payload_bytes: 4096,
            plain_callbacks: false,
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
    /// How and when.
    pub options: Options,
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
    /// An expression that cannot be used.
    InvalidExpression {
        /// Of the expression, counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// `notification` and `data` are too large for a push.
    PayloadTooLarge,
}

impl Request {
    /// Reads and checks a request body.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Request, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let audience = Audience::read(fields.required("audience", "whom the push is for")?)?;
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
        let options = match options {
            None => Options::default(),
            Some(value) => {
                let options = Options::parse(value, limits)?;
                options.check_carried_out(value, &audience)?;
                options
            }
        };
        let content = content(body);
        check_size(&content, limits)?;
        Ok(Request {
            audience,
            content,
            options,
        })
    }

    /// The write that accepts the push, for what its audience was found to be: [`Audience::self_contained`], or what the store knows.
    pub fn accept(
        self,
        app: AppName,
        id: PushId,
        audience: store::Audience,
        now_ms: u64,
        idempotency: Option<Idempotency>,
    ) -> Accept {
        Accept {
            app,
            id,
            accepted_ms: now_ms,
            expires_ms: self.expires_ms(now_ms),
            payload: self.document(id, now_ms),
            audience,
            priority: self.options.priority,
            collapse_key: self.options.collapse_key,
            idempotency,
            rows: None,
            channel: Channel::In,
        }
    }

    pub(crate) fn document(&self, id: PushId, now_ms: u64) -> Bytes {
        let collapse_key = self.options.collapse_key.as_deref();
        payload::document(id, &self.content, collapse_key, now_ms)
    }

    /// When a push that is accepted then runs out, in Unix milliseconds.
    pub fn expires_ms(&self, accepted_ms: u64) -> u64 {
        accepted_ms.saturating_add(self.options.ttl_seconds * 1000)
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
    for platform in ["ios", "android", "web"] {
        match fields.take(platform) {
            None | Some(Node::Object(_)) => {}
            Some(other) => {
                let at = json::pointer_to("/notification", platform);
                return Err(wrong_kind(&at, "an object of overrides", other));
            }
        }
    }
    Ok(())
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
