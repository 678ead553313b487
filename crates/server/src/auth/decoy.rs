//! What stands in for users that do not exist, so that nobody can tell from outside that they do not.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{password_file, scram::Verifier};

/// Stand-ins, the same for the same name as long as the process lives.
pub(super) struct Decoy {
    secret: [u8; 32],
    hash: String,
}

impl Decoy {
    pub(super) fn new() -> Decoy {
        let secret = random();
        Decoy {
            hash: password_file::hash(&secret),
            secret,
        }
    }

    /// Takes as long as verifying a password against `typical`, or against a hash as we make it, and says nothing.
    pub(super) fn verify(&self, password: &[u8], typical: Option<&str>) {
        let _ = password_file::verify(password, typical.unwrap_or(&self.hash));
    }

    /// A SCRAM verifier whose password nobody knows.
    pub(super) fn verifier(&self, user: &str, iterations: u32) -> Arc<Verifier> {
        let derive = |purpose: &[u8]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret)
                .expect("HMAC takes keys of any length");
            mac.update(purpose);
            mac.update(user.as_bytes());
            mac.finalize().into_bytes().into()
        };
        let salt = derive(b"salt:")[..super::scram::SALT_BYTES].to_vec();
        Arc::new(Verifier {
            iterations,
            salt,
            stored_key: derive(b"stored:"),
            server_key: derive(b"server:"),
        })
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
