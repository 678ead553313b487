//! Campaigns: what accepting one writes, and how pushes are paused, resumed and cancelled.

use std::sync::Arc;

use super::{Context, Planned, Refusal};
use crate::{
    app::AppName,
    campaign::{Campaign, Ended, How, MAX_ENDED, MAX_RUNNING, Row, State},
    device::Damaged,
    event::{Draft, What},
    id::PushId,
    options::MAX_TTL_SECONDS,
    rows::{Change, Key, MAX_VALUE_BYTES, Scope, Table, Version},
    store::{Report, Unavailable},
};

/// How long after its expiry it is known how a push ended; its report is kept no longer.
const END_KEPT_MS: u64 = MAX_TTL_SECONDS * 1000;

/// What is asked of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Nobody has a turn until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// Who has not got it does not get it.
    Cancel,
    /// The same, and devices are told to withdraw it.
    Recall,
}

/// How a push stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is no campaign, or its time is up.
    Plain,
    /// A campaign whose devices are being counted: its pace follows from that.
    Preparing,
    /// A campaign under way.
    Running,
    /// Somebody paused it.
    Paused,
    /// It stopped by itself.
    Halted,
    /// It ended before its time.
    Ended(Ended),
}

/// The answer to a [`Verb`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands so now.
    Done(Standing),
    /// There is no such push, or none any more.
    NoPush,
    /// It is no campaign: it went to everybody who was connected, and can only be cancelled.
    NoCampaign,
    /// It ended before.
    Over(Ended),
    /// Its time is up.
    Expired,
}

/// What accepting a campaign writes.
pub fn accept(
    context: &Context<'_>,
    app: &AppName,
    campaign: &Campaign,
) -> Result<Change, Refusal> {
    let scope = Scope::App(app.clone());
    let row = Row::Campaign(Box::new(campaign.clone())).encode();
    if row.len() > MAX_VALUE_BYTES {
        return Err(Refusal::Clash(format!(
            "the push has {} bytes with the list of its devices, and a campaign has at most {MAX_VALUE_BYTES}: make several of it",
            row.len()
        )));
    }
    let mut change = context
        .change(scope.clone())
        .at_most(Table::Campaign, MAX_RUNNING)
        .put_until(campaign_key(campaign.push), row, campaign.expires_ms);
    if let Some(name) = &campaign.collapses {
        let key = Key::new(Table::Collapse, name.as_str());
        let (newest, version) = context.row(&scope, &key)?;
        let before = newest.map(|row| Newest::decode(&row.value)).transpose()?;
        change = change.expect(key.clone(), version).put_until(
            key,
            Newest::of(campaign).encode(),
            campaign.expires_ms,
        );
        // A repetition finds itself.
        if let Some(before) = before.filter(|before| before.push != campaign.push) {
            let ended = Ended {
                at_ms: context.now_ms,
                how: How::Collapsed(campaign.push),
            };
            change = change.remove(campaign_key(before.push)).put_until(
                end_key(before.push),
                Row::Ended(ended).encode(),
                before.expires_ms + END_KEPT_MS,
            );
        }
    }
    Ok(change)
}

