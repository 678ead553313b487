//! Who is asking: API keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use campanile_push::{
    app::{AppName, KeyHash},
    key::ApiKey,
    registry::{
        Context,
        apps::{self, Quotas},
        permission::{Permission, Permissions},
    },
};
use tokio::time::Instant;

use crate::{
    ApiState,
    problem::{Code, Problem},
};

/// How long a key that was found is believed without asking again: a revoked key may work for so long.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Keys remembered. Past it the store is asked each time for the others; keys that do not exist are never remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The key's app.
    pub app: AppName,
    /// The key's id.
    pub key_id: Arc<str>,
    /// What the app may use.
    pub quotas: Quotas,
    permissions: Permissions,
}

impl Caller {
    /// As the audit log names it.
    pub fn actor(&self) -> String {
        format!("key {}", self.key_id)
    }
}

/// Lets the request through if its key belongs to the app that the path names, and allows what the request needs.
pub(crate) async fn authorise(
    state: &ApiState,
    headers: &HeaderMap,
    app: &str,
    needed: Permission,
) -> Result<Caller, Problem> {
    of_app(state, presented(headers)?, app, needed).await
}

/// Lets the request through if it has an app's name and a key of it as user name and password, as JPush sends them, and the key allows what the request needs.
pub(crate) async fn authorise_by_password(
    state: &ApiState,
    headers: &HeaderMap,
    needed: Permission,
) -> Result<Caller, Problem> {
    let (app, key) = presented_as_password(headers)?;
    of_app(state, key, &app, needed).await
}

/// Lets the request through if its key is an operator's, of whatever app.
pub(crate) async fn authorise_operator(
    state: &ApiState,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let caller = caller_of(state, presented(headers)?.hash()).await?;
    caller.require(Permission::Operator)?;
    Ok(caller)
}

async fn of_app(
    state: &ApiState,
    key: ApiKey,
    app: &str,
    needed: Permission,
) -> Result<Caller, Problem> {
    let caller = caller_of(state, key.hash()).await?;
    if caller.app.as_str() != app {
        return Err(Problem::new(
            Code::WrongApp,
            "the API key is valid, but not for the app that the path names",
        ));
    }
    caller.require(needed)?;
    Ok(caller)
}

impl Caller {
    fn require(&self, needed: Permission) -> Result<(), Problem> {
        if self.permissions.allow(needed) {
            return Ok(());
        }
        let has: Vec<&str> = self.permissions.iter().map(Permission::text).collect();
        Err(Problem::new(
            Code::NotPermitted,
            format!(
                "this needs a key with the permission {needed}; key {} has {}",
                self.key_id,
                has.join(", ")
            ),
        ))
    }
}

fn presented(headers: &HeaderMap) -> Result<ApiKey, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::new(
            Code::KeyMissing,
            "send exactly one header \"Authorization: Bearer cmp_...\"",
        ));
    };
    let malformed = || {
        Problem::new(
            Code::KeyInvalid,
            "the Authorization header must be \"Bearer\" and an API key, \"cmp_\" and 43 characters",
        )
    };
    let (scheme, key) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    ApiKey::parse(key.trim_matches(' ')).map_err(|_| malformed())
}

/// App and key, as user name and password.
fn presented_as_password(headers: &HeaderMap) -> Result<(String, ApiKey), Problem> {
    let missing = || {
        Problem::new(
            Code::KeyMissing,
            "send the app's name and an API key as user name and password: \"Authorization: Basic base64(APP:cmp_...)\"",
        )
    };
    let given = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = given.to_str().ok().and_then(|text| text.split_once(' '));
    let (_, encoded) = text
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .ok_or_else(missing)?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let (app, key) = decoded
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(missing)?;
    let key = ApiKey::parse(key).map_err(|_| {
        Problem::new(
            Code::KeyInvalid,
            "the password must be an API key, \"cmp_\" and 43 characters",
        )
    })?;
    Ok((app.to_owned(), key))
}

async fn caller_of(state: &ApiState, key: KeyHash) -> Result<Caller, Problem> {
    if let Some(caller) = state.keys().get(&key) {
        return Ok(caller);
    }
    let (asked_at, now_ms) = (Instant::now(), state.now_ms());
    let found = state
        .read(move |reader| {
            let Some((app, record)) = apps::key_of_hash(reader, &key, now_ms)? else {
                return Ok(None);
            };
            let context = Context {
                reader,
                now_ms,
                unique: 0,
                actor: "",
            };
            let quotas = apps::app(&context, &app)?.unwrap_or_default().quotas;
            Ok(Some((app, record, quotas)))
        })
        .await?;
    match found {
        Some((app, record, quotas)) => {
            let caller = Caller {
                app,
                quotas,
                permissions: record.permissions(),
                key_id: record.id.into(),
            };
            state.keys().remember(key, caller.clone(), asked_at);
            Ok(caller)
        }
        None => Err(Problem::new(
            Code::KeyInvalid,
            "there is no such API key, or it was revoked",
        )),
    }
}

/// Keys found lately.
#[derive(Default)]
pub(crate) struct KeyCache {
    found: Mutex<HashMap<KeyHash, (Caller, Instant)>>,
}

impl KeyCache {
    fn get(&self, key: &KeyHash) -> Option<Caller> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .get(key)
            .filter(|(_, at)| at.elapsed() < BELIEVED_FOR)
            .map(|(caller, _)| caller.clone())
    }

    fn remember(&self, key: KeyHash, caller: Caller, asked_at: Instant) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_REMEMBERED && !found.contains_key(&key) {
            found.retain(|_, (_, at)| at.elapsed() < BELIEVED_FOR);
            if found.len() >= MAX_REMEMBERED {
                return;
            }
        }
        found.insert(key, (caller, asked_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller {
            app: AppName::new("shop").unwrap(),
            key_id: "k_1".into(),
            quotas: Quotas::default(),
            permissions: Permissions::ADMIN,
        }
    }

    fn is_known(cache: &KeyCache, n: usize) -> bool {
        cache.get(&key(n)).is_some()
    }

    fn key(n: usize) -> KeyHash {
        KeyHash::of(&n.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_believed_for_five_seconds() {
        let cache = KeyCache::default();
        cache.remember(key(1), caller(), Instant::now());
        tokio::time::advance(BELIEVED_FOR - Duration::from_millis(1)).await;
        assert!(is_known(&cache, 1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!is_known(&cache, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_bounded_and_makes_room_once_entries_are_old() {
        let cache = KeyCache::default();
        for n in 0..MAX_REMEMBERED {
            cache.remember(key(n), caller(), Instant::now());
        }
        cache.remember(key(MAX_REMEMBERED), caller(), Instant::now());
        assert!(!is_known(&cache, MAX_REMEMBERED));
        tokio::time::advance(BELIEVED_FOR).await;
        cache.remember(key(MAX_REMEMBERED), caller(), Instant::now());
        assert!(is_known(&cache, MAX_REMEMBERED));
        assert_eq!(cache.found.lock().unwrap().len(), 1);
    }
}
