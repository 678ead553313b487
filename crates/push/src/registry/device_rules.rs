//! What an app's devices may do beside getting their pushes: a setting of the app.
//!
//! It holds for devices that prove who they are with a token or a signed token. Other clients have the node's own access rules.

use prost::Message;

use super::{Context, Planned, Refusal, decode};
use crate::{
    app::AppName,
    device::names,
    fields::{Fields, invalid, shown, wrong_kind},
    json::{self, Node},
    request::Invalid,
    rows::{Key, Scope, Table},
    store::{Reader, Unavailable},
};

/// Patterns of one list.
pub const MAX_PATTERNS: usize = 32;
/// Bytes of a pattern.
pub const MAX_PATTERN_BYTES: usize = 256;
/// Tags that are named.
pub const MAX_TAGS: usize = 256;

/// Stands for the device's client identifier in a pattern.
pub const CLIENT: &str = "{client}";
/// Stands for the user that the device belongs to.
pub const USER: &str = "{user}";

/// The rules, as they are stored. An app that has set none has [`DeviceRules::default`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RulesRecord {
    #[prost(string, repeated, tag = "1")]
    publish: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    subscribe: Vec<String>,
    /// Only `tags` are theirs to set.
    #[prost(bool, tag = "3")]
    some_tags: bool,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
}

/// What an app's devices may do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceRules {
    /// Topic filters with [`CLIENT`] and [`USER`]: where they may publish.
    pub publish: Vec<String>,
    /// Where they may subscribe.
    pub subscribe: Vec<String>,
    /// Tags that they may set on themselves; `None`: all.
    pub tags: Option<Vec<String>>,
}

impl Default for DeviceRules {
    /// The topics of its user to read, nowhere to publish, all tags.
    fn default() -> DeviceRules {
        DeviceRules {
            publish: Vec::new(),
            subscribe: vec![format!("users/{USER}/#")],
            tags: None,
        }
    }
}

impl DeviceRules {
    /// Reads and checks a body: `{"publish": [..], "subscribe": [..], "tags": [..] | null}`. What is left out is as without a setting.
    pub fn parse(body: &[u8]) -> Result<DeviceRules, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let mut rules = DeviceRules::default();
        if let Some(node) = fields.take("publish") {
            rules.publish = texts("/publish", node, MAX_PATTERNS, check_pattern)?;
        }
        if let Some(node) = fields.take("subscribe") {
            rules.subscribe = texts("/subscribe", node, MAX_PATTERNS, check_pattern)?;
        }
        rules.tags = match fields.take("tags") {
            None | Some(Node::Null) => None,
            Some(node) => {
                let check = |tag: &str| names::TAG.check(tag).map_err(|bad| bad.to_string());
                Some(texts("/tags", node, MAX_TAGS, check)?)
            }
        };
        fields.no_others(&["publish", "subscribe", "tags"])?;
        Ok(rules)
    }

    /// Whether a device may give itself this tag, or take it off.
    pub fn may_tag(&self, tag: &str) -> bool {
        let named = self.tags.as_ref();
        named.is_none_or(|tags| tags.iter().any(|named| named == tag))
    }

    fn record(&self) -> RulesRecord {
        RulesRecord {
            publish: self.publish.clone(),
            subscribe: self.subscribe.clone(),
            some_tags: self.tags.is_some(),
            tags: self.tags.clone().unwrap_or_default(),
        }
    }
}

impl From<RulesRecord> for DeviceRules {
    fn from(record: RulesRecord) -> DeviceRules {
        DeviceRules {
            publish: record.publish,
            subscribe: record.subscribe,
            tags: record.some_tags.then_some(record.tags),
        }
    }
}

