//! Reads of what lasts: a page is passed on only once replicas have all that it tells of.
//!
//! A primary that was cut off goes on answering, and what it takes then is lost with it. Whoever has read of it delivers what nobody accepted, and goes on
//! reading behind it, past what the next primary accepts meanwhile (`docs/adr/0010-only-what-replicas-have.md`).

use campanile_broker::store::{Page, Query, StoreError};
use redis::Value;

use super::{
    pack::{Malformed, Pack, Packed},
    reader::{Failure, RedisReader, malformed, pack_query, page},
    reply,
    servers::{Server, send},
    waiting::{shortage, wait},
};
use crate::lasting::up_to;

impl crate::Reader for RedisReader {
    fn read(&self, query: &Query) -> Result<Page, StoreError> {
        let mut pack = Pack::default();
        let tag = pack_query(&mut pack, query, self.partitions);
        let packed = pack.into_bytes();
        self.runtime.block_on(async {
            let (server, page) = self.read_once(tag, &packed, query).await?;
            match self.replicated_part(tag, &server, query, page).await {
                Ok(page) => return Ok(page),
                Err(failure) => {
                    tracing::debug!(reason = %failure.0, "what was read is not passed on");
                    // It may have been replaced, and not know it.
                    self.servers.find().await.map_err(Failure::from)?;
                    if self.servers.of(tag).await.map_err(Failure::from)?.run == server.run {
                        return Err(failure.into());
                    }
                }
            }
            let (server, page) = self.read_once(tag, &packed, query).await?;
            Ok(self.replicated_part(tag, &server, query, page).await?)
        })
    }
}

impl RedisReader {
    async fn read_once(
        &self,
        tag: &str,
        packed: &[u8],
        query: &Query,
    ) -> Result<(Server, Page), Failure> {
        let (server, answer) = self.ask_primary(tag, packed).await?;
        let page = page(query, answer).map_err(|Malformed| malformed())?;
        Ok((server, page))
    }

    /// What of a page will outlive the server that it was read from: all of it, if replicas can be waited for.
    async fn replicated_part(
        &self,
        tag: &str,
        server: &Server,
        query: &Query,
        mut page: Page,
    ) -> Result<Page, Failure> {
        if !self.config.waits() {
            return Ok(page);
        }
        if let Some(place) = self.replicated.place(tag, &server.run) {
            match up_to(place, query, page) {
                Ok(page) => return Ok(page),
                Err(whole) => page = whole,
            }
        }
        self.wait_for_replicas(tag, server).await?;
        Ok(page)
    }

    /// Waits until replicas have all that a server holds of a tag now.
    async fn wait_for_replicas(&self, tag: &str, read: &Server) -> Result<(), Failure> {
        let asked = self.replicated.moment();
        let known = self.marking.of(tag).await;
        let server = match known.ok().filter(|server| server.run == read.run) {
            Some(server) => server,
            None => {
                self.marking.find().await?;
                self.marking.of(tag).await?
            }
        };
        if server.run != read.run {
            // One of the two is from before the primary was replaced, and goes on answering: only new connections can agree on who it is now.
            self.marking.disconnect(&server);
            self.servers.disconnect(read);
            let reason = format!(
                "redis {}: is not the primary any more, or {} is not yet",
                read.address, server.address
            );
            return Err(Failure(reason.into()));
        }
        let mut query = Pack::default();
        query.array(1).text("mark");
        let mut pipeline = redis::pipe();
        self.add_script(&mut pipeline, &server, tag, &query.into_bytes());
        wait(&mut pipeline, &self.config, &self.replicated, &server);
        self.figures.count_round_trip(1);
        let timeout = self.config.command_timeout;
        let answers = send(&mut server.connection.clone(), &pipeline, timeout).await;
        let failure = match answers.as_deref() {
            Ok([Value::BulkString(place), waited @ ..]) => {
                let (marking, config) = (&self.marking, &self.config);
                let too_few = shortage(marking, config, &self.replicated, &server, waited).await;
                let Some(reason) = too_few else {
                    let place = Packed::parse(place).and_then(reply::offset);
                    let place = place.map_err(|Malformed| malformed())?;
                    self.replicated.note(&tag.into(), &server.run, place, asked);
                    return Ok(());
                };
                // Over this connection it can be asked again.
                return Err(Failure(reason));
            }
            Ok(other) => format!("waiting for replicas: {other:?}"),
            Err(reason) => reason.to_string(),
        };
        // It may be a replica by now, of which a connection that was made before says nothing.
        self.marking.disconnect(&server);
        self.servers.disconnect(read);
        let reason = format!("redis {}: {failure}", server.address);
        Err(Failure(reason.into()))
    }
}
