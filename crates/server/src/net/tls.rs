//! TLS: rustls, driven by the loop of a shard.

use std::{io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    server::{
        ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest as _, Sha256};

use super::tickets::Tickets;

/// What a TLS listener needs. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// The server's certificate, followed by the intermediate ones.
    pub certificate_file: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key_file: PathBuf,
    /// Certificates of authorities that client certificates are checked against. Needed unless `client_auth` is off.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
}

/// Mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    Off,
    /// A certificate is checked if the client shows one.
    Optional,
    /// A client without a valid certificate is refused in the handshake.
    Required,
}

/// Why a TLS listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or does not hold what it should.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: rustls_pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{path}: no certificate in it", path = path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
    },
    /// Client certificates are wanted, but there is nothing to check them against.
    #[error("client certificates are asked for, but no client CA file is given")]
    NoClientCa,
    /// The client CA file holds nothing that can be used.
    #[error("client CA: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit, or are not supported.
    #[error("{path}: {cause}", path = path.display())]
    Unfit {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
}

/// TLS of one listener, whose certificate can be exchanged while it serves.
#[derive(Debug)]
pub struct ServerTls {
    spec: TlsSpec,
    certificate: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// What connections are made with.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The same certificate, shown by the end that dials: where nodes talk to each other, each is both.
    pub fn client_certificate(&self) -> Arc<dyn ResolvesClientCert> {
        self.certificate.clone()
    }

    /// Reads certificate and key again. New connections get them; with a mistake in the files all stays as it is.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.certificate.0.store(Arc::new(self.spec.certified()?));
        Ok(())
    }
}

/// The certificate for new connections.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl TlsSpec {
    /// Reads the files. `web` adds the protocol names that browsers offer for a WebSocket. Without `tickets` nothing is resumed.
    pub fn load(&self, web: bool, tickets: Option<&Arc<Tickets>>) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate = Arc::new(Current(ArcSwap::from_pointee(self.certified()?)));
        let unfit = |cause| self.unfit(cause);
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unfit)?
            .with_client_cert_verifier(self.client_verifier(provider)?)
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = if web {
            vec![b"http/1.1".to_vec(), b"mqtt".to_vec()]
        } else {
            vec![b"mqtt".to_vec()]
        };
        // One ticket resumes as well as two, and tickets, unlike a session cache, need no memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = usize::from(tickets.is_some());
        if let Some(tickets) = tickets {
            config.ticketer = Arc::new(Tickets::of_realm(tickets, self.realm()?));
        }
        Ok(ServerTls {
            spec: self.clone(),
            certificate,
            config: Arc::new(config),
        })
    }

    /// Whose tickets are as good as a handshake here: who resumes is not asked for a certificate again, so that a listener must not open what one that asks for
    /// less, or trusts others, has sealed.
    fn realm(&self) -> Result<[u8; 32], TlsError> {
        let mut realm = Sha256::new();
        realm.update([self.client_auth as u8]);
        if let (Some(path), true) = (&self.client_ca_file, self.client_auth != ClientAuth::Off) {
            for certificate in certificates(path)? {
                realm.update(Sha256::digest(&certificate));
            }
        }
        Ok(realm.finalize().into())
    }

    /// Certificate and key, which must belong together.
    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate_file)?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file).map_err(|cause| TlsError::File {
            path: self.key_file.clone(),
            cause,
        })?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|cause| self.unfit(cause))
    }

    fn unfit(&self, cause: rustls::Error) -> TlsError {
        TlsError::Unfit {
            path: self.certificate_file.clone(),
            cause,
        }
    }

    fn client_verifier(
        &self,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        if self.client_auth == ClientAuth::Off {
            return Ok(Arc::new(NoClientAuth));
        }
        let path = self.client_ca_file.as_ref().ok_or(TlsError::NoClientCa)?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider);
        if self.client_auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        Ok(builder.build()?)
    }
}

/// The certificates of a file as what others are checked against.
pub fn authorities(path: &PathBuf) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    Ok(Arc::new(roots))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause| TlsError::File {
        path: path.clone(),
        cause,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.clone() });
    }
    Ok(certificates)
}

/// One connection's TLS.
#[derive(Debug)]
pub struct Tls(Box<ServerConnection>);

impl Tls {
    /// A connection that awaits its handshake.
    pub fn new(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        // What a turn has to say is bounded by who says it; a limit here would cut it in the middle.
        connection.set_buffer_limit(None);
        Ok(Tls(Box::new(connection)))
    }

    /// Takes all of `input`. Plaintext is appended to `plain`, records to send to `records`.
    ///
    /// `Ok(false)`: the peer has closed. After an error, close once the records (an alert) are written.
    pub fn decode(
        &mut self,
        mut input: &[u8],
        plain: &mut Vec<u8>,
        records: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        let mut open = true;
        while !input.is_empty() {
            let taken = self
                .0
                .read_tls(&mut input)
                .expect("a slice cannot fail, and plaintext is taken out at once");
            if taken == 0 {
                break;
            }
            match self.0.process_new_packets() {
                Ok(state) => {
                    read_plaintext(&mut self.0, state.plaintext_bytes_to_read(), plain);
                    if state.peer_has_closed() {
                        open = false;
                        break;
                    }
                }
                Err(error) => {
                    self.take_records(records);
                    return Err(error);
                }
            }
        }
        self.take_records(records);
        Ok(open)
    }

    /// Whether the handshake is under way still.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Encrypts `plain` into records.
    pub fn encode<'a>(&mut self, plain: impl Iterator<Item = &'a [u8]>, records: &mut Vec<u8>) {
        let mut writer = self.0.writer();
        for part in plain {
            io::Write::write_all(&mut writer, part).expect("the buffer has no limit");
        }
        self.take_records(records);
    }

    /// Ends the sending side with a close_notify.
    pub fn close(&mut self, records: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.take_records(records);
    }

    fn take_records(&mut self, records: &mut Vec<u8>) {
        while self.0.wants_write() {
            self.0.write_tls(records).expect("a Vec takes everything");
        }
    }
}

fn read_plaintext(connection: &mut ServerConnection, bytes: usize, plain: &mut Vec<u8>) {
    let start = plain.len();
    plain.resize(start + bytes, 0);
    io::Read::read_exact(&mut connection.reader(), &mut plain[start..])
        .expect("that much is there to read");
}
