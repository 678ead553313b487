//! The server's side of SCRAM-SHA-256 without channel binding. RFC 5802, RFC 7677; as an MQTT method, MQTT 5.0 section 4.12.
//!
//! Passwords and names are taken as they are; SASLprep would change only some that are not ASCII.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The method's name.
pub const METHOD: &str = "SCRAM-SHA-256";
/// Iterations of new verifiers.
pub const ITERATIONS: u32 = 15_000;
/// Bytes of salt of new verifiers.
pub const SALT_BYTES: usize = 16;

/// Bounds of iterations in a file: RFC 7677's lower one, and what clients can be asked to compute.
const ITERATION_RANGE: std::ops::RangeInclusive<u32> = 4096..=10_000_000;
/// Longest message of a client that is looked at.
const LONGEST_MESSAGE: usize = 8192;
const SEPARATOR: char = '\0'; // Cannot occur in a message.

/// What the server keeps of a password: it proves the client's knowledge of it, and does not reveal it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Salt of PBKDF2.
    pub salt: Vec<u8>,
    /// SHA-256 of the client's key.
    pub stored_key: [u8; 32],
    /// Key of the server's signature.
    pub server_key: [u8; 32],
}

impl Verifier {
    /// The verifier of a password.
    pub fn new(password: &[u8], salt: &[u8], iterations: u32) -> Verifier {
        let salted: [u8; 32] = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations);
        let client_key = hmac(&salted, &[b"Client Key"]);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

impl fmt::Display for Verifier {
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the form of RFC 5803's attributes that others use too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        write!(
            f,
            "{METHOD}${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

impl FromStr for Verifier {
    type Err = String;

