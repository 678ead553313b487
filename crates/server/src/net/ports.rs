//! What a driver drives, and whom it asks for what it cannot do itself.

use campanile_broker::{
    access::{AuthRequest, Verdict},
    effects::{Effects, Origin, Progress, Statement, Ticket},
    ids::{ConnId, Millis, ShardId},
    mail::Mail,
    outbox::Outbox,
    shard::Shard,
    stats::Stats,
    store::{Command, Outcome, Page, Query, StoreError},
};

/// A [`Shard`], or a test's stand-in. See there for what the methods mean.
#[allow(missing_docs)]
pub trait Machine {
    fn on_accept(&mut self, conn: ConnId, origin: &Origin, now: Millis);
    fn on_bytes(&mut self, conn: ConnId, input: &[u8], now: Millis) -> Progress;
    fn on_closed(&mut self, conn: ConnId, now: Millis);
    fn on_blocked(&mut self, conn: ConnId, pending_bytes: usize);
    fn on_writable(&mut self, conn: ConnId, now: Millis);
    fn on_mail(&mut self, mail: Mail, now: Millis);
    fn on_outcome(&mut self, ticket: Ticket, outcome: Result<Outcome, StoreError>, now: Millis);
    fn on_page(&mut self, ticket: Ticket, page: Result<Page, StoreError>, now: Millis);
    fn on_verdict(&mut self, conn: ConnId, verdict: Verdict, now: Millis);
    fn on_tick(&mut self, now: Millis);
    fn next_deadline(&self) -> Option<Millis>;
    fn effects(&mut self) -> &mut Effects;
    fn outbox(&mut self) -> &mut Outbox;
    fn stats(&self) -> Stats;
    fn stop(&mut self, now: Millis);
    fn pending_requests(&self) -> usize;
}

/// The rest of the node, as a driver needs it. Answers come through the mailbox. None of this may block.
pub trait Services {
    /// Writes, in order.
    fn commands(&mut self, commands: Vec<(Ticket, Command)>);
    /// Reads.
    fn queries(&mut self, queries: Vec<(Ticket, Query)>);
    /// Mail to the node's hub, and to peers that stand among the shards.
    fn cluster_mail(&mut self, mail: Vec<(ShardId, Mail)>);
    /// What devices say of themselves.
    fn statements(&mut self, statements: Vec<(Ticket, Box<Statement>)>);
    /// Credentials to be judged.
    fn authenticate(&mut self, requests: Vec<(ConnId, Box<AuthRequest>)>);
}

impl Machine for Shard {
    fn on_accept(&mut self, conn: ConnId, origin: &Origin, now: Millis) {
        self.on_accept(conn, origin, now);
    }

    fn on_bytes(&mut self, conn: ConnId, input: &[u8], now: Millis) -> Progress {
        self.on_bytes(conn, input, now)
    }

    fn on_closed(&mut self, conn: ConnId, now: Millis) {
        self.on_closed(conn, now);
    }

    fn on_blocked(&mut self, conn: ConnId, pending_bytes: usize) {
        self.on_blocked(conn, pending_bytes);
    }

    fn on_writable(&mut self, conn: ConnId, now: Millis) {
        self.on_writable(conn, now);
    }

    fn on_mail(&mut self, mail: Mail, now: Millis) {
        self.on_mail(mail, now);
    }

    fn on_outcome(&mut self, ticket: Ticket, outcome: Result<Outcome, StoreError>, now: Millis) {
        self.on_outcome(ticket, outcome, now);
    }

    fn on_page(&mut self, ticket: Ticket, page: Result<Page, StoreError>, now: Millis) {
        self.on_page(ticket, page, now);
    }

    fn on_verdict(&mut self, conn: ConnId, verdict: Verdict, now: Millis) {
        self.on_verdict(conn, verdict, now);
    }

    fn on_tick(&mut self, now: Millis) {
        self.on_tick(now);
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.next_deadline()
    }

    fn effects(&mut self) -> &mut Effects {
        self.effects()
    }

    fn outbox(&mut self) -> &mut Outbox {
        self.outbox()
    }

    fn stats(&self) -> Stats {
        self.stats()
    }

    fn stop(&mut self, now: Millis) {
        self.stop(now);
    }

    fn pending_requests(&self) -> usize {
        self.pending_requests()
    }
}
