//! Self-made certificates: a CA and a leaf, and when which of them is replaced.
//!
//! A leaf is replaced at two thirds of its life. A CA is replaced in steps, so that at no time a replica serves what the
//! API server does not trust: the new CA joins the trusted ones; when that has reached the API servers the new CA signs
//! a leaf; when every replica serves that leaf, the old CA is dropped. Each step is one write of the Secret, made by the
//! leader, and [`Material::next`] says which one is due; nothing else is remembered, so a new leader goes on where the
//! last one stopped.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// How certificates are made and replaced.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The names and addresses that the API server may call the webhook by.
    pub names: Vec<String>,
    /// How long a CA is valid.
    pub ca: SignedDuration,
    /// How long a leaf is valid.
    pub leaf: SignedDuration,
    /// How long a CA is among the trusted ones before it signs: API servers follow the configuration within seconds.
    pub spread: SignedDuration,
    /// How old a leaf is before the CA of the one before is dropped, however soon every known replica serves it: one that
    /// is cut off from the API server for a while may still be called.
    pub overlap: SignedDuration,
}

/// Clocks differ: what is made now is valid since an hour ago.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// A CA and a leaf, as the Secret keeps them, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The CAs that are trusted, oldest first.
    pub trusted: Vec<String>,
    /// The key of the newest CA.
    pub ca_key: String,
    /// The leaf.
    pub leaf: String,
    /// The leaf's key.
    pub leaf_key: String,
}

/// What the leader knows beside the Secret.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// How long the newest CA has been in the webhook configuration; none when it is not there.
    pub trusted_for: Option<SignedDuration>,
    /// Does every replica serve the leaf?
    pub served: bool,
}

/// A step of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Everything anew: what is there cannot be used.
    Renew,
    /// A new CA joins the trusted ones.
    AddCa,
    /// The newest CA signs a new leaf.
    NewLeaf,
    /// Only the newest CA stays trusted.
    DropCas,
}

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// They cannot be read.
    #[error("cannot read a certificate: {0}")]
    Read(String),
}

impl Material {
    /// A new CA and a leaf that it signs.
    ///
    /// # Errors
    ///
    /// A name is none, or the cryptography fails.
    pub fn new(policy: &Policy, now: Timestamp) -> Result<Self, Error> {
        let (ca, ca_key) = ca(policy, now)?;
        let (leaf, leaf_key) = leaf(policy, &ca, &ca_key, now)?;
        Ok(Self { trusted: vec![ca], ca_key, leaf, leaf_key })
    }

    /// Which step is due; none when all is well.
    pub fn due(&self, policy: &Policy, progress: Progress, now: Timestamp) -> Option<Step> {
        let (ca, leaf) = match (self.usable_ca(now), self.usable_leaf(now)) {
            (Some(ca), Some(leaf)) => (ca, leaf),
            // Nobody can be served with such a leaf: there is nothing to be careful about.
            (Some(_), None) => return Some(Step::NewLeaf),
            (None, Some(_)) => return Some(Step::AddCa),
            (None, None) => return Some(Step::Renew),
        };
        if leaf.signer != ca.own_id {
            let spread = progress.trusted_for.is_some_and(|since| since >= policy.spread);
            return spread.then_some(Step::NewLeaf);
        }
        if leaf.ages(now) || !leaf.is_for(&policy.names) {
            return Some(Step::NewLeaf);
        }
        if self.trusted.len() > 1 {
            let old = now.duration_since(leaf.made()) >= policy.overlap;
            return (old && progress.served).then_some(Step::DropCas);
        }
        ca.ages(now).then_some(Step::AddCa)
    }

    /// The material after a step.
    ///
    /// # Errors
    ///
    /// A name is none, the cryptography fails, or what is there cannot be read.
    pub fn take(&self, step: Step, policy: &Policy, now: Timestamp) -> Result<Self, Error> {
        let mut next = self.clone();
        match step {
            Step::Renew => {
                next = Self::new(policy, now)?;
                // What was trusted stays so: replicas may serve another leaf for a moment yet.
                next.trusted.splice(0..0, self.valid_cas(now).map(|(pem, _)| pem.clone()));
            }
            Step::AddCa => {
                let (ca, key) = ca(policy, now)?;
                next.trusted = self.valid_cas(now).map(|(pem, _)| pem.clone()).chain([ca]).collect();
                next.ca_key = key;
            }
            Step::NewLeaf => {
                let ca = self.trusted.last().ok_or_else(|| Error::Read("there is no CA".to_owned()))?;
                (next.leaf, next.leaf_key) = leaf(policy, ca, &self.ca_key, now)?;
            }
            Step::DropCas => {
                next.trusted.drain(..next.trusted.len().saturating_sub(1));
            }
        }
        Ok(next)
    }

