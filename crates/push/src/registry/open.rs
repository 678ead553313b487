//! Pushes whose end is still to be told. The store puts one here with its acceptance ([`Accept::watched`](crate::store::Accept::watched)).

use bytes::Bytes;

use super::{Context, Planned, Refusal, webhooks::CALLBACKS};
use crate::{
    app::AppName,
    event::Draft,
    id::PushId,
    rows::{Key, Range, Row, Scope, Table, Version},
    store::Unavailable,
    webhook::courier::Retry,
};

/// Pushes with a callback address that may be open at a time.
pub const MAX_OPEN: u64 = 100_000;

/// A push whose end is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: PushId,
    /// [`Accept::info`](crate::store::Accept::info).
    pub info: Bytes,
    version: Version,
}

fn row_of(id: PushId) -> Key {
    Key::new(Table::Open, format!("{:032x}", id.0))
}

/// Open pushes by their ids, from the first after `after`, and whether there are more.
pub fn list(
    context: &Context<'_>,
    app: &AppName,
    after: Option<PushId>,
    limit: usize,
) -> Result<(Vec<Open>, bool), Unavailable> {
    let range = Range {
        scope: Scope::App(app.clone()),
        table: Table::Open,
        prefix: String::new(),
        after: after.map(|id| row_of(id).name),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let open = |row: Row| {
        let id = u128::from_str_radix(&row.name, 16);
        Ok(Open {
            id: PushId(id.map_err(|bad| Unavailable(bad.to_string().into()))?),
            info: row.value,
            version: row.version,
        })
    };
    Ok((rows.into_iter().map(open).collect::<Result<_, _>>()?, more))
}

/// A push is done: tells so, and has its callback address told. With `None` it is known no more, and there is nothing to tell. Nothing happens to one that somebody else
/// has closed.
pub fn close(
    context: &Context<'_>,
    app: &AppName,
    open: &Open,
    told: Option<(&Draft, Option<&Retry>)>,
) -> Result<Planned<()>, Refusal> {
    let (scope, row) = (Scope::App(app.clone()), row_of(open.id));
    let (_, version) = context.row(&scope, &row)?;
    if version != open.version {
        return Ok(Planned::nothing(()));
    }
    let mut change = context
        .change(scope)
        .expect(row.clone(), version)
        .remove(row);
    if let Some((event, callback)) = told {
        change = change.tell(event.clone());
        if let Some(retry) = callback {
            let id = retry.parcel.id.to_string();
            change = change.put(Key::pair(Table::Retry, CALLBACKS, &id), retry.encode());
        }
    }
    Ok(Planned::change(change, ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{EventId, Key as Lane, What},
        registry::{testing::World, webhooks},
        webhook::{courier::Parcel, delivery::Delivery},
    };

    #[test]
    fn the_end_of_a_push_is_told_once() {
        let shop = AppName::new("shop").unwrap();
        let id = PushId(7);
        let mut world = World::default();
        world
            .run(|context| {
                let change = context.change(Scope::App(shop.clone()));
                Ok(Planned::change(change.put(row_of(id), "info"), ()))
            })
            .unwrap();
        let (found, more) = world.read(|context| list(context, &shop, None, 9));
        assert_eq!((found.len(), more, found[0].id), (1, false, id));
        let event = Draft::new(None, Some(id), &What::PushRecalled);
        let callback = Retry {
            parcel: Parcel {
                id: EventId(7),
                key: Lane::Push(id),
                body: "{}".into(),
                url: Some("https://example.com/".into()),
            },
            delivery: Delivery::new(1),
        };
        let close = |world: &mut World| {
            let told = Some((&event, Some(&callback)));
            world.run(|context| super::close(context, &shop, &found[0], told))
        };
        for _ in 0..2 {
            close(&mut world).unwrap();
        }
        assert_eq!(world.take_told(), std::slice::from_ref(&event));
        let retries = world.read(|context| webhooks::retries(context, &shop, CALLBACKS));
        assert_eq!(retries, std::slice::from_ref(&callback));
    }
}
