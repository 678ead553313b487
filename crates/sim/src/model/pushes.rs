//! Pushes: what their devices get, in which order, and what the report says.

use std::collections::BTreeMap;

use campanile_broker::ids::Millis;
use campanile_push::{id::PushId, lanes::Priority, store::Report};

use super::{Campaign, Held, Model, Tick, Violation};

/// A push that an app server wants to make; retries of the same key are one.
#[derive(Debug)]
pub struct Push {
    /// For whom.
    pub audience: Audience,
    /// The lane in which it waits.
    pub priority: Priority,
    /// It takes the place of the one that waits with the same.
    pub collapse_key: Option<&'static str>,
    /// Nobody is sent it later.
    pub expires_at: Millis,
    /// It is for those who are connected now only.
    pub instant: bool,
    /// When it was first sent.
    pub submitted: Tick,
    /// What the app server knows.
    pub fate: Option<(Tick, PushFate)>,
    /// Ids that it was sent with.
    pub ids: Vec<PushId>,
    /// The id that it has.
    pub id: Option<PushId>,
    /// Devices that it is for, by the answer.
    pub targeted: u64,
    /// They are counted after the answer.
    pub is_counted_later: bool,
    /// Sessions that existed for certain when it was accepted.
    pub present: Vec<usize>,
    /// Arrivals by device.
    pub got: BTreeMap<usize, Arrived>,
    /// Figures of the last report.
    pub delivered: u64,
    /// Figures of the last report.
    pub dropped: u64,
    /// Figures of the last report.
    pub collapsed: u64,
    /// Devices of which the last report says why they did not get it.
    pub settled: u64,
    /// The store may have lost it and got it again.
    pub was_undone: bool,
    /// What makes it a campaign.
    pub campaign: Option<Campaign>,
}

/// For whom a push is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every device.
    All,
    /// These.
    Devices(Vec<usize>),
    /// Registered devices that have the tag.
    Tagged,
}

/// What an app server knows of its push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushFate {
    /// It was accepted.
    Accepted,
    /// It was refused.
    Refused,
    /// Nobody can say.
    Unknown,
}

/// The last arrival of a push at a device.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    session: usize,
    /// The node that it came from.
    node: Option<usize>,
    /// The disturbances before the connection.
    era: u64,
    /// How often the device had connected to one of several nodes.
    connections: u64,
}

impl Model {
    /// A push is about to be sent. Its number.
    pub fn pushing(&mut self, audience: Audience, expires_at: Millis, instant: bool) -> usize {
        let submitted = self.next_tick();
        self.pushes.push(Push {
            audience,
            priority: Priority::Normal,
            collapse_key: None,
            expires_at,
            instant,
            submitted,
            fate: None,
            ids: Vec::new(),
            id: None,
            targeted: 0,
            is_counted_later: false,
            present: Vec::new(),
            got: BTreeMap::new(),
            delivered: 0,
            dropped: 0,
            collapsed: 0,
            settled: 0,
            was_undone: false,
            campaign: None,
        });
        self.pushes.len() - 1
    }

    /// The app server knows what became of it.
    pub fn pushed(&mut self, push: usize, fate: PushFate) {
        let tick = self.next_tick();
        self.pushes[push].fate = Some((tick, fate));
    }

    /// A push arrives at a device. `known_since`: when the device first connected.
    pub fn on_push(
        &mut self,
        ix: usize,
        device: usize,
        session: usize,
        dup: bool,
        era: u64,
        known_since: Tick,
    ) -> Held {
        self.next_tick();
        let push = &self.pushes[ix];
        let wrong = |what: &str| {
            Err(Violation(format!(
                "client {device}: push{ix} ({push:?}) {what}"
            )))
        };
        let is_for = match &push.audience {
            // Who is connected now is a little later at other nodes.
            Audience::All if push.instant && self.many_nodes => true,
            // A portion of all is of those that are registered, whether they have ever connected; and a crash may take with it that others have just begun.
            Audience::All if push.campaign.is_some() && self.registered.contains_key(&device) => {
                true
            }
            Audience::All if self.may_have_begun_before(push, device) => true,
            // One that nobody answers for may be carried out later.
            Audience::All => push
                .fate
                .is_none_or(|(at, fate)| fate == PushFate::Unknown || known_since < at),
            Audience::Devices(devices) => devices.contains(&device),
            Audience::Tagged => true,
        };
        let is_for = is_for && self.may_be_for(ix, device);
        if !is_for {
            return wrong("came to a device that it was not for");
        }
        if matches!(push.fate, Some((_, PushFate::Refused))) {
            return wrong("came although it was refused");
        }
        let node = self.sessions[session].at.map(|(node, _)| node);
        let connections = self.connections.get(&device).copied().unwrap_or_default();
        match push.got.get(&device) {
            Some(before) => {
                // The word of an instant push may reach a node later than a device that has got it from another one.
                let has_moved = push.instant && before.node != node;
                // Who was elsewhere meanwhile, and is back before this node could hand over what was under way, gets it as if for the first time.
                let came_back = before.node == node && before.connections + 1 < connections;
                let excused =
                    dup || has_moved || came_back || before.session != session || before.era != era;
                if !excused {
                    return wrong("came again without a reason");
                }
            }
            None if !push.instant && push.campaign.is_none() => self.check_order(ix, device)?,
            None => {}
        }
        let arrived = Arrived {
            session,
            node,
            era,
            connections,
        };
        self.pushes[ix].got.insert(device, arrived);
        Ok(())
    }

