//! A node that runs: what its hub is told, and what becomes of what the hub wants.

use std::{
    collections::{BTreeMap, VecDeque},
    mem::take,
    sync::Arc,
};

use campanile_backends::{Reply, Request};
use campanile_broker::{
    cluster::{
        hub::{Effects, Found, Hub},
        membership::Membership,
        peer::{Load, PeerMessage},
    },
    ids::{AppId, Generation, Millis, ShardId},
    mail::{ClusterMail, Mail},
    shard::Shard,
    store::{Outcome, OwedWill, Recovery, StoreError},
};

use super::{
    Asker, Fleet, FleetConfig,
    ensemble::Agent,
    links::LinkEvent,
    sabotage::Sabotage,
    store::{Answer, Returned},
};
use crate::shards::{Letter, Shards, ShardsConfig};

/// A node that runs.
pub struct Member {
    /// Its shards and wires.
    pub shards: Shards,
    /// Between them and the rest.
    pub hub: Hub<Answer>,
    /// What it makes of the ensemble.
    pub(super) agent: Agent,
    /// What it heard of the ensemble, and its hub has not.
    pub(super) news: VecDeque<Arc<Membership>>,
    /// The run of it that it knows of.
    pub generation: Generation,
    /// From shards, not taken by the hub.
    mail: Vec<VecDeque<(ShardId, Mail)>>,
    /// Nodes that are linked, or were listed.
    peers: Vec<Generation>,
    linked: Vec<Generation>,
    /// Answers to questions where a client is.
    pub found: BTreeMap<u64, Found>,
}

impl Member {
    pub(super) fn new(
        config: &FleetConfig,
        agent: Agent,
        generation: Generation,
        seed: u64,
        now: Millis,
    ) -> Member {
        let setup = ShardsConfig {
            count: config.shards,
            broker: config.broker.clone(),
            access: Arc::new(campanile_broker::access::Open),
            audiences: config.audiences,
            seed,
            cluster: Some(generation),
        };
        let apps = [AppId::new("default")];
        let partitions = config.broker.topic_partitions;
        Member {
            shards: Shards::new(setup, &Recovery::default(), now),
            hub: Hub::new(config.shards, partitions, generation, apps, now),
            agent,
            news: VecDeque::new(),
            generation,
            mail: (0..config.shards).map(|_| VecDeque::new()).collect(),
            peers: Vec::new(),
            linked: Vec::new(),
            found: BTreeMap::new(),
        }
    }

    /// What it agrees to.
    pub fn membership(&self) -> &Membership {
        self.agent.membership()
    }

    /// Whether it wants a link to a run of a node.
    pub(super) fn lists(&self, generation: Generation) -> bool {
        self.peers.contains(&generation)
    }

    /// Shards whose mail the hub has not taken.
    pub(super) fn waiting_mail(&self) -> impl Iterator<Item = ShardId> {
        let waiting = self.mail.iter().enumerate();
        waiting
            .filter(|(_, mail)| !mail.is_empty())
            .map(|(shard, _)| ShardId(shard as u8))
    }
}

impl Fleet {
    /// Takes what the shards of a node want.
    pub(super) fn collect(&mut self, node: usize) {
        let place = &mut self.places[node];
        let Some(member) = &mut place.member else {
            return;
        };
        for (shard, ticket, mut command) in member.shards.commands.drain(..) {
            if let Some(saboteur) = &mut place.saboteur {
                saboteur.on_command(&mut command);
            }
            let asker = Asker::Shard(shard, ticket);
            place.store.write(asker, Request::Broker(command));
        }
        for (shard, ticket, query) in member.shards.queries.drain(..) {
            place.store.read(Asker::Shard(shard, ticket), query);
        }
        for (from, to, mail) in member.shards.outward.drain(..) {
            member.mail[usize::from(from.0)].push_back((to, mail));
        }
    }

    /// The hub takes mail of a shard.
    pub(super) fn on_mail(&mut self, node: usize, shard: ShardId) {
        let clock = self.clock(node);
        let Some(member) = self.member(node) else {
            return;
        };
        if let Some((to, mail)) = member.mail[usize::from(shard.0)].pop_front() {
            member.hub.on_mail(to, mail, clock);
        }
        self.carry_out(node);
    }

