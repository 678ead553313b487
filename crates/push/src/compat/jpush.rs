//! `POST /compat/jpush/v3/push`: the body of JPush's Push API v3. `docs/compat.md` lists what is mapped.

use serde_json::{Map, Value, json};

use super::{Mapped, Object, Reader, Violation, quoted};
use crate::id::PushId;

/// A push, and what its answer repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The push.
    pub mapped: Mapped,
    /// The caller's number for it; 0 if it gave none.
    pub sendno: u64,
}

/// Maps a body.
pub fn map(body: &[u8]) -> Result<Request, Vec<Violation>> {
    let (mut reader, mut root) = Reader::open(body).map_err(|violation| vec![violation])?;
    let mut mapped = Mapped::default();
    let platforms = read_platform(&mut reader, &mut root);
    read_audience(&mut reader, &mut root, platforms, &mut mapped);
    if let Some(notification) = reader.object(&mut root, "notification") {
        read_notification(&mut reader, notification, &mut mapped);
    }
    if let Some(message) = reader.object(&mut root, "message") {
        read_message(&mut reader, message, &mut mapped);
    }
    if mapped.notification.is_empty() && mapped.data.is_empty() && reader.violations.is_empty() {
        reader.refuse("notification", "is missing, and so is message");
    }
    let mut sendno = 0;
    if let Some(options) = reader.object(&mut root, "options") {
        sendno = read_options(&mut reader, options, &mut mapped);
    }
    mapped.idempotency_key = reader.text(&mut root, "cid");
    reader.close(root);
    reader.finish(Request { mapped, sendno })
}

/// The platforms that it is restricted to; none for all.
fn read_platform(reader: &mut Reader, root: &mut Object) -> Vec<String> {
    match root.left.get("platform") {
        None | Some(Value::Null) => {
            root.take("platform");
            reader.refuse("platform", "is missing");
        }
        Some(Value::String(all)) if all == "all" => drop(root.take("platform")),
        Some(_) => {
            let platforms = reader.texts(root, "platform").unwrap_or_default();
            for platform in &platforms {
                if !matches!(platform.as_str(), "android" | "ios") {
                    reader.refuse(
                        "platform",
                        format!("{} is not supported here", quoted(platform)),
                    );
                }
            }
            return platforms;
        }
    }
    Vec::new()
}

fn read_audience(
    reader: &mut Reader,
    root: &mut Object,
    platforms: Vec<String>,
    mapped: &mut Mapped,
) {
    let platform = any_of(&platforms, |platform| {
        format!("platform == {}", quoted(platform))
    });
    if root
        .left
        .get("audience")
        .is_some_and(|audience| audience == "all")
    {
        root.take("audience");
        mapped.audience = match platform {
            None => json!({"all": true}),
            Some(expression) => json!({"expr": expression}),
        };
        return;
    }
    let Some(mut audience) = reader.object(root, "audience") else {
        return reader.refuse("audience", "must be \"all\" or an object");
    };
    let tag = reader.texts(&mut audience, "tag");
    let tag_and = reader.texts(&mut audience, "tag_and");
    let tag_not = reader.texts(&mut audience, "tag_not");
    let alias = reader.texts(&mut audience, "alias");
    let devices = reader.texts(&mut audience, "registration_id");
    let segment = reader.texts(&mut audience, "segment");
    reader.close(audience);
    let tags = tag.is_some() || tag_and.is_some() || tag_not.is_some();
    let combined = platform.is_some() || tags;
    mapped.audience = match (devices, segment, alias) {
        (Some(_), _, _) | (None, Some(_), _) if combined => {
            return reader.refuse(
                "audience",
                "registration_id and segment cannot be combined with tags or a platform here",
            );
        }
        (Some(devices), None, None) => json!({"devices": devices}),
        (None, Some(segments), None) => match &segments[..] {
            [segment] => json!({"segment": segment}),
            _ => return reader.refuse("audience.segment", "only one segment is supported here"),
        },
        (None, None, Some(users)) if !combined => json!({"users": users}),
        (None, None, None) if tags && platform.is_none() => {
            let mut object = Map::new();
            for (name, list) in [("any", tag), ("all", tag_and), ("none", tag_not)] {
                object.extend(list.map(|list| (name.to_owned(), json!(list))));
            }
            json!({"tags": object})
        }
        (None, None, alias) if tags || alias.is_some() => {
            let name = |tag: &String| format!("tag:{}", quoted(tag));
            let mut parts: Vec<String> = Vec::new();
            parts.extend(tag.and_then(|tags| any_of(&tags, name)));
            parts.extend(tag_and.iter().flatten().map(name));
            parts.extend(
                tag_not
                    .iter()
                    .flatten()
                    .map(|tag| format!("!{}", name(tag))),
            );
            parts
                .extend(alias.and_then(|a| any_of(&a, |user| format!("user == {}", quoted(user)))));
            parts.extend(platform);
            json!({"expr": parts.join(" && ")})
        }
        (None, None, None) => return reader.refuse("audience", "names nobody"),
        _ => {
            return reader.refuse(
                "audience",
                "only one of registration_id, segment and alias is supported here",
            );
        }
    };
}

