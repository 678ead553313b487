//! Keys that an app's backend signs for its devices with, and what it signs: JSON Web Tokens (RFC 7519).
//!
//! A token says `sub`, the client identifier; `aud`, the app; `exp`; and may say `nbf` and `user`. What else it says is not looked at. The key says
//! which algorithm it is for, never the token: one that claims another is refused, `none` too.

use jsonwebtoken::{Algorithm as Jws, DecodingKey, Validation};
use serde::Deserialize;

use crate::{app::AppName, device::names};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// How far the clocks of whoever signs and of a node may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 30;
/// Bytes of a secret for HS256: RFC 7518 wants at least as many as the hash has.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=512;
/// Bytes of a public key as PEM text: RSA keys of 8192 bits have some 1400.
pub const MAX_PEM_BYTES: usize = 4096;

/// How a key signs. Numbers are part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret that both sides have.
    Hs256 = 1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 = 2,
    /// ECDSA on P-256 with SHA-256.
    Es256 = 3,
    /// Ed25519.
    EdDsa = 4,
}

impl Algorithm {
    /// All, as tokens name them.
    pub const ALL: [(&'static str, Algorithm); 4] = [
        ("HS256", Algorithm::Hs256),
        ("RS256", Algorithm::Rs256),
        ("ES256", Algorithm::Es256),
        ("EdDSA", Algorithm::EdDsa),
    ];

    /// As tokens name it.
    pub fn text(self) -> &'static str {
        let mut all = Algorithm::ALL.iter();
        all.find(|(_, algorithm)| *algorithm == self)
            .map_or("", |(text, _)| text)
    }

    /// The algorithm of a stored number.
    pub fn from_number(number: u32) -> Option<Algorithm> {
        let mut all = Algorithm::ALL.into_iter();
        all.find(|(_, algorithm)| *algorithm as u32 == number)
            .map(|(_, algorithm)| algorithm)
    }

    fn jws(self) -> Jws {
        match self {
            Algorithm::Hs256 => Jws::HS256,
            Algorithm::Rs256 => Jws::RS256,
            Algorithm::Es256 => Jws::ES256,
            Algorithm::EdDsa => Jws::EdDSA,
        }
    }
}

/// A key that checks signatures.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Bytes that are no key of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key for {}: a public key in PEM, which begins with \"-----BEGIN PUBLIC KEY-----\" (RS256: 2048 bits or more; ES256: P-256; EdDSA: Ed25519); for HS256, {} to {} bytes", algorithm.text(), SECRET_BYTES.start(), SECRET_BYTES.end())]
pub struct BadKey {
    algorithm: Algorithm,
}

/// What a token says of a device that has proven to be it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whose it is, as the app's backend says.
    pub user: Option<String>,
    /// Unix milliseconds from which the token is worth nothing, leeway included.
    pub expires_ms: u64,
}

/// Why a token proves nothing. For logs and metrics; whoever shows the token learns none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Not three parts of base64url, or too long.
    #[error("it is no JSON Web Token, or longer than {MAX_TOKEN_BYTES} bytes")]
    Malformed,
    /// The app has no such key, or the token names none and the app has several.
    #[error("it names no key of the app")]
    UnknownKey,
    /// It was signed with another key, or for another algorithm.
    #[error("its signature is not that of the key it names")]
    WrongSignature,
    /// A claim is missing, or not of its type.
    #[error(
        "it lacks one of the claims \"sub\", \"aud\" and \"exp\", or a claim has the wrong type"
    )]
    MissingClaim,
    /// It is for another app.
    #[error("its \"aud\" is another app")]
    WrongApp,
    /// It is for another device.
    #[error("its \"sub\" is another client identifier")]
    WrongDevice,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    TooEarly,
}

