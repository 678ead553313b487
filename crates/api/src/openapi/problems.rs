//! Refusals in the document: by status, with the codes that are possible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::problem::Code;

/// In whose words an operation refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Problem documents.
    Ours,
    /// Errors of FCM's HTTP v1.
    Fcm,
    /// Errors of JPush's Push API v3.
    Jpush,
}

/// The schema of a problem document: what `problem.rs` writes.
pub(super) fn schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.text()).collect();
    json!({
        "type": "object",
        "description": "A refusal (RFC 9457). Decide by `code`, which is never renamed; `detail` is for people.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "Where the code is described."},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": codes},
            "field": {"type": "string", "description": "JSON pointer (RFC 6901) to the field at fault; empty: the whole body."},
            "line": {"type": "integer", "minimum": 0, "description": "Of the body or the expression, from 1."},
            "column": {"type": "integer", "minimum": 0, "description": "Of the body in bytes, or of the expression in characters, from 1."},
        },
        "example": {
            "type": format!("{}invalid_field", crate::problem::DOCUMENTATION),
            "title": "A field has a value that is not allowed", "status": 400, "detail": "..", "code": "invalid_field", "field": "/options/ttl",
        },
    })
}

/// The answers that these codes make, by status.
pub(super) fn responses(codes: &BTreeSet<Code>, shape: Shape) -> BTreeMap<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let status = match shape {
            Shape::Ours => code.status().as_u16(),
            Shape::Fcm => {
                campanile_push::compat::fcm::problem(code.status().as_u16(), code.text(), "").0
            }
            Shape::Jpush => {
                campanile_push::compat::jpush::problem(code.status().as_u16(), code.text(), "").0
            }
        };
        by_status.entry(status).or_default().push(*code);
    }
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), response(&codes, shape)))
        .collect()
}

fn response(codes: &[Code], shape: Shape) -> Value {
    let meanings: Vec<String> = codes
        .iter()
        .map(|code| format!("`{}`: {}.", code.text(), code.title()))
        .collect();
    let (media_type, schema) = match shape {
        Shape::Ours => {
            let texts: Vec<&str> = codes.iter().map(|code| code.text()).collect();
            let one_of_these = json!({"type": "object", "properties": {"code": {"enum": texts}}});
            let schema = json!({"allOf": [super::reference("Problem"), one_of_these]});
            ("application/problem+json", schema)
        }
        Shape::Fcm => ("application/json", super::reference("FcmError")),
        Shape::Jpush => ("application/json", super::reference("JpushError")),
    };
    let mut response = json!({
        "description": meanings.join("\n"),
        "content": {media_type: {"schema": schema}},
    });
    // Each of the codes has them: they go with the status.
    for (name, code, description) in [
        (
            "Retry-After",
            Code::TooManyRequests,
            "Seconds after which to try again.",
        ),
        (
            "Retry-After",
            Code::StoreUnavailable,
            "Seconds after which to try again.",
        ),
        (
            "WWW-Authenticate",
            Code::KeyMissing,
            "What is expected in `Authorization`.",
        ),
    ] {
        if codes.iter().all(|one| one.status() == code.status()) {
            response["headers"][name] =
                json!({"description": description, "schema": {"type": "string"}});
        }
    }
    response
}
