//! Who may connect, and what they may do: the server's implementation of the broker's port [`Access`].
//!
//! Start at [`ClientAccess`]. It judges users by the files that `[clients]` names: [`PasswordFile`] (argon2id hashes and SCRAM verifiers) and
//! [`Acl`]. Both can be read again while the node runs. Devices that come with credentials of their app are judged by [`DeviceCredentials`]. `docs/security.md` describes
//! all of it to operators.

mod acl;
mod cache;
mod decoy;
mod devices;
mod password_file;
mod scram;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use campanile_broker::access::{Access, AuthRequest, Identity, Verdict};
use campanile_mqtt::Reason;

use crate::config::{self, Way};

pub use acl::{Acl, Action};
pub use devices::{DeviceCredentials, REFRESH_EVERY, Shape};
pub use password_file::{PasswordFile, User, check_name, hash as hash_password};
pub use scram::{
    ITERATIONS as SCRAM_ITERATIONS, METHOD as SCRAM_METHOD, SALT_BYTES as SCRAM_SALT_BYTES,
    Verifier,
};

use cache::VerifiedCache;
use decoy::Decoy;
pub(crate) use decoy::random;

/// One thing that is wrong with a password or ACL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// From 1; `None` if the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong and the way out.
    pub message: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

/// Everything that is wrong with the files; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileProblems(pub Vec<FileProblem>);

impl fmt::Display for FileProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// A mistake in a line of a file: its number from 1, and what is wrong.
type LineProblem = (usize, String);

/// Judges clients by the settings of `[clients]`, the files that they name, and the credentials of devices.
pub struct ClientAccess {
    settings: config::Clients,
    /// By listener, how clients may say who they are.
    ways: HashMap<String, Vec<Way>>,
    devices: Arc<DeviceCredentials>,
    files: ArcSwap<Files>,
    verified: VerifiedCache,
    decoy: Decoy,
}

#[derive(Debug, Default)]
struct Files {
    passwords: Option<PasswordFile>,
    acl: Option<Acl>,
}

impl ClientAccess {
    /// Reads the files. What comes through a listener that is not among these may use every way.
    pub fn open(
        settings: &config::Clients,
        listeners: &[config::Listener],
    ) -> Result<ClientAccess, FileProblems> {
        let files = Files::read(settings)?;
        let ways = listeners
            .iter()
            .map(|listener| (listener.name.clone(), listener.auth.clone()));
        Ok(ClientAccess {
            ways: ways.collect(),
            devices: Arc::default(),
            files: ArcSwap::from_pointee(files),
            verified: VerifiedCache::new(settings.password_cache_entries),
            decoy: Decoy::new(),
            settings: settings.clone(),
        })
    }

    /// Reads the files again. If anything is wrong with them, all stays as it is. Clients that are connected stay, but every further publish
    /// and subscription is judged by the new ACL.
    pub fn reload(&self) -> Result<(), FileProblems> {
        self.files.store(Arc::new(Files::read(&self.settings)?));
        Ok(())
    }

    /// The credentials of devices, which need a store before they can be judged.
    pub fn devices(&self) -> Arc<DeviceCredentials> {
        self.devices.clone()
    }

    fn allows(&self, request: &AuthRequest, way: Way) -> bool {
        let ways = self.ways.get(&*request.listener);
        ways.is_none_or(|ways| ways.contains(&way))
    }

    fn judge(&self, request: &AuthRequest, may_block: bool) -> Verdict {
        if let Some(method) = &request.method {
            return self.judge_method(method, request);
        }
        let shape = request.password.as_deref().map(Shape::of);
        let way = match shape {
            None | Some(Shape::Password) => Way::Password,
            Some(Shape::Token) => Way::Token,
            Some(Shape::Signed) => Way::Jwt,
        };
        match (&request.username, &request.password, shape) {
            (None, None, _) => self.judge_anonymous(request),
            _ if !self.allows(request, way) => {
                tracing::debug!(client_id = %request.client_id, peer = %request.peer, listener = %request.listener, way = way.name(), "the listener does not take such credentials");
                Verdict::Deny(Reason::BadUserNameOrPassword)
            }
            (_, _, Some(Shape::Token | Shape::Signed)) if !may_block => Verdict::Later,
            (_, _, Some(shape @ (Shape::Token | Shape::Signed))) => {
                let disconnect_expired = self.settings.disconnect_expired;
                self.devices.judge(request, shape, disconnect_expired)
            }
            (Some(username), _, _) => self.judge_password(request, username, may_block),
            (None, Some(_), _) if self.files.load().passwords.is_none() => {
                self.judge_anonymous(request)
            }
            (None, Some(_), _) => Verdict::Deny(Reason::BadUserNameOrPassword),
        }
    }

    fn judge_anonymous(&self, request: &AuthRequest) -> Verdict {
        if self.settings.allow_anonymous && self.allows(request, Way::Anonymous) {
            welcome(None, None)
        } else {
            Verdict::Deny(Reason::NotAuthorized)
        }
    }

