//! Campaigns: who gets them when, and what stops them.

use campanile_broker::ids::Millis;
use campanile_push::{
    campaign::Campaign as Row,
    clock::Zone,
    pacing::Never,
    registry::campaigns::{Standing as Stored, Verb},
};

use super::{Audience, Held, Model, PushFate, Tick, Violation};
use crate::ends::Wish;

/// Things that are done so shortly one after the other may seem to be done in the other order.
const SAME_MS: u64 = 20;

/// What makes a push a campaign.
#[derive(Debug)]
pub struct Campaign {
    /// What was asked for.
    pub wish: Wish,
    /// What it was sent as, under each of its ids.
    pub rows: Vec<Row>,
    /// How it stands, as far as those who run it know.
    pub standing: Standing,
    /// The line stood still for so long at least.
    pub held_ms: u64,
    /// Registered devices that had the tag for certain when it was sent, and those that had not.
    pub tagged: (Vec<usize>, Vec<usize>),
    /// Something was asked of it and nobody knows what became of that, or a push of its collapse key is.
    pub is_unsure: bool,
}

/// How a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Goes,
    /// Something was asked of it.
    Unsure,
    /// It was paused then. `known`: all who serve have heard of it.
    Paused {
        /// When the answer came.
        at: Millis,
        /// All who serve have heard of it.
        known: bool,
    },
    /// It ended before its time.
    Over {
        /// When the answer came.
        at: Millis,
        /// All who serve have heard of it.
        known: bool,
    },
}

/// A registered device.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// Whether it has the tag that audiences ask for, after the last change.
    pub has_tag: bool,
    /// The answer to the last change; `None`: it is under way, or nobody knows what became of it.
    pub since: Option<Tick>,
    /// When it was last asked for.
    pub changed_at: Millis,
}

/// A campaign is written to a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// The push.
    pub push: usize,
    /// The client.
    pub device: usize,
    /// Its identifier.
    pub name: &'a str,
    /// Not for the first time.
    pub dup: bool,
    /// The clock.
    pub now: Millis,
}

impl Model {
    /// A device is registered, with the tag or without.
    pub fn register(&mut self, device: usize, has_tag: bool) {
        let since = Some(self.next_tick());
        let changed_at = Millis(0);
        self.registered.insert(
            device,
            Registered {
                has_tag,
                since,
                changed_at,
            },
        );
    }

    /// The tag of a device is about to change.
    pub fn tag_changes(&mut self, device: usize, now: Millis) {
        let slack = self.skew_ms() + SAME_MS;
        if let Some(registered) = self.registered.get_mut(&device) {
            registered.has_tag = !registered.has_tag;
            (registered.since, registered.changed_at) = (None, now);
        }
        for push in &mut self.pushes {
            // Whether it had the tag when a push was made just now is not certain.
            let Some(campaign) = &mut push.campaign else {
                continue;
            };
            let is_new = |row: &Row| row.accepted_ms + slack >= now.0;
            if push.fate.is_none() || campaign.rows.iter().any(is_new) {
                campaign.tagged.0.retain(|of| *of != device);
                campaign.tagged.1.retain(|of| *of != device);
            }
        }
    }

    /// It has changed.
    pub fn tag_has_changed(&mut self, device: usize) {
        let tick = self.next_tick();
        if let Some(registered) = self.registered.get_mut(&device) {
            registered.since = Some(tick);
        }
    }

    /// A push is a campaign.
    pub fn make_campaign(&mut self, push: usize, wish: Wish) {
        self.pushes[push].campaign = Some(Campaign {
            wish,
            rows: Vec::new(),
            standing: Standing::Goes,
            held_ms: 0,
            tagged: (Vec::new(), Vec::new()),
            is_unsure: false,
        });
    }

    /// It is about to be sent, as this.
    pub fn campaign_is_sent(&mut self, push: usize, row: Row) {
        let is_first = |campaign: &Campaign| campaign.rows.is_empty();
        let slack = self.skew_ms() + SAME_MS;
        let certain = |has: bool| {
            let of = self.registered.iter();
            of.filter(|(_, device)| {
                let is_settled = device.changed_at.0 + slack < row.accepted_ms;
                device.since.is_some() && is_settled && device.has_tag == has
            })
            .map(|(at, _)| *at)
            .collect::<Vec<usize>>()
        };
        let (with, without) = (certain(true), certain(false));
        // Others of its collapse key may have to give way from now on, or it to those that are under way.
        let mut is_contested = false;
        if let Some(name) = &row.collapses {
            for (other, rival) in self.pushes.iter_mut().enumerate() {
                let is_under_way = rival.fate.is_none_or(|(_, f)| f == PushFate::Unknown);
                let Some(campaign) = &mut rival.campaign else {
                    continue;
                };
                let is_rival = campaign
                    .rows
                    .iter()
                    .any(|of| of.collapses.as_ref() == Some(name));
                if other == push || !is_rival {
                    continue;
                }
                is_contested |= is_under_way;
                if !matches!(campaign.standing, Standing::Over { .. }) {
                    campaign.is_unsure = true;
                }
            }
        }
        let Some(campaign) = &mut self.pushes[push].campaign else {
            return;
        };
        match is_first(campaign) {
            true => campaign.tagged = (with, without),
            false => {
                campaign.tagged.0.retain(|of| with.contains(of));
                campaign.tagged.1.retain(|of| without.contains(of));
            }
        }
        campaign.is_unsure |= is_contested;
        campaign.rows.push(row);
    }

