use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use campanile_api::cluster::{
    Answer, ClientConnection, Cluster, Connected, DrainOrder, Located, NodeStatus, Overview,
    Refusal,
};
use campanile_backends::embedded::EmbeddedConfig;
use campanile_push::{
    app::AppName,
    id::PushId,
    key::ApiKey,
    rows::{self, MemoryRows, Scope, Table},
    store::{Command, Erased, Outcome, Reader, Unavailable},
};
use tokio::sync::oneshot;

use super::*;

/// Rows in memory.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<MemoryRows>>);

impl campanile_api::Store for Fake {
    fn submit(&self, command: Command) -> oneshot::Receiver<Result<Outcome, Unavailable>> {
        let (answer, receiver) = oneshot::channel();
        let Command::Change(change) = command else {
            unreachable!("an operator changes rows: {command:?}");
        };
        let outcome = self.0.lock().unwrap().change(&change);
        answer.send(Ok(outcome)).unwrap();
        receiver
    }

    fn erase(
        &self,
        _: &campanile_push::app::AppName,
        _: u32,
    ) -> oneshot::Receiver<Result<Erased, Unavailable>> {
        unreachable!("an operator changes rows")
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.clone()
    }
}

/// Two nodes, of which one does not answer; ZooKeeper is away.
struct FakeCluster;

fn status(name: &str, connections: u64) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        this: name == "a",
        generation: Some("2a".to_owned()),
        version: "1.2.3".to_owned(),
        started_ms: 0,
        addresses: vec![format!("mqtt://{name}:1883")],
        http: String::new(),
        connections,
        capacity: 1000,
        draining: false,
        drain: None,
        leader: name == "a",
        linked: (name != "a").then_some(true),
    }
}

impl Cluster for FakeCluster {
    fn overview(&self) -> Overview {
        Overview {
            cluster: "test".to_owned(),
            member: true,
            membership_reachable: true,
            store_failing: None,
            nodes: vec![status("a", 1), status("b", 2)],
        }
    }

    fn locate<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        let connection = (app.as_str() == "shop" && client == "d1").then(|| ClientConnection {
            node: "a".to_owned(),
            epoch: 7,
            protocol_level: 5,
            subscriptions: 2,
            ..ClientConnection::default()
        });
        let silent = vec!["b".to_owned()];
        Box::pin(async { Ok(Located { connection, silent }) })
    }

    fn kick<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located> {
        self.locate(app, client)
    }

    fn count_connected<'a>(
        &'a self,
        _: &'a AppName,
        _: PushId,
        _: Option<Bytes>,
    ) -> Answer<'a, Connected> {
        unreachable!("operators do not ask")
    }

    fn drain<'a>(&'a self, node: &'a str, order: DrainOrder) -> Answer<'a, ()> {
        Box::pin(async move {
            assert_eq!(order.rate, Some(5));
            match node {
                "a" | "b" => Ok(()),
                name => Err(Refusal::UnknownNode {
                    name: name.to_owned(),
                    known: vec!["a".to_owned(), "b".to_owned()],
                }),
            }
        })
    }

    fn undrain<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async { Err(Refusal::Unreachable("no connection".to_owned())) })
    }

    fn rebalance(&self) -> Answer<'_, ()> {
        Box::pin(async { Err(Refusal::Alone) })
    }
}

#[tokio::test]
async fn the_cluster_is_shown_and_takes_orders() {
    with_socket(Fake::default(), |dir| {
        let mut members = Members::of(dir).unwrap();
        assert_eq!(members.status().unwrap(), FakeCluster.overview());
        let shop = AppName::new("shop").unwrap();
        let located = members.locate(&shop, "d1").unwrap();
        assert_eq!(located.connection.unwrap().node, "a");
        assert_eq!(located.silent, ["b"]);
        assert_eq!(members.locate(&shop, "d2").unwrap().connection, None);

        let order = DrainOrder {
            rate: Some(5),
            deadline_ms: Some(6),
        };
        let drain = |node: &str| ClusterRequest::Drain {
            node: node.to_owned(),
            order,
        };
        members.order(drain("b")).unwrap();
        let mut refusal = |request| members.order(request).unwrap_err().to_string();
        assert_eq!(
            refusal(drain("c")),
            "refused: node \"c\": none of that name is registered; there are: a, b"
        );
        assert!(refusal(ClusterRequest::Rebalance).contains("not a member of a cluster"));
        let node = "b".to_owned();
        assert!(refusal(ClusterRequest::Undrain { node }).contains("nothing was changed"));
    })
    .await;
}

#[test]
fn without_a_node_that_runs_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = Members::of(dir.path()) else {
        panic!("nobody listens")
    };
    let text = error.to_string();
    assert!(
        text.contains("admin.sock") && text.contains("--data"),
        "{text}"
    );
}

