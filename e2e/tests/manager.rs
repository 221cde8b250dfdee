//! The manifests of `config/manager` against what the operator takes for granted: where the API server finds the webhook,
//! for which name its certificate is, and where kubelet and Prometheus ask. No scenario runs behind a Service.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodTemplateSpec, Probe, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vnp_e2e::scenario::manifests;
use vnp_operator::runtime::args::{Cli, Command, RunArgs};
use vnp_operator::runtime::health::{Readiness, serve_health, serve_metrics};
use vnp_operator::runtime::metrics::Metrics;
use vnp_plan::placement::Placing;

const SERVICE: &str = include_str!("../../config/manager/service.yaml");
const DEPLOYMENT: &str = include_str!("../../config/manager/deployment.yaml");

struct Installed {
    service: Service,
    template: PodTemplateSpec,
    namespace: String,
    /// What the operator makes of the container's arguments.
    args: RunArgs,
}

fn installed() -> Result<Installed> {
    let service: Service = serde_saphyr::from_str(SERVICE)?;
    let deployment: Deployment = serde_saphyr::from_str(DEPLOYMENT)?;
    let template = deployment.spec.template;
    let namespace = deployment.metadata.namespace.context("no namespace")?;
    let args = container(&template)?.args.clone().unwrap_or_default();
    // As the container's environment has it.
    let command_line = std::iter::once("vnp-operator".to_owned())
        .chain(args)
        .chain(["--namespace".to_owned(), namespace.clone()]);
    let Cli {
        command: Command::Run(args),
    } = Cli::try_parse_from(command_line)?;
    args.check()?;
    Ok(Installed {
        service,
        template,
        namespace,
        args,
    })
}

fn container(template: &PodTemplateSpec) -> Result<&Container> {
    let spec = template.spec.as_ref().context("no pod")?;
    let [container] = &spec.containers[..] else {
        anyhow::bail!("{} containers", spec.containers.len());
    };
    Ok(container)
}

/// The number of a port that a manifest names.
fn port_of(template: &PodTemplateSpec, named: &IntOrString) -> Result<u16> {
    let number = match named {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container(template)?.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_deref() == Some(name));
            port.with_context(|| format!("no port {name}"))?.container_port
        }
    };
    Ok(u16::try_from(number)?)
}

fn webhook_port(service: &Service) -> Result<&ServicePort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    let [port] = ports.unwrap_or_default() else {
        anyhow::bail!("not one port: {ports:?}");
    };
    Ok(port)
}

#[test]
fn the_service_leads_to_where_the_webhook_listens() -> Result<()> {
    let Installed {
        service,
        template,
        args,
        ..
    } = installed()?;
    let port = webhook_port(&service)?;
    ensure!(
        port.protocol.as_deref().is_none_or(|p| p == "TCP"),
        "{:?}",
        port.protocol
    );
    let target = port.target_port.as_ref().context("no targetPort")?;
    let listens = args.webhook.webhook_addr;
    assert_eq!(port_of(&template, target)?, listens.port());
    ensure!(listens.ip().is_unspecified(), "nobody reaches {listens}");
    ensure!(!args.webhook.no_webhook, "no webhook is served");

    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    let labels = template
        .metadata
        .and_then(|metadata| metadata.labels)
        .unwrap_or_default();
    ensure!(!selector.is_empty(), "the Service selects nothing");
    for (key, value) in selector {
        assert_eq!(labels.get(&key), Some(&value), "{key}");
    }
    Ok(())
}

#[test]
fn the_api_server_is_told_of_that_service_and_the_certificate_is_for_it() -> Result<()> {
    let Installed {
        service,
        namespace,
        args,
        ..
    } = installed()?;
    let port = webhook_port(&service)?.port;
    let name = service.metadata.name.context("no name")?;
    assert_eq!(service.metadata.namespace.as_ref(), Some(&namespace));
    assert_eq!(namespace, vnp_crds::OPERATOR_NAMESPACE);

    let address = args.webhook.address(&namespace)?;
    assert_eq!(
        address.names(),
        BTreeSet::from([format!("{name}.{namespace}.svc")])
    );
    let pool = serde_json::from_value(manifests::pool("burst", "virtual-node", 1))?;
    let configuration = address.configuration(&Placing::compile(&[Arc::new(pool)]), "PEM");
    let configuration = configuration.context("no configuration")?;
    let entries = configuration["webhooks"].as_array().context("no entries")?;
    ensure!(!entries.is_empty(), "{configuration}");
    for entry in entries {
        let client = &entry["clientConfig"];
        let expected = json!({"name": name, "namespace": namespace, "path": "/mutate", "port": port});
        assert_eq!(client["service"], expected);
        assert_eq!(client["url"], Value::Null);
    }
    Ok(())
}

#[tokio::test]
async fn probes_and_prometheus_ask_where_they_are_answered() -> Result<()> {
    let Installed { template, args, .. } = installed()?;
    let container = container(&template)?;
    let asked = |probe: &Option<Probe>| -> Result<HTTPGetAction> {
        let probe = probe.as_ref().context("no probe")?;
        probe.http_get.clone().context("no httpGet")
    };
    let (live, ready) = (
        asked(&container.liveness_probe)?,
        asked(&container.readiness_probe)?,
    );
    for probe in [&live, &ready] {
        assert_eq!(port_of(&template, &probe.port)?, args.health_addr.port());
        assert_eq!(probe.scheme.as_deref().unwrap_or("HTTP"), "HTTP");
    }
    ensure!(args.health_addr.ip().is_unspecified(), "{}", args.health_addr);
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.clone());
    let scraped = |what: &str| {
        let key = format!("prometheus.io/{what}");
        annotations
            .as_ref()
            .and_then(|a| a.get(&key).cloned())
            .context(key)
    };
    assert_eq!(scraped("port")?, args.metrics_addr.port().to_string());
    ensure!(args.metrics_addr.ip().is_unspecified(), "{}", args.metrics_addr);
    let metrics_port = IntOrString::String("metrics".to_owned());
    assert_eq!(port_of(&template, &metrics_port)?, args.metrics_addr.port());

    // What is missing stops readiness, and nothing else.
    let readiness = Readiness::default();
    readiness.set("a cache", false);
    let health = TcpListener::bind("127.0.0.1:0").await?;
    let metrics = TcpListener::bind("127.0.0.1:0").await?;
    let (health_at, metrics_at) = (health.local_addr()?, metrics.local_addr()?);
    tokio::spawn(serve_health(health, readiness.clone()));
    tokio::spawn(serve_metrics(metrics, Metrics::default()));
    let path = |probe: HTTPGetAction| probe.path.context("no path");
    let (live, ready) = (path(live)?, path(ready)?);
    assert_eq!(status(health_at, &live).await?, 200);
    assert_eq!(status(health_at, &ready).await?, 503);
    readiness.set("a cache", true);
    assert_eq!(status(health_at, &ready).await?, 200);
    assert_eq!(status(metrics_at, &scraped("path")?).await?, 200);
    Ok(())
}

/// The status of an answer. A client of the API server would ask again after a 503.
async fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("no HTTP status")?;
    Ok(status.parse()?)
}
