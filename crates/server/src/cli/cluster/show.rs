//! What `campanile cluster` prints for people.

use std::{fmt::Write, time::Duration};

use campanile_api::cluster::{DrainOrder, Located, NodeStatus, Overview};
use campanile_push::app::AppName;

use crate::config::show_duration;

/// Nodes as a table, and what is not as it should be.
pub fn status(overview: &Overview, now_ms: u64) -> String {
    let mut text = if overview.member {
        let count = overview.nodes.len();
        let plural = if count == 1 { "node" } else { "nodes" };
        format!("cluster {:?}, {count} {plural}\n\n", overview.cluster)
    } else {
        "this node is alone: it is not a member of a cluster\n\n".to_owned()
    };
    let head = [
        "NODE",
        "DEVICES",
        "FULL",
        "STATE",
        "LINK",
        "UP",
        "VERSION",
        "ADDRESSES",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(overview.nodes.iter().map(|node| row(node, now_ms)));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let is_number = matches!(column, 1 | 2);
            let _ = if is_number {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    if overview.member && !overview.membership_reachable {
        text.push_str(
            "ZooKeeper does not answer: this is what was last known; all goes on, but no node can join and no order can be given\n",
        );
    }
    match &overview.store_failing {
        Some(reason) => {
            let _ = writeln!(text, "the store refuses writes: {reason}");
        }
        None => text.push_str("the store answers\n"),
    }
    text
}

fn row(node: &NodeStatus, now_ms: u64) -> [String; 8] {
    let up = Duration::from_millis(now_ms.saturating_sub(node.started_ms));
    [
        format!("{}{}", node.name, if node.this { " (this)" } else { "" }),
        node.connections.to_string(),
        full(node),
        state(node, now_ms),
        match node.linked {
            None => "-",
            Some(true) => "up",
            Some(false) => "DOWN",
        }
        .to_owned(),
        about(up),
        node.version.clone(),
        node.addresses.join(" "),
    ]
}

fn full(node: &NodeStatus) -> String {
    if node.capacity == 0 {
        return "-".to_owned();
    }
    let percent = u128::from(node.connections) * 100 / u128::from(node.capacity);
    format!("{percent} %")
}

fn state(node: &NodeStatus, now_ms: u64) -> String {
    let mut words = Vec::new();
    if node.draining {
        words.push(match node.drain {
            Some(order) => drain(order, now_ms),
            None => "draining".to_owned(),
        });
    }
    if node.leader {
        words.push("leads".to_owned());
    }
    if words.is_empty() {
        words.push("serves".to_owned());
    }
    words.join(", ")
}

fn drain(order: DrainOrder, now_ms: u64) -> String {
    let mut text = "draining".to_owned();
    if let Some(rate) = order.rate {
        let _ = write!(text, " {rate}/s");
    }
    if let Some(deadline_ms) = order.deadline_ms {
        let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms));
        let _ = write!(text, ", {} left", about(left));
    }
    text
}

/// A duration in its largest unit, rounded down.
fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..60 => 1,
        60..3600 => 60,
        3600..86_400 => 3600,
        _ => 86_400,
    };
    show_duration(Duration::from_secs(seconds / unit * unit))
}

/// Where a client is.
pub fn located(app: &AppName, client: &str, located: &Located) -> String {
    let mut text = match &located.connection {
        Some(connection) => {
            let version = match connection.protocol_level {
                3 => "3.1",
                4 => "3.1.1",
                _ => "5.0",
            };
            format!(
                "{app}/{client} is connected to {}: MQTT {version}, epoch {}, {} subscriptions, {} messages in flight",
                connection.node, connection.epoch, connection.subscriptions, connection.in_flight
            )
        }
        None if located.silent.is_empty() => format!("{app}/{client} is not connected"),
        None => format!("{app}/{client} is not connected to a node that answered"),
    };
    if !located.silent.is_empty() {
        let _ = write!(text, "\nno answer from: {}", located.silent.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use campanile_api::cluster::ClientConnection;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn node(name: &str, connections: u64) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            this: false,
            generation: Some("2a".to_owned()),
            version: "0.1.0".to_owned(),
            started_ms: NOW_MS - 7_300_000,
            addresses: vec![format!("mqtt://{name}:1883")],
            http: String::new(),
            connections,
            capacity: 1000,
            draining: false,
            drain: None,
            leader: false,
            linked: Some(true),
        }
    }

    #[test]
    fn nodes_are_a_table_with_what_is_wrong_below() {
        let overview = Overview {
            cluster: "push".to_owned(),
            member: true,
            membership_reachable: false,
            store_failing: None,
            nodes: vec![
                NodeStatus {
                    this: true,
                    linked: None,
                    leader: true,
                    ..node("push-1", 120)
                },
                NodeStatus {
                    draining: true,
                    drain: Some(DrainOrder {
                        rate: Some(200),
                        deadline_ms: Some(NOW_MS + 600_000),
                    }),
                    linked: Some(false),
                    ..node("push-2", 7)
                },
            ],
        };
        let expected = "\
cluster \"push\", 2 nodes

NODE           DEVICES  FULL  STATE                     LINK  UP  VERSION  ADDRESSES
push-1 (this)      120  12 %  leads                     -     2h  0.1.0    mqtt://push-1:1883
push-2               7   0 %  draining 200/s, 10m left  DOWN  2h  0.1.0    mqtt://push-2:1883

ZooKeeper does not answer: this is what was last known; all goes on, but no node can join and no order can be given
the store answers
";
        assert_eq!(status(&overview, NOW_MS), expected);
    }

    #[test]
    fn a_node_alone_says_so() {
        let overview = Overview {
            cluster: String::new(),
            member: false,
            membership_reachable: true,
            store_failing: Some("the disk is full".to_owned()),
            nodes: vec![node("push-1", 1)],
        };
        let text = status(&overview, NOW_MS);
        assert!(text.starts_with("this node is alone"), "{text}");
        assert!(text.ends_with("the store refuses writes: the disk is full\n"));
    }

    #[test]
    fn who_did_not_answer_is_named() {
        let shop = AppName::new("shop").unwrap();
        let mut answer = Located {
            connection: None,
            silent: vec!["push-2".to_owned()],
        };
        assert_eq!(
            located(&shop, "d1", &answer),
            "shop/d1 is not connected to a node that answered\nno answer from: push-2"
        );
        answer.silent.clear();
        assert_eq!(located(&shop, "d1", &answer), "shop/d1 is not connected");
        answer.connection = Some(ClientConnection {
            node: "push-1".to_owned(),
            epoch: 7,
            protocol_level: 4,
            subscriptions: 2,
            ..ClientConnection::default()
        });
        assert!(located(&shop, "d1", &answer).contains("connected to push-1: MQTT 3.1.1, epoch 7"));
    }
}
