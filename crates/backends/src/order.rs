//! What a connection sends is kept in its order.
//!
//! A client that is not told what became of a message sends it again on its next connection, with all that it sent behind it. What it sent behind it must not be
//! kept meanwhile, or it comes first. The shard closes the connection once it hears that the message was not kept; what the connection sent until then is refused
//! here, however long the answer is under way (`docs/adr/0018-kept-in-order-or-not-at-all.md`).

use std::collections::HashMap;

use campanile_broker::{
    ids::ShardId,
    store::{Command, Sender, StoreError},
};

use crate::{Reply, Request};

/// Connections that are about to be closed, since something that they sent was not kept.
#[derive(Debug, Default)]
pub struct Broken {
    /// How often its slot was used before, by slot: as many as a node has connections at most.
    uses: HashMap<(ShardId, u32), u32>,
}

/// Requests that may be carried out, and those that may not. `T` is what the submitter calls its request by.
#[derive(Debug)]
pub struct Admitted<T> {
    /// What may be carried out.
    pub batch: Vec<Request>,
    /// For each of them who asked, and which connection sent it.
    askers: Vec<(T, Option<Sender>)>,
    refused: Vec<T>,
}

impl Broken {
    /// Takes out what broken connections have sent.
    pub fn admit<T>(&self, requests: impl IntoIterator<Item = (T, Request)>) -> Admitted<T> {
        let requests = requests.into_iter();
        let mut admitted = Admitted {
            batch: Vec::with_capacity(requests.size_hint().0),
            askers: Vec::with_capacity(requests.size_hint().0),
            refused: Vec::new(),
        };
        for (asker, request) in requests {
            let sender = sender(&request).copied();
            if sender.is_some_and(|sender| self.has(&sender)) {
                admitted.refused.push(asker);
            } else {
                admitted.batch.push(request);
                admitted.askers.push((asker, sender));
            }
        }
        admitted
    }

    /// The answers to all who asked, given those to the batch: in its order, then those that were refused.
    pub fn settle<T>(
        &mut self,
        admitted: Admitted<T>,
        replies: Vec<Result<Reply, StoreError>>,
    ) -> Vec<(T, Result<Reply, StoreError>)> {
        debug_assert_eq!(admitted.askers.len(), replies.len());
        let mut answers = Vec::with_capacity(replies.len() + admitted.refused.len());
        for ((asker, sender), reply) in admitted.askers.into_iter().zip(replies) {
            if let (Some(sender), Err(error)) = (sender, &reply) {
                self.note(&sender, error);
            }
            answers.push((asker, reply));
        }
        let behind = || StoreError::Unavailable("a message before it was not kept".into());
        answers.extend(
            admitted
                .refused
                .into_iter()
                .map(|asker| (asker, Err(behind()))),
        );
        answers
    }

    /// A request is not even taken: whoever asked is told that the store is unavailable.
    pub fn refused(&mut self, request: &Request) {
        if let Some(sender) = sender(request) {
            self.note(sender, &StoreError::Unavailable("not taken".into()));
        }
    }

    fn note(&mut self, sender: &Sender, error: &StoreError) {
        if sender.is_closed_by(error) {
            let slot = (sender.shard, sender.conn.slot);
            self.uses.insert(slot, sender.conn.use_count);
        }
    }

    fn has(&self, sender: &Sender) -> bool {
        let slot = (sender.shard, sender.conn.slot);
        self.uses.get(&slot) == Some(&sender.conn.use_count)
    }
}

fn sender(request: &Request) -> Option<&Sender> {
    match request {
        Request::Broker(Command::Publish(publish)) => publish.sender.as_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use campanile_broker::{
        ids::{ConnId, MessageId},
        message::{Kind, Message},
        store::{Outcome, Publish},
    };

    use super::*;
    use crate::suite::publish;

    fn sent(slot: u32, use_count: u32, hears_refusals: bool) -> Request {
        let message = Message::new(MessageId(1), Kind::Publish, "t", &[], b"x");
        let sender = Sender {
            shard: ShardId(0),
            conn: ConnId { slot, use_count },
            hears_refusals,
        };
        Request::Broker(Command::Publish(Publish {
            sender: Some(sender),
            ..publish(&message.into())
        }))
    }

    fn done() -> Result<Reply, StoreError> {
        Ok(Reply::Broker(Outcome::Done))
    }

    fn unavailable() -> Result<Reply, StoreError> {
        Err(StoreError::Unavailable("full".into()))
    }

    fn unknown() -> Result<Reply, StoreError> {
        Err(StoreError::Unknown("no answer".into()))
    }

    /// Whether a request is admitted after one that came to this.
    fn is_admitted(first: Request, reply: Result<Reply, StoreError>, then: Request) -> bool {
        let mut broken = Broken::default();
        let admitted = broken.admit([('a', first)]);
        assert_eq!(broken.settle(admitted, vec![reply.clone()]), [('a', reply)]);
        let admitted = broken.admit([('b', then)]);
        let is_admitted = !admitted.batch.is_empty();
        let replies = admitted.batch.iter().map(|_| done()).collect();
        let answers = broken.settle(admitted, replies);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].1.is_ok(), is_admitted);
        is_admitted
    }

    #[test]
    fn nothing_is_kept_behind_what_will_be_sent_again() {
        for (reply, hears_refusals, expected) in [
            (done(), false, true),
            (done(), true, true),
            (unavailable(), false, false),
            // It was told so, and does not send it again.
            (unavailable(), true, true),
            (unknown(), false, false),
            (unknown(), true, false),
        ] {
            let first = sent(3, 7, hears_refusals);
            let then = sent(3, 7, hears_refusals);
            let is = is_admitted(first, reply.clone(), then);
            assert_eq!(is, expected, "{reply:?}, {hears_refusals}");
        }
    }

    #[test]
    fn other_connections_go_on() {
        let others = [sent(3, 8, false), sent(4, 7, false)];
        for other in others {
            assert!(is_admitted(sent(3, 7, false), unavailable(), other));
        }
    }

    #[test]
    fn what_was_not_even_taken_breaks_the_order_too() {
        let mut broken = Broken::default();
        broken.refused(&sent(3, 7, false));
        assert!(broken.admit([((), sent(3, 7, false))]).batch.is_empty());
        assert_eq!(broken.admit([((), sent(3, 8, false))]).batch.len(), 1);
    }

    #[test]
    fn answers_keep_the_order_of_the_batch() {
        let mut broken = Broken::default();
        broken.refused(&sent(1, 0, false));
        let requests = [sent(0, 0, false), sent(1, 0, false), sent(2, 0, false)];
        let admitted = broken.admit((0..).zip(requests));
        let answers = broken.settle(admitted, vec![done(), unknown()]);
        let order: Vec<_> = answers.iter().map(|(asker, _)| *asker).collect();
        assert_eq!(order, [0, 2, 1], "places of a batch are told of by others");
    }
}
