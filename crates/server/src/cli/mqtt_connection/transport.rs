//! A TCP connection, with or without TLS, that can be waited for together with a waker.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::arguments::{ConnectArgs, Url};

/// Where systems keep the authorities that they trust.
const SYSTEM_CA_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// An open connection; reads and writes do not block.
pub struct Transport {
    stream: Stream,
    poll: Poll,
    waker: Arc<Waker>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// Connects to the first address of the host that answers within the timeout.
    pub fn connect(url: &Url, args: &ConnectArgs) -> anyhow::Result<Transport> {
        let timeout = Duration::from_secs(args.timeout);
        let stream = connect_tcp(url, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, SOCKET, interest)?;
        let stream = if url.tls {
            let name = ServerName::try_from(url.host.clone())
                .with_context(|| format!("{url}: not a name that a certificate can have"))?;
            let session = ClientConnection::new(Arc::new(tls_config(args)?), name)?;
            Stream::Tls(Box::new(StreamOwned::new(session, stream)))
        } else {
            Stream::Plain(stream)
        };
        Ok(Transport {
            stream,
            poll,
            waker,
        })
    }

    /// Ends a [`Transport::wait`] from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits until something can be read or written, the waker is used, or the time has come.
    pub fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        match self.poll.poll(&mut Events::with_capacity(4), timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Reads what there is, up to some bound, and appends it: whether there may be more. The end of the stream is an error.
    pub fn read(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        // Readiness is told once per change, so all must be read before waiting again; the bound lets events be handled in between.
        for _ in 0..16 {
            let result = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
            };
            match result {
                Ok(0) => return Err(closed()),
                Ok(len) => into.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // TLS without a farewell; MQTT has its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(closed()),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes as much as the socket takes: how many bytes of `from`.
    pub fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < from.len() {
            let result = match &mut self.stream {
                Stream::Plain(stream) => stream.write(&from[written..]),
                Stream::Tls(stream) => stream.write(&from[written..]),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes on what TLS still holds back: whether nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Stream::Tls(stream) = &mut self.stream else {
            return Ok(true);
        };
        while stream.conn.wants_write() {
            match stream.conn.write_tls(&mut stream.sock) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!stream.conn.is_handshaking())
    }

    /// Says in TLS that no more comes.
    pub fn finish(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
        }
    }

    /// Tells the server that no more comes.
    pub fn shut_down(&mut self) {
        let socket = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &mut stream.sock,
        };
        // The connection may be gone already; then nobody needs to be told.
        let _ = socket.shutdown(Shutdown::Write);
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed it")
}

fn connect_tcp(url: &Url, timeout: Duration) -> anyhow::Result<std::net::TcpStream> {
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .with_context(|| format!("{url}: cannot find the host"))?;
    let mut last = None;
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some((address, error)),
        }
    }
    match last {
        Some((address, error)) => {
            Err(error).with_context(|| format!("{url}: cannot connect to {address}"))
        }
        None => bail!("{url}: the host has no address"),
    }
}

fn tls_config(args: &ConnectArgs) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificates = match &args.ca {
        Some(path) => read_certificates(path)?,
        None => {
            let system = SYSTEM_CA_FILES.iter().map(Path::new);
            let path = system.into_iter().find(|path| path.exists()).context(
                "this system has no certificate authorities in the usual places: name a PEM file with --ca",
            )?;
            read_certificates(path)?
        }
    };
    // A system's file may hold some that rustls does not take.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        bail!("no usable certificate authority found");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .with_context(|| format!("private key {}", key.display()))?;
            Ok(config.with_client_auth_cert(read_certificates(cert)?, private)?)
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("certificates {}", path.display()))
}