    fn from_str(text: &str) -> Result<Verifier, String> {
        let wrong = |what: &str| {
            format!("not a SCRAM verifier: {what}; \"campanile passwd --scram\" makes one")
        };
        let rest = text
            .strip_prefix(METHOD)
            .and_then(|rest| rest.strip_prefix('$'))
            .ok_or_else(|| wrong("it does not begin with \"SCRAM-SHA-256$\""))?;
        let (cost, keys) = rest
            .split_once('$')
            .ok_or_else(|| wrong("the keys are missing"))?;
        let (iterations, salt) = cost
            .split_once(':')
            .ok_or_else(|| wrong("the salt is missing"))?;
        let (stored, server) = keys
            .split_once(':')
            .ok_or_else(|| wrong("the server key is missing"))?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|n| ITERATION_RANGE.contains(n))
            .ok_or_else(|| wrong("iterations are 4096 to 10000000"))?;
        let decode = |text: &str| {
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| wrong("a part is not base64"))
        };
        let key = |text: &str| -> Result<[u8; 32], String> {
            decode(text)?
                .try_into()
                .map_err(|_| wrong("a key is not 32 bytes long"))
        };
        let salt = decode(salt)?;
        if salt.is_empty() {
            return Err(wrong("the salt is empty"));
        }
        Ok(Verifier {
            iterations,
            salt,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

/// Why an exchange failed. For the log; the client learns only that it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Answer to the client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// server-first-message
    pub data: String,
    /// What [`last`] needs: the messages so far.
    pub state: String,
}

/// Answer to the client's last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Who proved to know the password.
    pub username: String,
    /// server-final-message
    pub data: String,
}

/// A nonce of 144 random bits.
pub fn nonce() -> String {
    BASE64_STANDARD.encode(super::decoy::random::<18>())
}

/// Answers client-first-message. `verifier_of` also answers for users that do not exist.
pub fn first(
    message: &[u8],
    nonce: &str,
    verifier_of: impl FnOnce(&str) -> Arc<Verifier>,
) -> Result<Challenge, Refused> {
    let message = text_of(message)?;
    let (flag, rest) = message
        .split_once(',')
        .ok_or(Refused("malformed first message"))?;
    match flag {
        "n" | "y" => {}
        _ if flag.starts_with("p=") => return Err(Refused("channel binding is not supported")),
        _ => return Err(Refused("malformed channel binding flag")),
    }
    let (authorised_as, bare) = rest
        .split_once(',')
        .ok_or(Refused("malformed first message"))?;
    let (username, client_nonce) = parse_bare(bare)?;
    if !authorised_as.is_empty()
        && authorised_as.strip_prefix("a=").map(decode_name) != Some(Some(username.clone()))
    {
        return Err(Refused("acting for another user is not supported"));
    }
    let verifier = verifier_of(&username);
    let data = format!(
        "r={client_nonce}{nonce},s={},i={}",
        BASE64_STANDARD.encode(&verifier.salt),
        verifier.iterations
    );
    let state = format!("{flag},{authorised_as},{SEPARATOR}{bare}{SEPARATOR}{data}");
    Ok(Challenge { data, state })
}

/// Judges client-final-message.
pub fn last(
    state: &[u8],
    message: &[u8],
    verifier_of: impl FnOnce(&str) -> Arc<Verifier>,
) -> Result<Proof, Refused> {
    const LOST: Refused = Refused("the state of the exchange is not ours");
    let state = std::str::from_utf8(state).map_err(|_| LOST)?;
    let mut parts = state.split(SEPARATOR);
    let (Some(header), Some(bare), Some(server_first), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(LOST);
    };
    let (username, _) = parse_bare(bare)?;
    let nonce = server_first.split(',').next().ok_or(LOST)?; // With its "r=".

    let message = text_of(message)?;
    let (without_proof, proof) = message
        .rsplit_once(",p=")
        .ok_or(Refused("malformed final message"))?;
    let mut attributes = without_proof.split(',');
    let binding = attributes
        .next()
        .and_then(|part| part.strip_prefix("c="))
        .ok_or(Refused("malformed final message"))?;
    let binding = BASE64_STANDARD
        .decode(binding)
        .map_err(|_| Refused("malformed channel binding"))?;
    if binding != header.as_bytes() {
        return Err(Refused(
            "the channel binding differs from that of the first message",
        ));
    }
    if attributes.next() != Some(nonce) {
        return Err(Refused("wrong nonce"));
    }
    let proof: [u8; 32] = BASE64_STANDARD
        .decode(proof)
        .ok()
        .and_then(|proof| proof.try_into().ok())
        .ok_or(Refused("malformed proof"))?;

    let verifier = verifier_of(&username);
    let signed: [&[u8]; 5] = [
        bare.as_bytes(),
        b",",
        server_first.as_bytes(),
        b",",
        without_proof.as_bytes(),
    ];
    let signature = hmac(&verifier.stored_key, &signed);
    let mut client_key = [0; 32];
    for (byte, (proof, signature)) in client_key.iter_mut().zip(proof.iter().zip(signature)) {
        *byte = proof ^ signature;
    }
    let stored: [u8; 32] = Sha256::digest(client_key).into();
    if !bool::from(stored.ct_eq(&verifier.stored_key)) {
        return Err(Refused("wrong password or unknown user"));
    }
    let data = format!(
        "v={}",
        BASE64_STANDARD.encode(hmac(&verifier.server_key, &signed))
    );
    Ok(Proof { username, data })
}

fn text_of(message: &[u8]) -> Result<&str, Refused> {
    if message.len() > LONGEST_MESSAGE {
        return Err(Refused("a message is too long"));
    }
    let text = std::str::from_utf8(message).map_err(|_| Refused("a message is not UTF-8"))?;
    if text.contains(SEPARATOR) {
        Err(Refused("a message contains U+0000"))
    } else {
        Ok(text)
    }
}

/// User name and nonce of client-first-message-bare.
fn parse_bare(bare: &str) -> Result<(String, &str), Refused> {
    if bare.starts_with("m=") {
        return Err(Refused("mandatory extensions are not supported"));
    }
    let mut attributes = bare.split(',');
    let name = attributes
        .next()
        .and_then(|part| part.strip_prefix("n="))
        .and_then(decode_name)
        .ok_or(Refused("malformed user name"))?;
    let nonce = attributes
        .next()
        .and_then(|part| part.strip_prefix("r="))
        .ok_or(Refused("malformed nonce"))?;
    if nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refused("malformed nonce"));
    }
    Ok((name, nonce))
}

