//! Schedules of an app, and the list of when which is due.
//!
//! A schedule is a row of its app. Whoever runs them must not read all of all apps each second, so there is a list in [`Scope::System`]: a row `TIME APP ID` for each time
//! at which a schedule may be due, so that what is due is the beginning of the list. The two cannot be written together, as a change is of one scope. Therefore a place
//! on the list is taken *before* the schedule is written ([`announce`]), and given up only after what was due has been done and the next place is taken ([`strike`]). A place
//! too many costs one look; a place too few would lose a run.

use prost::Message;

use super::{Context, Planned, Refusal};
use crate::{
    app::AppName,
    id::PushId,
    rows::{Key, Range, Row, SEPARATOR, Scope, Table, Version},
    schedule::{
        Change, KEPT_MS, MAX_PENDING, MAX_SCHEDULES, PUSH_KEPT_MS, Schedule, ScheduleId, State,
    },
    store::{Idempotency, Unavailable},
};

/// Milliseconds for which a place on the list is kept at least: the schedule that it was taken for may still be on its way to the store.
pub const PLACE_KEPT_MS: u64 = 60 * 1000;

/// A place on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Unix milliseconds at which the schedule may be due.
    pub due_ms: u64,
    /// Its app.
    pub app: AppName,
    /// The schedule.
    pub id: ScheduleId,
    /// Unix milliseconds at which the place was taken.
    taken_ms: u64,
    version: Version,
}

fn row(id: ScheduleId) -> Key {
    Key::new(Table::Schedule, id.to_string())
}

fn place(due_ms: u64, app: &AppName, id: ScheduleId) -> Key {
    // Digits of one width, so that the order of names is that of times.
    let name = format!("{due_ms:020}{SEPARATOR}{app}{SEPARATOR}{id}");
    Key::new(Table::Schedule, name)
}

fn missing(id: ScheduleId) -> Refusal {
    Refusal::Missing {
        what: "schedule",
        name: id.to_string(),
    }
}

fn decode(row: &Row) -> Result<Schedule, Unavailable> {
    Schedule::decode(&row.value).map_err(|damaged| Unavailable(damaged.to_string().into()))
}

fn read(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
) -> Result<(Option<Schedule>, Version), Unavailable> {
    let (row, version) = context.row(&Scope::App(app.clone()), &row(id))?;
    Ok((row.as_ref().map(decode).transpose()?, version))
}

/// A schedule, if there is one of that id.
pub fn get(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
) -> Result<Option<Schedule>, Unavailable> {
    Ok(read(context, app, id)?.0)
}

/// Schedules by their ids, from the first after `after`, and whether there are more.
pub fn list(
    context: &Context<'_>,
    app: &AppName,
    after: Option<ScheduleId>,
    limit: usize,
) -> Result<(Vec<Schedule>, bool), Unavailable> {
    let range = Range {
        scope: Scope::App(app.clone()),
        table: Table::Schedule,
        prefix: String::new(),
        after: after.map(|id| id.to_string()),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    Ok((rows.iter().map(decode).collect::<Result<_, _>>()?, more))
}

/// What became of a request for a new schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(Schedule),
    /// The same request made it before.
    Before(Schedule),
    /// The idempotency key was used for another request.
    KeyReused,
}

/// What is kept of an idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    body_hash: Vec<u8>,
}

/// What a request with this key made before, if it did.
pub fn made_before(
    context: &Context<'_>,
    app: &AppName,
    key: &Idempotency,
) -> Result<Option<Created>, Refusal> {
    let row = Key::new(Table::ScheduleKey, key.key.clone());
    let (record, _) = context.record::<KeyRecord>(&Scope::App(app.clone()), &row)?;
    let Some(record) = record else {
        return Ok(None);
    };
    if record.body_hash != key.body_hash {
        return Ok(Some(Created::KeyReused));
    }
    let bytes = record.id.try_into().unwrap_or_default();
    let id = PushId(u128::from_be_bytes(bytes));
    match get(context, app, id)? {
        Some(schedule) => Ok(Some(Created::Before(schedule))),
        None => Err(Refusal::Clash(format!(
            "the same request made the schedule {id}, which was deleted since; use a new Idempotency-Key for a new one"
        ))),
    }
}

/// Keeps a new schedule.
pub fn create(
    context: &Context<'_>,
    app: &AppName,
    schedule: &Schedule,
    key: Option<&Idempotency>,
) -> Result<Planned<Created>, Refusal> {
    if let Some(created) = key
        .map(|key| made_before(context, app, key))
        .transpose()?
        .flatten()
    {
        return Ok(Planned::nothing(created));
    }
    let mut change = context
        .change(Scope::App(app.clone()))
        .expect(row(schedule.id), Version::ABSENT)
        .put(row(schedule.id), schedule.encode())
        .at_most(Table::Schedule, MAX_SCHEDULES);
    if let Some(key) = key {
        let record = KeyRecord {
            id: schedule.id.0.to_be_bytes().into(),
            body_hash: key.body_hash.into(),
        };
        let row = Key::new(Table::ScheduleKey, key.key.clone());
        change = change.expect(row.clone(), Version::ABSENT).put_until(
            row,
            record.encode_to_vec(),
            key.expires_ms,
        );
    }
    if !schedule.is_push {
        // A push is no change of how the app is run.
        let (id, name) = (schedule.id.to_string(), schedule.name.clone());
        change = change.audit(context, app, "schedule.created", &id, name);
    }
    Ok(Planned::change(change, Created::New(schedule.clone())))
}

