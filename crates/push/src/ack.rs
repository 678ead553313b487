//! What devices tell: on `push/ack`, what became of pushes on the screen; on `push/reg`, what they are.
//!
//! Nobody answers a PUBLISH with a list of mistakes, so a mistake here becomes a log line and a count. What can be used of a batch is used: an id
//! that is none is refused alone, the others go.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    fields::{Fields, invalid, wrong_kind},
    id::PushId,
    json::{self, Node},
    receipt::Mark,
    request::Invalid,
};

/// Where devices report.
pub const ACK_TOPIC: &str = "push/ack";
/// Where devices describe themselves.
pub const REGISTRATION_TOPIC: &str = "push/reg";

/// Bytes of a message on either topic. More than a client that was offline for a week has to say, and less than it costs to read.
pub const MAX_BYTES: usize = 64 * 1024;
/// Reports in one message, all lists together.
pub const MAX_REPORTS: usize = 1000;
/// Bytes of a click's action.
pub const MAX_ACTION_BYTES: usize = 64;

/// What a device reports. Each push occurs once per list, however often the device named it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Shown.
    pub displayed: BTreeSet<PushId>,
    /// Opened.
    pub clicked: BTreeSet<Click>,
    /// Wiped away.
    pub dismissed: BTreeSet<PushId>,
    /// Entries that were left out.
    pub refused: Vec<Refused>,
}

/// A push that somebody opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Click {
    /// The push.
    pub id: PushId,
    /// Which of its buttons; `None` for the notification itself.
    pub action: Option<String>,
}

/// An entry that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// JSON pointer to it.
    pub at: String,
    /// Why.
    pub why: BadEntry,
}

/// Why an entry was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Not a ULID.
    #[error("not a push id, which is a ULID of 26 characters")]
    NoPushId,
    /// Another kind of JSON value.
    #[error("a push id is a string; a click is {{\"id\": .., \"action\": ..}} or a push id")]
    WrongKind,
    /// A field that a click does not have.
    #[error("a click has the fields \"id\" and \"action\", no others")]
    UnknownField,
    /// An action that is empty, too long, or no string.
    #[error("an action is a string of 1 to 64 bytes")]
    BadAction,
}

/// Why a whole message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Larger than [`MAX_BYTES`].
    #[error("a message of {0} bytes: at most {MAX_BYTES}, send several")]
    TooLarge(usize),
    /// More reports than [`MAX_REPORTS`].
    #[error("{0} reports in one message: at most {MAX_REPORTS}, send several")]
    TooMany(usize),
    /// Not JSON, or not of this shape.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl BadMessage {
    /// The value of the label `reason` of a counter.
    pub fn reason(&self) -> &'static str {
        match self {
            BadMessage::TooLarge(_) => "too_large",
            BadMessage::TooMany(_) => "too_many",
            BadMessage::Invalid(_) => "invalid",
        }
    }
}

impl Acks {
    /// Reads a message on `push/ack`: `{"displayed": [ID, ..], "clicked": [ID | {"id": ID, "action": ..}, ..], "dismissed": [ID, ..]}`, each list optional.
    pub fn parse(message: &[u8]) -> Result<Acks, BadMessage> {
        let document = read(message)?;
        let mut fields = Fields::of("", &document)?;
        let displayed = list(&mut fields, "displayed", "/displayed")?;
        let clicked = list(&mut fields, "clicked", "/clicked")?;
        let dismissed = list(&mut fields, "dismissed", "/dismissed")?;
        fields.no_others(&["displayed", "clicked", "dismissed"])?;
        let reports = displayed.len() + clicked.len() + dismissed.len();
        if reports > MAX_REPORTS {
            return Err(BadMessage::TooMany(reports));
        }
        let mut refused = Vec::new();
        Ok(Acks {
            displayed: sift("/displayed", displayed, push_id, &mut refused),
            clicked: sift("/clicked", clicked, click, &mut refused),
            dismissed: sift("/dismissed", dismissed, push_id, &mut refused),
            refused,
        })
    }
}

