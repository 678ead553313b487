//! The rules of what an app keeps in rows: each is a *plan*, which reads rows, decides, and says what is to be written.
//!
//! A plan is a function of a [`Context`]; it may be made several times, since whoever comes second with a change meets a conflict and plans anew
//! ([`carry_out`]). Start at [`apps`].

pub mod apps;
pub mod audiences;
pub mod audit;
pub mod campaigns;
pub mod census;
mod cohorts;
pub mod device_keys;
pub mod device_rules;
pub mod devices;

pub mod listeners;
pub mod open;
pub mod permission;
pub mod schedules;
pub mod segments;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod uploads;
pub mod webhooks;

use std::sync::Arc;

use prost::Message;

use crate::{
    app::AppName,
    device::Profile,
    request::Invalid,
    rows::{Change, Key, Row, Scope, Table, Version},
    store::{Command, Outcome, Reader, Unavailable},
};

/// How often a plan is made anew after a conflict, before whoever asked is told to come again.
pub const ATTEMPTS: usize = 16;

/// What a plan works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What is committed.
    pub reader: &'a dyn Reader,
    /// Unix milliseconds now.
    pub now_ms: u64,
    /// A new ULID, of the present time: the name of whatever the plan makes.
    pub unique: u128,
    /// On whose behalf, for the audit log: `key k_..`, or `operator`.
    pub actor: &'a str,
}

/// What is to be written, and what whoever asked is told then.
#[derive(Clone, Debug)]
pub struct Planned<T> {
    /// `None`: everything is as it shall be.
    pub change: Option<Change>,
    /// The answer once that is durable.
    pub answer: T,
}

impl<T> Planned<T> {
    /// This is to be written.
    pub fn change(change: Change, answer: T) -> Planned<T> {
        Planned {
            change: Some(change),
            answer,
        }
    }

    /// There is nothing to write.
    pub fn nothing(answer: T) -> Planned<T> {
        Planned {
            change: None,
            answer,
        }
    }
}

/// Why a plan cannot be made or carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it is about is not there.
    #[error("there is no {what} {name:?}")]
    Missing {
        /// The kind of thing.
        what: &'static str,
        /// Its name as it was given.
        name: String,
    },
    /// What it shall make is there already.
    #[error("there is a {what} {name:?} already")]
    Exists {
        /// The kind of thing.
        what: &'static str,
        /// Its name as it was given.
        name: String,
    },
    /// It does not go with what is there; the text says what does.
    #[error("{0}")]
    Clash(String),
    /// The app is being deleted.
    #[error("app {app} is being deleted; once that is done, its name is free")]
    Leaving {
        /// Its name.
        app: AppName,
    },
    /// A quota or bound is reached.
    #[error(
        "the app has as many {what} as it may have, {limit}; remove some, or have the quota raised"
    )]
    Full {
        /// The kind of things.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// What was asked is not allowed, whatever is there.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Others change the same thing all the time.
    #[error("others are changing the same thing; nothing happened, try again")]
    Contended,
    /// The store cannot be reached. Nothing happened.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Context<'_> {
    /// A row, and the version to expect of it.
    pub fn row(&self, scope: &Scope, key: &Key) -> Result<(Option<Row>, Version), Unavailable> {
        let row = self
            .reader
            .rows_at(scope, std::slice::from_ref(key), self.now_ms)?
            .pop()
            .flatten();
        let version = row.as_ref().map_or(Version::ABSENT, |row| row.version);
        Ok((row, version))
    }

    /// A record in a row, and the version to expect of it.
    pub fn record<R: Message + Default>(
        &self,
        scope: &Scope,
        key: &Key,
    ) -> Result<(Option<R>, Version), Unavailable> {
        let (row, version) = self.row(scope, key)?;
        let record = row.map(|row| decode(&row.value, key.table)).transpose()?;
        Ok((record, version))
    }

    /// A change of now.
    pub fn change(&self, scope: Scope) -> Change {
        Change::new(scope, self.now_ms)
    }
}

/// Reads the profile in a row of [`Table::Device`].
pub fn decode_profile(value: &[u8]) -> Result<Profile, Unavailable> {
    Profile::decode(value).map_err(|damaged| Unavailable(damaged.to_string().into()))
}

/// Reads a record of a table.
pub fn decode<R: Message + Default>(value: &[u8], table: Table) -> Result<R, Unavailable> {
    R::decode(value).map_err(|_| {
        Unavailable(Arc::from(format!(
            "a stored row of table {table:?} is damaged; restore the store from a backup"
        )))
    })
}

/// Plans and writes, and plans anew after a conflict. Blocks as `submit` does.
///
/// `full` words the refusal of a table that would have too many rows.
pub fn carry_out<T>(
    context: &Context<'_>,
    mut submit: impl FnMut(Command) -> Result<Outcome, Unavailable>,
    plan: impl Fn(&Context<'_>) -> Result<Planned<T>, Refusal>,
) -> Result<T, Refusal> {
    for _ in 0..ATTEMPTS {
        let Planned { change, answer } = plan(context)?;
        let Some(change) = change else {
            return Ok(answer);
        };
        let bounds = change.bounds.clone();
        let outcome = submit(Command::Change(Box::new(change)))?;
        if settle(outcome, &bounds)? {
            return Ok(answer);
        }
    }
    Err(Refusal::Contended)
}

/// What the outcome of a change means: done, or to be planned anew.
pub fn settle(outcome: Outcome, bounds: &[(Table, u64)]) -> Result<bool, Refusal> {
    match outcome {
        Outcome::Changed { .. } => Ok(true),
        Outcome::Conflict => Ok(false),
        Outcome::Full { table } => {
            let bound = bounds.iter().find(|(of, _)| *of == table);
            Err(Refusal::Full {
                what: things(table),
                limit: bound.map_or(0, |(_, limit)| *limit),
            })
        }
        other => Err(Refusal::Unavailable(Unavailable(Arc::from(format!(
            "it answered a change with {other:?}"
        ))))),
    }
}

/// What the rows of a table are called.
fn things(table: Table) -> &'static str {
    match table {
        Table::App | Table::Deletion => "apps",
        Table::Key | Table::AppKey => "API keys",
        Table::Device => "devices",
        Table::UserDevice => "devices of users",
        Table::Segment => "segments",
        Table::Upload => "uploads",
        Table::Schedule | Table::ScheduleKey => "schedules",
        Table::Audit => "audit records",
        Table::Count | Table::Collapse | Table::End | Table::Open => "pushes",
        Table::Cancelled => "cancelled pushes",
        Table::Campaign => "campaigns under way",
        Table::Webhook | Table::Told => "webhooks",
        Table::Listener => "event streams",
        Table::Retry => "events to be sent again",
        Table::DeadLetter => "dead letters",
        Table::Teller => "apps",
        Table::CallbackSecret => "secrets",
        Table::DeviceToken => "tokens of devices",
        Table::DeviceKey => "device keys",
        Table::AppSetting => "settings",
    }
}