impl Unproven {
    /// The value of the label `reason` of a counter.
    pub fn reason(self) -> &'static str {
        match self {
            Unproven::Malformed => "malformed",
            Unproven::UnknownKey => "unknown_key",
            Unproven::WrongSignature => "wrong_signature",
            Unproven::MissingClaim => "missing_claim",
            Unproven::WrongApp => "wrong_app",
            Unproven::WrongDevice => "wrong_device",
            Unproven::Expired => "expired",
            Unproven::TooEarly => "too_early",
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    /// Seconds; RFC 7519 allows fractions.
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl VerifyingKey {
    /// Takes a key: the secret itself for HS256, else the public key as PEM text.
    pub fn new(algorithm: Algorithm, material: &[u8]) -> Result<VerifyingKey, BadKey> {
        // A private key has no business here, though its public half could be taken from it.
        let is_public = std::str::from_utf8(material)
            .is_ok_and(|pem| pem.trim_start().starts_with("-----BEGIN PUBLIC KEY-----"));
        let key = match algorithm {
            Algorithm::Hs256 => Ok(DecodingKey::from_secret(material)),
            _ if !is_public => return Err(BadKey { algorithm }),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(material),
            Algorithm::Es256 => DecodingKey::from_ec_pem(material),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(material),
        };
        let key = key.map_err(|_| BadKey { algorithm })?;
        let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        // One of another curve, or an RSA key that is too short to be trusted, would refuse every token without a word.
        let fits = match algorithm {
            Algorithm::Hs256 => SECRET_BYTES.contains(&bytes),
            Algorithm::Rs256 => bytes >= 256,
            Algorithm::Es256 => bytes == 65,
            Algorithm::EdDsa => bytes == 32,
        };
        match fits {
            true => Ok(VerifyingKey { algorithm, key }),
            false => Err(BadKey { algorithm }),
        }
    }

    /// Whether a token proves to be this device of this app now.
    pub fn verify(
        &self,
        token: &str,
        app: &AppName,
        device: &str,
        now_ms: u64,
    ) -> Result<Signed, Unproven> {
        let mut rules = Validation::new(self.algorithm.jws());
        // All claims are checked below: against the time that was passed in, and each with a reason of its own.
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        let decoded = jsonwebtoken::decode::<serde_json::Value>(token, &self.key, &rules);
        let claims = decoded.map_err(|_| Unproven::WrongSignature)?.claims;
        let claims: Claims = serde_json::from_value(claims).map_err(|_| Unproven::MissingClaim)?;
        claims.check(app, device, now_ms)
    }
}

impl Claims {
    fn check(self, app: &AppName, device: &str, now_ms: u64) -> Result<Signed, Unproven> {
        let is_for_app = match &self.aud {
            Audience::One(name) => name == app.as_str(),
            Audience::Several(names) => names.iter().any(|name| name == app.as_str()),
        };
        if !is_for_app {
            return Err(Unproven::WrongApp);
        }
        if self.sub != device {
            return Err(Unproven::WrongDevice);
        }
        let leeway_ms = LEEWAY_SECONDS * 1000;
        let expires_ms = unix_ms(self.exp).saturating_add(leeway_ms);
        if expires_ms <= now_ms {
            return Err(Unproven::Expired);
        }
        if self.nbf.map_or(0, unix_ms) > now_ms.saturating_add(leeway_ms) {
            return Err(Unproven::TooEarly);
        }
        let user = self.user.filter(|user| !user.is_empty());
        if user
            .as_deref()
            .is_some_and(|user| names::USER.check(user).is_err())
        {
            return Err(Unproven::MissingClaim);
        }
        Ok(Signed { user, expires_ms })
    }
}

/// Seconds as milliseconds; what is out of bounds becomes the bound.
fn unix_ms(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// The `kid` of a token's header, if it has one. Nothing is proven by it.
pub fn named_key(token: &str) -> Result<Option<String>, Unproven> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Unproven::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Unproven::Malformed)?;
    Ok(header.kid)
}

#[cfg(test)]
mod tests;
