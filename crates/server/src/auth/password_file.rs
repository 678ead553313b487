//! The password file: users, hashes of their passwords, SCRAM verifiers.
//!
//! ```text
//! # a comment
//! ann:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA
//! ann:SCRAM-SHA-256$15000:c2FsdA==$c3RvcmVk:c2VydmVy
//! ```

use std::{collections::HashMap, sync::Arc};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

use super::{LineProblem, scram::Verifier};

/// Most memory that a hash may ask for, KiB: a slip must not take the node down.
const MOST_MEMORY_KIB: u32 = 1 << 20;
/// Most passes that a hash may ask for.
const MOST_PASSES: u32 = 1000;

/// What is known of a user; at least one of the two.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Argon2 hash of the password as a PHC string.
    pub hash: Option<Arc<str>>,
    /// For SCRAM-SHA-256.
    pub scram: Option<Arc<Verifier>>,
}

/// A password file's content.
#[derive(Clone, Debug, Default)]
pub struct PasswordFile {
    users: HashMap<Arc<str>, User>,
    typical_hash: Option<Arc<str>>,
    typical_iterations: Option<u32>,
}

impl PasswordFile {
    /// Reads a password file. Errors are all lines that are wrong.
    pub fn parse(text: &str) -> Result<PasswordFile, Vec<LineProblem>> {
        let mut file = PasswordFile::default();
        let mut problems = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(message) = file.add(line) {
                problems.push((index + 1, message));
            }
        }
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(problems)
        }
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, secret) = line
            .split_once(':')
            .ok_or("no \":\" after the user name; \"campanile passwd\" writes such lines")?;
        check_name(name)?;
        let user = self.users.entry(name.into()).or_default();
        if secret.starts_with("$argon2") {
            let hash: Arc<str> = check_hash(secret)?.into();
            if user.hash.replace(hash.clone()).is_some() {
                return Err(format!(
                    "user {name:?} has a password already, in a line before"
                ));
            }
            self.typical_hash.get_or_insert(hash);
        } else if secret.starts_with("SCRAM-") {
            let verifier: Verifier = secret.parse()?;
            self.typical_iterations.get_or_insert(verifier.iterations);
            if user.scram.replace(Arc::new(verifier)).is_some() {
                return Err(format!(
                    "user {name:?} has a SCRAM verifier already, in a line before"
                ));
            }
        } else {
            // The text may be a password in clear: it is not repeated.
            return Err(format!(
                "user {name:?}: neither an argon2 hash nor a SCRAM verifier follows; \"campanile passwd\" makes one"
            ));
        }
        Ok(())
    }

    /// A user by name, and the name as shared text.
    pub fn user(&self, name: &str) -> Option<(&Arc<str>, &User)> {
        self.users.get_key_value(name)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(super) fn typical_hash(&self) -> Option<&str> {
        self.typical_hash.as_deref()
    }

    pub(super) fn typical_iterations(&self) -> u32 {
        self.typical_iterations.unwrap_or(super::scram::ITERATIONS)
    }
}

/// Whether a name can stand in a password file.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty()
        || name.len() > 1024
        || name.starts_with('#')
        || name.contains(|c: char| c == ':' || c.is_control())
    {
        return Err(format!(
            "user name {name:?}: 1 to 1024 bytes without \":\" and control characters, not beginning with \"#\""
        ));
    }
    Ok(())
}

fn check_hash(text: &str) -> Result<&str, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("not an argon2 hash: {error}; \"campanile passwd\" makes one")
    };
    let hash = PasswordHash::new(text).map_err(|error| wrong(&error))?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(wrong(&"salt or hash is missing"));
    }
    argon2::Algorithm::try_from(hash.algorithm.as_str()).map_err(|error| wrong(&error))?;
    let params = Params::try_from(&hash).map_err(|error| wrong(&error))?;
    if params.m_cost() > MOST_MEMORY_KIB || params.t_cost() > MOST_PASSES {
        return Err(wrong(&format!(
            "m is at most {MOST_MEMORY_KIB}, t at most {MOST_PASSES}"
        )));
    }
    Ok(text)
}

/// Hashes a password with argon2id and a fresh salt, as a PHC string.
pub fn hash(password: &[u8]) -> String {
    Argon2::default()
        .hash_password(password)
        .expect("the default parameters are valid and salts are to be had")
        .to_string()
}

/// Whether a password is that of a PHC string. Slow on purpose.
pub fn verify(password: &[u8], hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_is_verified() {
        let hash = hash(b"secret");
        assert!(hash.starts_with("$argon2id$v=19$m="), "{hash}");
        assert!(verify(b"secret", &hash));
        assert!(!verify(b"Secret", &hash));
        assert!(!verify(b"", &hash));
    }

    #[test]
    fn both_kinds_of_lines_make_one_user() {
        let text = format!(
            "# staff\n\nann:{}\nann:{}\nbob:{}\n",
            hash(b"a"),
            Verifier::new(b"a", b"0123456789abcdef", 4096),
            hash(b"b")
        );
        let file = PasswordFile::parse(&text).unwrap();
        assert_eq!(file.len(), 2);
        let (_, ann) = file.user("ann").unwrap();
        assert!(ann.hash.is_some() && ann.scram.is_some());
        assert!(file.user("cid").is_none());
    }

    #[test]
    fn all_wrong_lines_are_reported_without_what_may_be_a_password() {
        let good = hash(b"a");
        let text = format!(
            "ann:{good}\nann:{good}\nbob\ncid:hunter2\n:{good}\ndan:$argon2id$v=19$m=x$y$z\neve:SCRAM-SHA-256$1:a$b:c\nfay:$argon2id$v=19$m=19456,t=2,p=1\n"
        );
        let problems = PasswordFile::parse(&text).unwrap_err();
        assert_eq!(
            problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6, 7, 8]
        );
        assert!(problems[0].1.contains("has a password already"));
        assert!(
            !problems
                .iter()
                .any(|(_, message)| message.contains("hunter2"))
        );
    }

    #[test]
    fn hashes_that_would_take_the_node_down_are_refused() {
        let costly = hash(b"a").replace("m=19456", "m=4194304");
        assert_eq!(
            PasswordFile::parse(&format!("ann:{costly}"))
                .unwrap_err()
                .len(),
            1
        );
    }
}
