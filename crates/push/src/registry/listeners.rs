//! Who reads the event stream of an app: while anybody does, what happens is written down, as it is while there are webhooks.

use prost::Message;

use super::{Context, Planned, Refusal, apps};
use crate::{
    app::AppName,
    rows::{Key, Scope, Table},
};

/// Milliseconds for which events are written down after a stream was opened, or [told to go on](listen).
pub const LISTENS_MS: u64 = 15 * 60 * 1000;
/// Milliseconds after which a stream that is open says so again.
pub const AGAIN_MS: u64 = 5 * 60 * 1000;

/// One row for all streams of an app.
const STREAM: &str = "stream";

#[derive(Clone, PartialEq, Message)]
struct Record {
    /// Unix milliseconds until when.
    #[prost(uint64, tag = "1")]
    until_ms: u64,
}

/// Somebody reads the event stream of an app.
pub fn listen(context: &Context<'_>, app: &AppName) -> Result<Planned<()>, Refusal> {
    apps::check_stays(context, app)?;
    let (scope, key) = (Scope::App(app.clone()), Key::new(Table::Listener, STREAM));
    let (record, version) = context.record::<Record>(&scope, &key)?;
    let until_ms = record.map_or(0, |record| record.until_ms);
    if until_ms >= context.now_ms + LISTENS_MS - AGAIN_MS {
        return Ok(Planned::nothing(()));
    }
    let until_ms = context.now_ms + LISTENS_MS;
    let change = context
        .change(scope)
        .expect(key.clone(), version)
        .put_until(key, Record { until_ms }.encode_to_vec(), until_ms);
    Ok(Planned::change(change, ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::World;

    #[test]
    fn an_app_has_a_listener_for_a_while() {
        let shop = AppName::new("shop").unwrap();
        let mut world = World::default();
        let is_planned = |world: &World| {
            let planned = world.ask(|context| listen(context, &shop));
            planned.unwrap().change.is_some()
        };
        world.run(|context| listen(context, &shop)).unwrap();
        assert!(!is_planned(&world));
        world.now_ms += AGAIN_MS + 1;
        assert!(is_planned(&world));
        world.run(|context| listen(context, &shop)).unwrap();
        assert!(!is_planned(&world));
    }
}
