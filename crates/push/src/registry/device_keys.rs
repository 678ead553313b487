//! Keys that an app's backend signs for its devices with, in [`Table::DeviceKey`] by their `kid`.
//!
//! A rotation is a second key: the backend begins to sign with it, and the first is removed once what it has signed has expired.

use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;

use super::{Context, Planned, Refusal, decode};
use crate::{
    app::AppName,
    device_key::{Algorithm, BadKey, MAX_PEM_BYTES, VerifyingKey},
    fields::{Fields, invalid, shown},
    json,
    request::Invalid,
    rows::{Key, Range, Scope, Table, Version},
    store::{Reader, Unavailable},
};

/// Keys that an app may have: two for each of a few backends.
pub const MAX_KEYS: usize = 16;
/// Bytes of a `kid`.
pub const MAX_KID_BYTES: usize = 64;

/// A key as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceKeyRecord {
    /// [`Algorithm`].
    #[prost(uint32, tag = "1")]
    algorithm: u32,
    /// PEM text, or the secret.
    #[prost(bytes = "vec", tag = "2")]
    material: Vec<u8>,
    /// Unix milliseconds.
    #[prost(uint64, tag = "3")]
    pub created_ms: u64,
}

impl DeviceKeyRecord {
    /// How it signs; `None`: a way that only a newer version knows.
    pub fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::from_number(self.algorithm)
    }

    /// The public key in PEM; `None` of a secret.
    pub fn public_key(&self) -> Option<&str> {
        match self.algorithm()? {
            Algorithm::Hs256 => None,
            _ => std::str::from_utf8(&self.material).ok(),
        }
    }

    /// The key, ready to check signatures; `None`: only a newer version knows how.
    pub fn verifying(&self) -> Option<VerifyingKey> {
        VerifyingKey::new(self.algorithm()?, &self.material).ok()
    }
}

/// A key to be added: `{"kid": "2026-11", "algorithm": "ES256", "public_key": "-----BEGIN PUBLIC KEY-----.."}`, or for HS256 `"secret"` in Base64.
#[derive(Clone, PartialEq, Eq)]
pub struct NewDeviceKey {
    /// Its name in the header of tokens.
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    material: Vec<u8>,
}

impl NewDeviceKey {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<NewDeviceKey, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let kid = fields.text("kid")?.map(str::to_owned);
        let algorithm = fields.word("algorithm", &Algorithm::ALL)?;
        let public_key = fields.text("public_key")?.map(str::to_owned);
        let secret = fields.text("secret")?.map(str::to_owned);
        fields.no_others(&["kid", "algorithm", "public_key", "secret"])?;
        let kid = kid
            .ok_or_else(|| missing("/kid", "a name for the key, which tokens carry as \"kid\""))?;
        let fits = (1..=MAX_KID_BYTES).contains(&kid.len())
            && kid
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fits {
            let detail = format!(
                "{}: a kid is 1 to {MAX_KID_BYTES} letters, digits, \".\", \"_\" and \"-\"",
                shown(&kid)
            );
            return Err(invalid("/kid", detail));
        }
        let algorithm =
            algorithm.ok_or_else(|| missing("/algorithm", "one of HS256, RS256, ES256, EdDSA"))?;
        let (at, material) = match (algorithm, public_key, secret) {
            (Algorithm::Hs256, None, Some(secret)) => ("/secret", from_base64(&secret)?),
            (Algorithm::Hs256, ..) => {
                return Err(missing(
                    "/secret",
                    "HS256 has a secret in Base64, and no public key",
                ));
            }
            (_, Some(pem), None) if pem.len() <= MAX_PEM_BYTES => ("/public_key", pem.into_bytes()),
            (_, Some(pem), None) => {
                let detail = format!(
                    "{} bytes: a public key in PEM has at most {MAX_PEM_BYTES}",
                    pem.len()
                );
                return Err(invalid("/public_key", detail));
            }
            _ => {
                return Err(missing(
                    "/public_key",
                    "this algorithm has a public key in PEM, and no secret",
                ));
            }
        };
        VerifyingKey::new(algorithm, &material)
            .map_err(|bad: BadKey| invalid(at, bad.to_string()))?;
        Ok(NewDeviceKey {
            kid,
            algorithm,
            material,
        })
    }
}

fn missing(at: &str, detail: &str) -> Invalid {
    Invalid {
        fault: crate::request::Fault::MissingField,
        field: Some(at.to_owned()),
        detail: detail.to_owned(),
    }
}

/// The secret is not shown in the message.
fn from_base64(secret: &str) -> Result<Vec<u8>, Invalid> {
    BASE64_STANDARD.decode(secret).map_err(|_| {
        invalid(
            "/secret",
            "not Base64 of RFC 4648 section 4, with padding".to_owned(),
        )
    })
}

fn scope_of(app: &AppName) -> Scope {
    Scope::App(app.clone())
}

fn row(kid: &str) -> Key {
    Key::new(Table::DeviceKey, kid)
}

