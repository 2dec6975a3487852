//! gRPC: the Open Inference Protocol's service, health and reflection.
//!
//! `service.rs` is the protocol's service over the same `Service` as REST; `codec.rs` how messages are read;
//! `status.rs` how faults are told; `health.rs` grpc.health.v1.

mod codec;
mod documents;
mod health;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use crate::door::Shared;
use crate::error::{Fault, Result};
use crate::service::Service;
use crate::wire::proto::message::grpc_inference_service_server::GrpcInferenceServiceServer;
pub(crate) use codec::Codec;
pub(crate) use status::{http_status, is_open, of as status, refuse, retold};

/// schemas/inference.proto, compiled: a serialised FileDescriptorSet.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("inference");

pub fn router<S: Service>(shared: &Arc<Shared<S>>) -> Result<Router> {
    let codings = [
        CompressionEncoding::Gzip,
        CompressionEncoding::Deflate,
        CompressionEncoding::Zstd,
    ];
    let mut inference = GrpcInferenceServiceServer::new(service::Inference(Arc::clone(shared)))
        .max_decoding_message_size(shared.limits.body_bytes)
        .max_encoding_message_size(usize::MAX);
    for coding in codings {
        inference = inference.accept_compressed(coding).send_compressed(coding);
    }
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error| Fault::internal(format!("gRPC reflection: {error}"));
    let routes = Routes::new(inference)
        .add_service(HealthServer::new(health::Health(Arc::clone(shared))))
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok(routes.prepare().into_axum_router())
}
