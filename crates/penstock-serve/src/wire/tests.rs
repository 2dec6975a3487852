//! What is written is read back; what is wrong is refused, naming the input.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::coding::Coding;
use super::proto::message::model_infer_request::InferInputTensor;
use super::proto::message::{InferTensorContents, ModelInferRequest};
use super::{Call, Limits, binary, guard, json, proto};
use crate::error::{Fault, Kind};
use crate::service::{Reply, Timings};
use crate::tensor::{Data, Datatype, Tensor, Texts};

fn read(body: &str) -> crate::Result<Call> {
    json::request(body.as_bytes(), None, &Limits::default())
}

/// The fault of a request with one input.
fn refused(input: &str) -> Fault {
    read(&format!(r#"{{"inputs":[{input}]}}"#)).unwrap_err()
}

fn texts<T: AsRef<[u8]>>(all: &[T]) -> Texts {
    let mut texts = Texts::default();
    all.iter().for_each(|text| texts.push(text.as_ref()));
    texts
}

/// Any data of `count` elements.
fn data(count: usize) -> BoxedStrategy<Data> {
    fn of<T: Arbitrary + 'static>(count: usize, variant: fn(Vec<T>) -> Data) -> BoxedStrategy<Data>
    where
        T::Strategy: 'static,
    {
        proptest::collection::vec(any::<T>(), count)
            .prop_map(variant)
            .boxed()
    }
    let strings =
        proptest::collection::vec(any::<String>(), count).prop_map(|all| Data::Bytes(texts(&all)));
    prop_oneof![
        of(count, Data::Bool),
        of(count, Data::U8),
        of(count, Data::U16),
        of(count, Data::U32),
        of(count, Data::U64),
        of(count, Data::I8),
        of(count, Data::I16),
        of(count, Data::I32),
        of(count, Data::I64),
        of(count, Data::F32),
        of(count, Data::F64),
        strings,
    ]
    .boxed()
}

fn tensor(name: &'static str) -> impl Strategy<Value = Tensor> {
    (0..5_usize, 1..4_usize)
        .prop_flat_map(|(rows, width)| (Just(vec![rows, width]), data(rows * width)))
        .prop_map(move |(shape, data)| Tensor::new(name, shape, data))
}

/// A reply's outputs, read as a request's inputs: their documents are the same.
fn as_request(encoded: json::Encoded) -> (Vec<u8>, Option<usize>) {
    let text = String::from_utf8_lossy(&encoded.bytes).into_owned();
    let at = text.find("\"outputs\"").expect("a reply has outputs");
    let mut body = encoded.bytes;
    body.splice(at..at + 9, b"\"inputs\"".iter().copied());
    (body, encoded.header_bytes.map(|length| length - 1))
}

fn reply(outputs: Vec<Tensor>) -> Reply {
    Reply {
        model: "m\"\\\u{1}".to_owned(),
        version: Arc::from("1"),
        bundle: Arc::from("sha256:00"),
        outputs,
        timings: Timings::default(),
        position: None,
    }
}

/// Equal, NaN being NaN whatever its bits; `marked`: a null stands for what JSON has no number for.
fn same(before: &Tensor, after: &Tensor, marked: bool) -> bool {
    let float = |at: usize, a: f64, b: f64| match a.is_finite() {
        true => a.to_bits() == b.to_bits(),
        false if marked => b.is_nan() && after.nulls.as_ref().is_some_and(|nulls| nulls[at]),
        false => a == b || (a.is_nan() && b.is_nan()),
    };
    before.shape == after.shape
        && match (&before.data, &after.data) {
            (Data::F32(a), Data::F32(b)) => a
                .iter()
                .zip(b)
                .enumerate()
                .all(|(at, (a, b))| float(at, f64::from(*a), f64::from(*b))),
            (Data::F64(a), Data::F64(b)) => a
                .iter()
                .zip(b)
                .enumerate()
                .all(|(at, (a, b))| float(at, *a, *b)),
            (a, b) => a == b,
        }
}

proptest! {
    #[test]
    fn json_that_was_written_is_read_back(a in tensor("a"), b in tensor("b")) {
        let (body, header) = as_request(json::reply(&reply(vec![a.clone(), b.clone()]), &Call::default()));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        let call = json::request(&body, header, &Limits::default()).unwrap();
        prop_assert!(same(&a, &call.tensors[0], true) && same(&b, &call.tensors[1], true), "{:?}", call);
    }

    #[test]
    fn binary_that_was_written_is_read_back(a in tensor("a"), b in tensor("b"), mixed: bool) {
        let asked = Call {
            wanted: vec!["a".to_owned(), "b".to_owned()],
            forms: vec![None, mixed.then_some(false)],
            binary: true,
            ..Call::default()
        };
        let (body, header) = as_request(json::reply(&reply(vec![a.clone(), b.clone()]), &asked));
        let call = json::request(&body, header, &Limits::default()).unwrap();
        prop_assert!(same(&a, &call.tensors[0], false) && same(&b, &call.tensors[1], mixed), "{:?}", call);
    }

    #[test]
    fn a_cut_binary_body_is_refused(a in tensor("a"), cut in 1..9_usize) {
        let (mut body, header) = as_request(json::reply(&reply(vec![a.clone()]), &Call { binary: true, ..Call::default() }));
        let tail = body.len() - header.unwrap();
        prop_assume!(tail >= cut);
        body.truncate(body.len() - cut);
        let fault = json::request(&body, header, &Limits::default()).unwrap_err();
        prop_assert!(fault.kind == Kind::Invalid && fault.message.contains("input 'a'"), "{}", fault);
    }

    #[test]
    fn numbers_are_read_as_serde_json_reads_them(value in any::<f64>().prop_filter("JSON has them", |v| v.is_finite())) {
        for text in [format!("{value}"), format!("{value:e}")] {
            let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1],"data":[{text}]}}]}}"#);
            prop_assert_eq!(&read(&body).unwrap().tensors[0].data, &Data::F64(vec![value]));
        }
    }

    #[test]
    fn strings_are_read_as_serde_json_reads_them(text: String) {
        let written = serde_json::to_string(&text).unwrap();
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for text_json in [written, format!("\"{escaped}\"")] {
            let body = format!(r#"{{"inputs":[{{"data":[{text_json}],"shape":[1],"datatype":"BYTES","name":"x"}}]}}"#);
            prop_assert_eq!(&read(&body).unwrap().tensors[0].data, &Data::Bytes(texts(&[&text])));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, header in proptest::option::of(0..64_usize)) {
        let _ = json::request(&bytes, header, &Limits::default());
        let _ = guard::check(&bytes);
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let _ = coding.decode(&bytes, &Limits::default());
        }
    }

    #[test]
    fn codings_give_back_what_they_took(bytes: Vec<u8>) {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let coded = coding.encode(&bytes).unwrap();
            prop_assert_eq!(&coding.decode(&coded, &Limits::default()).unwrap()[..], &bytes[..]);
        }
    }

    #[test]
    fn raw_contents_and_typed_ones_are_the_same_tensor(values: Vec<i64>) {
        let input = InferInputTensor {
            name: "x".to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![values.len() as i64],
            ..InferInputTensor::default()
        };
        let mut raw = Vec::new();
        binary::write(&Data::I64(values.clone()), &mut raw);
        let mut raw = ModelInferRequest { inputs: vec![input.clone()], raw_input_contents: vec![raw.into()], ..Default::default() };
        let contents = Some(InferTensorContents { int64_contents: values, ..Default::default() });
        let mut typed = ModelInferRequest { inputs: vec![InferInputTensor { contents, ..input }], ..Default::default() };
        prop_assert!(guard::check(&prost::Message::encode_to_vec(&typed)).is_ok());
        let limits = Limits::default();
        prop_assert_eq!(proto::request(&mut raw, &limits).unwrap(), proto::request(&mut typed, &limits).unwrap());
    }
}

