//! Membership against real ZooKeeper servers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use campanile_backends::zookeeper::{
    DigestAuth, Error, TlsFiles, TlsIdentityFiles, ZooKeeperConfig, ZooKeeperMembership,
};
use campanile_broker::{
    cluster::{
        membership::{Drain, Membership, NodeInfo},
        peer::Load,
    },
    ids::Generation,
};
use campanile_testbed::zookeeper::{Ensemble, Tls};
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{Instant, timeout},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SESSION: Duration = Duration::from_secs(2);

/// One ensemble for all tests that leave it alone; it ends with the last of them. Each keeps to a chroot of its own.
fn shared() -> (Arc<Ensemble>, ZooKeeperConfig) {
    static ENSEMBLE: Mutex<Weak<Ensemble>> = Mutex::new(Weak::new());
    static CHROOTS: AtomicUsize = AtomicUsize::new(0);
    let mut running = ENSEMBLE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let ensemble = running.upgrade().unwrap_or_else(|| {
        let ensemble = Arc::new(Ensemble::start(3).unwrap());
        *running = Arc::downgrade(&ensemble);
        ensemble
    });
    let config = ZooKeeperConfig {
        chroot: format!("/test{}", CHROOTS.fetch_add(1, Ordering::Relaxed)),
        ..config(&ensemble)
    };
    (ensemble, config)
}

fn config(ensemble: &Ensemble) -> ZooKeeperConfig {
    ZooKeeperConfig {
        servers: ensemble.addresses(),
        session_timeout: SESSION,
        ..ZooKeeperConfig::default()
    }
}

fn info(name: &str) -> NodeInfo {
    NodeInfo {
        name: name.into(),
        peer_address: ([127, 0, 0, 1], 7000).into(),
        addresses: vec![format!("mqtt://{name}:1883").into()],
        http_address: "".into(),
        version: "0.1.0".into(),
        started_ms: 1,
        load: Load::default(),
        draining: false,
    }
}

/// A node, and what it sees.
struct Node {
    handle: ZooKeeperMembership,
    seen: watch::Receiver<Arc<Membership>>,
    generation: Generation,
}

impl Node {
    async fn start(config: &ZooKeeperConfig, name: &str) -> Node {
        let (handle, seen) = ZooKeeperMembership::start(config.clone(), info(name)).unwrap();
        let generation = handle.registered(PATIENCE).await.unwrap();
        Node {
            handle,
            seen,
            generation,
        }
    }

    /// Starts in a runtime of its own: shut down, it says no goodbye, as after `kill -9`.
    fn start_in(runtime: &Runtime, config: &ZooKeeperConfig, name: &str) -> Node {
        let (config, name) = (config.clone(), name.to_owned());
        let start = runtime.spawn(async move { Node::start(&config, &name).await });
        wait_elsewhere(start)
    }

    /// Waits until it sees that.
    async fn sees(&mut self, what: &str, is_seen: impl Fn(&Membership) -> bool) -> Arc<Membership> {
        let seen = timeout(PATIENCE, self.seen.wait_for(|seen| is_seen(seen))).await;
        if let Ok(Ok(seen)) = seen {
            return seen.clone();
        }
        let trouble = self.handle.trouble();
        panic!(
            "never saw {what}: {:#?}, {trouble:?}",
            self.handle.membership()
        );
    }

    async fn sees_nodes(&mut self, names: &[&str]) -> Arc<Membership> {
        self.sees(&format!("{names:?}"), |seen| {
            seen.nodes
                .keys()
                .map(|name| &**name)
                .eq(names.iter().copied())
        })
        .await
    }
}

/// Waits for a task of another runtime.
fn wait_elsewhere<T: Send + 'static>(task: tokio::task::JoinHandle<T>) -> T {
    let wait = std::thread::spawn(move || {
        let here = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        here.block_on(task).unwrap()
    });
    wait.join().unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// The names in a directory, as any other client sees them.
async fn listed(config: &ZooKeeperConfig, directory: &str) -> Vec<String> {
    let client = zookeeper_client::Client::connect(&config.servers.join(","))
        .await
        .unwrap();
    let path = format!("{}{directory}", config.chroot);
    client.sync(&path).await.unwrap();
    client.list_children(&path).await.unwrap()
}

