//! One change of many devices: a tag, a topic.

use std::sync::Arc;

use super::{missing, profile_of, row_of, scope_of, with_device};
use crate::{
    app::AppName,
    audience,
    device::{Patch, names},
    fields::Fields,
    json,
    registry::{Context, Planned, Refusal},
    request::Invalid,
    rows::Key,
};

/// Different devices that one request may name.
pub const MAX_AT_A_TIME: usize = 1000;
/// Devices that one [`edit`] may name: a change is small enough for the mailboxes of a store, and for whoever else writes one of these devices.
pub const CHUNK: usize = 100;

/// What became of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// Those that are different now.
    pub changed: u64,
    /// Those that were so before.
    pub unchanged: u64,
    /// Those that stay as they were, and why.
    pub refused: Vec<(Arc<str>, Refusal)>,
}

impl Edited {
    /// With what became of more.
    pub fn and(mut self, more: Edited) -> Edited {
        self.changed += more.changed;
        self.unchanged += more.unchanged;
        self.refused.extend(more.refused);
        self
    }
}

/// Reads `{"devices": ["d1", ..]}`: 1..=[`MAX_AT_A_TIME`] different devices.
pub fn parse_list(body: &[u8]) -> Result<Vec<Arc<str>>, Invalid> {
    const KNOWN: [&str; 1] = ["devices"];
    let document = json::read(body)?;
    let mut fields = Fields::of("", &document)?;
    let devices = fields.required("devices", "name the devices, {\"devices\": [..]}")?;
    fields.no_others(&KNOWN)?;
    audience::list(
        "/devices",
        devices,
        "device",
        MAX_AT_A_TIME,
        "send several requests",
        |at, device| audience::checked(at, &names::CLIENT_ID, device),
    )
}

/// Changes up to [`CHUNK`] different devices together. One that is not registered, or would have too much then, is reported; the others go.
pub fn edit(
    context: &Context<'_>,
    app: &AppName,
    devices: &[Arc<str>],
    patch: &Patch,
) -> Result<Planned<Edited>, Refusal> {
    let scope = scope_of(app);
    let keys: Vec<Key> = devices.iter().map(|device| row_of(device)).collect();
    let rows = context.reader.rows_at(&scope, &keys, context.now_ms)?;
    let mut edited = Edited::default();
    let mut change = context.change(scope);
    for (device, row) in devices.iter().zip(rows) {
        let Some(row) = row else {
            edited.refused.push((device.clone(), missing(device)));
            continue;
        };
        let before = profile_of(&row.value)?;
        match before.apply(patch, context.now_ms) {
            Ok(after) if after == before => edited.unchanged += 1,
            Ok(after) => {
                edited.changed += 1;
                change = with_device(change, device, row.version, Some(&before), &after);
            }
            Err(invalid) => edited.refused.push((device.clone(), invalid.into())),
        }
    }
    Ok(match edited.changed {
        0 => Planned::nothing(edited),
        _ => Planned::change(change, edited),
    })
}
