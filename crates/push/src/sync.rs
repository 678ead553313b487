//! `push/sync`: a device says how far it really has got in a log, and is replayed from there; or asks how far it is taken to be.

use crate::{
    ack::{BadMessage, MAX_BYTES},
    fields::{Fields, invalid, shown},
    json::{self, Node},
    request::Invalid,
};

/// Where devices say it.
pub const SYNC_TOPIC: &str = "push/sync";

/// What a device says: `{"log": "push", "offset": "1234"}`, or without an offset, which asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// It has what the log holds up to this place, and wants what comes after; `None`: it wants to know the place.
    pub after: Option<u64>,
}

impl Sync {
    /// Reads a message.
    pub fn parse(message: &[u8]) -> Result<Sync, BadMessage> {
        if message.len() > MAX_BYTES {
            return Err(BadMessage::TooLarge(message.len()));
        }
        let document = json::read(message).map_err(Invalid::from)?;
        let mut fields = Fields::of("", &document)?;
        fields.word("log", &[("push", ())])?;
        let after = match fields.take("offset") {
            None | Some(Node::Null) => None,
            Some(Node::Whole(offset)) => Some(*offset),
            Some(Node::Text(text)) => Some(text.parse().map_err(|_| wrong(&shown(text)))?),
            Some(_) => return Err(wrong("this value").into()),
        };
        fields.no_others(&["log", "offset"])?;
        Ok(Sync { after })
    }
}

fn wrong(found: &str) -> Invalid {
    let detail = format!(
        "{found} is no place in a log: use what a \"position\" on push/ctl said, or \"0\" for all that is kept"
    );
    invalid("/offset", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_asks_or_tells() {
        for (text, after) in [
            ("{}", None),
            (r#"{"log":"push"}"#, None),
            (
                r#"{"log":"push","offset":"18446744073709551615"}"#,
                Some(u64::MAX),
            ),
            (r#"{"offset":0}"#, Some(0)),
        ] {
            assert_eq!(Sync::parse(text.as_bytes()), Ok(Sync { after }), "{text}");
        }
        for text in [
            r#"{"log":"topics"}"#,
            r#"{"offset":"x"}"#,
            r#"{"offset":-1}"#,
            r#"{"offset":true}"#,
            "x",
            r#"{"epoch":1}"#,
        ] {
            assert!(Sync::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