#[tokio::test]
async fn nodes_see_each_other_come_change_and_go() {
    let (_ensemble, config) = shared();
    let mut a = Node::start(&config, "a").await;
    let mut b = Node::start(&config, "b").await;
    let seen = a.sees_nodes(&["a", "b"]).await;
    assert_eq!(seen.own, Some(a.generation));
    assert_eq!(seen.nodes["b"].generation, b.generation);
    assert_eq!(seen.nodes["b"].info, info("b"));
    assert!(seen.reachable && a.generation < b.generation);
    b.sees_nodes(&["a", "b"]).await;

    b.handle.update(|info| info.draining = true);
    b.handle.update(|info| info.load.connections = 7);
    let seen = a
        .sees("b's news", |seen| {
            seen.nodes["b"].info.load.connections == 7
        })
        .await;
    assert!(seen.nodes["b"].info.draining);
    assert_eq!(seen.nodes["b"].generation, b.generation);

    let left = Instant::now();
    b.handle.stop().await;
    a.sees_nodes(&["a"]).await;
    assert!(left.elapsed() < SESSION, "a goodbye needs no timeout");
    assert_eq!(listed(&config, "/nodes").await, ["a"]);
    let error = b.handle.set_setting("late", "").await.unwrap_err();
    assert!(matches!(error, Error::Stopped));
}

