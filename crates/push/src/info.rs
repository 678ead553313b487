//! What the sender of a push wants to find again: kept with it, shown in its report, searched in the list of pushes.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::options::{Options, Receipts};

/// What is kept of a push's options for its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The sender's labels.
    pub labels: BTreeMap<String, String>,
    /// The sender's own name of it.
    pub external_id: Option<String>,
    /// Where its end is told.
    pub callback_url: Option<String>,
    /// Which receipts are wanted.
    pub receipts: Receipts,
}

/// As it is stored. Tags are never used for anything else again.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(btree_map = "string, string", tag = "1")]
    labels: BTreeMap<String, String>,
    #[prost(string, optional, tag = "2")]
    external_id: Option<String>,
    #[prost(string, optional, tag = "3")]
    callback_url: Option<String>,
    #[prost(bool, tag = "4")]
    without_displayed: bool,
    #[prost(bool, tag = "5")]
    without_clicked: bool,
    #[prost(bool, tag = "6")]
    without_dismissed: bool,
}

/// Stored bytes that are no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored of a push's options is damaged; restore the store from a backup")]
pub struct Damaged;

impl Info {
    /// What is kept of these options.
    pub fn of(options: &Options) -> Info {
        Info {
            labels: options.labels.clone(),
            external_id: options.external_id.clone(),
            callback_url: options.callback_url.clone(),
            receipts: options.receipts,
        }
    }

    /// The bytes to store: none for a push without any of it.
    pub fn encode(&self) -> Bytes {
        let record = Record {
            labels: self.labels.clone(),
            external_id: self.external_id.clone(),
            callback_url: self.callback_url.clone(),
            without_displayed: !self.receipts.displayed,
            without_clicked: !self.receipts.clicked,
            without_dismissed: !self.receipts.dismissed,
        };
        record.encode_to_vec().into()
    }

    /// What was stored.
    pub fn decode(bytes: &[u8]) -> Result<Info, Damaged> {
        let record = Record::decode(bytes).map_err(|_| Damaged)?;
        Ok(Info {
            labels: record.labels,
            external_id: record.external_id,
            callback_url: record.callback_url,
            receipts: Receipts {
                displayed: !record.without_displayed,
                clicked: !record.without_clicked,
                dismissed: !record.without_dismissed,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_without_any_of_it_has_nothing_to_store() {
        assert_eq!(Info::default().encode(), Bytes::new());
        assert_eq!(Info::decode(&[]), Ok(Info::default()));
    }

    #[test]
    fn what_is_stored_is_what_was_asked_for() {
        let info = Info {
            labels: [("team".into(), "growth".into())].into(),
            external_id: Some("order-7".into()),
            callback_url: Some("https://example.com/done".into()),
            receipts: Receipts {
                clicked: false,
                ..Receipts::default()
            },
        };
        assert_eq!(Info::decode(&info.encode()), Ok(info));
        assert_eq!(Info::decode(b"\xff"), Err(Damaged));
    }
}
