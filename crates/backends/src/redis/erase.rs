//! Removing all that is kept of an app.
//!
//! No index says which keys an app has, as one would cost memory for each, so that they are found by a scan of the key space of the server that has the app. A scan goes on
//! where the last step left it: on this server, by this process. Whoever goes on elsewhere begins anew, and finds what is left.

use campanile_broker::{
    ids::AppId,
    store::{StoreError, Swept},
};

use super::{
    Redis, Run,
    commit::{Fate, key},
    malformed,
    pack::{Malformed, Pack},
    recover::scan_page,
    reply,
    servers::{Down, Server},
};

/// Keys that one SCAN looks at.
const KEYS_AT_ONCE: u64 = 1000;
/// Scans of one step: the keys of other apps are looked at, too.
const SCANS_AT_ONCE: usize = 50;
/// What is kept: sequences, changes, filters, bitmaps of device numbers, mailboxes and connections of nodes, and answers to writers. Sessions that end are taken out of them.
const KEPT: [&str; 5] = ["m", "h", "gs", "sm", "fo"];
const KEPT_OF_EACH: [&str; 5] = ["g:", "n:", "b:", "fc:", "W:"];

/// How far a scan has come.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// The run of the server: elsewhere a cursor means nothing.
    run: String,
    cursor: Vec<u8>,
}

/// Keys of an app that are to be removed.
#[derive(Debug, Default)]
struct Found {
    clients: Vec<String>,
    /// What follows the root of the app's keys.
    tails: Vec<Vec<u8>>,
    /// Where the scan goes on; `None`: it is at its end.
    next: Option<Scan>,
}

impl Redis {
    /// Carries out a step of an erasure, at a place of the batch.
    pub(super) fn erase(
        &mut self,
        run: &mut Run<'_>,
        index: usize,
        app: &AppId,
        limit: u32,
    ) -> Result<Swept, StoreError> {
        let scan = self.erasures.remove(app.as_str());
        let found = self
            .runtime
            .block_on(self.find(app, scan.as_ref(), limit))?;
        let mut request = Pack::default();
        request
            .array(5)
            .text("erase")
            .number(limit.into())
            .list(found.clients.iter(), |pack, client| {
                pack.text(client);
            })
            .list(found.tails.iter(), |pack, tail| {
                pack.bytes(tail);
            })
            .truth(found.next.is_none());
        let mut chunks = [self.chunk(&app.as_str().into(), vec![request.into_bytes()])];
        self.runtime.block_on(self.committer.run(&mut chunks));
        let [chunk] = chunks;
        if let Fate::TooFew(_, reason) = &chunk.fate {
            // What is not removed everywhere may come back, and the name must not be free then.
            return Err(StoreError::Unknown(reason.clone()));
        }
        let answer = run.answer_of(chunk, index)?;
        let swept = reply::swept(app, answer).map_err(|Malformed| malformed())?;
        // Told things go first: then the keys that were found are still there.
        let next = if swept.more { scan } else { found.next };
        let more = swept.more || next.is_some();
        if let Some(next) = next {
            self.erasures.insert(app.as_str().into(), next);
        }
        Ok(Swept { more, ..swept })
    }

    async fn find(
        &self,
        app: &AppId,
        scan: Option<&Scan>,
        limit: u32,
    ) -> Result<Found, StoreError> {
        let of = self.committer.servers.of(app.as_str()).await;
        let mut server: Server = of.map_err(|Down(reason)| StoreError::Unavailable(reason))?;
        let root = key(&self.committer.config.prefix, app.as_str());
        let scan = scan.filter(|scan| *scan.run == *server.run);
        let mut cursor = scan.map_or_else(|| b"0".to_vec(), |scan| scan.cursor.clone());
        let mut found = Found::default();
        for _ in 0..SCANS_AT_ONCE {
            let mut command = redis::pipe();
            command
                .cmd("SCAN")
                .arg(&cursor)
                .arg("MATCH")
                .arg(format!("{root}*"))
                .arg("COUNT")
                .arg(KEYS_AT_ONCE);
            let page = self.ask_directly(&mut server, &command).await?.pop();
            let (next, keys) = page.and_then(scan_page).ok_or_else(malformed)?;
            for key in keys {
                found.take(key.strip_prefix(root.as_bytes()).unwrap_or_default());
            }
            if next == b"0" {
                return Ok(found);
            }
            cursor = next;
            if found.clients.len() + found.tails.len() >= limit as usize {
                break;
            }
        }
        found.next = Some(Scan {
            run: server.run.to_string(),
            cursor,
        });
        Ok(found)
    }
}

impl Found {
    fn take(&mut self, tail: &[u8]) {
        let text = std::str::from_utf8(tail).ok();
        let is_kept = text.is_some_and(|text| {
            KEPT.contains(&text) || KEPT_OF_EACH.iter().any(|kind| text.starts_with(kind))
        });
        if is_kept {
            return;
        }
        match text.and_then(|text| text.strip_prefix("s:")) {
            Some(client) => self.clients.push(client.to_owned()),
            None => self.tails.push(tail.to_vec()),
        }
    }
}
