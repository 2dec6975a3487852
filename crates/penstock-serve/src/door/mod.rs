//! The doors: REST and gRPC on ports of their own, over one `Service`.
//!
//! In: `Settings` and a service. Out: addresses, and a handle that swaps tokens and certificates and drains. Read
//! `Doors` below, then `connection.rs` (the life of a connection and of a request on it).

mod bodies;
mod connection;
mod counters;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod trace;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Semaphore, watch};

use crate::auth::{Gate, TokenSettings};
use crate::error::{Fault, Kind, Result};
use crate::service::Service;
use crate::tls::Tls;
use crate::{grpc, http, log};
#[cfg(test)]
pub(crate) use connection::answer;
use connection::{Entrance, Phase};
pub use settings::Settings;
pub(crate) use shared::{Hold, Shared, request};
pub(crate) use trace::Echo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Http,
    Grpc,
}

impl Door {
    const BOTH: [Door; 2] = [Door::Http, Door::Grpc];

    fn name(self) -> &'static str {
        match self {
            Door::Http => "http",
            Door::Grpc => "grpc",
        }
    }
}

/// How often certificates' files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// Bound, and not yet answering: connections wait in the kernel.
pub struct Doors {
    settings: Settings,
    listeners: [TcpListener; 2],
    addresses: [SocketAddr; 2],
    gate: Arc<Gate>,
    tls: Option<Arc<Tls>>,
}

impl Doors {
    /// Checks the settings and takes the ports. Fails, saying which setting, where a token's hash is none, a certificate
    /// cannot be used, an address is in use, or one beyond loopback would be open to everybody.
    pub fn bind(settings: Settings) -> Result<Doors> {
        let gate = Arc::new(Gate::new(&settings.tokens)?);
        let tls = settings
            .tls
            .as_ref()
            .map(Tls::open)
            .transpose()?
            .map(Arc::new);
        let listeners = [
            listen("http", &settings.http, &settings)?,
            listen("grpc", &settings.grpc, &settings)?,
        ];
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|error| Fault::internal(format!("a bound address: {error}")))
        };
        Ok(Doors {
            addresses: [address(&listeners[0])?, address(&listeners[1])?],
            settings,
            listeners,
            gate,
            tls,
        })
    }

    pub fn http(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn grpc(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Answers from threads of its own until the handle drains or is dropped.
    pub fn serve<S: Service>(self, service: Arc<S>) -> Result<Open> {
        let failed = |error| Fault::internal(format!("the doors cannot start: {error}"));
        let threads = self.settings.threads.max(1);
        let runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
            _ => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build(),
        };
        let runtime = runtime.map_err(failed)?;
        let shared = Arc::new(Shared::new(service, Arc::clone(&self.gate), &self.settings));
        let routers = [http::router(Arc::clone(&shared)), grpc::router(&shared)?];
        let draining = Arc::clone(&shared.draining);
        let (phase, phases) = watch::channel(Phase::Open);
        let permits = Arc::new(Semaphore::new(self.settings.connections));
        let tls = self.tls.clone();
        let run = async move {
            let mut entrances = Vec::new();
            for ((door, listener), router) in
                Door::BOTH.into_iter().zip(self.listeners).zip(routers)
            {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let (shared, permits, phases) =
                    (Arc::clone(&shared), Arc::clone(&permits), phases.clone());
                let entrance = Entrance::new(
                    door,
                    router,
                    shared,
                    &self.settings,
                    self.tls.clone(),
                    permits,
                    phases,
                );
                entrances.push(tokio::spawn(Arc::new(entrance).accept(listener)));
            }
            if let Some(tls) = self.tls {
                tokio::spawn(watch_certificates(tls));
            }
            let finish = connection::closing(phases).await;
            for entrance in entrances {
                // An accept loop only ends when told to.
                let _ = entrance.await;
            }
            // Every connection holds a permit: with all of them in hand none is left.
            let all = u32::try_from(self.settings.connections).unwrap_or(u32::MAX);
            Ok::<_, std::io::Error>(
                tokio::time::timeout(finish, permits.acquire_many(all))
                    .await
                    .is_ok(),
            )
        };
        let named = std::thread::Builder::new().name("penstock-doors".to_owned());
        let thread = named.spawn(move || {
            let finished = runtime.block_on(run).unwrap_or(false);
            runtime.shutdown_timeout(Duration::from_secs(1));
            finished
        });
        Ok(Open {
            gate: self.gate,
            tls,
            draining,
            phase,
            thread: Some(thread.map_err(failed)?),
        })
    }
}

fn listen(door: &str, text: &str, settings: &Settings) -> Result<TcpListener> {
    let wrong = |what: String| Fault::invalid(format!("listen.{door} = \"{text}\": {what}"));
    let address = text
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next());
    let address = address.ok_or_else(|| wrong("this is not HOST:PORT".to_owned()))?;
    if !address.ip().is_loopback() && settings.tokens.is_empty() && !settings.insecure {
        return Err(wrong(
            "beyond loopback and without tokens everybody could score; configure tokens, or set insecure = true".to_owned(),
        ));
    }
    let bind = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok::<TcpListener, std::io::Error>(socket.into())
    };
    bind().map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::AddrInUse {
            Kind::Unavailable
        } else {
            Kind::Invalid
        };
        Fault::new(
            kind,
            wrong(format!(
                "cannot be bound: {error}; choose another, or port 0 for a free one"
            ))
            .message,
        )
    })
}

/// Looks for new certificates for as long as the runtime lives.
async fn watch_certificates(tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(CERTIFICATES).await;
        let looked = Arc::clone(&tls);
        let mut fields = serde_json::Map::new();
        match tokio::task::spawn_blocking(move || looked.reload_if_changed()).await {
            Ok(Ok(true)) => log::write("info", "certificates_reloaded", fields),
            Ok(Err(fault)) => {
                fields.insert("error".to_owned(), fault.message.into());
                log::write("error", "certificates_kept", fields);
            }
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

/// Doors that answer. Dropped, they close at once; `drain` lets requests end.
pub struct Open {
    gate: Arc<Gate>,
    tls: Option<Arc<Tls>>,
    draining: Arc<AtomicBool>,
    phase: watch::Sender<Phase>,
    thread: Option<JoinHandle<bool>>,
}

impl Open {
    /// Requests from now on are judged by these tokens. A change between some and none is for a restart: what may be bound
    /// depends on it.
    pub fn set_tokens(&self, tokens: &[TokenSettings]) -> Result<()> {
        self.gate.swap(tokens)
    }

    /// Reads the certificates again; on an error the old ones stay. They are also read when their files change.
    pub fn reload_certificates(&self) -> Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }

    /// Ready turns false; connections are accepted for `accept`, so that whoever sends here can hear of it; then every
    /// request that is there is answered, for at most `finish`. Whether all were. Blocks.
    pub fn drain(mut self, accept: Duration, finish: Duration) -> bool {
        self.draining.store(true, Ordering::Relaxed);
        std::thread::sleep(accept);
        self.close(finish)
    }

    fn close(&mut self, finish: Duration) -> bool {
        self.phase.send_replace(Phase::Closing(finish));
        self.thread
            .take()
            .is_some_and(|thread| thread.join().unwrap_or(false))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.close(Duration::ZERO);
        }
    }
}
