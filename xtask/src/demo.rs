//! A cluster on this machine: three nodes over three ZooKeeper servers and a Redis that is replicated. One node dies, nothing is lost.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use campanile_mqtt::Version;
use campanile_testbed::{
    conversation::{Conversation, kept},
    network::Place,
    nodes::{ClusterOptions, Nodes, Store},
    redis::{RedisOptions, Replicated},
    zookeeper::Ensemble,
};

const DEVICES: usize = 6;
const PUSHES: usize = 20;
/// The node that dies.
const VICTIM: usize = 1;
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays it.
pub fn run(binary: PathBuf) -> anyhow::Result<()> {
    println!("Starting 3 ZooKeeper servers ...");
    let ensemble = Ensemble::start(3)?;
    println!("Starting a Redis primary, a replica and 3 Sentinels ...");
    let redis = Replicated::start(1, &RedisOptions::default())?;
    println!("Starting 3 nodes ...");
    let mut nodes = Nodes::start(&ClusterOptions {
        binary,
        nodes: vec![Place::default(); 3],
        zookeeper: ensemble.addresses(),
        chroot: "/demo".to_owned(),
        store: Store {
            mode: "sentinel",
            addresses: redis.sentinel_addresses(),
            master_name: Replicated::NAME.to_owned(),
            prefix: "demo:".to_owned(),
            replicas: 1,
        },
        session_timeout: Duration::from_secs(2),
        cluster_settings: String::new(),
        settings: String::new(),
    })?;
    println!(
        "\n$ campanile cluster status\n{}",
        nodes.node(0).operate(&["status"])?
    );

    let places = nodes.addresses();
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let name = format!("phone-{}", number + 1);
        let node = number % places.len();
        let mut device = Conversation::new(kept(&name, Version::V5));
        device.connect(places[node].mqtt, false)?;
        println!("{name} is connected to node-{}", node + 1);
        devices.push(Device {
            name,
            node,
            conversation: device,
            got: Vec::new(),
        });
    }

    println!(
        "\nPushing {PUSHES} messages to everybody through node-1; node-{} is killed half way:",
        VICTIM + 1
    );
    for number in 0..PUSHES {
        let body = format!(r#"{{"audience": {{"all": true}}, "data": {{"n": {number}}}}}"#);
        let answer = nodes
            .node(0)
            .ask(&["POST /v1/apps/default/pushes"], &body)?;
        ensure!(answer.status == 202, "the push was answered {answer:?}");
        devices.iter_mut().for_each(Device::listen);
        if number == PUSHES / 2 {
            nodes.node(VICTIM).kill();
            println!(
                "  push {number} accepted, then: kill -9 node-{}",
                VICTIM + 1
            );
        }
    }
    println!("  all {PUSHES} accepted");

    let began = Instant::now();
    while devices.iter().any(|device| device.missing() > 0) {
        ensure!(began.elapsed() < PATIENCE, "pushes are missing");
        for device in &mut devices {
            device.come_back(&places)?;
            device.listen();
        }
    }
    println!("\nWhat the devices got:");
    for device in &devices {
        let Device {
            name, node, got, ..
        } = device;
        println!(
            "  {name} at node-{}: {} pushes, {} of them twice",
            node + 1,
            PUSHES,
            got.len() - PUSHES
        );
    }
    println!(
        "\nEverything that was accepted has arrived. Starting node-{} again ...",
        VICTIM + 1
    );
    nodes.node(VICTIM).start()?;
    nodes.wait_together()?;
    println!(
        "\n$ campanile cluster status\n{}",
        nodes.node(0).operate(&["status"])?
    );
    println!("Stopping everything.");
    Ok(())
}

struct Device {
    name: String,
    node: usize,
    conversation: Conversation,
    got: Vec<u64>,
}

impl Device {
    /// Takes what has come.
    fn listen(&mut self) {
        while let Some(message) = self.conversation.message(Duration::from_millis(5)) {
            let push: serde_json::Value =
                serde_json::from_slice(&message.payload).unwrap_or_default();
            self.got.extend(push["data"]["n"].as_u64());
        }
    }

    fn missing(&self) -> usize {
        let numbers = 0..PUSHES as u64;
        numbers.filter(|number| !self.got.contains(number)).count()
    }

    /// Connects to another node if its own is gone.
    fn come_back(&mut self, places: &[campanile_testbed::node::Addresses]) -> anyhow::Result<()> {
        if self.conversation.is_open() {
            return Ok(());
        }
        let node = (VICTIM + 1) % places.len();
        let goes_on = self
            .conversation
            .connect(places[node].mqtt, false)
            .with_context(|| format!("{} comes back", self.name))?;
        ensure!(goes_on, "the session of {} is gone", self.name);
        println!(
            "  {} lost its connection and is at node-{} now",
            self.name,
            node + 1
        );
        self.node = node;
        Ok(())
    }
}
