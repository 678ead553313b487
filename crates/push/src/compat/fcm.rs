//! `POST /compat/fcm/v1/projects/{app}/messages:send`: the body of FCM's HTTP v1 API. Field names may be in `snake_case` or
//! `camelCase`, as in Google's JSON. `docs/compat.md` lists what is mapped.

use serde_json::{Value, json};

use super::{Mapped, Object, Reader, Violation, quoted};
use crate::id::PushId;

/// Topics in a condition, as FCM limits it.
pub const MAX_TOPICS: usize = 5;
/// Parentheses and negations within each other.
const MAX_DEPTH: usize = 16;

/// Maps a body.
pub fn map(body: &[u8], now_ms: u64) -> Result<Mapped, Vec<Violation>> {
    let body = snake_case(body);
    let (mut reader, mut root) = Reader::open(&body).map_err(|violation| vec![violation])?;
    let mut mapped = Mapped::default();
    match root.take("validate_only") {
        None => {}
        Some(Value::Bool(only)) => mapped.validate_only = only,
        Some(_) => reader.refuse("validate_only", "must be a boolean"),
    }
    match reader.object(&mut root, "message") {
        Some(message) => read_message(&mut reader, message, now_ms, &mut mapped),
        None => reader.refuse("message", "is missing"),
    }
    reader.close(root);
    reader.finish(mapped)
}

fn read_message(reader: &mut Reader, mut message: Object, now_ms: u64, mapped: &mut Mapped) {
    read_target(reader, &mut message, mapped);
    if let Some(mut notification) = reader.object(&mut message, "notification") {
        for name in ["title", "body", "image"] {
            if let Some(text) = reader.text(&mut notification, name) {
                mapped.notification.insert(name.into(), text.into());
            }
        }
        reader.close(notification);
    }
    read_data(reader, &mut message, mapped);
    if let Some(android) = reader.object(&mut message, "android") {
        read_android(reader, android, mapped);
    }
    if let Some(apns) = reader.object(&mut message, "apns") {
        read_apns(reader, apns, now_ms, mapped);
    }
    reader.close(message);
}

fn read_target(reader: &mut Reader, message: &mut Object, mapped: &mut Mapped) {
    let token = reader.text(message, "token");
    let topic = reader.text(message, "topic");
    let condition = reader.text(message, "condition");
    mapped.audience = match (token, topic, condition) {
        (Some(token), None, None) => json!({"devices": [token]}),
        (None, Some(topic), None) => {
            json!({"topic": topic.strip_prefix("/topics/").unwrap_or(&topic)})
        }
        (None, None, Some(condition)) => match expression(&condition) {
            Ok(expression) => json!({"expr": expression}),
            Err(fault) => return reader.refuse("message.condition", fault),
        },
        _ => return reader.refuse("message", "exactly one of token, topic and condition"),
    };
}

/// FCM's data holds nothing but strings, so that what arrives is what a device of FCM would get.
fn read_data(reader: &mut Reader, parent: &mut Object, mapped: &mut Mapped) {
    let Some(data) = reader.object(parent, "data") else {
        return;
    };
    if !mapped.data.is_empty() {
        return reader.refuse(
            data.path,
            "only one of message.data and message.android.data",
        );
    }
    for (name, value) in &data.left {
        if !value.is_string() {
            reader.refuse(data.path_of(name), "must be a string");
        }
    }
    mapped.data = data.left;
}

fn read_android(reader: &mut Reader, mut android: Object, mapped: &mut Mapped) {
    mapped.collapse_key = reader.text(&mut android, "collapse_key");
    mapped.priority = match reader.text(&mut android, "priority").as_deref() {
        None => None,
        Some("HIGH" | "high") => Some("high"),
        Some("NORMAL" | "normal") => Some("normal"),
        Some(_) => {
            reader.refuse("message.android.priority", "must be NORMAL or HIGH");
            None
        }
    };
    if let Some(ttl) = reader.text(&mut android, "ttl") {
        mapped.ttl_seconds = seconds(&ttl);
        if mapped.ttl_seconds.is_none() {
            reader.refuse("message.android.ttl", "must be seconds such as \"3.5s\"");
        }
    }
    read_data(reader, &mut android, mapped);
    if let Some(mut notification) = reader.object(&mut android, "notification") {
        if let Some(action) = reader.text(&mut notification, "click_action") {
            mapped
                .notification
                .insert("click_action".into(), action.into());
        }
        let mut own = serde_json::Map::new();
        for name in ["title", "body", "image"] {
            let text = reader.text(&mut notification, name);
            own.extend(text.map(|text| (name.to_owned(), text.into())));
        }
        if !own.is_empty() {
            mapped.notification.insert("android".into(), own.into());
        }
        reader.close(notification);
    }
    reader.close(android);
}

