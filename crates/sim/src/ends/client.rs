//! A simulated client: the real client machine, and the network between it and the node.

use std::collections::HashMap;

use campanile_broker::ids::Millis;
use campanile_mqtt::{
    PacketId,
    client::{Client, Options},
};

use crate::{model::Tick, world::plan::ClientPlan};

/// A simulated client.
pub struct SimClient {
    /// What it is.
    pub plan: ClientPlan,
    /// The machine.
    pub machine: Client,
    /// Its connection.
    pub link: Option<Link>,
    /// Its session, if the last CONNACK was not followed by its certain end.
    pub session: Option<usize>,
    /// When its connection was last up for certain.
    pub last_up: Millis,
    /// First CONNECT.
    pub known_since: Option<Tick>,
    /// A clean start was tried, and it is not known whether the server saw it: the next one must be clean, too.
    pub must_start_clean: bool,
    /// A CONNECT was sent when the session may have been over.
    pub doubtful: bool,
    /// The session may have been ended by a DISCONNECT that may have been lost.
    pub may_have_ended: bool,
    /// Claims of it before its last CONNECT, and before the last that was answered.
    pub claims: (u64, Option<u64>),
    /// Messages whose exchange is not over, by identifier.
    pub unfinished: HashMap<PacketId, usize>,
    /// SUBSCRIBEs without an answer.
    pub subscribing: HashMap<PacketId, Vec<&'static str>>,
    /// UNSUBSCRIBEs without an answer.
    pub unsubscribing: HashMap<PacketId, Vec<&'static str>>,
}

/// A connection between a client and the node. Each direction is bytes that were written and have not arrived.
#[derive(Debug)]
pub struct Link {
    /// Which node.
    pub node: usize,
    /// The node's number of it.
    pub wire: usize,
    /// Towards the node.
    pub to_node: Vec<u8>,
    /// Towards the client.
    pub to_client: Vec<u8>,
    /// The node has closed it; what it wrote before still arrives.
    pub node_closed: bool,
    /// The disturbances before its CONNACK.
    pub era: u64,
    /// CONNACK (success) was written by the node.
    pub welcomed: bool,
    /// Clean start was asked for.
    pub clean: bool,
    /// The client does not read.
    pub slow: bool,
    /// The node was told that the socket is full.
    pub blocked: bool,
    /// The will of this connection.
    pub will: Option<usize>,
    /// The client has sent DISCONNECT with reason 0.
    pub goodbye: bool,
}

impl SimClient {
    /// One that was never here.
    pub fn new(plan: ClientPlan) -> SimClient {
        let options = Options {
            version: plan.version,
            client_id: plan.name.clone(),
            keep_alive: plan.keep_alive,
            session_expiry: if plan.version.is_v5() {
                plan.expiry_seconds
            } else {
                0
            },
            receive_maximum: plan.receive_maximum,
            send_window: plan.send_window,
            response_timeout_ms: 600_000,
            ..Options::default()
        };
        SimClient {
            machine: Client::new(options),
            plan,
            link: None,
            session: None,
            last_up: Millis(0),
            known_since: None,
            must_start_clean: false,
            doubtful: false,
            may_have_ended: false,
            claims: (0, None),
            unfinished: HashMap::new(),
            subscribing: HashMap::new(),
            unsubscribing: HashMap::new(),
        }
    }

    /// Whether its session outlives the connection.
    pub fn is_durable(&self) -> bool {
        self.plan.expiry_seconds > 0
    }

    /// Whether the session may have expired.
    pub fn may_have_expired(&self, now: Millis) -> bool {
        self.plan.expiry_seconds != u32::MAX
            && now >= self.last_up.plus_seconds(self.plan.expiry_seconds)
    }

    /// Whether a request about a filter is under way.
    pub fn is_asking(&self, filter: &str) -> bool {
        let mut asked = self
            .subscribing
            .values()
            .chain(self.unsubscribing.values())
            .flatten();
        asked.any(|other| *other == filter)
    }
}

impl Link {
    /// A fresh one.
    pub fn new(node: usize, wire: usize, era: u64, clean: bool, will: Option<usize>) -> Link {
        Link {
            node,
            wire,
            to_node: Vec::new(),
            to_client: Vec::new(),
            node_closed: false,
            era,
            welcomed: false,
            clean,
            slow: false,
            blocked: false,
            will,
            goodbye: false,
        }
    }
}
