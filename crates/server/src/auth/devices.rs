//! Devices that prove who they are: with a token of their app, or with one that the app's backend has signed.
//!
//! What is needed of an app for that, its keys and rules, is kept in memory and read again every few seconds, so that a signed token is judged without the
//! store, also while that is away. A token is looked up each time: it may have been revoked.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use campanile_broker::{
    access::{AuthRequest, DeviceIdentity, Identity, Verdict},
    ids::{AppId, Millis},
};
use campanile_mqtt::Reason;
use campanile_push::{
    app::AppName,
    device_key::{self, Signed, Unproven, VerifyingKey},
    registry::{
        decode_profile, device_keys,
        device_rules::{self, DeviceRules},
        tokens::{self, DeviceToken, TokenRecord},
    },
    rows::{Key, Scope, Table},
    store::{Reader, Unavailable},
};

use super::acl::{Acl, Action};
use crate::net::clock::Clock;

/// How old what is known of an app may be.
pub const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// How often at most a key that nobody knows has the keys of an app read again: it may be new.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a password is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As a device's token.
    Token,
    /// As a signed token.
    Signed,
    /// As a user's password.
    Password,
}

impl Shape {
    /// What a client shows. A user's password never looks like the others: they are long, and begin like this.
    pub fn of(password: &[u8]) -> Shape {
        if DeviceToken::hash_of(password).is_some() {
            return Shape::Token;
        }
        // What every JSON object begins with, `{"`, in base64url.
        let dots = || password.iter().filter(|byte| **byte == b'.').count();
        match password.starts_with(b"eyJ") && dots() == 2 {
            true => Shape::Signed,
            false => Shape::Password,
        }
    }
}

/// Judges devices by what their apps keep in the store.
#[derive(Default)]
pub struct DeviceCredentials {
    store: ArcSwapOption<Store>,
    apps: ArcSwap<HashMap<AppId, Arc<OfApp>>>,
    refreshing: Mutex<BTreeMap<AppId, Instant>>,
}

struct Store {
    reader: Arc<dyn Reader>,
    clock: Clock,
}

/// What is known of an app.
struct OfApp {
    name: AppName,
    /// By their `kid`; `None`: only a newer version can use it.
    keys: BTreeMap<String, Option<VerifyingKey>>,
    /// The rules as access rules, `%c` for the client identifier and `%u` for the user.
    rules: Acl,
}

/// Why a device is not let in.
enum Refused {
    NoToken,
    Unproven(Unproven),
    /// The user name is another device's.
    WrongName,
    Unavailable(Unavailable),
}

impl From<Unavailable> for Refused {
    fn from(why: Unavailable) -> Refused {
        Refused::Unavailable(why)
    }
}

impl From<Unproven> for Refused {
    fn from(why: Unproven) -> Refused {
        Refused::Unproven(why)
    }
}

impl DeviceCredentials {
    /// Reads from this store from now on, at first what is needed of these apps.
    pub fn start(&self, reader: Arc<dyn Reader>, clock: Clock, apps: impl Iterator<Item = AppId>) {
        self.store.store(Some(Arc::new(Store { reader, clock })));
        for app in apps {
            self.refresh(&app);
        }
    }

    /// Lets go of the store.
    pub fn stop(&self) {
        self.store.store(None);
    }

    /// Reads again what is known of apps.
    pub fn refresh_all(&self) {
        for app in self.apps.load().keys() {
            self.refresh(app);
        }
    }

    fn refresh(&self, app: &AppId) {
        let store = self.store.load();
        let Some(store) = &*store else {
            return;
        };
        match OfApp::read(app, store) {
            Ok(Some(of_app)) => {
                let of_app = Arc::new(of_app);
                self.apps.rcu(|apps| {
                    let mut apps = HashMap::clone(apps);
                    apps.insert(app.clone(), of_app.clone());
                    apps
                });
            }
            Ok(None) => {}
            // What was known before is believed on.
            Err(reason) => {
                tracing::debug!(%app, %reason, "keys and rules of devices cannot be read again");
            }
        }
    }