    /// The trusted CAs as one PEM text: the `caBundle`.
    pub fn bundle(&self) -> String {
        self.trusted.concat()
    }

    /// What the leaf is told by: the SHA-256 of its DER form, hex.
    pub fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.leaf.as_bytes());
        der.map(|der| hex::encode(Sha256::digest(&der))).unwrap_or_default()
    }

    /// The newest CA, when it can sign.
    fn usable_ca(&self, now: Timestamp) -> Option<Facts> {
        let ca = Facts::read(self.trusted.last()?).ok()?;
        (ca.not_after > now && ca.has(&self.ca_key)).then_some(ca)
    }

    /// The leaf, when it can be served and a trusted CA signed it.
    fn usable_leaf(&self, now: Timestamp) -> Option<Facts> {
        let leaf = Facts::read(&self.leaf).ok()?;
        let signed = self.valid_cas(now).any(|(_, ca)| ca.own_id == leaf.signer);
        (signed && leaf.not_after > now && leaf.has(&self.leaf_key)).then_some(leaf)
    }

    fn valid_cas(&self, now: Timestamp) -> impl Iterator<Item = (&String, Facts)> {
        let cas = self.trusted.iter().filter_map(|pem| Some((pem, Facts::read(pem).ok()?)));
        cas.filter(move |(_, ca)| ca.not_after > now)
    }
}

/// Splits a PEM text of several certificates into one text each; what cannot be read is left out.
pub(super) fn certificates(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END).map(|part| format!("{}\n", part.trim()));
    parts.filter(|part| part.contains(END) && Facts::read(part).is_ok()).collect()
}

fn ca(policy: &Policy, now: Timestamp) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    valid(&mut params, now - BACKDATED, now + policy.ca)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Each CA has a name of its own: two with one name are told apart by some verifiers only.
    params.distinguished_name.push(DnType::CommonName, format!("sluice-webhook CA {now:.0}"));
    Ok((params.self_signed(&key)?.pem().replace("\r\n", "\n"), key.serialize_pem().replace("\r\n", "\n")))
}

fn leaf(policy: &Policy, ca: &str, ca_key: &str, now: Timestamp) -> Result<(String, String), Error> {
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(policy.names.clone())?;
    // No leaf outlives its CA.
    let until = (now + policy.leaf).min(Facts::read(ca)?.not_after);
    valid(&mut params, now - BACKDATED, until)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, "sluice-webhook");
    Ok((params.signed_by(&key, &issuer)?.pem().replace("\r\n", "\n"), key.serialize_pem().replace("\r\n", "\n")))
}

/// What decisions need of a certificate.
struct Facts {
    not_before: Timestamp,
    not_after: Timestamp,
    own_id: Vec<u8>,
    signer: Vec<u8>,
    names: Vec<String>,
    public_key: Vec<u8>,
}

impl Facts {
    fn read(pem: &str) -> Result<Self, Error> {
        let wrong = |what: String| Error::Read(what);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| wrong(error.to_string()))?;
        let moment = |time: ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|e| wrong(e.to_string()));
        let mut facts = Self {
            not_before: moment(parsed.validity().not_before)?,
            not_after: moment(parsed.validity().not_after)?,
            own_id: Vec::new(),
            signer: Vec::new(),
            names: Vec::new(),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.own_id = id.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.signer = id.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.names = names.general_names.iter().filter_map(name).collect();
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn made(&self) -> Timestamp {
        self.not_before + BACKDATED
    }

    /// Are two thirds of its life over?
    fn ages(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.made());
        now.duration_since(self.made()) >= life * 2 / 3
    }

    fn has(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| self.public_key == key.public_key_raw())
    }

    fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) -> Result<(), Error> {
    // The reader of certificates has the type of time that their maker wants.
    let time = |moment: Timestamp| {
        ASN1Time::from_timestamp(moment.as_second()).map_err(|error| Error::Read(error.to_string()))
    };
    params.not_before = time(from)?.to_datetime();
    params.not_after = time(until)?.to_datetime();
    Ok(())
}

#[cfg(test)]
mod tests;