    /// Campaigns that were accepted and have not ended for certain.
    pub fn campaigns_under_way(&self) -> Vec<usize> {
        let of = self.pushes.iter().enumerate().filter(|(_, push)| {
            let accepted = matches!(push.fate, Some((_, PushFate::Accepted)));
            let standing = push.campaign.as_ref().map(|campaign| campaign.standing);
            accepted && standing.is_some_and(|s| !matches!(s, Standing::Over { .. }))
        });
        of.map(|(at, _)| at).collect()
    }

    /// Something is about to be asked of a campaign. How it stood.
    pub fn campaign_is_acted_on(&mut self, push: usize, now: Millis, verb: Verb) -> Standing {
        let slack = self.skew_ms();
        let Some(campaign) = &mut self.pushes[push].campaign else {
            return Standing::Unsure;
        };
        let before = campaign.standing;
        // Whoever has not heard that it was paused sends it as if it had not been.
        if let (Verb::Resume, Standing::Paused { at, known: true }) = (verb, before)
            && !campaign.is_unsure
        {
            campaign.held_ms += (now.0 - at.0).saturating_sub(slack);
        }
        campaign.standing = Standing::Unsure;
        before
    }

    /// Nothing came of it.
    pub fn campaign_stands(&mut self, push: usize, standing: Standing) {
        let Some(campaign) = &mut self.pushes[push].campaign else {
            return;
        };
        if campaign.standing == Standing::Unsure {
            campaign.standing = standing;
        }
        // It still stands still, or somebody else has it go on.
        campaign.is_unsure = true;
    }

    /// It was done.
    pub fn campaign_was_acted_on(&mut self, push: usize, now: Millis, verb: Verb) {
        let Some(campaign) = &mut self.pushes[push].campaign else {
            return;
        };
        let known = false;
        campaign.standing = match verb {
            Verb::Pause => Standing::Paused { at: now, known },
            Verb::Resume => Standing::Goes,
            Verb::Cancel | Verb::Recall => Standing::Over { at: now, known },
        };
    }

    /// Whoever serves has heard of everything that was answered before then.
    pub fn all_have_heard(&mut self, of: Millis) {
        for campaign in self
            .pushes
            .iter_mut()
            .filter_map(|push| push.campaign.as_mut())
        {
            if let Standing::Paused { at, known } | Standing::Over { at, known } =
                &mut campaign.standing
            {
                *known |= *at <= of;
            }
        }
    }

    /// A campaign is written to a connection.
    pub fn on_campaign_sent(&mut self, sending: Sending<'_>) -> Held {
        let Sending {
            push: ix,
            device,
            name,
            dup,
            now,
        } = sending;
        let skew = self.skew_ms();
        let push = &self.pushes[ix];
        let Some(campaign) = &push.campaign else {
            return Ok(());
        };
        let wrong = |what: &str| {
            Err(Violation(format!(
                "client {device}: push{ix} {what}, at {} ({push:?})",
                now.0
            )))
        };
        match campaign.standing {
            Standing::Over { known: true, .. } => {
                return wrong("was sent although all know that it had ended");
            }
            Standing::Paused { known: true, .. } if !dup && !campaign.is_unsure => {
                return wrong("was sent although all know that it is paused");
            }
            _ => {}
        }
        if dup {
            return Ok(());
        }
        if campaign
            .rows
            .iter()
            .all(|row| now.0 >= row.expires_ms + skew)
        {
            return wrong("was sent although its time is up");
        }
        if !self.is_of_portion(ix, name) {
            return wrong("was sent to a device outside its portion");
        }
        let zones = ["UTC", "Asia/Kolkata"].map(|name| Zone::find(name).ok());
        let of_registered = self.registered.contains_key(&device);
        let zones = if of_registered {
            &zones[..]
        } else {
            &zones[..1]
        };
        let earliest = |row: &Row| {
            let spread = row.spread.held_up(campaign.held_ms);
            let stood_still = campaign.held_ms > 0 || row.uncounted_pace.is_some();
            let dues = zones.iter().map(|zone| spread.due(name, zone.as_ref()));
            dues.filter_map(|due| match due {
                Ok(due_ms) | Err(Never::ExpiresBefore { due_ms }) => Some(due_ms),
                // The line stood still, for at least as long as is known, and for longer than quiet hours perhaps.
                Err(_) => stood_still.then_some(row.accepted_ms),
            })
            .min()
        };
        match campaign.rows.iter().filter_map(earliest).min() {
            Some(due_ms) if now.0 + skew >= due_ms => Ok(()),
            Some(due_ms) => wrong(&format!("was sent before its turn at {due_ms}")),
            None => wrong("was sent to a device that never has its turn"),
        }
    }

