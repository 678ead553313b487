use super::*;
use crate::registry::testing::World;

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn save(world: &mut World, name: &str, text: &str) -> Result<(Segment, bool), Refusal> {
    let expression = Expression::parse(text).unwrap();
    world.run(|context| put(context, &shop(), name, &expression))
}

#[test]
fn a_segment_is_saved_changed_listed_and_removed() {
    let mut world = World::default();
    let (first, created) = save(&mut world, "b", "vip").unwrap();
    assert!(created);
    world.now_ms += 1;
    let (same, created) = save(&mut world, "b", " vip ").unwrap();
    assert_eq!((same, created), (first.clone(), false));
    let (changed, _) = save(&mut world, "b", "vip && !muted").unwrap();
    assert_eq!(changed.created_ms, first.created_ms);
    assert_eq!(changed.updated_ms, world.now_ms);
    let read = world.ask(|context| get(context, &shop(), "b"));
    assert_eq!(read, Ok(changed));

    save(&mut world, "a", "beta").unwrap();
    let (page, more) = world.read(|context| list(context, &shop(), None, 1));
    assert_eq!((page[0].name.as_str(), more), ("a", true));
    let (page, more) = world.read(|context| list(context, &shop(), Some("a"), 1));
    assert_eq!((page[0].name.as_str(), more), ("b", false));
    world.run(|context| delete(context, &shop(), "a")).unwrap();
    let gone = world.run(|context| delete(context, &shop(), "a"));
    assert_eq!(gone.unwrap_err().to_string(), "there is no segment \"a\"");
    assert!(matches!(
        save(&mut world, "a b", "vip"),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn what_is_saved_is_one_expression() {
    assert_eq!(parse(br#"{"expr": "a"}"#).unwrap().to_string(), "a");
    for (body, field) in [
        ("{}", "/expr"),
        (r#"{"expr": 1}"#, "/expr"),
        (r#"{"expr": "&&"}"#, "/expr"),
        (r#"{"expr": "a", "x": 1}"#, "/x"),
        ("[]", ""),
    ] {
        assert_eq!(
            parse(body.as_bytes()).unwrap_err().field.as_deref(),
            Some(field),
            "{body}"
        );
    }
}
