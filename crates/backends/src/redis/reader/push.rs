//! What the push domain reads.

use std::sync::Arc;

use campanile_push::{
    app::AppName,
    explanation::AtDevice,
    id::PushId,
    receipt::Mark,
    rows::{Key, Range, Row, Scope, Table},
    series::Series,
    store::{
        Away, EventPage, Idempotency, Listed, MAX_LOOKED_AT, Outcome, Past, Report, Stored,
        Unavailable,
    },
};
use roaring::RoaringBitmap;

use super::{
    RedisReader,
    answers::{
        at_device, away, cohort_parts, listed_events, marked, named_row, push_id, report, row,
        series,
    },
    malformed,
};
use crate::redis::{
    APPS_TAG,
    pack::{Malformed, Pack, Packed},
    reply,
    request::{hex, set_of},
};

/// Parts of a cohort that are read by one script, of 512 device numbers each: a few milliseconds of the server's time where it is large.
const COHORT_PARTS_AT_ONCE: u64 = 64;

impl campanile_push::store::Reader for RedisReader {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("rows_at")
            .number(now_ms)
            .list(keys.iter(), |pack, key| {
                pack.array(2).number(key.table as u64).text(&key.name);
            });
        let answer = self.ask(tag_of(scope), pack)?;
        let rows = answer.array().map_err(|Malformed| malformed())?;
        if rows.len() != keys.len() {
            return Err(malformed().into());
        }
        let rows = keys.iter().zip(rows).map(|(key, found)| {
            let row = found.option().map(|found| row(key.name.clone(), found));
            row.transpose()
        });
        Ok(rows
            .collect::<Result<_, Malformed>>()
            .map_err(|Malformed| malformed())?)
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        let mut pack = Pack::default();
        pack.array(6)
            .text("rows")
            .number(now_ms)
            .number(range.table as u64)
            .text(&range.prefix)
            .option(range.after.as_ref(), |pack, after| {
                pack.text(after);
            })
            .number(range.limit as u64);
        let answer = self.ask(tag_of(&range.scope), pack)?;
        let page = |answer: Packed| {
            let [rows, more] = answer.tuple()?;
            Ok((rows.list(named_row)?, more.truth()?))
        };
        Ok(page(answer).map_err(|Malformed| malformed())?)
    }

    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2).text("count_rows").number(table as u64);
        let answer = self.ask(tag_of(scope), pack)?;
        Ok(answer.number().map_err(|Malformed| malformed())?)
    }

    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2)
            .text("numbers")
            .list(devices.iter(), |pack, device| {
                pack.text(device);
            });
        let answer = self.ask(app.as_str(), pack)?;
        let number = |found: Packed| {
            let number = found.option().map(|found| found.number());
            Ok(number.transpose()?.map(|number| number as u32))
        };
        Ok(answer.list(number).map_err(|Malformed| malformed())?)
    }

    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable> {
        let mut numbers = RoaringBitmap::new();
        for first in (0..).step_by(COHORT_PARTS_AT_ONCE as usize) {
            let mut pack = Pack::default();
            pack.array(5)
                .text("cohort")
                .text(cohort)
                .number(most)
                .number(first)
                .number(COHORT_PARTS_AT_ONCE);
            let answer = self.ask(app.as_str(), pack)?;
            let page = |answer: Packed| {
                let [parts, all] = answer.tuple()?;
                let parts = parts.option().map(cohort_parts).transpose()?;
                Ok((parts, all.truth()?))
            };
            let (parts, all) = page(answer).map_err(|Malformed| malformed())?;
            let Some(parts) = parts else {
                return Ok(None);
            };
            numbers |= parts;
            if all {
                break;
            }
        }
        Ok(Some(numbers))
    }

    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2)
            .text("numbered")
            .list(numbers.iter(), |pack, number| {
                pack.number(u64::from(*number));
            });
        let answer = self.ask(app.as_str(), pack)?;
        let found = |found: Packed| found.option().map(named_row).transpose();
        Ok(answer.list(found).map_err(|Malformed| malformed())?)
    }

    fn numbers_end(&self, app: &AppName) -> Result<u32, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("numbers_end");
        let end = self.ask(app.as_str(), pack)?.number();
        Ok(end.map_err(|Malformed| malformed())? as u32)
    }

    fn sessions(&self, app: &AppName) -> Result<u64, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("sessions");
        let sessions = self.ask(app.as_str(), pack)?.number();
        Ok(sessions.map_err(|Malformed| malformed())?)
    }

    fn answered(
        &self,
        app: &AppName,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(4)
            .text("answered")
            .text(&idempotency.key)
            .bytes(&idempotency.body_hash)
            .number(now_ms);
        let answer = self.ask(app.as_str(), pack)?.option();
        let outcome = answer.map(reply::answered).transpose();
        Ok(outcome.map_err(|Malformed| malformed())?)
    }

    fn stored(&self, app: &AppName) -> Result<Stored, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("stored");
        let stored = |answer: Packed| {
            Ok(Stored {
                bytes: answer.number()?,
            })
        };
        Ok(stored(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }

    fn marked(&self, app: &AppName, id: PushId, mark: Mark) -> Result<RoaringBitmap, Unavailable> {
        let Some(set) = set_of(mark) else {
            return Ok(RoaringBitmap::new());
        };
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(3).text("marked").text(&id).text(set);
        let answer = self.ask(app.as_str(), pack)?;
        Ok(marked(answer).map_err(|Malformed| malformed())?)
    }

    fn at_device(&self, app: &AppName, id: PushId, device: &str) -> Result<AtDevice, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(4)
            .text("at_device")
            .text(&id)
            .text(device)
            .number(self.partitions.into());
        let answer = self.ask(app.as_str(), pack)?.option().map(at_device);
        let found = answer.transpose().map_err(|Malformed| malformed())?;
        Ok(found.unwrap_or_default())
    }

    fn away(&self, app: &AppName, device: &str, now_ms: u64) -> Result<Option<Away>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(5)
            .text("away")
            .text(device)
            .number(self.partitions.into())
            .number(now_ms)
            .number(Away::MOST_BEHIND.into());
        let found = self.ask(app.as_str(), pack)?.option().map(away);
        Ok(found.transpose().map_err(|Malformed| malformed())?)
    }

    fn report(
        &self,
        app: &AppName,
        id: PushId,
        now_ms: u64,
    ) -> Result<Option<Report>, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(2).text("report").text(&id);
        let answer = self.ask(app.as_str(), pack)?;
        let report = answer.option().map(|answer| report(answer, now_ms));
        Ok(report.transpose().map_err(|Malformed| malformed())?)
    }

    fn events(&self, app: &AppName, after: u64, limit: usize) -> Result<EventPage, Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("events")
            .number(after)
            .number(limit as u64);
        Ok(self
            .runtime
            .block_on(self.lasting_events(app.as_str(), &pack.into_bytes()))?)
    }

    fn past(
        &self,
        app: &AppName,
        device: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Past, Unavailable> {
        let mut pack = Pack::default();
        pack.array(5)
            .text("past")
            .option(device, |pack, device| {
                pack.text(device);
            })
            .option(before, |pack, before| {
                pack.number(before);
            })
            .number(limit as u64)
            .number(MAX_LOOKED_AT as u64);
        let past = |answer: Packed| {
            let [events, before] = answer.tuple()?;
            let before = before.option().map(|before| before.number()).transpose()?;
            Ok(Past {
                events: listed_events(events)?,
                before,
            })
        };
        Ok(past(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }

    fn series(&self, app: &AppName, id: PushId) -> Result<Series, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(2).text("series").text(&id);
        let answer = self.ask(app.as_str(), pack)?;
        Ok(series(answer).map_err(|Malformed| malformed())?)
    }

    fn pushes(
        &self,
        app: &AppName,
        before: Option<PushId>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("pushes")
            .option(before, |pack, id| {
                pack.text(&hex(campanile_broker::ids::MessageId(id.0)));
            })
            .number(limit as u64);
        let listed = |answer: Packed| {
            let [pushes, more] = answer.tuple()?;
            let pushes = pushes.list(|push| {
                let [id, accepted_ms, expires_ms, info] = push.tuple()?;
                Ok(Listed {
                    id: push_id(id)?,
                    accepted_ms: accepted_ms.number()?,
                    expires_ms: expires_ms.number()?,
                    info: info.bytes()?.into(),
                })
            })?;
            Ok((pushes, more.truth()?))
        };
        Ok(listed(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }
}

fn tag_of(scope: &Scope) -> &str {
    match scope {
        Scope::System => APPS_TAG,
        Scope::App(app) => app.as_str(),
    }
}
