//! The host's decoders, compiled alone: with a sanitizer the whole host would take an hour.

#[path = "../../src/error.rs"]
mod error;
#[allow(dead_code)]
#[path = "../../src/service.rs"]
mod service;
#[path = "../../src/tensor.rs"]
mod tensor;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

pub use error::{Fault, Kind, Result};
pub use tensor::{Data, Datatype, Tensor, Texts};

/// What holds of every call that a decoder lets through.
pub fn assert_sound(call: &wire::Call) {
    for tensor in &call.tensors {
        assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        assert!(
            tensor
                .nulls
                .as_ref()
                .is_none_or(|nulls| nulls.len() == tensor.data.len())
        );
    }
    assert_eq!(call.wanted.len(), call.forms.len());
}
