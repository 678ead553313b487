//! What is asked about API keys, in JSON.

use super::{MAX_LABEL_BYTES, MAX_QUOTA, Quotas};
use crate::{
    app::AppName,
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    registry::permission::{Permission, Permissions},
    request::Invalid,
};

/// Longest time that an old secret goes on to work: a week, in seconds.
pub const MAX_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;
/// That time where a rotation does not say: a day, in seconds.
pub const DEFAULT_GRACE_SECONDS: u64 = 24 * 60 * 60;

/// Quotas by name.
const QUOTAS: [&str; 4] = [
    "devices",
    "connections",
    "pushes_per_second",
    "stored_bytes",
];

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
    let known = Permission::OF_APPS.map(Permission::text).join(", ");
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
            Node::Text(text) => of_apps(text).ok_or_else(|| {
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

fn of_apps(text: &str) -> Option<Permission> {
    Permission::parse(text).filter(|permission| Permission::OF_APPS.contains(permission))
}

/// A change of an app's quotas: `{"quotas": {"devices": 1000, "connections": null}}`. What is not named stays, `null` lifts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// Registered devices; 0: as many as there are.
    pub devices: Option<u64>,
    /// Connections at a time.
    pub connections: Option<u64>,
    /// Pushes a second.
    pub pushes_per_second: Option<u64>,
    /// Bytes of messages that are kept.
    pub stored_bytes: Option<u64>,
}

impl QuotaChange {
    /// Reads and checks the body of a change.
    pub fn parse(body: &[u8]) -> Result<QuotaChange, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let quotas = fields.required("quotas", "an object of quotas")?;
        fields.no_others(&["quotas"])?;
        QuotaChange::read(quotas)
    }

    fn read(value: &Node) -> Result<QuotaChange, Invalid> {
        let mut fields = Fields::of("/quotas", value)?;
        let mut quota = |name| match fields.take(name) {
            None => Ok(None),
            Some(Node::Null) => Ok(Some(0)),
            Some(Node::Whole(quota)) if (1..=MAX_QUOTA).contains(quota) => Ok(Some(*quota)),
            Some(_) => Err(invalid(
                &fields.at(name),
                format!(
                    "a quota is a whole number from 1 to {MAX_QUOTA}, or null: as much as there is"
                ),
            )),
        };
        let change = QuotaChange {
            devices: quota("devices")?,
            connections: quota("connections")?,
            pushes_per_second: quota("pushes_per_second")?,
            stored_bytes: quota("stored_bytes")?,
        };
        fields.no_others(&QUOTAS)?;
        Ok(change)
    }

    /// The quotas after it.
    pub fn apply(&self, quotas: &Quotas) -> Quotas {
        Quotas {
            devices: self.devices.unwrap_or(quotas.devices),
            connections: self.connections.unwrap_or(quotas.connections),
            pushes_per_second: self.pushes_per_second.unwrap_or(quotas.pushes_per_second),
            stored_bytes: self.stored_bytes.unwrap_or(quotas.stored_bytes),
        }
    }
}

/// An app to be made: `{"app": "shop", "quotas": {..}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApp {
    /// Its name.
    pub app: AppName,
    /// What it may use.
    pub quotas: Quotas,
}

impl NewApp {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<NewApp, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let name = fields.text("app")?.ok_or_else(|| Invalid {
            fault: crate::request::Fault::MissingField,
            field: Some("/app".into()),
            detail: "\"app\" is missing: the name of the app".into(),
        })?;
        let app = AppName::new(name).map_err(|bad| invalid("/app", bad.to_string()))?;
        let change = fields.take("quotas").map(QuotaChange::read).transpose()?;
        fields.no_others(&["app", "quotas"])?;
        let quotas = change.unwrap_or_default().apply(&Quotas::default());
        Ok(NewApp { app, quotas })
    }
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
        // Only on a node's machine.
        assert!(NewKey::parse(br#"{"permissions": ["operator"]}"#).is_err());
    }

    #[test]
    fn a_quota_that_is_not_named_stays_and_null_lifts() {
        let before = Quotas {
            devices: 5,
            connections: 6,
            ..Quotas::default()
        };
        let change =
            QuotaChange::parse(br#"{"quotas": {"devices": null, "pushes_per_second": 7}}"#);
        let after = Quotas {
            devices: 0,
            connections: 6,
            pushes_per_second: 7,
            stored_bytes: 0,
        };
        assert_eq!(change.unwrap().apply(&before), after);
        for (body, field) in [
            ("{}", "/quotas"),
            (r#"{"quotas": {"devices": 0}}"#, "/quotas/devices"),
            (r#"{"quotas": {"devices": 1.5}}"#, "/quotas/devices"),
            (r#"{"quotas": {"x": 1}}"#, "/quotas/x"),
        ] {
            let invalid = QuotaChange::parse(body.as_bytes()).unwrap_err();
            assert_eq!(invalid.field.as_deref(), Some(field));
        }
        assert!(NewApp::parse(br#"{"app": "Shop"}"#).is_err());
        let made = NewApp::parse(br#"{"app": "shop", "quotas": {"devices": 2}}"#).unwrap();
        assert_eq!((made.app.as_str(), made.quotas.devices), ("shop", 2));
    }
}
