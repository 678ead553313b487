//! Reading an object field by field, so that each mistake names its place, its value, the rule and the way out.

use std::{collections::BTreeMap, fmt::Write as _, ops::RangeInclusive};

use crate::{
    json::{self, Node},
    request::{Fault, Invalid},
    time::from_rfc3339,
};

/// The fields of an object that nobody has asked for yet.
pub(crate) struct Fields<'n> {
    at: &'static str,
    left: BTreeMap<&'n str, &'n Node>,
}

impl<'n> Fields<'n> {
    pub(crate) fn of(at: &'static str, value: &'n Node) -> Result<Fields<'n>, Invalid> {
        match value {
            Node::Object(fields) => Ok(Fields {
                at,
                left: fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value))
                    .collect(),
            }),
            other => Err(wrong_kind(at, "an object", other)),
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<&'n Node> {
        self.left.remove(name)
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<&'n str>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_kind(&self.at(name), "a string", other)),
        }
    }

    /// A whole number in bounds; `what` it is ("a number of seconds") is for the message.
    pub(crate) fn whole(
        &mut self,
        name: &str,
        what: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Invalid> {
        let found = match self.take(name) {
            None => return Ok(None),
            Some(Node::Whole(number)) if bounds.contains(number) => return Ok(Some(*number)),
            Some(Node::Whole(number)) => number.to_string(),
            Some(Node::Number(number)) => number.to_string(),
            Some(other) => return Err(wrong_kind(&self.at(name), what, other)),
        };
        let (least, most) = bounds.into_inner();
        Err(invalid(
            &self.at(name),
            format!(
                "{found} is out of bounds: \"{name}\" is {what}, whole, from {least} to {most}"
            ),
        ))
    }

    /// A time of RFC 3339, in Unix milliseconds.
    pub(crate) fn time(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match from_rfc3339(text) {
            Some(unix_ms) => Ok(Some(unix_ms)),
            None => Err(invalid(
                &self.at(name),
                format!(
                    "{} is no time of RFC 3339 with an offset, such as 2026-12-24T18:00:00Z or 2026-12-24T19:00:00+01:00",
                    shown(text)
                ),
            )),
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Invalid> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(invalid(
                &self.at(name),
                format!(
                    "{} is not possible here: it is {}",
                    shown(text),
                    one_of(words.iter().map(|(word, _)| *word))
                ),
            )),
        }
    }

    /// The pointer to a field.
    pub(crate) fn at(&self, name: &str) -> String {
        json::pointer_to(self.at, name)
    }

    pub(crate) fn required(&mut self, name: &str, what: &str) -> Result<&'n Node, Invalid> {
        self.take(name).ok_or_else(|| Invalid {
            fault: Fault::MissingField,
            field: Some(self.at(name)),
            detail: format!("\"{name}\" is missing: {what}"),
        })
    }

    pub(crate) fn no_others(&self, known: &[&str]) -> Result<(), Invalid> {
        let Some(name) = self.left.keys().next() else {
            return Ok(());
        };
        Err(Invalid {
            fault: Fault::UnknownField,
            field: Some(self.at(name)),
            detail: format!(
                "there is no field {}; known here: {}",
                shown(name),
                known.join(", ")
            ),
        })
    }
}

pub(crate) fn invalid(at: &str, detail: impl Into<String>) -> Invalid {
    Invalid {
        fault: Fault::InvalidField,
        field: Some(at.into()),
        detail: detail.into(),
    }
}

pub(crate) fn wrong_kind(at: &str, expected: &str, found: &Node) -> Invalid {
    let subject = if at.is_empty() { "the body" } else { at };
    let hint = if matches!(found, Node::Null) {
        "; leave it out instead"
    } else {
        ""
    };
    invalid(
        at,
        format!("{subject} must be {expected}, not {}{hint}", found.kind()),
    )
}

/// Words for a message: `"a", "b" or "c"`.
pub(crate) fn one_of<'w>(words: impl ExactSizeIterator<Item = &'w str>) -> String {
    let last = words.len() - 1;
    words
        .enumerate()
        .fold(String::new(), |mut text, (index, word)| {
            let before = match index {
                0 => "",
                _ if index == last => " or ",
                _ => ", ",
            };
            let _ = write!(text, "{before}\"{word}\"");
            text
        })
}

/// A name from outside for a message: quoted, and cut where it is long.
pub(crate) fn shown(name: &str) -> String {
    const CHARACTERS: usize = 64;
    match name.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{:?}..", &name[..end]),
        None => format!("{name:?}"),
    }
}
