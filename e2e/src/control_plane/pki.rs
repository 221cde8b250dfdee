//! The certificates of one run: a CA, the API server's, and one per client identity.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::{
    AuthInfo, Cluster, Context as KubeconfigContext, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::identity::Identity;

#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
    ca: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Writes the certificates of CA and API server and the key pair for ServiceAccount tokens into `folder`.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name("virtualnodepool-e2e", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let pki = Self {
            folder: folder.to_owned(),
            ca: Issuer::new(params, key),
        };

        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        let mut serving = CertificateParams::new(names)?;
        serving.distinguished_name = distinguished_name("kube-apiserver", &[]);
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = pki.issue(&serving)?;
        fs::write(pki.path("apiserver.crt"), certificate)?;
        fs::write(pki.path("apiserver.key"), key)?;
        let tokens = KeyPair::generate()?;
        fs::write(pki.path("service-account.key"), tokens.serialize_pem())?;
        fs::write(pki.path("service-account.pub"), tokens.public_key_pem())?;
        Ok(pki)
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    pub(super) fn write_kubeconfig(&self, path: &Path, server: &str, identity: &Identity) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(identity.user(), identity.groups());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.issue(&params)?;
        let certificate_path = path.with_extension("crt");
        let key_path = path.with_extension("key");
        fs::write(&certificate_path, certificate)?;
        fs::write(&key_path, key)?;
        let auth = AuthInfo {
            client_certificate: Some(certificate_path.display().to_string()),
            client_key: Some(key_path.display().to_string()),
            ..AuthInfo::default()
        };
        self.write(path, server, identity.user(), auth)
    }

    pub(super) fn write_token_kubeconfig(
        &self,
        path: &Path,
        server: &str,
        user: &str,
        token: &str,
    ) -> Result<()> {
        let token_path = path.with_extension("token");
        fs::write(&token_path, token)?;
        let auth = AuthInfo {
            token_file: Some(token_path.display().to_string()),
            ..AuthInfo::default()
        };
        self.write(path, server, user, auth)
    }

    fn write(&self, path: &Path, server: &str, user: &str, auth_info: AuthInfo) -> Result<()> {
        const CLUSTER: &str = "virtualnodepool-e2e";
        let kubeconfig = Kubeconfig {
            api_version: Some("v1".into()),
            kind: Some("Config".into()),
            clusters: vec![NamedCluster {
                name: CLUSTER.into(),
                cluster: Some(Cluster {
                    server: Some(server.into()),
                    certificate_authority: Some(self.path("ca.crt").display().to_string()),
                    ..Cluster::default()
                }),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: user.into(),
                auth_info: Some(auth_info),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: CLUSTER.into(),
                context: Some(KubeconfigContext {
                    cluster: CLUSTER.into(),
                    user: Some(user.into()),
                    ..KubeconfigContext::default()
                }),
                ..NamedContext::default()
            }],
            current_context: Some(CLUSTER.into()),
            ..Kubeconfig::default()
        };
        // JSON is YAML: no second serializer is needed for a file that machines read.
        fs::write(path, serde_json::to_vec_pretty(&kubeconfig)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Certificate and key, both PEM.
    fn issue(&self, params: &CertificateParams) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.ca)?.pem(), key.serialize_pem()))
    }
}

/// Kubernetes takes the user from the common name and the groups from the organizations.
fn distinguished_name(user: &str, groups: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name
}