/// An alternative of tests, in parentheses if there are several.
fn any_of(names: &[String], test: impl Fn(&String) -> String) -> Option<String> {
    let tests: Vec<String> = names.iter().map(test).collect();
    match &tests[..] {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("({})", many.join(" || "))),
    }
}

fn read_notification(reader: &mut Reader, mut notification: Object, mapped: &mut Mapped) {
    if let Some(alert) = reader.text(&mut notification, "alert") {
        mapped.notification.insert("body".into(), alert.into());
    }
    for platform in ["android", "ios"] {
        let Some(mut object) = reader.object(&mut notification, platform) else {
            continue;
        };
        let mut own = Map::new();
        let alert = match object.left.get("alert") {
            Some(Value::Object(_)) if platform == "ios" => {
                if let Some(mut alert) = reader.object(&mut object, "alert") {
                    for name in ["title", "body"] {
                        let text = reader.text(&mut alert, name);
                        own.extend(text.map(|text| (name.to_owned(), text.into())));
                    }
                    reader.close(alert);
                }
                None
            }
            _ => reader.text(&mut object, "alert"),
        };
        own.extend(alert.map(|alert| ("body".to_owned(), alert.into())));
        if platform == "android" {
            let title = reader.text(&mut object, "title");
            own.extend(title.map(|title| ("title".to_owned(), title.into())));
        }
        read_extras(reader, &mut object, mapped);
        reader.close(object);
        if !own.is_empty() {
            mapped.notification.insert(platform.into(), own.into());
        }
    }
    reader.close(notification);
}

/// What goes along is one `data` for all: two that differ cannot be kept apart.
fn read_extras(reader: &mut Reader, parent: &mut Object, mapped: &mut Mapped) {
    let Some(extras) = reader.object(parent, "extras") else {
        return;
    };
    let before = (!mapped.data.is_empty()).then(|| mapped.data.clone());
    if let Some(data) = reader.agree(before, Some(extras.left), &extras.path) {
        mapped.data = data;
    }
}

fn read_message(reader: &mut Reader, mut message: Object, mapped: &mut Mapped) {
    let content = match message.take("msg_content") {
        Some(content @ (Value::String(_) | Value::Object(_))) => content,
        _ => return reader.refuse("message.msg_content", "must be a string or an object"),
    };
    let mut data = Map::new();
    data.insert("msg_content".into(), content);
    for name in ["title", "content_type"] {
        let text = reader.text(&mut message, name);
        data.extend(text.map(|text| (name.to_owned(), text.into())));
    }
    if let Some(extras) = reader.object(&mut message, "extras") {
        data.insert("extras".into(), Value::Object(extras.left));
    }
    reader.close(message);
    if !mapped.data.is_empty() {
        return reader.refuse(
            "message",
            "cannot be combined with the extras of a notification here",
        );
    }
    mapped.data = data;
}

