//! Both ends of what a server is there for: clients and app servers, what they do of their own accord, what they see, and the
//! [model](crate::model) of what they were promised.
//!
//! They do not know whether one node serves them or several: [`world`](crate::world) and [`cluster`](crate::cluster) carry what they say.

mod api;
mod client;
mod desk;
mod events;
mod requests;
mod turns;
mod wishes;

use campanile_broker::ids::Millis;

pub use self::{
    api::{AppServer, ServerAct},
    client::{Link, SimClient},
    desk::Desk,
    wishes::Wish,
};
use crate::{
    model::{Held, Model},
    rng::Rng,
};

/// What happens, for a reader and as a hash.
pub struct Trace {
    /// Print it.
    pub on: bool,
    /// Of everything that happened.
    pub hash: u64,
}

impl Trace {
    /// Prints, if anybody reads.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.on {
            println!("{}", text());
        }
    }

    /// Something happened.
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    /// Bytes went by.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for &byte in bytes {
            self.mix(byte.into());
        }
    }
}

/// See the module.
pub struct Ends {
    /// Where chance comes from.
    pub rng: Rng,
    /// The time.
    pub now: Millis,
    /// The clients.
    pub clients: Vec<SimClient>,
    /// The app servers.
    pub servers: Vec<AppServer>,
    /// Whoever runs campaigns, if anybody does.
    pub desk: Option<Desk>,
    /// Pushes to devices are of any priority, and take the place of each other.
    pub has_lanes: bool,
    /// What must hold.
    pub model: Model,
    /// Things that were moved.
    pub steps: u64,
    /// Messages and pushes that arrived at clients.
    pub arrivals: u64,
    /// The store has refused to write.
    pub was_full: bool,
    /// The store could not be read.
    pub was_unreadable: bool,
    /// What happens.
    pub trace: Trace,
}

impl Ends {
    /// By session: whether it is that of a client that is connected.
    pub fn sessions_still_up(&self) -> Vec<bool> {
        let mut up = vec![false; self.model.sessions.len()];
        for client in &self.clients {
            let connected = client.machine.is_connected()
                && client.link.as_ref().is_some_and(|link| !link.node_closed);
            if let (true, Some(session)) = (connected, client.session) {
                up[session] = true;
            }
        }
        up
    }

    /// It is not known whether the node has seen the DISCONNECT.
    pub fn doubt_goodbye(&mut self, at: usize) {
        let will = self.clients[at].link.as_ref().and_then(|link| link.will);
        if let Some(will) = will {
            self.model.wills[will].unsure = true;
        }
    }

    /// The node has lost a connection, or the network has.
    pub fn on_lost(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        let welcomed = client.link.as_ref().is_some_and(|link| link.welcomed);
        if welcomed {
            client.last_up = now;
        } else if client.may_have_expired(now) {
            // It may have been claimed just then, and found expired.
            client.doubtful = true;
        }
        let will = client.link.as_ref().and_then(|link| link.will);
        if let Some(will) = will {
            self.model.will_loses(will, now);
        }
        self.end_fleeting_session(at);
    }

    /// A session that does not outlive its connection is over.
    pub fn end_fleeting_session(&mut self, at: usize) {
        if let Some(session) = self.clients[at].session
            && !self.model.sessions[session].durable
        {
            self.model.end_session(session);
        }
    }

    /// The client learns that its connection is over. The link that it was.
    pub fn drop_link(&mut self, at: usize) -> Option<Link> {
        let client = &mut self.clients[at];
        let link = client.link.take()?;
        self.trace.mix(0xD0 + at as u64);
        client.machine.on_closed();
        client.must_start_clean |= client.doubtful;
        client.subscribing.clear();
        client.unsubscribing.clear();
        if client
            .session
            .is_some_and(|session| !self.model.sessions[session].durable)
        {
            client.session = None;
        }
        Some(link)
    }

    /// A client sends CONNECT over a wire of a node.
    pub fn connect(&mut self, at: usize, node: usize, wire: usize, clean: bool) -> Held {
        let will = self.choose_will(at);
        self.doubt_wills(at, clean);
        let tick = self.model.next_tick();
        let client = &mut self.clients[at];
        client.known_since.get_or_insert(tick);
        let first = (self.model.disturbances, self.now);
        self.model.known_eras.entry(at).or_insert(first);
        client.doubtful |= client.may_have_expired(self.now) || client.may_have_ended;
        // A client that does not hear the answer cannot know whose session the next one goes on with.
        client.must_start_clean |= clean || client.session.is_none() || client.doubtful;
        if let (true, Some(session)) = (clean, client.session) {
            self.model.end_session(session);
        }
        client
            .machine
            .connect(clean, self.now.0)
            .expect("the options are right, and there is no connection");
        client.link = Some(Link::new(node, wire, self.model.disturbances, clean, will));
        self.trace.note(|| {
            format!(
                "{} c{at}: connects to node {node}, clean {clean}, will {will:?}, wire {wire}",
                self.steps
            )
        });
        self.take_events(at)
    }

    /// A client that is about to connect may void its wills, or make them due.
    fn doubt_wills(&mut self, at: usize, clean: bool) {
        let now = self.now;
        for will in 0..self.model.wills.len() {
            if self.model.messages[self.model.wills[will].message].publisher != at {
                continue;
            }
            let will = &mut self.model.wills[will];
            will.due_now |= clean;
            if will.delay_ms > 0 && !will.goodbye && (will.lost.is_none() || now < will.due_by) {
                will.unsure = true;
            }
        }
    }
}
