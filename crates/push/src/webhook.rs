//! Webhooks: where an app wants to be told what happens.
//!
//! [`signature`] says how a request is signed, [`delivery`] when it is sent, sent again and given up, [`courier`] what of that is kept.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;
use serde::Serialize;
use url::Url;

use crate::{
    event::{BadEventId, EventId, Filter},
    explanation::Time,
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    request::Invalid,
};

pub mod courier;
pub mod delivery;
pub mod signature;

use delivery::Health;

/// Webhooks of an app.
pub const MAX_WEBHOOKS: usize = 16;
/// Dead letters that one request names.
pub const MAX_REPLAYED: usize = 1000;
/// Bytes of a webhook's address.
pub const MAX_URL_BYTES: usize = 2048;
/// Milliseconds for which the secret before is used too, after a rotation.
pub const ROTATION_MS: u64 = 24 * 60 * 60 * 1000;

/// Identity of a webhook: a ULID.
pub type WebhookId = EventId;

/// What signs a webhook's requests: `whsec_` and 32 random bytes as base64url. Shown when it is made; kept, as it is needed to sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret made of these bytes, which must come from the system's random number generator.
    pub fn from_random(bytes: [u8; 32]) -> Secret {
        Secret(format!("whsec_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret in clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether a webhook is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Active,
    /// Its owner paused it; events wait for as long as they are kept.
    Paused,
    /// It was switched off, as it only failed or answered 410. Its owner can activate it again.
    Disabled {
        /// Since when, in Unix milliseconds.
        since_ms: u64,
    },
}

/// A webhook of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Identity.
    pub id: WebhookId,
    /// Where requests go.
    pub url: Url,
    /// Which events.
    pub events: Filter,
    /// Signs.
    pub secret: Secret,
    /// The one before, and until when it signs too, in Unix milliseconds.
    pub previous: Option<(Secret, u64)>,
    /// Whether it is used.
    pub state: State,
    /// How it does.
    pub health: Health,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// What an owner asks for; absent fields stay, or are as a new webhook has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    url: Option<Url>,
    events: Option<Filter>,
    paused: Option<bool>,
}

impl Webhook {
    /// Reads `{"url": .., "events": [..], "state": ..}` and makes a webhook of it. Only `url` must be there; without `events` it is told everything.
    /// `plain` allows `http`.
    pub fn create(
        body: &[u8],
        plain: bool,
        id: WebhookId,
        secret: Secret,
        now_ms: u64,
    ) -> Result<Webhook, Invalid> {
        let document = json::read(body)?;
        Fields::of("", &document)?.required("url", "where the events go")?;
        let change = Change::of(&document, plain)?;
        let Change {
            url: Some(url),
            events,
            paused,
        } = change
        else {
            return Err(invalid("/url", "a webhook has an address"));
        };
        Ok(Webhook {
            id,
            url,
            events: events.unwrap_or_else(Filter::all),
            secret,
            previous: None,
            state: match paused {
                Some(true) => State::Paused,
                _ => State::Active,
            },
            health: Health::default(),
            created_ms: now_ms,
        })
    }

    /// What only signs: requests to callback addresses, which each push names itself.
    pub fn signer(id: WebhookId, secret: Secret) -> Webhook {
        Webhook {
            id,
            url: Url::parse("https://callbacks.invalid").expect("an address"),
            events: Filter::all(),
            secret,
            previous: None,
            state: State::Active,
            health: Health::default(),
            created_ms: (id.0 >> 80) as u64,
        }
    }

    /// Applies a change. A new address, or `"state": "active"`, gives a webhook that was switched off a new chance.
    pub fn apply(&mut self, change: Change) {
        if change.url.is_some() || change.paused == Some(false) {
            self.health = Health::default();
            if matches!(self.state, State::Disabled { .. }) {
                self.state = State::Active;
            }
        }
        if let Some(url) = change.url {
            self.url = url;
        }
        if let Some(events) = change.events {
            self.events = events;
        }
        match change.paused {
            Some(true) => self.state = State::Paused,
            Some(false) => self.state = State::Active,
            None => {}
        }
    }

    /// Takes a new secret. The one before signs too for [`ROTATION_MS`], so that receivers can change in their own time.
    pub fn rotate(&mut self, secret: Secret, now_ms: u64) {
        let before = std::mem::replace(&mut self.secret, secret);
        self.previous = Some((before, now_ms.saturating_add(ROTATION_MS)));
    }

    /// The value of the header [`signature::HEADER`] for a request now.
    pub fn sign(&self, body: &[u8], now_ms: u64) -> String {
        let previous = self.previous.as_ref();
        let previous = previous.filter(|(_, until_ms)| now_ms < *until_ms);
        let secrets = [Some(&self.secret), previous.map(|(secret, _)| secret)];
        signature::sign(
            secrets.into_iter().flatten().map(Secret::reveal),
            body,
            now_ms,
        )
    }

    /// After an answer: true if this switched it off.
    pub fn on_answer(&mut self, answer: delivery::Answer, now_ms: u64) -> bool {
        let off = self.health.on_answer(answer, now_ms) && self.state == State::Active;
        if off {
            self.state = State::Disabled { since_ms: now_ms };
        }
        off
    }

    /// The webhook as the API shows it; with its secret only when that is new.
    pub fn to_json(&self, with_secret: bool) -> String {
        #[derive(Serialize)]
        struct Document<'w> {
            id: EventId,
            url: &'w str,
            events: Vec<String>,
            state: &'w str,
            #[serde(skip_serializing_if = "Option::is_none")]
            disabled_at: Option<Time>,
            #[serde(skip_serializing_if = "Option::is_none")]
            failing_since: Option<Time>,
            created_at: Time,
            #[serde(skip_serializing_if = "Option::is_none")]
            secret: Option<&'w str>,
        }
        let (state, disabled_at) = match self.state {
            State::Active => ("active", None),
            State::Paused => ("paused", None),
            State::Disabled { since_ms } => ("disabled", Some(Time(since_ms))),
        };
        serde_json::to_string(&Document {
            id: self.id,
            url: self.url.as_str(),
            events: self.events.patterns().collect(),
            state,
            disabled_at,
            failing_since: self.health.failing_since_ms.map(Time),
            created_at: Time(self.created_ms),
            secret: with_secret.then(|| self.secret.reveal()),
        })
        .expect("it has only string keys and serialises without conditions")
    }
}

