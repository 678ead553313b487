//! Waiting for replicas, and what their number says.
//!
//! `min_replicas` are enough as long as no other is promoted. Whoever is promoted has left the primary before. So all that follow are waited for, and if fewer
//! acknowledge than before, the Sentinels are asked whether they still stand by this primary, and one of a Redis Cluster whether it hears the other primaries; only then is it accepted
//! (`docs/adr/0010-only-what-replicas-have.md`).

use std::sync::Arc;

use redis::{Pipeline, Value};

use super::{
    config::RedisConfig,
    health::replicas,
    replicated::Replicated,
    servers::{Server, Servers},
};

/// Adds to a pipeline that replicas are waited for until they have what it wrote: as many as followed the server until now.
pub fn wait(
    pipeline: &mut Pipeline,
    config: &RedisConfig,
    replicated: &Replicated,
    server: &Server,
) {
    let known = replicated.followers(&server.run);
    let followers = known.unwrap_or(server.replicas);
    // Some of the time for an answer is left for the way.
    let patience = config.command_timeout.as_millis() as u64 * 3 / 4;
    // Not WAITAOF: a server that syncs its file with every write answers after that anyway, and replicas tell only once a second how far they
    // have synced theirs.
    pipeline
        .cmd("WAIT")
        .arg(followers.max(config.min_replicas.into()))
        .arg(patience.max(1));
    if replicated.is_to_look(&server.run) {
        pipeline.cmd("INFO").arg("replication");
    }
}

/// Why what was written may be lost with the server, if so, by the answers to what [`wait`] added.
pub async fn shortage(
    servers: &Arc<Servers>,
    config: &RedisConfig,
    replicated: &Replicated,
    server: &Server,
    waited: &[Value],
) -> Option<Arc<str>> {
    let (address, wanted) = (&server.address, u32::from(config.min_replicas));
    let (count, looked) = match waited {
        [Value::Int(count)] => (*count, 0),
        [Value::Int(count), Value::BulkString(info)] => {
            (*count, replicas(&String::from_utf8_lossy(info)))
        }
        // It may be forbidden to ask for more.
        [Value::Int(count), _] => (*count, 0),
        other => return Some(format!("redis {address}: waiting for replicas: {other:?}").into()),
    };
    let count = u32::try_from(count).unwrap_or_default();
    if count < wanted {
        return Some(format!("redis {address}: {count} of {wanted} replicas have it").into());
    }
    let before = replicated.followers(&server.run);
    let is_fewer = before.is_none_or(|before| count < before);
    if is_fewer && !servers.sentinels_stand_by(server).await {
        return Some(
            format!("redis {address}: {count} replicas have it, and not all sentinels stand by it")
                .into(),
        );
    }
    let expected = before.unwrap_or(server.replicas);
    if count < expected && !servers.voters_answer(server).await {
        return Some(
            format!("redis {address}: {count} replicas have it, and it does not hear the other primaries")
                .into(),
        );
    }
    // Those that came back or are new are waited for from now on.
    let now = count.max(looked);
    if before != Some(now) && (is_fewer || before.is_none_or(|before| now > before)) {
        replicated.set_followers(&server.run, now);
    }
    None
}
