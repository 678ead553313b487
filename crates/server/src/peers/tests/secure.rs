//! Mutual TLS among nodes.

use std::{fs, path::Path};

use campanile_broker::ids::Generation;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::peers::PeerTls;

/// An authority that makes certificates into a directory.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, directory }
    }

    /// Files of a certificate for that name or address.
    fn certify(&self, name: &str) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| Path::join(self.directory.path(), format!("{name}{end}"));
        fs::write(path(".pem"), certificate.pem()).unwrap();
        fs::write(path(".key"), key.serialize_pem()).unwrap();
        PeerTls {
            ca: self.directory.path().join("ca.pem"),
            certificate: path(".pem"),
            key: path(".key"),
        }
    }
}

fn with(tls: PeerTls) -> PeerConfig {
    PeerConfig {
        tls: Some(tls),
        ..quick()
    }
}

#[tokio::test]
async fn nodes_with_certificates_of_their_authority_are_linked() {
    let authority = Authority::new();
    // One is certified by its name, one by its address.
    for (first, second) in [("a", "127.0.0.1"), ("127.0.0.1", "b")] {
        let mut a = Node::start_with(with(authority.certify(first)), "a", 1);
        let mut b = Node::start_with(with(authority.certify(second)), "b", 2);
        introduce(&[&a, &b]);
        a.is_up(Generation(2)).await;
        b.is_up(Generation(1)).await;
        let payload = vec![7; 1 << 20];
        for _ in 0..3 {
            a.links
                .send(Generation(2), deliver(QoS::AtLeastOnce, &payload));
            b.links.send(Generation(1), ticket(1));
        }
        for _ in 0..3 {
            match b.message(Generation(1)).await {
                PeerMessage::Deliver { message, .. } => assert_eq!(message.payload(), payload),
                other => panic!("{other:?}"),
            }
            assert_eq!(ticket_of(a.message(Generation(2)).await), 1);
        }
        a.links.reload_tls().unwrap();
    }
}

/// Neither of these is linked, whichever dials.
async fn refused(a: PeerConfig, b: PeerConfig) {
    for (a, b) in [(a.clone(), b.clone()), (b, a)] {
        let a = Node::start_with(a, "a", 1);
        let b = Node::start_with(b, "b", 2);
        introduce(&[&a, &b]);
        until(|| a.links.figures().handshakes_failed > 1).await;
        until(|| b.links.figures().handshakes_failed > 1).await;
        assert_eq!(a.links.figures().total.ups, 0);
        assert_eq!(b.links.figures().total.ups, 0);
    }
}

#[tokio::test]
async fn node_without_a_certificate_is_refused() {
    let authority = Authority::new();
    refused(with(authority.certify("127.0.0.1")), quick()).await;
    // One that speaks TLS, and knows whom to trust, but has nothing to show.
    let node = Node::start_with(with(authority.certify("a")), "a", 2);
    let stream = TcpStream::connect(node.links.address()).await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect("a".try_into().unwrap(), stream)
        .await
        .unwrap();
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    until(|| node.links.figures().handshakes_failed == 1).await;
}

#[tokio::test]
async fn node_of_another_authority_is_refused() {
    let (own, other) = (Authority::new(), Authority::new());
    let mut stolen = other.certify("127.0.0.1");
    // It trusts the cluster, which does not trust it.
    stolen.ca = own.certify("127.0.0.1").ca;
    refused(with(own.certify("127.0.0.1")), with(stolen)).await;
}

#[tokio::test]
async fn node_whose_certificate_names_somebody_else_is_not_dialed() {
    let authority = Authority::new();
    let a = Node::start_with(with(authority.certify("a")), "a", 1);
    let b = Node::start_with(with(authority.certify("c")), "b", 2);
    introduce(&[&a, &b]);
    until(|| a.links.figures().handshakes_failed > 1).await;
    assert!(b.links.up().is_empty());
}

#[tokio::test]
async fn missing_file_is_named() {
    let authority = Authority::new();
    let mut tls = authority.certify("a");
    tls.key = "/nowhere/peer.key".into();
    let started = Links::start(with(tls), identity("a", 1), &Handle::current());
    let error = started.unwrap_err().to_string();
    assert!(error.contains("/nowhere/peer.key"), "{error}");
}
