//! The task that takes what devices say of themselves, and answers their shards (`campanile_api::registrar`).

use std::sync::Arc;

use campanile_api::{
    ApiState,
    registrar::{self, Answer, Said},
};
use campanile_broker::{
    effects::{Content, Statement, Ticket},
    ids::{Offset, ShardId},
    store::{Outcome, StoreError},
};
use campanile_push::app::AppName;
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, mpsc},
};

use super::store::too_busy;
use crate::net::{driver::Shared, mailbox::Letter};

/// Statements that wait. Above it devices are asked to come again, as when the store is behind.
const QUEUE: usize = 16_384;
/// Statements that are worked on at a time: each waits for a commit, and one commit carries many.
const CONCURRENT: usize = 256;

type Job = (ShardId, Ticket, Box<Statement>);

/// The way to the task. It ends when all copies of it are gone.
#[derive(Clone)]
pub(super) struct Registrar {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

impl Registrar {
    /// Starts the task.
    pub(super) fn start(runtime: &Runtime, state: ApiState, shared: Arc<Shared>) -> Registrar {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        let shards = shared.clone();
        runtime.spawn(async move {
            while let Some((shard, ticket, statement)) = queue.recv().await {
                let permit = permits.clone().acquire_owned().await;
                let (state, shards) = (state.clone(), shards.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    let outcome = take(&state, *statement).await;
                    shards.mailboxes[shard.0 as usize].post(Letter::Outcome(ticket, outcome));
                });
            }
        });
        Registrar { jobs, shared }
    }

    /// Takes what a shard's devices say.
    pub(super) fn post(&self, shard: ShardId, statements: Vec<(Ticket, Box<Statement>)>) {
        for (ticket, statement) in statements {
            if self.jobs.try_send((shard, ticket, statement)).is_err() {
                let busy = Letter::Outcome(ticket, Err(too_busy()));
                self.shared.mailboxes[shard.0 as usize].post(busy);
            }
        }
    }
}

async fn take(state: &ApiState, statement: Statement) -> Result<Outcome, StoreError> {
    let Ok(app) = AppName::new(statement.client.app.as_str()) else {
        return Ok(Outcome::Nothing);
    };
    let said = match statement.content {
        Content::Connected { profile } => {
            let device = statement.identity.filter(|device| device.binds_user);
            let user = device.and_then(|device| device.user.clone());
            Said::Connected { profile, user }
        }
        Content::Registration(message) => Said::Registration(message),
        Content::Sync(message) => Said::Sync(message),
    };
    match registrar::take(state, &app, &statement.client.client_id, said).await {
        Answer::Done => Ok(Outcome::Done),
        Answer::Told(text) => Ok(Outcome::Told(text.into())),
        Answer::Sync(after) => Ok(Outcome::Sync(after.map(Offset))),
        Answer::Unavailable(why) => Err(StoreError::Unavailable(why.into())),
    }
}
