//! What Sentinels say of a primary.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use super::{
    config::Topology,
    servers::{Down, Server, Servers, down},
};

/// What one Sentinel takes for the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    address: Arc<str>,
    /// Grows with every failover.
    epoch: u64,
}

impl Servers {
    /// The primary, as the one of all slots: that of the newest failover that any of most Sentinels knows, or any of those that answer, if most do not.
    ///
    /// The first answer is not enough: a Sentinel that was cut off together with a former primary goes on naming that.
    pub(super) async fn ask_sentinels(
        self: &Arc<Self>,
        primary: &str,
        sentinels: &[String],
    ) -> Result<BTreeMap<u16, Arc<str>>, Down> {
        let mut asked = JoinSet::new();
        for sentinel in sentinels {
            let (servers, sentinel) = (self.clone(), sentinel.clone());
            let primary = primary.to_owned();
            asked.spawn(async move { servers.named_at(&sentinel, &primary).await });
        }
        let (mut named, mut reasons) = (Vec::new(), Vec::new());
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(name)) => named.push(name),
                Ok(Err(Down(reason))) => reasons.push(reason.to_string()),
                Err(_) => {}
            }
            if named.len() * 2 > sentinels.len() {
                break;
            }
        }
        let newest = named.into_iter().max_by_key(|named| named.epoch);
        let Named { address, .. } = newest.ok_or_else(|| down(reasons.join("; ")))?;
        self.connect(&address).await?;
        Ok(BTreeMap::from([(0, address)]))
    }

    async fn named_at(&self, sentinel: &str, primary: &str) -> Result<Named, Down> {
        let mut connection = self.open(sentinel, true).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(primary);
        let answer: Option<(String, u16)> = self
            .within(sentinel, command.query_async(&mut connection))
            .await?;
        let (host, port) = answer.ok_or_else(|| {
            down(format!(
                "sentinel {sentinel}: knows no primary \"{primary}\""
            ))
        })?;
        let state = self.state_of(&mut connection, sentinel, primary).await?;
        Ok(Named {
            address: format!("{host}:{port}").into(),
            epoch: epoch(&state),
        })
    }

    /// Whether most Sentinels stand by this server, and nobody is about to replace it. Without Sentinels nobody can be asked: true.
    ///
    /// A replica that is promoted has left the server before, and from then on until all of it is over, the Sentinel that promotes it says so. So what was
    /// acknowledged before this was asked was acknowledged while nobody else had been promoted.
    pub async fn sentinels_stand_by(self: &Arc<Self>, server: &Server) -> bool {
        let Topology::Sentinel { primary, sentinels } = &self.config.topology else {
            return true;
        };
        let mut asked = JoinSet::new();
        for sentinel in sentinels {
            let (servers, sentinel) = (self.clone(), sentinel.clone());
            let (primary, address) = (primary.clone(), server.address.clone());
            asked.spawn(async move {
                let state = servers.state_at(&sentinel, &primary).await;
                state.map(|state| Opinion::of(&state, &address))
            });
        }
        let mut opinions = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(opinion)) => opinions.push(opinion),
                Ok(Err(Down(reason))) => tracing::debug!(%reason, "a sentinel does not answer"),
                Err(_) => {}
            }
        }
        stand_by(&opinions, sentinels.len())
    }

    async fn state_at(
        &self,
        sentinel: &str,
        primary: &str,
    ) -> Result<HashMap<String, String>, Down> {
        let mut connection = self.open(sentinel, true).await?;
        self.state_of(&mut connection, sentinel, primary).await
    }

    async fn state_of(
        &self,
        connection: &mut MultiplexedConnection,
        sentinel: &str,
        primary: &str,
    ) -> Result<HashMap<String, String>, Down> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("MASTER").arg(primary);
        self.within(sentinel, command.query_async(connection)).await
    }
}

/// What a Sentinel holds of a server, by its answer to `SENTINEL MASTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opinion {
    /// It is the primary, it is not held for down, and no failover is going on.
    is_well: bool,
    /// A primary is being replaced.
    is_replacing: bool,
    epoch: u64,
}

impl Opinion {
    fn of(state: &HashMap<String, String>, address: &str) -> Opinion {
        let field = |name: &str| state.get(name).map(String::as_str).unwrap_or_default();
        let named = format!("{}:{}", field("ip"), field("port"));
        Opinion {
            is_well: named == address && field("flags") == "master",
            is_replacing: field("flags").contains("failover_in_progress"),
            epoch: epoch(state),
        }
    }
}

fn epoch(state: &HashMap<String, String>) -> u64 {
    let epoch = state.get("config-epoch");
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

/// Most of all Sentinels must hold the server for well, and no other be of another opinion: but for those that have not heard of the last failover, and are cut off,
/// say. Without the others, which do not vote about a primary that they have replaced, they cannot begin one.
fn stand_by(opinions: &[Opinion], sentinels: usize) -> bool {
    let (well, others): (Vec<Opinion>, Vec<Opinion>) =
        opinions.iter().partition(|opinion| opinion.is_well);
    let newest = well.iter().map(|opinion| opinion.epoch).max();
    let has_not_heard = |opinion: &Opinion| !opinion.is_replacing && Some(opinion.epoch) < newest;
    well.len() * 2 > sentinels && others.iter().all(has_not_heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "10.0.0.1:6379";
    const ELSEWHERE: &str = "10.0.0.2:6379";

    fn opinion(address: &str, flags: &str, epoch: u64) -> Opinion {
        let (ip, port) = address.split_once(':').unwrap();
        let epoch = epoch.to_string();
        let fields = [
            ("ip", ip),
            ("port", port),
            ("flags", flags),
            ("config-epoch", &epoch),
        ];
        let state = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Opinion::of(&HashMap::from(state), HERE)
    }

    #[test]
    fn a_primary_that_is_in_doubt_is_not_stood_by() {
        let well = opinion(HERE, "master", 7);
        assert!(stand_by(&[well; 3], 3));
        assert!(stand_by(&[well; 2], 3));
        assert!(!stand_by(&[well], 3), "most must say so");
        for flags in [
            "s_down,master",
            "s_down,o_down,master",
            "master,failover_in_progress",
        ] {
            assert!(
                !stand_by(&[well, well, opinion(HERE, flags, 7)], 3),
                "{flags}"
            );
        }
        for epoch in [7, 8] {
            assert!(!stand_by(
                &[well, well, opinion(ELSEWHERE, "master", epoch)],
                3
            ));
        }
    }

    #[test]
    fn a_sentinel_that_has_not_heard_of_the_last_failover_is_passed_over() {
        let well = opinion(HERE, "master", 7);
        let former = |flags: &str| opinion(ELSEWHERE, flags, 6);
        assert!(stand_by(&[well, well, former("master")], 3));
        assert!(stand_by(&[well, well, former("s_down,o_down,master")], 3));
        assert!(!stand_by(
            &[well, well, former("master,failover_in_progress")],
            3
        ));
        assert!(!stand_by(&[well, former("master"), former("master")], 3));
    }
}
