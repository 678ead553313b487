//! What devices do and say themselves: a device is registered by connecting, and describes itself on `push/reg`.

use super::{
    super::{Context, Planned, Refusal, device_rules::DeviceRules},
    Device, read, registered,
};
use crate::{
    ack::{BadMessage, MAX_BYTES},
    app::AppName,
    device::{Fact, Patch, Profile, Value},
    fields::{invalid, shown},
    json::{self, Node},
    request::{Fault, Invalid},
};

/// A device is there. It is registered by that, and bound to a user if its credentials name one; nothing is written if all of it is known.
pub fn connected(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    user: Option<&str>,
) -> Result<Planned<()>, Refusal> {
    let patch = match user {
        Some(user) => Patch::bind(Some(user)).map_err(|bad| invalid("/user", bad.to_string()))?,
        None => Patch::default(),
    };
    let (before, version) = read(context, app, device)?;
    let is_new = before.is_none();
    let base = before.clone().unwrap_or(Profile::new(context.now_ms));
    let after = base.apply(&patch, context.now_ms)?;
    if !is_new && after == base {
        return Ok(Planned::nothing(()));
    }
    let change = registered(context, app, device, version, before.as_ref(), &after)?;
    Ok(Planned::change(change, ()))
}

/// Whether [`connected`] has nothing to write for a device whose profile this is.
pub fn is_known(profile: &Profile, user: Option<&str>) -> bool {
    user.is_none_or(|user| profile.user() == Some(user))
}

/// What a device says of itself: what the API takes as a patch, but neither its user nor its topics, which are for its app to say.
pub fn parse(message: &[u8]) -> Result<Patch, BadMessage> {
    if message.len() > MAX_BYTES {
        return Err(BadMessage::TooLarge(message.len()));
    }
    if let Node::Object(fields) = json::read(message).map_err(Invalid::from)? {
        for (name, what) in [
            ("user", "whose a device is"),
            ("topics", "what a device is subscribed to by its server"),
        ] {
            if fields.contains_key(name) {
                let detail = format!("{what} is for the app's backend to say, not for the device");
                return Err(BadMessage::Invalid(Invalid {
                    fault: Fault::UnknownField,
                    field: Some(format!("/{name}")),
                    detail,
                }));
            }
        }
    }
    Ok(Patch::parse(message)?)
}

/// Makes a device what it says of itself, as far as the app's rules go; registers it if it was not.
///
/// `tags` is the whole set of those that devices of the app may set: others stay as they are.
pub fn describe(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    patch: &Patch,
    rules: &DeviceRules,
) -> Result<Planned<Device>, Refusal> {
    for (fact, _) in patch.facts() {
        if let Fact::Tag(tag) = fact
            && !rules.may_tag(tag)
        {
            let detail = format!(
                "the tag {} is not one that devices of this app may set",
                shown(tag)
            );
            return Err(invalid("/tags", detail).into());
        }
    }
    let (before, version) = read(context, app, device)?;
    let base = before.clone().unwrap_or(Profile::new(context.now_ms));
    let foreign = base
        .facts()
        .filter_map(|(fact, held)| match (fact, &held.value) {
            (Fact::Tag(tag), Value::Bool(true)) if !rules.may_tag(tag) => Some(tag.clone()),
            _ => None,
        });
    let patch = patch.clone().sparing_tags(foreign);
    let after = base.apply(&patch, context.now_ms)?;
    let answer = Device {
        id: device.into(),
        profile: after.clone(),
    };
    if before.as_ref() == Some(&after) {
        return Ok(Planned::nothing(answer));
    }
    let change = registered(context, app, device, version, before.as_ref(), &after)?;
    Ok(Planned::change(change, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        devices::{get, names_of_user, put},
        testing::World,
    };

    fn shop() -> AppName {
        AppName::new("shop").unwrap()
    }

    fn profile(world: &World, device: &str) -> Profile {
        world
            .ask(|context| get(context, &shop(), device))
            .unwrap()
            .profile
    }

    fn say(world: &mut World, body: &str, rules: &DeviceRules) -> Result<Device, Refusal> {
        let patch = parse(body.as_bytes()).map_err(|bad| match bad {
            BadMessage::Invalid(invalid) => Refusal::Invalid(invalid),
            other => panic!("{other}"),
        })?;
        world.run(|context| describe(context, &shop(), "d", &patch, rules))
    }

    #[test]
    fn a_device_is_registered_by_connecting_once() {
        let mut world = World::default();
        world
            .run(|context| connected(context, &shop(), "d", None))
            .unwrap();
        let first = profile(&world, "d");
        world.now_ms += 1000;
        let planned = world
            .ask(|context| connected(context, &shop(), "d", None))
            .unwrap();
        assert_eq!(planned.change, None, "the second time costs no write");
        assert!(is_known(&first, None) && !is_known(&first, Some("ann")));
        world
            .run(|context| connected(context, &shop(), "d", Some("ann")))
            .unwrap();
        assert_eq!(profile(&world, "d").user(), Some("ann"));
        let (names, _) = world.read(|context| names_of_user(context, &shop(), "ann", None, 9));
        assert_eq!(names, ["d".into()]);
        assert_eq!(profile(&world, "d").created_ms(), first.created_ms());
    }

    #[test]
    fn a_device_describes_itself() {
        let mut world = World::default();
        let rules = DeviceRules::default();
        let body = r#"{"platform":"ios","time_zone":"Europe/London","tags":["a"],"attributes":{"n":1},"tokens":{"apns":"t"}}"#;
        say(&mut world, body, &rules).unwrap();
        let found = profile(&world, "d");
        assert_eq!(found.token("apns"), Some("t"));
        say(&mut world, r#"{"tags":[]}"#, &rules).unwrap();
        assert!(profile(&world, "d").fact(&Fact::Tag("a".into())).is_none());
        for body in [
            r#"{"user":"ann"}"#,
            r#"{"topics":["x"]}"#,
            r#"{"x":1}"#,
            "[]",
        ] {
            let refused = say(&mut world, body, &rules);
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{body}");
        }
        let large = vec![b' '; MAX_BYTES + 1];
        assert_eq!(parse(&large), Err(BadMessage::TooLarge(MAX_BYTES + 1)));
    }

    #[test]
    fn tags_that_are_not_its_to_set_stay_as_they_are() {
        let mut world = World::default();
        let rules = DeviceRules::parse(br#"{"tags":["beta","dark"]}"#).unwrap();
        let patch = Patch::parse(br#"{"tags":["vip","beta"]}"#).unwrap();
        world
            .run(|context| put(context, &shop(), "d", &patch))
            .unwrap();
        let refused = say(&mut world, r#"{"tags":["vip"]}"#, &rules);
        assert!(matches!(refused, Err(Refusal::Invalid(_))));
        say(&mut world, r#"{"tags":["dark"]}"#, &rules).unwrap();
        let found = profile(&world, "d");
        let has = |tag: &str| found.fact(&Fact::Tag(tag.into())).is_some();
        assert!(has("vip") && has("dark") && !has("beta"));
        say(&mut world, r#"{"tags":null}"#, &rules).unwrap();
        let found = profile(&world, "d");
        assert!(found.fact(&Fact::Tag("vip".into())).is_some());
    }
}
