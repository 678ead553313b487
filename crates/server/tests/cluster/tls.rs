//! TLS over several nodes.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use campanile_testbed::node::Node;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use serde_json::Value;

use crate::setup::{Cluster, eventually};

/// A CONNECT of MQTT 3.1.1: clean session, client identifier `d`.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01d";

#[test]
fn a_session_is_resumed_on_another_node_and_after_its_own_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::write(file("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
    let mut cluster = Cluster::with(2, |options| {
        options.settings += &format!(
            "\n[[listeners]]\nname = \"tls\"\ntransport = \"tls\"\naddress = \"127.0.0.1:0\"\ntls_certificate = {:?}\ntls_key = {:?}\n",
            file("cert.pem"),
            file("key.pem")
        );
    });
    let places: Vec<SocketAddr> = (0..2).map(|node| tls_address(cluster.node(node))).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    for version in [&TLS13, &TLS12] {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let device = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let device = Arc::new(device);
        assert_eq!(
            connect(&device, places[0]),
            (HandshakeKind::Full, version.version)
        );
        // The nodes agree on the keys a moment after they have started.
        eventually("the session to be resumed on the other node", || {
            connect(&device, places[0]);
            let (kind, _) = connect(&device, places[1]);
            (kind == HandshakeKind::Resumed).then_some(())
        });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let device = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let device = Arc::new(device);
    connect(&device, places[0]);
    cluster.node(0).kill();
    assert_eq!(connect(&device, places[1]).0, HandshakeKind::Resumed);
}

/// Connects with TLS and MQTT, and says how the handshake went.
fn connect(device: &Arc<ClientConfig>, place: SocketAddr) -> (HandshakeKind, ProtocolVersion) {
    let connection =
        ClientConnection::new(device.clone(), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(place).unwrap());
    stream.write_all(CONNECT).unwrap();
    // The ticket comes before the CONNACK.
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream.write_all(b"\xe0\x00").unwrap();
    let kind = stream.conn.handshake_kind().unwrap();
    (kind, stream.conn.protocol_version().unwrap())
}

/// Where a node listens for TLS, as it tells devices.
fn tls_address(node: &mut Node) -> SocketAddr {
    let status = node.operate(&["status", "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let own = nodes
        .iter()
        .find(|other| other["name"] == *node.name())
        .unwrap();
    let mut addresses = own["addresses"].as_array().unwrap().iter();
    let address = addresses.find_map(|address| address.as_str().unwrap().strip_prefix("mqtts://"));
    address.unwrap().parse().unwrap()
}
