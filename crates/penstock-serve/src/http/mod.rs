//! REST: the Open Inference Protocol v2 over HTTP/1.1 and HTTP/2.
//!
//! `infer.rs` is the path of a request; `models.rs` metadata, statistics and administration; `body.rs` how bodies are
//! read; `refusal.rs` how faults are told.

mod body;
pub(crate) mod documents;
mod infer;
pub(crate) mod models;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};
use http::{Method, StatusCode, Uri};

use crate::door::Shared;
use crate::error::{Fault, Kind};
use crate::service::Service;
use refusal::Refusal;

pub fn router<S: Service>(shared: Arc<Shared<S>>) -> Router {
    let mut router = Router::new()
        .route("/v2", get(models::server))
        .route("/v2/", get(models::server))
        .route("/v2/health/live", get(models::live))
        .route("/v2/health/ready", get(models::ready::<S>))
        .route("/v2/models/stats", get(models::statistics::<S>))
        .route("/v2/repository/index", post(models::index::<S>))
        .route(
            "/v2/repository/models/{model}/load",
            post(models::load::<S>),
        )
        .route(
            "/v2/repository/models/{model}/unload",
            post(models::unload::<S>),
        )
        .route("/metrics", get(models::metrics::<S>));
    for model in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        router = router
            .route(model, get(models::describe::<S>))
            .route(&format!("{model}/ready"), get(models::model_ready::<S>))
            .route(&format!("{model}/infer"), post(infer::infer::<S>))
            .route(&format!("{model}/config"), get(models::config::<S>))
            .route(
                &format!("{model}/stats"),
                get(models::model_statistics::<S>),
            )
            .route(&format!("{model}/trace/setting"), any(unserved))
            .route(&format!("{model}/generate"), any(unserved))
            .route(&format!("{model}/generate_stream"), any(unserved));
    }
    for path in [
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/{*rest}",
        "/v2/cudasharedmemory/{*rest}",
    ] {
        router = router.route(path, any(unserved));
    }
    router
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .with_state(shared)
}

/// Trace settings, log settings, shared memory, generation: parts of the protocol's extensions that are not served.
async fn unserved(uri: Uri) -> Refusal {
    Fault::new(
        Kind::Unsupported,
        format!("{} is not served here", uri.path()),
    )
    .into()
}

async fn nowhere(uri: Uri) -> Refusal {
    Fault::new(Kind::NotFound, format!("no such path: {}", uri.path())).into()
}

async fn other_method(method: Method, uri: Uri) -> axum::response::Response {
    refusal::answer(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("{} does not take {method}", uri.path()),
    )
}
