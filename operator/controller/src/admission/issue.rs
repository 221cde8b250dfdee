//! Makes certificates: what [`Rotation`] says is due.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::CertificateDer;
use vnp_plan::webhook::certificates::{AUTHORITY_LIFE, BACKDATE, LEAF_LIFE, Rotation};

use super::keyring::{AUTHORITIES, AUTHORITY_KEY, Keyring, LEAF, LEAF_KEY, TlsSecret, bundle};

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refuses a key, a name or a time.
    #[error(
        "the webhook's certificate can't be made; delete the Secret with it if it is damaged, and check --webhook-service and --webhook-url"
    )]
    Certificate(#[from] rcgen::Error),
    /// The clock says something that no certificate can carry.
    #[error("the webhook's certificate can't be made: {0} is out of range; set the clock")]
    Time(Timestamp),
}

/// What the Secret is to hold after a rotation.
///
/// # Errors
/// [`IssueError`] when a certificate can't be made.
pub fn carry_out(
    rotation: Rotation,
    secret: Option<&TlsSecret>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<BTreeMap<String, ByteString>, IssueError> {
    let mut data = secret.map(|s| s.data.clone()).unwrap_or_default();
    let keyring = secret.map(Keyring::read).unwrap_or_default();
    let mut put = |key: &str, pem: String| drop(data.insert(key.to_owned(), ByteString(pem.into_bytes())));
    match rotation {
        Rotation::Keep { .. } => {}
        Rotation::Anew => {
            let made = Made::new(now)?;
            let (certificate, key) = leaf(&made.issuer, names, now)?;
            let valid = keyring
                .facts
                .authorities
                .iter()
                .zip(&keyring.authorities)
                .filter(|(facts, _)| now < facts.not_after);
            put(AUTHORITIES, made.before(valid.map(|(_, der)| der)));
            put(AUTHORITY_KEY, made.issuer.key().serialize_pem());
            put(LEAF, certificate);
            put(LEAF_KEY, key);
        }
        Rotation::Authority => {
            let made = Made::new(now)?;
            put(AUTHORITIES, made.before(&keyring.authorities));
            put(AUTHORITY_KEY, made.issuer.key().serialize_pem());
        }
        Rotation::Leaf => {
            let key = KeyPair::from_pem(secret.map(|s| s.text(AUTHORITY_KEY)).unwrap_or_default())?;
            let newest = secret.map(|s| s.text(AUTHORITIES)).unwrap_or_default();
            let (certificate, key) = leaf(&Issuer::from_ca_cert_pem(newest, key)?, names, now)?;
            put(LEAF, certificate);
            put(LEAF_KEY, key);
        }
        Rotation::Prune => {
            let newest = keyring.authorities.get(..1).unwrap_or_default();
            put(AUTHORITIES, bundle(newest));
        }
    }
    Ok(data)
}

/// A fresh authority.
struct Made {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Made {
    fn new(now: Timestamp) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        // A name of its own for each, so that a verifier never takes one for the other.
        let mut params = params(
            &format!("virtualnodepool-webhook-ca-{}", now.as_second()),
            now,
            AUTHORITY_LIFE,
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let der = params.self_signed(&key)?.der().clone();
        Ok(Self {
            der,
            issuer: Issuer::new(params, key),
        })
    }

    fn before<'a>(&'a self, others: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
        let all: Vec<_> = std::iter::once(&self.der).chain(others).cloned().collect();
        bundle(&all)
    }
}

/// Certificate and key, both PEM.
fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<(String, String), IssueError> {
    let key = KeyPair::generate()?;
    let mut params = params("virtualnodepool-webhook", now, LEAF_LIFE)?;
    let names: Vec<String> = names.iter().cloned().collect();
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(name: &str, now: Timestamp, life: jiff::SignedDuration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now, -BACKDATE)?;
    params.not_after = moment(now, life)?;
    Ok(params)
}

fn moment(now: Timestamp, after: jiff::SignedDuration) -> Result<OffsetDateTime, IssueError> {
    let time = now.checked_add(after).map_err(|_| IssueError::Time(now))?;
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| IssueError::Time(now))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use vnp_plan::webhook::certificates::{CertificateFacts, rotation};

    use super::*;
    use crate::admission::keyring::fingerprints;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn names() -> BTreeSet<String> {
        ["127.0.0.1", "virtualnodepool-webhook.virtualnodepool-system.svc"]
            .map(str::to_owned)
            .into()
    }

    fn secret(data: BTreeMap<String, ByteString>) -> TlsSecret {
        TlsSecret {
            resource_version: "1".into(),
            ours: true,
            data,
        }
    }

    fn anew() -> TlsSecret {
        secret(carry_out(Rotation::Anew, None, &names(), NOW).unwrap())
    }

    fn after(rotation: Rotation, before: &TlsSecret, now: Timestamp) -> TlsSecret {
        secret(carry_out(rotation, Some(before), &names(), now).unwrap())
    }

    fn facts(secret: &TlsSecret) -> CertificateFacts {
        Keyring::read(secret).facts
    }

    #[test]
    fn what_is_made_reads_as_what_was_asked_for() {
        let facts = facts(&anew());
        let leaf = facts.leaf.clone().unwrap();
        assert_eq!(leaf.names, names());
        assert_eq!(leaf.issuer, Some(facts.authorities[0].id.clone()));
        assert_eq!(leaf.not_before, NOW - BACKDATE);
        assert_eq!(leaf.not_after, NOW + LEAF_LIFE);
        assert_eq!(facts.authorities[0].not_after, NOW + AUTHORITY_LIFE);
        assert!(facts.signs);
        assert!(matches!(
            rotation(NOW, &facts, &names(), None),
            Rotation::Keep { .. }
        ));
    }

    #[test]
    fn each_rotation_changes_what_it_says() {
        let later = NOW + SignedDuration::from_hours(24);
        let first = anew();
        let renewed = after(Rotation::Leaf, &first, later);
        assert_eq!(facts(&renewed).authorities, facts(&first).authorities);
        assert_eq!(facts(&renewed).leaf.unwrap().not_after, later + LEAF_LIFE);

        let two = after(Rotation::Authority, &renewed, later);
        assert_eq!(facts(&two).leaf, facts(&renewed).leaf);
        assert_eq!(facts(&two).authorities.len(), 2);
        assert!(facts(&two).signs);
        let issuer = facts(&two).leaf.unwrap().issuer;
        assert_eq!(issuer, Some(facts(&two).authorities[1].id.clone()));

        let switched = after(Rotation::Leaf, &two, later);
        let pruned = after(Rotation::Prune, &switched, later);
        let only = facts(&pruned);
        assert_eq!(only.authorities, facts(&two).authorities[..1]);
        assert_eq!(only.leaf.unwrap().issuer, Some(only.authorities[0].id.clone()));
        assert_eq!(
            fingerprints(Keyring::read(&two).bundle().as_bytes()),
            facts(&two).authorities.iter().map(|a| a.id.clone()).collect()
        );
    }

    #[test]
    fn damage_is_seen_as_what_it_is() {
        let whole = anew();
        let with = |key: &str, value: &[u8]| {
            let mut damaged = whole.clone();
            damaged.data.insert(key.to_owned(), ByteString(value.to_vec()));
            facts(&damaged)
        };
        let other = anew();
        assert!(!with(AUTHORITY_KEY, b"").signs);
        assert!(!with(AUTHORITY_KEY, other.bytes(AUTHORITY_KEY)).signs);
        assert_eq!(with(LEAF_KEY, other.bytes(LEAF_KEY)).leaf, None);
        assert_eq!(with(LEAF, b"-----BEGIN CERTIFICATE-----").leaf, None);
        assert_eq!(with(AUTHORITIES, b"\xff").authorities, []);
        let foreign = with(AUTHORITIES, other.bytes(AUTHORITIES));
        assert_eq!(foreign.leaf.unwrap().issuer, None);
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", anew());
        assert!(shown.contains(LEAF_KEY) && !shown.contains("BEGIN"), "{shown}");
    }
}
