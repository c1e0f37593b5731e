//! TLS: which versions, and the certificate that is served. It may be replaced at any time; open connections go on.

pub mod files;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The oldest TLS version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Oldest {
    /// TLS 1.2, for API servers or proxies that cannot do better.
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[value(name = "1.3")]
    Tls13,
}

/// The certificate that is served, shared by the server, its source and the metrics.
#[derive(Debug, Clone, Default)]
pub struct Certificate(Arc<ArcSwapOption<Pair>>);

/// A certificate chain with its key.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

/// Why a certificate is not taken. The one before stays in use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The chain is not PEM, or there is no certificate in it.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The key is not PEM, or there is no private key in it.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not fit the first certificate of the chain: {0}")]
    Pair(rustls::Error),
    /// It is too old, and the one in use is not.
    #[error("the certificate has expired at {0}; the one in use is still valid")]
    Expired(Timestamp),
}

impl Certificate {
    /// Serves another certificate from the next connection on: a chain, leaf first, and its key, both PEM. Returns when
    /// the leaf expires.
    ///
    /// # Errors
    ///
    /// The pair cannot be served, or is worse than the one in use, which stays.
    pub fn set(&self, chain: &[u8], key: &[u8]) -> Result<Timestamp, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Chain(error.to_string()))?;
        let Some(leaf) = chain.first() else { return Err(CertificateError::Chain("no certificate in it".to_owned())) };
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| CertificateError::Chain(error.to_string()))?;
        let not_after = parsed.validity().not_after.timestamp();
        let not_after = Timestamp::from_second(not_after).map_err(|e| CertificateError::Chain(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        // `from_der` compares the public keys.
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(CertificateError::Pair)?;
        let now = Timestamp::now();
        if not_after <= now && self.not_after().is_some_and(|current| current > now) {
            return Err(CertificateError::Expired(not_after));
        }
        self.0.store(Some(Arc::new(Pair { key: Arc::new(key), not_after })));
        Ok(not_after)
    }

    /// When the leaf in use expires; none while there is no certificate.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.0.load().as_ref().map(|pair| pair.not_after)
    }

    /// How the server speaks TLS with this certificate.
    ///
    /// # Errors
    ///
    /// The cryptography offers none of the versions: a mistake in how this program was built.
    pub fn server_config(&self, oldest: Oldest) -> Result<ServerConfig, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match oldest {
            Oldest::Tls12 => &[&version::TLS13, &version::TLS12],
            Oldest::Tls13 => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // No resumption: a resumed session never sees a renewed certificate, and the API server does not ask for one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| Arc::clone(&pair.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn pair(until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn keeps_the_last_good_pair() {
        let certificate = Certificate::default();
        let ((one, key), (other, _)) = (pair(2050), pair(2060));
        let not_after = certificate.set(one.as_bytes(), key.as_bytes()).unwrap();
        for (chain, key) in [(&other, &key), (&one, &other), (&key, &key), (&String::new(), &key)] {
            assert!(certificate.set(chain.as_bytes(), key.as_bytes()).is_err());
            assert_eq!(certificate.not_after(), Some(not_after));
        }
        let cut = &one[..one.len() / 2];
        assert!(matches!(certificate.set(cut.as_bytes(), key.as_bytes()), Err(CertificateError::Chain(_))));
    }

    #[test]
    fn an_expired_leaf_does_not_replace_a_valid_one_and_is_better_than_none() {
        let certificate = Certificate::default();
        let ((old, old_key), (new, new_key)) = (pair(2001), pair(2050));
        certificate.set(old.as_bytes(), old_key.as_bytes()).unwrap();
        certificate.set(new.as_bytes(), new_key.as_bytes()).unwrap();
        let error = certificate.set(old.as_bytes(), old_key.as_bytes()).unwrap_err();
        assert!(matches!(error, CertificateError::Expired(_)), "{error}");
    }

    #[test]
    fn takes_a_chain() {
        let ((leaf, key), (ca, _)) = (pair(2050), pair(2060));
        let certificate = Certificate::default();
        certificate.set(format!("{leaf}{ca}").as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.0.load().as_ref().unwrap().key.cert.len(), 2);
    }
}