impl Acks {
    /// What is true of the device and each push, with what follows from it: nobody opens or wipes away what was not shown, and nothing is shown that
    /// was not delivered.
    pub fn marks(&self) -> BTreeMap<PushId, BTreeSet<Mark>> {
        let mut marks: BTreeMap<PushId, BTreeSet<Mark>> = BTreeMap::new();
        let displayed = self.displayed.iter().map(|id| (*id, None));
        let clicked = self.clicked.iter().map(|c| (c.id, Some(Mark::Clicked)));
        let dismissed = self.dismissed.iter().map(|id| (*id, Some(Mark::Dismissed)));
        for (id, more) in displayed.chain(clicked).chain(dismissed) {
            let shown = [Mark::Delivered, Mark::Displayed];
            marks
                .entry(id)
                .or_default()
                .extend(shown.into_iter().chain(more));
        }
        marks
    }

    /// The button of a push that somebody clicked, if it was one.
    pub fn action(&self, id: PushId) -> Option<&str> {
        let of_push = self.clicked.iter().filter(|click| click.id == id);
        of_push.filter_map(|click| click.action.as_deref()).next()
    }
}

fn read(message: &[u8]) -> Result<Node, BadMessage> {
    if message.len() > MAX_BYTES {
        return Err(BadMessage::TooLarge(message.len()));
    }
    Ok(json::read(message).map_err(Invalid::from)?)
}

fn list<'n>(
    fields: &mut Fields<'n>,
    name: &str,
    at: &'static str,
) -> Result<&'n [Node], BadMessage> {
    match fields.take(name) {
        None => Ok(&[]),
        Some(Node::List(items)) => Ok(items),
        Some(other) => Err(wrong_kind(at, "an array", other).into()),
    }
}

fn sift<T: Ord>(
    at: &str,
    entries: &[Node],
    read: impl Fn(&Node) -> Result<T, BadEntry>,
    refused: &mut Vec<Refused>,
) -> BTreeSet<T> {
    let mut good = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        match read(entry) {
            Ok(entry) => drop(good.insert(entry)),
            Err(why) => refused.push(Refused {
                at: format!("{at}/{index}"),
                why,
            }),
        }
    }
    good
}

fn push_id(entry: &Node) -> Result<PushId, BadEntry> {
    match entry {
        Node::Text(id) => id.parse().map_err(|_| BadEntry::NoPushId),
        _ => Err(BadEntry::WrongKind),
    }
}

fn click(entry: &Node) -> Result<Click, BadEntry> {
    let Node::Object(fields) = entry else {
        return push_id(entry).map(|id| Click { id, action: None });
    };
    if fields.keys().any(|name| name != "id" && name != "action") {
        return Err(BadEntry::UnknownField);
    }
    let id = push_id(fields.get("id").ok_or(BadEntry::NoPushId)?)?;
    let action = match fields.get("action") {
        None => None,
        Some(Node::Text(action)) if (1..=MAX_ACTION_BYTES).contains(&action.len()) => {
            Some(action.clone())
        }
        Some(_) => return Err(BadEntry::BadAction),
    };
    Ok(Click { id, action })
}

/// What a device tells of itself. Only the envelope is read here; each part is JSON text that the device's profile checks, as it
/// knows which tags and attributes a device may set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Attributes to set, an object.
    pub attributes: Option<String>,
    /// Tags to set and remove, an object.
    pub tags: Option<String>,
    /// A vendor's token for this device, an object.
    pub token: Option<String>,
}

impl Registration {
    /// Reads a message on `push/reg`: `{"attributes": {..}, "tags": {..}, "token": {..}}`, at least one of them.
    pub fn parse(message: &[u8]) -> Result<Registration, BadMessage> {
        let document = read(message)?;
        let mut fields = Fields::of("", &document)?;
        let mut any = false;
        for (name, at) in [
            ("attributes", "/attributes"),
            ("tags", "/tags"),
            ("token", "/token"),
        ] {
            if let Some(part) = fields.take(name) {
                Fields::of(at, part)?;
                any = true;
            }
        }
        fields.no_others(&["attributes", "tags", "token"])?;
        if !any {
            let detail = "nothing to register: give \"attributes\", \"tags\" or \"token\"";
            return Err(invalid("", detail).into());
        }
        Ok(parts(message))
    }
}