/// Undoes `=2C` and `=3D`; `None` for any other use of `=`, and for an empty name.
fn decode_name(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else {
            ('=', part.strip_prefix("3D")?)
        };
        name.push(c);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 section 3.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn pencil(_: &str) -> Arc<Verifier> {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Arc::new(Verifier::new(b"pencil", &salt, 4096))
    }

    fn challenge() -> Challenge {
        first(FIRST.as_bytes(), NONCE, pencil).unwrap()
    }

    #[test]
    fn example_of_rfc_7677() {
        let challenge = challenge();
        assert_eq!(
            challenge.data,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let proof = last(challenge.state.as_bytes(), LAST.as_bytes(), pencil).unwrap();
        assert_eq!(
            proof,
            Proof {
                username: "user".to_owned(),
                data: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned()
            }
        );
    }

    #[test]
    fn wrong_password_nonce_binding_and_order_are_refused() {
        let state = challenge().state;
        let check = |message: &str, verifier: fn(&str) -> Arc<Verifier>| {
            last(state.as_bytes(), message.as_bytes(), verifier)
                .unwrap_err()
                .0
        };
        let other = |_: &str| {
            Arc::new(Verifier::new(
                b"Pencil",
                &BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
                4096,
            ))
        };
        assert_eq!(check(LAST, other), "wrong password or unknown user");
        assert_eq!(check(&LAST.replace("k0,p", "k1,p"), pencil), "wrong nonce");
        assert_eq!(
            check(&LAST.replace("biws", "eSws"), pencil),
            "the channel binding differs from that of the first message"
        );
        assert_eq!(check("p=,c=biws", pencil), "malformed final message");
        assert_eq!(check("", pencil), "malformed final message");
        assert_eq!(
            last(b"x", LAST.as_bytes(), pencil),
            Err(Refused("the state of the exchange is not ours"))
        );
    }

    #[test]
    fn first_messages_that_are_not_for_us_are_refused() {
        for message in [
            "",
            "n",
            "n,,",
            "p=tls-unique,,n=user,r=x",
            "x,,n=user,r=x",
            "n,,n=user",
            "n,,n=,r=x",
            "n,,n=u=2cser,r=x",
            "n,,n=user,r=",
            "n,a=other,n=user,r=x",
            "n,,m=1,n=user,r=x",
            "n,,n=a\0b,r=x",
        ] {
            assert!(
                first(message.as_bytes(), NONCE, pencil).is_err(),
                "{message:?}"
            );
        }
        assert!(first(b"n,a=us=3Der,n=us=3Der,r=x", NONCE, pencil).is_ok());
        assert!(first(b"y,,n=user,r=x", NONCE, pencil).is_ok());
        assert!(first(&[b'x'; LONGEST_MESSAGE + 1], NONCE, pencil).is_err());
    }

    #[test]
    fn names_are_decoded() {
        assert_eq!(decode_name("a=2Cb=3Dc"), Some("a,b=c".to_owned()));
        assert_eq!(decode_name("a=b"), None);
        assert_eq!(decode_name(""), None);
    }

    #[test]
    fn verifiers_survive_their_text_form() {
        let verifier = Verifier::new(b"secret", b"0123456789abcdef", 4096);
        assert_eq!(verifier.to_string().parse(), Ok(verifier.clone()));
        for text in [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:AA==$AA==:AA==",
            "SCRAM-SHA-256$1:AA==$x:y",
            "SCRAM-SHA-1$4096:AA==$x:y",
        ] {
            assert!(text.parse::<Verifier>().is_err(), "{text}");
        }
        assert_eq!(format!("{verifier:?}"), "Verifier(4096 iterations)");
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_it_panic(state in "\\PC{0,60}", message in "(c=biws|n,,|y,a=)?[,=a-z0-9\\x00\\PC]{0,60}") {
            let _ = first(message.as_bytes(), NONCE, pencil_cached);
            let _ = last(state.as_bytes(), message.as_bytes(), pencil_cached);
            let _ = last(challenge_cached().as_bytes(), message.as_bytes(), pencil_cached);
        }
    }

    fn pencil_cached(_: &str) -> Arc<Verifier> {
        static VERIFIER: std::sync::OnceLock<Arc<Verifier>> = std::sync::OnceLock::new();
        VERIFIER.get_or_init(|| pencil("")).clone()
    }

    fn challenge_cached() -> &'static str {
        static STATE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        STATE.get_or_init(|| challenge().state)
    }
}
