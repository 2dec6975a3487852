//! The serving host: bundles become live models that answer the Open Inference Protocol v2, with no Python on the way.
//!
//! In: bundle folders and requests (`service::Request`, named tensors). Out: replies. Read `service.rs` first: it is the
//! seam between the doors (HTTP, gRPC), the fleet (versions, queues, releases) and the models (`model`).

pub mod auth;
pub mod door;
mod error;
#[cfg(test)]
mod fake;
pub mod fleet;
mod grpc;
mod http;
pub mod log;
pub mod model;
mod samples;
mod service;
mod tensor;
pub mod tls;
pub mod wire;

pub use error::{Fault, Kind, Result};
pub use grpc::DESCRIPTORS;
pub use service::{
    Config, Description, IndexEntry, Reply, Request, Service, State, Statistics, Timings, Trace,
};
pub use tensor::{Data, Datatype, Tensor, TensorSpec, Texts};
