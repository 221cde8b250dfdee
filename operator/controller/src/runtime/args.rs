//! The command line and its environment variables.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use vnp_plan::placement::PATH;
use vnp_plan::webhook::{Address, Url};

/// `vnp-operator`.
#[derive(Debug, Parser)]
#[command(
    name = "vnp-operator",
    version,
    about = "Operates pools of virtual nodes from VirtualNodePool objects"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the operator until it is told to stop.
    Run(RunArgs),
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Namespaces in which provider workloads may be managed, separated by commas.
    #[arg(long, env = "VNP_PROVIDER_NAMESPACES", value_delimiter = ',', default_value = vnp_crds::KUBE_SYSTEM)]
    pub provider_namespaces: Vec<String>,

    /// Most evictions per second of all pools together (one cloud account has one quota); 0: no such cap.
    #[arg(long, env = "VNP_EVICTIONS_PER_SECOND", default_value_t = 0)]
    pub evictions_per_second: u32,

    /// Namespace of the operator: its Lease and its Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = vnp_crds::OPERATOR_NAMESPACE)]
    pub namespace: String,

    /// Address of /livez and /readyz; `[::]` is IPv4 and IPv6, as far as the host has them; port 0 picks a free one, which
    /// the log then names.
    #[arg(long, env = "VNP_HEALTH_ADDR", default_value = "[::]:8081")]
    pub health_addr: SocketAddr,

    /// Address of /metrics, as above; port 0 picks a free one, which the log then names.
    #[arg(long, env = "VNP_METRICS_ADDR", default_value = "[::]:8080")]
    pub metrics_addr: SocketAddr,

    /// The pod webhook.
    #[command(flatten)]
    pub webhook: WebhookArgs,

    /// Shape of the log lines on standard error. The level is set by RUST_LOG, default `info`.
    #[arg(long, env = "VNP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Timing of the leader lease.
    #[command(flatten)]
    pub lease: LeaseArgs,
}

/// The pod webhook.
#[derive(Clone, Debug, Args)]
pub struct WebhookArgs {
    /// Address of the pod webhook, HTTPS, as above; port 0 picks a free one, which the log then names.
    #[arg(long, env = "VNP_WEBHOOK_ADDR", default_value = "[::]:9443")]
    pub webhook_addr: SocketAddr,

    /// Service in the operator's namespace through which the API server calls the webhook, on port 443.
    #[arg(long, env = "VNP_WEBHOOK_SERVICE", default_value = "virtualnodepool-webhook")]
    pub webhook_service: String,

    /// URL by which the API server calls the webhook instead, for an operator outside the cluster: https://<host>:<port>/mutate.
    #[arg(long, env = "VNP_WEBHOOK_URL")]
    pub webhook_url: Option<Uri>,

    /// Namespace of the pod that is created as a dry run to try the webhook.
    #[arg(
        long,
        env = "VNP_WEBHOOK_PROBE_NAMESPACE",
        default_value = "virtualnodepool-probe"
    )]
    pub webhook_probe_namespace: String,

    /// Seconds between two such tries while the webhook answers.
    #[arg(long, env = "VNP_WEBHOOK_PROBE_SECONDS", default_value_t = 120)]
    pub webhook_probe_seconds: u16,

    /// Serves no webhook and leaves its configuration alone.
    #[arg(long, env = "VNP_NO_WEBHOOK")]
    pub no_webhook: bool,
}

impl WebhookArgs {
    /// Where the API server finds the webhook.
    ///
    /// # Errors
    /// [`ArgsError::WebhookUrl`].
    pub fn address(&self, namespace: &str) -> Result<Address, ArgsError> {
        let url = |url: &Uri| {
            let refused = || ArgsError::WebhookUrl { url: url.to_string() };
            let host = url.host().filter(|_| url.scheme_str() == Some("https"));
            let host = host.filter(|_| url.path_and_query().is_some_and(|p| p.as_str() == PATH));
            Ok(Url {
                text: url.to_string(),
                host: host.ok_or_else(refused)?.trim_matches(['[', ']']).to_owned(),
            })
        };
        Ok(Address {
            namespace: namespace.to_owned(),
            service: self.webhook_service.clone(),
            port: 443,
            url: self.webhook_url.as_ref().map(url).transpose()?,
        })
    }
}

/// Timing of the leader lease, in seconds. The defaults are client-go's.
#[derive(Clone, Copy, Debug, Args)]
pub struct LeaseArgs {
    /// How long others wait for a leader that shows no sign of life, in seconds.
    #[arg(long, env = "VNP_LEASE_DURATION", default_value_t = 15)]
    pub lease_duration: u16,

    /// How long the leader acts on without a successful renewal, in seconds; less than the duration.
    #[arg(long, env = "VNP_LEASE_RENEW_DEADLINE", default_value_t = 10)]
    pub lease_renew_deadline: u16,

