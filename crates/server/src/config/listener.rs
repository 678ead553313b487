//! `[[listeners]]`: where devices connect.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use campanile_push::app::AppName;

use super::reader::Reader;

/// Where devices connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What carries the packets.
    pub transport: Transport,
    /// The app of the clients that come through it.
    pub app: String,
    /// WebSocket: path of the request.
    pub path: String,
    /// How its clients may say who they are; at least one way.
    pub auth: Vec<Way>,
    /// Connections at a time; more are closed at once.
    pub max_connections: u32,
    /// TLS: PEM file with the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// TLS: PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// TLS: PEM file with the authorities that clients' certificates are checked against.
    pub tls_client_ca: Option<PathBuf>,
    /// TLS: whether clients show a certificate.
    pub tls_client_auth: ClientAuth,
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// User name and password, or SCRAM, of the password file.
    Password,
    /// A token that the app's backend had made for the device.
    Token,
    /// A JSON Web Token that the app's backend has signed.
    Jwt,
    /// Not at all, where `clients.allow_anonymous` is on.
    Anonymous,
}

impl Way {
    /// All, in the order of the documentation.
    pub const ALL: [Way; 4] = [Way::Password, Way::Token, Way::Jwt, Way::Anonymous];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Way::Password => "password",
            Way::Token => "token",
            Way::Jwt => "jwt",
            Way::Anonymous => "anonymous",
        }
    }

    fn named(name: &str) -> Result<Way, String> {
        let mut all = Way::ALL.into_iter();
        all.find(|way| way.name() == name).ok_or_else(|| {
            format!("{name:?} is none of \"password\", \"token\", \"jwt\", \"anonymous\"")
        })
    }
}

/// What carries MQTT packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Whether it is encrypted.
    pub fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Whether it is a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        TRANSPORTS
            .iter()
            .find(|(_, transport)| *transport == self)
            .expect("the table has all")
            .0
    }
}

const TRANSPORTS: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("ws", Transport::Ws),
    ("wss", Transport::Wss),
];

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// One that is shown must be valid.
    Optional,
    /// No connection without a valid one.
    Required,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            name: "mqtt".to_owned(),
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1883)),
            transport: Transport::Tcp,
            app: "default".to_owned(),
            path: "/mqtt".to_owned(),
            auth: Way::ALL.to_vec(),
            max_connections: 1_000_000,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client_auth: ClientAuth::None,
        }
    }
}

impl Listener {
    /// Whether devices may come with credentials of their app.
    pub fn takes_devices(&self) -> bool {
        self.auth.contains(&Way::Token) || self.auth.contains(&Way::Jwt)
    }

    pub(super) fn read(&mut self, keys: &mut Reader<'_>) {
        keys.text("name", &mut self.name, |name| {
            let fits = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if fits {
                Ok(())
            } else {
                Err(format!(
                    "{name:?}: 1 to 64 letters, digits, \".\", \"_\" and \"-\""
                ))
            }
        });
        keys.address("address", &mut self.address);
        keys.choice("transport", &mut self.transport, &TRANSPORTS);
        keys.text("app", &mut self.app, |app| {
            AppName::new(app)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        keys.text("path", &mut self.path, |path| {
            let fits = path.starts_with('/') && path.len() <= 255 && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
            if fits { Ok(()) } else { Err(format!("{path:?}: begins with \"/\", visible ASCII without \"?\" and \"#\", at most 255")) }
        });
        let mut ways: Vec<String> = self.auth.iter().map(|way| way.name().to_owned()).collect();
        keys.texts("auth", &mut ways, |name| Way::named(name).map(drop));
        self.auth = ways
            .iter()
            .filter_map(|name| Way::named(name).ok())
            .collect();
        keys.integer("max_connections", &mut self.max_connections, 1..=10_000_000);
        keys.path("tls_certificate", &mut self.tls_certificate);
        keys.path("tls_key", &mut self.tls_key);
        keys.path("tls_client_ca", &mut self.tls_client_ca);
        let choices = [
            ("none", ClientAuth::None),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ];
        keys.choice("tls_client_auth", &mut self.tls_client_auth, &choices);
    }
}
