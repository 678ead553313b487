//! Campaigns and ends of pushes as they are stored.

use prost::Message;

use super::{Campaign, Ended, How, State};
use crate::{
    device::Damaged,
    frequency::FrequencyCap,
    id::PushId,
    lanes::Priority,
    options::AutoHalt,
    pacing::{Moment, Spread},
    targeting::Targeting,
};

/// What the row of a push says.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// It is a campaign that has not ended.
    Campaign(Box<Campaign>),
    /// It ended before its time, whatever it was.
    Ended(Ended),
}

#[derive(Clone, PartialEq, Message)]
struct RowRecord {
    #[prost(message, optional, tag = "1")]
    campaign: Option<CampaignRecord>,
    #[prost(message, optional, tag = "2")]
    ended: Option<EndedRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct EndedRecord {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    /// 0 cancelled, 1 recalled, 2 collapsed.
    #[prost(uint32, tag = "2")]
    how: u32,
    #[prost(bytes = "vec", tag = "3")]
    by: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CampaignRecord {
    #[prost(uint64, tag = "1")]
    accepted_ms: u64,
    #[prost(uint64, tag = "2")]
    expires_ms: u64,
    /// 0 running, 1 paused, 2 halted.
    #[prost(uint32, tag = "3")]
    state: u32,
    #[prost(uint64, tag = "4")]
    since_ms: u64,
    /// 0 normal, 1 high, 2 low.
    #[prost(uint32, tag = "5")]
    priority: u32,
    #[prost(bytes = "vec", tag = "6")]
    targeting: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    spread: Vec<u8>,
    #[prost(uint64, optional, tag = "8")]
    uncounted_pace: Option<u64>,
    #[prost(message, optional, tag = "9")]
    cap: Option<CapRecord>,
    #[prost(message, optional, tag = "10")]
    auto_halt: Option<AutoHaltRecord>,
    #[prost(string, optional, tag = "11")]
    collapses: Option<String>,
    #[prost(uint64, tag = "12")]
    held_ms: u64,
    #[prost(bytes = "bytes", tag = "13")]
    payload: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct CapRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(uint64, tag = "3")]
    per_seconds: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AutoHaltRecord {
    #[prost(uint32, tag = "1")]
    error_rate: u32,
    #[prost(uint64, tag = "2")]
    after: u64,
}

impl Row {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = RowRecord::default();
        match self {
            Row::Campaign(campaign) => record.campaign = Some(CampaignRecord::of(campaign)),
            Row::Ended(ended) => {
                let (how, by) = match ended.how {
                    How::Cancelled => (0, Vec::new()),
                    How::Recalled => (1, Vec::new()),
                    How::Collapsed(by) => (2, by.0.to_be_bytes().to_vec()),
                };
                let at_ms = ended.at_ms;
                record.ended = Some(EndedRecord { at_ms, how, by });
            }
        }
        record.encode_to_vec()
    }

    /// The row of a push. What only a later version understands is an error.
    pub fn decode(bytes: &[u8], push: PushId) -> Result<Row, Damaged> {
        let record = RowRecord::decode(bytes).map_err(damaged)?;
        match (record.campaign, record.ended) {
            (Some(campaign), None) => Ok(Row::Campaign(Box::new(campaign.campaign(push)?))),
            (None, Some(ended)) => Ok(Row::Ended(ended.ended()?)),
            _ => Err(damaged("neither a campaign nor an end")),
        }
    }
}

fn damaged(why: impl std::fmt::Display) -> Damaged {
    Damaged {
        what: "the row of a campaign",
        why: why.to_string(),
    }
}

impl EndedRecord {
    fn ended(self) -> Result<Ended, Damaged> {
        let how = match self.how {
            0 => How::Cancelled,
            1 => How::Recalled,
            2 => {
                let by = self.by.as_slice().try_into();
                How::Collapsed(PushId(u128::from_be_bytes(
                    by.map_err(|_| damaged("a push id of another length"))?,
                )))
            }
            other => return Err(damaged(format!("an end of kind {other}"))),
        };
        let at_ms = self.at_ms;
        Ok(Ended { at_ms, how })
    }
}

impl CampaignRecord {
    fn of(campaign: &Campaign) -> CampaignRecord {
        let (state, since_ms) = match campaign.state {
            State::Running => (0, 0),
            State::Paused(since_ms) => (1, since_ms),
            State::Halted(since_ms) => (2, since_ms),
        };
        CampaignRecord {
            accepted_ms: campaign.accepted_ms,
            expires_ms: campaign.expires_ms,
            state,
            since_ms,
            priority: match campaign.priority {
                Priority::Normal => 0,
                Priority::High => 1,
                Priority::Low => 2,
            },
            targeting: campaign.targeting.encode(),
            spread: campaign.spread.encode(),
            uncounted_pace: campaign.uncounted_pace,
            cap: campaign.cap.as_ref().map(|cap| CapRecord {
                key: cap.key.clone(),
                count: cap.count,
                per_seconds: cap.per_seconds,
            }),
            auto_halt: campaign.auto_halt.map(|halt| AutoHaltRecord {
                error_rate: halt.error_rate,
                after: halt.after,
            }),
            collapses: campaign.collapses.clone(),
            held_ms: campaign.held_ms,
            payload: campaign.payload.clone(),
        }
    }

    fn campaign(self, push: PushId) -> Result<Campaign, Damaged> {
        let moment = Moment {
            push,
            accepted_ms: self.accepted_ms,
            expires_ms: self.expires_ms,
        };
        Ok(Campaign {
            push,
            accepted_ms: self.accepted_ms,
            expires_ms: self.expires_ms,
            state: match self.state {
                0 => State::Running,
                1 => State::Paused(self.since_ms),
                2 => State::Halted(self.since_ms),
                other => return Err(damaged(format!("a state {other}"))),
            },
            priority: match self.priority {
                0 => Priority::Normal,
                1 => Priority::High,
                2 => Priority::Low,
                other => return Err(damaged(format!("a priority {other}"))),
            },
            targeting: Targeting::decode(&self.targeting)?,
            spread: Spread::decode(&self.spread, moment).map_err(damaged)?,
            uncounted_pace: self.uncounted_pace,
            cap: self.cap.map(|cap| FrequencyCap {
                key: cap.key,
                count: cap.count,
                per_seconds: cap.per_seconds,
            }),
            auto_halt: self.auto_halt.map(|halt| AutoHalt {
                error_rate: halt.error_rate,
                after: halt.after,
            }),
            collapses: self.collapses,
            held_ms: self.held_ms,
            payload: self.payload,
        })
    }
}
