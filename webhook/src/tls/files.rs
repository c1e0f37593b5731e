//! A certificate from two files, read again every second.
//!
//! The content is compared, not the file: a watch on an inode misses the second swap of the `..data` link that Kubernetes
//! mounts, and a watch on a folder misses what lies behind a link.

use super::Certificate;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Certificate and key in files.
#[derive(Debug)]
pub struct Files {
    chain: PathBuf,
    key: PathBuf,
    seen: Option<Seen>,
    /// The leaf whose end has been reported.
    expired: Option<Timestamp>,
}

/// What the files held, or why they could not be read: a message is due when this changes.
type Seen = Result<(Vec<u8>, Vec<u8>), String>;

impl Files {
    /// A chain, leaf first, and its key, both PEM.
    pub fn new(chain: &Path, key: &Path) -> Self {
        Self { chain: chain.to_owned(), key: key.to_owned(), seen: None, expired: None }
    }

    /// Reads the files and serves what they hold, if it changed. True while there is a certificate to serve.
    pub fn poll(&mut self, certificate: &Certificate) -> bool {
        let now = self.read();
        if self.seen.as_ref() != Some(&now) {
            // Key and certificate may be seconds apart: the pair does not fit now, and is looked at again when either
            // file changes.
            let outcome = match &now {
                Ok((chain, key)) => certificate.set(chain, key).map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            let (cert, key) = (self.chain.display(), self.key.display());
            match outcome {
                Ok(until) => tracing::info!("serving the certificate in {cert} and {key}, valid until {until}"),
                Err(error) if certificate.not_after().is_some() => {
                    tracing::warn!("the certificate before stays in use: {cert}, {key}: {error}");
                }
                Err(error) => tracing::error!("no certificate to serve: {cert}, {key}: {error}"),
            }
            self.seen = Some(now);
        }
        self.report_expiry(certificate);
        certificate.not_after().is_some()
    }

    fn read(&self) -> Seen {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        Ok((read(&self.chain)?, read(&self.key)?))
    }

    /// By the wall clock: timers stand still while a machine is suspended or moved.
    fn report_expiry(&mut self, certificate: &Certificate) {
        let Some(until) = certificate.not_after().filter(|until| *until <= Timestamp::now()) else { return };
        if self.expired != Some(until) {
            self.expired = Some(until);
            tracing::error!("the certificate in use has expired at {until}: clients refuse it; put a new one in place");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::fs;

    #[test]
    fn serves_an_expired_leaf_when_there_is_no_other_and_reports_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (certificate, mut files) = (Certificate::default(), Files::new(&chain, &key));
        assert!(!files.poll(&certificate), "there are no files yet");
        for (year, has_expired) in [(2001, true), (2060, false)] {
            let pair = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(year, 1, 1);
            fs::write(&chain, params.self_signed(&pair).unwrap().pem()).unwrap();
            fs::write(&key, pair.serialize_pem()).unwrap();
            assert!(files.poll(&certificate));
            assert_eq!(files.expired == certificate.not_after(), has_expired);
        }
    }
}
