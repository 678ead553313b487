//! Whoever runs campaigns: what is asked for beside a push, what is done with it afterwards, and what the node that leads does for it. By the rules of the
//! product, whose plans it carries out as the API does.

use std::collections::VecDeque;

use campanile_backends::Reader;
use campanile_broker::{ids::Millis, store::StoreError};
use campanile_push::{
    device::{Patch, Profile},
    id::PushId,
    registry::{
        Context, Planned,
        campaigns::{self, Verb},
        census,
    },
    rows::{Change, Key, Scope, Table},
    store::{Command, Outcome},
};

use super::{Ends, api::app, wishes::TAG};
use crate::{
    model::{Held, Standing, Violation},
    rng::Rng,
};

/// See the module. Chance has a source of its own, so that everything else goes on as without.
pub struct Desk {
    pub(super) rng: Rng,
    asked: Option<Asked>,
}

/// What is under way.
struct Asked {
    what: Task,
    number: Option<u64>,
}

/// What the desk does.
enum Task {
    /// Something is asked of a campaign, that stood so.
    Act(usize, Verb, Standing),
    /// The node that leads looks after a campaign.
    Attend,
    /// A registered device gets the tag, or loses it.
    Tag(usize),
    /// Devices of pushes are counted: what is still to be written.
    Count(VecDeque<Command>),
}

impl Desk {
    /// Of a seed.
    pub fn new(seed: u64) -> Desk {
        Desk {
            rng: Rng::new(seed ^ 0x6361_6d70_6169_676e),
            asked: None,
        }
    }

    /// Whether it does something now, instead of an app server.
    pub fn acts(&mut self) -> bool {
        self.rng.chance(500)
    }
}

impl Ends {
    /// Whoever runs campaigns does something. What is to be written, if anything is; [`Ends::desk_asked`] says under which number it was.
    pub fn act_at_desk(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let desk = self.desk.as_mut()?;
        let is_waiting = |asked: &Asked| asked.number.is_some();
        if desk.asked.as_ref().is_some_and(is_waiting) {
            return None;
        }
        if let Some(Asked {
            what: Task::Count(commands),
            ..
        }) = &mut desk.asked
            && let Some(next) = commands.pop_front()
        {
            return Some(next);
        }
        desk.asked = None;
        match desk.rng.weighted(&[50, 20, 15, 15]) {
            Some(0) => self.act_on_campaign(reader, clock),
            Some(1) => self.attend(reader, clock),
            Some(2) => self.change_tag(reader, clock),
            _ => self.count(reader, clock),
        }
    }

    /// Everything that the node that leads does of itself. What is to be written next, if anything is.
    pub fn lead(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let desk = self.desk.as_mut()?;
        match &mut desk.asked {
            Some(asked) if asked.number.is_some() => return None,
            Some(Asked {
                what: Task::Count(commands),
                ..
            }) if !commands.is_empty() => return commands.pop_front(),
            _ => {}
        }
        self.count(reader, clock)
            .or_else(|| self.attend(reader, clock))
    }

    /// Campaigns that were paused go on, one after the other. What is to be written, if anything is.
    pub fn resume_next(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let is_waiting = |asked: &Asked| asked.number.is_some();
        if self.desk.as_ref()?.asked.as_ref().is_some_and(is_waiting) {
            return None;
        }
        for push in self.model.campaigns_under_way() {
            let id = self.model.pushes[push].id?;
            let planned =
                campaigns::apply(&context(reader, clock), &app(), id, Verb::Resume).ok()?;
            if let Some(change) = planned.change {
                let before = self
                    .model
                    .campaign_is_acted_on(push, self.now, Verb::Resume);
                return Some(self.ask(Task::Act(push, Verb::Resume, before), change));
            }
        }
        None
    }

    fn act_on_campaign(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let accepted = self.model.campaigns_under_way();
        let desk = self.desk.as_mut()?;
        if accepted.is_empty() {
            return None;
        }
        let push = *desk.rng.pick(&accepted);
        let stands = self.model.pushes[push].campaign.as_ref()?.standing;
        let verb = match stands {
            Standing::Paused { .. } => *desk.rng.pick(&[Verb::Resume, Verb::Resume, Verb::Cancel]),
            _ => *desk.rng.pick(&[
                Verb::Pause,
                Verb::Pause,
                Verb::Resume,
                Verb::Cancel,
                Verb::Recall,
            ]),
        };
        let id = self.model.pushes[push].id?;
        let planned = campaigns::apply(&context(reader, clock), &app(), id, verb).ok()?;
        let change = planned.change?;
        self.trace
            .note(|| format!("{} desk: {verb:?} push{push}", self.steps));
        let before = self.model.campaign_is_acted_on(push, self.now, verb);
        Some(self.ask(Task::Act(push, verb, before), change))
    }