fn read_options(reader: &mut Reader, mut options: Object, mapped: &mut Mapped) -> u64 {
    let sendno = reader.whole(&mut options, "sendno").unwrap_or(0);
    mapped.ttl_seconds = reader.whole(&mut options, "time_to_live");
    mapped.collapse_key = reader.text(&mut options, "apns_collapse_id");
    mapped.pace_over_seconds = match reader.whole(&mut options, "big_push_duration") {
        Some(0) | None => None,
        // JPush counts minutes and allows a day.
        Some(minutes @ 1..=1440) => Some(minutes * 60),
        Some(_) => {
            reader.refuse("options.big_push_duration", "must be 0 to 1440 minutes");
            None
        }
    };
    // Which of Apple's services to use says nothing about our own connection.
    match options.take("apns_production") {
        None | Some(Value::Bool(_)) => {}
        Some(_) => reader.refuse("options.apns_production", "must be a boolean"),
    }
    reader.close(options);
    sendno
}

/// The answer to a push that was accepted.
pub fn accepted(sendno: u64, id: PushId) -> String {
    json!({"sendno": sendno.to_string(), "msg_id": id.to_string()}).to_string()
}

/// The answer to a body that cannot be mapped: the HTTP status is 400.
pub fn refused(violations: &[Violation]) -> String {
    let missing = |violation: &&Violation| violation.description.starts_with("is missing");
    let code = match violations.iter().find(missing) {
        Some(_) => 1002,
        None => 1003,
    };
    let texts: Vec<String> = violations
        .iter()
        .map(|v| format!("{} {}", v.field, v.description).trim().to_owned())
        .collect();
    error(code, &texts.join("; "))
}

/// One of our own problems in JPush's shape: the HTTP status and the body.
pub fn problem(status: u16, code: &str, detail: &str) -> (u16, String) {
    let (status, number) = match (status, code) {
        (_, "device_not_found") => (400, 1011),
        (_, "missing_field") => (400, 1002),
        (401 | 403, _) => (401, 1004),
        (405, _) => (405, 1001),
        (413, _) => (400, 1005),
        (429, _) => (429, 2002),
        (503, _) => (503, 1030),
        (500.., _) => (500, 1000),
        _ => (400, 1003),
    };
    (status, error(number, detail))
}

