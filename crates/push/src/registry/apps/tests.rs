use super::*;
use crate::registry::{audit, permission::Permission, testing::World};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn hash(text: &str) -> KeyHash {
    KeyHash::of(text)
}

impl World {
    fn create(&mut self, app: &AppName, key: &str) -> Result<String, Refusal> {
        self.run(|context| {
            create(
                context,
                app,
                Quotas::default(),
                &hash(key),
                Permissions::ADMIN,
            )
        })
    }

    fn actions(&self) -> Vec<String> {
        let (entries, _) = self.read(|context| audit::list(context, &shop(), None, 9));
        entries
            .into_iter()
            .map(|entry| entry.record.action)
            .collect()
    }

    fn add(&mut self, key: &str, permissions: Permissions) -> Result<String, Refusal> {
        self.run(|context| add_key(context, &shop(), &hash(key), permissions, "label"))
    }

    fn owner(&mut self, key: &str) -> Option<(String, Permissions)> {
        let found = self.read(|context| key_of_hash(context.reader, &hash(key), context.now_ms));
        found.map(|(_, record)| (record.id.clone(), record.permissions()))
    }
}

#[test]
fn an_app_has_a_first_key_that_may_do_everything() {
    let mut world = World::default();
    let id = world.create(&shop(), "first").unwrap();
    assert_eq!(world.owner("first"), Some((id, Permissions::ADMIN)));
    assert!(matches!(
        world.create(&shop(), "second"),
        Err(Refusal::Exists { what: "app", .. })
    ));
    let bank = AppName::new("bank").unwrap();
    assert!(matches!(
        world.create(&bank, "first"),
        Err(Refusal::Clash(_))
    ));
    assert_eq!(world.read(|context| app(context, &bank)), None);
    let (apps, more) = world.read(|context| list(context, None, 9));
    assert_eq!((apps[0].0.as_str(), apps.len(), more), ("shop", 1, false));
}

#[test]
fn an_app_that_another_node_is_making_exists() {
    let mut world = World::default();
    world.create(&shop(), "first").unwrap();
    // As if the row of the app had been read before the other node wrote, and that of the key after.
    let forget = |context: &Context<'_>| {
        let change = context.change(Scope::System).remove(app_row(&shop()));
        Ok(Planned::change(change, ()))
    };
    world.run(forget).unwrap();
    assert!(matches!(
        world.create(&shop(), "first"),
        Err(Refusal::Exists { what: "app", .. })
    ));
}

#[test]
fn keys_are_added_listed_and_revoked() {
    let mut world = World::default();
    let sender = [Permission::PushSend].into_iter().collect();
    assert!(matches!(
        world.add("k", sender),
        Err(Refusal::Missing { what: "app", .. })
    ));
    let first = world.create(&shop(), "first").unwrap();
    let id = world.add("k", sender).unwrap();
    assert_eq!(world.add("k", Permissions::ADMIN), Ok(id.clone()));
    assert_eq!(world.owner("k"), Some((id.clone(), sender)));
    let mut listed = world.read(|context| keys(context, &shop()));
    listed.sort_by_key(|key| key.label.clone());
    let labels: Vec<&str> = listed.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["first key", "label"]);

    let revoke =
        |world: &mut World, id: &str| world.run(|context| revoke_key(context, &shop(), id));
    assert_eq!(revoke(&mut world, &id), Ok(()));
    assert_eq!(world.owner("k"), None);
    assert!(matches!(
        revoke(&mut world, &id),
        Err(Refusal::Missing { .. })
    ));
    assert!(matches!(revoke(&mut world, &first), Err(Refusal::Clash(_)),));
    let (entries, _) = world.read(|context| audit::list(context, &shop(), None, 9));
    let actions: Vec<&str> = entries.iter().map(|e| e.record.action.as_str()).collect();
    assert_eq!(actions, ["app.created", "key.created", "key.revoked"]);
    assert_eq!(entries[2].record.object, id);
    let (rest, more) = world.read(|context| audit::list(context, &shop(), Some(entries[0].id), 1));
    assert_eq!((rest, more), (entries[1..2].to_vec(), true));
}

