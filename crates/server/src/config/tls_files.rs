//! Files of a TLS connection that this node makes to, or takes from, another server.

use std::path::{Path, PathBuf};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::reader::Reader;

/// PEM files of a TLS connection between servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that the other's certificate is checked against.
    pub ca: Option<PathBuf>,
    /// Own certificate chain.
    pub certificate: Option<PathBuf>,
    /// Own private key.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the three keys, whose names begin with `prefix`.
    pub(super) fn read(&mut self, prefix: &str, keys: &mut Reader<'_>) {
        keys.path(&format!("{prefix}ca"), &mut self.ca);
        keys.path(&format!("{prefix}certificate"), &mut self.certificate);
        keys.path(&format!("{prefix}key"), &mut self.key);
    }

    /// Whether any is named.
    pub fn any(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some() || self.key.is_some()
    }

    /// Whether all are named.
    pub fn all(&self) -> bool {
        self.ca.is_some() && self.certificate.is_some() && self.key.is_some()
    }

    /// The name of the key that lacks its counterpart: a certificate is of no use without its private key, nor the other way round.
    pub(super) fn half_of_a_pair(&self) -> Option<(&'static str, &'static str)> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Some(("key", "certificate")),
            (None, Some(_)) => Some(("certificate", "key")),
            _ => None,
        }
    }

    /// What is wrong with the files, as (end of the key's name, mistake).
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let certificates = [("ca", &self.ca), ("certificate", &self.certificate)];
        let mut mistakes: Vec<_> = certificates
            .into_iter()
            .filter_map(|(key, file)| Some((key, check_certificates(file.as_deref()?).err()?)))
            .collect();
        if let Some(path) = &self.key
            && let Err(cause) = PrivateKeyDer::from_pem_file(path)
        {
            mistakes.push(("key", format!("{}: {cause}", path.display())));
        }
        mistakes
    }
}

fn check_certificates(path: &Path) -> Result<(), String> {
    let show = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
    let mut certificates = CertificateDer::pem_file_iter(path).map_err(|cause| show(&cause))?;
    match certificates.next() {
        None => Err(show(&"no certificate in it")),
        Some(Err(cause)) => Err(show(&cause)),
        Some(Ok(_)) => certificates
            .find_map(Result::err)
            .map_or(Ok(()), |cause| Err(show(&cause))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_every_one_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let good = TlsFiles {
            ca: write("ca.pem", &made.cert.pem()),
            certificate: write("cert.pem", &made.cert.pem()),
            key: write("key.pem", &made.signing_key.serialize_pem()),
        };
        assert_eq!(good.mistakes(), []);
        let bad = TlsFiles {
            ca: Some(dir.path().join("nowhere.pem")),
            certificate: write("empty.pem", ""),
            key: good.ca.clone(),
        };
        let keys: Vec<_> = bad.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["ca", "certificate", "key"]);
    }
}
