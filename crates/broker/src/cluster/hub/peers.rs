//! The peers: who is linked, what they say, what is kept for them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Hub, MAX_KEPT, waits::Then};
use crate::{
    cluster::{
        membership::Membership,
        peer::{Answer, Load, PeerMessage, Question},
    },
    ids::{AppId, ClientKey, Generation, Millis, Offset, ShardId},
    mail::{ClusterMail, Interest, Keeper, Mail},
    message::Message,
    shard::Shard,
    store::{Notice, QoS},
};

/// A message for a member of a shared subscription at a peer, until that one has it.
#[derive(Clone, Debug)]
pub struct Kept {
    peer: Generation,
    app: AppId,
    message: Arc<Message>,
    filter: Arc<str>,
}

impl Kept {
    pub fn new(app: AppId, message: Arc<Message>, filter: Arc<str>) -> Kept {
        Kept {
            peer: Generation::ALONE,
            app,
            message,
            filter,
        }
    }
}

#[derive(Debug)]
struct Peer {
    /// Its number among the shards.
    number: ShardId,
    /// It routes by the changes of an app up to here.
    known: HashMap<AppId, Offset>,
}

/// Linked peers.
#[derive(Debug, Default)]
pub struct Peers {
    linked: BTreeMap<Generation, Peer>,
    by_number: BTreeMap<u8, Generation>,
    /// Questions of peers, by own ticket.
    pub questions: HashMap<u64, (Generation, u64)>,
    /// Releases that peers asked for, by own ticket.
    releases: HashMap<u64, (Generation, u64)>,
}

impl Peers {
    /// Whether messages can be sent to a generation.
    pub fn is_linked(&self, generation: Generation) -> bool {
        self.linked.contains_key(&generation)
    }

    /// All that are linked.
    pub fn linked(&self) -> Vec<Generation> {
        self.linked.keys().copied().collect()
    }

    /// How many members are not linked.
    pub fn unlinked(&self, membership: &Membership, own: Generation) -> usize {
        let nodes = membership.nodes.values();
        nodes
            .filter(|node| node.generation != own && !self.is_linked(node.generation))
            .count()
    }

    /// Whether all linked peers route by a change.
    pub fn all_know(&self, app: &AppId, offset: Offset) -> bool {
        let mut peers = self.linked.values();
        peers.all(|peer| peer.known.get(app).is_some_and(|known| *known >= offset))
    }

    /// The peer with a number among the shards.
    pub fn at(&self, number: ShardId) -> Option<Generation> {
        self.by_number.get(&number.0).copied()
    }

    /// Sends a message to every linked peer.
    pub fn tell_all(
        &self,
        out: &mut Vec<(Generation, PeerMessage)>,
        message: impl Fn() -> PeerMessage,
    ) {
        out.extend(self.linked.keys().map(|peer| (*peer, message())));
    }

    fn add(&mut self, generation: Generation) -> Option<ShardId> {
        let number = ShardId::PEERS
            .rev()
            .find(|number| !self.by_number.contains_key(number))?;
        self.by_number.insert(number, generation);
        let peer = Peer {
            number: ShardId(number),
            known: HashMap::new(),
        };
        self.linked.insert(generation, peer);
        Some(ShardId(number))
    }

    fn remove(&mut self, generation: Generation) -> Option<ShardId> {
        let peer = self.linked.remove(&generation)?;
        self.by_number.remove(&peer.number.0);
        self.questions.retain(|_, (peer, _)| *peer != generation);
        self.releases.retain(|_, (peer, _)| *peer != generation);
        Some(peer.number)
    }
}

impl<H> Hub<H> {
    /// A link is up: both sides tell each other everything anew.
    pub fn on_peer_up(&mut self, peer: Generation, now: Millis) {
        self.begin(now);
        if self.peers.is_linked(peer) {
            self.forget_peer(peer);
        }
        if self.peers.add(peer).is_none() {
            tracing::error!(%peer, "too many nodes: this one is served from the store only");
            return;
        }
        let out = &mut self.effects.peers;
        out.push((peer, PeerMessage::InterestBegins));
        for (app, change) in self.interest.all() {
            let ticket = 0;
            out.push((
                peer,
                PeerMessage::Interest {
                    app,
                    change,
                    ticket,
                },
            ));
        }
        out.push((peer, PeerMessage::InterestComplete));
        for (app, state) in &self.apps {
            let (app, offset) = (app.clone(), state.synced);
            out.push((peer, PeerMessage::ChangesKnown { app, offset }));
        }
    }