    /// Whether a device may seem to have been there when a campaign was made: a crash takes with it that it had just begun, and the clocks of nodes differ.
    fn may_have_begun_before(&self, push: &Push, device: usize) -> bool {
        let (Some(campaign), Some((era, first))) = (&push.campaign, self.known_eras.get(&device))
        else {
            return false;
        };
        let skew = self.skew_ms();
        let mut accepted_ms = campaign.rows.iter().map(|row| row.accepted_ms);
        *era < self.disturbances
            || self.many_nodes && accepted_ms.any(|at_ms| first.0 <= at_ms + skew)
    }

    /// No push of the same lane that was sent after this one had been accepted may have come before it.
    fn check_order(&self, ix: usize, device: usize) -> Held {
        let Some((accepted, PushFate::Accepted)) = self.pushes[ix].fate else {
            return Ok(());
        };
        // Between inbox and log only one node knows the order at once; others may hear of them on different ways.
        let is_of_another_way = |other: &Push| {
            let is_all = |push: &Push| push.audience == Audience::All;
            self.many_nodes && is_all(other) != is_all(&self.pushes[ix])
        };
        let later = self.pushes.iter().enumerate().find(|(_, other)| {
            !other.instant
                && other.campaign.is_none()
                && other.priority == self.pushes[ix].priority
                && other.submitted > accepted
                && other.got.contains_key(&device)
                && !is_of_another_way(other)
        });
        match later {
            Some((other, _)) => Err(Violation(format!(
                "client {device}: push{ix} came after push{other}, which was made later"
            ))),
            None => Ok(()),
        }
    }

    /// A report was read from what is on disk.
    pub fn on_report(&mut self, ix: usize, report: &Report) -> Held {
        let push = &mut self.pushes[ix];
        let settled: u64 = report.settled.values().sum();
        let lost = report.dropped + report.collapsed + report.recalled + settled;
        let sum = report.delivered + report.pending + report.expired + lost;
        let is_known = push.is_counted_later || report.targeted == push.targeted;
        // Who is not counted yet is in no figure.
        let adds_up = report.counting || report.targeted == sum;
        if !adds_up || !is_known {
            return Err(Violation(format!(
                "the figures of push{ix} do not add up: {report:?} {push:?}"
            )));
        }
        if report.delivered < push.delivered {
            return Err(Violation(format!(
                "push{ix} was delivered to {} and now to fewer: {report:?}",
                push.delivered
            )));
        }
        let has_key =
            push.collapse_key.is_some() || push.campaign.as_ref().is_some_and(Campaign::collapses);
        if !has_key && report.collapsed > 0 {
            return Err(Violation(format!(
                "push{ix} has no collapse key and was replaced: {report:?} {push:?}"
            )));
        }
        (push.delivered, push.dropped) = (report.delivered, report.dropped);
        (push.collapsed, push.settled) = (report.collapsed, settled + report.dropped);
        Ok(())
    }

    /// Devices that must have got a push by now.
    fn owed_devices(&self, push: &Push) -> Vec<usize> {
        match &push.audience {
            Audience::Devices(devices) => devices.clone(),
            // Only campaigns have it.
            Audience::Tagged => Vec::new(),
            Audience::All => self.lasting(push),
        }
    }

    /// Devices whose sessions were there when a push was made, and still are.
    pub(super) fn lasting(&self, push: &Push) -> Vec<usize> {
        let lasting = push
            .present
            .iter()
            .filter(|&&session| !self.sessions[session].over);
        lasting
            .map(|&session| self.sessions[session].device)
            .collect()
    }

    /// Whether there is a push that may have taken the place of this one at a device.
    fn may_be_replaced(&self, ix: usize, device: usize) -> bool {
        let key = self.pushes[ix].collapse_key;
        let mut others = self.pushes.iter().enumerate();
        key.is_some() && others.any(|(other, push)| {
            let is_for =
                matches!(&push.audience, Audience::Devices(devices) if devices.contains(&device));
            let is_refused = matches!(push.fate, Some((_, PushFate::Refused)));
            other != ix && push.collapse_key == key && is_for && !push.instant && !is_refused
        })
    }

    pub(super) fn check_pushes(&self, now: Millis) -> Held {
        for (ix, push) in self.pushes.iter().enumerate() {
            let accepted = matches!(push.fate, Some((_, PushFate::Accepted)));
            if !accepted || push.instant || push.expires_at <= now || push.campaign.is_some() {
                continue;
            }
            let owed = self.owed_devices(push);
            let missing = owed.iter().filter(|device| !push.got.contains_key(device));
            let (replaced, lost): (Vec<usize>, Vec<usize>) =
                missing.partition(|device| self.may_be_replaced(ix, **device));
            let (replaced, lost) = (replaced.len() as u64, lost.len() as u64);
            let dropped = if self.inboxes_drop { push.dropped } else { 0 };
            let is_excused = lost <= dropped && lost + replaced <= dropped + push.collapsed;
            if is_excused && (self.inboxes_drop || replaced > 0) {
                continue;
            }
            if let Some(device) = owed.iter().find(|device| !push.got.contains_key(device)) {
                return Err(Violation(format!(
                    "client {device} never got push{ix} ({push:?})"
                )));
            }
            let all_counted = match push.audience {
                // What was under way when it was replaced has come, and may not have been acknowledged.
                Audience::Devices(_) => push.delivered + push.collapsed == push.targeted,
                Audience::All | Audience::Tagged => push.delivered >= owed.len() as u64,
            };
            if !all_counted {
                return Err(Violation(format!(
                    "everybody has push{ix}, but its report does not say so ({push:?})"
                )));
            }
        }
        Ok(())
    }
}
