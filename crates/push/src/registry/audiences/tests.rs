use super::*;
use crate::{
    device::Patch,
    expression::Expression,
    registry::{testing::World, uploads::Gathered},
};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn world(devices_of: &[(&str, usize)]) -> World {
    let mut world = World::default();
    for (user, count) in devices_of {
        for n in 0..*count {
            let patch = Patch::bind(Some(user)).unwrap();
            let device = format!("{user}-{n}");
            world
                .run(|context| devices::put(context, &shop(), &device, &patch))
                .unwrap();
        }
    }
    world
}

fn resolved(world: &World, audience: &Audience) -> Result<store::Audience, Refusal> {
    world.ask(|context| resolve(context, &shop(), audience, 7))
}

#[test]
fn users_stand_for_their_devices_up_to_a_thousand() {
    let world = world(&[("u1", 2), ("u2", 1), ("u3", 999)]);
    let of = |users: &[&str]| {
        let users = users.iter().map(|user| Arc::from(*user)).collect();
        resolved(&world, &Audience::Users(users))
    };
    let devices = |names: [&str; 3]| store::Audience::Devices(names.map(Arc::from).to_vec());
    assert_eq!(
        of(&["u2", "u9", "u1"]),
        Ok(devices(["u1-0", "u1-1", "u2-0"]))
    );
    assert!(matches!(of(&["u3", "u2"]), Ok(store::Audience::Devices(all)) if all.len() == 1000));
    assert!(matches!(of(&["u3", "u1"]), Err(Refusal::Clash(_))));
    assert!(matches!(of(&["u9"]), Err(Refusal::Missing { .. })));
    assert!(matches!(of(&["u8", "u9"]), Err(Refusal::Missing { .. })));
}

#[test]
fn segments_and_uploads_become_what_they_are_now() {
    let mut world = world(&[("u1", 1)]);
    let expression = Expression::parse("vip").unwrap();
    world
        .run(|context| segments::put(context, &shop(), "s1", &expression))
        .unwrap();
    let listed: [Arc<str>; 1] = ["u1-0".into()];
    let gathered = world.read(|context| Gathered::default().add(context, &shop(), &listed));
    let upload = world
        .run(|context| uploads::create(context, &shop(), &gathered))
        .unwrap();
    let targeting = |audience: Audience| match resolved(&world, &audience) {
        Ok(store::Audience::Matching(bytes)) => Targeting::decode(&bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    let everyone = Targeting::everyone(7);
    let of_segment = Targeting {
        expression: Some(expression),
        ..everyone.clone()
    };
    assert_eq!(targeting(Audience::Segment("s1".into())), of_segment);
    let of_upload = Targeting {
        numbers: Some([0].into_iter().collect()),
        ..everyone
    };
    assert_eq!(
        targeting(Audience::Upload(upload.id.as_str().into())),
        of_upload
    );
    for missing in [
        Audience::Segment("s2".into()),
        Audience::Upload("u7".into()),
    ] {
        assert!(matches!(
            resolved(&world, &missing),
            Err(Refusal::Missing { .. })
        ));
    }
}