/// Does what is asked of a push.
pub fn apply(
    context: &Context<'_>,
    app: &AppName,
    push: PushId,
    verb: Verb,
) -> Result<Planned<Answer>, Refusal> {
    let scope = Scope::App(app.clone());
    let found = find(context, app, push)?;
    let Some(report) = context.reader.report(app, push, context.now_ms)? else {
        return Ok(Planned::nothing(Answer::NoPush));
    };
    if let Some((ended, version)) = found.ended {
        return Ok(match verb {
            Verb::Recall if ended.how == How::Cancelled => {
                let how = How::Recalled;
                let change = end_row(&scope, context, push, &report, Ended { how, ..ended })
                    .expect(end_key(push), version);
                let change = verb.told(change, context, app, push);
                Planned::change(
                    change,
                    Answer::Done(Standing::Ended(Ended { how, ..ended })),
                )
            }
            Verb::Cancel | Verb::Recall => Planned::nothing(Answer::Done(Standing::Ended(ended))),
            Verb::Pause | Verb::Resume => Planned::nothing(Answer::Over(ended)),
        });
    }
    match (verb, found.campaign) {
        (Verb::Pause | Verb::Resume, None) if context.now_ms >= report.expires_ms => {
            Ok(Planned::nothing(Answer::Expired))
        }
        (Verb::Pause | Verb::Resume, None) => Ok(Planned::nothing(Answer::NoCampaign)),
        (Verb::Pause | Verb::Resume, Some((campaign, version))) => {
            let after = match verb {
                Verb::Pause => campaign.clone().stopped(State::Paused(context.now_ms)),
                _ => campaign.clone().resumed(context.now_ms),
            };
            let answer = Answer::Done(Standing::of(&after));
            if after == campaign {
                return Ok(Planned::nothing(answer));
            }
            let change = put(context, &scope, after, version);
            let change = verb.told(change, context, app, push);
            Ok(Planned::change(change, answer))
        }
        (Verb::Cancel | Verb::Recall, campaign) => {
            let ended = Ended {
                at_ms: context.now_ms,
                how: match verb {
                    Verb::Recall => How::Recalled,
                    _ => How::Cancelled,
                },
            };
            let change = end_row(&scope, context, push, &report, ended)
                .expect(end_key(push), Version::ABSENT);
            let change = match campaign {
                Some((campaign, version)) => no_longer_newest(context, &scope, change, &campaign)?
                    .expect(campaign_key(push), version)
                    .remove(campaign_key(push)),
                None if context.now_ms < report.expires_ms => {
                    change.at_most(Table::Cancelled, MAX_ENDED).put_until(
                        Key::new(Table::Cancelled, push.to_string()),
                        Row::Ended(ended).encode(),
                        report.expires_ms,
                    )
                }
                // Nothing waits any more.
                None => change,
            };
            let change = verb.told(change, context, app, push);
            Ok(Planned::change(
                change,
                Answer::Done(Standing::Ended(ended)),
            ))
        }
    }
}

/// How pushes of an app stand, in the order asked for.
pub fn standing(
    context: &Context<'_>,
    app: &AppName,
    push: PushId,
) -> Result<(Standing, Option<Campaign>), Unavailable> {
    let found = find(context, app, push)?;
    let standing = match (&found.ended, &found.campaign) {
        (Some((ended, _)), _) => Standing::Ended(*ended),
        (None, Some((campaign, _))) => Standing::of(campaign),
        (None, None) => Standing::Plain,
    };
    Ok((standing, found.campaign.map(|(campaign, _)| campaign)))
}

/// What became of a push so far, and how it stands; `None` if there is no such push, or none any more.
pub fn report(
    context: &Context<'_>,
    app: &AppName,
    push: PushId,
) -> Result<Option<(Report, Standing)>, Unavailable> {
    let Some(report) = context.reader.report(app, push, context.now_ms)? else {
        return Ok(None);
    };
    let (standing, _) = standing(context, app, push)?;
    let report = match &standing {
        Standing::Ended(ended) => report.ended(ended),
        _ => report,
    };
    Ok(Some((report, standing)))
}

/// Looks after a campaign: gives it its pace once its devices are counted, and halts it if too many fail.
pub fn attend(
    context: &Context<'_>,
    app: &AppName,
    push: PushId,
) -> Result<Planned<Option<Standing>>, Refusal> {
    let scope = Scope::App(app.clone());
    let Some((campaign, version)) = find(context, app, push)?.campaign else {
        return Ok(Planned::nothing(None));
    };
    let Some(report) = context.reader.report(app, push, context.now_ms)? else {
        return Ok(Planned::nothing(None));
    };
    if campaign.uncounted_pace.is_some() {
        if report.counting {
            return Ok(Planned::nothing(None));
        }
        let counted = campaign.counted(report.targeted, context.now_ms);
        let standing = Standing::of(&counted);
        let change = put(context, &scope, counted, version);
        return Ok(Planned::change(change, Some(standing)));
    }
    let failures = report.funnel().failed.values().sum();
    let halts =
        (campaign.auto_halt).is_some_and(|rule| rule.halts(report.delivered + failures, failures));
    if !halts || campaign.state != State::Running {
        return Ok(Planned::nothing(None));
    }
    let halted = campaign.stopped(State::Halted(context.now_ms));
    let detail = format!("{failures} failures, {} deliveries", report.delivered);
    let what = What::PushHalted {
        outcomes: report.delivered + failures,
        failed: failures,
    };
    let change = put(context, &scope, halted, version)
        .audit(context, app, "push.halted", &push.to_string(), detail)
        .tell(Draft::new(None, Some(push), &what));
    Ok(Planned::change(change, Some(Standing::Halted)))
}