fn error(code: u32, message: &str) -> String {
    json!({"error": {"code": code, "message": message}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let request = map(body.as_bytes()).unwrap_or_else(|v| panic!("{body}: {v:?}"));
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&request.mapped.to_json()).unwrap(),
            expected
        );
    }

    #[track_caller]
    fn fields(body: &str) -> Vec<String> {
        let violations = map(body.as_bytes()).expect_err(body);
        violations
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn realistic_pushes() {
        check(
            r#"{"cid":"8103a4c628a0b98974ec1949","platform":"all","audience":{"tag":["深圳","北京"],"tag_not":["muted"]},
                "notification":{"alert":"Hi","android":{"alert":"Hi, JPush!","title":"T","extras":{"newsid":321}},
                "ios":{"alert":{"title":"t","body":"b"},"extras":{"newsid":321}}},
                "options":{"time_to_live":60,"apns_production":false,"apns_collapse_id":"jiguang1","big_push_duration":10,"sendno":18}}"#,
            r#"{"audience":{"tags":{"any":["深圳","北京"],"none":["muted"]}},
                "notification":{"body":"Hi","android":{"body":"Hi, JPush!","title":"T"},"ios":{"title":"t","body":"b"}},
                "data":{"newsid":321},"options":{"ttl":60,"collapse_key":"jiguang1","pace":{"over":600}}}"#,
        );
        check(
            r#"{"platform":["android"],"audience":{"alias":["u1","u2"],"tag_and":["a\"b"]},
                "message":{"msg_content":"hello","title":"m","content_type":"text","extras":{"k":"v"}}}"#,
            r#"{"audience":{"expr":"tag:\"a\\\"b\" && (user == \"u1\" || user == \"u2\") && platform == \"android\""},
                "data":{"msg_content":"hello","title":"m","content_type":"text","extras":{"k":"v"}}}"#,
        );
        for (audience, expected) in [
            (r#""all""#, r#"{"all":true}"#),
            (
                r#"{"registration_id":["4312kjklfds2"]}"#,
                r#"{"devices":["4312kjklfds2"]}"#,
            ),
            (r#"{"alias":["u"]}"#, r#"{"users":["u"]}"#),
            (r#"{"segment":["s"]}"#, r#"{"segment":"s"}"#),
        ] {
            check(
                &format!(
                    r#"{{"platform":"all","audience":{audience},"notification":{{"alert":"x"}}}}"#
                ),
                &format!(r#"{{"audience":{expected},"notification":{{"body":"x"}}}}"#),
            );
        }
    }

    #[test]
    fn what_is_not_mapped_is_refused_by_name() {
        assert_eq!(
            fields(
                r#"{"platform":["quickapp"],"audience":{"tag":["a"],"abtest":["b"]},"notification":{"alert":"x","ios":{"badge":"+1"},"voip":{}},
                "options":{"override_msg_id":1,"big_push_duration":1441},"sms_message":{},"callback":{}}"#
            ),
            [
                "platform",
                "audience.abtest",
                "notification.ios.badge",
                "notification.voip",
                "options.big_push_duration",
                "options.override_msg_id",
                "callback",
                "sms_message",
            ]
        );
        let with = |audience: &str| {
            fields(&format!(
                r#"{{"platform":"all","audience":{audience},"notification":{{"alert":"x"}}}}"#
            ))
        };
        for audience in [
            r#""ALL""#,
            "{}",
            r#"{"registration_id":["r"],"tag":["t"]}"#,
            r#"{"registration_id":["r"],"alias":["a"]}"#,
            r#"{"segment":["a"],"registration_id":["r"]}"#,
        ] {
            assert_eq!(with(audience).last().unwrap(), "audience", "{audience}");
        }
        assert_eq!(with(r#"{"tag":[]}"#)[0], "audience.tag");
        assert_eq!(
            fields(r#"{"audience":"all","notification":{"alert":"x"}}"#),
            ["platform"]
        );
        assert_eq!(
            fields(r#"{"platform":"all","audience":"all"}"#),
            ["notification"]
        );
        for body in [
            "",
            "[]",
            "{}",
            r#"{"platform":null,"audience":"all","notification":{"alert":"x"}}"#,
        ] {
            assert!(map(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn answers_have_the_shape_of_jpush() {
        assert_eq!(
            accepted(18, PushId(1)),
            r#"{"msg_id":"00000000000000000000000001","sendno":"18"}"#
        );
        let violations = map(br#"{"platform":"all","audience":"all"}"#).unwrap_err();
        assert_eq!(
            refused(&violations),
            r#"{"error":{"code":1002,"message":"notification is missing, and so is message"}}"#
        );
        for (status, code, expected) in [
            (401, "key_invalid", (401, 1004)),
            (404, "device_not_found", (400, 1011)),
            (413, "payload_too_large", (400, 1005)),
            (429, "quota_exceeded", (429, 2002)),
            (503, "store_unavailable", (503, 1030)),
            (500, "internal", (500, 1000)),
            (400, "invalid_field", (400, 1003)),
        ] {
            let (status, body) = problem(status, code, "why");
            assert_eq!((status, body), (expected.0, error(expected.1, "why")));
        }
    }
}