#[test]
fn a_rotated_key_keeps_its_id_and_the_old_secret_ends() {
    let mut world = World::default();
    let id = world.create(&shop(), "one").unwrap();
    let rotate = |world: &mut World, new: &str, grace: u64| {
        let until = world.now_ms + grace;
        world.run(|context| rotate_key(context, &shop(), &id, &hash(new), until))
    };
    rotate(&mut world, "two", 1000).unwrap();
    for key in ["one", "two"] {
        assert_eq!(world.owner(key), Some((id.clone(), Permissions::ADMIN)));
    }
    world.now_ms += 1000;
    assert_eq!(world.owner("one"), None);
    rotate(&mut world, "three", 1000).unwrap();
    rotate(&mut world, "four", 0).unwrap();
    assert_eq!(world.owner("two"), None, "two rotations ago");
    assert_eq!(world.owner("three"), None, "no grace was given");
    assert_eq!(world.read(|context| keys(context, &shop())).len(), 1);
}

#[test]
fn the_number_of_keys_is_bounded() {
    let mut world = World::default();
    world.create(&shop(), "first").unwrap();
    for number in 1..MAX_KEYS {
        world.add(&number.to_string(), Permissions::ADMIN).unwrap();
    }
    assert!(matches!(
        world.add("one more", Permissions::ADMIN),
        Err(Refusal::Full { limit: 100, .. })
    ));
}

#[test]
fn quotas_are_changed_and_the_log_tells() {
    let mut world = World::default();
    let body = br#"{"quotas": {"devices": 7}}"#;
    let change = QuotaChange::parse(body).unwrap();
    let set = |world: &mut World| world.run(|context| change_quotas(context, &shop(), &change));
    assert!(matches!(set(&mut world), Err(Refusal::Missing { .. })));
    world.create(&shop(), "first").unwrap();
    assert_eq!(set(&mut world).unwrap().quotas.devices, 7);
    assert_eq!(set(&mut world).unwrap().quotas.devices, 7, "nothing to do");
    assert_eq!(world.actions(), ["app.created", "app.changed"]);
}

#[test]
fn an_app_is_marked_at_first_and_gone_with_its_keys_when_nothing_is_left_of_it() {
    use crate::{device::Patch, registry::devices};

    let mut world = World::default();
    let delete = |world: &mut World| world.run(|context| delete(context, &shop()));
    let finish = |world: &mut World| world.run(|context| finish(context, &shop())).unwrap();
    assert!(matches!(delete(&mut world), Err(Refusal::Missing { .. })));
    world.create(&shop(), "first").unwrap();
    world.add("second", Permissions::ADMIN).unwrap();
    let device = Patch::default();
    world
        .run(|context| devices::put(context, &shop(), "d1", &device))
        .unwrap();
    let deletion = delete(&mut world).unwrap();
    assert_eq!(delete(&mut world).unwrap(), deletion, "asked again");
    let marked = world.read(deletions);
    assert_eq!(marked, [(shop(), deletion)]);
    world
        .run(|context| count_erased(context, &shop(), 7))
        .unwrap();
    assert!(!finish(&mut world), "a device is left");
    assert!(world.owner("first").is_some());
    world
        .run(|context| devices::delete(context, &shop(), "d1"))
        .unwrap();
    assert!(finish(&mut world));
    assert_eq!(world.owner("first"), None);
    assert_eq!(world.owner("second"), None);
    assert_eq!(world.read(|context| app(context, &shop())), None);
    assert_eq!(world.read(deletions), []);
    let actions = world.actions();
    assert!(
        actions.ends_with(&["app.deletion_begun".into(), "app.deleted".into()]),
        "{actions:?}"
    );
    assert!(finish(&mut world), "nothing to do");
}