impl Standing {
    fn of(campaign: &Campaign) -> Standing {
        match campaign.state {
            State::Running if campaign.uncounted_pace.is_some() => Standing::Preparing,
            State::Running => Standing::Running,
            State::Paused(_) => Standing::Paused,
            State::Halted(_) => Standing::Halted,
        }
    }
}

impl Verb {
    /// The change with what the audit log and the event log say of it.
    fn told(self, change: Change, context: &Context<'_>, app: &AppName, push: PushId) -> Change {
        let what = match self {
            Verb::Pause => What::PushPaused,
            Verb::Resume => What::PushResumed,
            Verb::Cancel => What::PushCancelled,
            Verb::Recall => What::PushRecalled,
        };
        change
            .audit(context, app, what.kind().name(), &push.to_string(), "")
            .tell(Draft::new(None, Some(push), &what))
    }
}

/// What the rows say of a push.
struct Found {
    campaign: Option<(Campaign, Version)>,
    ended: Option<(Ended, Version)>,
}

fn find(context: &Context<'_>, app: &AppName, push: PushId) -> Result<Found, Unavailable> {
    let keys = [campaign_key(push), end_key(push)];
    let scope = Scope::App(app.clone());
    let rows = context.reader.rows_at(&scope, &keys, context.now_ms)?;
    let mut found = Found {
        campaign: None,
        ended: None,
    };
    for row in rows.into_iter().flatten() {
        match Row::decode(&row.value, push).map_err(unreadable)? {
            Row::Campaign(campaign) => found.campaign = Some((*campaign, row.version)),
            Row::Ended(ended) => found.ended = Some((ended, row.version)),
        }
    }
    Ok(found)
}

fn unreadable(damaged: Damaged) -> Unavailable {
    Unavailable(Arc::from(damaged.to_string()))
}

fn put(context: &Context<'_>, scope: &Scope, campaign: Campaign, version: Version) -> Change {
    let (key, expires_ms) = (campaign_key(campaign.push), campaign.expires_ms);
    context
        .change(scope.clone())
        .expect(key.clone(), version)
        .put_until(key, Row::Campaign(Box::new(campaign)).encode(), expires_ms)
}

fn end_row(
    scope: &Scope,
    context: &Context<'_>,
    push: PushId,
    report: &Report,
    ended: Ended,
) -> Change {
    context.change(scope.clone()).put_until(
        end_key(push),
        Row::Ended(ended).encode(),
        report.expires_ms + END_KEPT_MS,
    )
}

/// A push that ended is not to be collapsed any more.
fn no_longer_newest(
    context: &Context<'_>,
    scope: &Scope,
    change: Change,
    campaign: &Campaign,
) -> Result<Change, Unavailable> {
    let Some(name) = &campaign.collapses else {
        return Ok(change);
    };
    let key = Key::new(Table::Collapse, name.as_str());
    let (newest, version) = context.row(scope, &key)?;
    let Some(newest) = newest else {
        return Ok(change);
    };
    match Newest::decode(&newest.value)?.push == campaign.push {
        true => Ok(change.expect(key.clone(), version).remove(key)),
        false => Ok(change),
    }
}

fn campaign_key(push: PushId) -> Key {
    Key::new(Table::Campaign, push.to_string())
}

fn end_key(push: PushId) -> Key {
    Key::new(Table::End, push.to_string())
}

/// Which push is the newest of a collapse key.
struct Newest {
    push: PushId,
    expires_ms: u64,
}

impl Newest {
    fn of(campaign: &Campaign) -> Newest {
        Newest {
            push: campaign.push,
            expires_ms: campaign.expires_ms,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.push.0.to_be_bytes().to_vec();
        bytes.extend(self.expires_ms.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Newest, Unavailable> {
        let damaged = || Unavailable("a stored collapse key is damaged".into());
        let (push, expires_ms) = bytes.split_first_chunk::<16>().ok_or_else(damaged)?;
        let expires_ms = expires_ms.try_into().map_err(|_| damaged())?;
        Ok(Newest {
            push: PushId(u128::from_be_bytes(*push)),
            expires_ms: u64::from_be_bytes(expires_ms),
        })
    }
}