    /// What is known of an app, read now if nothing is.
    fn of_app(&self, app: &AppId) -> Option<Arc<OfApp>> {
        if let Some(known) = self.apps.load().get(app) {
            return Some(known.clone());
        }
        self.refresh(app);
        self.apps.load().get(app).cloned()
    }

    /// Judges a device; reads from the store.
    pub fn judge(&self, request: &AuthRequest, shape: Shape, disconnect_expired: bool) -> Verdict {
        let password = request.password.as_deref().unwrap_or_default();
        let (way, judged) = match shape {
            Shape::Signed => (
                "jwt",
                self.judge_signed(request, password, disconnect_expired),
            ),
            _ => ("token", self.judge_token(request, password)),
        };
        let (reason, detail, verdict) = match judged {
            Ok(device) => {
                let identity = Identity {
                    username: None,
                    device: Some(Arc::new(device)),
                };
                return Verdict::Allow {
                    identity,
                    data: None,
                };
            }
            // Whoever guesses learns nothing but "no", whatever is wrong.
            Err(Refused::NoToken) => (
                "unknown_token",
                "it is not the token of this device".to_owned(),
                Reason::BadUserNameOrPassword,
            ),
            Err(Refused::WrongName) => (
                "wrong_user_name",
                "the user name must be the client identifier, or empty".to_owned(),
                Reason::BadUserNameOrPassword,
            ),
            Err(Refused::Unproven(why)) => {
                (why.reason(), why.to_string(), Reason::BadUserNameOrPassword)
            }
            Err(Refused::Unavailable(why)) => (
                "store_unavailable",
                why.to_string(),
                Reason::ServerUnavailable,
            ),
        };
        metrics::counter!("campanile_device_credentials_refused_total", "way" => way, "reason" => reason)
            .increment(1);
        tracing::debug!(client_id = %request.client_id, app = %request.app, peer = %request.peer, listener = %request.listener, way, reason, detail, "device refused");
        Verdict::Deny(verdict)
    }

    fn judge_token(&self, request: &AuthRequest, token: &[u8]) -> Result<DeviceIdentity, Refused> {
        check_name(request)?;
        let hash = DeviceToken::hash_of(token).ok_or(Refused::NoToken)?;
        let device = &*request.client_id;
        let rows = [tokens::row(device), Key::new(Table::Device, device)];
        let (now_ms, found) = self.read(&request.app, &rows)?;
        let [token, profile] = &found[..] else {
            return Err(Refused::NoToken);
        };
        let record = match token {
            Some(row) => TokenRecord::decode_row(&row.value)?,
            None => TokenRecord::default(),
        };
        if !record.accepts(&hash, now_ms) {
            return Err(Refused::NoToken);
        }
        Ok(DeviceIdentity {
            app: request.app.clone(),
            user: user_of(profile.as_ref())?,
            binds_user: false,
            expires_at: None,
        })
    }

    fn judge_signed(
        &self,
        request: &AuthRequest,
        token: &[u8],
        disconnect_expired: bool,
    ) -> Result<DeviceIdentity, Refused> {
        check_name(request)?;
        let token = std::str::from_utf8(token).map_err(|_| Unproven::Malformed)?;
        let kid = device_key::named_key(token)?;
        let app = self.of_app(&request.app).ok_or(Unproven::UnknownKey)?;
        let key = match app.key(kid.as_deref()) {
            Some(key) => key.clone(),
            None => {
                self.look_again(&request.app);
                let again = self.of_app(&request.app).ok_or(Unproven::UnknownKey)?;
                again
                    .key(kid.as_deref())
                    .ok_or(Unproven::UnknownKey)?
                    .clone()
            }
        };
        let now_ms = self
            .store
            .load()
            .as_ref()
            .map_or(0, |store| store.clock.now().0);
        let Signed { user, expires_ms } =
            key.verify(token, &app.name, &request.client_id, now_ms)?;
        let binds_user = user.is_some();
        let user = match user {
            Some(user) => Some(user.into()),
            None => {
                let row = [Key::new(Table::Device, &*request.client_id)];
                let (_, found) = self.read(&request.app, &row)?;
                user_of(found.first().and_then(Option::as_ref))?
            }
        };
        Ok(DeviceIdentity {
            app: request.app.clone(),
            user,
            binds_user,
            expires_at: disconnect_expired.then_some(Millis(expires_ms)),
        })
    }

