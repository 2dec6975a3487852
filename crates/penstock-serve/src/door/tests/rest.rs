//! REST as the contract says it.

use std::io::Read;

use serde_json::json;

use super::{client, open, settings, token};

const ONE_ROW: &str =
    r#"{"id":"42","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0.5]}]}"#;

#[test]
fn health_metadata_statistics_and_index_are_told() {
    let (address, _open) = open(settings(json!({})));
    let mut client = client(address);
    assert_eq!(client.get("/v2/health/live").text(), r#"{"live":true}"#);
    assert_eq!(client.get("/v2/health/ready").text(), r#"{"ready":true}"#);
    assert_eq!(client.get("/v2").json()["name"], "penstock");
    for path in ["/v2/models/echo", "/v2/models/echo/versions/1"] {
        let model = client.get(path).json();
        assert_eq!(
            model["inputs"][1],
            json!({"name": "price", "datatype": "FP64", "shape": [-1]})
        );
        assert_eq!(model["mapped_inputs"][0]["datatype"], "UINT64");
        assert_eq!(client.get(&format!("{path}/ready")).json()["ready"], true);
        let config = client.get(&format!("{path}/config")).json();
        assert_eq!(
            config["input"][0],
            json!({"name": "user", "data_type": "TYPE_STRING", "dims": []})
        );
        let statistics = client.get(&format!("{path}/stats")).json();
        assert_eq!(
            statistics["model_stats"][0]["inference_stats"]["success"],
            json!({"count": 2, "ns": 5000})
        );
    }
    assert_eq!(
        client.get("/v2/models/stats").json()["model_stats"]
            .as_array()
            .map(Vec::len),
        Some(4)
    );
    assert_eq!(
        client
            .post("/v2/repository/index", "")
            .json()
            .as_array()
            .map(Vec::len),
        Some(4)
    );
    let ready = client
        .post("/v2/repository/index", r#"{"ready":true}"#)
        .json();
    assert_eq!(ready.as_array().map(Vec::len), Some(3));
    client.get("/v2/models/none").assert_error(404, "'none'");
    client
        .get("/v2/models/none/ready")
        .assert_error(404, "'none'");
    client
        .get("/v2/models/echo/versions/9/ready")
        .assert_error(404, "'9'");
    client
        .get("/v2/models/broken/ready")
        .assert_error(503, "not ready");
    client.get("/elsewhere").assert_error(404, "/elsewhere");
    client.get("/v2/models/%ff/ready").assert_error(400, "%ff");
    client.get("/v2/models/echo/infer").assert_error(405, "GET");
    for path in [
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/systemsharedmemory/status",
        "/v2/models/echo/trace/setting",
    ] {
        client.get(path).assert_error(501, path);
    }
    client
        .post("/v2/cudasharedmemory/region/r/register", "{}")
        .assert_error(501, "cudasharedmemory");
    let metrics = client.get("/metrics");
    assert!(metrics.text().contains("penstock_fake 1\n"));
    assert!(
        metrics
            .text()
            .contains("penstock_door_replies_total{door=\"http\",status=\"404\"} 4\n"),
        "{}",
        metrics.text()
    );
}

#[test]
fn a_request_is_answered_in_the_form_it_asks_for() {
    let (address, _open) = open(settings(json!({})));
    let mut client = client(address);
    let plain = client.ask(
        "POST",
        "/v2/models/echo/infer",
        "content-type: text/plain\r\n",
        ONE_ROW.as_bytes(),
    );
    assert_eq!(plain.header("content-type"), Some("application/json"));
    let expected = json!({
        "model_name": "echo", "model_version": "1", "id": "42", "parameters": {"bundle": "sha256:ab"},
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}],
    });
    assert_eq!(plain.json(), expected);
    let json = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}}],
    });
    let mut body = json.to_string().into_bytes();
    let header = format!("inference-header-content-length: {}\r\n", body.len());
    body.extend_from_slice(&[
        7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
    ]);
    let binary = client.ask("POST", "/v2/models/echo/versions/1/infer", &header, &body);
    assert_eq!(
        binary.header("content-type"),
        Some("application/octet-stream")
    );
    let length: usize = binary
        .header("inference-header-content-length")
        .expect("a tail")
        .parse()
        .expect("a number");
    assert_eq!(binary.body[length..], body[body.len() - 16..]);
    let mut gzip = flate2::read::GzEncoder::new(&body[..], flate2::Compression::default());
    let mut coded = Vec::new();
    gzip.read_to_end(&mut coded).expect("memory");
    let asks = format!("{header}content-encoding: gzip\r\naccept-encoding: deflate\r\n");
    let both = client.ask("POST", "/v2/models/echo/infer", &asks, &coded);
    assert_eq!(both.header("content-encoding"), Some("deflate"), "{both:?}");
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(&both.body[..])
        .read_to_end(&mut plain)
        .expect("zlib");
    assert_eq!(plain, binary.body);
}