#[test]
fn a_request_is_read_whole() {
    let body = json!({
        "id": "7",
        "parameters": {"timeout": 1500, "broadcast": "user, city", "binary_data_output": true, "other": {"a": [1, null]}},
        "inputs": [
            {"name": "user", "shape": [1], "datatype": "BYTES", "data": ["ann"]},
            {"name": "city", "shape": [1, 1], "datatype": "BYTES", "data": [[null]]},
            {"name": "price", "shape": [2, 1], "datatype": "FP64", "data": [[1.5], [null]]},
            {"name": "n", "data": [9223372036854775807_i64, null], "datatype": "INT64", "shape": [2]},
        ],
        "outputs": [{"name": "score", "parameters": {"binary_data": false}}, {"name": "why"}],
    });
    let call = read(&body.to_string()).unwrap();
    assert_eq!(call.id.as_deref(), Some("7"));
    assert_eq!(call.timeout, Some(Duration::from_micros(1500)));
    assert_eq!(call.broadcast, ["user", "city"]);
    assert!(!call.is_binary("score") && call.is_binary("why"));
    assert_eq!(call.tensors[1].nulls, Some(vec![true]));
    assert_eq!(call.tensors[3].data, Data::I64(vec![i64::MAX, 0]));
    assert_eq!(call.tensors[3].nulls, Some(vec![false, true]));
    let Data::F64(prices) = &call.tensors[2].data else {
        panic!("FP64 is read as f64")
    };
    assert!(prices[0] == 1.5 && prices[1].is_nan());
}

