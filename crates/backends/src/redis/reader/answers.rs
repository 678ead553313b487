//! Answers to what the push domain asks.

use std::collections::BTreeMap;

use campanile_push::{
    event::{Draft, Event, EventId, Kind},
    explanation::{AtDevice, Presence, Time},
    funnel::Life,
    id::PushId,
    receipt::Mark,
    rows::{Row, Version},
    series::Series,
    store::{Away, EventPage, Report},
};
use roaring::RoaringBitmap;

use crate::redis::{
    pack::{Malformed, Packed},
    reply,
    request::mark_of,
};

pub(super) fn named_row(found: Packed) -> Result<Row, Malformed> {
    let [name, version, value] = found.tuple()?;
    Ok(Row {
        name: name.text()?,
        version: Version(version.number()?),
        value: value.bytes()?.into(),
    })
}

/// Parts of a cohort: the first number of each, and those within it.
pub(super) fn cohort_parts(parts: Packed) -> Result<RoaringBitmap, Malformed> {
    let mut numbers = RoaringBitmap::new();
    for part in parts.array()? {
        let [first, members] = part.tuple()?;
        let first = first.number()? as u32;
        for member in members.array()? {
            numbers.insert(first + reply::text(member)?.parse::<u32>().map_err(|_| Malformed)?);
        }
    }
    Ok(numbers)
}

/// `STRETCH:SET` and its count, one after the other.
pub(super) fn series(answer: Packed) -> Result<Series, Malformed> {
    let mut series = Series::default();
    for pair in answer.array()?.chunks(2) {
        let [field, count] = pair else {
            return Err(Malformed);
        };
        let field = field.clone().text()?;
        let (stretch, set) = field.split_once(':').ok_or(Malformed)?;
        let mark = mark_of(set).ok_or(Malformed)?;
        series.load(
            stretch.parse().map_err(|_| Malformed)?,
            mark,
            count.number()?,
        );
    }
    Ok(series)
}

pub(super) fn push_id(id: Packed) -> Result<PushId, Malformed> {
    let id = u128::from_str_radix(&id.text()?, 16).map_err(|_| Malformed)?;
    Ok(PushId(id))
}

pub(in crate::redis) fn event_page(answer: Packed) -> Result<EventPage, Malformed> {
    let [events, read_to, end, gap] = answer.tuple()?;
    Ok(EventPage {
        events: listed_events(events)?,
        read_to: read_to.number()?,
        end: end.number()?,
        gap: gap.truth()?,
    })
}

/// Those of kinds that this version knows.
pub(super) fn listed_events(events: Packed) -> Result<Vec<Event>, Malformed> {
    Ok(events.list(event)?.into_iter().flatten().collect())
}

fn event(event: Packed) -> Result<Option<Event>, Malformed> {
    let [place, kind, device, push, data] = event.tuple()?;
    let code = u8::try_from(kind.number()?).ok();
    let Some(kind) = code.and_then(Kind::from_code) else {
        return Ok(None);
    };
    let place = place.number()?;
    let at_ms = time_of_place(place);
    let text = |text: Option<Packed>| text.map(reply::text).transpose();
    Ok(Some(Event {
        id: EventId::new(at_ms, place),
        at_ms,
        draft: Draft {
            device: text(device.option())?,
            push: push.option().map(push_id).transpose()?,
            kind,
            data: text(data.option())?,
        },
    }))
}

/// When a place was taken, as `first_place_of_now` of the script has it.
fn time_of_place(place: u64) -> u64 {
    const FIRST_MS: u64 = 1_735_689_600_000;
    const PLACES_OF_A_MS: u64 = 4096;
    FIRST_MS + place / PLACES_OF_A_MS
}

pub(super) fn row(name: String, found: Packed) -> Result<Row, Malformed> {
    let [version, value] = found.tuple()?;
    Ok(Row {
        name,
        version: Version(version.number()?),
        value: value.bytes()?.into(),
    })
}

/// Numbers, or bitmaps by chunk.
pub(super) fn marked(answer: Packed) -> Result<RoaringBitmap, Malformed> {
    let [numbers, chunks] = answer.tuple()?;
    let mut devices = RoaringBitmap::new();
    for number in numbers.array()? {
        devices.insert(number.number()? as u32);
    }
    for (chunk, bits) in chunks.array()?.into_iter().enumerate() {
        // Redis counts the bits of a byte from the highest.
        let bits: Vec<u8> = bits
            .bytes()?
            .iter()
            .map(|byte| byte.reverse_bits())
            .collect();
        let first = (chunk as u32) << 16;
        devices |= RoaringBitmap::from_lsb0_bytes(first, &bits);
    }
    Ok(devices)
}

pub(super) fn at_device(answer: Packed) -> Result<AtDevice, Malformed> {
    let [
        accepted_ms,
        expires_ms,
        counting,
        number,
        sets,
        connected,
        passed,
        entry,
        profile,
        collapsed_by,
        left_at,
    ] = answer.tuple()?;
    let number = number.option().map(|number| number.number());
    let entry = entry.option().map(reply::message).transpose()?;
    let marks = sets.list(|set| mark_of(&set.text()?).ok_or(Malformed))?;
    Ok(AtDevice {
        life: Some(Life {
            accepted_ms: accepted_ms.number()?,
            expires_ms: expires_ms.number()?,
            ended_ms: None,
        }),
        counting: counting.truth()?,
        number: number.transpose()?.map(|number| number as u32),
        marks: marks.into_iter().collect(),
        presence: match left_at.option() {
            _ if connected.truth()? => Presence::Connected,
            Some(at) => Presence::Away(Time(at.number()?)),
            None => Presence::Unknown,
        },
        is_passed: passed.truth()?,
        targeting: entry.and_then(|message| message.audience.clone()),
        profile: reply::profile_of(profile)?,
        collapsed_by: collapsed_by
            .option()
            .map(|by| reply::push_id(&by.bytes()?))
            .transpose()?,
    })
}

pub(super) fn away(answer: Packed) -> Result<Away, Malformed> {
    let [since_ms, expires_ms, behind, inbox] = answer.tuple()?;
    let number = |number: Packed| number.option().map(|number| number.number()).transpose();
    Ok(Away {
        since_ms: number(since_ms)?,
        expires_ms: number(expires_ms)?,
        behind: number(behind)?.map(|behind| behind as u32),
        inbox: inbox.number()? as u32,
    })
}

pub(super) fn report(answer: Packed, now_ms: u64) -> Result<Report, Malformed> {
    let [
        accepted_ms,
        expires_ms,
        targeted,
        delivered,
        dropped,
        counting,
        displayed,
        clicked,
        dismissed,
        settled,
        info,
    ] = answer.tuple()?;
    let mut counts = BTreeMap::new();
    for entry in settled.array()? {
        let [set, count] = entry.tuple()?;
        let mark = mark_of(&set.text()?).ok_or(Malformed)?;
        counts.insert(mark, count.number()?);
    }
    let report = Report {
        accepted_ms: accepted_ms.number()?,
        expires_ms: expires_ms.number()?,
        targeted: targeted.number()?,
        delivered: delivered.number()?,
        collapsed: counts.remove(&Mark::Collapsed).unwrap_or(0),
        dropped: dropped.number()?,
        counting: counting.truth()?,
        displayed: displayed.number()?,
        clicked: clicked.number()?,
        dismissed: dismissed.number()?,
        settled: counts,
        info: info.bytes()?.into(),
        ..Report::default()
    };
    Ok(report.with_rest(now_ms))
}
