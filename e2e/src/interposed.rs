//! A TCP relay between two that should reach each other, which can be told to fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To that address.
    To(SocketAddr),
    /// To these addresses in turn, as a Service does it.
    InTurn([SocketAddr; 2]),
    /// Nowhere: they are closed at once.
    Closed,
    /// Nowhere: they are taken and never answered.
    Silent,
}

/// The relay. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    route: Route,
    connections: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(route: Route) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            route,
            connections: Vec::new(),
        }));
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            let mut number: usize = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let route = match state.route {
                    Route::InTurn(addresses) => Route::To(addresses[number % 2]),
                    other => other,
                };
                number = number.wrapping_add(1);
                state.connections.push(tokio::spawn(relay(stream, route)));
            }
        });
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, connections that exist included: they break off.
    pub fn route(&self, route: Route) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.route = route;
        for connection in state.connections.drain(..) {
            connection.abort();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.route(Route::Closed);
    }
}

async fn relay(mut stream: TcpStream, route: Route) {
    match route {
        Route::To(address) | Route::InTurn([address, _]) => {
            if let Ok(mut target) = TcpStream::connect(address).await {
                // Either end may break off at any time; that is the end of it.
                copy_bidirectional(&mut stream, &mut target).await.ok();
            }
        }
        Route::Closed => {}
        Route::Silent => std::future::pending().await,
    }
}
