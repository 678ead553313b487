//! The document that a device gets on `push/in`.

use bytes::Bytes;

use crate::{id::PushId, time::rfc3339};

/// What a push says: two JSON objects, at least one of them, as minified text. The text is the caller's, so that numbers and
/// the order of keys arrive as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What the device may show: `title`, `body`, `image`, `click_action` and whatever else the app understands.
    pub notification: Option<String>,
    /// What the app on the device works with.
    pub data: Option<String>,
}

impl Content {
    /// The size that counts against the limit: both objects, minified, in bytes of UTF-8.
    pub fn len(&self) -> usize {
        [&self.notification, &self.data]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum()
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.notification.is_none() && self.data.is_none()
    }
}

/// The device's document: `{"id": .., "notification": {..}?, "data": {..}?, "collapse_key": ..?, "sent_at": RFC 3339}`.
pub fn document(id: PushId, content: &Content, collapse_key: Option<&str>, sent_ms: u64) -> Bytes {
    let mut text = String::with_capacity(content.len() + 128);
    text.push_str("{\"id\":\"");
    text.push_str(&id.to_string());
    text.push('"');
    for (name, object) in [
        ("notification", &content.notification),
        ("data", &content.data),
    ] {
        if let Some(object) = object {
            text.push_str(",\"");
            text.push_str(name);
            text.push_str("\":");
            text.push_str(object);
        }
    }
    if let Some(key) = collapse_key {
        text.push_str(",\"collapse_key\":");
        text.push_str(&serde_json::Value::from(key).to_string());
    }
    text.push_str(",\"sent_at\":\"");
    text.push_str(&rfc3339(sent_ms));
    text.push_str("\"}");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        notification: Option<&str>,
        data: Option<&str>,
        collapse_key: Option<&str>,
        expected: &str,
    ) {
        let content = Content {
            notification: notification.map(Into::into),
            data: data.map(Into::into),
        };
        assert_eq!(document(PushId(1), &content, collapse_key, 0), expected);
    }

    #[test]
    fn absent_parts_are_left_out() {
        let id = r#""id":"00000000000000000000000001""#;
        let sent = r#""sent_at":"1970-01-01T00:00:00.000Z""#;
        check(
            Some(r#"{"title":"é"}"#),
            None,
            None,
            &format!(r#"{{{id},"notification":{{"title":"é"}},{sent}}}"#),
        );
        check(
            None,
            Some(r#"{"n":1e3}"#),
            Some("a\"b"),
            &format!(r#"{{{id},"data":{{"n":1e3}},"collapse_key":"a\"b",{sent}}}"#),
        );
        check(
            Some("{}"),
            Some("{}"),
            None,
            &format!(r#"{{{id},"notification":{{}},"data":{{}},{sent}}}"#),
        );
    }
}
