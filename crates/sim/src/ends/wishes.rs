//! What campaigns are asked for: of which kind a push becomes, and what it is accepted by.

use campanile_backends::Reader;
use campanile_broker::ids::Millis;
use campanile_push::{
    audience::Audience as Wanted,
    device::{Patch, Profile},
    expression::Expression,
    id::PushId,
    registry::{campaigns, census},
    request::{Limits, Request},
    rows::{Change, Key, Scope, Table},
    store::{Accept, Audience as PushAudience, Command, Idempotency},
    targeting::Targeting,
};

use super::{
    Ends,
    api::app,
    desk::{Desk, context},
};
use crate::{model::Audience, pair::START};

/// The tag that audiences of the simulation ask for.
pub(super) const TAG: &str = "vip";
/// Where registered devices live: their clocks show different times of the same moment.
const ZONES: &[&str] = &["UTC", "UTC", "Asia/Kolkata"];
/// Minutes that their clocks are ahead.
const AHEAD: &[u64] = &[0, 330];

/// What is asked for with a campaign: the options, but for the TTL, and its seconds.
#[derive(Clone, Debug)]
pub struct Wish {
    options: String,
    ttl_seconds: u64,
}

impl Desk {
    /// Whether a push becomes a campaign, and which; then it may be for others.
    pub fn wishes(&mut self, now: Millis, audience: Audience) -> (Audience, Option<Wish>) {
        let rng = &mut self.rng;
        if !rng.chance(700) {
            return (audience, None);
        }
        let wanted = match rng.chance(350) {
            true => Audience::Tagged,
            false => audience.clone(),
        };
        match self.wish(now, &wanted) {
            Some(wish) => (wanted, Some(wish)),
            None => (audience, None),
        }
    }