/// The parts' own text, from a message that is known to be valid.
fn parts(message: &[u8]) -> Registration {
    #[derive(Deserialize)]
    struct Parts<'m> {
        #[serde(borrow)]
        attributes: Option<&'m RawValue>,
        #[serde(borrow)]
        tags: Option<&'m RawValue>,
        #[serde(borrow)]
        token: Option<&'m RawValue>,
    }
    let parts: Parts<'_> = serde_json::from_slice(message).expect("the message was read before");
    let text = |part: &RawValue| part.get().to_owned();
    Registration {
        attributes: parts.attributes.map(text),
        tags: parts.tags.map(text),
        token: parts.token.map(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    const B: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAW";

    fn id(text: &str) -> PushId {
        text.parse().unwrap()
    }

    #[test]
    fn a_batch_is_read_and_repeats_count_once() {
        let text = format!(
            r#"{{"displayed":["{A}","{B}","{A}"],"clicked":["{A}",{{"id":"{B}","action":"reply"}},{{"id":"{A}"}}],"dismissed":["{B}"]}}"#
        );
        let acks = Acks::parse(text.as_bytes()).unwrap();
        assert_eq!(acks.displayed, [id(A), id(B)].into());
        let click = |text, action: Option<&str>| Click {
            id: id(text),
            action: action.map(Into::into),
        };
        assert_eq!(
            acks.clicked,
            [click(A, None), click(B, Some("reply"))].into()
        );
        assert_eq!(acks.dismissed, [id(B)].into());
        assert!(acks.refused.is_empty());
        let shown = [Mark::Delivered, Mark::Displayed];
        let marks = |more: &[Mark]| shown.iter().chain(more).copied().collect::<BTreeSet<_>>();
        let expected = [
            (id(A), marks(&[Mark::Clicked])),
            (id(B), marks(&[Mark::Clicked, Mark::Dismissed])),
        ];
        assert_eq!(acks.marks(), expected.into());
        assert_eq!(Acks::parse(b"{}"), Ok(Acks::default()));
    }

    #[test]
    fn a_bad_entry_is_refused_alone() {
        let text = format!(
            r#"{{"displayed":["{A}","x",7],"clicked":[{{"id":"{B}","extra":1}},{{"id":"{B}","action":""}},{{}},null,"{B}"]}}"#
        );
        let acks = Acks::parse(text.as_bytes()).unwrap();
        assert_eq!((acks.displayed.len(), acks.clicked.len()), (1, 1));
        let refused: Vec<_> = acks
            .refused
            .iter()
            .map(|r| (r.at.as_str(), r.why))
            .collect();
        assert_eq!(
            refused,
            [
                ("/displayed/1", BadEntry::NoPushId),
                ("/displayed/2", BadEntry::WrongKind),
                ("/clicked/0", BadEntry::UnknownField),
                ("/clicked/1", BadEntry::BadAction),
                ("/clicked/2", BadEntry::NoPushId),
                ("/clicked/3", BadEntry::WrongKind),
            ]
        );
        assert_eq!(
            BadEntry::WrongKind.to_string(),
            r#"a push id is a string; a click is {"id": .., "action": ..} or a push id"#
        );
    }

    #[test]
    fn a_message_that_is_none_is_refused_as_a_whole() {
        let refused = |text: &str| Acks::parse(text.as_bytes()).unwrap_err();
        assert_eq!(
            refused(&format!("{}{{}}", " ".repeat(MAX_BYTES))),
            BadMessage::TooLarge(MAX_BYTES + 2)
        );
        let ids = format!("\"{A}\",").repeat(500);
        let list = format!("[{}\"{A}\"]", ids);
        assert_eq!(
            refused(&format!(r#"{{"displayed":{list},"dismissed":{list}}}"#)),
            BadMessage::TooMany(1002)
        );
        for text in [
            "",
            "[]",
            r#"{"displayed":"x"}"#,
            r#"{"shown":[]}"#,
            r#"{"clicked":[],"clicked":[]}"#,
        ] {
            assert_eq!(refused(text).reason(), "invalid", "{text}");
        }
    }

    #[test]
    fn a_registration_is_an_envelope_of_objects() {
        let text =
            br#"{"tags": {"add": ["a"]}, "attributes": {"n": 1.50}, "token": {"apns": "x"}}"#;
        assert_eq!(
            Registration::parse(text),
            Ok(Registration {
                attributes: Some(r#"{"n": 1.50}"#.into()),
                tags: Some(r#"{"add": ["a"]}"#.into()),
                token: Some(r#"{"apns": "x"}"#.into()),
            })
        );
        for text in [
            "{}",
            r#"{"tags":["a"]}"#,
            r#"{"user":"u"}"#,
            r#"{"token":null}"#,
            "7",
        ] {
            let refused = Registration::parse(text.as_bytes()).unwrap_err();
            assert_eq!(refused.reason(), "invalid", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Acks::parse(&bytes);
            let _ = Registration::parse(&bytes);
        }
    }
}