    /// A link is lost.
    pub fn on_peer_down(&mut self, peer: Generation, now: Millis) {
        self.begin(now);
        self.forget_peer(peer);
        self.release_held();
    }

    fn forget_peer(&mut self, peer: Generation) {
        let Some(number) = self.peers.remove(peer) else {
            return;
        };
        self.mail_all(Mail::Cluster(ClusterMail::PeerGone(number)));
        for then in self.waits.on_peer_gone(peer) {
            self.follow(Some(then));
        }
        self.peer_counts_no_more(peer);
        let asked: Vec<u64> = self.asked.keys().copied().collect();
        for ticket in asked {
            self.on_found(ticket, peer, None);
        }
        let lost: Vec<u64> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.peer == peer)
            .map(|(ticket, _)| *ticket)
            .collect();
        for kept in lost
            .into_iter()
            .filter_map(|ticket| self.kept.remove(&ticket))
        {
            self.stats.redelivered += 1;
            let mail = ClusterMail::Redeliver {
                app: kept.app,
                message: kept.message,
                filter: kept.filter,
            };
            self.effects.letters.push((ShardId(0), Mail::Cluster(mail)));
        }
    }

    /// Sends a message to a member at a peer, and keeps it until that one has it. Not QoS 2: sent once, it must not go to a second client [MQTT-4.8.2-5].
    pub(super) fn deliver_shared(&mut self, to: ShardId, mut kept: Kept, client_id: Arc<str>) {
        let Some(peer) = self.peers.at(to) else {
            // The link was lost meanwhile: somebody else gets it.
            let mail = ClusterMail::Redeliver {
                app: kept.app,
                message: kept.message,
                filter: kept.filter,
            };
            return self.effects.letters.push((ShardId(0), Mail::Cluster(mail)));
        };
        let mut ticket = 0;
        let message = kept.message.clone();
        let (app, filter) = (kept.app.clone(), kept.filter.clone());
        if message.qos == QoS::AtLeastOnce {
            if self.kept.len() < MAX_KEPT {
                ticket = self.waits.ticket();
                kept.peer = peer;
                self.kept.insert(ticket, kept);
            } else {
                self.stats.not_kept += 1;
            }
        }
        let message = PeerMessage::DeliverShared {
            app,
            message,
            filter,
            client_id,
            ticket,
        };
        self.effects.peers.push((peer, message));
    }

    pub(super) fn tell_keeper(&mut self, keeper: Keeper) {
        if let Some(peer) = self.peers.at(keeper.peer) {
            let ticket = keeper.ticket;
            self.effects
                .peers
                .push((peer, PeerMessage::SharedDone { ticket }));
        }
    }

    /// From a linked peer. `load`: how full this node is, for those who ask.
    pub fn on_peer(&mut self, peer: Generation, message: PeerMessage, load: Load, now: Millis) {
        self.begin(now);
        let Some(number) = self.peers.linked.get(&peer).map(|peer| peer.number) else {
            return;
        };
        self.unaware.remove(&peer);
        match message {
            PeerMessage::InterestBegins => {
                self.mail_all(Mail::Cluster(ClusterMail::PeerGone(number)));
            }
            PeerMessage::InterestComplete => {}
            PeerMessage::Interest {
                app,
                change,
                ticket,
            } => self.on_peer_interest(peer, number, app, change, ticket),
            PeerMessage::InterestKnown { ticket } | PeerMessage::Released { ticket } => {
                let then = self.waits.on_peer(ticket, peer);
                self.follow(then);
            }
            PeerMessage::Deliver { app, message } => self.mail_all(Mail::Deliver { app, message }),
            PeerMessage::DeliverShared {
                app,
                message,
                filter,
                client_id,
                ticket,
            } => {
                let keeper = (ticket != 0).then_some(Keeper {
                    peer: number,
                    ticket,
                });
                let home = Shard::of_client(&app, &client_id, self.shards);
                let mail = Mail::DeliverShared {
                    app,
                    message,
                    filter,
                    client_id,
                    keeper,
                };
                self.effects.letters.push((home, mail));
            }
            PeerMessage::SharedDone { ticket } => {
                self.kept.remove(&ticket);
            }
            PeerMessage::Log {
                app,
                log,
                previous,
                entry,
                changes,
            } => self.on_log(&app, log, previous, entry, changes),
            PeerMessage::Change {
                app,
                previous,
                offset,
                change,
            } => {
                self.on_change(&app, previous, offset, change);
                self.sync_changes();
            }
            PeerMessage::ChangesKnown { app, offset } => {
                if let Some(peer) = self.peers.linked.get_mut(&peer) {
                    peer.known.insert(app, offset);
                }
                self.release_held();
            }
            PeerMessage::Inbox {
                client,
                previous,
                entry,
                replaced,
            } => {
                let owner = self.own;
                let home = self.home(&client);
                let notice = Notice::Inbox {
                    client,
                    owner,
                    previous,
                    entry,
                    replaced,
                };
                self.effects.letters.push((home, Mail::Notice(notice)));
            }
            PeerMessage::Instant {
                app,
                clients,
                message,
            } => self.mail_all(Mail::Notice(Notice::Instant {
                app,
                clients,
                message,
            })),
            PeerMessage::Release {
                client,
                epoch,
                resumes,
                ticket,
            } => {
                let own = self.waits.ticket();
                self.peers.releases.insert(own, (peer, ticket));
                let home = self.home(&client);
                let mail = ClusterMail::Release {
                    client,
                    epoch,
                    resumes,
                    ticket: own,
                };
                self.effects.letters.push((home, Mail::Cluster(mail)));
            }
            PeerMessage::Ask { ticket, question } => match question {
                Question::WhereIs(client) => self.ask_for_peer(peer, ticket, client, false),
                Question::Kick(client) => self.ask_for_peer(peer, ticket, client, true),
                Question::HowMany(imagined) => self.count_for_peer(peer, ticket, &imagined),
                Question::Load => {
                    let answer = Answer::Load(load);
                    let message = PeerMessage::Answer { ticket, answer };
                    self.effects.peers.push((peer, message));
                }
            },
            PeerMessage::Answer { ticket, answer } => match answer {
                Answer::Here(connected) => self.on_found(ticket, peer, connected),
                Answer::ThisMany(live) => self.on_peer_counted(ticket, peer, Some(live)),
                Answer::Load(_) => {}
            },
        }
    }

    fn ask_for_peer(&mut self, peer: Generation, ticket: u64, client: ClientKey, kick: bool) {
        let own = self.waits.ticket();
        self.peers.questions.insert(own, (peer, ticket));
        self.ask_home(own, client, kick);
    }

    fn on_peer_interest(
        &mut self,
        peer: Generation,
        number: ShardId,
        app: AppId,
        change: Interest,
        ticket: u64,
    ) {
        let change = match change {
            Interest::Member {
                filter,
                client_id,
                member,
            } => Interest::Member {
                filter,
                client_id,
                member: member.map(|member| crate::mail::Member {
                    shard: number,
                    ..member
                }),
            },
            other => other,
        };
        let own = match ticket {
            0 => 0,
            _ => self.waits.ticket(),
        };
        if ticket != 0 {
            self.waits.begin(
                own,
                self.shards.into(),
                Vec::new(),
                None,
                Then::PeerInterestKnown(peer, ticket),
            );
        }
        self.mail_all(Mail::Interest {
            from: number,
            app,
            change,
            ticket: own,
        });
    }

    /// A shard has let go of a client that a peer has claimed.
    pub(super) fn on_local_release(&mut self, ticket: u64) {
        if let Some((peer, ticket)) = self.peers.releases.remove(&ticket) {
            self.effects
                .peers
                .push((peer, PeerMessage::Released { ticket }));
        }
    }
}