    /// A batch has come back, or is given up.
    pub(super) fn on_returned(&mut self, node: usize, returned: Returned) {
        let clock = self.clock(node);
        let is_early = self.config.sabotage == Some(Sabotage::AnswerBeforeKnown);
        let Some(member) = self.places[node].member.as_mut() else {
            return;
        };
        let mut own: Vec<(u64, Result<Outcome, StoreError>)> = Vec::new();
        let (mut others, mut places) = (Vec::new(), Vec::new());
        for (asker, reply) in returned.replies {
            match asker {
                Asker::Hub(ticket) => {
                    places.push(None);
                    own.push((ticket, reply.map(outcome_of)));
                }
                asker => {
                    places.push(Some(others.len()));
                    others.push((asker, reply));
                }
            }
        }
        let changed: Vec<_> = returned
            .changed
            .into_iter()
            .filter_map(|(place, app, offset)| Some((places[place]?, app, offset)))
            .filter(|_| !is_early)
            .collect();
        member
            .hub
            .on_commit(returned.notices, others, &changed, clock);
        for (ticket, outcome) in own {
            member.hub.on_outcome(ticket, outcome, clock);
        }
        self.carry_out(node);
    }

    /// What was read arrives.
    pub(super) fn on_page(&mut self, node: usize, at: usize) {
        let clock = self.clock(node);
        let place = &mut self.places[node];
        let mut back = place.store.take_page(at);
        if let Some(saboteur) = &mut place.saboteur {
            saboteur.on_page(&mut back.page);
        }
        let Some(member) = &mut place.member else {
            return;
        };
        match back.asker {
            Asker::Shard(shard, ticket) => {
                member.shards.post(shard, Letter::Page(ticket, back.page));
            }
            Asker::Hub(ticket) => {
                member.hub.on_page(ticket, back.page, clock);
                self.carry_out(node);
            }
            Asker::Api(_) | Asker::Sweeper => unreachable!("they only write"),
        }
    }

    /// The hub learns what is new about a link.
    pub(super) fn on_link_event(&mut self, node: usize) {
        let clock = self.clock(node);
        let Some(event) = self.links.take_event(node) else {
            return;
        };
        if self.config.trace {
            println!("    node {node}: {event:?}");
        }
        let place = &mut self.places[node];
        let Some(member) = &mut place.member else {
            return;
        };
        match event {
            LinkEvent::Up(peer) => {
                member.linked.push(peer);
                place.lost.remove(&peer);
                member.hub.on_peer_up(peer, clock);
            }
            LinkEvent::Down(peer) => {
                member.linked.retain(|linked| *linked != peer);
                place.lost.insert(peer);
                member.hub.on_peer_down(peer, clock);
            }
            LinkEvent::Message(peer, mut message) => {
                let saboteur = &mut place.saboteur;
                if saboteur.as_mut().is_none_or(|s| s.on_peer(&mut message)) {
                    member.hub.on_peer(peer, message, Load::default(), clock);
                }
            }
        }
        self.carry_out(node);
    }

    /// The hub learns what the ensemble says.
    pub(super) fn on_news(&mut self, node: usize) {
        let clock = self.clock(node);
        let place = &mut self.places[node];
        let Some(member) = &mut place.member else {
            return;
        };
        let Some(membership) = member.news.pop_front() else {
            return;
        };
        if self.config.trace {
            let nodes: Vec<_> = membership
                .nodes
                .iter()
                .map(|(name, node)| format!("{name}/{}", node.generation))
                .collect();
            println!(
                "    node {node}: own {:?}, nodes {nodes:?}, reachable {}",
                membership.own, membership.reachable
            );
        }
        if let Some(own) = membership.own {
            member.generation = own;
        }
        let listed = membership.nodes.values().map(|node| node.generation);
        let listed: Vec<Generation> = listed.collect();
        place.lost.retain(|lost| listed.contains(lost));
        // Who is only cut off from the ensemble stays linked.
        let linked = &member.linked;
        member.peers.retain(|peer| linked.contains(peer));
        member.peers.extend(listed);
        let name = &place.name;
        let drains = membership.drains.contains_key(name);
        let draining = drains.then(|| "mqtt://elsewhere:1883".into());
        member
            .shards
            .post_all(&Mail::Cluster(ClusterMail::Draining(draining)));
        member.hub.on_membership(membership, clock);
        self.carry_out(node);
    }

