//! All metrics in Prometheus' text format.

use std::{
    fmt::{Display, Write},
    sync::{OnceLock, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use campanile_backends::redis;

use super::{Inner, cluster::Member, process::ProcessFigures, totals::totals};
use crate::net::{
    figures::{DriverFigures, Histogram},
    mailbox::Mailbox,
};
use campanile_broker::stats::Stats;

/// Buckets of HTTP requests in seconds: from a read in memory to a disk in trouble.
const HTTP_BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// Buckets of how late scheduled runs are, in seconds: from the rhythm of the scheduler over a change of leaders to an outage.
const LAG_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// What the HTTP API records through the `metrics` facade, whose recorder is one per process.
pub fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let name = Matcher::Full("campanile_http_request_seconds".to_owned());
        let webhook = Matcher::Full("campanile_webhook_request_seconds".to_owned());
        let lag = Matcher::Full("campanile_schedule_lag_seconds".to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(name, &HTTP_BUCKETS)
            .expect("there are buckets")
            .set_buckets_for_metric(webhook, &HTTP_BUCKETS)
            .expect("there are buckets")
            .set_buckets_for_metric(lag, &LAG_BUCKETS)
            .expect("there are buckets")
            .build_recorder();
        let handle = recorder.handle();
        // Whoever was first keeps it; then ours stays empty.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// The text of `/metrics`.
pub(super) fn render(node: &Inner) -> String {
    let totals = totals(&node.shared);
    let mut text = Text(recorder().render());
    text.node(node);
    text.clients(&totals.shard);
    text.messages(&totals.shard);
    text.sockets(node, &totals.driver);
    text.loops(node, &totals.driver);
    text.store(node, &totals.shard);
    if let Some(counts) = node.redis_figures.as_ref().map(|figures| figures.counts()) {
        text.redis(counts);
    }
    if let Some(member) = node.member.get() {
        text.cluster(member, &totals.shard);
    }
    text.process(node);
    text.0
}

struct Text(String);

/// One value of a metric: label pairs as in `a="b",c="d"`, or "".
type Sample<'a, T> = (&'a str, T);

impl Text {
    fn node(&mut self, node: &Inner) {
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        self.gauge(
            "campanile_info",
            "Version of the node.",
            [(version.as_str(), 1)],
        );
        let uptime = node.shared.clock.uptime().as_secs();
        self.gauge(
            "campanile_uptime_seconds",
            "Time since the node started.",
            [("", uptime)],
        );
        let shards = node.shared.mailboxes.len();
        self.gauge(
            "campanile_shards",
            "Threads that serve connections.",
            [("", shards)],
        );
    }

    fn clients(&mut self, shard: &Stats) {
        self.gauge(
            "campanile_clients_connected",
            "Clients with a session in service.",
            [("", shard.connections)],
        );
        self.gauge(
            "campanile_clients_durable_connected",
            "Clients in service whose session outlives the connection.",
            [("", shard.durable_sessions_live)],
        );
        self.counter(
            "campanile_client_connects_total",
            "CONNECT packets by result.",
            [
                ("result=\"accepted\"", shard.connects),
                ("result=\"refused\"", shard.connects_refused),
            ],
        );
        self.counter(
            "campanile_client_disconnects_total",
            "Ends of connections in service.",
            [("", shard.disconnects)],
        );
        self.counter(
            "campanile_client_ends_total",
            "Ends of connections by the node, by reason.",
            [
                ("reason=\"taken_over\"", shard.takeovers),
                ("reason=\"protocol_error\"", shard.protocol_errors),
                ("reason=\"keep_alive_timeout\"", shard.keep_alive_timeouts),
                ("reason=\"credentials_expired\"", shard.credentials_expired),
                ("reason=\"kicked\"", shard.kicked),
            ],
        );
        self.gauge(
            "campanile_subscriptions",
            "Subscriptions of all sessions.",
            [("", shard.subscriptions)],
        );
        self.gauge(
            "campanile_subscription_filters",
            "Different topic filters, counted once per shard.",
            [("", shard.subscriptions_filters)],
        );
    }

    fn messages(&mut self, shard: &Stats) {
        let directions = [
            ("in", &shard.publishes_in, &shard.publish_bytes_in),
            ("out", &shard.publishes_out, &shard.publish_bytes_out),
        ];
        let (mut packets, mut bytes) = (Vec::new(), Vec::new());
        for (direction, counts, sizes) in directions {
            for qos in 0..3 {
                let labels = format!("direction=\"{direction}\",qos=\"{qos}\"");
                packets.push((labels.clone(), counts[qos]));
                bytes.push((labels, sizes[qos]));
            }
        }
        self.counter(
            "campanile_publishes_total",
            "PUBLISH packets.",
            packets
                .iter()
                .map(|(labels, value)| (labels.as_str(), *value)),
        );
        self.counter(
            "campanile_publish_bytes_total",
            "Payload bytes of PUBLISH packets.",
            bytes
                .iter()
                .map(|(labels, value)| (labels.as_str(), *value)),
        );
        self.counter(
            "campanile_packets_total",
            "MQTT packets.",
            [
                ("direction=\"in\"", shard.packets_in),
                ("direction=\"out\"", shard.packets_out),
            ],
        );
        self.counter(
            "campanile_messages_dropped_total",
            "Messages that a client should have got and did not, by reason.",
            [
                ("reason=\"queue_full\"", shard.dropped_queue_full),
                ("reason=\"expired\"", shard.dropped_expired),
                ("reason=\"too_large\"", shard.dropped_too_large),
                ("reason=\"gap\"", shard.dropped_gap),
            ],
        );
        self.counter(
            "campanile_messages_unrouted_total",
            "Messages without any receiver.",
            [("", shard.unrouted)],
        );
        self.counter(
            "campanile_pushes_acknowledged_total",
            "Deliveries of pushes that their device has acknowledged.",
            [("", shard.pushes_acknowledged)],
        );
        self.counter(
            "campanile_wills_published_total",
            "Wills published.",
            [("", shard.wills_published)],
        );
        self.gauge(
            "campanile_retained_messages",
            "Retained messages.",
            [("", shard.retained_messages)],
        );
        self.gauge(
            "campanile_queued_messages",
            "Messages that wait in memory for slow clients.",
            [("", shard.queued_messages)],
        );
        self.gauge(
            "campanile_queued_bytes",
            "Bytes of messages that wait in memory for slow clients.",
            [("", shard.queued_bytes)],
        );
        self.gauge(
            "campanile_inflight_messages",
            "QoS 1 and 2 messages under way to clients.",
            [("", shard.inflight)],
        );
    }

    fn sockets(&mut self, node: &Inner, driver: &DriverFigures) {
        let listeners = node.shared.listeners.iter().enumerate();
        let labelled: Vec<(String, usize, u64)> = listeners
            .map(|(index, listener)| {
                let accepted = driver.accepted.get(index).copied().unwrap_or_default();
                let labels = format!("listener=\"{}\"", listener.name);
                (labels, listener.connections(), accepted)
            })
            .collect();
        self.gauge(
            "campanile_sockets",
            "Open sockets of clients; more than clients, by those that have not sent a CONNECT yet or are closing.",
            labelled.iter().map(|(labels, open, _)| (labels.as_str(), *open)),
        );
        self.counter(
            "campanile_accepts_total",
            "Sockets accepted.",
            labelled
                .iter()
                .map(|(labels, _, accepted)| (labels.as_str(), *accepted)),
        );
        self.gauge(
            "campanile_sockets_closing",
            "Sockets that wait for their client to close.",
            [("", driver.sockets_closing)],
        );
        self.counter(
            "campanile_accept_failures_total",
            "Sockets that were not served, by reason.",
            [
                ("reason=\"limit\"", driver.accepts_refused),
                ("reason=\"error\"", driver.accept_errors),
            ],
        );
        self.counter(
            "campanile_accepts_delayed_total",
            "Turns in which accepting waited for its budget.",
            [("", driver.accepts_delayed)],
        );
        self.counter(
            "campanile_handovers_total",
            "Connections that moved to the shard of their client.",
            [("", driver.handovers)],
        );
        self.counter(
            "campanile_socket_bytes_total",
            "Bytes on sockets of clients.",
            [
                ("direction=\"in\"", driver.bytes_in),
                ("direction=\"out\"", driver.bytes_out),
            ],
        );
        self.counter(
            "campanile_socket_calls_total",
            "System calls on sockets of clients.",
            [
                ("call=\"read\"", driver.reads),
                ("call=\"write\"", driver.writes),
            ],
        );
        self.counter(
            "campanile_writes_blocked_total",
            "Writes of which the kernel did not take all.",
            [("", driver.writes_blocked)],
        );
        self.counter(
            "campanile_output_overflows_total",
            "Connections closed because their client did not read.",
            [("", driver.output_overflows)],
        );
        self.counter(
            "campanile_tls_handshakes_total",
            "TLS handshakes done.",
            [("", driver.tls_handshakes)],
        );
        self.counter(
            "campanile_tls_errors_total",
            "TLS connections ended by an error.",
            [("", driver.tls_errors)],
        );
        self.counter(
            "campanile_websocket_upgrades_total",
            "WebSockets opened.",
            [("", driver.websocket_upgrades)],
        );
        self.counter(
            "campanile_websocket_errors_total",
            "WebSocket requests refused and WebSockets ended by an error.",
            [("", driver.websocket_errors)],
        );
    }

    fn loops(&mut self, node: &Inner, driver: &DriverFigures) {
        let mailboxes = node.shared.mailboxes.iter();
        let letters: usize = mailboxes.map(Mailbox::waiting).sum();
        self.histogram(
            "campanile_loop_turn_seconds",
            "Work of a shard's loop turn, waiting excluded.",
            &driver.turns,
        );
        self.gauge(
            "campanile_mailbox_letters",
            "Letters that wait in mailboxes of shards.",
            [("", letters)],
        );
        self.counter(
            "campanile_loop_congested_turns_total",
            "Turns without reading, since some mailbox was too full.",
            [("", driver.congested_turns)],
        );
    }

    fn store(&mut self, node: &Inner, shard: &Stats) {
        let figures = node
            .store_figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.histogram(
            "campanile_store_commit_seconds",
            "Time of a commit.",
            &figures.commits,
        );
        self.histogram(
            "campanile_store_wait_seconds",
            "How long the oldest request of a commit had waited.",
            &figures.waits,
        );
        self.counter(
            "campanile_store_requests_total",
            "Requests committed.",
            [("", figures.requests)],
        );
        self.counter(
            "campanile_store_records_total",
            "Records written or removed.",
            [("", figures.records)],
        );
        self.counter(
            "campanile_store_requests_failed_total",
            "Requests that the store could not carry out.",
            [("", figures.requests_failed)],
        );
        self.counter(
            "campanile_inbox_dropped_total",
            "Messages that the quota of a device's inbox dropped.",
            [("", figures.inbox_dropped)],
        );
        self.gauge(
            "campanile_store_available",
            "Whether the last write succeeded.",
            [("", u8::from(figures.failing.is_none()))],
        );
        self.gauge(
            "campanile_store_queued_requests",
            "Requests that wait for the store, by kind.",
            [
                ("kind=\"write\"", node.store.queued()),
                ("kind=\"read\"", node.reads.queued()),
            ],
        );
        self.gauge(
            "campanile_store_pending_requests",
            "Requests of shards that the store has not answered.",
            [("", shard.pending_requests)],
        );
        self.counter(
            "campanile_store_refused_total",
            "Requests of clients refused because the store was unavailable or too far behind.",
            [("", shard.refused_store)],
        );
    }

    fn redis(&mut self, counts: redis::Counts) {
        self.counter(
            "campanile_redis_round_trips_total",
            "Pipelines sent to Redis.",
            [("", counts.round_trips)],
        );
        self.counter(
            "campanile_redis_scripts_total",
            "Scripts run, each a part of a commit.",
            [("", counts.scripts)],
        );
        self.counter(
            "campanile_redis_retries_total",
            "Scripts that were sent again since their answer was lost.",
            [("", counts.retries)],
        );
        self.counter(
            "campanile_redis_unknown_total",
            "Requests of which it is not known whether they were carried out.",
            [("", counts.unknown)],
        );
        self.counter(
            "campanile_redis_reconnects_total",
            "Connections made after the first of each server.",
            [("", counts.reconnects)],
        );
    }

    fn cluster(&mut self, member: &Member, shard: &Stats) {
        let membership = member.zookeeper.membership();
        self.gauge(
            "campanile_cluster_nodes",
            "Nodes that are registered, as this one knows it.",
            [("", membership.nodes.len())],
        );
        self.gauge(
            "campanile_cluster_reachable",
            "Whether the ZooKeeper ensemble answers.",
            [("", u8::from(membership.reachable))],
        );
        self.gauge(
            "campanile_cluster_linked",
            "Other nodes whose link is up.",
            [("", member.figures.linked().len())],
        );
        let links = member.links.figures().total;
        self.counter(
            "campanile_link_messages_total",
            "Messages of links by direction.",
            [
                ("direction=\"in\"", links.messages_in),
                ("direction=\"out\"", links.messages_out),
            ],
        );
        self.counter(
            "campanile_link_bytes_total",
            "Bytes of links by direction, without TLS.",
            [
                ("direction=\"in\"", links.bytes_in),
                ("direction=\"out\"", links.bytes_out),
            ],
        );
        self.counter(
            "campanile_link_dropped_total",
            "Messages for live subscribers at other nodes for which a link had no room.",
            [("", links.messages_dropped)],
        );
        self.counter(
            "campanile_link_ends_total",
            "Links that ended; resets are those that ended since they could not keep up.",
            [
                ("kind=\"reset\"", links.resets),
                ("kind=\"other\"", links.downs.saturating_sub(links.resets)),
            ],
        );
        let hub = member.figures.stats();
        self.counter(
            "campanile_cluster_takeovers_total",
            "Clients that were taken over from other nodes, by whether that node let go in time.",
            [
                (
                    "released=\"yes\"",
                    hub.taken_over.saturating_sub(hub.taken_over_alone),
                ),
                ("released=\"no\"", hub.taken_over_alone),
            ],
        );
        self.counter(
            "campanile_cluster_entries_read_total",
            "Entries that were read from the store since no node had announced them in time.",
            [("", hub.entries_read)],
        );
        self.counter(
            "campanile_cluster_logs_went_back_total",
            "Times that the store had lost the end of a log.",
            [("", hub.logs_went_back)],
        );
        self.counter(
            "campanile_cluster_reloads_total",
            "Times that what an app's nodes route by was read anew.",
            [("", hub.reloads)],
        );
        self.counter(
            "campanile_cluster_lease_waits_total",
            "Answers that waited for a node that is not linked.",
            [("", hub.lease_waits)],
        );
        self.counter(
            "campanile_cluster_voids_total",
            "Requests that put connections of dead nodes in order.",
            [("", hub.voids)],
        );
        self.counter(
            "campanile_shared_redelivered_total",
            "Messages of shared subscriptions that went to another member since a node was lost, and those that were sent without being kept for that.",
            [
                ("kind=\"redelivered\"", hub.redelivered),
                ("kind=\"not_kept\"", hub.not_kept),
            ],
        );
        self.counter(
            "campanile_clients_moved_total",
            "Clients that were sent to another node to relieve this one.",
            [("", shard.moved)],
        );
    }

    fn process(&mut self, node: &Inner) {
        let process = ProcessFigures::read();
        if let Some(bytes) = process.resident_bytes {
            let name = "process_resident_memory_bytes";
            self.gauge(name, "Resident memory size in bytes.", [("", bytes)]);
        }
        if let Some(files) = process.open_files {
            let name = "process_open_fds";
            self.gauge(name, "Number of open file descriptors.", [("", files)]);
        }
        if let Some(files) = process.max_files {
            let name = "process_max_fds";
            self.gauge(
                name,
                "Most file descriptors that may be open.",
                [("", files)],
            );
        }
        if let Some(seconds) = process.cpu_seconds {
            let name = "process_cpu_seconds_total";
            let help = "Total user and system CPU time spent in seconds.";
            self.counter(name, help, [("", seconds)]);
        }
        let started = node.shared.clock.started().as_secs_f64();
        self.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            [("", started)],
        );
    }

    fn counter<'a, T: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a, T>>,
    ) {
        self.metric(name, help, "counter", samples);
    }

    fn gauge<'a, T: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a, T>>,
    ) {
        self.metric(name, help, "gauge", samples);
    }

    fn metric<'a, T: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        samples: impl IntoIterator<Item = Sample<'a, T>>,
    ) {
        self.head(name, help, kind);
        for (labels, value) in samples {
            self.sample(name, labels, value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            self.sample(&bucket, &format!("le=\"{bound}\""), count);
        }
        self.sample(&bucket, "le=\"+Inf\"", histogram.count());
        let sum = Duration::as_secs_f64(&histogram.sum());
        self.sample(&format!("{name}_sum"), "", sum);
        self.sample(&format!("{name}_count"), "", histogram.count());
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("a String takes everything");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let written = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
        written.expect("a String takes everything");
    }
}
