//! The operator as a process that can be killed, paused and replaced.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::control_plane::{Component, free_ports, log_tail};
use crate::environment::Environment;

/// A binary to use instead of building one.
const BINARY_VARIABLE: &str = "VNP_OPERATOR_BIN";
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// Arguments after `run`; addresses of its endpoints are added.
    pub args: Vec<String>,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

impl Default for OperatorOptions {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: vec![
                ("RUST_LOG".into(), "info,vnp_operator=debug".into()),
                ("NO_COLOR".into(), "1".into()),
            ],
        }
    }
}

/// One running operator, with the ServiceAccount and the rights of `config/rbac`. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    component: Component,
    health: SocketAddr,
    metrics: SocketAddr,
    webhook: SocketAddr,
}

impl Operator {
    /// Installs CRD and rights unless they are there, and starts one more operator.
    ///
    /// # Errors
    /// When the operator does not build, the configuration is refused or the process can't be started.
    pub async fn start(environment: &Environment, options: &OperatorOptions) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let kubeconfig = environment.install_operator().await?;
        let binary = binary().await?;
        let [health, metrics, webhook] = free_ports()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut command = Command::new(binary);
        command
            .arg("run")
            .args([
                "--health-addr",
                &health.to_string(),
                "--metrics-addr",
                &metrics.to_string(),
                "--webhook-addr",
                &webhook.to_string(),
            ])
            .args(webhook_url(webhook, options))
            .args(&options.args)
            .env("KUBECONFIG", kubeconfig)
            .envs(options.env.iter().map(|(name, value)| (name, value)));
        let name = format!("operator-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let component = environment.control_plane().launcher().spawn(&name, command)?;
        Ok(Self {
            component,
            health,
            metrics,
            webhook,
        })
    }

    /// Waits until `/readyz` answers 200: its caches are synced.
    ///
    /// # Errors
    /// When it ends, or is not ready within 30 s.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + ENDS_WITHIN;
        loop {
            self.component.ensure_running()?;
            let answer = http_get(self.health, "/readyz").await;
            match answer {
                Ok((200, _)) => return Ok(()),
                answer if Instant::now() > deadline => {
                    bail!(
                        "the operator is not ready after {ENDS_WITHIN:?}: {answer:?}\n{}",
                        self.log_tail(20)
                    )
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// What `/readyz` says it waits for; `None` when it is ready.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn waits_for(&self) -> Result<Option<String>> {
        let (code, body) = http_get(self.health, "/readyz").await?;
        Ok((code != 200).then_some(body))
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn metrics(&self) -> Result<String> {
        let (code, body) = http_get(self.metrics, "/metrics").await?;
        ensure!(code == 200, "/metrics answered {code}: {body}");
        Ok(body)
    }

    /// Where its pod webhook listens.
    #[must_use]
    pub fn webhook(&self) -> SocketAddr {
        self.webhook
    }

    /// SIGKILL, and waits for its end: no handover, no last write.
    ///
    /// # Errors
    /// When the signal is refused or it does not end.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.component.signal(Signal::KILL)?;
        self.ended().await
    }

    /// SIGTERM, and waits for its end: the clean stop.
    ///
    /// # Errors
    /// When the signal is refused or it does not end within 30 s.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.component.signal(Signal::TERM)?;
        self.ended().await
    }

    /// SIGSTOP, and returns when it has stopped: it lives and does nothing, as in a long pause of its machine.
    ///
    /// # Errors
    /// When it has ended or does not stop.
    pub fn pause(&mut self) -> Result<()> {
        self.component.stop()
    }

    /// SIGCONT: goes on where it was paused.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn resume(&mut self) -> Result<()> {
        self.component.signal(Signal::CONT)
    }

    /// Waits until it has ended, by itself or by a signal.
    ///
    /// # Errors
    /// When it has not within 30 s.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = self.component.ended(ENDS_WITHIN).await;
        ended.with_context(|| self.log_tail(20))
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.component.pid()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.component.log()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(self.component.log(), lines)
    }
}

/// There is no Service network between the API server and here. A URL among the options goes first.
fn webhook_url(webhook: SocketAddr, options: &OperatorOptions) -> Vec<String> {
    const FLAG: &str = "--webhook-url";
    if options.args.iter().any(|arg| arg == FLAG) {
        return Vec::new();
    }
    vec![FLAG.to_owned(), format!("https://{webhook}/mutate")]
}

/// The operator's binary, built once per test process.
async fn binary() -> Result<&'static Path> {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let path = BINARY
        .get_or_try_init(|| async { tokio::task::spawn_blocking(build).await? })
        .await?;
    Ok(path)
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "vnp-operator", "--bin", "vnp-operator"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo to build the operator")?;
    ensure!(
        output.status.success(),
        "cargo build --package vnp-operator: {}; its messages are above",
        output.status
    );
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .context("cargo build --package vnp-operator named no executable")
}

/// Status code and body. One request per connection needs no HTTP library.
async fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), exchange).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    Ok((code, body.to_owned()))
}
