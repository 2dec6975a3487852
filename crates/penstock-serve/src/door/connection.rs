//! A connection's life, from accepting it to its last request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::BoxError;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Request, Version, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::bodies::{self, Counted, Lent};
use super::settings::Settings;
use super::shared::Shared;
use super::{Door, Echo};
use crate::grpc;
use crate::service::Service;
use crate::tls::Tls;

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Open,
    /// Nothing is accepted; requests that are there have so long to end.
    Closing(Duration),
}

/// Returns once the doors close: how long requests have to end.
pub(super) async fn closing(mut phases: watch::Receiver<Phase>) -> Duration {
    match phases
        .wait_for(|phase| matches!(phase, Phase::Closing(_)))
        .await
        .as_deref()
    {
        Ok(Phase::Closing(finish)) => *finish,
        // The handle is gone, and with it whoever would wait.
        Ok(Phase::Open) | Err(_) => Duration::ZERO,
    }
}

/// One door's listener, and what its connections share.
pub(super) struct Entrance<S> {
    door: Door,
    router: Router,
    shared: Arc<Shared<S>>,
    builder: Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    idle: Duration,
    permits: Arc<Semaphore>,
    phases: watch::Receiver<Phase>,
}

impl<S: Service> Entrance<S> {
    pub fn new(
        door: Door,
        router: Router,
        shared: Arc<Shared<S>>,
        settings: &Settings,
        tls: Option<Arc<Tls>>,
        permits: Arc<Semaphore>,
        phases: watch::Receiver<Phase>,
    ) -> Entrance<S> {
        let idle = Duration::from_secs_f64(settings.idle_s);
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.streams)
            .max_header_list_size(16 << 10)
            // Finds peers that are gone without a word.
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        if door == Door::Grpc {
            builder = builder.http2_only();
        }
        Entrance {
            door,
            router,
            shared,
            builder,
            tls,
            idle,
            permits,
            phases,
        }
    }

    /// Accepts until the doors close.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut closing = pin!(closing(self.phases.clone()));
        loop {
            // No more connections than permits: one waits here, further ones in the kernel.
            let accepted = async {
                let accepted = listener.accept().await;
                let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
                Some((accepted, permit))
            };
            let (accepted, permit) = tokio::select! {
                _ = &mut closing => return,
                Some(accepted) = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let entrance = Arc::clone(&self);
                    tokio::spawn(async move {
                        entrance.shared.counters.opened(entrance.door);
                        entrance.welcome(stream).await;
                        entrance.shared.counters.closed(entrance.door);
                        drop(permit);
                    });
                }
                // Out of descriptors, most likely: connections must end before more can come.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn welcome(&self, stream: TcpStream) {
        // A reply is one write; waiting for more of it would only delay it.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.converse(stream).await,
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.config()).accept(stream);
                // A client that cannot agree on a connection has been told by an alert.
                if let Ok(Ok(stream)) = tokio::time::timeout(self.shared.arrival, handshake).await {
                    self.converse(stream).await;
                }
            }
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let activity = Arc::new(Activity::default());
        let service = service_fn(|request| {
            activity.begun.fetch_add(1, Ordering::Relaxed);
            let (router, shared, door) = (self.router.clone(), Arc::clone(&self.shared), self.door);
            let activity = Arc::clone(&activity);
            async move {
                let response = answer(door, router, &shared, request).await;
                activity.ended.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = pin!(closing(self.phases.clone()));
        let mut idle = pin!(tokio::time::sleep(self.idle));
        let (mut seen, mut asking) = (0, true);
        loop {
            tokio::select! {
                biased;
                // A broken connection concerns nobody but its client.
                _ = connection.as_mut() => return,
                _ = &mut closing, if asking => {
                    asking = false;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut idle => {
                    let begun = activity.begun.load(Ordering::Relaxed);
                    if begun == seen && begun == activity.ended.load(Ordering::Relaxed) {
                        connection.as_mut().graceful_shutdown();
                    }
                    seen = begun;
                    idle.as_mut().reset(tokio::time::Instant::now() + self.idle);
                }
            }
        }
    }
}

/// Requests of a connection.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One request, whatever it asks: told apart, let in, routed, counted.
pub(crate) async fn answer<S: Service, B>(
    door: Door,
    mut router: Router,
    shared: &Arc<Shared<S>>,
    request: Request<B>,
) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let version = request.version();
    let echo = Echo::of(request.headers());
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(echo.clone());
    let left = Arc::default();
    // A client that asked whether to send its body need not, once it is refused.
    let sends = version < Version::HTTP_2 && !parts.headers.contains_key(header::EXPECT);
    let routed = match door {
        Door::Http => Ok(Request::from_parts(
            parts,
            Body::new(Lent::new(body, &left)),
        )),
        Door::Grpc if grpc::is_open(parts.uri.path()) => {
            Ok(Request::from_parts(parts, Body::new(body)))
        }
        Door::Grpc => {
            let authorization = parts.headers.get(header::AUTHORIZATION);
            shared
                .gate
                .grant(authorization.map(HeaderValue::as_bytes))
                .map(|grant| {
                    parts.extensions.insert(grant);
                    Request::from_parts(
                        parts,
                        Body::new(Counted {
                            body,
                            hold: shared.hold(),
                        }),
                    )
                })
        }
    };
    let mut response = match routed {
        Ok(request) => {
            let Ok(response) = router.call(request).await;
            response
        }
        Err(fault) => grpc::refuse(fault),
    };
    if sends {
        // Unread, it would be met by a reset connection, and the client would not see its reply.
        bodies::forget(&left, shared.limits.body_bytes, shared.arrival).await;
    }
    let status = match door {
        Door::Http => response.status().as_u16(),
        Door::Grpc => {
            grpc::retold(response.headers_mut());
            grpc::http_status(response.headers())
        }
    };
    shared.counters.replied(door, status);
    let headers = response.headers_mut();
    echo.into(headers);
    if version < Version::HTTP_2 && shared.draining.load(Ordering::Relaxed) {
        // The client hears of it with its reply, and cannot send into a connection that is about to be closed.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