    fn wish(&mut self, now: Millis, audience: &Audience) -> Option<Wish> {
        let rng = &mut self.rng;
        let mut options: Vec<String> = Vec::new();
        let mut ttl_seconds = *rng.pick(&[120, 3600, 86_400, 2 * 86_400]);
        let minute = |ahead: u64| {
            let minute = (now.0 / 60_000 + ahead) % (24 * 60);
            format!("{:02}:{:02}", minute / 60, minute % 60)
        };
        if rng.chance(400) {
            options.push(match rng.chance(600) {
                true => format!(r#""pace":{{"over":{}}}"#, rng.range(2, 60)),
                false => format!(r#""pace":{{"per_second":{}}}"#, rng.range(1, 3)),
            });
        } else if rng.chance(150) {
            let policy = *rng.pick(&["next_day", "now", "skip"]);
            let ahead = *rng.pick(AHEAD) + rng.below(3);
            options.push(format!(
                r#""local_time":{{"at":"{}","if_past":"{policy}"}}"#,
                minute(ahead)
            ));
            ttl_seconds = 2 * 86_400;
        }
        if rng.chance(300) {
            options.push(match rng.chance(500) {
                true => r#""portion":{"percent":50}"#.to_owned(),
                false => format!(r#""portion":{{"percent":50,"hold":{}}}"#, rng.range(2, 40)),
            });
        }
        if rng.chance(150) {
            let ahead = *rng.pick(AHEAD);
            let policy = *rng.pick(&["delay", "drop"]);
            let (from, to) = (
                minute(ahead + rng.below(2)),
                minute(ahead + rng.range(2, 4)),
            );
            options.push(format!(
                r#""quiet_hours":{{"from":"{from}","to":"{to}","policy":"{policy}"}}"#
            ));
        }
        if rng.chance(300) {
            let (count, per) = (rng.range(1, 2), *rng.pick(&[60, 60, 3600]));
            options.push(format!(
                r#""frequency_cap":{{"key":"offers","count":{count},"per":{per}}}"#
            ));
        }
        if rng.chance(250) && *audience != Audience::Tagged {
            options.push(r#""collapse_key":"score""#.to_owned());
        }
        let priority = *rng.pick(&["high", "normal", "low"]);
        options.push(format!(r#""priority":"{priority}""#));
        let wish = Wish {
            options: options.join(","),
            ttl_seconds,
        };
        let request = wish.request();
        let wanted = wanted(audience);
        request
            .is_some_and(|request| request.options.make_a_campaign(&wanted))
            .then_some(wish)
    }
}

impl Wish {
    /// Milliseconds from acceptance to the end.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_seconds * 1000
    }

    /// The request of an app server, whose audience is told apart; `None` if the options contradict each other.
    fn request(&self) -> Option<Request> {
        let Wish {
            options,
            ttl_seconds,
        } = self;
        let body = format!(
            r#"{{"audience":{{"all":true}},"data":{{}},"options":{{"ttl":{ttl_seconds},{options}}}}}"#
        );
        Request::parse(body.as_bytes(), &Limits::default()).ok()
    }
}

/// An audience as requests name it.
fn wanted(audience: &Audience) -> Wanted {
    match audience {
        Audience::All => Wanted::All,
        Audience::Devices(_) => Wanted::Devices(Vec::new()),
        Audience::Tagged => Wanted::Matching(tagged()),
    }
}

fn tagged() -> Expression {
    Expression::parse(TAG).expect("a tag is an expression")
}

impl Ends {
    /// Registers some of the clients as devices. What is to be written, if anything is.
    pub fn registration(&mut self) -> Option<Command> {
        let desk = self.desk.as_mut()?;
        let mut change = Change::new(Scope::App(app()), START.0);
        for (at, client) in self.clients.iter().enumerate() {
            if !desk.rng.chance(500) {
                continue;
            }
            let has_tag = desk.rng.chance(600);
            let zone = *desk.rng.pick(ZONES);
            let tags = if has_tag { TAG } else { "other" };
            let patch = format!(r#"{{"tags":["{tags}"],"time_zone":"{zone}"}}"#);
            let patch = Patch::parse(patch.as_bytes()).expect("valid");
            let profile = Profile::new(START.0).apply(&patch, START.0);
            let profile = profile.expect("it fits").encode();
            self.model.register(at, has_tag);
            let key = Key::new(Table::Device, client.plan.name.as_str());
            change = change.put(key, profile);
        }
        self.trace
            .note(|| format!("registered: {:?}", self.model.registered));
        Some(Command::Change(Box::new(change)))
    }

    /// Registered devices are removed.
    pub fn deregistration(&mut self) -> Option<Command> {
        self.desk.as_ref()?;
        let mut change = Change::new(Scope::App(app()), self.now.0);
        for at in self.model.registered.keys() {
            let key = Key::new(Table::Device, self.clients[*at].plan.name.as_str());
            change = change.remove(key);
        }
        Some(Command::Change(Box::new(change)))
    }

    /// What a campaign is accepted by, under an id: an order to count its devices, if they are to be counted, and the acceptance. `None`: it cannot be planned now.
    pub(super) fn campaign_submission(
        &mut self,
        push: usize,
        id: PushId,
        audience: PushAudience,
        idempotency: Option<Idempotency>,
        now: Millis,
        reader: &dyn Reader,
    ) -> Option<(Option<Command>, Accept)> {
        let wish = self.model.pushes[push].campaign.as_ref()?.wish.clone();
        let request = wish.request().expect("it was tried");
        let audience = match audience {
            PushAudience::Matching(_) => {
                let targeting = Targeting {
                    expression: Some(tagged()),
                    ..Targeting::everyone(now.0)
                };
                PushAudience::Matching(targeting.encode().into())
            }
            audience => audience,
        };
        let (audience, targeting) = request
            .in_portion(id, audience, now.0)
            .expect("it was written here");
        let mut campaign = request.campaign(id, targeting, now.0).ok()?;
        campaign.payload = format!("p{push}").into();
        if let (Some(name), Audience::Devices(devices)) =
            (&mut campaign.collapses, &self.model.pushes[push].audience)
        {
            // The request says that it is for all.
            *name = format!("{devices:?}");
        }
        let context = context(reader, now);
        let rows = campaigns::accept(&context, &app(), &campaign).ok()?;
        let order =
            match &audience {
                PushAudience::Matching(targeting) => Some(Command::Change(Box::new(
                    census::ordered(&app(), id, targeting.clone(), now.0),
                ))),
                _ => None,
            };
        let mut accept = request.accept(app(), id, audience, now.0, idempotency);
        accept.payload = bytes::Bytes::new();
        accept.rows = Some(Box::new(rows));
        self.trace.note(|| {
            format!(
                "{} push{push} is {id}: {:?} {wish:?}",
                self.steps, self.model.pushes[push].audience
            )
        });
        self.model.campaign_is_sent(push, campaign);
        Some((order, accept))
    }
}
