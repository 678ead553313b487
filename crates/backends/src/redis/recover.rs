//! The start of a node: of one alone, what it must know; among several, only whether the store is one that it can read.

use std::collections::BTreeMap;

use campanile_broker::{
    ids::{AppId, ClientKey, Millis},
    store::{OwedWill, Recovery, StoreError, StoredSubscription},
};
use redis::Value;

use super::{
    APPS_TAG, Redis,
    commit::{Fate, key},
    malformed,
    pack::{Malformed, Pack, Packed},
    reply,
    servers::{Down, Server, send},
};

/// Version of what the scripts store. A store of another one is refused.
const FORMAT: u64 = 3;
/// Connections that one run of the script looks at.
const DEVICES_AT_ONCE: u64 = 1000;
/// Keys that one SCAN looks at.
const KEYS_AT_ONCE: u64 = 1000;

impl Redis {
    /// See [`crate::Backend::recover`].
    pub(super) fn recover_at(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.clock = self.clock.max(now);
        self.check_format()?;
        let mut recovery = Recovery::default();
        if self.rules.shared {
            return Ok(recovery);
        }
        for app in self.apps()? {
            self.recover_devices(&app, now)?;
            recovery.wills.extend(self.recover_wills(&app, now, false)?);
            recovery.wills.extend(self.recover_wills(&app, now, true)?);
            self.recover_messages(&app, now, &mut recovery)?;
        }
        recovery.sessions = self.sessions()?;
        Ok(recovery)
    }

    fn check_format(&mut self) -> Result<(), StoreError> {
        let mut request = Pack::default();
        request.array(2).text("format").number(FORMAT);
        let found = self.run_alone(APPS_TAG, request)?;
        let found = found.number().map_err(|Malformed| malformed())?;
        if found != FORMAT {
            return Err(StoreError::Unavailable(
                format!(
                    "redis: the store has format {found}, this version reads {FORMAT}; \
                     use the version that wrote it, or another prefix"
                )
                .into(),
            ));
        }
        Ok(())
    }

    /// Carries out one request beside any batch.
    fn run_alone(&mut self, tag: &str, request: Pack) -> Result<Packed, StoreError> {
        let mut chunks = [self.chunk(&tag.into(), vec![request.into_bytes()])];
        self.runtime.block_on(self.committer.run(&mut chunks));
        let [chunk] = chunks;
        match chunk.fate {
            Fate::Done(answer) => answer.replies.into_iter().next().ok_or_else(malformed),
            Fate::TooFew(_, reason) | Fate::Unknown(reason) | Fate::Unclear(reason) => {
                Err(StoreError::Unknown(reason))
            }
            Fate::Refused(reason) => Err(StoreError::Unavailable(reason)),
            Fate::Waiting(reason) => Err(StoreError::Unavailable(
                reason.unwrap_or_else(|| "redis is down".into()),
            )),
        }
    }

    /// Lets sessions begin to expire whose connections were up when the last run ended.
    fn recover_devices(&mut self, app: &AppId, now: Millis) -> Result<(), StoreError> {
        loop {
            let mut request = Pack::default();
            request
                .array(3)
                .text("recover_devices")
                .number(now.0)
                .number(DEVICES_AT_ONCE);
            let is_all = self.run_alone(app.as_str(), request)?;
            if is_all.truth().map_err(|Malformed| malformed())? {
                return Ok(());
            }
        }
    }