fn read_apns(reader: &mut Reader, mut apns: Object, now_ms: u64, mapped: &mut Mapped) {
    if let Some(mut headers) = reader.object(&mut apns, "headers") {
        let collapse = reader.text(&mut headers, "apns-collapse-id");
        let before = mapped.collapse_key.take();
        mapped.collapse_key =
            reader.agree(before, collapse, "message.apns.headers.apns-collapse-id");
        let priority = match reader.text(&mut headers, "apns-priority").as_deref() {
            None => None,
            Some("10") => Some("high"),
            Some("5") => Some("normal"),
            Some("1") => Some("low"),
            Some(_) => {
                reader.refuse("message.apns.headers.apns-priority", "must be 10, 5 or 1");
                None
            }
        };
        mapped.priority = reader.agree(
            mapped.priority,
            priority,
            "message.apns.headers.apns-priority",
        );
        let expiration = "message.apns.headers.apns-expiration";
        let ttl = match reader
            .text(&mut headers, "apns-expiration")
            .map(|t| t.parse::<u64>())
        {
            None => None,
            Some(Ok(at)) => Some(at.saturating_sub(now_ms / 1000)),
            Some(Err(_)) => {
                reader.refuse(expiration, "must be a time in Unix seconds, or 0");
                None
            }
        };
        mapped.ttl_seconds = reader.agree(mapped.ttl_seconds, ttl, expiration);
        reader.close(headers);
    }
    if let Some(mut payload) = reader.object(&mut apns, "payload") {
        if let Some(mut aps) = reader.object(&mut payload, "aps") {
            read_alert(reader, &mut aps, mapped);
            reader.close(aps);
        }
        reader.close(payload);
    }
    reader.close(apns);
}

fn read_alert(reader: &mut Reader, aps: &mut Object, mapped: &mut Mapped) {
    let mut own = serde_json::Map::new();
    match aps.left.get("alert") {
        Some(Value::String(_)) => {
            let body = reader.text(aps, "alert");
            own.extend(body.map(|body| ("body".to_owned(), body.into())));
        }
        _ => {
            if let Some(mut alert) = reader.object(aps, "alert") {
                for name in ["title", "body"] {
                    let text = reader.text(&mut alert, name);
                    own.extend(text.map(|text| (name.to_owned(), text.into())));
                }
                reader.close(alert);
            }
        }
    }
    if !own.is_empty() {
        mapped.notification.insert("ios".into(), own.into());
    }
}

/// Whole seconds of a duration such as `3.5s`, rounded up: nothing expires before its time.
fn seconds(text: &str) -> Option<u64> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let up = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    whole.parse::<u64>().ok()?.checked_add(up)
}

/// Names in `camelCase` as Google's JSON also allows them, in `snake_case`. What the sender names itself, in `data`, `headers` and `payload`, stays.
fn snake_case(body: &[u8]) -> Vec<u8> {
    fn rename(value: Value) -> Value {
        let Value::Object(fields) = value else {
            return value;
        };
        let renamed = fields.into_iter().map(|(name, value)| {
            let value = match name.as_str() {
                "data" | "headers" | "payload" => value,
                _ => rename(value),
            };
            let mut snake = String::new();
            for c in name.chars() {
                if c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            (snake, value)
        });
        Value::Object(renamed.collect())
    }
    // A body that repeats a name, or is no JSON, is left to the reader to refuse.
    if crate::json::read(body).is_err() {
        return body.to_vec();
    }
    match serde_json::from_slice(body) {
        Ok(value) => rename(value).to_string().into_bytes(),
        Err(_) => body.to_vec(),
    }
}

/// A condition such as `'a' in topics && !('b' in topics)`, in the audience language.
fn expression(condition: &str) -> Result<String, String> {
    let mut parser = Condition {
        rest: condition.trim_start(),
        topics: 0,
    };
    let expression = parser.any(0)?;
    match parser.rest {
        "" => Ok(expression),
        rest => Err(format!("{rest:?} is left over")),
    }
}

struct Condition<'c> {
    rest: &'c str,
    topics: usize,
}

