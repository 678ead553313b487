//! Who is asking: API keys.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use campanile_push::{
    app::{AppName, KeyHash},
    key::ApiKey,
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

/// Lets the request through if its key belongs to the app that the path names.
pub(crate) async fn authorise(
    state: &ApiState,
    headers: &HeaderMap,
    app: &str,
) -> Result<AppName, Problem> {
    let owner = owner_of(state, presented(headers)?.hash()).await?;
    if owner.as_str() != app {
        return Err(Problem::new(
            Code::WrongApp,
            "the API key is valid, but not for the app that the path names",
        ));
    }
    Ok(owner)
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

async fn owner_of(state: &ApiState, key: KeyHash) -> Result<AppName, Problem> {
    if let Some(app) = state.keys().get(&key) {
        return Ok(app);
    }
    let asked_at = Instant::now();
    match state.read(move |reader| reader.app_of_key(&key)).await? {
        Some(app) => {
            state.keys().remember(key, app.clone(), asked_at);
            Ok(app)
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
    found: Mutex<HashMap<KeyHash, (AppName, Instant)>>,
}

impl KeyCache {
    fn get(&self, key: &KeyHash) -> Option<AppName> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .get(key)
            .filter(|(_, at)| at.elapsed() < BELIEVED_FOR)
            .map(|(app, _)| app.clone())
    }

    fn remember(&self, key: KeyHash, app: AppName, asked_at: Instant) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_REMEMBERED && !found.contains_key(&key) {
            found.retain(|_, (_, at)| at.elapsed() < BELIEVED_FOR);
            if found.len() >= MAX_REMEMBERED {
                return;
            }
        }
        found.insert(key, (app, asked_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> KeyHash {
        KeyHash::of(&n.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_believed_for_five_seconds() {
        let cache = KeyCache::default();
        let app = AppName::new("shop").unwrap();
        cache.remember(key(1), app.clone(), Instant::now());
        tokio::time::advance(BELIEVED_FOR - Duration::from_millis(1)).await;
        assert_eq!(cache.get(&key(1)), Some(app));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&key(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_bounded_and_makes_room_once_entries_are_old() {
        let cache = KeyCache::default();
        let app = AppName::new("shop").unwrap();
        for n in 0..MAX_REMEMBERED {
            cache.remember(key(n), app.clone(), Instant::now());
        }
        cache.remember(key(MAX_REMEMBERED), app.clone(), Instant::now());
        assert_eq!(cache.get(&key(MAX_REMEMBERED)), None);
        tokio::time::advance(BELIEVED_FOR).await;
        cache.remember(key(MAX_REMEMBERED), app.clone(), Instant::now());
        assert_eq!(cache.get(&key(MAX_REMEMBERED)), Some(app));
        assert_eq!(cache.found.lock().unwrap().len(), 1);
    }
}
