//! From a request to a campaign.

use super::{Campaign, State};
use crate::{
    audience::Audience,
    clock::Zone,
    device::Damaged,
    hash,
    id::PushId,
    lanes::Priority,
    options::{Options, Pace, Portion},
    pacing::{Moment, Spread},
    request::{Invalid, Request},
    store,
    targeting::{self, Targeting},
};

impl Options {
    /// Whether a push with these options to this audience is a campaign. To named devices, priority and collapse key are matters of their inboxes.
    pub fn make_a_campaign(&self, audience: &Audience) -> bool {
        let is_named = matches!(audience, Audience::Devices(_) | Audience::Users(_));
        let is_laned = self.priority != Priority::Normal || self.collapse_key.is_some();
        // Now or never: who goes before whom does not matter.
        let is_instant = self.ttl_seconds == 0;
        self.pace.is_some()
            || self.local_time.is_some()
            || self.quiet_hours.is_some()
            || self.frequency_cap.is_some()
            || self.holds()
            || self.portion.is_some() && is_named
            || is_laned && !is_named && !is_instant
    }

    /// Whether a portion goes first and something is to be seen before the others follow.
    fn holds(&self) -> bool {
        self.portion
            .is_some_and(|portion| portion.hold_seconds.is_some() || portion.auto_halt.is_some())
    }

    /// The part of the audience that the push is for. With a hold that is all of it, a part of which goes first.
    pub fn targeted_portion(&self, push: PushId) -> Option<targeting::Portion> {
        match self.portion {
            Some(Portion {
                hundredths,
                hold_seconds: None,
                ..
            }) => Some(targeting::Portion {
                salt: hash::position(push, ""),
                basis_points: hundredths.min(u32::from(targeting::Portion::WHOLE)) as u16,
            }),
            _ => None,
        }
    }
}

impl Request {
    /// The part of an audience that the push is for, to the store and to a campaign. `audience`: whom its own was found to be.
    pub fn in_portion(
        &self,
        push: PushId,
        audience: store::Audience,
        now_ms: u64,
    ) -> Result<(store::Audience, Targeting), Damaged> {
        let portion = self.options.targeted_portion(push);
        let everyone = Targeting::everyone(now_ms);
        Ok(match audience {
            store::Audience::All => match portion {
                None => (store::Audience::All, everyone),
                Some(_) => matching(Targeting {
                    portion,
                    ..everyone
                }),
            },
            store::Audience::Devices(mut devices) => {
                devices.retain(|device| portion.is_none_or(|portion| portion.contains(device)));
                let names = Some(devices.iter().cloned().collect());
                (
                    store::Audience::Devices(devices),
                    Targeting { names, ..everyone },
                )
            }
            store::Audience::Matching(bytes) => {
                let targeting = Targeting::decode(&bytes)?;
                match portion {
                    None => (store::Audience::Matching(bytes), targeting),
                    Some(_) => matching(Targeting {
                        portion,
                        ..targeting
                    }),
                }
            }
        })
    }

    /// The campaign that the request makes of a push, for whom its audience was found to be.
    pub fn campaign(
        &self,
        push: PushId,
        targeting: Targeting,
        accepted_ms: u64,
    ) -> Result<Campaign, Invalid> {
        let options = &self.options;
        let expires_ms = self.expires_ms(accepted_ms);
        let moment = Moment {
            push,
            accepted_ms,
            expires_ms,
        };
        let spread = Spread::new(options, moment, 0, &Zone::UTC)?;
        // Its part of the audience is in the targeting already.
        let spread = match options.targeted_portion(push) {
            Some(_) => spread.without_portion(),
            None => spread,
        };
        Ok(Campaign {
            push,
            accepted_ms,
            expires_ms,
            state: State::Running,
            priority: options.priority,
            targeting,
            spread,
            uncounted_pace: match options.pace {
                Some(Pace::PerSecond(devices)) => Some(devices),
                _ => None,
            },
            cap: options.frequency_cap.clone(),
            auto_halt: options.portion.and_then(|portion| portion.auto_halt),
            collapses: (options.collapse_key.as_deref())
                .map(|key| collapse_row(key, &self.audience)),
            held_ms: 0,
            payload: self.document(push, accepted_ms),
        })
    }
}

fn matching(targeting: Targeting) -> (store::Audience, Targeting) {
    (
        store::Audience::Matching(targeting.encode().into()),
        targeting,
    )
}

/// The name of the row that says which push is the newest of a collapse key and an audience.
fn collapse_row(key: &str, audience: &Audience) -> String {
    use sha2::{Digest, Sha256};
    let audience = match audience {
        Audience::All => "all".to_owned(),
        Audience::Matching(expression) => format!("matching {expression}"),
        Audience::Segment(segment) => format!("segment {segment}"),
        Audience::Upload(upload) => format!("upload {upload}"),
        Audience::Devices(names) => format!("devices {names:?}"),
        Audience::Users(names) => format!("users {names:?}"),
    };
    let digest = Sha256::digest(format!("{audience}\0{key}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
