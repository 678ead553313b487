//! What is asked about API keys, in JSON.

use super::MAX_LABEL_BYTES;
use crate::{
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    registry::permission::{Permission, Permissions},
    request::Invalid,
};

/// Longest time that an old secret goes on to work: a week, in seconds.
pub const MAX_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;
/// That time where a rotation does not say: a day, in seconds.
pub const DEFAULT_GRACE_SECONDS: u64 = 24 * 60 * 60;

/// A key to be made: `{"label": "checkout server", "permissions": ["push:send", "read"]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// For people, at most [`MAX_LABEL_BYTES`].
    pub label: String,
    /// At least one.
    pub permissions: Permissions,
}

impl NewKey {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<NewKey, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let label = fields.text("label")?.unwrap_or_default().to_owned();
        let permissions = fields.required("permissions", "what the key may do")?;
        fields.no_others(&["label", "permissions"])?;
        if label.len() > MAX_LABEL_BYTES {
            let bytes = label.len();
            let detail = format!("a label of {bytes} bytes: it has at most {MAX_LABEL_BYTES}");
            return Err(invalid("/label", detail));
        }
        let permissions = read_permissions(permissions)?;
        Ok(NewKey { label, permissions })
    }
}

fn read_permissions(value: &Node) -> Result<Permissions, Invalid> {
    const AT: &str = "/permissions";
    let known = Permission::ALL.map(Permission::text).join(", ");
    let Node::List(items) = value else {
        return Err(wrong_kind(AT, "an array of permissions", value));
    };
    if items.is_empty() {
        let detail = format!("a key without a permission is of no use: give it some of {known}");
        return Err(invalid(AT, detail));
    }
    let permission = |(index, item): (usize, &Node)| {
        let at = format!("{AT}/{index}");
        match item {
            Node::Text(text) => Permission::parse(text).ok_or_else(|| {
                let text = crate::fields::shown(text);
                invalid(
                    &at,
                    format!("there is no permission {text}; there are {known}"),
                )
            }),
            other => Err(wrong_kind(&at, "a permission, which is a string", other)),
        }
    };
    items.iter().enumerate().map(permission).collect()
}

/// Reads the body of a rotation, `{"grace": seconds}` or nothing: for how many seconds the old secret goes on to work.
pub fn grace_seconds(body: &[u8]) -> Result<u64, Invalid> {
    if body.is_empty() {
        return Ok(DEFAULT_GRACE_SECONDS);
    }
    let document = json::read(body)?;
    let mut fields = Fields::of("", &document)?;
    let grace = fields.whole("grace", "a number of seconds", 0..=MAX_GRACE_SECONDS)?;
    fields.no_others(&["grace"])?;
    Ok(grace.unwrap_or(DEFAULT_GRACE_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Fault;

    #[test]
    fn a_key_has_a_label_and_permissions() {
        let key = NewKey::parse(br#"{"label": "x", "permissions": ["read", "push:send"]}"#);
        let permissions = [Permission::Read, Permission::PushSend]
            .into_iter()
            .collect();
        assert_eq!(
            key,
            Ok(NewKey {
                label: "x".into(),
                permissions
            })
        );
    }

    #[test]
    fn mistakes_have_a_place() {
        let long = format!(
            r#"{{"label": "{}", "permissions": ["read"]}}"#,
            "x".repeat(129)
        );
        for (body, fault, field) in [
            ("{}", Fault::MissingField, "/permissions"),
            (
                r#"{"permissions": []}"#,
                Fault::InvalidField,
                "/permissions",
            ),
            (
                r#"{"permissions": ["x"]}"#,
                Fault::InvalidField,
                "/permissions/0",
            ),
            (
                r#"{"permissions": [1]}"#,
                Fault::InvalidField,
                "/permissions/0",
            ),
            (
                r#"{"permissions": ["read"], "x": 1}"#,
                Fault::UnknownField,
                "/x",
            ),
            (&long, Fault::InvalidField, "/label"),
        ] {
            let invalid = NewKey::parse(body.as_bytes()).unwrap_err();
            assert_eq!(
                (invalid.fault, invalid.field.as_deref()),
                (fault, Some(field))
            );
        }
        assert_eq!(grace_seconds(b""), Ok(DEFAULT_GRACE_SECONDS));
        assert_eq!(grace_seconds(br#"{"grace": 0}"#), Ok(0));
        assert!(grace_seconds(br#"{"grace": 604801}"#).is_err());
    }
}