fn texts(
    at: &str,
    node: &Node,
    most: usize,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<String>, Invalid> {
    let Node::List(items) = node else {
        return Err(wrong_kind(at, "an array of strings", node));
    };
    if items.len() > most {
        let detail = format!("{} entries: at most {most}", items.len());
        return Err(invalid(at, detail));
    }
    let text = |(index, item): (usize, &Node)| {
        let at = format!("{at}/{index}");
        match item {
            Node::Text(text) => match check(text) {
                Ok(()) => Ok(text.clone()),
                Err(detail) => Err(invalid(&at, detail)),
            },
            other => Err(wrong_kind(&at, "a string", other)),
        }
    };
    items.iter().enumerate().map(text).collect()
}

/// A topic filter with placeholders. The server's own topics are not the app's to give.
fn check_pattern(pattern: &str) -> Result<(), String> {
    let wrong = |rule: &str| Err(format!("{}: {rule}", shown(pattern)));
    if !(1..=MAX_PATTERN_BYTES).contains(&pattern.len()) {
        return wrong("a topic filter of 1 to 256 bytes");
    }
    if pattern.chars().any(char::is_control) {
        return wrong("control characters are not allowed");
    }
    if pattern.starts_with('$') {
        return wrong("topics that begin with \"$\" belong to the server");
    }
    let bare = pattern.replace(CLIENT, "").replace(USER, "");
    if bare.contains(['{', '}', '%']) {
        return wrong(
            "\"{client}\" and \"{user}\" are the placeholders; other braces and \"%\" are not allowed",
        );
    }
    let levels: Vec<&str> = pattern.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || index + 1 < levels.len()) {
            return wrong("\"#\" must be the last level, alone");
        }
        if level.contains('+') && *level != "+" {
            return wrong("\"+\" must be a level of its own");
        }
    }
    if levels[0] == "push" {
        return wrong("topics below \"push\" are those of pushes, which every device has anyway");
    }
    Ok(())
}

/// Where the rules are.
pub fn row() -> Key {
    Key::new(Table::AppSetting, "devices")
}

/// Reads the rules of a row that is there or not.
pub fn of_row(row: Option<&crate::rows::Row>) -> Result<DeviceRules, Unavailable> {
    match row {
        None => Ok(DeviceRules::default()),
        Some(row) => Ok(decode::<RulesRecord>(&row.value, Table::AppSetting)?.into()),
    }
}

/// The rules of an app.
pub fn get(reader: &dyn Reader, app: &AppName, now_ms: u64) -> Result<DeviceRules, Unavailable> {
    let found = reader.rows_at(&Scope::App(app.clone()), &[row()], now_ms)?;
    of_row(found.first().and_then(Option::as_ref))
}

/// Sets the rules of an app.
pub fn put(
    context: &Context<'_>,
    app: &AppName,
    rules: &DeviceRules,
) -> Result<Planned<DeviceRules>, Refusal> {
    let scope = Scope::App(app.clone());
    let (_, version) = context.row(&scope, &row())?;
    let change = context
        .change(scope)
        .expect(row(), version)
        .put(row(), rules.record().encode_to_vec())
        .audit(context, app, "device_rules.set", "devices", "");
    Ok(Planned::change(change, rules.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::World;

    #[test]
    fn rules_are_set_and_read_back() {
        let mut world = World::default();
        let app = AppName::new("shop").unwrap();
        let read = |world: &World| world.read(|context| get(context.reader, &app, context.now_ms));
        assert_eq!(read(&world), DeviceRules::default());
        let body = br#"{"publish": ["devices/{client}/#"], "subscribe": [], "tags": ["beta"]}"#;
        let rules = DeviceRules::parse(body).unwrap();
        world.run(|context| put(context, &app, &rules)).unwrap();
        let found = read(&world);
        assert_eq!(found, rules);
        assert!(found.may_tag("beta") && !found.may_tag("vip"));
        assert!(DeviceRules::default().may_tag("vip"));
        let none = DeviceRules::parse(br#"{"tags": []}"#).unwrap();
        world.run(|context| put(context, &app, &none)).unwrap();
        assert!(!read(&world).may_tag("vip"));
    }

    #[test]
    fn patterns_are_topic_filters_of_the_app() {
        for good in [
            "a",
            "a/+/b",
            "#",
            "u/{user}/#",
            "x{client}y/{user}",
            "+/{client}",
        ] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        let long = "x".repeat(257);
        for bad in [
            "",
            "a#",
            "a/#/b",
            "a+/b",
            "$SYS/#",
            "{device}/x",
            "%c/x",
            "push/in",
            "push",
            &long,
            "a\0",
        ] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
        let wrong = DeviceRules::parse(br#"{"publish": ["a", "b#"]}"#).unwrap_err();
        assert_eq!(wrong.field.as_deref(), Some("/publish/1"));
    }
}
