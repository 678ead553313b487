//! What an operator asks of the nodes that serve together.

use std::path::Path;

use campanile_api::cluster::{Cluster, DrainOrder, Located, Overview, Refusal};
use campanile_push::app::AppName;
use serde::{Deserialize, Serialize};

use super::{
    Reply, Request,
    conversation::{ConversationError, Node},
};

/// A request about the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClusterRequest {
    /// All nodes.
    Status,
    /// Where a client is connected.
    Locate {
        /// Its app.
        app: String,
        /// Its identifier.
        client: String,
    },
    /// Move a node's devices away.
    Drain {
        /// The node's name.
        node: String,
        /// How.
        order: DrainOrder,
    },
    /// Withdraw such an order.
    Undrain {
        /// The node's name.
        node: String,
    },
    /// Move what nodes have above their fair share.
    Rebalance,
}

/// The node's end.
pub(super) async fn carry_out(request: ClusterRequest, cluster: &dyn Cluster) -> Reply {
    match answer(&request, cluster).await {
        Ok(reply) => {
            let is_order = !matches!(
                request,
                ClusterRequest::Status | ClusterRequest::Locate { .. }
            );
            if is_order {
                tracing::info!(?request, "order of an operator");
            }
            reply
        }
        Err(refusal) => Reply::Refused {
            detail: refusal.to_string(),
        },
    }
}

async fn answer(request: &ClusterRequest, cluster: &dyn Cluster) -> Result<Reply, Refusal> {
    match request {
        ClusterRequest::Status => Ok(Reply::Cluster {
            overview: cluster.overview(),
        }),
        ClusterRequest::Locate { app, client } => match AppName::new(app) {
            Ok(app) => Ok(Reply::Located {
                located: Box::new(cluster.locate(&app, client).await?),
            }),
            Err(bad) => Ok(Reply::Refused {
                detail: bad.to_string(),
            }),
        },
        ClusterRequest::Drain { node, order } => {
            cluster.drain(node, *order).await.map(|()| Reply::Done)
        }
        ClusterRequest::Undrain { node } => cluster.undrain(node).await.map(|()| Reply::Done),
        ClusterRequest::Rebalance => cluster.rebalance().await.map(|()| Reply::Done),
    }
}

/// The operator's end: the cluster as a node of this machine knows it.
pub struct Members(Node);

impl Members {
    /// Finds the node that uses a data directory; it must run.
    pub fn of(data_dir: &Path) -> Result<Members, ConversationError> {
        Node::of(data_dir).map(Members)
    }

    /// All nodes.
    pub fn status(&mut self) -> Result<Overview, ConversationError> {
        match self.ask(ClusterRequest::Status)? {
            Reply::Cluster { overview } => Ok(overview),
            other => Err(self.0.misunderstood(&other)),
        }
    }

    /// Where a client is connected.
    pub fn locate(&mut self, app: &AppName, client: &str) -> Result<Located, ConversationError> {
        let request = ClusterRequest::Locate {
            app: app.to_string(),
            client: client.to_owned(),
        };
        match self.ask(request)? {
            Reply::Located { located } => Ok(*located),
            other => Err(self.0.misunderstood(&other)),
        }
    }

    /// Gives an order.
    pub fn order(&mut self, request: ClusterRequest) -> Result<(), ConversationError> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(self.0.misunderstood(&other)),
        }
    }

    fn ask(&mut self, request: ClusterRequest) -> Result<Reply, ConversationError> {
        match self.0.ask(&Request::Cluster { request })? {
            Reply::Refused { detail } => Err(ConversationError::Refused(detail)),
            reply => Ok(reply),
        }
    }
}
