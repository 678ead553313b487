use proptest::prelude::*;

use super::*;
use crate::registry::{apps::Quotas, testing::World};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn said(json: &str) -> Patch {
    Patch::parse(json.as_bytes()).unwrap()
}

impl World {
    fn put_device(&mut self, device: &str, json: &str) -> Result<Written, Refusal> {
        let said = said(json);
        self.run(|context| put(context, &shop(), device, &said))
    }

    fn patch_device(&mut self, device: &str, json: &str) -> Result<Device, Refusal> {
        let said = said(json);
        self.run(|context| patch(context, &shop(), device, &said))
    }

    fn user_has(&self, user: &str) -> String {
        let page = self.ask(|context| of_user(context, &shop(), user, None, 100));
        names(&page.unwrap())
    }

    fn listed(&self, filter: Option<&str>, after: Option<&str>, limit: usize) -> Page {
        let filter = filter.map(|text| Expression::parse(text).unwrap());
        self.read(|context| list(context, &shop(), filter.as_ref(), after, limit))
    }
}

fn names(page: &Page) -> String {
    let names: Vec<&str> = page.devices.iter().map(|device| &*device.id).collect();
    names.join(" ")
}

#[test]
fn put_registers_and_replaces_and_patch_changes_what_is_there() {
    let mut world = World::default();
    let first = world.put_device(
        "d1",
        r#"{"platform": "ios", "tags": ["a"], "tokens": {"fcm": "t"}}"#,
    );
    assert!(first.unwrap().created);
    let refused = world.patch_device("d2", r#"{"tags": ["a"]}"#);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "there is no device \"d2\""
    );

    let patched = world.patch_device("d1", r#"{"language": "en"}"#).unwrap();
    let shown = serde_json::to_value(&patched.profile).unwrap();
    assert_eq!(
        (&shown["platform"], &shown["language"], &shown["tags"][0]),
        (&"ios".into(), &"en".into(), &"a".into())
    );
    let second = world.put_device("d1", r#"{"language": "de"}"#).unwrap();
    assert!(!second.created);
    let shown = serde_json::to_value(&second.device.profile).unwrap();
    assert_eq!(shown["language"], "de");
    assert_eq!(shown["platform"], serde_json::Value::Null);
    assert_eq!(
        (&shown["tags"], &shown["tokens"]),
        (&[(); 0].as_slice().into(), &[(); 0].as_slice().into())
    );
    let read = world.ask(|context| get(context, &shop(), "d1")).unwrap();
    assert_eq!(read, second.device);
}

#[test]
fn what_changes_of_a_device_is_told() {
    let mut world = World::default();
    let told = |world: &mut World| -> Vec<String> {
        let line = |draft: Draft| {
            let (kind, data) = (draft.kind.name(), draft.data.unwrap_or_default());
            format!("{} {kind} {data}", draft.device.unwrap_or_default())
        };
        world.take_told().into_iter().map(line).collect()
    };
    world
        .put_device("d1", r#"{"language": "en", "tags": ["a"]}"#)
        .unwrap();
    assert_eq!(told(&mut world), ["d1 device.registered "]);
    world
        .put_device("d1", r#"{"language": "de", "tokens": {"fcm": "t"}}"#)
        .unwrap();
    assert_eq!(
        told(&mut world),
        [r#"d1 device.updated {"changed":["language","tags","tokens"]}"#]
    );
    world
        .put_device("d1", r#"{"language": "de", "tokens": {"fcm": "t"}}"#)
        .unwrap();
    assert_eq!(told(&mut world), [""; 0], "nothing changed");
    world.run(|context| delete(context, &shop(), "d1")).unwrap();
    assert_eq!(told(&mut world), ["d1 device.deleted "]);
}

#[test]
fn a_quota_holds_up_new_devices_only() {
    let mut world = World::default();
    let quotas = Quotas {
        devices: 2,
        ..Quotas::default()
    };
    let key = crate::app::KeyHash::of("key");
    world
        .run(|context| {
            apps::create(
                context,
                &shop(),
                quotas,
                &key,
                crate::registry::permission::Permissions::ADMIN,
            )
        })
        .unwrap();
    world.put_device("d1", "{}").unwrap();
    world.put_device("d2", "{}").unwrap();
    let full = Refusal::Full {
        what: "devices",
        limit: 2,
    };
    assert_eq!(world.put_device("d3", "{}"), Err(full));
    world.put_device("d2", r#"{"tags": ["a"]}"#).unwrap();
    world.run(|context| delete(context, &shop(), "d1")).unwrap();
    world.put_device("d3", "{}").unwrap();
}

#[test]
fn lists_go_on_where_they_ended_and_filters_look_at_so_many() {
    let mut world = World::default();
    for n in 0..MAX_SCAN + 50 {
        let tags = if n % 500 == 0 { r#"["rare"]"# } else { "[]" };
        let device = format!("d{n:04}");
        world
            .put_device(&device, &format!(r#"{{"tags": {tags}}}"#))
            .unwrap();
    }
    let page = world.listed(None, None, 2);
    assert_eq!(names(&page), "d0000 d0001");
    assert_eq!(page.next.as_deref(), Some("d0001"));
    let page = world.listed(None, Some("d1048"), 2);
    assert_eq!((names(&page).as_str(), page.next), ("d1049", None));

    let page = world.listed(Some("rare"), None, 10);
    assert_eq!(names(&page), "d0000 d0500");
    assert_eq!(page.next.as_deref(), Some("d0999"));
    let page = world.listed(Some("rare"), Some("d0999"), 10);
    assert_eq!((names(&page).as_str(), page.next), ("d1000", None));
    let page = world.listed(Some("rare"), None, 1);
    assert_eq!(
        (names(&page).as_str(), page.next.as_deref()),
        ("d0000", Some("d0000"))
    );
}

#[test]
fn a_device_has_one_user_and_users_have_many() {
    let mut world = World::default();
    world.put_device("d1", r#"{"user": "u1"}"#).unwrap();
    world.put_device("d2", "{}").unwrap();
    world
        .run(|context| bind(context, &shop(), "u1", "d2"))
        .unwrap();
    assert_eq!(world.user_has("u1"), "d1 d2");
    assert_eq!(world.user_has("u"), "");
    world.patch_device("d1", r#"{"user": "u2"}"#).unwrap();
    assert_eq!(
        (world.user_has("u1"), world.user_has("u2")),
        ("d2".into(), "d1".into())
    );

    let not_his = world.run(|context| unbind(context, &shop(), "u1", "d1"));
    assert!(
        matches!(not_his, Err(Refusal::Missing { .. })),
        "{not_his:?}"
    );
    world
        .run(|context| unbind(context, &shop(), "u1", "d2"))
        .unwrap();
    world.run(|context| delete(context, &shop(), "d1")).unwrap();
    assert_eq!(
        (world.user_has("u1"), world.user_has("u2")),
        (String::new(), String::new())
    );
    let unknown = world.run(|context| bind(context, &shop(), "u1", "d9"));
    assert!(
        matches!(unknown, Err(Refusal::Missing { .. })),
        "{unknown:?}"
    );
}

#[test]
fn a_tag_goes_to_those_that_can_have_it() {
    let mut world = World::default();
    let many: Vec<String> = (0..crate::device::MAX_TAGS)
        .map(|n| format!("\"t{n}\""))
        .collect();
    world.put_device("d1", "{}").unwrap();
    world.put_device("d2", r#"{"tags": ["vip"]}"#).unwrap();
    let full = format!(r#"{{"tags": [{}]}}"#, many.join(","));
    world.put_device("full", &full).unwrap();
    let devices = parse_list(br#"{"devices": ["d1", "d2", "full", "d9", "d1"]}"#).unwrap();
    let tag = Patch::add_tag("vip").unwrap();
    let edited = world
        .run(|context| edit(context, &shop(), &devices, &tag))
        .unwrap();
    assert_eq!((edited.changed, edited.unchanged), (1, 1));
    let refused: Vec<&str> = edited.refused.iter().map(|(device, _)| &**device).collect();
    assert_eq!(refused, ["full", "d9"]);
    assert!(matches!(edited.refused[0].1, Refusal::Invalid(_)));
    assert_eq!(names(&world.listed(Some("vip"), None, 9)), "d1 d2");
}

#[test]
fn a_list_of_devices_has_one_to_a_thousand() {
    for (body, why) in [
        ("{}", "\"devices\" is missing"),
        (r#"{"devices": []}"#, "the list is empty"),
        (r#"{"devices": "d1"}"#, "must be"),
        (r#"{"devices": ["d1"], "tag": "a"}"#, "no field \"tag\""),
        (r#"{"devices": ["a\nb"]}"#, "client identifier"),
    ] {
        let refused = parse_list(body.as_bytes()).unwrap_err();
        assert!(refused.detail.contains(why), "{body}: {}", refused.detail);
    }
    let names: Vec<String> = (0..=MAX_AT_A_TIME).map(|n| format!("\"d{n}\"")).collect();
    let body = format!(r#"{{"devices": [{}]}}"#, names.join(","));
    let refused = parse_list(body.as_bytes()).unwrap_err();
    assert!(
        refused.detail.contains("send several"),
        "{}",
        refused.detail
    );
}

#[derive(Clone, Debug)]
enum Step {
    Bind(usize, Option<usize>),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize, proptest::option::of(0..3_usize)).prop_map(|(d, u)| Step::Bind(d, u)),
        (0..4_usize).prop_map(Step::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn users_have_the_devices_whose_profile_says_so(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::default();
        let mut model: std::collections::BTreeMap<usize, Option<usize>> = Default::default();
        for step in steps {
            match step {
                Step::Bind(device, user) => {
                    let user_json = user.map_or("null".into(), |u| format!("\"u{u}\""));
                    let json = format!(r#"{{"user": {user_json}}}"#);
                    world.put_device(&format!("d{device}"), &json).unwrap();
                    model.insert(device, user);
                }
                Step::Delete(device) => {
                    let name = format!("d{device}");
                    let found = world.run(|context| delete(context, &shop(), &name)).is_ok();
                    prop_assert_eq!(found, model.remove(&device).is_some());
                }
            }
            for user in 0..3 {
                let expected: Vec<String> = model
                    .iter()
                    .filter(|(_, of)| **of == Some(user))
                    .map(|(device, _)| format!("d{device}"))
                    .collect();
                prop_assert_eq!(world.user_has(&format!("u{user}")), expected.join(" "));
            }
        }
        let rows = world.read(|context| context.reader.count_rows(&Scope::App(shop()), Table::UserDevice));
        prop_assert_eq!(rows, model.values().flatten().count() as u64);
    }
}