#[tokio::test]
async fn news_of_a_node_are_written_once_a_second_at_most() {
    let (_ensemble, config) = shared();
    let started = Instant::now();
    let a = Node::start(&config, "a").await;
    let mut b = Node::start(&config, "b").await;
    b.sees_nodes(&["a", "b"]).await;
    let mut connections = 0;
    while started.elapsed() < Duration::from_secs(3) {
        connections += 1;
        a.handle.update(|info| info.load.connections = connections);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    b.sees("the newest", |seen| {
        seen.nodes["a"].info.load.connections == connections
    })
    .await;
    let client = zookeeper_client::Client::connect(&config.servers.join(","))
        .await
        .unwrap();
    let registration = format!("{}/nodes/a", config.chroot);
    let (_, stat) = client.get_data(&registration).await.unwrap();
    let writes = u64::try_from(stat.version).unwrap();
    assert!(
        (1..=started.elapsed().as_secs()).contains(&writes),
        "{writes}"
    );
}

#[tokio::test]
async fn a_node_whose_handle_is_dropped_leaves() {
    let (_ensemble, config) = shared();
    let mut a = Node::start(&config, "a").await;
    let b = Node::start(&config, "b").await;
    a.sees_nodes(&["a", "b"]).await;
    let left = Instant::now();
    drop(b);
    a.sees_nodes(&["a"]).await;
    assert!(left.elapsed() < SESSION);
}

#[tokio::test]
async fn a_session_that_thaws_after_its_client_gave_it_up_leaves_nothing_double() {
    let ensemble = Ensemble::start(1).unwrap();
    let config = config(&ensemble);
    let mut a = Node::start(&config, "a").await;
    ensemble.stop(0).unwrap();
    let gave_up = |error: &Error| error.to_string().contains("no available hosts");
    let deadline = Instant::now() + PATIENCE;
    while !a.handle.trouble().as_ref().is_some_and(gave_up) {
        assert!(Instant::now() < deadline, "{:?}", a.handle.trouble());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(a.handle.membership().own, Some(a.generation));
    ensemble.cont(0).unwrap();
    let before = a.generation;
    a.sees("a new generation, leading", |seen| {
        seen.reachable
            && seen.own.is_some_and(|own| own != before)
            && seen.leader.as_deref() == Some("a")
    })
    .await;
    assert_eq!(listed(&config, "/nodes").await, ["a"]);
    assert_eq!(listed(&config, "/leader").await.len(), 1);
}

#[tokio::test]
async fn a_killed_leader_vanishes_with_its_session_and_another_leads() {
    let (_ensemble, config) = shared();
    let runtime = runtime();
    let _a = Node::start_in(&runtime, &config, "a");
    let mut b = Node::start(&config, "b").await;
    let mut c = Node::start(&config, "c").await;
    let leads = |name: &'static str| move |seen: &Membership| seen.leader.as_deref() == Some(name);
    c.sees("a leads", leads("a")).await;
    runtime.shutdown_background();
    c.sees("b or c leads", |seen| {
        seen.leader.as_deref().is_some_and(|leader| leader != "a")
    })
    .await;
    let seen = c.sees_nodes(&["b", "c"]).await;
    let leader = c
        .sees("a leader", |seen| seen.leader.is_some())
        .await
        .leader
        .clone();
    b.sees("the same leader", |seen| seen.leader == leader)
        .await;
    assert!(seen.doubted.is_empty());
}

#[tokio::test]
async fn the_lead_moves_at_once_when_the_leader_leaves() {
    let (_ensemble, config) = shared();
    let mut a = Node::start(&config, "a").await;
    a.sees("a leads", |seen| seen.leader.as_deref() == Some("a"))
        .await;
    let mut b = Node::start(&config, "b").await;
    b.sees("a leads", |seen| seen.leader.as_deref() == Some("a"))
        .await;
    let left = Instant::now();
    a.handle.stop().await;
    b.sees("b leads", |seen| seen.leader.as_deref() == Some("b"))
        .await;
    assert!(left.elapsed() < SESSION);
}

#[tokio::test]
async fn a_name_is_waited_for_until_its_earlier_run_has_expired() {
    let (_ensemble, config) = shared();
    let runtime = runtime();
    let killed = Node::start_in(&runtime, &config, "a");
    let mut b = Node::start(&config, "b").await;
    b.sees_nodes(&["a", "b"]).await;
    let (handle, _) = ZooKeeperMembership::start(config.clone(), info("a")).unwrap();
    let error = handle.registered(SESSION).await.unwrap_err().to_string();
    assert!(
        error.contains("node name \"a\" is taken by a process at 127.0.0.1:7000"),
        "{error}"
    );
    runtime.shutdown_background();
    let generation = handle.registered(PATIENCE).await.unwrap();
    assert!(generation > killed.generation);
    b.sees("the new run", |seen| {
        seen.nodes
            .get("a")
            .is_some_and(|a| a.generation == generation)
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_was_deleted_is_made_anew() {
    let (_ensemble, config) = shared();
    let mut a = Node::start(&config, "a").await;
    let first = a.generation;
    let operator = zookeeper_client::Client::connect(&config.servers.join(","))
        .await
        .unwrap();
    operator
        .delete(&format!("{}/nodes/a", config.chroot), None)
        .await
        .unwrap();
    let seen = a
        .sees("another generation", |seen| {
            seen.own.is_some_and(|own| own != first)
        })
        .await;
    assert_eq!(Some(seen.nodes["a"].generation), seen.own);
}

#[tokio::test]
async fn drains_and_settings_are_seen_by_all() {
    let (_ensemble, config) = shared();
    let a = Node::start(&config, "a").await;
    let mut b = Node::start(&config, "b").await;
    let order = Drain {
        rate: 50,
        deadline_ms: 1_700_000_000_000,
    };
    a.handle.set_setting("push.rate", "10").await.unwrap();
    a.handle.set_setting("push.rate", "20").await.unwrap();
    a.handle.order_drain("b", order).await.unwrap();
    b.sees("the order", |seen| seen.drains.get("b") == Some(&order))
        .await;
    b.sees("the setting", |seen| {
        seen.settings.get("push.rate").is_some_and(|v| &**v == "20")
    })
    .await;
    assert_eq!(b.handle.setting("push.rate").as_deref(), Some("20"));
    // Whoever comes later sees them too.
    let mut c = Node::start(&config, "c").await;
    c.sees("order and setting", |seen| {
        seen.drains.len() == 1 && seen.settings.len() == 1
    })
    .await;

    c.handle.cancel_drain("b").await.unwrap();
    c.handle.cancel_drain("b").await.unwrap();
    c.handle.remove_setting("push.rate").await.unwrap();
    b.sees("neither", |seen| {
        seen.drains.is_empty() && seen.settings.is_empty()
    })
    .await;

    let error = a
        .handle
        .set_setting("a/b", "")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("setting \"a/b\": "), "{error}");
}

#[tokio::test]
async fn clusters_under_different_chroots_do_not_meet() {
    let (_ensemble, config) = shared();
    let deep = ZooKeeperConfig {
        chroot: format!("{}/of/another", config.chroot),
        ..config.clone()
    };
    let mut a = Node::start(&config, "a").await;
    let mut b = Node::start(&deep, "b").await;
    a.sees_nodes(&["a"]).await;
    b.sees_nodes(&["b"]).await;
    assert_eq!(listed(&deep, "/nodes").await, ["b"]);
}

#[tokio::test]
async fn strangers_are_refused_with_the_way_out() {
    let (_ensemble, mut config) = shared();
    let auth = |password: &str| {
        Some(DigestAuth {
            user: "campanile".to_owned(),
            password: password.to_owned(),
        })
    };
    config.auth = auth("secret");
    let mut a = Node::start(&config, "a").await;
    let b = Node::start(&config, "b").await;
    b.handle.set_setting("key", "value").await.unwrap();
    a.sees("b and its setting", |seen| {
        seen.nodes.len() == 2 && seen.settings.len() == 1
    })
    .await;
    for stranger in [None, auth("guess")] {
        config.auth = stranger;
        let (handle, _) = ZooKeeperMembership::start(config.clone(), info("c")).unwrap();
        let error = handle
            .registered(Duration::from_secs(2))
            .await
            .unwrap_err()
            .to_string();
        let refused = format!(
            "refuses access to {}/nodes: give the digest user",
            config.chroot
        );
        assert!(error.contains(&refused), "{error}");
        assert!(error.contains(&config.servers[0]), "{error}");
        assert!(!error.contains("guess"), "{error}");
    }
}

#[tokio::test]
async fn most_others_lost_at_once_are_kept_until_their_links_are_down_too() {
    let (_ensemble, mut config) = shared();
    config.confirmation = 10 * PATIENCE;
    let mut a = Node::start(&config, "a").await;
    let runtime = runtime();
    let killed = ["b", "c", "d"].map(|name| Node::start_in(&runtime, &config, name));
    a.sees_nodes(&["a", "b", "c", "d"]).await;
    runtime.shutdown_background();
    let seen = a.sees("doubt", |seen| seen.doubted.len() >= 2).await;
    assert!(
        seen.doubted
            .iter()
            .all(|name| seen.nodes.contains_key(name))
    );
    let generations: BTreeSet<Generation> = killed.iter().map(|node| node.generation).collect();
    a.handle.set_links_down(generations);
    let seen = a.sees_nodes(&["a"]).await;
    assert!(seen.doubted.is_empty());
}

#[tokio::test]
async fn most_others_lost_at_once_are_given_up_once_that_is_confirmed() {
    let (_ensemble, mut config) = shared();
    config.confirmation = SESSION * 2;
    let mut a = Node::start(&config, "a").await;
    let runtime = runtime();
    let _killed = ["b", "c"].map(|name| Node::start_in(&runtime, &config, name));
    a.sees_nodes(&["a", "b", "c"]).await;
    runtime.shutdown_background();
    a.sees("the loss", |seen| {
        seen.nodes.len() == 1 && seen.doubted.is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_loss_of_a_server_changes_nothing() {
    let mut ensemble = Ensemble::start(3).unwrap();
    let config = ZooKeeperConfig {
        session_timeout: Duration::from_secs(10),
        confirmation: Duration::from_secs(20),
        ..config(&ensemble)
    };
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&config, name).await);
    }
    let check = async |key: &str, nodes: &mut [Node]| {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = nodes[0].handle.set_setting(key, "").await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::task::yield_now().await;
        }
        for node in nodes {
            let seen = node
                .sees(key, |seen| {
                    seen.settings.contains_key(key) && seen.reachable
                })
                .await;
            assert_eq!(seen.own, Some(node.generation), "the session lived on");
            assert_eq!((seen.nodes.len(), seen.doubted.len()), (3, 0));
        }
    };
    check("whole", &mut nodes).await;
    let leader = ensemble.leader().unwrap();
    ensemble.kill(leader);
    check("leader killed", &mut nodes).await;
    ensemble.restart_all().unwrap();
    let leader = ensemble.leader().unwrap();
    ensemble.stop(leader).unwrap();
    check("leader frozen", &mut nodes).await;
    ensemble.cont(leader).unwrap();
    check("leader thawed", &mut nodes).await;
}

#[tokio::test]
async fn an_outage_of_the_ensemble_is_survived_with_a_new_generation() {
    let mut ensemble = Ensemble::start(3).unwrap();
    let config = config(&ensemble);
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&config, name).await);
    }
    for node in &mut nodes {
        node.sees("all, one leading", |seen| {
            seen.nodes.len() == 3 && seen.leader.is_some()
        })
        .await;
    }
    ensemble.kill_all();
    for node in &mut nodes {
        node.sees("the outage", |seen| !seen.reachable).await;
    }
    // The client has given its session up once it looks for a new one, which no server is there for.
    let gone = Instant::now();
    while gone.elapsed() < SESSION * 2 {
        for node in &nodes {
            let seen = node.handle.membership();
            assert_eq!((seen.own, seen.nodes.len()), (Some(node.generation), 3));
            assert!(!seen.reachable && seen.leader.is_some());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = nodes[0].handle.set_setting("key", "").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");

    ensemble.restart_all().unwrap();
    let mut generations = Vec::new();
    for node in &mut nodes {
        let before = node.generation;
        let seen = node
            .sees("a new registration", |seen| {
                seen.reachable && seen.own.is_some_and(|own| own != before)
            })
            .await;
        generations.push(seen.own);
    }
    for node in &mut nodes {
        node.sees("the new registrations of all", |seen| {
            seen.nodes
                .values()
                .map(|node| Some(node.generation))
                .eq(generations.iter().copied())
                && seen.leader.is_some()
                && seen.doubted.is_empty()
        })
        .await;
    }
    let mut names = listed(&config, "/nodes").await;
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(listed(&config, "/leader").await.len(), 3);
}

#[tokio::test]
async fn nobody_there_is_said_with_names_and_the_way_out() {
    let port = campanile_testbed::process::free_port().unwrap();
    let config = ZooKeeperConfig {
        servers: vec![format!("127.0.0.1:{port}")],
        ..ZooKeeperConfig::default()
    };
    let (handle, _) = ZooKeeperMembership::start(config, info("a")).unwrap();
    let error = handle
        .registered(Duration::from_secs(1))
        .await
        .unwrap_err()
        .to_string();
    let expected =
        format!("not registered within 1s: ZooKeeper at 127.0.0.1:{port} does not answer");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("are the servers up"), "{error}");
    handle.stop().await;
}

#[test]
fn mistakes_are_found_without_the_ensemble() {
    let check = |change: fn(&mut ZooKeeperConfig), expected: &str| {
        let mut config = ZooKeeperConfig::default();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    assert!(ZooKeeperConfig::default().check().is_ok());
    check(|config| config.servers.clear(), "servers \"\": ");
    check(
        |config| config.servers.push("a,b".into()),
        "servers \"a,b\": ",
    );
    check(|config| config.chroot = "/a/".into(), "chroot \"/a/\": ");
    check(|config| config.chroot = "a".into(), "chroot \"a\": ");
    check(
        |config| config.confirmation = SESSION,
        "confirmation \"2s\": ",
    );
    check(
        |config| {
            config.tls = Some(TlsFiles {
                authority: "/none.pem".into(),
                identity: None,
            });
        },
        "cannot use /none.pem: ",
    );
}

#[tokio::test]
async fn nodes_meet_over_mutual_tls_and_strangers_do_not_get_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let authority = Authority::new();
    let (certificate, key) = authority.issue("127.0.0.1");
    let tls = Tls {
        key_and_certificate: file("server.pem", key + &certificate),
        authority: file("authority.pem", authority.pem()),
    };
    let ensemble = Ensemble::start_tls(1, &tls).unwrap();
    let (certificate, key) = authority.issue("node");
    let identity = TlsIdentityFiles {
        certificate: file("node.pem", certificate),
        key: file("node.key", key),
    };
    let files = TlsFiles {
        authority: tls.authority.clone(),
        identity: Some(identity.clone()),
    };
    let mut config = config(&ensemble);
    config.tls = Some(files.clone());
    let mut a = Node::start(&config, "a").await;
    let mut b = Node::start(&config, "b").await;
    a.sees_nodes(&["a", "b"]).await;
    b.sees_nodes(&["a", "b"]).await;

    let other = Authority::new();
    let nameless = TlsFiles {
        identity: None,
        ..files.clone()
    };
    let distrusting = TlsFiles {
        authority: file("other.pem", other.pem()),
        ..files
    };
    for (tls, hint) in [
        (Some(nameless), "do authority and certificates fit"),
        (Some(distrusting), "do authority and certificates fit"),
        (None, "are these their plain ports"),
    ] {
        config.tls = tls;
        let (handle, _) = ZooKeeperMembership::start(config.clone(), info("c")).unwrap();
        let error = handle
            .registered(Duration::from_secs(2))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(hint), "{error}");
    }
    a.sees_nodes(&["a", "b"]).await;
}

/// Issues certificates.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        Authority {
            certificate,
            issuer,
        }
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
