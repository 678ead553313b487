//! Refusals, as RFC 9457 problem documents.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use campanile_push::{
    device::Damaged,
    registry::Refusal,
    request::{Fault, Invalid},
    store::Unavailable,
};
use serde::Serialize;

/// Where a problem's `type` leads to: the page that describes the codes.
pub(crate) const DOCUMENTATION: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/api.md#");
/// Seconds after which a caller should try again what may work then.
const RETRY_AFTER_SECONDS: &str = "2";

/// The same where something has to run out first.
const RETRY_STORED_AFTER_SECONDS: &str = "60";

/// Declares the codes: variant, text, status, title.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// What is wrong with a request, or with us. The texts are part of the API: they are never renamed, and a new
        /// situation gets a new code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$code),*];

            /// The code as callers see it.
            pub fn text(self) -> &'static str {
                match self { $(Code::$code => $text),* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$code => StatusCode::$status),* }
            }

            /// A short summary that does not change from case to case.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title),* }
            }
        }
    };
}

codes! {
    /// The body is not JSON in UTF-8. The members `line` and `column` say where.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not valid JSON";
    /// A name occurs twice in an object of the body.
    DuplicateField = "duplicate_field", BAD_REQUEST, "A field occurs twice";
    /// The body nests objects and arrays too deeply.
    TooDeep = "too_deep", BAD_REQUEST, "The body nests too deeply";
    /// The body has a field that does not exist.
    UnknownField = "unknown_field", BAD_REQUEST, "There is no such field";
    /// The body lacks a field.
    MissingField = "missing_field", BAD_REQUEST, "A field is missing";
    /// A field has the wrong type or a value that is not allowed.
    InvalidField = "invalid_field", BAD_REQUEST, "A field has a value that is not allowed";
    /// An audience expression does not parse. The members `line` and `column` say where in it.
    InvalidExpression = "invalid_expression", BAD_REQUEST, "The expression does not parse";
    /// The push id in the path is not one.
    InvalidPushId = "invalid_push_id", BAD_REQUEST, "Not a push id";
    /// The `Idempotency-Key` header is not 1 to 255 visible ASCII characters, or is there twice.
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST, "Not an idempotency key";
    /// A parameter of the query is unknown, occurs twice, or has a value that is not allowed.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter has a value that is not allowed";
    /// The body broke off before its end.
    IncompleteBody = "incomplete_body", BAD_REQUEST, "The body broke off";
    /// No API key came with the request.
    KeyMissing = "key_missing", UNAUTHORIZED, "An API key is needed";
    /// The API key is not one of ours, or no longer.
    KeyInvalid = "key_invalid", UNAUTHORIZED, "The API key is not valid";
    /// The API key belongs to another app than the path names.
    WrongApp = "wrong_app", FORBIDDEN, "The API key is for another app";
    /// The app of the key or of the path is being deleted.
    AppLeaving = "app_leaving", CONFLICT, "The app is being deleted";
    /// The API key may not do this.
    NotPermitted = "not_permitted", FORBIDDEN, "The API key may not do this";
    /// Nothing is at this path.
    NotFound = "not_found", NOT_FOUND, "There is nothing at this path";
    /// The app has no push of that id, or its report is no longer kept.
    PushNotFound = "push_not_found", NOT_FOUND, "There is no such push";
    /// The path exists, but not for this method; the `Allow` header lists those it is for.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The body took too long to arrive.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "The body took too long to arrive";
    /// The body is larger than the node takes.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// `notification` and `data` together are larger than a push may be.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The push is too large";
    /// The body's `Content-Type` is not `application/json`, or it has a `Content-Encoding`.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be plain JSON";
    /// What the path or the body names is not there.
    Missing = "missing", NOT_FOUND, "There is no such thing";
    /// What shall be made is there already.
    Exists = "exists", CONFLICT, "It is there already";
    /// It does not go with what is there.
    Clash = "clash", CONFLICT, "It does not go with what is there";
    /// The push is no campaign: it went out at once, and cannot be paused.
    NotACampaign = "not_a_campaign", CONFLICT, "The push is no campaign";
    /// The push ended: cancelled, collapsed, or its time is up.
    PushOver = "push_over", CONFLICT, "The push is over";
    /// The app has as many things of the kind as it may have.
    QuotaReached = "quota_reached", CONFLICT, "A quota is reached";
    /// The idempotency key was used for a request with another body within the last 24 hours.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// More requests of this kind come than the node answers. Try again after `Retry-After`.
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "Too many requests";
    /// The app makes more pushes a second than its quota allows. Try again after `Retry-After`.
    PushRateExceeded = "push_rate_exceeded", TOO_MANY_REQUESTS, "The app makes too many pushes a second";
    /// The app keeps as many bytes of messages as its quota allows. Try again when some have run out.
    StoredBytesExceeded = "stored_bytes_exceeded", TOO_MANY_REQUESTS, "The app keeps too much";
    /// A bug on our side; the node's log has more.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
    /// The store cannot be reached or is overloaded. Nothing happened; try again after `Retry-After`.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The store is unavailable";
    /// No node takes devices now. Try again after `Retry-After`.
    NoNode = "no_node", SERVICE_UNAVAILABLE, "No node takes devices now";
    /// The store did not answer in time: the push may or may not have been accepted. Repeat with the same idempotency key.
    OutcomeUnknown = "outcome_unknown", SERVICE_UNAVAILABLE, "Whether it happened is not known";
}