    fn judge_password(&self, request: &AuthRequest, username: &str, may_block: bool) -> Verdict {
        let password = request.password.as_deref().unwrap_or_default();
        let files = self.files.load();
        let Some(passwords) = &files.passwords else {
            // Nobody could prove a name here, so that a name makes no difference.
            return self.judge_anonymous(request);
        };
        let known = passwords
            .user(username)
            .and_then(|(name, user)| Some((name, user.hash.as_ref()?)));
        if let Some((name, hash)) = known
            && self.verified.contains(username, password, hash)
        {
            return welcome(Some(name.clone()), None);
        }
        if !may_block {
            return Verdict::Later; // For unknown users too: a quick answer would tell that they are unknown.
        }
        match known {
            Some((name, hash)) if password_file::verify(password, hash) => {
                self.verified.insert(username, password, hash);
                welcome(Some(name.clone()), None)
            }
            Some(_) => Verdict::Deny(Reason::BadUserNameOrPassword),
            None => {
                self.decoy.verify(password, passwords.typical_hash());
                Verdict::Deny(Reason::BadUserNameOrPassword)
            }
        }
    }

    fn judge_method(&self, method: &str, request: &AuthRequest) -> Verdict {
        let files = self.files.load();
        let Some(passwords) = files
            .passwords
            .as_ref()
            .filter(|_| self.settings.scram && method == scram::METHOD)
            .filter(|_| self.allows(request, Way::Password))
        else {
            return Verdict::Deny(Reason::BadAuthenticationMethod);
        };
        let data = request.data.as_deref().unwrap_or_default();
        let verifier_of = |user: &str| match passwords
            .user(user)
            .and_then(|(_, user)| user.scram.clone())
        {
            Some(verifier) => verifier,
            None => self.decoy.verifier(user, passwords.typical_iterations()),
        };
        let Some(state) = &request.state else {
            return match scram::first(data, &scram::nonce(), verifier_of) {
                Ok(challenge) => Verdict::Challenge {
                    data: challenge.data.into_bytes().into(),
                    state: challenge.state.into_bytes().into(),
                },
                Err(error) => refuse_scram(request, &error),
            };
        };
        let proof = match scram::last(state, data, verifier_of) {
            Ok(proof) => proof,
            Err(error) => return refuse_scram(request, &error),
        };
        // A decoy's password is unknown to everybody, so that nobody can prove it; still, only users of the file come in.
        let Some((name, _)) = passwords
            .user(&proof.username)
            .filter(|(_, user)| user.scram.is_some())
        else {
            return Verdict::Deny(Reason::NotAuthorized);
        };
        if request
            .identity
            .as_ref()
            .is_some_and(|identity| identity.username.as_ref() != Some(name))
        {
            return refuse_scram(
                request,
                &scram::Refused("re-authentication as another user"),
            );
        }
        welcome(Some(name.clone()), Some(proof.data.into_bytes().into()))
    }
}

fn welcome(username: Option<Arc<str>>, data: Option<Arc<[u8]>>) -> Verdict {
    Verdict::Allow {
        identity: Identity {
            username,
            device: None,
        },
        data,
    }
}

fn refuse_scram(request: &AuthRequest, error: &scram::Refused) -> Verdict {
    tracing::debug!(client_id = %request.client_id, peer = %request.peer, listener = %request.listener, reason = %error, "authentication refused");
    Verdict::Deny(Reason::NotAuthorized)
}

impl Access for ClientAccess {
    fn authenticate(&self, request: &AuthRequest) -> Verdict {
        self.judge(request, false)
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        self.judge(request, true)
    }

    fn may_publish(&self, who: &Identity, client_id: &str, topic: &str) -> bool {
        self.may(Action::Publish, who, client_id, topic)
    }

    fn may_subscribe(&self, who: &Identity, client_id: &str, filter: &str) -> bool {
        self.may(Action::Subscribe, who, client_id, filter)
    }
}

impl ClientAccess {
    /// A device may do what its app allows and the operator does not forbid; others, what the ACL file says.
    fn may(&self, action: Action, who: &Identity, client_id: &str, topic: &str) -> bool {
        let files = self.files.load();
        match (&who.device, &files.acl) {
            (Some(device), acl) => {
                let denied = acl
                    .as_ref()
                    .is_some_and(|acl| acl.denies_everybody(client_id, topic));
                !denied && self.devices.allows(device, client_id, action, topic)
            }
            (None, Some(acl)) => acl.allows(action, who.username.as_deref(), client_id, topic),
            (None, None) => true,
        }
    }
}

impl Files {
    fn read(settings: &config::Clients) -> Result<Files, FileProblems> {
        let mut problems = Vec::new();
        let files = Files {
            passwords: read_one(
                settings.password_file.as_ref(),
                PasswordFile::parse,
                &mut problems,
            ),
            acl: read_one(settings.acl_file.as_ref(), Acl::parse, &mut problems),
        };
        if problems.is_empty() {
            Ok(files)
        } else {
            Err(FileProblems(problems))
        }
    }
}

fn read_one<T>(
    path: Option<&PathBuf>,
    parse: impl FnOnce(&str) -> Result<T, Vec<LineProblem>>,
    problems: &mut Vec<FileProblem>,
) -> Option<T> {
    let path = path?;
    let mut wrong = |line, message| {
        problems.push(FileProblem {
            path: path.clone(),
            line,
            message,
        })
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            wrong(None, format!("cannot be read: {error}"));
            return None;
        }
    };
    parse(&text)
        .map_err(|found| {
            found
                .into_iter()
                .for_each(|(line, message)| wrong(Some(line), message))
        })
        .ok()
}
