//! Any bytes as a JSON request: an error or a call, and what is taken is JSON to others too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_serve_fuzz::wire::{Limits, json};
use penstock_serve_fuzz::{assert_sound, wire};

fuzz_target!(|data: &[u8]| {
    let Ok(call) = json::request(data, None, &Limits::default()) else {
        return;
    };
    assert_sound(&call);
    let text = std::str::from_utf8(data).expect("only UTF-8 is taken");
    if !text.contains("NaN") && !text.contains("Infinity") {
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
        // serde_json has a depth limit of 128, ours is 64 in what is not looked at.
        assert!(parsed.is_ok(), "{parsed:?}");
    }
    let _ = wire::json::error(text);
});
