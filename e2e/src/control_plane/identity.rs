//! Who talks to the API server.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// A user and its groups, as a client certificate names them. The user is what the audit log shows.
#[derive(Clone, Debug)]
pub struct Identity {
    user: String,
    groups: &'static [&'static str],
}

impl Identity {
    /// The person at the keyboard: cluster admin.
    #[must_use]
    pub fn admin() -> Self {
        Self::privileged("admin")
    }

    /// An identity with all rights and a name of its own, so that the audit log tells it from the admin.
    #[must_use]
    pub fn privileged(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            groups: &["system:masters"],
        }
    }

    /// An authenticated user without any rights.
    #[must_use]
    pub fn unprivileged(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            groups: &[],
        }
    }

    /// A component of the control plane, with the rights Kubernetes gives it.
    pub(super) fn component(name: &str) -> Self {
        Self {
            user: format!("system:{name}"),
            groups: &[],
        }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn groups(&self) -> &[&'static str] {
        self.groups
    }

    pub(super) fn file_stem(&self) -> String {
        self.user.replace(':', "-")
    }
}

/// A client for the kubeconfig at `path`.
///
/// # Errors
/// When the file can't be read or names certificates that can't.
pub(super) async fn client(path: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

pub(super) async fn service_account_token(client: Client, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("ask for a token of ServiceAccount {namespace}/{name}"))?;
    answer
        .status
        .and_then(|status| status.token)
        .context("the token request was answered without a token")
}
