//! Any bytes as a protobuf request, past the guard that counts its parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_serve_fuzz::wire::proto::message::ModelInferRequest;
use penstock_serve_fuzz::wire::{Limits, guard, proto};
use penstock_serve_fuzz::{Kind, assert_sound};
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let checked = guard::check(data);
    let Ok(mut message) = ModelInferRequest::decode(data) else {
        return;
    };
    // No input here has too many parts. (The guard also refuses groups, which this protocol never had and prost skips.)
    let too_large = checked.is_err_and(|fault| fault.kind == Kind::TooLarge);
    assert!(!too_large);
    if let Ok(call) = proto::request(&mut message, &Limits::default()) {
        assert_sound(&call);
    }
});
