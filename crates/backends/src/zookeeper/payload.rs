//! What nodes write into the ensemble: JSON, so that operators can read it with any client.
//!
//! Fields are only ever added, and those that a reader does not know are passed over: neighbouring versions share a cluster.

use std::sync::Arc;

use campanile_broker::cluster::{
    membership::{Drain, NodeInfo},
    peer::Load,
};
use serde::{Deserialize, Serialize};

/// Of these payloads. Raised when an older reader would misunderstand a newer payload.
const FORMAT: u32 = 1;

/// A registration.
#[derive(Debug, Serialize, Deserialize)]
struct Node {
    format: u32,
    instance: String,
    peer_address: std::net::SocketAddr,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    http_address: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    started_ms: u64,
    #[serde(default)]
    connections: u64,
    #[serde(default)]
    capacity: u64,
    #[serde(default)]
    draining: bool,
}

/// A candidate for the lead.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Candidate {
    format: u32,
    /// The node's name.
    pub(super) name: String,
    /// The process; see [`instance_of`].
    pub(super) instance: String,
}

/// An order to drain.
#[derive(Debug, Serialize, Deserialize)]
struct DrainOrder {
    format: u32,
    #[serde(default)]
    rate: u32,
    #[serde(default)]
    deadline_ms: u64,
}

/// Names the process that a payload is of, so that it knows its own from earlier sessions.
#[derive(Deserialize)]
struct Instance {
    instance: String,
}

/// Of which process a payload of a registration or candidate is.
pub(super) fn instance_of(data: &[u8]) -> Option<String> {
    let instance: Instance = serde_json::from_slice(data).ok()?;
    Some(instance.instance)
}

/// A registration's payload.
pub(super) fn node(info: &NodeInfo, instance: &str) -> Vec<u8> {
    json(&Node {
        format: FORMAT,
        instance: instance.to_owned(),
        peer_address: info.peer_address,
        addresses: info
            .addresses
            .iter()
            .map(|address| address.to_string())
            .collect(),
        http_address: info.http_address.to_string(),
        version: info.version.to_string(),
        started_ms: info.started_ms,
        connections: info.load.connections,
        capacity: info.load.capacity,
        draining: info.draining,
    })
}

/// What the node of that name says of itself.
pub(super) fn read_node(name: &str, data: &[u8]) -> Result<NodeInfo, serde_json::Error> {
    let node: Node = serde_json::from_slice(data)?;
    Ok(NodeInfo {
        name: name.into(),
        peer_address: node.peer_address,
        addresses: node.addresses.into_iter().map(Arc::from).collect(),
        http_address: node.http_address.into(),
        version: node.version.into(),
        started_ms: node.started_ms,
        load: Load {
            connections: node.connections,
            capacity: node.capacity,
        },
        draining: node.draining,
    })
}

/// A candidate's payload.
pub(super) fn candidate(name: &str, instance: &str) -> Vec<u8> {
    json(&Candidate {
        format: FORMAT,
        name: name.to_owned(),
        instance: instance.to_owned(),
    })
}

/// Who a candidate is.
pub(super) fn read_candidate(data: &[u8]) -> Result<Candidate, serde_json::Error> {
    serde_json::from_slice(data)
}

/// An order's payload.
pub(super) fn drain(order: &Drain) -> Vec<u8> {
    json(&DrainOrder {
        format: FORMAT,
        rate: order.rate,
        deadline_ms: order.deadline_ms,
    })
}

/// An order.
pub(super) fn read_drain(data: &[u8]) -> Result<Drain, serde_json::Error> {
    let order: DrainOrder = serde_json::from_slice(data)?;
    Ok(Drain {
        rate: order.rate,
        deadline_ms: order.deadline_ms,
    })
}

fn json(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).expect("strings, numbers and lists of them always become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> NodeInfo {
        NodeInfo {
            name: "a".into(),
            peer_address: ([10, 0, 0, 1], 7000).into(),
            addresses: vec!["mqtt://a:1883".into()],
            http_address: "http://a:8080".into(),
            version: "0.1.0".into(),
            started_ms: 17,
            load: Load {
                connections: 3,
                capacity: 9,
            },
            draining: true,
        }
    }

    #[test]
    fn a_registration_is_stable_json() {
        let data = node(&info(), "1f");
        let expected = r#"{"format":1,"instance":"1f","peer_address":"10.0.0.1:7000","addresses":["mqtt://a:1883"],"http_address":"http://a:8080","version":"0.1.0","started_ms":17,"connections":3,"capacity":9,"draining":true}"#;
        assert_eq!(String::from_utf8_lossy(&data), expected);
        assert_eq!(read_node("a", &data).unwrap(), info());
        assert_eq!(instance_of(&data).as_deref(), Some("1f"));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let data = br#"{"format":2,"instance":"x","peer_address":"[::1]:1","colour":"red"}"#;
        assert_eq!(read_node("b", data).unwrap().peer_address.port(), 1);
    }

    #[test]
    fn orders_and_candidates_come_back() {
        let order = Drain {
            rate: 5,
            deadline_ms: 7,
        };
        assert_eq!(read_drain(&drain(&order)).unwrap(), order);
        assert_eq!(read_candidate(&candidate("a", "1f")).unwrap().name, "a");
    }
}
