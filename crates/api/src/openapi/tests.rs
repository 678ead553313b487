use std::collections::HashSet;

use super::*;
use crate::problem::Code;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    describe(crate::routes::all())
}

/// Each operation as `GET /path`, with what is said of it.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &'_ Value)| -> Vec<(String, String)> {
        let known = METHODS
            .iter()
            .filter(|method| methods.get(**method).is_some());
        known
            .map(|method| (method.to_string(), path.clone()))
            .collect()
    };
    let all = paths.iter().flat_map(of_path);
    all.map(|(method, path)| {
        let operation = &document["paths"][&path][&method];
        (format!("{} {path}", method.to_uppercase()), operation)
    })
    .collect()
}

fn references(value: &Value, found: &mut HashSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.insert(reference.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_schema_and_every_schema_is_referred_to() {
    let document = document();
    let mut used = HashSet::new();
    references(&document, &mut used);
    for reference in &used {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    for name in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(
            used.contains(&format!("#/components/schemas/{name}")),
            "nothing uses the schema {name}"
        );
        assert!(
            !name.ends_with(|last: char| last.is_ascii_digit()),
            "two types share the name of {name}: give one #[schemars(rename = \"..\")]"
        );
    }
}

#[test]
fn every_operation_says_what_it_is_and_answers() {
    let document = document();
    let mut ids = HashSet::new();
    for (name, operation) in operations(&document) {
        assert!(
            !operation["summary"].as_str().unwrap().is_empty(),
            "{name} has no summary"
        );
        assert!(
            ids.insert(operation["operationId"].clone()),
            "{name} shares its operationId"
        );
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2')),
            "{name} has no answer: Operation::answers(..)"
        );
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(
                parameter.get("$ref").is_some() || parameter.get("description").is_some(),
                "{name}: what is {}? Add it to openapi/parameters.rs",
                parameter["name"]
            );
        }
    }
}

#[test]
fn every_code_can_come_from_some_operation_or_from_the_router() {
    let document = document();
    let told = document["paths"].to_string();
    let of_the_router = [Code::MethodNotAllowed];
    for code in Code::ALL {
        assert!(
            told.contains(&format!("\"{}\"", code.text())) || of_the_router.contains(code),
            "no operation may be refused with {}: Operation::may(&[Code::{code:?}])",
            code.text()
        );
    }
}
