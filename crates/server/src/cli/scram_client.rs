//! SCRAM-SHA-256, the client's side, as MQTT 5.0 enhanced authentication carries it. RFC 5802, RFC 7677.
//!
//! Deliberately absent: channel binding, and SASLprep beyond its result for ASCII: other characters are used as they are.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The name of the method on the wire.
pub const METHOD: &str = "SCRAM-SHA-256";

/// RFC 7677 section 4 asks for at least this many.
const MIN_ITERATIONS: u32 = 4096;
/// A server that asks for more wants the client's time, not its proof.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Why the exchange failed. The password was not given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The server's message is not SCRAM.
    #[error("the server's SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    /// The server said why.
    #[error("the server refused the SCRAM exchange: {0}")]
    Refused(String),
    /// The server does not know the password.
    #[error(
        "the server could not prove that it knows the password: it may not be the one it claims to be"
    )]
    ServerNotAuthentic,
}

/// The first step: what the client says before the server has spoken.
#[derive(Clone)]
pub struct ClientFirst {
    password: String,
    nonce: String,
    /// Without the header.
    bare: String,
}

/// The last step: the server has yet to prove itself.
#[derive(Clone)]
pub struct ClientFinal {
    server_signature: Vec<u8>,
}

/// Of messages without channel binding or another identity to act as.
const GS2_HEADER: &str = "n,,";

impl ClientFirst {
    /// Begins an exchange. `nonce` is random, printable and without commas.
    pub fn new(username: &str, password: &str, nonce: &str) -> ClientFirst {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        ClientFirst {
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            bare: format!("n={username},r={nonce}"),
        }
    }

    /// The first message.
    pub fn message(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// Answers the server's challenge: the next state and the client's last message.
    pub fn on_challenge(&self, challenge: &[u8]) -> Result<(ClientFinal, String), ScramError> {
        let challenge = text(challenge)?;
        let mut attributes = challenge.split(',');
        let nonce = attribute(attributes.next(), "r=", "nonce")?;
        let salt = attribute(attributes.next(), "s=", "salt")?;
        let salt = BASE64
            .decode(salt)
            .map_err(|_| ScramError::Malformed("salt"))?;
        let iterations: u32 = attribute(attributes.next(), "i=", "iteration count")?
            .parse()
            .map_err(|_| ScramError::Malformed("iteration count"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed(
                "the nonce does not go on from the client's",
            ));
        }
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Malformed(
                "the iteration count must be 4096..=10000000",
            ));
        }
        let without_proof = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, iterations, &mut salted);
        let client_key = hmac(&salted, b"Client Key");
        let client_signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(client_signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_signature = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes()).to_vec();
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok((ClientFinal { server_signature }, message))
    }
}

impl ClientFinal {
    /// Checks the server's last message, its proof.
    pub fn on_outcome(&self, outcome: &[u8]) -> Result<(), ScramError> {
        let first = text(outcome)?.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ScramError::Refused(error.to_owned()));
        }
        let signature = attribute(Some(first), "v=", "server signature")?;
        // What the server sent is no secret, so it need not be compared in constant time.
        match BASE64.decode(signature) {
            Ok(signature) if signature == self.server_signature => Ok(()),
            _ => Err(ScramError::ServerNotAuthentic),
        }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

fn attribute<'a>(
    attribute: Option<&'a str>,
    name: &str,
    what: &'static str,
) -> Result<&'a str, ScramError> {
    attribute
        .and_then(|attribute| attribute.strip_prefix(name))
        .ok_or(ScramError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn first() -> ClientFirst {
        ClientFirst::new("user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    }

    #[test]
    fn exchange_of_rfc_7677() {
        assert_eq!(first().message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, message) = first().on_challenge(CHALLENGE).unwrap();
        assert_eq!(
            message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(
            last.on_outcome(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Ok(())
        );
        assert_eq!(
            last.on_outcome(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Err(ScramError::ServerNotAuthentic)
        );
        assert_eq!(
            last.on_outcome(b"e=unknown-user"),
            Err(ScramError::Refused("unknown-user".to_owned()))
        );
        assert!(last.on_outcome(b"").is_err());
    }

    #[test]
    fn user_names_are_escaped() {
        assert_eq!(
            ClientFirst::new("a=b,c", "", "x").message(),
            "n,,n=a=3Db=2Cc,r=x"
        );
    }

    #[test]
    fn bad_challenges_are_refused() {
        for challenge in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=QQ==,i=4096",
            "r=other,s=QQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=99999999999",
            "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4096",
        ] {
            let refused = first().on_challenge(challenge.as_bytes());
            assert!(
                matches!(refused, Err(ScramError::Malformed(_))),
                "{challenge}"
            );
        }
    }
}
