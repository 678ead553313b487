//! Reads, over connections of their own.

mod answers;
mod pages;
mod push;

use std::sync::Arc;

use campanile_broker::store::StoreError;
use campanile_push::store::Unavailable;
use redis::{Pipeline, Value};

pub(super) use self::{
    answers::event_page,
    pages::{pack_query, page},
};
use super::{
    Driver,
    commit::key,
    config::RedisConfig,
    figures::Figures,
    pack::{Malformed, Pack, Packed},
    replicated::Replicated,
    servers::{Down, Server, Servers, send},
};

/// Reads of both ports.
#[derive(Clone)]
pub struct RedisReader {
    pub(super) servers: Arc<Servers>,
    /// Connections on which replicas are waited for, so that no read waits behind that.
    pub(super) marking: Arc<Servers>,
    pub(super) config: Arc<RedisConfig>,
    pub(super) figures: Arc<Figures>,
    pub(super) replicated: Arc<Replicated>,
    pub(super) runtime: Arc<Driver>,
    /// Topic logs of an app.
    pub(super) partitions: u8,
}

/// A read failed, for this reason.
#[derive(Clone, Debug)]
pub struct Failure(pub Arc<str>);

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        StoreError::Unavailable(failure.0)
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Unavailable {
        Unavailable(failure.0)
    }
}

impl From<Down> for Failure {
    fn from(down: Down) -> Failure {
        Failure(down.0)
    }
}

pub(super) fn malformed() -> Failure {
    Failure("redis: an answer of the script, or a stored record in it, is damaged".into())
}

impl RedisReader {
    /// Runs a query over the keys of a tag.
    pub(super) fn ask(&self, tag: &str, query: Pack) -> Result<Packed, Failure> {
        let query = query.into_bytes();
        let answer = self.runtime.block_on(self.ask_primary(tag, &query));
        answer.map(|(_, answer)| answer)
    }

    pub(super) fn add_script(
        &self,
        pipeline: &mut Pipeline,
        server: &Server,
        tag: &str,
        query: &[u8],
    ) {
        pipeline
            .cmd("EVALSHA")
            .arg(&*server.script)
            .arg(1)
            .arg(key(&self.config.prefix, tag))
            .arg(query);
    }

    pub(super) async fn ask_primary(
        &self,
        tag: &str,
        query: &[u8],
    ) -> Result<(Server, Packed), Failure> {
        match self.try_to_ask(tag, query).await {
            Err(_) if !self.servers.is_down(tag) => {}
            answer => return answer,
        }
        // Once more over a new connection: the old one may have been closed while nobody asked.
        let again = match self.servers.find().await {
            Ok(()) => self.try_to_ask(tag, query).await,
            Err(down) => Err(down.into()),
        };
        if let Err(Failure(reason)) = &again {
            let address = self.servers.address(tag);
            self.servers
                .give_up(address.as_ref(), &Down(reason.clone()));
        }
        again
    }

    async fn try_to_ask(&self, tag: &str, query: &[u8]) -> Result<(Server, Packed), Failure> {
        let server = self.servers.of(tag).await?;
        let mut pipeline = redis::pipe();
        self.add_script(&mut pipeline, &server, tag, query);
        let mut connection = server.connection.clone();
        self.figures.count_round_trip(1);
        let answer = send(&mut connection, &pipeline, self.config.command_timeout).await;
        let failure = match answer.map(|mut answers| answers.pop()) {
            Ok(Some(Value::BulkString(bytes))) => {
                let answer = Packed::parse(&bytes).map_err(|Malformed| malformed())?;
                return Ok((server, answer));
            }
            Ok(Some(Value::ServerError(error))) => {
                format!("{} {}", error.code(), error.details().unwrap_or_default())
            }
            Ok(other) => format!("a script answered {other:?}"),
            Err(reason) => reason.to_string(),
        };
        self.servers.disconnect(&server);
        Err(Failure(
            format!("redis {}: {failure}", server.address).into(),
        ))
    }
}