    /// Reads the keys of an app again, unless that was done a moment ago.
    fn look_again(&self, app: &AppId) {
        let now = Instant::now();
        {
            let mut refreshing = self
                .refreshing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let last = refreshing.get(app);
            if last.is_some_and(|last| now.duration_since(*last) < LOOK_AGAIN) {
                return;
            }
            refreshing.insert(app.clone(), now);
        }
        self.refresh(app);
    }

    fn read(
        &self,
        app: &AppId,
        rows: &[Key],
    ) -> Result<(u64, Vec<Option<campanile_push::rows::Row>>), Unavailable> {
        let store = self.store.load();
        let store = store
            .as_ref()
            .ok_or_else(|| Unavailable("the node is still starting".into()))?;
        let Ok(name) = AppName::new(app.as_str()) else {
            return Ok((0, rows.iter().map(|_| None).collect()));
        };
        let now_ms = store.clock.now().0;
        let found = store.reader.rows_at(&Scope::App(name), rows, now_ms)?;
        Ok((now_ms, found))
    }

    /// Whether an app allows its device this. `client_id` is the device's.
    pub fn allows(
        &self,
        device: &DeviceIdentity,
        client_id: &str,
        action: Action,
        topic: &str,
    ) -> bool {
        if action == Action::Subscribe && matches!(topic, "push/in" | "push/ctl") {
            // It gets what is there anyway; many clients subscribe before they listen.
            return true;
        }
        let apps = self.apps.load();
        let rules = apps.get(&device.app).map(|app| &app.rules);
        rules.is_some_and(|rules| rules.allows(action, device.user.as_deref(), client_id, topic))
    }
}

impl OfApp {
    /// `None` if there can be no such app.
    fn read(app: &AppId, store: &Store) -> Result<Option<OfApp>, Unavailable> {
        let Ok(name) = AppName::new(app.as_str()) else {
            return Ok(None);
        };
        let now_ms = store.clock.now().0;
        let keys = device_keys::list(&*store.reader, &name, now_ms)?;
        let rules = device_rules::get(&*store.reader, &name, now_ms)?;
        let rules = access_rules(&rules).unwrap_or_else(|problems| {
            tracing::error!(%app, ?problems, "the rules of the app's devices cannot be used, they may do nothing; set them again");
            Acl::default()
        });
        let verifying =
            |(kid, record): (String, device_keys::DeviceKeyRecord)| (kid, record.verifying());
        Ok(Some(OfApp {
            name,
            keys: keys.into_iter().map(verifying).collect(),
            rules,
        }))
    }

    /// The key that a token names. One that names none means the only one there is.
    fn key(&self, kid: Option<&str>) -> Option<&VerifyingKey> {
        match kid {
            Some(kid) => self.keys.get(kid)?.as_ref(),
            None if self.keys.len() == 1 => self.keys.values().next()?.as_ref(),
            None => None,
        }
    }
}

/// The rules of an app in the language of ACL files.
fn access_rules(rules: &DeviceRules) -> Result<Acl, Vec<(usize, String)>> {
    let line = |right: &str, pattern: &str| {
        let pattern = pattern
            .replace(device_rules::CLIENT, "%c")
            .replace(device_rules::USER, "%u");
        format!("pattern {right} {pattern}\n")
    };
    let publish = rules.publish.iter().map(|pattern| line("write", pattern));
    let subscribe = rules.subscribe.iter().map(|pattern| line("read", pattern));
    Acl::parse(&publish.chain(subscribe).collect::<String>())
}

/// MQTT before 5.0 wants a user name with a password. It says nothing that the client identifier does not.
fn check_name(request: &AuthRequest) -> Result<(), Refused> {
    match request.username.as_deref() {
        None | Some("") => Ok(()),
        Some(name) if *name == *request.client_id => Ok(()),
        Some(_) => Err(Refused::WrongName),
    }
}

fn user_of(row: Option<&campanile_push::rows::Row>) -> Result<Option<Arc<str>>, Unavailable> {
    let Some(row) = row else { return Ok(None) };
    Ok(decode_profile(&row.value)?.user().map(Arc::from))
}

#[cfg(test)]
mod tests;
