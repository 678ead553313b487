//! Tokens of devices: secrets that an app's backend has made for a device, and that the device connects with.
//!
//! A device has one token; a new one replaces it, and the old one works on for a while. Only hashes are kept, in [`Table::DeviceToken`].

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;
use subtle::ConstantTimeEq;

use super::{Context, Planned, Refusal, apps, decode, devices::check_name};
use crate::{
    app::{AppName, KeyHash},
    rows::{Change, Key, Scope, Table, Version},
    store::Unavailable,
};

const PREFIX: &str = "cdt_";
const RANDOM_BYTES: usize = 32;

/// A device's token in clear: `cdt_` and 32 random bytes as base64url without padding. Shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceToken(String);

impl DeviceToken {
    /// The token made of these bytes, which must come from the system's random number generator.
    pub fn from_random(bytes: [u8; RANDOM_BYTES]) -> DeviceToken {
        let random = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        DeviceToken(format!("{PREFIX}{random}"))
    }

    /// The hash of what a device shows, if that can be a token at all.
    pub fn hash_of(shown: &[u8]) -> Option<KeyHash> {
        let shown = std::str::from_utf8(shown).ok()?;
        shown.starts_with(PREFIX).then(|| KeyHash::of(shown))
    }

    /// The token in clear, to be shown to whoever asked for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceToken(..)")
    }
}

/// A device's token as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenRecord {
    /// SHA-256 of the present one.
    #[prost(bytes = "vec", tag = "1")]
    hash: Vec<u8>,
    /// SHA-256 of the one before; empty: there is none.
    #[prost(bytes = "vec", tag = "2")]
    previous: Vec<u8>,
    /// Unix milliseconds until which the one before works.
    #[prost(uint64, tag = "3")]
    previous_until_ms: u64,
    /// Unix milliseconds in which the present one was made.
    #[prost(uint64, tag = "4")]
    made_ms: u64,
}

impl TokenRecord {
    /// Reads the row of a device.
    pub fn decode_row(value: &[u8]) -> Result<TokenRecord, Unavailable> {
        decode(value, Table::DeviceToken)
    }

    /// Whether a token of this hash is the device's now. Takes the same time whatever is wrong with it.
    pub fn accepts(&self, hash: &KeyHash, now_ms: u64) -> bool {
        let is_present = self.hash.as_slice().ct_eq(&hash.0);
        let is_previous = self.previous.as_slice().ct_eq(&hash.0);
        bool::from(is_present) || (bool::from(is_previous) && now_ms < self.previous_until_ms)
    }

    /// When the present one was made, Unix milliseconds.
    pub fn made_ms(&self) -> u64 {
        self.made_ms
    }
}

/// Where a device's token is.
pub fn row(device: &str) -> Key {
    Key::new(Table::DeviceToken, device)
}

fn scope_of(app: &AppName) -> Scope {
    Scope::App(app.clone())
}

/// Gives a device a token, whether it is registered or not; one that it has works until `old_until_ms`. Answers whether it had one.
pub fn issue(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
    hash: &KeyHash,
    old_until_ms: u64,
) -> Result<Planned<bool>, Refusal> {
    check_name(device)?;
    let Some(settings) = apps::app(context, app)? else {
        return Err(Refusal::Missing {
            what: "app",
            name: app.to_string(),
        });
    };
    let (before, version) = context.record::<TokenRecord>(&scope_of(app), &row(device))?;
    let had_one = before.is_some();
    let record = TokenRecord {
        hash: hash.0.to_vec(),
        previous: before.map(|before| before.hash).unwrap_or_default(),
        previous_until_ms: old_until_ms,
        made_ms: context.now_ms,
    };
    let action = match had_one {
        true => "device.token_rotated",
        false => "device.token_made",
    };
    let mut change = context
        .change(scope_of(app))
        .expect(row(device), version)
        .put(row(device), record.encode_to_vec())
        .audit(context, app, action, device, "");
    if settings.quotas.devices > 0 {
        change = change.at_most(Table::DeviceToken, settings.quotas.devices);
    }
    Ok(Planned::change(change, had_one))
}