#[test]
fn nan_and_infinities_are_read_as_pythons_json_writes_them() {
    let call = read(
        r#"{"inputs":[{"name":"x","shape":[4],"datatype":"FP32","data":[NaN, Infinity,-Infinity,-1e-3]}]}"#,
    );
    let Data::F32(values) = &call.unwrap().tensors[0].data else {
        panic!("FP32 is read as f32")
    };
    assert!(values[0].is_nan() && values[1..] == [f32::INFINITY, f32::NEG_INFINITY, -1e-3]);
}

#[test]
fn what_is_wrong_with_an_input_is_said_with_its_name() {
    let cases = [
        (
            r#"{"name":"x","shape":[1],"datatype":"INT64","data":["a"]}"#,
            "an integer of INT64",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"INT64","data":[1.0]}"#,
            "1.0 is not an integer",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"INT64","data":[9223372036854775808]}"#,
            "not an integer of INT64",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"UINT64","data":[-1]}"#,
            "not an integer of UINT64",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"INT8","data":[128]}"#,
            "INT8",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"INT64","data":[NaN]}"#,
            "an integer",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"BYTES","data":[1]}"#,
            "a string",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"BOOL","data":[1]}"#,
            "true or false",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}"#,
            "beyond FP64",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","data":[01]}"#,
            "begins with 0",
        ),
        (
            r#"{"name":"x","shape":[2],"datatype":"FP64","data":[1]}"#,
            "hold 1 elements where the shape says 2",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","data":[1,2]}"#,
            "more than the 1",
        ),
        (
            r#"{"name":"x","shape":[2,2],"datatype":"FP64","data":[[1,2],[3]]}"#,
            "hold 1 elements",
        ),
        (
            r#"{"name":"x","shape":[2],"datatype":"FP64","data":[[1],[2]]}"#,
            "a number",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","data":[[[[1]]]]}"#,
            "a number",
        ),
        (
            r#"{"name":"x","shape":[-1],"datatype":"FP64","data":[]}"#,
            "not a dimension",
        ),
        (
            r#"{"name":"x","shape":[1.5],"datatype":"FP64","data":[]}"#,
            "not a dimension",
        ),
        (
            r#"{"name":"x","shape":"1","datatype":"FP64","data":[]}"#,
            "'shape'",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP16","data":[1]}"#,
            "\"FP16\" is not served",
        ),
        (r#"{"name":"x","shape":[1],"data":[1]}"#, "no 'datatype'"),
        (r#"{"name":"x","datatype":"FP64","data":[1]}"#, "no 'shape'"),
        (r#"{"name":"x","datatype":"FP64","shape":[1]}"#, "no 'data'"),
        (
            r#"{"name":"x","name":"y","datatype":"FP64","shape":[1],"data":[1]}"#,
            "given twice",
        ),
        (
            r#"{"name":"x","shape":[1,1,1,1,1,1,1,1,1],"datatype":"FP64","data":[1]}"#,
            "dimensions",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}"#,
            "Inference-Header",
        ),
        (
            r#"{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":-8}}"#,
            "not negative",
        ),
    ];
    for (input, says) in cases {
        let fault = refused(input);
        assert_eq!(fault.kind, Kind::Invalid, "{input}: {fault}");
        assert!(fault.message.contains(says), "{input}: {fault}");
        let named = fault.message.contains("input 'x'") || fault.message.contains("input 'y'");
        assert!(named, "{input}: {fault}");
    }
    let unnamed = refused(r#"{"shape":[1],"datatype":"FP64","data":[1]}"#);
    assert!(
        unnamed
            .message
            .contains("input 1 of the request: has no 'name'"),
        "{unnamed}"
    );
}

#[test]
fn sizes_beyond_the_limits_are_too_large() {
    for shape in [
        "[1000000]",
        "[99999,99999,99999]",
        "[4,4294967296,4294967296,4294967296]",
    ] {
        let fault = refused(&format!(
            r#"{{"name":"x","shape":{shape},"datatype":"FP64","data":[1]}}"#
        ));
        assert!(
            fault.kind == Kind::TooLarge && fault.message.contains("'x'"),
            "{fault}"
        );
    }
    let many: Vec<_> = (0..3000)
        .map(|n| json!({"name": n.to_string(), "shape": [1], "datatype": "BOOL", "data": [true]}))
        .collect();
    assert_eq!(
        read(&json!({"inputs": many}).to_string()).unwrap_err().kind,
        Kind::TooLarge
    );
    let limits = Limits {
        body_bytes: 1000,
        ..Limits::default()
    };
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
        let bomb = coding.encode(&vec![b' '; 1 << 20]).unwrap();
        assert_eq!(
            coding.decode(&bomb, &limits).unwrap_err().kind,
            Kind::TooLarge
        );
        assert_eq!(
            coding
                .decode(&bomb[..bomb.len() / 2], &Limits::default())
                .unwrap_err()
                .kind,
            Kind::Invalid
        );
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
    let cases: [&[u8]; 10] = [
        b"",
        b"[]",
        b"{",
        b"{}",
        br#"{"inputs":[]}"#,
        br#"{"inputs":{}}"#,
        br#"{"inputs":[],"inputs":[]}"#,
        br#"{"inputs":[]} x"#,
        b"{\"inputs\":[{\"name\":\"\xff\"}]}",
        deep.as_bytes(),
    ];
    for body in cases {
        let fault = json::request(body, None, &Limits::default()).unwrap_err();
        assert_eq!(fault.kind, Kind::Invalid, "{fault}");
    }
    for (name, value) in [
        ("timeout", "\"1\""),
        ("broadcast", "3"),
        ("binary_data_output", "1"),
    ] {
        let fault = read(&format!(
            r#"{{"parameters":{{"{name}":{value}}},"inputs":[]}}"#
        ))
        .unwrap_err();
        assert!(
            fault.kind == Kind::Invalid && fault.message.contains(name),
            "{fault}"
        );
    }
    for (name, value) in [("sequence_id", "3"), ("sequence_id", "\"a\"")] {
        let fault = read(&format!(
            r#"{{"parameters":{{"{name}":{value}}},"inputs":[]}}"#
        ))
        .unwrap_err();
        assert_eq!(fault.kind, Kind::Unsupported, "{fault}");
    }
    let shared = refused(
        r#"{"name":"x","shape":[1],"datatype":"FP64","parameters":{"shared_memory_region":"r"}}"#,
    );
    assert!(
        shared.kind == Kind::Unsupported && shared.message.contains("'x'"),
        "{shared}"
    );
}

#[test]
fn tensors_that_belong_together_are_held_against_each_other() {
    let x = r#"{"name":"x","shape":[2],"datatype":"FP64","data":[1,2]}"#;
    let cases = [
        (
            format!(r#"{{"inputs":[{x},{x}]}}"#),
            "input 'x' is given twice",
        ),
        (
            format!(
                r#"{{"inputs":[{x},{{"name":"x.null","shape":[1],"datatype":"BOOL","data":[true]}}]}}"#
            ),
            "input 'x.null' has shape [1] where 'x'",
        ),
        (
            format!(r#"{{"parameters":{{"broadcast":"y"}},"inputs":[{x}]}}"#),
            "names 'y'",
        ),
        (
            format!(r#"{{"parameters":{{"broadcast":"x"}},"inputs":[{x}]}}"#),
            "input 'x' is broadcast",
        ),
    ];
    for (body, says) in cases {
        let fault = read(&body).unwrap_err();
        assert!(
            fault.kind == Kind::Invalid && fault.message.contains(says),
            "{fault}"
        );
    }
    for (count, again) in [(40, 3), (65, 64), (200, 10), (200, 150)] {
        let tensor = |n: usize| Tensor::new(format!("c{n}"), vec![1], Data::Bool(vec![true]));
        let mut call = Call {
            tensors: (0..count).map(tensor).collect(),
            ..Call::default()
        };
        assert_eq!(call.check(), Ok(()));
        call.tensors.push(tensor(again));
        let fault = call.check().unwrap_err();
        assert!(fault.message.contains(&format!("'c{again}'")), "{fault}");
    }
}

#[test]
fn binary_tails_that_lie_are_refused() {
    let input = |name: &str, datatype: &str, size: usize| json!({"name": name, "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": size}});
    let check = |inputs: serde_json::Value, tail: &[u8], says: &str| {
        let mut body = json!({"inputs": inputs}).to_string().into_bytes();
        let header = Some(body.len());
        body.extend_from_slice(tail);
        let fault = json::request(&body, header, &Limits::default()).unwrap_err();
        assert!(
            fault.kind == Kind::Invalid && fault.message.contains(says),
            "{fault}"
        );
    };
    check(
        json!([input("x", "FP32", 8)]),
        &[0; 7],
        "input 'x': its binary_data_size is 8, but only 7",
    );
    check(
        json!([input("x", "FP32", 7)]),
        &[0; 7],
        "input 'x': has 7 bytes",
    );
    check(
        json!([input("x", "FP32", 8)]),
        &[0; 9],
        "1 bytes of binary data are left",
    );
    check(
        json!([input("x", "BYTES", 8)]),
        &[1, 0, 0, 0, b'a', 9, 0, 0],
        "input 'x': has 1 BYTES elements",
    );
    check(
        json!([input("x", "BYTES", 9)]),
        &[1, 0, 0, 0, b'a', 255, 255, 255, 255],
        "4294967295 bytes long, 0 are left",
    );
    check(
        json!([input("x", "BYTES", 12)]),
        &[0; 12],
        "4 bytes after the 2 BYTES elements",
    );
    let fault = json::request(b"{}", Some(3), &Limits::default()).unwrap_err();
    assert!(
        fault
            .message
            .contains("Inference-Header-Content-Length is 3"),
        "{fault}"
    );
}

#[test]
fn protobuf_that_does_not_fit_is_refused() {
    let input = |datatype: &str, contents: Option<InferTensorContents>| InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1],
        contents,
        ..InferInputTensor::default()
    };
    let ints = |values: &[i32]| {
        Some(InferTensorContents {
            int_contents: values.to_vec(),
            ..Default::default()
        })
    };
    let check = |inputs: Vec<InferInputTensor>, raw: Vec<&'static [u8]>, says: &str| {
        let raw_input_contents = raw.into_iter().map(Into::into).collect();
        let mut message = ModelInferRequest {
            inputs,
            raw_input_contents,
            ..ModelInferRequest::default()
        };
        let fault = proto::request(&mut message, &Limits::default()).unwrap_err();
        assert!(
            fault.kind == Kind::Invalid && fault.message.contains(says),
            "{fault}"
        );
    };
    check(
        vec![input("INT32", ints(&[1]))],
        vec![&[0; 4]],
        "input 'x': has contents where",
    );
    check(
        vec![input("INT64", ints(&[1]))],
        vec![],
        "has int_contents where its datatype INT64 takes int64_contents",
    );
    check(
        vec![input("INT8", ints(&[300]))],
        vec![],
        "300 is not an integer of INT8",
    );
    check(
        vec![input("INT32", ints(&[1, 2]))],
        vec![],
        "input 'x': has 2 elements",
    );
    check(vec![input("INT32", None)], vec![], "has 0 elements");
    check(
        vec![input("INT32", None)],
        vec![&[0; 4], &[0; 4]],
        "2 entries where the request has 1 inputs",
    );
    check(
        vec![InferInputTensor {
            shape: vec![-1],
            ..input("INT32", None)
        }],
        vec![],
        "negative dimension",
    );
    check(vec![], vec![], "'inputs' is empty");
}

