//! Health, metadata, statistics, the repository and metrics.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};

use super::documents;
use super::infer::Named;
use super::{Refusal, body};
use crate::auth::{Grant, Scope};
use crate::door::Shared;
use crate::error::{Fault, Kind};
use crate::service::{Service, State as ModelState};

type Answer<T> = std::result::Result<T, Refusal>;
type Doors<S> = State<Arc<Shared<S>>>;

/// The protocol's extensions that are served, by their names.
pub(crate) const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

fn grant<S: Service>(shared: &Shared<S>, headers: &HeaderMap) -> crate::Result<Grant> {
    shared.gate.grant(
        headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes()),
    )
}

pub(super) async fn server() -> Json<Value> {
    Json(
        json!({"name": "penstock", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}),
    )
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

pub(super) async fn ready<S: Service>(State(shared): Doors<S>) -> Response {
    let ready = shared.ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": ready}))).into_response()
}

pub(super) async fn describe<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    grant(&shared, &headers)?.look(&named.model)?;
    let description = shared
        .service
        .describe(&named.model, named.version.as_deref())?;
    Ok(Json(documents::description(&description)))
}

pub(super) async fn model_ready<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    grant(&shared, &headers)?.look(&named.model)?;
    let version = named.version.as_deref();
    if !shared.service.model_ready(&named.model, version) {
        shared.service.describe(&named.model, version)?;
        let text = format!("model '{}' is not ready", named.model);
        return Err(Fault::new(Kind::Unavailable, text).into());
    }
    Ok(Json(json!({"name": named.model, "ready": true})))
}

pub(super) async fn config<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    grant(&shared, &headers)?.look(&named.model)?;
    let config = shared
        .service
        .config(&named.model, named.version.as_deref())?;
    Ok(Json(documents::config(&config)))
}

pub(super) async fn statistics<S: Service>(
    State(shared): Doors<S>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let grant = grant(&shared, &headers)?;
    let mut found = shared.service.statistics(None, None)?;
    found.retain(|statistics| grant.sees(&statistics.name));
    Ok(Json(documents::statistics(&found)))
}

pub(super) async fn model_statistics<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    grant(&shared, &headers)?.look(&named.model)?;
    let found = shared
        .service
        .statistics(Some(&named.model), named.version.as_deref())?;
    Ok(Json(documents::statistics(&found)))
}

pub(super) async fn index<S: Service>(
    State(shared): Doors<S>,
    request: Request<Body>,
) -> Answer<Json<Value>> {
    let (parts, body) = request.into_parts();
    let grant = grant(&shared, &parts.headers)?;
    let asked = body::object(&shared, &parts.headers, body).await?;
    let ready = match asked.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => return Err(Fault::invalid("'ready' must be true or false").into()),
    };
    let mut models = shared.service.index();
    models.retain(|entry| grant.sees(&entry.name) && (!ready || entry.state == ModelState::Ready));
    Ok(Json(documents::index(&models)))
}

pub(super) async fn load<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    request: Request<Body>,
) -> Answer<Response> {
    administer(&shared, &named, request).await?;
    shared.service.load(&named.model).await?;
    Ok(done())
}

pub(super) async fn unload<S: Service>(
    State(shared): Doors<S>,
    named: Named,
    request: Request<Body>,
) -> Answer<Response> {
    administer(&shared, &named, request).await?;
    shared.service.unload(&named.model).await?;
    Ok(done())
}

fn done() -> Response {
    Json(json!({})).into_response()
}

async fn administer<S: Service>(
    shared: &Shared<S>,
    named: &Named,
    request: Request<Body>,
) -> Answer<()> {
    let (parts, body) = request.into_parts();
    grant(shared, &parts.headers)?.may(Scope::Admin, Some(&named.model))?;
    let asked = body::object(shared, &parts.headers, body).await?;
    let parameters = match asked.get("parameters") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(Fault::invalid("'parameters' must be an object").into()),
    };
    parameters
        .keys()
        .try_for_each(|name| check_load_parameter(name))?;
    Ok(())
}

/// What is served comes from the server's configuration and registry, never from a request.
pub(crate) fn check_load_parameter(name: &str) -> crate::Result<()> {
    if name == "config" || name.starts_with("file:") {
        let text = format!(
            "parameter '{name}' is not taken: models are changed in the server's configuration"
        );
        return Err(Fault::invalid(text));
    }
    Ok(())
}

pub(super) async fn metrics<S: Service>(
    State(shared): Doors<S>,
    headers: HeaderMap,
) -> Answer<Response> {
    grant(&shared, &headers)?.may(Scope::Metrics, None)?;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, shared.metrics()).into_response())
}