/// What an owner does to a schedule.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Changes fields.
    Fields(Box<Change>),
    /// Stops planning.
    Pause,
    /// Goes on planning.
    Resume,
    /// Runs it now.
    Run,
}

impl Edit {
    /// What it is called in the audit log.
    fn action(&self) -> &'static str {
        match self {
            Edit::Fields(_) => "schedule.changed",
            Edit::Pause => "schedule.paused",
            Edit::Resume => "schedule.resumed",
            Edit::Run => "schedule.run",
        }
    }

    fn apply(&self, schedule: &mut Schedule, context: &Context<'_>) -> Result<(), Refusal> {
        let ended = || {
            let what = "the schedule has ended: change its \"when\" to use it again";
            Err(Refusal::Clash(what.to_owned()))
        };
        match self {
            Edit::Fields(_) if schedule.is_push => {
                let what = "a push that waits can be run, paused and deleted, but not changed: delete it and push anew";
                Err(Refusal::Clash(what.to_owned()))
            }
            Edit::Fields(change) => Ok(schedule.apply(Change::clone(change), context.now_ms)?),
            Edit::Pause | Edit::Resume if schedule.state == State::Ended => ended(),
            Edit::Pause => {
                schedule.pause();
                Ok(())
            }
            Edit::Resume => {
                schedule.resume(context.now_ms);
                Ok(())
            }
            Edit::Run if schedule.is_push && schedule.state == State::Ended => {
                Err(Refusal::Clash("the push was made already".to_owned()))
            }
            Edit::Run => match schedule.run_now(PushId(context.unique), context.now_ms) {
                true => Ok(()),
                false => Err(Refusal::Clash(format!(
                    "{MAX_PENDING} runs of the schedule wait to be made already: wait for them"
                ))),
            },
        }
    }
}

/// Changes a schedule. `from_ms` is when a place on the list was taken for it with [`announce`]: if it is due before, the change is refused as contended.
pub fn edit(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
    edit: &Edit,
    from_ms: Option<u64>,
) -> Result<Planned<Schedule>, Refusal> {
    let (schedule, version) = read(context, app, id)?;
    let before = schedule.ok_or_else(|| missing(id))?;
    let mut schedule = before.clone();
    edit.apply(&mut schedule, context)?;
    if schedule == before {
        return Ok(Planned::nothing(schedule));
    }
    let is_announced =
        |due_ms| Some(due_ms) == before.due_ms() || from_ms.is_some_and(|at| at <= due_ms);
    if !schedule.due_ms().is_none_or(is_announced) {
        return Err(Refusal::Contended);
    }
    let change = write(context, app, &schedule, version).audit(
        context,
        app,
        edit.action(),
        &id.to_string(),
        schedule.name.clone(),
    );
    Ok(Planned::change(change, schedule))
}

/// When a schedule will be due first after a change, so that a place on the list can be taken for it; `None`: it needs none.
pub fn due_after(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
    edit: &Edit,
) -> Result<Option<u64>, Refusal> {
    let mut schedule = get(context, app, id)?.ok_or_else(|| missing(id))?;
    let before = schedule.due_ms();
    edit.apply(&mut schedule, context)?;
    Ok(schedule.due_ms().filter(|due_ms| Some(*due_ms) != before))
}

/// Removes a schedule. Runs that are pending are not made any more, but one may be under way.
pub fn delete(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
) -> Result<Planned<()>, Refusal> {
    let (schedule, version) = read(context, app, id)?;
    let schedule = schedule.ok_or_else(|| missing(id))?;
    let change = context
        .change(Scope::App(app.clone()))
        .expect(row(id), version)
        .remove(row(id))
        .audit(
            context,
            app,
            "schedule.deleted",
            &id.to_string(),
            schedule.name,
        );
    Ok(Planned::change(change, ()))
}

fn write(
    context: &Context<'_>,
    app: &AppName,
    schedule: &Schedule,
    version: Version,
) -> crate::rows::Change {
    let change = context
        .change(Scope::App(app.clone()))
        .expect(row(schedule.id), version);
    let kept_ms = if schedule.is_push {
        PUSH_KEPT_MS
    } else {
        KEPT_MS
    };
    match schedule.due_ms() {
        None if schedule.state == State::Ended => change.put_until(
            row(schedule.id),
            schedule.encode(),
            context.now_ms + kept_ms,
        ),
        _ => change.put(row(schedule.id), schedule.encode()),
    }
}

