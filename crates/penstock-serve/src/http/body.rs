//! Bodies: read within the limits, and freed of their coding.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::door::{Hold, Shared};
use crate::error::{Fault, Kind, Result};
use crate::service::Service;
use crate::wire::coding::Coding;

/// A `Content-Length` is believed up to here; beyond, bytes must come first.
const BELIEVED_BYTES: usize = 1 << 20;

/// Reads a body as it came, and what it holds until it is dropped.
pub(super) async fn read<S: Service>(shared: &Shared<S>, body: Body) -> Result<(Bytes, Hold)> {
    let said = body.size_hint().lower();
    let mut hold = shared.hold();
    if said > shared.limits.body_bytes as u64 {
        return Err(shared.limits.too_long());
    }
    let whole = collect(shared, body, said as usize, &mut hold);
    let bytes = tokio::time::timeout(shared.arrival, whole)
        .await
        .map_err(|_| {
            let waited = shared.arrival.as_secs_f64();
            Fault::invalid(format!("the body did not arrive within {waited} s"))
        })??;
    Ok((bytes, hold))
}

async fn collect<S: Service>(
    shared: &Shared<S>,
    mut body: Body,
    said: usize,
    hold: &mut Hold,
) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Fault::invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        hold.more(data.len())?;
        if first.len() + rest.len() + data.len() > shared.limits.body_bytes {
            return Err(shared.limits.too_long());
        }
        if first.is_empty() && rest.is_empty() {
            // Most bodies are one piece, which is taken as it is.
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(said.clamp(
                    first.len() + data.len(),
                    BELIEVED_BYTES.max(first.len() + data.len()),
                ));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// The coding that the headers name.
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<Coding>> {
    let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Coding::of_content(&one.to_str().unwrap_or("?").to_ascii_lowercase()),
        (Some(_), Some(_)) => Err(Fault::invalid(
            "the body has more than one Content-Encoding; send one",
        )),
    }
}

/// The small JSON body of an administrative request; an empty one is an empty object.
pub(super) async fn object<S: Service>(
    shared: &Shared<S>,
    headers: &HeaderMap,
    body: Body,
) -> Result<serde_json::Map<String, serde_json::Value>> {
    let (mut bytes, mut hold) = read(shared, body).await?;
    if let Some(coding) = coding(headers)? {
        bytes = coding.decode(&bytes, &shared.limits)?;
        hold.more(bytes.len())?;
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(serde_json::Map::new());
    }
    if bytes.len() > BELIEVED_BYTES {
        let text = format!(
            "the body has {} bytes where {BELIEVED_BYTES} are the limit",
            bytes.len()
        );
        return Err(Fault::new(Kind::TooLarge, text));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Fault::invalid(format!(
            "the body is neither empty nor a JSON object: {error}"
        ))
    })
}