    fn recover_wills(
        &mut self,
        app: &AppId,
        now: Millis,
        is_final: bool,
    ) -> Result<Vec<OwedWill>, StoreError> {
        // A scan may show an entry twice.
        let mut wills = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut request = Pack::default();
            request
                .array(4)
                .text("recover_wills")
                .number(now.0)
                .text(&cursor)
                .truth(is_final);
            let page = self.run_alone(app.as_str(), request)?;
            let read = || {
                let [next, found] = page.tuple()?;
                Ok((
                    next.text()?,
                    found.list(|will| reply::owed_will(app, will))?,
                ))
            };
            let (next, found) = read().map_err(|Malformed| malformed())?;
            for will in found {
                let id = (will.client.clone(), will.will.message.id);
                wills.entry(id).or_insert(will);
            }
            if next == "0" {
                return Ok(wills.into_values().collect());
            }
            cursor = next;
        }
    }

    fn recover_messages(
        &self,
        app: &AppId,
        now: Millis,
        recovery: &mut Recovery,
    ) -> Result<(), StoreError> {
        let mut query = Pack::default();
        query.array(1).text("kept");
        let kept = self.reader.ask(app.as_str(), query)?;
        let read = || {
            let [retained, log_ends, campaigns] = kept.tuple()?;
            for message in retained.list(reply::message)? {
                if !message.is_expired(now) {
                    recovery.retained.push((app.clone(), message));
                }
            }
            for end in log_ends.array()? {
                let [log, place] = end.tuple()?;
                let (log, place) = (reply::log_of(&log)?, reply::offset(place)?);
                recovery.log_ends.push((app.clone(), log, place));
            }
            for campaign in campaigns.list(reply::campaign)? {
                recovery
                    .campaigns
                    .push((app.clone(), campaign.0, campaign.1));
            }
            Ok(())
        };
        read().map_err(|Malformed| malformed())
    }

    /// All durable sessions with subscriptions, by a scan of the key space: this is done once, and an index would cost memory for each session.
    fn sessions(&self) -> Result<Vec<(ClientKey, Vec<StoredSubscription>)>, StoreError> {
        self.runtime.block_on(async {
            let mut sessions = BTreeMap::new();
            let unavailable = |Down(reason)| StoreError::Unavailable(reason);
            for server in self.committer.servers.all().await.map_err(unavailable)? {
                self.scan(server, &mut sessions).await?;
            }
            Ok(sessions.into_iter().collect())
        })
    }

    async fn scan(
        &self,
        mut server: Server,
        sessions: &mut BTreeMap<ClientKey, Vec<StoredSubscription>>,
    ) -> Result<(), StoreError> {
        let prefix = &self.committer.config.prefix;
        let pattern = format!("{prefix}{{*}}:s:*");
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = redis::pipe();
            scan.cmd("SCAN")
                .arg(&cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(KEYS_AT_ONCE);
            let page = self.ask_directly(&mut server, &scan).await?.pop();
            let (next, keys) = page.and_then(scan_page).ok_or_else(malformed)?;
            let mut fields = redis::pipe();
            for key in &keys {
                fields.cmd("HGETALL").arg(key);
            }
            let rows = match keys.is_empty() {
                true => Vec::new(),
                false => self.ask_directly(&mut server, &fields).await?,
            };
            for (key, row) in keys.iter().zip(rows) {
                let client = client_of(prefix, key);
                let row = client.zip(subscriptions(row));
                let (client, subscriptions) = row.ok_or_else(malformed)?;
                if !subscriptions.is_empty() {
                    sessions.insert(client, subscriptions);
                }
            }
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    pub(super) async fn ask_directly(
        &self,
        server: &mut Server,
        pipeline: &redis::Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let timeout = self.committer.config.command_timeout;
        send(&mut server.connection, pipeline, timeout)
            .await
            .map_err(StoreError::Unavailable)
    }
}

pub(super) fn scan_page(page: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let Value::Array(parts) = page else {
        return None;
    };
    let [Value::BulkString(cursor), Value::Array(keys)] = parts.as_slice() else {
        return None;
    };
    let keys = keys.iter().map(|key| match key {
        Value::BulkString(key) => Some(key.clone()),
        _ => None,
    });
    Some((cursor.clone(), keys.collect::<Option<_>>()?))
}

/// Whose a key `PREFIX{APP}:s:CLIENT` is.
fn client_of(prefix: &str, key_of_device: &[u8]) -> Option<ClientKey> {
    let text = std::str::from_utf8(key_of_device).ok()?;
    let (app, client_id) = text
        .strip_prefix(prefix)?
        .strip_prefix('{')?
        .split_once("}:s:")?;
    debug_assert!(text.starts_with(&key(prefix, app)));
    Some(ClientKey::new(&AppId::new(app), client_id))
}

/// Subscriptions among the fields of a device.
fn subscriptions(row: Value) -> Option<Vec<StoredSubscription>> {
    let Value::Array(fields) = row else {
        return None;
    };
    let mut subscriptions = Vec::new();
    for pair in fields.chunks_exact(2) {
        let [Value::BulkString(field), Value::BulkString(value)] = pair else {
            return None;
        };
        if let Some(filter) = field.strip_prefix(b"f") {
            let parts = vec![Packed::Bytes(filter.to_vec()), Packed::Bytes(value.clone())];
            subscriptions.push(reply::subscription(Packed::Array(parts)).ok()?);
        }
    }
    Some(subscriptions)
}
