//! The persistent part of the tree, and who may touch it.

use zookeeper_client::{Acls, Client, CreateMode};

use super::{Error, ZooKeeperConfig, tree::Kind};

impl ZooKeeperConfig {
    /// Who may do what with all that the cluster creates.
    pub(super) fn acls(&self) -> Acls<'static> {
        match self.auth {
            Some(_) => Acls::creator_all(),
            None => Acls::anyone_all(),
        }
    }
}

/// Creates what is missing of the chroot and its directories. The client's paths are still those of the ensemble.
pub(super) async fn create(client: &Client, config: &ZooKeeperConfig) -> Result<(), Error> {
    let options = CreateMode::Persistent.with_acls(config.acls());
    for kind in Kind::ALL {
        let path = format!("{}{}", config.chroot, kind.path());
        let made = client.mkdir(&path, &options).await;
        made.map_err(|reason| config.failure(kind.path(), reason))?;
    }
    Ok(())
}