    /// Time between two attempts, in seconds; less than the renew deadline.
    #[arg(long, env = "VNP_LEASE_RETRY_PERIOD", default_value_t = 2)]
    pub lease_retry_period: u16,
}

/// Shape of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Arguments that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// The lease would be taken over while its holder still acts.
    #[error(
        "--lease-renew-deadline {renew_deadline} must be less than --lease-duration {duration}, or two leaders would act at once"
    )]
    RenewDeadline {
        /// Seconds given.
        renew_deadline: u16,
        /// Seconds given.
        duration: u16,
    },
    /// One missed renewal would lose the lease.
    #[error(
        "--lease-retry-period {retry_period} must be at least 1 and less than --lease-renew-deadline {renew_deadline}, or the lease is lost between two attempts"
    )]
    RetryPeriod {
        /// Seconds given.
        retry_period: u16,
        /// Seconds given.
        renew_deadline: u16,
    },
    /// The API server can't call that.
    #[error("--webhook-url {url} can't be called: it must be https://<host>:<port>{PATH}")]
    WebhookUrl {
        /// The URL given.
        url: String,
    },
    /// No time between two tries.
    #[error("--webhook-probe-seconds must be at least 1")]
    WebhookProbe,
    /// No provider namespace.
    #[error(
        "--provider-namespaces holds an empty name; name at least one namespace, for instance kube-system"
    )]
    EmptyNamespace,
}

impl RunArgs {
    /// Checks what clap can't.
    ///
    /// # Errors
    /// [`ArgsError`] names the arguments and what they must be.
    pub fn check(&self) -> Result<(), ArgsError> {
        let LeaseArgs {
            lease_duration: duration,
            lease_renew_deadline: renew_deadline,
            lease_retry_period: retry_period,
        } = self.lease;
        if renew_deadline >= duration {
            return Err(ArgsError::RenewDeadline {
                renew_deadline,
                duration,
            });
        }
        if retry_period == 0 || retry_period >= renew_deadline {
            return Err(ArgsError::RetryPeriod {
                retry_period,
                renew_deadline,
            });
        }
        if self.provider_namespaces.iter().any(|n| n.trim().is_empty()) {
            return Err(ArgsError::EmptyNamespace);
        }
        if self.webhook.webhook_probe_seconds == 0 {
            return Err(ArgsError::WebhookProbe);
        }
        self.webhook.address(&self.namespace)?;
        Ok(())
    }
}

impl LeaseArgs {
    /// As used by the elector.
    pub fn timing(&self) -> super::lease::Timing {
        let seconds = |n: u16| Duration::from_secs(u64::from(n));
        super::lease::Timing {
            duration: seconds(self.lease_duration),
            renew_deadline: seconds(self.lease_renew_deadline),
            retry_period: seconds(self.lease_retry_period),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> RunArgs {
        let Cli {
            command: Command::Run(args),
        } = Cli::try_parse_from(["vnp-operator", "run"].iter().chain(args)).unwrap();
        args
    }

    #[test]
    fn defaults_hold_together() {
        let args = parse(&[]);
        assert_eq!(args.check(), Ok(()));
        assert_eq!(args.provider_namespaces, ["kube-system"]);
        assert_eq!(args.evictions_per_second, 0);
    }

    #[test]
    fn provider_namespaces_are_a_comma_list() {
        assert_eq!(
            parse(&["--provider-namespaces", "kube-system,cloud"]).provider_namespaces,
            ["kube-system", "cloud"]
        );
        assert_eq!(
            parse(&["--provider-namespaces", "a,,b"]).check(),
            Err(ArgsError::EmptyNamespace)
        );
    }

    #[test]
    fn a_webhook_url_is_one_that_the_api_server_can_call() {
        let with = |url: &str| parse(&["--webhook-url", url]);
        let address = with("https://[::1]:9443/mutate").webhook.address("ns").unwrap();
        assert_eq!(address.url.clone().unwrap().host, "::1");
        assert_eq!(address.names().into_iter().collect::<Vec<_>>(), ["::1"]);
        for refused in [
            "http://a:1/mutate",
            "https://a:1/",
            "https://a:1/mutate?x=1",
            "/mutate",
        ] {
            assert!(with(refused).check().is_err(), "{refused}");
        }
        let names = parse(&[]).webhook.address("ns").unwrap().names();
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["virtualnodepool-webhook.ns.svc"]
        );
    }

    #[test]
    fn a_lease_that_two_could_hold_is_refused() {
        let args = parse(&["--lease-duration", "10", "--lease-renew-deadline", "10"]);
        assert_eq!(
            args.check(),
            Err(ArgsError::RenewDeadline {
                renew_deadline: 10,
                duration: 10
            })
        );
        let args = parse(&["--lease-retry-period", "10"]);
        assert_eq!(
            args.check(),
            Err(ArgsError::RetryPeriod {
                retry_period: 10,
                renew_deadline: 10
            })
        );
        assert!(parse(&["--lease-retry-period", "0"]).check().is_err());
    }
}
