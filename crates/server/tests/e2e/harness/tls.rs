//! Certificates for a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

/// A certificate authority, and a server's certificate of it, as files.
pub struct Authority {
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
    /// The server's certificate, PEM.
    pub certificate: PathBuf,
    /// The server's key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Makes both in a directory; the server's certificate is for that address and `localhost`.
    pub fn new(directory: &Path, address: std::net::IpAddr) -> Authority {
        let authority_key = KeyPair::generate().expect("a key can be made");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        authority
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Authority of a test");
        let ca = authority
            .self_signed(&authority_key)
            .expect("an authority signs itself");

        let key = KeyPair::generate().expect("a key can be made");
        let mut server =
            CertificateParams::new(vec!["localhost".to_owned()]).expect("localhost is a name");
        server.subject_alt_names.push(SanType::IpAddress(address));
        let issuer = Issuer::new(authority, authority_key);
        let certificate = server.signed_by(&key, &issuer).expect("an authority signs");

        let file = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).expect("the directory can be written");
            path
        };
        Authority {
            ca: file("ca.pem", ca.pem()),
            certificate: file("server.pem", certificate.pem()),
            key: file("server.key", key.serialize_pem()),
        }
    }
}
