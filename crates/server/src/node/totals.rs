//! Figures of all shards together.

use std::sync::PoisonError;

use campanile_broker::stats::Stats;

use crate::net::{
    driver::Shared,
    figures::{DriverFigures, Figures},
};

/// Adds up what the shards last published.
pub fn totals(shared: &Shared) -> Figures {
    let mut total = Figures::default();
    for figures in &shared.figures {
        let figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        add_shard(&mut total.shard, &figures.shard);
        add_driver(&mut total.driver, &figures.driver);
    }
    total
}

/// Adds fields; a field that is forgotten does not compile.
macro_rules! add {
    ($type:ident, $total:ident, $one:ident, $($field:ident),+; $($rest:ident => $add:expr),*) => {
        let $type { $($field,)+ $($rest,)* } = $one;
        $($total.$field += $field;)+
        $($add(&mut $total.$rest, $rest);)*
    };
}

fn add_shard(total: &mut Stats, one: &Stats) {
    let each = |total: &mut [u64; 3], one: &[u64; 3]| {
        total.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
    };
    add!(Stats, total, one,
        connections, durable_sessions_live, subscriptions, subscriptions_filters, queued_messages, queued_bytes,
        inflight, pending_requests, connects, connects_refused, takeovers, moved, disconnects, protocol_errors, keep_alive_timeouts, credentials_expired, kicked,
        packets_in, packets_out, pushes_acknowledged, wills_published, dropped_queue_full, dropped_expired,
        dropped_too_large, dropped_gap, unrouted, refused_store;
        publishes_in => each,
        publishes_out => each,
        publish_bytes_in => each,
        publish_bytes_out => each,
        // Every shard has all of them.
        retained_messages => |total: &mut u64, one: &u64| *total = (*total).max(*one)
    );
}

fn add_driver(total: &mut DriverFigures, one: &DriverFigures) {
    add!(DriverFigures, total, one,
        sockets_open, sockets_closing, accept_errors, accepts_refused, accepts_delayed, handovers,
        bytes_in, bytes_out, reads, writes, writes_blocked, output_overflows, congested_turns, tls_handshakes, tls_errors,
        websocket_upgrades, websocket_errors;
        accepted => |total: &mut Vec<u64>, one: &Vec<u64>| {
            total.resize(one.len().max(total.len()), 0);
            total.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        },
        turns => |total: &mut crate::net::figures::Histogram, one| total.add(one)
    );
}
