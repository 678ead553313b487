//! Rates, kept by token buckets.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use campanile_push::app::AppName;

/// Apps whose rates are remembered. Past it those that rest are forgotten, which gives them a full bucket.
const MAX_APPS: usize = 10_000;

/// A token bucket. What it holds is in thousandths of a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    left: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(burst: u64) -> Bucket {
        Bucket {
            left: burst.saturating_mul(1000),
            at_ms: 0,
        }
    }

    /// Takes a token, if there is one. `per_1000_seconds` come, up to `burst`.
    pub fn take(&mut self, now_ms: u64, per_1000_seconds: u64, burst: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms; // Also when the clock was set back: the bucket goes on from there.
        let grown = u128::from(elapsed_ms) * u128::from(per_1000_seconds) / 1000;
        let most = burst.saturating_mul(1000);
        let left = u128::from(self.left) + grown;
        self.left = u64::try_from(left).unwrap_or(u64::MAX).min(most);
        let taken = self.left >= 1000;
        if taken {
            self.left -= 1000;
        }
        taken
    }
}

/// Pushes a second of each app, at this node.
#[derive(Debug, Default)]
pub(crate) struct PushRates(Mutex<HashMap<AppName, Bucket>>);

impl PushRates {
    /// Whether the app may make one more push. Of `quota` pushes a second, each of `nodes` nodes has its share; a quiet second may be made up for.
    pub fn admit(&self, app: &AppName, quota: u64, nodes: u64, now_ms: u64) -> bool {
        let nodes = nodes.max(1);
        let per_1000_seconds = quota.saturating_mul(1000) / nodes;
        let burst = quota.div_ceil(nodes).max(1);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_APPS && !buckets.contains_key(app) {
            buckets.retain(|_, bucket| bucket.at_ms.saturating_add(1000) > now_ms);
        }
        let bucket = buckets.entry(app.clone()).or_insert(Bucket::full(burst));
        bucket.take(now_ms, per_1000_seconds, burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(rates: &PushRates, app: &str, nodes: u64, now_ms: u64) -> usize {
        let app = AppName::new(app).unwrap();
        (0..1000)
            .filter(|_| rates.admit(&app, 100, nodes, now_ms))
            .count()
    }

    #[test]
    fn an_app_has_its_rate_and_no_other_app_suffers() {
        let rates = PushRates::default();
        assert_eq!(admitted(&rates, "shop", 1, 1000), 100);
        assert_eq!(admitted(&rates, "shop", 1, 1500), 50);
        assert_eq!(admitted(&rates, "bank", 1, 1500), 100);
        assert_eq!(admitted(&rates, "shop", 1, 9000), 100, "at most a second's");
    }

    #[test]
    fn nodes_share_a_rate() {
        let rates = PushRates::default();
        assert_eq!(admitted(&rates, "shop", 3, 1000), 34);
        assert_eq!(admitted(&rates, "shop", 3, 1300), 9, "33.3 a second");
    }
}
