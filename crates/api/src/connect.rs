//! `GET /v1/connect`: where a device should connect.
//!
//! Open to everybody, since a device has no key before it connects: it tells nothing but the addresses that are meant for devices.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use campanile_broker::cluster::{
    balance::{Standing, order, seed_of},
    peer::Load,
};
use campanile_push::app::AppName;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::{
    ApiState,
    cluster::NodeStatus,
    openapi::{self, Operation, Routes, of},
    problem::{Code, Problem},
    query,
    rate::Bucket,
};

/// Answers a second, over all callers: as many as a node accepts connections by default. What is above is refused, not queued.
const ANSWERS_PER_SECOND: u64 = 10_000;
/// Answers at once after a quiet time.
const BURST: u64 = 20_000;
/// How long a device may keep the list. Long enough that a flapping device does not ask each time, short enough that a drained node is forgotten.
const TTL_SECONDS: u32 = 60;
/// Schemes of listeners.
const SCHEMES: [&str; 4] = ["mqtt", "mqtts", "ws", "wss"];

/// The route of devices that ask where to connect.
pub(crate) fn routes() -> Routes {
    let connect = Operation::new("getAddresses", "Where a device should connect")
        .tells("The best address first. Open to everybody, from browsers too.")
        .query(
            "app",
            "The app's name, `default` if absent.",
            openapi::reference("AppName"),
        )
        .query(
            "device",
            "The client identifier: the same device gets the same order while little changes.",
            json!({"type": "string"}),
        )
        .query(
            "scheme",
            "Only addresses of this scheme.",
            json!({"type": "string", "enum": SCHEMES}),
        )
        .answers(200, "Addresses by scheme.", of::<Dispatch<'static>>())
        .header("Access-Control-Allow-Origin", "`*`.")
        .may(&[Code::TooManyRequests, Code::NoNode]);
    Routes::of("Connecting", "For devices.").get("/v1/connect", self::connect, connect)
}

#[derive(Serialize, JsonSchema)]
struct Dispatch<'c> {
    /// By scheme, the best first.
    addresses: BTreeMap<&'static str, Vec<&'c str>>,
    ttl_seconds: u32,
}

/// `GET /v1/connect`
pub(crate) async fn connect(
    State(state): State<ApiState>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    if !state.connects().admit(state.now_ms()) {
        return Err(Problem::new(
            Code::TooManyRequests,
            format!(
                "this node answers {ANSWERS_PER_SECOND} of these a second; keep the last list and try again"
            ),
        ));
    }
    let wanted = Wanted::parse(text.as_deref().unwrap_or_default())?;
    let overview = state.cluster().overview();
    let seed = match &wanted.device {
        Some(device) => seed_of(&wanted.app, device),
        None => state.new_id().0 as u64, // Of the low half no two are the same.
    };
    let addresses = wanted.addresses(&overview.nodes, seed);
    if addresses.is_empty() {
        return Err(Problem::new(
            Code::NoNode,
            match wanted.scheme {
                Some(scheme) => {
                    format!("no node that takes devices now has an address with {scheme}://")
                }
                None => "all nodes are being drained, or have no address for devices".to_owned(),
            },
        ));
    }
    let mut response = Json(Dispatch {
        addresses,
        ttl_seconds: TTL_SECONDS,
    })
    .into_response();
    // Browsers ask from pages of any origin; nothing here depends on who asks.
    response.headers_mut().insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    Ok(response)
}

/// What the query asks for.
struct Wanted {
    app: String,
    device: Option<String>,
    scheme: Option<&'static str>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Wanted, Problem> {
        let mut wanted = Wanted {
            app: "default".to_owned(),
            device: None,
            scheme: None,
        };
        for (name, value) in query::parse(text, &["app", "device", "scheme"])? {
            match name {
                "app" => {
                    let app = AppName::new(&value).map_err(|bad| query::wrong(name, bad))?;
                    wanted.app = app.as_str().to_owned();
                }
                "scheme" => {
                    let known = SCHEMES.into_iter().find(|scheme| *scheme == value);
                    wanted.scheme = Some(known.ok_or_else(|| {
                        query::wrong(
                            name,
                            format_args!("{value:?} is none of mqtt, mqtts, ws, wss"),
                        )
                    })?);
                }
                _ => wanted.device = Some(value),
            }
        }
        Ok(wanted)
    }

    fn addresses<'c>(
        &self,
        nodes: &'c [NodeStatus],
        seed: u64,
    ) -> BTreeMap<&'static str, Vec<&'c str>> {
        let standings: Vec<Standing<'_>> = nodes.iter().map(standing).collect();
        let mut addresses: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for index in order(&standings, seed) {
            let leads_somewhere = |address: &&String| {
                !address.contains("://0.0.0.0:") && !address.contains("://[::]:")
            };
            for address in nodes[index].addresses.iter().filter(leads_somewhere) {
                let scheme = SCHEMES.into_iter().find(|scheme| {
                    let rest = address.strip_prefix(scheme);
                    rest.is_some_and(|rest| rest.starts_with("://"))
                });
                if let Some(scheme) = scheme
                    && self.scheme.is_none_or(|wanted| wanted == scheme)
                {
                    addresses.entry(scheme).or_default().push(address);
                }
            }
        }
        addresses
    }
}

fn standing(node: &NodeStatus) -> Standing<'_> {
    Standing {
        name: &node.name,
        load: Load {
            connections: node.connections,
            capacity: node.capacity,
        },
        draining: node.draining,
    }
}

/// A token bucket over all callers.
#[derive(Debug)]
pub(crate) struct Admission(Mutex<Bucket>);

impl Default for Admission {
    fn default() -> Admission {
        Admission(Mutex::new(Bucket::full(BURST)))
    }
}

impl Admission {
    fn admit(&self, now_ms: u64) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now_ms, ANSWERS_PER_SECOND * 1000, BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_by_a_rate_and_a_burst() {
        let admission = Admission::default();
        let admitted = |now_ms| (0..BURST * 2).filter(|_| admission.admit(now_ms)).count() as u64;
        assert_eq!(admitted(1_000_000), BURST);
        assert_eq!(admitted(1_000_100), ANSWERS_PER_SECOND / 10);
        assert_eq!(admitted(10_000_000), BURST);
        assert_eq!(admitted(5), 0, "a clock that is set back brings nothing");
        assert_eq!(admitted(1005), ANSWERS_PER_SECOND);
    }
}