/// Ends a device's token, and the one before it.
pub fn revoke(context: &Context<'_>, app: &AppName, device: &str) -> Result<Planned<()>, Refusal> {
    check_name(device)?;
    let (record, version) = context.row(&scope_of(app), &row(device))?;
    if record.is_none() {
        return Err(Refusal::Missing {
            what: "token of device",
            name: device.to_owned(),
        });
    }
    let change: Change = context
        .change(scope_of(app))
        .expect(row(device), version)
        .remove(row(device))
        .audit(context, app, "device.token_revoked", device, "");
    Ok(Planned::change(change, ()))
}

/// The version of a device's token, for a change that removes both.
pub(super) fn version(
    context: &Context<'_>,
    app: &AppName,
    device: &str,
) -> Result<Version, Unavailable> {
    Ok(context.row(&scope_of(app), &row(device))?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{devices, permission::Permissions, testing::World};

    fn hash(text: &str) -> KeyHash {
        KeyHash::of(text)
    }

    fn world() -> (World, AppName) {
        let mut world = World::default();
        let app = AppName::new("shop").unwrap();
        let quotas = apps::Quotas {
            devices: 2,
            ..apps::Quotas::default()
        };
        let key = hash("key");
        world
            .run(|context| apps::create(context, &app, quotas, &key, Permissions::ADMIN))
            .unwrap();
        (world, app)
    }

    fn accepts(world: &World, app: &AppName, device: &str, token: &str) -> bool {
        let record =
            world.read(|context| context.record::<TokenRecord>(&scope_of(app), &row(device)));
        let (record, _) = record;
        record.is_some_and(|record| record.accepts(&hash(token), world.now_ms))
    }

    #[test]
    fn the_old_token_works_on_for_a_while() {
        let (mut world, app) = world();
        let had_one = world.run(|context| issue(context, &app, "d", &hash("a"), 0));
        assert_eq!(had_one, Ok(false));
        assert!(accepts(&world, &app, "d", "a") && !accepts(&world, &app, "d", "b"));
        let until = world.now_ms + 1000;
        let had_one = world.run(|context| issue(context, &app, "d", &hash("b"), until));
        assert_eq!(had_one, Ok(true));
        assert!(accepts(&world, &app, "d", "a") && accepts(&world, &app, "d", "b"));
        world.now_ms = until;
        assert!(!accepts(&world, &app, "d", "a") && accepts(&world, &app, "d", "b"));
    }

    #[test]
    fn what_is_made_can_be_shown() {
        let token = DeviceToken::from_random([0xfb; 32]);
        let shown = DeviceToken::hash_of(token.reveal().as_bytes());
        assert_eq!(shown, Some(token.hash()));
        assert_eq!(DeviceToken::hash_of(b"secret"), None);
        assert_eq!(DeviceToken::hash_of(b"cdt_\xff"), None);
        assert_eq!(format!("{token:?}"), "DeviceToken(..)");
    }

    #[test]
    fn a_revoked_token_is_none_and_a_deleted_device_has_none() {
        let (mut world, app) = world();
        world
            .run(|context| issue(context, &app, "d", &hash("a"), 0))
            .unwrap();
        world.run(|context| revoke(context, &app, "d")).unwrap();
        assert!(!accepts(&world, &app, "d", "a"));
        let again = world.run(|context| revoke(context, &app, "d"));
        assert!(matches!(again, Err(Refusal::Missing { .. })));

        world
            .run(|context| issue(context, &app, "d", &hash("a"), 0))
            .unwrap();
        // It is not registered yet: that happens when it connects.
        world
            .run(|context| devices::delete(context, &app, "d"))
            .unwrap();
        assert!(!accepts(&world, &app, "d", "a"));
    }

    #[test]
    fn the_quota_of_devices_is_that_of_tokens() {
        let (mut world, app) = world();
        for device in ["a", "b"] {
            world
                .run(|context| issue(context, &app, device, &hash(device), 0))
                .unwrap();
        }
        let third = world.run(|context| issue(context, &app, "c", &hash("c"), 0));
        assert!(matches!(third, Err(Refusal::Full { limit: 2, .. })));
        let nobody = AppName::new("nobody").unwrap();
        let foreign = world.run(|context| issue(context, &nobody, "c", &hash("c"), 0));
        assert!(matches!(foreign, Err(Refusal::Missing { .. })));
    }
}