impl Change {
    /// Reads the body of a PATCH: any of `url`, `events`, `state` (`"active"` or `"paused"`). `plain` allows `http`.
    pub fn parse(body: &[u8], plain: bool) -> Result<Change, Invalid> {
        Change::of(&json::read(body)?, plain)
    }

    fn of(document: &Node, plain: bool) -> Result<Change, Invalid> {
        let mut fields = Fields::of("", document)?;
        let (url, events) = (fields.take("url"), fields.take("events"));
        let state = fields.take("state");
        fields.no_others(&["url", "events", "state"])?;
        Ok(Change {
            url: url.map(|url| address("/url", url, plain)).transpose()?,
            events: events.map(filter).transpose()?,
            paused: state.map(paused).transpose()?,
        })
    }
}

/// Checks an address that we shall send requests to. Where its name leads to is looked at when a connection is made, not here.
fn address(at: &str, value: &Node, plain: bool) -> Result<Url, Invalid> {
    let Node::Text(text) = value else {
        return Err(wrong_kind(at, "a string", value));
    };
    if text.len() > MAX_URL_BYTES {
        return Err(invalid(
            at,
            format!(
                "an address of {} bytes: at most {MAX_URL_BYTES}",
                text.len()
            ),
        ));
    }
    let url = Url::parse(text).map_err(|error| {
        invalid(
            at,
            format!("no address: {error}; give one such as \"https://example.com/campanile\""),
        )
    })?;
    let fault = match url.scheme() {
        "https" => None,
        "http" if plain => None,
        "http" => Some("\"http\" lets others read and forge the events: give an \"https\" address"),
        _ => Some("the address must begin with \"https://\""),
    };
    let fault = fault.or_else(|| {
        if !url.username().is_empty() || url.password().is_some() {
            Some("the address holds a user name or password: requests are signed instead")
        } else if url.fragment().is_some() {
            Some("the address has a fragment (\"#\"), which is never sent: leave it out")
        } else {
            None
        }
    });
    match fault {
        Some(fault) => Err(invalid(at, fault)),
        None => Ok(url),
    }
}

fn filter(value: &Node) -> Result<Filter, Invalid> {
    let Node::List(items) = value else {
        return Err(wrong_kind("/events", "an array of event names", value));
    };
    if items.is_empty() {
        return Err(invalid(
            "/events",
            "the list is empty: name events, or leave it out to be told everything",
        ));
    }
    let mut names = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("/events/{index}");
        let Node::Text(name) = item else {
            return Err(wrong_kind(&at, "the name of an event", item));
        };
        Filter::parse([name.as_str()]).map_err(|bad| invalid(&at, bad.to_string()))?;
        names.push(name.as_str());
    }
    Filter::parse(names).map_err(|bad| invalid("/events", bad.to_string()))
}