/// Adds a key.
pub fn add(
    context: &Context<'_>,
    app: &AppName,
    new: &NewDeviceKey,
) -> Result<Planned<DeviceKeyRecord>, Refusal> {
    let record = DeviceKeyRecord {
        algorithm: new.algorithm as u32,
        material: new.material.clone(),
        created_ms: context.now_ms,
    };
    let (there, _) = context.record::<DeviceKeyRecord>(&scope_of(app), &row(&new.kid))?;
    if there.is_some() {
        return Err(Refusal::Exists {
            what: "device key",
            name: new.kid.clone(),
        });
    }
    let change = context
        .change(scope_of(app))
        .expect(row(&new.kid), Version::ABSENT)
        .put(row(&new.kid), record.encode_to_vec())
        .at_most(Table::DeviceKey, MAX_KEYS as u64)
        .audit(
            context,
            app,
            "device_key.added",
            &new.kid,
            new.algorithm.text(),
        );
    Ok(Planned::change(change, record))
}

/// Removes a key: what it has signed proves nothing any more. Connections that were made with it stay.
pub fn remove(context: &Context<'_>, app: &AppName, kid: &str) -> Result<Planned<()>, Refusal> {
    let (there, version) = context.row(&scope_of(app), &row(kid))?;
    if there.is_none() {
        return Err(Refusal::Missing {
            what: "device key",
            name: kid.to_owned(),
        });
    }
    let change = context
        .change(scope_of(app))
        .expect(row(kid), version)
        .remove(row(kid))
        .audit(context, app, "device_key.removed", kid, "");
    Ok(Planned::change(change, ()))
}

/// All keys of an app by their `kid`.
pub fn list(
    reader: &dyn Reader,
    app: &AppName,
    now_ms: u64,
) -> Result<Vec<(String, DeviceKeyRecord)>, Unavailable> {
    let range = Range {
        scope: scope_of(app),
        table: Table::DeviceKey,
        prefix: String::new(),
        after: None,
        limit: MAX_KEYS,
    };
    let (rows, _) = reader.rows(&range, now_ms)?;
    let record = |row: crate::rows::Row| Ok((row.name, decode(&row.value, Table::DeviceKey)?));
    rows.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::testing::World, request::Fault};

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn new(kid: &str) -> NewDeviceKey {
        let body = format!(r#"{{"kid":"{kid}","algorithm":"HS256","secret":"{SECRET}"}}"#);
        NewDeviceKey::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_added_listed_and_removed() {
        let mut world = World::default();
        let app = AppName::new("shop").unwrap();
        for n in 0..MAX_KEYS {
            let key = new(&format!("k{n:02}"));
            world.run(|context| add(context, &app, &key)).unwrap();
        }
        let twice = world.run(|context| add(context, &app, &new("k00")));
        assert!(matches!(twice, Err(Refusal::Exists { .. })));
        let more = world.run(|context| add(context, &app, &new("k99")));
        assert!(matches!(more, Err(Refusal::Full { limit: 16, .. })));
        world.run(|context| remove(context, &app, "k00")).unwrap();
        let again = world.run(|context| remove(context, &app, "k00"));
        assert!(matches!(again, Err(Refusal::Missing { .. })));
        let keys = world.read(|context| list(context.reader, &app, context.now_ms));
        assert_eq!(keys.len(), MAX_KEYS - 1);
        let (kid, first) = &keys[0];
        assert_eq!((kid.as_str(), first.public_key()), ("k01", None));
        assert!(first.verifying().is_some());
    }

    #[test]
    fn mistakes_have_a_place() {
        for (body, fault, field) in [
            (r#"{}"#, Fault::MissingField, "/kid"),
            (r#"{"kid": ""}"#, Fault::InvalidField, "/kid"),
            (r#"{"kid": "a b"}"#, Fault::InvalidField, "/kid"),
            (r#"{"kid": "a"}"#, Fault::MissingField, "/algorithm"),
            (
                r#"{"kid": "a", "algorithm": "none"}"#,
                Fault::InvalidField,
                "/algorithm",
            ),
            (
                r#"{"kid": "a", "algorithm": "HS256"}"#,
                Fault::MissingField,
                "/secret",
            ),
            (
                r#"{"kid": "a", "algorithm": "HS256", "secret": "?"}"#,
                Fault::InvalidField,
                "/secret",
            ),
            (
                r#"{"kid": "a", "algorithm": "HS256", "secret": "c2hvcnQ="}"#,
                Fault::InvalidField,
                "/secret",
            ),
            (
                r#"{"kid": "a", "algorithm": "ES256", "secret": "c2hvcnQ="}"#,
                Fault::MissingField,
                "/public_key",
            ),
            (
                r#"{"kid": "a", "algorithm": "ES256", "public_key": "x"}"#,
                Fault::InvalidField,
                "/public_key",
            ),
            (r#"{"kid": "a", "x": 1}"#, Fault::UnknownField, "/x"),
        ] {
            let invalid = NewDeviceKey::parse(body.as_bytes()).err().expect(body);
            assert_eq!(
                (invalid.fault, invalid.field.as_deref()),
                (fault, Some(field)),
                "{body}"
            );
        }
    }
}
