//! A request whose binary tail is any bytes, cut and described in any way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_serve_fuzz::assert_sound;
use penstock_serve_fuzz::wire::coding::Coding;
use penstock_serve_fuzz::wire::{Limits, json};

const DATATYPES: [&str; 12] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32",
    "FP64", "BYTES",
];

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, rows, width, size, off, coding], tail)) = data.split_first_chunk::<6>()
    else {
        return;
    };
    let datatype = DATATYPES[usize::from(kind) % DATATYPES.len()];
    let inputs = format!(
        r#"{{"inputs":[{{"name":"a","shape":[{rows},{width}],"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}},
        {{"name":"b","shape":[{rows}],"datatype":"BYTES","parameters":{{"binary_data_size":{}}}}}]}}"#,
        tail.len().saturating_sub(usize::from(size))
    );
    let body = [inputs.as_bytes(), tail].concat();
    let header = (inputs.len() + usize::from(off % 4)).saturating_sub(1);
    for header in [inputs.len(), header] {
        if let Ok(call) = json::request(&body, Some(header), &Limits::default()) {
            assert_sound(&call);
        }
    }
    let limits = Limits {
        body_bytes: 1 << 16,
        ..Limits::default()
    };
    let coding = [Coding::Gzip, Coding::Deflate, Coding::Zstd][usize::from(coding) % 3];
    if let Ok(bytes) = coding.decode(tail, &limits) {
        assert!(bytes.len() <= limits.body_bytes);
    }
});
