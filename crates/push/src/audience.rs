//! Whom a push is for, as an app server asks for it: exactly one of
//!
//! ```json
//! {"all": true}
//! {"devices": ["d1", "d2"]}
//! {"users": ["u1"]}
//! {"topic": "news"}
//! {"tags": {"any": ["vip", "beta"], "all": ["de"], "none": ["muted"]}}
//! {"expr": "vip && platform == \"ios\""}
//! {"segment": "s1"}
//! {"upload": "u7"}
//! ```

use std::{collections::HashSet, sync::Arc};

use crate::{
    device::names::{self, BadName, Rule},
    expression::{Expression, SyntaxError, Term},
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    request::{Fault, Invalid},
    store,
    targeting::Targeting,
};

/// Different devices that one push may name.
pub const MAX_DEVICES: usize = 1000;
/// Different users that one push may name.
pub const MAX_USERS: usize = 1000;
/// Bytes of the client identifier of a device that is named, as MQTT limits it: it need not be a registered one.
pub const MAX_CLIENT_ID_BYTES: usize = 65_535;

/// Whom a push is for, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every device.
    All,
    /// These devices, 1..=1000 different client identifiers.
    Devices(Vec<Arc<str>>),
    /// All devices of these users, 1..=1000 different ones.
    Users(Vec<Arc<str>>),
    /// The devices that match: by an expression, or by the `tags` or the `topic` that stand for one.
    Matching(Expression),
    /// The devices that match the expression that is saved under this name.
    Segment(Arc<str>),
    /// The devices of the list that was uploaded under this name.
    Upload(Arc<str>),
}

const KINDS: [&str; 8] = [
    "all", "devices", "users", "topic", "tags", "expr", "segment", "upload",
];

impl Audience {
    /// Reads the field `audience` of a request.
    pub(crate) fn read(value: &Node) -> Result<Audience, Invalid> {
        let mut fields = Fields::of("/audience", value)?;
        let given: Vec<(&str, &Node)> = KINDS
            .into_iter()
            .filter_map(|kind| Some((kind, fields.take(kind)?)))
            .collect();
        fields.no_others(&KINDS)?;
        match given[..] {
            [(kind, node)] => Audience::of(kind, node),
            [] => Err(invalid(
                "/audience",
                "the audience is empty: {\"all\": true} is for every device, {\"devices\": [..]}, \"users\", \"topic\", \"tags\", \"expr\", \"segment\" and \"upload\" for some",
            )),
            [(first, _), (second, _), ..] => Err(invalid(
                "/audience",
                format!(
                    "both \"{first}\" and \"{second}\": an audience is exactly one of {}; \"expr\" can combine",
                    KINDS.join(", ")
                ),
            )),
        }
    }

    fn of(kind: &str, node: &Node) -> Result<Audience, Invalid> {
        let at = json::pointer_to("/audience", kind);
        match kind {
            "all" if *node == Node::Bool(true) => Ok(Audience::All),
            "all" => Err(invalid(
                &at,
                "\"all\" can only be true; name \"devices\" instead",
            )),
            "devices" => {
                const WHAT: &str = "client identifier";
                list(&at, node, WHAT, MAX_DEVICES, TOO_MANY, check_client_id).map(Audience::Devices)
            }
            "users" => {
                let check = |at: &str, user: &str| checked(at, &names::USER, user);
                list(&at, node, "user", MAX_USERS, TOO_MANY, check).map(Audience::Users)
            }
            "topic" => Ok(Audience::Matching(Expression::topic(name(
                &at,
                node,
                &names::TOPIC,
            )?))),
            "tags" => tags(node).map(Audience::Matching),
            "expr" => expression(&at, node).map(Audience::Matching),
            "segment" => Ok(Audience::Segment(name(&at, node, &names::SEGMENT)?.into())),
            // The last of `KINDS`.
            _ => Ok(Audience::Upload(name(&at, node, &names::UPLOAD)?.into())),
        }
    }

    /// What it means to the store, of a push that was made then; `None` if that takes a look at users, segments or uploads.
    pub fn self_contained(&self, pushed_ms: u64) -> Option<store::Audience> {
        match self {
            Audience::All => Some(store::Audience::All),
            Audience::Devices(devices) => Some(store::Audience::Devices(devices.clone())),
            Audience::Matching(expression) => {
                let targeting = Targeting {
                    expression: Some(expression.clone()),
                    ..Targeting::everyone(pushed_ms)
                };
                Some(store::Audience::Matching(targeting.encode().into()))
            }
            Audience::Users(_) | Audience::Segment(_) | Audience::Upload(_) => None,
        }
    }
}

