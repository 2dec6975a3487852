//! JSON bodies: requests in (`request.rs`), replies out (`reply.rs`).

mod cursor;
mod elements;
mod reply;
mod request;

pub use reply::{Encoded, error, reply};
pub use request::{datatype, request};
