//! Whether a primary of a Redis Cluster still has those that vote about its successor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::Topology,
    servers::{Server, Servers},
};

/// Pings between servers are some hundred milliseconds apart at best.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Servers {
    /// Whether so many of the other primaries answer this one from now on that those that are left could not elect a replica of it. Waits for that, up to
    /// `give_up_after`. Without a Redis Cluster nobody votes: true.
    ///
    /// A primary that is cut off from them together with one of its replicas goes on for `cluster-node-timeout`, and that replica acknowledges; another one is
    /// promoted. So what fewer replicas have than before may be accepted once the primary was heard on the other side of no cut, later than they had it.
    pub async fn voters_answer(self: &Arc<Self>, server: &Server) -> bool {
        if !matches!(self.config.topology, Topology::Cluster { .. }) {
            return true;
        }
        let mut connection = server.connection.clone();
        let deadline = Instant::now() + self.config.give_up_after;
        let mut began_ms = None;
        loop {
            let mut pipeline = redis::pipe();
            pipeline.cmd("TIME");
            pipeline.cmd("CLUSTER").arg("NODES");
            let answer = pipeline.query_async(&mut connection);
            let asked = self.within(&server.address, answer).await;
            let ((seconds, micros), nodes): ((u64, u64), String) = match asked {
                Ok(answers) => answers,
                Err(_) => return false,
            };
            let since_ms = *began_ms.get_or_insert(seconds * 1000 + micros / 1000);
            if has_voters(&nodes, since_ms) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// By the answer to `CLUSTER NODES`: a line for each server, `ID ADDRESS FLAGS PRIMARY PING-SENT PONG-RECEIVED EPOCH LINK SLOTS...`, times in Unix milliseconds.
fn has_voters(nodes: &str, since_ms: u64) -> bool {
    let (mut primaries, mut answered) = (0_usize, 0);
    for line in nodes.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Those without slots do not vote.
        let [_, _, flags, _, _, pong, _, _, _, ..] = fields.as_slice() else {
            continue;
        };
        if !flags.contains("master") {
            continue;
        }
        primaries += 1;
        let heard_at = pong.parse().unwrap_or(0);
        let is_well = !flags.contains("fail") && !flags.contains("myself");
        answered += usize::from(is_well && since_ms <= heard_at);
    }
    // An election takes more than half of all primaries, and the one that is replaced has no vote.
    let others = primaries.saturating_sub(1);
    others.saturating_sub(answered) < primaries / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(others: &[(&str, u64)], expected: bool) {
        let mut nodes = "a 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-99\n".to_owned();
        for (flags, pong) in others {
            nodes += &format!("b 10.0.0.2:1@2 {flags} - 0 {pong} 2 connected 100-199\n");
        }
        nodes += "c 10.0.0.3:1@2 slave a 0 900 1 connected\n";
        assert_eq!(has_voters(&nodes, 500), expected, "{others:?}");
    }

    #[test]
    fn those_that_do_not_answer_must_be_too_few_for_an_election() {
        check(&[("master", 500), ("master", 499)], true);
        check(&[("master", 499), ("master", 499)], false);
        check(&[("master,fail?", 600), ("master", 0)], false);
        check(&[("master", 600), ("master,fail", 0)], true);
        // Two of four can be without; of five, two must answer.
        check(&[("master", 600), ("master", 0), ("master", 0)], true);
        check(
            &[("master", 600), ("master", 0), ("master", 0), ("master", 0)],
            false,
        );
        check(
            &[
                ("master", 600),
                ("master", 600),
                ("master", 0),
                ("master", 0),
            ],
            true,
        );
        // Of two, none can be elected.
        check(&[("master", 0)], true);
    }
}