impl Condition<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// FCM evaluates from left to right, whatever the operators: parentheses keep that.
    fn any(&mut self, depth: usize) -> Result<String, String> {
        let mut left = self.one(depth)?;
        let mut before = None;
        loop {
            let operator = match () {
                () if self.eat("&&") => "&&",
                () if self.eat("||") => "||",
                () => return Ok(left),
            };
            if before.is_some_and(|before| before != operator) {
                left = format!("({left})");
            }
            before = Some(operator);
            left = format!("{left} {operator} {}", self.one(depth)?);
        }
    }

    fn one(&mut self, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("too many parentheses".into());
        }
        if self.eat("!") {
            return Ok(format!("!{}", self.one(depth + 1)?));
        }
        if self.eat("(") {
            let inner = self.any(depth + 1)?;
            return match self.eat(")") {
                true => Ok(format!("({inner})")),
                false => Err("a \")\" is missing".into()),
            };
        }
        let quote = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => return Err(format!("'TOPIC' in topics is expected at {:?}", self.rest)),
        };
        let (topic, rest) = self.rest[1..]
            .split_once(quote)
            .ok_or("a quotation mark is missing")?;
        self.rest = rest.trim_start();
        if !(self.eat("in") && self.eat("topics")) {
            return Err(format!("\"in topics\" is expected after {topic:?}"));
        }
        self.topics += 1;
        match self.topics <= MAX_TOPICS {
            true => Ok(format!("topic:{}", quoted(topic))),
            false => Err(format!("a condition has at most {MAX_TOPICS} topics")),
        }
    }
}

/// The answer to a push that was accepted.
pub fn accepted(app: &str, id: PushId) -> String {
    json!({"name": format!("projects/{app}/messages/{id}")}).to_string()
}

/// The answer to a body that cannot be mapped: the HTTP status is 400.
pub fn refused(violations: &[Violation]) -> String {
    let fields: Vec<Value> = violations
        .iter()
        .map(|v| json!({"field": v.field, "description": v.description}))
        .collect();
    let message = match violations {
        [one] if !one.field.is_empty() => format!("{}: {}", one.field, one.description),
        [one] => one.description.clone(),
        _ => "Request contains invalid arguments.".into(),
    };
    json!({"error": {
        "code": 400,
        "message": message,
        "status": "INVALID_ARGUMENT",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields},
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
        ],
    }})
    .to_string()
}

