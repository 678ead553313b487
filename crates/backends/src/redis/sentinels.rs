//! What Sentinels say of a primary.

use std::{collections::HashMap, sync::Arc};

use super::{
    config::Topology,
    servers::{Down, Server, Servers},
};

impl Servers {
    /// Whether most Sentinels answer, and all that do name this server and are not about to replace it. Without Sentinels nobody can be asked: true.
    ///
    /// A replica that is promoted has left the server before, and from then on until all of it is over, the Sentinel that promotes it says so. So what was
    /// acknowledged before this was asked was acknowledged while nobody else had been promoted.
    pub async fn sentinels_stand_by(self: &Arc<Self>, server: &Server) -> bool {
        let Topology::Sentinel { primary, sentinels } = &self.config.topology else {
            return true;
        };
        let asked: Vec<_> = sentinels
            .iter()
            .map(|sentinel| {
                let (servers, sentinel) = (self.clone(), sentinel.clone());
                let (primary, address) = (primary.clone(), server.address.clone());
                tokio::spawn(async move {
                    let state = servers.state_at(&sentinel, &primary).await;
                    state.map(|state| stands_by(&state, &address))
                })
            })
            .collect();
        let mut answers = 0;
        for answer in asked {
            match answer.await {
                Ok(Ok(true)) => answers += 1,
                Ok(Ok(false)) => return false,
                Ok(Err(Down(reason))) => tracing::debug!(%reason, "a sentinel does not answer"),
                Err(_) => {}
            }
        }
        answers * 2 > sentinels.len()
    }

    async fn state_at(
        &self,
        sentinel: &str,
        primary: &str,
    ) -> Result<HashMap<String, String>, Down> {
        let mut connection = self.open(sentinel, true).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("MASTER").arg(primary);
        self.within(sentinel, command.query_async(&mut connection))
            .await
    }
}

/// By the answer to `SENTINEL MASTER`: it is the primary, it is not held for down, and no failover is going on.
fn stands_by(state: &HashMap<String, String>, address: &str) -> bool {
    let field = |name: &str| state.get(name).map(String::as_str).unwrap_or_default();
    let named = format!("{}:{}", field("ip"), field("port"));
    named == address && field("flags") == "master"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_is_in_doubt_is_not_stood_by() {
        let state = |flags: &str| {
            let fields = [("ip", "10.0.0.1"), ("port", "6379"), ("flags", flags)];
            HashMap::from(fields.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        assert!(stands_by(&state("master"), "10.0.0.1:6379"));
        assert!(!stands_by(&state("master"), "10.0.0.2:6379"));
        for flags in [
            "s_down,master",
            "s_down,o_down,master",
            "master,failover_in_progress",
        ] {
            assert!(!stands_by(&state(flags), "10.0.0.1:6379"), "{flags}");
        }
    }
}