    fn is_of_portion(&self, ix: usize, name: &str) -> bool {
        let rows = self.pushes[ix].campaign.iter().flat_map(|of| &of.rows);
        let mut portions = rows.map(|row| row.targeting.portion);
        portions.any(|portion| portion.is_none_or(|portion| portion.contains(name)))
    }

    /// Whether a campaign may be for a device, as far as that is certain.
    pub(super) fn may_be_for(&self, ix: usize, device: usize) -> bool {
        let Some(campaign) = &self.pushes[ix].campaign else {
            return true;
        };
        match self.pushes[ix].audience {
            Audience::Tagged => {
                self.registered.contains_key(&device) && !campaign.tagged.1.contains(&device)
            }
            _ => true,
        }
    }

    /// Devices that are to get a campaign when it is their turn, as far as that is certain.
    pub fn owed_campaign(&self, ix: usize) -> Vec<usize> {
        let push = &self.pushes[ix];
        let accepted = matches!(push.fate, Some((_, PushFate::Accepted)));
        let Some(campaign) = push.campaign.as_ref().filter(|_| accepted) else {
            return Vec::new();
        };
        let row = campaign.rows.iter().find(|row| Some(row.push) == push.id);
        let Some(row) = row else { return Vec::new() };
        let mut devices: Vec<usize> = match &push.audience {
            Audience::Tagged => {
                let tagged = campaign.tagged.0.iter().copied();
                let still = |at: &usize| {
                    let of = self.registered[at];
                    of.has_tag && of.since.is_some_and(|since| since < push.submitted)
                };
                tagged.filter(still).collect()
            }
            Audience::Devices(devices) => {
                // Of others no number is kept, and no memory.
                let kept = self.lasting(push);
                let is_kept = |at: &&usize| self.registered.contains_key(at) || kept.contains(at);
                devices.iter().filter(is_kept).copied().collect()
            }
            Audience::All => {
                // Who came in the same moment may have come after it.
                let before = row.accepted_ms.saturating_sub(self.skew_ms());
                let was_there = |session: &&usize| {
                    let session = &self.sessions[**session];
                    !session.over && session.began_at.0 < before
                };
                let present = push.present.iter().filter(was_there);
                present.map(|at| self.sessions[*at].device).collect()
            }
        };
        devices.sort_unstable();
        devices.dedup();
        let portion = row.targeting.portion;
        devices.retain(|device| {
            portion.is_none_or(|portion| portion.contains(&format!("c{device}")))
                && row
                    .targeting
                    .names
                    .as_ref()
                    .is_none_or(|names| names.contains(format!("c{device}").as_str()))
        });
        devices
    }

    /// How the store says that a campaign stands is what those who run it were told.
    pub fn check_standing(&self, ix: usize, stored: Stored) -> Held {
        let push = &self.pushes[ix];
        let Some(campaign) = &push.campaign else {
            return Ok(());
        };
        let fits = match campaign.standing {
            _ if campaign.is_unsure => true,
            Standing::Unsure => true,
            Standing::Goes => matches!(stored, Stored::Running | Stored::Preparing | Stored::Plain),
            Standing::Paused { .. } => matches!(stored, Stored::Paused | Stored::Plain),
            Standing::Over { .. } => matches!(stored, Stored::Ended(_)),
        };
        match fits {
            true => Ok(()),
            false => Err(Violation(format!(
                "push{ix} stands as {stored:?} in the store ({push:?})"
            ))),
        }
    }

    /// These clients are to have a campaign by now: they have it, or the report says why not.
    pub fn check_turns(&self, ix: usize, owed: &[usize]) -> Held {
        let push = &self.pushes[ix];
        let missing: Vec<usize> = (owed.iter().copied())
            .filter(|device| !push.got.contains_key(device))
            .collect();
        match missing.first() {
            Some(device) if missing.len() as u64 > push.settled => Err(Violation(format!(
                "client {device} had its turn and never got push{ix} ({push:?})"
            ))),
            _ => Ok(()),
        }
    }
}

impl Campaign {
    /// Whether it takes the place of another one, or another one its own.
    pub fn collapses(&self) -> bool {
        self.rows.iter().any(|row| row.collapses.is_some())
    }
}