/// A refusal on its way to the caller.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    field: Option<String>,
    place: Option<(usize, usize)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The document's members.
#[derive(Serialize)]
struct Document<'p> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'p str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Problem {
    /// A problem of this kind; `detail` says what is wrong this time, to people.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        let problem = Problem {
            code,
            detail: detail.into(),
            field: None,
            place: None,
            headers: Vec::new(),
        };
        match code {
            Code::KeyMissing => {
                problem.with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"campanile\"")
            }
            Code::KeyInvalid => problem.with_header(
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"campanile\", error=\"invalid_token\"",
            ),
            Code::StoreUnavailable
            | Code::OutcomeUnknown
            | Code::NoNode
            | Code::TooManyRequests
            | Code::PushRateExceeded => {
                problem.with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            Code::StoredBytesExceeded => {
                problem.with_header(header::RETRY_AFTER, RETRY_STORED_AFTER_SECONDS)
            }
            // What is left of the body would be taken for the next request.
            Code::BodyTimeout | Code::BodyTooLarge | Code::IncompleteBody => {
                problem.with_header(header::CONNECTION, "close")
            }
            _ => problem,
        }
    }

    /// The store is down or overloaded; nothing happened.
    pub fn store_unavailable(why: &Unavailable) -> Problem {
        Problem::new(
            Code::StoreUnavailable,
            format!("{why}; nothing happened, try again"),
        )
    }

    /// A bug of ours.
    pub fn internal(what: &str) -> Problem {
        Problem::new(Code::Internal, what)
    }

    /// Headers that go with it.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// What is wrong this time, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// JSON pointer to the field at fault, if there is one.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    fn with_header(mut self, name: HeaderName, value: &'static str) -> Problem {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let code = match &refusal {
            Refusal::Missing { .. } => Code::Missing,
            Refusal::Exists { .. } => Code::Exists,
            Refusal::Clash(_) => Code::Clash,
            Refusal::Leaving { .. } => Code::AppLeaving,
            Refusal::Full { .. } => Code::QuotaReached,
            Refusal::Contended => Code::StoreUnavailable,
            Refusal::Invalid(invalid) => return invalid.clone().into(),
            Refusal::Unavailable(why) => return Problem::store_unavailable(why),
        };
        Problem::new(code, refusal.to_string())
    }
}

impl From<Damaged> for Problem {
    fn from(damaged: Damaged) -> Problem {
        Problem::internal(&damaged.to_string())
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        let (code, place) = match invalid.fault {
            Fault::MalformedJson { line, column } => (Code::MalformedJson, Some((line, column))),
            Fault::DuplicateField => (Code::DuplicateField, None),
            Fault::TooDeep => (Code::TooDeep, None),
            Fault::UnknownField => (Code::UnknownField, None),
            Fault::MissingField => (Code::MissingField, None),
            Fault::InvalidExpression { line, column } => {
                (Code::InvalidExpression, Some((line, column)))
            }
            Fault::InvalidField => (Code::InvalidField, None),
            Fault::PayloadTooLarge => (Code::PayloadTooLarge, None),
        };
        Problem {
            field: invalid.field,
            place,
            ..Problem::new(code, invalid.detail)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("{DOCUMENTATION}{}", self.code.text()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.text(),
            field: self.field.as_deref(),
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
        };
        let body =
            serde_json::to_vec(&document).expect("strings and numbers can be written as JSON");
        let mut response = (
            self.code.status(),
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_all_documented() {
        let documentation = include_str!("../../../docs/api.md");
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.text()), "{code:?} shares its text");
            let row = format!("### {}\n\n{}. ", code.text(), code.status().as_u16());
            assert!(
                documentation.contains(&row),
                "docs/api.md lacks a section that begins with {row:?}"
            );
        }
        let sections = documentation
            .lines()
            .filter(|line| line.starts_with("### "))
            .count();
        assert_eq!(
            sections,
            Code::ALL.len(),
            "docs/api.md describes a code that does not exist"
        );
    }
}
