use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "phone-1", "aud": "shop", "exp": NOW_MS / 1000 + 60});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn signed(algorithm: Jws, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some("k1".to_owned());
    encode(&header, claims, key).unwrap()
}

fn hs256(changes: Value) -> String {
    signed(
        Jws::HS256,
        &EncodingKey::from_secret(SECRET),
        &claims(changes),
    )
}

#[track_caller]
fn check(token: &str, expected: Result<(), Unproven>) {
    let key = VerifyingKey::new(Algorithm::Hs256, SECRET).unwrap();
    let verified = key.verify(token, &shop(), "phone-1", NOW_MS);
    assert_eq!(verified.map(drop), expected);
}

#[test]
fn each_algorithm_proves_a_device() {
    let elliptic = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let private = |pair: &KeyPair| pair.serialize_pem().into_bytes();
    let cases = [
        (
            Algorithm::Es256,
            elliptic.public_key_pem(),
            EncodingKey::from_ec_pem(&private(&elliptic)).unwrap(),
        ),
        (
            Algorithm::EdDsa,
            edwards.public_key_pem(),
            EncodingKey::from_ed_pem(&private(&edwards)).unwrap(),
        ),
        (
            Algorithm::Rs256,
            rsa.public_key_pem(),
            EncodingKey::from_rsa_pem(&private(&rsa)).unwrap(),
        ),
        (
            Algorithm::Hs256,
            String::from_utf8(SECRET.to_vec()).unwrap(),
            EncodingKey::from_secret(SECRET),
        ),
    ];
    for (algorithm, material, signer) in cases {
        let key = VerifyingKey::new(algorithm, material.as_bytes()).unwrap();
        let token = signed(algorithm.jws(), &signer, &claims(json!({"user": "ann"})));
        assert_eq!(named_key(&token).unwrap().as_deref(), Some("k1"));
        let found = key.verify(&token, &shop(), "phone-1", NOW_MS).unwrap();
        assert_eq!(found.user.as_deref(), Some("ann"));
        assert_eq!(found.expires_ms, NOW_MS + 90_000, "{algorithm:?}");
        let mut forged = token.clone();
        let last = forged.pop().unwrap();
        forged.insert(forged.len() - 4, if last == 'A' { 'B' } else { 'A' });
        let refused = key.verify(&forged, &shop(), "phone-1", NOW_MS);
        assert_eq!(refused, Err(Unproven::WrongSignature), "{algorithm:?}");
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    let seconds = NOW_MS / 1000;
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({"aud": ["x", "shop"], "iat": "whatever"}), Ok(())),
        (
            json!({"exp": seconds as f64 + 0.5, "nbf": seconds + 30}),
            Ok(()),
        ),
        (json!({"aud": "forum"}), Err(Unproven::WrongApp)),
        (json!({"aud": []}), Err(Unproven::WrongApp)),
        (json!({"sub": "phone-2"}), Err(Unproven::WrongDevice)),
        (json!({"exp": seconds - 29}), Ok(())),
        (json!({"exp": seconds - 30}), Err(Unproven::Expired)),
        (json!({"exp": -1e300}), Err(Unproven::Expired)),
        (json!({"nbf": seconds + 31}), Err(Unproven::TooEarly)),
        (json!({"sub": null}), Err(Unproven::MissingClaim)),
        (json!({"aud": null}), Err(Unproven::MissingClaim)),
        (json!({"exp": null}), Err(Unproven::MissingClaim)),
        (json!({"exp": "soon"}), Err(Unproven::MissingClaim)),
        (json!({"user": 7}), Err(Unproven::MissingClaim)),
        (json!({"user": "a\u{1}"}), Err(Unproven::MissingClaim)),
    ] {
        check(&hs256(changes), expected);
    }
}

#[test]
fn the_token_does_not_choose_the_algorithm() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let public = pair.public_key_pem();
    // The classic: the public key, which everybody may know, as the secret of an HMAC.
    let forged = signed(
        Jws::HS256,
        &EncodingKey::from_secret(public.as_bytes()),
        &claims(json!({})),
    );
    let key = VerifyingKey::new(Algorithm::EdDsa, public.as_bytes()).unwrap();
    let refused = key.verify(&forged, &shop(), "phone-1", NOW_MS);
    assert_eq!(refused, Err(Unproven::WrongSignature));
    // {"alg":"none"}
    let none = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        hs256(json!({})).split('.').nth(1).unwrap()
    );
    check(&none, Err(Unproven::WrongSignature));
}

#[test]
fn what_is_no_token_is_told_apart_before_a_key_is_looked_for() {
    for text in [
        "",
        "a.b.c",
        "..",
        "eyJhbGciOiJIUzI1NiJ9",
        &"x".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert_eq!(named_key(text), Err(Unproven::Malformed), "{text}");
    }
}

#[test]
fn keys_that_would_refuse_everything_or_should_not_be_here_are_refused() {
    let elliptic = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let longer = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    for (algorithm, material) in [
        (Algorithm::Es256, longer.public_key_pem()),
        (Algorithm::Es256, elliptic.serialize_pem()),
        (Algorithm::EdDsa, elliptic.public_key_pem()),
        (Algorithm::Rs256, elliptic.public_key_pem()),
        (Algorithm::Es256, "nonsense".to_owned()),
        (Algorithm::Hs256, "short".to_owned()),
    ] {
        let refused = VerifyingKey::new(algorithm, material.as_bytes());
        let text = refused.err().expect("it is refused").to_string();
        assert!(text.contains(algorithm.text()), "{text}");
    }
}