fn paused(value: &Node) -> Result<bool, Invalid> {
    match value {
        Node::Text(state) if state == "active" => Ok(false),
        Node::Text(state) if state == "paused" => Ok(true),
        Node::Text(_) => Err(invalid("/state", "a state is \"active\" or \"paused\"")),
        other => Err(wrong_kind("/state", "a string", other)),
    }
}

/// Reads what dead letters are to be replayed: `{"ids": [..]}`, or `{}` for all.
pub fn replay_list(body: &[u8]) -> Result<Vec<EventId>, Invalid> {
    let document = json::read(body)?;
    let mut fields = Fields::of("", &document)?;
    let ids = fields.take("ids");
    fields.no_others(&["ids"])?;
    let items = match ids {
        None => return Ok(Vec::new()),
        Some(Node::List(items)) if (1..=MAX_REPLAYED).contains(&items.len()) => items,
        Some(Node::List(items)) => {
            let detail = format!(
                "{} ids: name 1 to {MAX_REPLAYED}, or leave \"ids\" out to replay all",
                items.len()
            );
            return Err(invalid("/ids", detail));
        }
        Some(other) => return Err(wrong_kind("/ids", "an array of event ids", other)),
    };
    let id = |(index, item): (usize, &Node)| {
        let at = format!("/ids/{index}");
        let Node::Text(text) = item else {
            return Err(wrong_kind(&at, "an event id", item));
        };
        let id: Result<EventId, BadEventId> = text.parse();
        id.map_err(|bad| invalid(&at, bad.to_string()))
    };
    let mut ids = items
        .iter()
        .enumerate()
        .map(id)
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A webhook as it is stored. Tags are never used for anything else again.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    url: String,
    #[prost(string, repeated, tag = "3")]
    events: Vec<String>,
    #[prost(string, tag = "4")]
    secret: String,
    #[prost(string, optional, tag = "5")]
    previous_secret: Option<String>,
    #[prost(uint64, tag = "6")]
    previous_until_ms: u64,
    #[prost(bool, tag = "7")]
    paused: bool,
    #[prost(uint64, optional, tag = "8")]
    disabled_ms: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    failing_since_ms: Option<u64>,
    #[prost(uint32, tag = "10")]
    failures: u32,
    #[prost(uint64, tag = "11")]
    created_ms: u64,
}

/// Stored bytes that are no webhook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored webhook is damaged: {0}")]
pub struct Damaged(String);

impl Webhook {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        Record {
            id: self.id.0.to_be_bytes().into(),
            url: self.url.as_str().into(),
            events: self.events.patterns().collect(),
            secret: self.secret.0.clone(),
            previous_secret: self.previous.as_ref().map(|(secret, _)| secret.0.clone()),
            previous_until_ms: self.previous.as_ref().map_or(0, |(_, until_ms)| *until_ms),
            paused: self.state == State::Paused,
            disabled_ms: match self.state {
                State::Disabled { since_ms } => Some(since_ms),
                State::Active | State::Paused => None,
            },
            failing_since_ms: self.health.failing_since_ms,
            failures: self.health.failures,
            created_ms: self.created_ms,
        }
        .encode_to_vec()
    }

    /// The webhook of stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Webhook, Damaged> {
        let damaged = |error: &dyn fmt::Display| Damaged(error.to_string());
        let record = Record::decode(bytes).map_err(|error| damaged(&error))?;
        let id: [u8; 16] = record.id.try_into().map_err(|_| damaged(&BadEventId))?;
        Ok(Webhook {
            id: EventId(u128::from_be_bytes(id)),
            url: Url::parse(&record.url).map_err(|error| damaged(&error))?,
            events: Filter::parse(record.events.iter().map(String::as_str))
                .map_err(|error| damaged(&error))?,
            secret: Secret(record.secret),
            previous: record
                .previous_secret
                .map(|secret| (Secret(secret), record.previous_until_ms)),
            state: match (record.disabled_ms, record.paused) {
                (Some(since_ms), _) => State::Disabled { since_ms },
                (None, true) => State::Paused,
                (None, false) => State::Active,
            },
            health: Health {
                failing_since_ms: record.failing_since_ms,
                failures: record.failures,
            },
            created_ms: record.created_ms,
        })
    }
}

#[cfg(test)]
mod tests;