    /// Does what the hub wants.
    pub(super) fn carry_out(&mut self, node: usize) {
        loop {
            let Some(member) = self.places[node].member.as_mut() else {
                return;
            };
            let effects = take(member.hub.effects());
            let wills = self.carry_out_effects(node, effects);
            let clock = self.clock(node);
            let Some(member) = self.places[node].member.as_mut() else {
                return;
            };
            if !wills.is_empty() {
                member.hub.on_wills(wills, clock);
            }
            let effects = member.hub.effects();
            if effects.letters.is_empty()
                && effects.commands.is_empty()
                && effects.queries.is_empty()
                && effects.peers.is_empty()
                && effects.ready.is_empty()
            {
                break;
            }
        }
        self.collect(node);
    }

    fn carry_out_effects(&mut self, node: usize, effects: Effects<Answer>) -> Vec<OwedWill> {
        let clock = self.clock(node);
        let place = &mut self.places[node];
        let member = place.member.as_mut().expect("the caller looked");
        for (shard, mail) in effects.letters {
            if let Some(saboteur) = &mut place.saboteur {
                saboteur.on_letter(&mail);
                if saboteur.swallows(&mail)
                    && let Mail::Cluster(ClusterMail::Release { ticket, .. }) = mail
                {
                    let released = Mail::Cluster(ClusterMail::Released { ticket });
                    member.mail[0].push_back((ShardId::HUB, released));
                    continue;
                }
            }
            member.shards.post(shard, Letter::Mail(mail));
        }
        for (peer, mut message) in effects.peers {
            let saboteur = place.saboteur.as_mut();
            if let Some(answer) = saboteur.and_then(|saboteur| saboteur.on_send(&mut message)) {
                member.hub.on_peer(peer, answer, Load::default(), clock);
            }
            self.links.send(node, peer, message);
        }
        for (ticket, query) in effects.queries {
            place.store.read(Asker::Hub(ticket), query);
        }
        for (ticket, command) in effects.commands {
            let request = Request::Broker(command);
            place.store.write(Asker::Hub(ticket), request);
        }
        member.found.extend(effects.found);
        let mut wills = Vec::new();
        for (asker, reply) in effects.ready {
            match asker {
                Asker::Shard(shard, ticket) => {
                    let outcome = reply.map(outcome_of);
                    member.shards.post(shard, Letter::Outcome(ticket, outcome));
                }
                Asker::Api(number) => {
                    let outcome = reply.map(|reply| match reply {
                        Reply::Push(outcome) => outcome,
                        Reply::Broker(_) => unreachable!("the API sends push commands"),
                    });
                    self.answers.push((number, outcome));
                }
                Asker::Sweeper => {
                    if let Ok(Reply::Broker(Outcome::Swept(swept))) = reply {
                        wills.extend(swept.wills);
                    }
                }
                Asker::Hub(_) => unreachable!("it is told directly"),
            }
        }
        wills
    }

    /// The shard of a node that a client belongs to.
    pub fn home(&self, client_id: &str) -> ShardId {
        Shard::of_client(&AppId::new("default"), client_id, self.config.shards)
    }

    /// Sends a message to a node's hub as if a linked peer had sent it.
    pub fn say_as_peer(&mut self, node: usize, peer: Generation, message: PeerMessage) {
        let clock = self.clock(node);
        if let Some(member) = self.member(node) {
            member.hub.on_peer(peer, message, Load::default(), clock);
        }
        self.carry_out(node);
    }
}

fn outcome_of(reply: Reply) -> Outcome {
    match reply {
        Reply::Broker(outcome) => outcome,
        Reply::Push(_) => unreachable!("only the API sends push commands"),
    }
}
