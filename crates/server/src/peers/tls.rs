//! Mutual TLS among nodes: each end shows a certificate of the cluster's authority, the dialed one also that it is who was meant.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Peer;
use crate::net::tls::{ClientAuth, ServerTls, TlsError, TlsSpec, authorities};

/// Certificates of a node. All files are PEM.
///
/// Whoever has a certificate of this authority is taken for a node: it should be one of the cluster's own. The certificate names the node or its
/// IP address among its alternative names, and may be used by servers and by clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The cluster's authority.
    pub ca: PathBuf,
    /// The node's certificate, followed by the intermediate ones.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A protocol name of its own, so that no listener for clients is taken for one for nodes.
const PROTOCOL: &[u8] = b"campanile-peer";

/// TLS of both ends.
#[derive(Debug)]
pub struct Security {
    server: ServerTls,
    accepting: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

impl PeerTls {
    /// Reads the files.
    pub fn load(&self) -> Result<Security, TlsError> {
        let spec = TlsSpec {
            certificate_file: self.certificate.clone(),
            key_file: self.key.clone(),
            client_ca_file: Some(self.ca.clone()),
            client_auth: ClientAuth::Required,
        };
        let server = spec.load(false, None)?;
        let mut accepting = ServerConfig::clone(server.config());
        accepting.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Security {
            server,
            accepting: Arc::new(accepting),
            roots: authorities(&self.ca)?,
        })
    }
}

impl Security {
    /// Reads certificate and key again, for new links. With a mistake in the files all stays as it is.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.server.reload()
    }

    /// The handshake of the end that was dialed.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.accepting.clone());
        acceptor.accept(stream).await
    }

    /// The handshake of the end that dials.
    pub async fn connect(
        &self,
        stream: TcpStream,
        peer: &Peer,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider.clone())
                .build()
                .map_err(io::Error::other)?;
        let name = ServerName::try_from(&*peer.name).ok();
        let verifier = NamesNode {
            inner,
            name: name.map(|name| name.to_owned()),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.server.client_certificate());
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // The name is the verifier's business; an address is not sent.
        let address: IpAddr = peer.address.ip();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::from(address), stream).await
    }
}

/// Accepts a certificate that names the node's address, or the node. Nothing else is left out of the usual checks.
#[derive(Debug)]
struct NamesNode {
    inner: Arc<WebPkiServerVerifier>,
    name: Option<ServerName<'static>>,
}

impl ServerCertVerifier for NamesNode {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |name: &ServerName<'_>| {
            self.inner
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
        };
        match (verify(address), &self.name) {
            (
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )),
                Some(name),
            ) => verify(name),
            (verdict, _) => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
