//! POST .../infer: a body in, scores out.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use serde::Deserialize;

use super::{Refusal, body};
use crate::auth::Scope;
use crate::door::{self, Echo, Shared};
use crate::error::{Fault, Result};
use crate::service::Service;
use crate::wire::coding::Coding;
use crate::wire::{Call, Limits, json};

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Larger bodies are decoded off the threads that read, which others' requests wait for.
const LARGE_BYTES: usize = 256 << 10;

/// A model, and perhaps a version, in a path.
#[derive(Deserialize)]
pub(super) struct Named {
    pub model: String,
    pub version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> std::result::Result<Named, Refusal> {
        let read = Path::<Named>::from_request_parts(parts, state).await;
        let wrong = |error| Fault::invalid(format!("the path {}: {error}", parts.uri.path()));
        Ok(read.map_err(wrong)?.0)
    }
}

pub(super) async fn infer<S: Service>(
    State(shared): State<Arc<Shared<S>>>,
    named: Named,
    request: Request<Body>,
) -> std::result::Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let grant = shared.gate.grant(
        headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes),
    )?;
    grant.may(Scope::Infer, Some(&named.model))?;
    let frame = Frame {
        coding: body::coding(&headers)?,
        header_bytes: header_bytes(&headers)?,
    };
    let (bytes, mut hold) = body::read(&shared, body).await?;
    let arrived = Instant::now();
    let large = bytes.len() > LARGE_BYTES / if frame.coding.is_some() { 8 } else { 1 };
    let (mut call, length) = if large {
        let limits = shared.limits;
        let task = tokio::task::spawn_blocking(move || frame.decode(&bytes, &limits));
        task.await
            .map_err(|_| Fault::internal("the server failed to decode this request"))??
    } else {
        frame.decode(&bytes, &shared.limits)?
    };
    hold.more(length)?;
    let echo = parts
        .extensions
        .get::<Echo>()
        .cloned()
        .unwrap_or_else(|| Echo::of(&headers));
    let request = door::request(
        named.model,
        named.version,
        &mut call,
        echo.trace(),
        arrived,
        None,
    );
    let reply = shared.ask(request).await?;
    let began = Instant::now();
    let response = response(json::reply(&reply, &call), &headers)?;
    shared.service.encoded(&reply, began.elapsed());
    Ok(response)
}

/// How a body is to be read.
#[derive(Clone, Copy)]
struct Frame {
    coding: Option<Coding>,
    header_bytes: Option<usize>,
}

impl Frame {
    /// The call, and the bytes that were decompressed for it.
    fn decode(self, bytes: &Bytes, limits: &Limits) -> Result<(Call, usize)> {
        match self.coding {
            None => Ok((json::request(bytes, self.header_bytes, limits)?, 0)),
            Some(coding) => {
                let bytes = coding.decode(bytes, limits)?;
                Ok((
                    json::request(&bytes, self.header_bytes, limits)?,
                    bytes.len(),
                ))
            }
        }
    }
}

fn header_bytes(headers: &HeaderMap) -> Result<Option<usize>> {
    let Some(value) = headers.get(&HEADER_LENGTH) else {
        return Ok(None);
    };
    let parsed = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let wrong = || {
        Fault::invalid(format!(
            "Inference-Header-Content-Length {value:?} is not a number of bytes"
        ))
    };
    parsed.map(Some).ok_or_else(wrong)
}

fn response(encoded: json::Encoded, asked: &HeaderMap) -> Result<Response> {
    let kind = match encoded.header_bytes {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    let offers = asked
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let coding = offers.and_then(|offers| Coding::of_accept(offers, encoded.bytes.len()));
    let bytes = match coding {
        None => encoded.bytes,
        Some(coding) => {
            let failed = |error| Fault::internal(format!("{} failed: {error}", coding.name()));
            coding.encode(&encoded.bytes).map_err(failed)?
        }
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = encoded.header_bytes {
        headers.insert(HEADER_LENGTH, length.into());
    }
    if let Some(coding) = coding {
        headers.insert(
            header::CONTENT_ENCODING,
            HeaderValue::from_static(coding.name()),
        );
    }
    Ok(response)
}
