//! From an audience as it is asked for to one that is complete in itself.

use std::sync::Arc;

use super::{Context, Refusal, devices, segments, uploads};
use crate::{
    app::AppName,
    audience::{Audience, MAX_DEVICES},
    store,
    targeting::Targeting,
};

/// What an audience means now, to the store, of a push that is made at `pushed_ms`: users stand for the devices that they have, a segment for its
/// expression, an upload for its list. A later change of these is not about this push.
pub fn resolve(
    context: &Context<'_>,
    app: &AppName,
    audience: &Audience,
    pushed_ms: u64,
) -> Result<store::Audience, Refusal> {
    if let Some(audience) = audience.self_contained(pushed_ms) {
        return Ok(audience);
    }
    let everyone = Targeting::everyone(pushed_ms);
    let targeting = match audience {
        Audience::Users(users) => return of_users(context, app, users),
        Audience::Segment(segment) => Targeting {
            expression: Some(segments::get(context, app, segment)?.expression),
            ..everyone
        },
        Audience::Upload(upload) => Targeting {
            numbers: Some(uploads::numbers(context, app, upload)?),
            ..everyone
        },
        Audience::All | Audience::Devices(_) | Audience::Matching(_) => {
            unreachable!("these are complete in themselves")
        }
    };
    Ok(store::Audience::Matching(targeting.encode().into()))
}

fn of_users(
    context: &Context<'_>,
    app: &AppName,
    users: &[Arc<str>],
) -> Result<store::Audience, Refusal> {
    let mut found: Vec<Arc<str>> = Vec::new();
    for user in users {
        let mut after: Option<Arc<str>> = None;
        loop {
            // One more than may be, to see that it is too many.
            let limit = MAX_DEVICES + 1 - found.len();
            let (names, more) =
                devices::names_of_user(context, app, user, after.as_deref(), limit)?;
            found.extend(names);
            if found.len() > MAX_DEVICES {
                return Err(Refusal::Clash(format!(
                    "the users have more than {MAX_DEVICES} devices together; name fewer users, or give \"expr\" with user == \"..\""
                )));
            }
            if !more {
                break;
            }
            after = found.last().cloned();
        }
    }
    // One that went from one of them to another between two reads is there twice.
    found.sort_unstable();
    found.dedup();
    match (found.is_empty(), users) {
        (false, _) => Ok(store::Audience::Devices(found)),
        (true, [user]) => Err(Refusal::Missing {
            what: "device of user",
            name: user.to_string(),
        }),
        (true, _) => Err(Refusal::Missing {
            what: "device of any of these users; the first is",
            name: users.first().map(ToString::to_string).unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests;