#[test]
fn a_message_of_too_many_parts_is_not_decoded() {
    // An empty input is two bytes on the wire.
    let inputs = [0x2a, 0].repeat(1 << 18);
    assert_eq!(guard::check(&inputs).unwrap_err().kind, Kind::TooLarge);
    let contents = InferTensorContents {
        bytes_contents: vec![Default::default(); 100],
        ..Default::default()
    };
    let input = InferInputTensor {
        contents: Some(contents),
        datatype: Datatype::Bytes.to_string(),
        ..Default::default()
    };
    let message = ModelInferRequest {
        inputs: vec![input],
        ..Default::default()
    };
    assert!(guard::check(&prost::Message::encode_to_vec(&message)).is_ok());
    assert_eq!(guard::check(&[0x2a, 5, 0]).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_coding_is_used_where_it_was_asked_for() {
    assert_eq!(Coding::of_accept("gzip", 10), Some(Coding::Gzip));
    assert_eq!(Coding::of_accept("gzip, deflate", 10), None);
    assert_eq!(
        Coding::of_accept("br, deflate;q=0.5, zstd", 4096),
        Some(Coding::Zstd)
    );
    assert_eq!(Coding::of_accept("identity", 4096), None);
    assert_eq!(Coding::of_accept("gzip;q=0", 4096), None);
    assert!(Coding::of_content("br").is_err() && Coding::of_content("identity").unwrap().is_none());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"abc").unwrap();
    assert_eq!(
        &Coding::Gzip
            .decode(&gzip.finish().unwrap(), &Limits::default())
            .unwrap()[..],
        b"abc"
    );
}

/// Decoders and the seam are compiled alone to be fuzzed, and know neither the doors nor what is behind them.
#[test]
fn decoders_know_nothing_of_the_rest_of_the_host() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = ["error.rs", "service.rs", "tensor.rs"]
        .map(|file| source.join(file))
        .to_vec();
    for folder in ["wire", "wire/json"] {
        let found = std::fs::read_dir(source.join(folder)).unwrap();
        files.extend(
            found
                .map(|file| file.unwrap().path())
                .filter(|path| path.is_file()),
        );
    }
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (_, rest) in text
            .match_indices("crate::")
            .map(|(at, _)| text.split_at(at + 7))
        {
            let known = ["error", "service", "tensor", "wire"]
                .iter()
                .any(|name| rest.starts_with(name));
            assert!(
                known,
                "{}: crate::{}",
                file.display(),
                &rest[..rest.len().min(20)]
            );
        }
    }
}
