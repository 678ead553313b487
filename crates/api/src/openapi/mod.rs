//! The API described by OpenAPI 3.1, from the code that serves it: `/openapi.json`, and a page of it, `/docs`.
//!
//! A resource has a function `routes()`, which gives each handler to [`Routes`] together with an [`Operation`]: what it needs, takes, answers
//! and is refused for. So a route that is not described cannot be served. Answers are described by their types
//! ([`operation::of`], with `#[derive(JsonSchema)]` beside `Serialize`); bodies are read by hand in `campanile-push`, so that [`schemas`]
//! tells of them by hand too, with the bounds of the code. The tests of the API compare every answer with the document
//! (`tests/common/conformance.rs`), and a fuzzer does with a real node.

mod operation;
mod parameters;
mod problems;
mod routes;
mod schemas;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};
use std::sync::OnceLock;

pub(crate) use self::{
    operation::{Content, Operation, named, of},
    problems::Shape,
    routes::Routes,
};

/// A reference to one of the document's schemas.
pub(crate) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The document's own routes.
pub(crate) fn routes() -> Routes {
    let document = Operation::new("getDocument", "This document").answers(
        200,
        "OpenAPI 3.1.",
        Content::Told(json!({"type": "object"})),
    );
    let html = Content::Other(
        "text/html",
        "A page without anything from elsewhere.",
        "<!doctype html>",
    );
    let page = Operation::new("getDocumentation", "This document, to be read").answers(
        200,
        "The page.",
        html,
    );
    Routes::of("Documentation", "What you are reading.")
        .get("/openapi.json", self::document, document)
        .get("/docs", self::page, page)
}

/// `GET /openapi.json`
async fn document() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| describe(crate::routes::all()).to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
}

/// `GET /docs`
async fn page() -> Response {
    // All that the page needs is in it, but for the document.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("page.html")).into_response()
}

/// Describes routes.
fn describe(routes: Routes) -> Value {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.meta_schema = None;
    settings.definitions_path = "/components/schemas".into();
    let mut generator = SchemaGenerator::new(settings);
    let (tags, paths) = routes.describe_all(&mut generator);
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".into(), problems::schema());
    for (name, schema) in schemas::all() {
        schemas.insert(name.into(), schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Campanile",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Pushes to devices, and what devices are known by.",
            "description": INTRODUCTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that serves this document."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters::shared(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `cmp_` and 43 characters. Operations name the permission that they need; `admin` allows everything."},
                "password": {"type": "http", "scheme": "basic", "description": "The app's name and an API key, as JPush has it."},
            },
        },
    })
}

/// What holds for all operations.
const INTRODUCTION: &str = "Requests and answers are JSON in UTF-8, times are RFC 3339 in UTC. Fields and parameters that are not listed are refused. \
Every refusal is a problem document; decide by its `code`. Lengths of text are bounded in bytes of UTF-8, which here can only be told as characters. \
Paths that no operation has answer `not_found`, other methods `method_not_allowed`. \
Operations that watch a node (`/healthz`, `/readyz`, `/metrics`, `/version`) may have a listener of their own.";

#[cfg(test)]
mod tests;