/// Takes a place on the list.
pub fn announce(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
    due_ms: u64,
) -> Result<Planned<()>, Refusal> {
    let change = context.change(Scope::System).put(
        place(due_ms, app, id),
        context.now_ms.to_be_bytes().to_vec(),
    );
    Ok(Planned::change(change, ()))
}

/// Places of schedules that may be due now, the earliest first, from the first after `after`; and whether there may be more.
pub fn due(
    context: &Context<'_>,
    after: Option<&Place>,
    limit: usize,
) -> Result<(Vec<Place>, bool), Unavailable> {
    let range = Range {
        scope: Scope::System,
        table: Table::Schedule,
        prefix: String::new(),
        after: after.map(|after| place(after.due_ms, &after.app, after.id).name),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let mut places = Vec::with_capacity(rows.len());
    for row in &rows {
        let place = Place::of(row).ok_or_else(|| {
            let name = &row.name;
            Unavailable(format!("the list of schedules has a damaged row {name:?}").into())
        })?;
        if place.due_ms > context.now_ms {
            return Ok((places, false));
        }
        places.push(place);
    }
    Ok((places, more))
}

impl Place {
    fn of(row: &Row) -> Option<Place> {
        let mut parts = row.name.split(SEPARATOR);
        Some(Place {
            due_ms: parts.next()?.parse().ok()?,
            app: AppName::new(parts.next()?).ok()?,
            id: parts.next()?.parse().ok()?,
            taken_ms: u64::from_be_bytes(row.value.as_ref().try_into().ok()?),
            version: row.version,
        })
    }
}

/// What is to be done for a schedule now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The schedule, with the runs to make in its list of pending ones.
    pub schedule: Schedule,
    /// Planned times that were settled as missed just now.
    pub missed: u64,
}

/// Settles what is due of a schedule. `None`: it is gone.
///
/// The place for what comes next must be taken before: [`next_place`]. Where a settled time made another next, it is refused as contended.
pub fn choose(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
    next_ms: Option<u64>,
) -> Result<Planned<Option<Work>>, Refusal> {
    let (schedule, version) = read(context, app, id)?;
    let Some(before) = schedule else {
        return Ok(Planned::nothing(None));
    };
    let Some(schedule) = before.choose(app, context.now_ms) else {
        return Ok(Planned::nothing(Some(Work {
            schedule: before,
            missed: 0,
        })));
    };
    let missed = schedule.figures().missed - before.figures().missed;
    let next = schedule.next_runs(1).pop();
    if next.is_some_and(|next| next_ms.is_none_or(|place| place > next)) {
        return Err(Refusal::Contended);
    }
    let change = write(context, app, &schedule, version);
    Ok(Planned::change(change, Some(Work { schedule, missed })))
}

/// A time at which a schedule is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// In Unix milliseconds.
    pub at_ms: u64,
    /// Whether it has its place on the list.
    pub is_taken: bool,
}

/// When the next planned time is, once what is due now is settled; `None`: there is none.
pub fn next_place(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
) -> Result<Option<Next>, Unavailable> {
    let Some(schedule) = get(context, app, id)? else {
        return Ok(None);
    };
    let then = schedule.choose(app, context.now_ms).unwrap_or(schedule);
    let Some(at_ms) = then.next_runs(1).pop() else {
        return Ok(None);
    };
    let (row, _) = context.row(&Scope::System, &place(at_ms, app, id))?;
    let is_taken = row.is_some();
    Ok(Some(Next { at_ms, is_taken }))
}

/// Takes a run off the list of pending ones, with the reason if it was refused.
pub fn finish(
    context: &Context<'_>,
    app: &AppName,
    id: ScheduleId,
    push: PushId,
    failure: Option<&str>,
) -> Result<Planned<()>, Refusal> {
    let (schedule, version) = read(context, app, id)?;
    let Some(mut schedule) = schedule else {
        return Ok(Planned::nothing(()));
    };
    if !schedule.finish(push, failure.map(ToOwned::to_owned)) {
        return Ok(Planned::nothing(()));
    }
    Ok(Planned::change(write(context, app, &schedule, version), ()))
}

/// Gives a place up, if nobody has taken it again, once all that was due is done. It stays a while: see [`PLACE_KEPT_MS`].
pub fn strike(context: &Context<'_>, place_of: &Place) -> Result<Planned<()>, Refusal> {
    let key = place(place_of.due_ms, &place_of.app, place_of.id);
    let is_young = context.now_ms < place_of.taken_ms.saturating_add(PLACE_KEPT_MS);
    let (_, version) = context.row(&Scope::System, &key)?;
    if is_young || version != place_of.version {
        return Ok(Planned::nothing(()));
    }
    let change = context
        .change(Scope::System)
        .expect(key.clone(), version)
        .remove(key);
    Ok(Planned::change(change, ()))
}

#[cfg(test)]
mod tests;
