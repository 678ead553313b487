//! Every answer that a test gets is compared with the document of the API.

use std::sync::OnceLock;

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::Answer;

/// The document, as a caller gets it.
pub async fn document(router: axum::Router) -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    if let Some(document) = DOCUMENT.get() {
        return document;
    }
    let request = axum::http::Request::get("/openapi.json");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let document = super::answer(router, request).await.json();
    DOCUMENT.get_or_init(|| document)
}

/// The operation that a request is for.
pub fn operation<'d>(document: &'d Value, method: &Method, path: &str) -> Option<&'d Value> {
    let method = method.as_str().to_lowercase();
    let paths = document["paths"].as_object().unwrap();
    let fits = |(template, _): &(&String, &Value)| fits(template, path);
    // With a verb before without one.
    let mut found: Vec<_> = paths.iter().filter(fits).collect();
    found.sort_by_key(|(template, _)| std::cmp::Reverse(template.len()));
    found.iter().find_map(|(_, methods)| methods.get(&method))
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        return match (wanted.next(), given.next()) {
            (None, None) => true,
            (Some(wanted), Some(given)) => match wanted.split_once('}') {
                Some((_, rest)) if given.len() > rest.len() && given.ends_with(rest) => continue,
                None if wanted == given => continue,
                _ => false,
            },
            _ => false,
        };
    }
}

/// Complains about an answer that the document does not tell of.
#[track_caller]
pub fn check(document: &Value, method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(document, method, path) else {
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status),
            "{method} {path} is answered, but not in the document: {answer:?}"
        );
        return;
    };
    let status = answer.status.as_u16().to_string();
    let told = operation["responses"].get(&status);
    let Some(told) = told else {
        panic!("{method} {path}: the document does not tell of {status}: {answer:?}");
    };
    let Some(contents) = told["content"].as_object() else {
        assert_eq!(answer.body, "", "{method} {path}");
        return;
    };
    let content_type = answer.header("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    let schema = contents.get(essence).map(|content| &content["schema"]);
    let Some(schema) = schema else {
        panic!("{method} {path}: the document does not tell of {status} with {content_type}");
    };
    if essence == "application/problem+json" {
        let code = answer.problem();
        let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
        assert!(
            codes.is_some_and(|codes| codes.contains(&code.as_str().into())),
            "{method} {path}: the document does not tell of {code}: add it with Operation::may"
        );
    } else if essence == "application/json" {
        conforms(
            document,
            schema,
            &answer.json(),
            &format!("{method} {path}"),
        );
    }
}

/// As much of JSON Schema as answers need: what must be there is, what is there is described, and kinds are right.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let referred = document.pointer(&reference[1..]).unwrap();
        // A reference may have company.
        let mut both = schema.clone();
        both.as_object_mut().unwrap().remove("$ref");
        conforms(document, referred, value, at);
        return conforms(document, &both, value, at);
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| match kind {
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    assert!(
        kinds.is_empty() || kinds.iter().any(|kind| is(kind)),
        "{at}: {value} is none of {kinds:?}"
    );
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(
                fields.contains_key(name.as_str().unwrap()),
                "{at}: {name} is missing in {value}"
            );
        }
        for (name, field) in fields {
            if let Some(schema) = schema["properties"].get(name) {
                conforms(document, schema, field, &format!("{at} .{name}"));
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], item, &format!("{at} []"));
    }
}