    fn attend(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        for push in self.model.campaigns_under_way() {
            let id = self.model.pushes[push].id?;
            let planned = campaigns::attend(&context(reader, clock), &app(), id);
            if let Ok(Planned {
                change: Some(change),
                ..
            }) = planned
            {
                self.trace
                    .note(|| format!("{} desk: attends push{push}", self.steps));
                return Some(self.ask(Task::Attend, change));
            }
        }
        None
    }

    fn change_tag(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let devices: Vec<usize> = self.model.registered.keys().copied().collect();
        let desk = self.desk.as_mut()?;
        if devices.is_empty() {
            return None;
        }
        let device = *desk.rng.pick(&devices);
        let key = Key::new(Table::Device, self.clients[device].plan.name.as_str());
        let scope = Scope::App(app());
        let (row, version) = context(reader, clock).row(&scope, &key).ok()?;
        let profile = Profile::decode(&row?.value).expect("it was written here");
        let has = self.model.registered[&device].has_tag;
        let patch = match has {
            true => Patch::remove_tag(TAG),
            false => Patch::add_tag(TAG),
        };
        let now_ms = clock.0.max(profile.updated_ms() + 1);
        let profile = profile.apply(&patch.expect("a valid tag"), now_ms).ok()?;
        let change = Change::new(scope, clock.0)
            .expect(key.clone(), version)
            .put(key, profile.encode());
        self.trace
            .note(|| format!("{} desk: c{device} has the tag: {}", self.steps, !has));
        self.model.tag_changes(device, self.now);
        Some(self.ask(Task::Tag(device), change))
    }

    fn count(&mut self, reader: &dyn Reader, clock: Millis) -> Option<Command> {
        let reader: &dyn campanile_push::store::Reader = reader;
        let due = census::due(reader, &app(), clock.0).ok()?;
        let is_there = |push: &PushId| matches!(reader.report(&app(), *push, clock.0), Ok(Some(_)));
        let due: Vec<_> = due.into_iter().filter(|(push, _)| is_there(push)).collect();
        if due.is_empty() {
            return None;
        }
        let mut count = census::Count::new(app(), due);
        while !count.go_on(reader, clock.0).ok()? {}
        let mut commands: VecDeque<Command> = count.commands(clock.0).into();
        let first = commands.pop_front();
        let desk = self.desk.as_mut()?;
        desk.asked = Some(Asked {
            what: Task::Count(commands),
            number: None,
        });
        first
    }

    /// Something is to be written for a task.
    fn ask(&mut self, what: Task, change: Change) -> Command {
        if let Some(desk) = &mut self.desk {
            desk.asked = Some(Asked { what, number: None });
        }
        Command::Change(Box::new(change))
    }

    /// What the desk wants written was sent under a number.
    pub fn desk_asked(&mut self, number: u64) {
        if let Some(asked) = self.desk.as_mut().and_then(|desk| desk.asked.as_mut()) {
            asked.number = Some(number);
        }
    }

    /// An answer to the desk. Whether it was one.
    pub(super) fn on_desk_answer(
        &mut self,
        number: u64,
        answer: &Result<Outcome, StoreError>,
    ) -> Held {
        let Some(desk) = &mut self.desk else {
            return Ok(());
        };
        let is_it = |asked: &mut Asked| asked.number == Some(number);
        let Some(mut asked) = desk.asked.take_if(is_it) else {
            return Ok(());
        };
        match (&mut asked.what, answer) {
            (Task::Count(commands), Ok(_)) => {
                if !commands.is_empty() {
                    asked.number = None;
                    desk.asked = Some(asked);
                }
            }
            (Task::Act(push, verb, _), Ok(Outcome::Changed { .. })) => {
                let (push, verb) = (*push, *verb);
                self.trace
                    .note(|| format!("  desk: push{push}: {verb:?} is done"));
                self.model.campaign_was_acted_on(push, self.now, verb);
            }
            // Nothing happened.
            (
                Task::Act(push, _, before),
                Ok(Outcome::Conflict) | Err(StoreError::Unavailable(_)),
            ) => self.model.campaign_stands(*push, *before),
            (Task::Tag(device), Ok(Outcome::Changed { .. })) => self.model.tag_has_changed(*device),
            (_, Ok(Outcome::Changed { .. } | Outcome::Conflict) | Err(_)) => {}
            (_, Ok(other)) => {
                return Err(Violation(format!("the desk: unexpected {other:?}")));
            }
        }
        Ok(())
    }

    /// What the desk waited for is unknown.
    pub(super) fn forget_desk_answer(&mut self, of_node: impl Fn(u64) -> bool) {
        if let Some(desk) = &mut self.desk {
            desk.asked
                .take_if(|asked| asked.number.is_some_and(of_node));
        }
    }
}

pub(super) fn context(reader: &dyn Reader, now: Millis) -> Context<'_> {
    Context {
        reader,
        now_ms: now.0,
        unique: u128::from(now.0) << 80,
        actor: "desk",
    }
}