/// Runs `act` on a thread of its own while a socket serves.
async fn with_socket<T: Send + 'static>(
    store: Fake,
    act: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    let dir = tempfile::tempdir().unwrap();
    let socket = AdminSocket::open(dir.path()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(socket.serve(Arc::new(store), Arc::new(FakeCluster), async {
        drop(stopped.await)
    }));
    let path = dir.path().to_owned();
    let answer = tokio::task::spawn_blocking(move || act(&path))
        .await
        .unwrap();
    drop(stop);
    serving.await.unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "the socket is gone"
    );
    answer
}

#[tokio::test]
async fn apps_are_made_listed_and_get_keys_while_a_node_runs() {
    let store = Fake::default();
    let kept = store.clone();
    with_socket(store, |dir| {
        let key = |n| ApiKey::from_random([n; 32]).hash();
        let shop = AppName::new("shop").unwrap();
        let mut apps = Apps::of(EmbeddedConfig::new(dir)).unwrap();
        assert_eq!(apps.create(&shop, &key(1)).unwrap(), Reply::Done);
        assert_eq!(apps.create(&shop, &key(2)).unwrap(), Reply::Exists);
        assert_eq!(
            apps.add_key(&shop, &key(3), Permissions::ADMIN).unwrap(),
            Reply::Done
        );
        assert_eq!(
            apps.add_key(
                &AppName::new("nobody").unwrap(),
                &key(3),
                Permissions::ADMIN
            )
            .unwrap(),
            Reply::NoApp
        );
        assert_eq!(apps.list().unwrap(), ["shop"]);
    })
    .await;
    let keys = kept.0.lock().unwrap().count(&Scope::System, Table::Key);
    assert_eq!(keys, 2);
}

#[test]
fn apps_are_made_listed_and_get_keys_while_no_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let key = |n| ApiKey::from_random([n; 32]).hash();
    let shop = AppName::new("shop").unwrap();
    let open = || Apps::of(EmbeddedConfig::new(dir.path().join("data"))).unwrap();
    let mut apps = open();
    assert_eq!(apps.create(&shop, &key(1)).unwrap(), Reply::Done);
    assert_eq!(apps.create(&shop, &key(2)).unwrap(), Reply::Exists);
    assert_eq!(
        apps.add_key(&shop, &key(3), Permissions::ADMIN).unwrap(),
        Reply::Done
    );
    apps.close().unwrap();
    let mut apps = open();
    assert_eq!(apps.list().unwrap(), ["shop"]);
    assert!(matches!(
        Apps::of(EmbeddedConfig::new(dir.path().join("data"))),
        Err(AppsError::Deaf { .. })
    ));
    apps.close().unwrap();
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let store = Fake::default();
    let names: Vec<String> = (0..PAGE * 2).map(|n| format!("app-{n:060}")).collect();
    for name in &names {
        let key = rows::Key::new(Table::App, name.clone());
        let change = rows::Change::new(Scope::System, 1).put(key, "");
        store.0.lock().unwrap().change(&change);
    }
    let listed = with_socket(store, |dir| {
        Apps::of(EmbeddedConfig::new(dir)).unwrap().list().unwrap()
    })
    .await;
    assert_eq!(listed, names);
}

#[tokio::test]
async fn only_the_owner_may_use_the_socket_and_nonsense_is_refused() {
    with_socket(Fake::default(), |dir| {
        let path = socket_path(dir);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for line in [
            "nonsense",
            "{}",
            "{\"command\":\"create_app\",\"app\":\"Shop\",\"key_sha256\":\"00\"}",
            "{\"command\":\"add_key\",\"app\":\"shop\",\"key_sha256\":\"é\"}",
        ] {
            let mut stream = UnixStream::connect(&path).unwrap();
            writeln!(stream, "{line}").unwrap();
            let mut reply = String::new();
            BufReader::new(stream).read_line(&mut reply).unwrap();
            assert!(
                matches!(serde_json::from_str(&reply).unwrap(), Reply::Refused { .. }),
                "{reply}"
            );
        }
        let mut endless = UnixStream::connect(&path).unwrap();
        let _ = endless.write_all(&vec![b'x'; LONGEST_LINE as usize + 1]);
        assert_eq!(
            BufReader::new(endless)
                .lines()
                .map_while(Result::ok)
                .count(),
            0
        );
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_an_earlier_node_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap();
    AdminSocket::open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_directory_whose_name_is_too_long_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    assert!(matches!(
        AdminSocket::open(&long),
        Err(SocketError::TooLong(_))
    ));
}

#[test]
fn hashes_survive_their_text_form() {
    let hash = KeyHash::of("key");
    assert_eq!(parse_hash(&hash.hex()), Some(hash));
    assert_eq!(parse_hash("zz"), None);
    assert_eq!(parse_hash(&"z".repeat(64)), None);
}
