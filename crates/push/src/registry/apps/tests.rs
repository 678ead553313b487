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
        self.run(|context| create(context, app, Quotas::default(), &hash(key)))
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
    assert_eq!(actions, ["key.created", "key.created", "key.revoked"]);
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
