//! A gate between the operator and the API server, at which a test can stop single calls: kill the operator right before
//! or after a write, or hold a write that is on its way while the world moves on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A call as it reaches the gate.
#[derive(Clone, Debug)]
pub struct Call {
    /// HTTP method.
    pub method: Method,
    /// Path without query.
    pub path: String,
    /// The body, as text.
    pub body: String,
}

impl Call {
    /// A call that changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

/// What happens to the call that a trap catches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never reaches the API server; its connection breaks.
    LostBefore,
    /// The API server carries it out; the answer never arrives.
    LostAfter,
    /// It waits at the gate until it is let through.
    Held,
}

/// Picks the call that a trap catches.
type Pick = Box<dyn FnMut(&Call) -> bool + Send>;

struct Trap {
    pick: Pick,
    fate: Fate,
    caught: oneshot::Sender<Call>,
    release: oneshot::Receiver<()>,
}

/// A trap that has been set. Dropping it before it caught anything takes it away.
#[derive(Debug)]
pub struct Caught {
    call: oneshot::Receiver<Call>,
    release: Option<oneshot::Sender<()>>,
}

impl Caught {
    /// Waits until a call is in the trap. The call stands still until [`Caught::let_go`] or until this is dropped.
    ///
    /// # Errors
    /// When the gate is gone.
    pub async fn wait(&mut self) -> Result<Call> {
        (&mut self.call)
            .await
            .context("the gate was closed before it caught a call")
    }

    /// Lets the call meet its fate.
    pub fn let_go(&mut self) {
        if let Some(release) = self.release.take() {
            // A caller that has hung up needs no release.
            let _gone = release.send(());
        }
    }
}

/// The gate. It closes when it is dropped.
pub struct CallGate {
    address: SocketAddr,
    traps: Arc<Mutex<Vec<Trap>>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Passage {
    client: Client,
    traps: Arc<Mutex<Vec<Trap>>>,
    user_agent: String,
}

impl CallGate {
    /// Opens a gate that passes calls on with the credentials of `kubeconfig`.
    ///
    /// # Errors
    /// When the kubeconfig can't be used or no port is free.
    pub async fn open(kubeconfig: &Path) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let traps = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passage = Passage {
            client: Client::try_from(config)?,
            traps: Arc::clone(&traps),
            user_agent: user_agent(address),
        };
        let router = Router::new().fallback(pass).with_state(passage);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the call gate broke");
            }
        });
        Ok(Self {
            address,
            traps,
            server,
        })
    }

    /// The user agent under which calls go on from here, by which the audit log tells them from those of an operator that
    /// goes another way.
    #[must_use]
    pub fn user_agent(&self) -> String {
        user_agent(self.address)
    }

    /// Writes a kubeconfig that leads through the gate.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_kubeconfig(&self, path: PathBuf) -> Result<PathBuf> {
        let content = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{ "name": "gate", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "gate", "user": {} }],
            "contexts": [{ "name": "gate", "context": { "cluster": "gate", "user": "gate" } }],
        });
        std::fs::write(&path, serde_json::to_vec_pretty(&content)?)?;
        Ok(path)
    }

    /// Sets a trap for the first call that `pick` picks.
    pub fn trap(&self, fate: Fate, pick: impl FnMut(&Call) -> bool + Send + 'static) -> Caught {
        let (caught, call) = oneshot::channel();
        let (release, released) = oneshot::channel();
        lock(&self.traps).push(Trap {
            pick: Box::new(pick),
            fate,
            caught,
            release: released,
        });
        Caught {
            call,
            release: Some(release),
        }
    }
}

impl Drop for CallGate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn user_agent(address: SocketAddr) -> String {
    format!("call-gate/{}", address.port())
}

fn lock(traps: &Mutex<Vec<Trap>>) -> std::sync::MutexGuard<'_, Vec<Trap>> {
    traps.lock().unwrap_or_else(PoisonError::into_inner)
}

const BODY_LIMIT: usize = 16 << 20;

async fn pass(State(passage): State<Passage>, request: Request) -> Response {
    match forward(&passage, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn forward(passage: &Passage, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, BODY_LIMIT).await?;
    let call = Call {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let trap = {
        let mut traps = lock(&passage.traps);
        traps.retain(|t| !t.caught.is_closed());
        let hit = traps.iter_mut().position(|t| (t.pick)(&call));
        hit.map(|index| traps.remove(index))
    };
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut onward = axum::http::Request::builder().method(parts.method).uri(target);
    for (name, value) in &parts.headers {
        if !not_passed_on(name) {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.header(header::USER_AGENT, &passage.user_agent);
    let onward = onward.body(kube::client::Body::from(bytes.to_vec()))?;
    match trap {
        None => answer(passage, onward).await,
        Some(trap) if trap.fate == Fate::LostAfter => {
            let response = passage.client.send(onward).await;
            spring(trap, call).await;
            drop(response);
            Ok(broken())
        }
        Some(trap) => {
            let fate = trap.fate;
            spring(trap, call).await;
            if fate == Fate::LostBefore {
                Ok(broken())
            } else {
                answer(passage, onward).await
            }
        }
    }
}

async fn answer(passage: &Passage, onward: axum::http::Request<kube::client::Body>) -> Result<Response> {
    Ok(passage.client.send(onward).await?.map(Body::new))
}

/// Tells the test and waits for its word.
async fn spring(trap: Trap, call: Call) {
    if trap.caught.send(call).is_ok() {
        // An error means that the test dropped its end, which lets go as well.
        let _let_go = trap.release.await;
    }
}

/// A body that fails at once breaks the connection, as a process that dies does.
fn broken() -> Response {
    let failure =
        futures::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("cut by the gate")) });
    Response::new(Body::from_stream(failure))
}

/// About one hop only, or what the gate says for itself.
fn not_passed_on(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::CONNECTION
        || *name == header::CONTENT_LENGTH
        || *name == header::AUTHORIZATION
        || *name == header::USER_AGENT
}
