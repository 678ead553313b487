//! A spread as it is stored with its push.

use jiff::civil::Date;

use super::*;

/// Stored bytes that are no spread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpread {
    /// Not the record.
    #[error("not a spread: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field is out of its bounds.
    #[error("a spread with a {0} that cannot be")]
    OutOfBounds(&'static str),
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    window_ms: u64,
    #[prost(uint32, optional, tag = "2")]
    portion_hundredths: Option<u32>,
    #[prost(uint64, optional, tag = "3")]
    hold_ms: Option<u64>,
    /// Minutes since midnight.
    #[prost(uint32, optional, tag = "4")]
    local_minute: Option<u32>,
    /// As in 2026-12-24.
    #[prost(string, optional, tag = "5")]
    local_date: Option<String>,
    /// 0 next day, 1 now, 2 skip.
    #[prost(uint32, tag = "6")]
    if_past: u32,
    #[prost(uint32, optional, tag = "7")]
    quiet_from: Option<u32>,
    #[prost(uint32, tag = "8")]
    quiet_to: u32,
    #[prost(bool, tag = "9")]
    quiet_drops: bool,
    #[prost(string, tag = "10")]
    default_zone: String,
    /// As in 2026-12-24T18:00.
    #[prost(string, optional, tag = "11")]
    superseded: Option<String>,
}

impl Spread {
    /// The bytes for the push's entry.
    pub fn encode(&self) -> Vec<u8> {
        let minute = |time: TimeOfDay| u32::from(time.minute());
        Record {
            window_ms: self.window_ms,
            portion_hundredths: self.portion.map(|portion| portion.hundredths),
            hold_ms: self.portion.and_then(|portion| portion.hold_ms),
            local_minute: self.local_time.map(|local| minute(local.at)),
            local_date: self
                .local_time
                .and_then(|local| local.date)
                .map(|date| date.to_string()),
            if_past: match self.local_time.map(|local| local.if_past) {
                None | Some(IfPast::NextDay) => 0,
                Some(IfPast::Now) => 1,
                Some(IfPast::Skip) => 2,
            },
            quiet_from: self.quiet_hours.map(|quiet| minute(quiet.from)),
            quiet_to: self.quiet_hours.map_or(0, |quiet| minute(quiet.to)),
            quiet_drops: self
                .quiet_hours
                .is_some_and(|quiet| quiet.policy == QuietPolicy::Drop),
            default_zone: self.default_zone.name().to_owned(),
            superseded: self
                .local_time
                .and_then(|local| local.superseded)
                .map(|next| next.to_string()),
        }
        .encode_to_vec()
    }

    /// The spread of the push whose entry it was stored with.
    pub fn decode(bytes: &[u8], moment: Moment) -> Result<Spread, BadSpread> {
        let record = Record::decode(bytes)?;
        let local_time = match record.local_minute {
            None => None,
            Some(minute) => Some(LocalTime {
                at: time_of_day(minute)?,
                date: record
                    .local_date
                    .map(|date| {
                        date.parse::<Date>()
                            .map_err(|_| BadSpread::OutOfBounds("date"))
                    })
                    .transpose()?,
                if_past: match record.if_past {
                    0 => IfPast::NextDay,
                    1 => IfPast::Now,
                    2 => IfPast::Skip,
                    _ => return Err(BadSpread::OutOfBounds("rule for past times")),
                },
                superseded: record
                    .superseded
                    .map(|next| {
                        next.parse()
                            .map_err(|_| BadSpread::OutOfBounds("next time"))
                    })
                    .transpose()?,
            }),
        };
        let quiet_hours = match record.quiet_from {
            None => None,
            Some(from) => Some(QuietHours {
                from: time_of_day(from)?,
                to: time_of_day(record.quiet_to)?,
                policy: if record.quiet_drops {
                    QuietPolicy::Drop
                } else {
                    QuietPolicy::Delay
                },
            }),
        };
        Ok(Spread {
            moment,
            window_ms: record.window_ms,
            portion: record.portion_hundredths.map(|hundredths| Share {
                hundredths,
                hold_ms: record.hold_ms,
            }),
            local_time,
            quiet_hours,
            default_zone: Zone::find(&record.default_zone)
                .map_err(|_| BadSpread::OutOfBounds("time zone"))?,
        })
    }
}

fn time_of_day(minute: u32) -> Result<TimeOfDay, BadSpread> {
    u16::try_from(minute)
        .ok()
        .and_then(|minute| TimeOfDay::from_minute(minute).ok())
        .ok_or(BadSpread::OutOfBounds("time of day"))
}