/// What to do about a list of a push that is too long.
const TOO_MANY: &str = "make several pushes, or upload a list";

/// Different strings, in the order in which they come.
pub(crate) fn list(
    at: &str,
    value: &Node,
    what: &str,
    most: usize,
    too_many: &str,
    check: impl Fn(&str, &str) -> Result<(), Invalid>,
) -> Result<Vec<Arc<str>>, Invalid> {
    let Node::List(items) = value else {
        return Err(wrong_kind(at, &format!("an array of {what}s"), value));
    };
    let mut seen = HashSet::new();
    let mut different: Vec<Arc<str>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}/{index}");
        let Node::Text(text) = item else {
            return Err(wrong_kind(
                &at,
                &format!("a {what}, which is a string"),
                item,
            ));
        };
        check(&at, text)?;
        if seen.insert(text.as_str()) {
            different.push(text.as_str().into());
        }
    }
    match different.len() {
        0 => Err(invalid(
            at,
            format!("the list is empty: name 1 to {most} {what}s"),
        )),
        many if many > most => Err(invalid(
            at,
            format!("{many} different {what}s: at most {most} at a time; {too_many}"),
        )),
        _ => Ok(different),
    }
}

fn check_client_id(at: &str, client_id: &str) -> Result<(), Invalid> {
    let bytes = client_id.len();
    if bytes == 0 || bytes > MAX_CLIENT_ID_BYTES {
        Err(invalid(
            at,
            format!("a client identifier of {bytes} bytes: it has 1 to {MAX_CLIENT_ID_BYTES}"),
        ))
    } else if client_id.contains('\0') {
        Err(invalid(
            at,
            "a client identifier contains U+0000, which MQTT does not allow",
        ))
    } else {
        Ok(())
    }
}

fn tags(node: &Node) -> Result<Expression, Invalid> {
    const AT: &str = "/audience/tags";
    const LISTS: [&str; 3] = ["any", "all", "none"];
    let mut fields = Fields::of(AT, node)?;
    let lists = LISTS.map(|name| (name, fields.take(name)));
    fields.no_others(&LISTS)?;
    let mut terms = Vec::new();
    for (name, node) in lists {
        let Some(node) = node else { continue };
        let at = json::pointer_to(AT, name);
        let check = |at: &str, tag: &str| checked(at, &names::TAG, tag);
        let tags = list(
            &at,
            node,
            "tag",
            crate::expression::MAX_TESTS,
            TOO_MANY,
            check,
        )?;
        let tags = tags.iter().map(|tag| Term::tag(tag));
        match name {
            "any" => terms.push(Term::any_of(tags.collect())),
            "all" => terms.extend(tags),
            _ => terms.extend(tags.map(Term::negated)),
        }
    }
    if terms.is_empty() {
        return Err(invalid(
            AT,
            "no tags: give \"any\", \"all\" or \"none\", or {\"all\": true} as the audience",
        ));
    }
    Expression::of(Term::all_of(terms)).map_err(|error| invalid(AT, error.to_string()))
}

/// The text of an expression in a request.
pub(crate) fn expression(at: &str, node: &Node) -> Result<Expression, Invalid> {
    let Node::Text(text) = node else {
        return Err(wrong_kind(at, "an expression, which is a string", node));
    };
    Expression::parse(text).map_err(|error| error.at_field(at))
}

impl SyntaxError {
    /// The mistake as one of a request.
    pub fn at_field(self, at: &str) -> Invalid {
        Invalid {
            fault: Fault::InvalidExpression {
                line: self.line,
                column: self.column,
            },
            field: Some(at.into()),
            detail: self.to_string(),
        }
    }
}

fn name<'n>(at: &str, node: &'n Node, rule: &Rule) -> Result<&'n str, Invalid> {
    let Node::Text(name) = node else {
        let expected = format!("the name of one {}, which is a string", rule.what());
        return Err(wrong_kind(at, &expected, node));
    };
    checked(at, rule, name)?;
    Ok(name)
}

pub(crate) fn checked(at: &str, rule: &Rule, text: &str) -> Result<(), Invalid> {
    rule.check(text)
        .map_err(|bad: BadName| invalid(at, bad.to_string()))
}

#[cfg(test)]
mod tests;
