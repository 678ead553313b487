//! JSON from strangers: read into a small tree, refusing what parsers disagree about.
//!
//! On top of the grammar it refuses names that occur twice in an object and nesting deeper than [`MAX_DEPTH`]. Numbers are
//! checked, but only whole ones that fit `u64` keep their exact value: the devices get them as text.

use std::{collections::BTreeMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Objects and arrays within each other, the document's own object included.
pub(crate) const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// A whole number in 0..2^64.
    Whole(u64),
    /// Another number, as near as a double comes.
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

impl Node {
    /// The kind of value, with its article, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Whole(_) | Node::Number(_) => "a number",
            Node::Text(_) => "a string",
            Node::List(_) => "an array",
            Node::Object(_) => "an object",
        }
    }
}

/// Why a text was refused.
#[derive(Debug, PartialEq)]
pub(crate) enum Refused {
    /// Not JSON in UTF-8. Line and column count from 1; the column is in bytes.
    Malformed {
        message: String,
        line: usize,
        column: usize,
    },
    /// A name occurs twice in an object; the pointer is to the second.
    Duplicate { pointer: String },
    /// Too many values within each other.
    TooDeep { pointer: String },
}

/// Reads one value and nothing after it but white space.
pub(crate) fn read(text: &[u8]) -> Result<Node, Refused> {
    let text = std::str::from_utf8(text).map_err(|e| not_utf8(&text[..e.valid_up_to()]))?;
    let mut walk = Walk::default();
    let mut from = serde_json::Deserializer::from_str(text);
    let node = Value {
        walk: &mut walk,
        depth: 0,
    }
    .deserialize(&mut from);
    match node.and_then(|node| from.end().map(|()| node)) {
        Ok(node) => Ok(node),
        Err(error) => Err(walk.refused.unwrap_or_else(|| malformed(&error))),
    }
}

/// Appends a name to a JSON pointer (RFC 6901).
pub(crate) fn pointer_to(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A JSON text, known to be valid, without the white space between its tokens.
pub(crate) fn minified(text: &str) -> String {
    let mut small = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            in_string = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        small.push(c);
    }
    small
}

fn not_utf8(valid: &[u8]) -> Refused {
    let line_start = valid
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    Refused::Malformed {
        message: "invalid UTF-8".into(),
        line: 1 + valid.iter().filter(|b| **b == b'\n').count(),
        column: 1 + valid.len() - line_start,
    }
}

fn malformed(error: &serde_json::Error) -> Refused {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let message = message
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&message)
        .to_owned();
    Refused::Malformed {
        message,
        line,
        column,
    }
}

/// Where the reader is, and the refusal that is more than a matter of grammar.
#[derive(Default)]
struct Walk {
    path: Vec<String>,
    refused: Option<Refused>,
}

impl Walk {
    fn pointer(&self) -> String {
        self.path
            .iter()
            .fold(String::new(), |pointer, name| pointer_to(&pointer, name))
    }
}

struct Value<'w> {
    walk: &'w mut Walk,
    depth: usize,
}

impl Value<'_> {
    /// The depth of what is within this value, or the refusal.
    fn deeper<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth == MAX_DEPTH {
            self.walk.refused = Some(Refused::TooDeep {
                pointer: self.walk.pointer(),
            });
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<Node, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            self.walk.path.push(list.len().to_string());
            let item = from.next_element_seed(Value {
                walk: self.walk,
                depth,
            })?;
            self.walk.path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Node::List(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<Node, A::Error> {
        let depth = self.deeper()?;
        let mut object = BTreeMap::new();
        while let Some(name) = from.next_key::<String>()? {
            self.walk.path.push(name.clone());
            if object.contains_key(&name) {
                self.walk.refused = Some(Refused::Duplicate {
                    pointer: self.walk.pointer(),
                });
                return Err(A::Error::custom("duplicate name"));
            }
            object.insert(
                name,
                from.next_value_seed(Value {
                    walk: self.walk,
                    depth,
                })?,
            );
            self.walk.path.pop();
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &[u8]) -> Refused {
        read(text).unwrap_err()
    }

    fn at(text: &[u8]) -> (usize, usize) {
        match refused(text) {
            Refused::Malformed { line, column, .. } => (line, column),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mistakes_of_grammar_have_a_place() {
        assert_eq!(at(b""), (1, 0));
        assert_eq!(at(b"{\"a\":1"), (1, 6));
        assert_eq!(at(b"{\n  \"a\": trx\n}"), (2, 10));
        assert_eq!(at(b"{} x"), (1, 4));
        assert_eq!(at(b"[1,]"), (1, 4));
        assert_eq!(at(b"[01]"), (1, 3));
        assert_eq!(at(b"[NaN]"), (1, 2));
        assert_eq!(at(b"\xef\xbb\xbf{}"), (1, 1), "byte order mark");
        assert_eq!(at(b"[\"\\ud800\"]").0, 1, "half of a surrogate pair");
        assert_eq!(at(b"[\"\x01\"]").0, 1, "control character");
    }

    #[test]
    fn text_that_is_not_utf8_has_a_place() {
        assert_eq!(at(b"\xff"), (1, 1));
        assert_eq!(at(b"{\n\"\xc3\xa9\xff\"}"), (2, 4));
        assert_eq!(at(b"\"\xed\xa0\x80\""), (1, 2), "surrogate in UTF-8");
    }

    #[test]
    fn numbers_beyond_what_others_can_read_are_refused() {
        assert_eq!(at(b"[1e400]").0, 1);
        let huge = "9".repeat(400);
        assert_eq!(at(format!("[{huge}]").as_bytes()).0, 1);
        assert_eq!(
            read(b"[18446744073709551615, 18446744073709551616, -1, 1.0]"),
            Ok(Node::List(vec![
                Node::Whole(u64::MAX),
                Node::Number(18_446_744_073_709_551_616.0),
                Node::Number(-1.0),
                Node::Number(1.0)
            ]))
        );
    }

    #[test]
    fn a_name_occurs_once() {
        assert_eq!(
            refused(br#"{"a":1,"a":1}"#),
            Refused::Duplicate {
                pointer: "/a".into()
            }
        );
        assert_eq!(
            refused(br#"{"x":[{},{"a":1,"\u0061":2}]}"#),
            Refused::Duplicate {
                pointer: "/x/1/a".into()
            }
        );
        assert_eq!(
            refused(br#"{"a/b":{"~":1,"~":1}}"#),
            Refused::Duplicate {
                pointer: "/a~1b/~0".into()
            }
        );
        assert!(read(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        let pointer = "/0".repeat(MAX_DEPTH);
        assert_eq!(
            refused(nested(MAX_DEPTH + 1).as_bytes()),
            Refused::TooDeep {
                pointer: pointer.clone()
            }
        );
        assert_eq!(
            refused("[".repeat(1 << 20).as_bytes()),
            Refused::TooDeep { pointer }
        );
    }

    #[test]
    fn minified_keeps_strings() {
        assert_eq!(
            minified("{ \"a b\" :\t\"c\\\" d\\\\\" ,\r\n\"e\" : [ 1 , 2.50 ] }"),
            r#"{"a b":"c\" d\\","e":[1,2.50]}"#
        );
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_is_read_and_minified_to_the_same(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert!(read(pretty.as_bytes()).is_ok());
            prop_assert_eq!(minified(&pretty), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read = read(&bytes).is_ok();
            // What it reads is JSON to the reference as well.
            prop_assert!(!read || serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        }
    }
}
