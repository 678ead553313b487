use super::*;
use crate::{
    device::Patch,
    registry::{devices, testing::World},
};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn lines_of(format: Format, pieces: &[&[u8]]) -> Result<String, Invalid> {
    let (mut lines, mut devices) = (Lines::new(format), Vec::new());
    for piece in pieces {
        lines.take(piece, &mut devices)?;
    }
    lines.finish(&mut devices)?;
    Ok(devices.join(" "))
}

#[test]
fn a_list_is_kept_as_numbers_for_a_week() {
    let mut world = World::default();
    for device in ["d0", "d1", "d2"] {
        let nothing = Patch::default();
        world
            .run(|context| devices::put(context, &shop(), device, &nothing))
            .unwrap();
    }
    let listed: Vec<Arc<str>> = ["d2", "x", "d0", "d2", "x"].map(Arc::from).to_vec();
    let gathered = world.read(|context| Gathered::default().add(context, &shop(), &listed));
    assert_eq!(gathered.named(), ["x".into()]);
    let upload = world
        .run(|context| create(context, &shop(), &gathered))
        .unwrap();
    assert_eq!((upload.listed, upload.found, upload.unknown), (5, 2, 2));
    let kept = world.ask(|context| numbers(context, &shop(), &upload.id));
    assert_eq!(kept, Ok(RoaringBitmap::from_iter([0, 2])));
    assert_eq!(
        world.ask(|context| get(context, &shop(), &upload.id)),
        Ok(upload.clone())
    );
    world.now_ms += KEPT_MS;
    let gone = world.ask(|context| get(context, &shop(), &upload.id));
    assert!(matches!(gone, Err(Refusal::Missing { .. })));
}

#[test]
fn lines_come_in_pieces_that_end_anywhere() {
    let text = "d1\r\n\nd 2\nd3";
    let json = "\"d1\"\n{\"device\": \"d 2\"}\r\n\n\"\\u0064\\u0033\"\n";
    for (format, whole) in [(Format::Text, text), (Format::Json, json)] {
        for at in 0..whole.len() {
            let (first, second) = whole.as_bytes().split_at(at);
            assert_eq!(lines_of(format, &[first, second]).unwrap(), "d1 d 2 d3");
        }
    }
}

#[test]
fn a_mistake_names_its_line() {
    let long = "x".repeat(5000);
    for (format, text, why) in [
        (Format::Text, "d1\na\tb\n", "line 2: client identifier"),
        (
            Format::Text,
            long.as_str(),
            "line 1: the line has more than",
        ),
        (Format::Text, "\n\n", "the list is empty"),
        (Format::Json, "\"d1\"\nd2\n", "line 2: "),
        (
            Format::Json,
            "\"d1\"\n\n{\"id\": \"d2\"}",
            "line 3: \"device\" is missing",
        ),
        (Format::Json, "[\"d1\"]", "line 1: "),
    ] {
        let refused = lines_of(format, &[text.as_bytes()]).unwrap_err();
        assert!(refused.detail.starts_with(why), "{}", refused.detail);
    }
}