#[test]
fn a_fault_is_one_error_with_its_status() {
    let (address, _open) = open(settings(json!({"limits": {"body_bytes": 5000}})));
    let mut client = client(address);
    client
        .post("/v2/models/echo/infer", "{")
        .assert_error(400, "JSON");
    client
        .post("/v2/models/none/infer", ONE_ROW)
        .assert_error(404, "'none'");
    client
        .post("/v2/models/echo/versions/2/infer", ONE_ROW)
        .assert_error(404, "'2'");
    let busy = client.post("/v2/models/busy/infer", ONE_ROW);
    busy.assert_error(429, "full");
    assert_eq!(busy.header("retry-after"), Some("3"));
    let late = ONE_ROW.replacen('{', r#"{"parameters":{"timeout":20000},"#, 1);
    client
        .post("/v2/models/slow/infer", &late)
        .assert_error(504, "deadline");
    client
        .post("/v2/models/broken/infer", ONE_ROW)
        .assert_error(500, "failed");
    client
        .ask(
            "POST",
            "/v2/models/echo/infer",
            "content-encoding: br\r\n",
            b"x",
        )
        .assert_error(400, "br");
    client
        .ask(
            "POST",
            "/v2/models/echo/infer",
            "content-encoding: zstd\r\n",
            b"x",
        )
        .assert_error(400, "zstd");
    let header = "inference-header-content-length: -1\r\n";
    client
        .ask("POST", "/v2/models/echo/infer", header, ONE_ROW.as_bytes())
        .assert_error(400, "Length");
    client
        .post("/v2/models/echo/infer", &" ".repeat(5001))
        .assert_error(413, "5000");
}

#[test]
fn request_ids_and_traces_are_echoed() {
    let (address, _open) = open(settings(json!({})));
    let mut client = client(address);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = format!("x-request-id: abc\r\ntraceparent: {parent}\r\ntracestate: a=b\r\n");
    for path in ["/v2/models/echo/infer", "/v2/models/none/infer"] {
        let answer = client.ask("POST", path, &headers, ONE_ROW.as_bytes());
        assert_eq!(answer.header("x-request-id"), Some("abc"));
        assert_eq!(answer.header("traceparent"), Some(parent));
        assert_eq!(answer.header("tracestate"), Some("a=b"));
    }
    let ids = [(); 2].map(|()| client.get("/v2").header("x-request-id").map(str::to_owned));
    assert!(
        ids[0].as_ref().is_some_and(|id| id.len() == 16) && ids[0] != ids[1],
        "{ids:?}"
    );
}

#[test]
fn tokens_open_their_models_alone() {
    let (address, open) = open(settings(json!({"tokens": [
        token("ads", "a", &["infer"], Some(&["echo"])),
        token("ops", "o", &["admin", "metrics"], None),
    ]})));
    let mut client = client(address);
    assert_eq!(client.get("/v2/health/ready").status, 200);
    let missing = client.post("/v2/models/echo/infer", ONE_ROW);
    missing.assert_error(401, "bearer");
    assert_eq!(missing.header("www-authenticate"), Some("bearer"));
    for path in [
        "/v2/models/echo",
        "/v2/models/stats",
        "/metrics",
        "/v2/models/echo/config",
    ] {
        client.get(path).assert_error(401, "bearer");
    }
    let ads = "authorization: Bearer a\r\n";
    let ops = "authorization: Bearer o\r\n";
    assert_eq!(
        client
            .ask("POST", "/v2/models/echo/infer", ads, ONE_ROW.as_bytes())
            .status,
        200
    );
    client
        .ask("POST", "/v2/models/slow/infer", ads, ONE_ROW.as_bytes())
        .assert_error(403, "'slow'");
    client
        .ask("POST", "/v2/models/none/infer", ads, ONE_ROW.as_bytes())
        .assert_error(403, "'none'");
    client
        .ask("POST", "/v2/models/echo/infer", ops, ONE_ROW.as_bytes())
        .assert_error(403, "infer");
    client
        .ask("GET", "/v2/models/slow", ads, b"")
        .assert_error(403, "'slow'");
    client
        .ask("GET", "/metrics", ads, b"")
        .assert_error(403, "metrics");
    assert_eq!(client.ask("GET", "/metrics", ops, b"").status, 200);
    let index = client.ask("POST", "/v2/repository/index", ads, b"").json();
    assert_eq!(index.as_array().map(Vec::len), Some(1));
    let statistics = client.ask("GET", "/v2/models/stats", ads, b"").json();
    assert_eq!(statistics["model_stats"].as_array().map(Vec::len), Some(1));
    client
        .ask("POST", "/v2/repository/models/echo/unload", ads, b"")
        .assert_error(403, "admin");
    assert_eq!(
        client
            .ask("POST", "/v2/repository/models/echo/load", ops, b"{}")
            .status,
        200
    );
    let dependents = br#"{"parameters":{"unload_dependents":false}}"#;
    assert_eq!(
        client
            .ask("POST", "/v2/repository/models/echo/unload", ops, dependents)
            .status,
        200
    );
    for name in ["config", "file:1/model.onnx"] {
        let body = json!({"parameters": {name: "x"}}).to_string();
        let refused = client.ask(
            "POST",
            "/v2/repository/models/echo/load",
            ops,
            body.as_bytes(),
        );
        refused.assert_error(400, name);
    }
    let new = serde_json::from_value(token("ads", "b", &["infer"], None)).expect("a token");
    open.set_tokens(&[new]).expect("a good token");
    client
        .ask("POST", "/v2/models/echo/infer", ads, ONE_ROW.as_bytes())
        .assert_error(401, "not known");
    let new = "authorization: Bearer b\r\n";
    assert_eq!(
        client
            .ask("POST", "/v2/models/echo/infer", new, ONE_ROW.as_bytes())
            .status,
        200
    );
}

#[test]
fn without_tokens_administration_is_off() {
    let (address, _open) = open(settings(json!({})));
    client(address)
        .post("/v2/repository/models/echo/load", "")
        .assert_error(403, "off");
}
