//! Parameters: those of paths by their names, and the headers that several operations take.

use campanile_push::registry::webhooks::CALLBACKS;
use serde_json::{Value, json};

/// What can stand for `{name}` in a path; of several, the one whose segment before fits.
/// Segment before (empty: any), name, schema, description, example.
fn known() -> Vec<(
    &'static str,
    &'static str,
    Value,
    &'static str,
    &'static str,
)> {
    let text = |most: usize| json!({"type": "string", "minLength": 1, "maxLength": most});
    let ulid = || super::reference("Ulid");
    vec![
        (
            "",
            "app",
            super::reference("AppName"),
            "The app's name.",
            "default",
        ),
        (
            "pushes",
            "id",
            ulid(),
            "The push id.",
            "01KAR0M4G0ZJ9QX6T5V8C2N3B7",
        ),
        (
            "schedules",
            "id",
            ulid(),
            "The schedule's id.",
            "01KAR0M4G0ZJ9QX6T5V8C2N3B7",
        ),
        (
            "webhooks",
            "id",
            json!({"anyOf": [ulid(), {"const": CALLBACKS}]}),
            "The webhook's id; of dead letters `callbacks`, too: what callback addresses of pushes did not take.",
            "01KAR0M4G0ZJ9QX6T5V8C2N3B7",
        ),
        (
            "keys",
            "id",
            text(64),
            "The key's id, which is not the key itself.",
            "k_0123456789ab",
        ),
        (
            "device-keys",
            "kid",
            json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}),
            "The key's name, which tokens carry.",
            "2026-11",
        ),
        (
            "",
            "device",
            text(256),
            "The device's client identifier.",
            "phone-1",
        ),
        (
            "",
            "user",
            text(128),
            "The user, as your own servers name it.",
            "u1",
        ),
        ("", "tag", text(64), "The tag.", "vip"),
        ("", "topic", text(128), "The topic.", "news"),
        (
            "",
            "segment",
            json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
            "The segment's name.",
            "gold-on-ios",
        ),
        (
            "",
            "upload",
            text(64),
            "The upload's id.",
            "01KAR0M4G0ZJ9QX6T5V8C2N3B7",
        ),
    ]
}

/// The parameters that a path names. One that is not known is a plain string, which a test complains about.
pub(super) fn of_path(path: &str) -> Vec<Value> {
    let known = known();
    let segments: Vec<&str> = path.split('/').collect();
    let describe = |index: usize| {
        let name = segments[index].strip_prefix('{')?.split('}').next()?;
        let before = segments[index.checked_sub(1)?];
        let found = known
            .iter()
            .find(|(segment, known, ..)| *known == name && [before, ""].contains(segment));
        let mut parameter =
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        if let Some((_, _, schema, description, example)) = found {
            parameter["schema"] = schema.clone();
            parameter["description"] = (*description).into();
            parameter["example"] = (*example).into();
        }
        Some(parameter)
    };
    (0..segments.len()).filter_map(describe).collect()
}

/// Parameters that operations refer to by name.
pub(super) fn shared() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Your own name of this request: within 24 hours the same key with the same body gets the first answer again, with `Idempotent-Replayed: true`, and nothing happens twice.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            "example": "order-1234-shipped",
        }
    })
}
