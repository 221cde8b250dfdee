//! The webhook's certificates as they lie in their Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use vnp_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use vnp_plan::webhook::certificates::{Authority, CertificateFacts, Leaf};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Name of the Secret.
pub const TLS_SECRET: &str = "virtualnodepool-webhook-tls";
/// Key of the authorities, newest first, PEM: what `caBundle` holds.
pub(super) const AUTHORITIES: &str = "ca.crt";
/// Key of the newest authority's private key.
pub(super) const AUTHORITY_KEY: &str = "ca.key";
/// Key of the serving certificate.
pub(super) const LEAF: &str = "tls.crt";
/// Key of its private key.
pub(super) const LEAF_KEY: &str = "tls.key";

/// The Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSecret {
    /// Its resourceVersion.
    pub resource_version: String,
    /// We made it.
    pub ours: bool,
    /// Its values.
    pub(super) data: BTreeMap<String, ByteString>,
}

// By hand: there are private keys in it.
impl fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("TlsSecret")
            .field("resource_version", &self.resource_version)
            .field("ours", &self.ours)
            .field("keys", &keys)
            .finish()
    }
}

impl From<Secret> for TlsSecret {
    fn from(secret: Secret) -> Self {
        let labels = secret.metadata.labels.unwrap_or_default();
        Self {
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
            ours: labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY),
            data: secret.data.unwrap_or_default(),
        }
    }
}

impl TlsSecret {
    pub(super) fn bytes(&self, key: &str) -> &[u8] {
        self.data.get(key).map_or(&[], |value| value.0.as_slice())
    }

    pub(super) fn text(&self, key: &str) -> &str {
        std::str::from_utf8(self.bytes(key)).unwrap_or_default()
    }
}

/// What can be read of the Secret.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// What decides about renewals.
    pub facts: CertificateFacts,
    /// The authorities, in the order of `facts.authorities`.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The leaf with its key.
    pub served: Option<Arc<CertifiedKey>>,
}

impl Keyring {
    /// Reads what can be read. What can't is as good as absent: it is made anew.
    pub fn read(secret: &TlsSecret) -> Self {
        let (authorities, found): (Vec<_>, Vec<_>) = certificates(secret.bytes(AUTHORITIES))
            .into_iter()
            .filter_map(|der| Some((der.clone(), authority(&der)?)))
            .unzip();
        let signs = authorities.first().is_some_and(|newest| {
            let key = PrivateKeyDer::from_pem_slice(secret.bytes(AUTHORITY_KEY));
            key.is_ok_and(|key| certified(vec![newest.clone()], key).is_some())
        });
        let chain = certificates(secret.bytes(LEAF));
        let key = PrivateKeyDer::from_pem_slice(secret.bytes(LEAF_KEY)).ok();
        let served = key.and_then(|key| certified(chain, key));
        let facts = CertificateFacts {
            leaf: served
                .as_ref()
                .and_then(|s| leaf(s.cert.first()?, &authorities, &found)),
            authorities: found,
            signs,
        };
        Self {
            facts,
            authorities,
            served,
        }
    }

    /// The bundle that makes an API server trust it, PEM.
    pub fn bundle(&self) -> String {
        bundle(&self.authorities)
    }
}

/// Certificates as PEM.
pub(super) fn bundle(certificates: &[CertificateDer<'static>]) -> String {
    certificates
        .iter()
        .map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec())))
        .collect()
}

/// The fingerprints of the certificates in a PEM bundle; what can't be read is left out.
pub fn fingerprints(bundle: &[u8]) -> BTreeSet<String> {
    certificates(bundle).iter().map(fingerprint).collect()
}

fn fingerprint(der: &CertificateDer<'_>) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect()
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).flatten().collect()
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<Arc<CertifiedKey>> {
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).ok()?;
    // `from_der` lets keys pass of which it can't say whether they fit.
    certified.keys_match().ok()?;
    Some(Arc::new(certified))
}

fn validity(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    Some((time(validity.not_before)?, time(validity.not_after)?))
}

fn authority(der: &CertificateDer<'_>) -> Option<Authority> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let (not_before, not_after) = validity(&certificate)?;
    Some(Authority {
        id: fingerprint(der),
        not_before,
        not_after,
    })
}

fn leaf(der: &CertificateDer<'_>, authorities: &[CertificateDer<'_>], found: &[Authority]) -> Option<Leaf> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let (not_before, not_after) = validity(&certificate)?;
    let signed_by = |authority: &CertificateDer<'_>| {
        parse_x509_certificate(authority).is_ok_and(|(_, authority)| {
            authority.subject() == certificate.issuer()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    };
    let issuer = authorities.iter().zip(found).find(|(der, _)| signed_by(der));
    Some(Leaf {
        issuer: issuer.map(|(_, authority)| authority.id.clone()),
        names: names(&certificate),
        not_before,
        not_after,
    })
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
