//! Faults as gRPC statuses, and what tonic says of its own accord put as the contract says it.

use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::error::{Fault, Kind};

pub(crate) fn of(fault: Fault) -> Status {
    let mut status = Status::new(code(fault.kind), fault.message);
    let again = matches!(fault.kind, Kind::Busy | Kind::Unavailable);
    if let Some(seconds) = fault.retry_after_s.or(again.then_some(1)) {
        // Clients that retry by themselves wait for so long.
        let millis = MetadataValue::from(u64::from(seconds) * 1000);
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", millis);
    }
    status
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::TooLarge | Kind::Busy => Code::ResourceExhausted,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Unavailable => Code::Unavailable,
        Kind::Late => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// A fault found before a call reached its method.
pub(crate) fn refuse(fault: Fault) -> Response {
    of(fault).into_http()
}

/// Calls that anybody may make, tokens or not: probes, and what the server is.
pub(crate) fn is_open(path: &str) -> bool {
    const OPEN: [&str; 3] = ["ServerLive", "ServerReady", "ServerMetadata"];
    match path.strip_prefix("/inference.GRPCInferenceService/") {
        Some(method) => OPEN.contains(&method),
        None => true,
    }
}

/// tonic answers a message beyond the limit with OUT_OF_RANGE, and one whose compression is broken with INTERNAL; both are
/// statuses that nothing of ours gives for it.
pub(crate) fn retold(headers: &mut HeaderMap) {
    let message = headers
        .get("grpc-message")
        .and_then(|text| text.to_str().ok())
        .unwrap_or_default();
    let code = match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"11") => Code::ResourceExhausted,
        Some(b"13") if message.starts_with("Error%20decompressing") => Code::InvalidArgument,
        _ => return,
    };
    headers.insert("grpc-status", (code as i32).into());
}

/// The HTTP status of the same meaning, for counting. A reply without a status in its head is a good one.
pub(crate) fn http_status(headers: &HeaderMap) -> u16 {
    match headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
    {
        None | Some(Code::Ok) => 200,
        Some(Code::InvalidArgument) => 400,
        Some(Code::Unauthenticated) => 401,
        Some(Code::PermissionDenied) => 403,
        Some(Code::NotFound) => 404,
        Some(Code::ResourceExhausted) => 429,
        Some(Code::Unimplemented) => 501,
        Some(Code::Unavailable) => 503,
        Some(Code::DeadlineExceeded) => 504,
        Some(_) => 500,
    }
}