/// One of our own problems in FCM's shape: the HTTP status and the body.
pub fn problem(status: u16, code: &str, detail: &str) -> (u16, String) {
    let (status, name, error) = match (status, code) {
        (_, "device_not_found") => (404, "NOT_FOUND", Some("UNREGISTERED")),
        (401, _) => (401, "UNAUTHENTICATED", None),
        (403, "wrong_app") => (403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH")),
        (403, _) => (403, "PERMISSION_DENIED", None),
        (404, _) => (404, "NOT_FOUND", None),
        (429, _) => (429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED")),
        (503, _) => (503, "UNAVAILABLE", Some("UNAVAILABLE")),
        (500.., _) => (500, "INTERNAL", Some("INTERNAL")),
        _ => (400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT")),
    };
    let details: Vec<Value> = error
        .map(|error| json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": error}))
        .into_iter()
        .collect();
    let error = json!({"code": status, "message": detail, "status": name, "details": details});
    (status, json!({"error": error}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let mapped = map(body.as_bytes(), 1_000_000).unwrap_or_else(|v| panic!("{body}: {v:?}"));
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&mapped.to_json()).unwrap(),
            expected
        );
    }

    #[track_caller]
    fn fields(body: &str) -> Vec<String> {
        let violations = map(body.as_bytes(), 0).expect_err(body);
        violations
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn realistic_messages() {
        check(
            r#"{"message":{"token":"bk3RNwTe3H0:CI2k","notification":{"title":"Portugal vs. Denmark","body":"great match!"},
                "data":{"Nick":"Mario","Room":"1"},"android":{"ttl":"3.5s","priority":"HIGH","collapse_key":"score",
                "notification":{"click_action":"OPEN","body":"short"}},"apns":{"headers":{"apns-priority":"10"},
                "payload":{"aps":{"alert":{"title":"T"}}}}}}"#,
            r#"{"audience":{"devices":["bk3RNwTe3H0:CI2k"]},
                "notification":{"title":"Portugal vs. Denmark","body":"great match!","click_action":"OPEN","android":{"body":"short"},"ios":{"title":"T"}},
                "data":{"Nick":"Mario","Room":"1"},"options":{"ttl":4,"collapse_key":"score","priority":"high"}}"#,
        );
        check(
            r#"{"validateOnly":false,"message":{"topic":"/topics/news","data":{"fooBar":"x"},"android":{"collapseKey":"k"},"webpush":null,
                "apns":{"headers":{"apns-expiration":"1060"}}}}"#,
            r#"{"audience":{"topic":"news"},"data":{"fooBar":"x"},"options":{"collapse_key":"k","ttl":60}}"#,
        );
        assert!(
            map(br#"{"message":{"token":"t"},"validate_only":true}"#, 0)
                .unwrap()
                .validate_only
        );
    }

    #[test]
    fn conditions_are_read_from_left_to_right() {
        for (condition, expected) in [
            ("'a' in topics", Ok("topic:\"a\"")),
            (
                "'a' in topics && !('b' in topics||\"c\" in topics)",
                Ok("topic:\"a\" && !(topic:\"b\" || topic:\"c\")"),
            ),
            (
                "'a' in topics || 'b' in topics && 'c' in topics",
                Ok("(topic:\"a\" || topic:\"b\") && topic:\"c\""),
            ),
            ("", Err(())),
            ("'a'", Err(())),
            ("'a' in topics &&", Err(())),
            ("('a' in topics", Err(())),
            ("a in topics", Err(())),
            ("'a in topics", Err(())),
        ] {
            assert_eq!(
                expression(condition).map_err(drop).as_deref(),
                expected.as_deref(),
                "{condition}"
            );
        }
        let six = ["'a' in topics"; 6].join(" || ");
        assert!(expression(&six).is_err());
        assert!(expression(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn what_is_not_mapped_is_refused_by_name() {
        assert_eq!(
            fields(
                r#"{"message":{"token":"t","topic":"x","data":{"n":1},"android":{"ttl":"1","direct_boot_ok":true,"notification":{"sound":"s"}},
                "webpush":{"headers":{}},"fcm_options":{"analytics_label":"l"}},"more":1}"#
            ),
            [
                "message",
                "message.data.n",
                "message.android.ttl",
                "message.android.notification.sound",
                "message.android.direct_boot_ok",
                "message.fcm_options",
                "message.webpush",
                "more",
            ]
        );
        assert_eq!(
            fields(
                r#"{"message":{"token":"t","android":{"priority":"NORMAL"},"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"badge":1}}}}}"#
            ),
            [
                "message.apns.headers.apns-priority",
                "message.apns.payload.aps.badge"
            ]
        );
        for body in [
            "",
            "[]",
            "{}",
            r#"{"message":7}"#,
            r#"{"message":{"token":"t","token":"t"}}"#,
        ] {
            assert!(map(body.as_bytes(), 0).is_err(), "{body}");
        }
    }

    #[test]
    fn answers_have_the_shape_of_fcm() {
        assert_eq!(
            accepted("shop", PushId(1)),
            r#"{"name":"projects/shop/messages/00000000000000000000000001"}"#
        );
        let body: Value = serde_json::from_str(&refused(
            &map(br#"{"message":{"token":1}}"#, 0).unwrap_err(),
        ))
        .unwrap();
        assert_eq!(body["error"]["status"], "INVALID_ARGUMENT");
        assert_eq!(
            body["error"]["details"][0]["fieldViolations"][0]["field"],
            "message.token"
        );
        for (status, code, expected, name) in [
            (404, "device_not_found", 404, "UNREGISTERED"),
            (429, "quota_exceeded", 429, "QUOTA_EXCEEDED"),
            (503, "store_unavailable", 503, "UNAVAILABLE"),
            (500, "internal", 500, "INTERNAL"),
            (403, "wrong_app", 403, "SENDER_ID_MISMATCH"),
            (413, "payload_too_large", 400, "INVALID_ARGUMENT"),
        ] {
            let (status, body) = problem(status, code, "why");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, expected);
            assert_eq!(body["error"]["details"][0]["errorCode"], name);
        }
        assert!(
            problem(401, "key_invalid", "why")
                .1
                .contains("UNAUTHENTICATED")
        );
    }
}
