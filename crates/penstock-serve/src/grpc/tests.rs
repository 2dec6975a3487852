//! The gRPC service, called by the generated client past the door but not past its guard.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::Router;
use axum::response::Response;
use http::Request;
use serde_json::json;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::router;
use crate::auth::Gate;
use crate::door::{Door, Settings, Shared, answer};
use crate::fake::Fake;
use crate::wire::proto::message::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::wire::proto::message::infer_parameter::ParameterChoice;
use crate::wire::proto::message::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use crate::wire::proto::message::*;

#[derive(Clone)]
struct Inside {
    router: Router,
    shared: Arc<Shared<Fake>>,
}

impl tower::Service<Request<Body>> for Inside {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Inside { router, shared } = self.clone();
        Box::pin(async move { Ok(answer(Door::Grpc, router, &shared, request).await) })
    }
}

fn inside(text: serde_json::Value) -> Inside {
    let settings: Settings = serde_json::from_value(text).expect("settings");
    let gate = Arc::new(Gate::new(&settings.tokens).expect("tokens"));
    let shared = Arc::new(Shared::new(Arc::new(Fake::default()), gate, &settings));
    Inside {
        router: router(&shared).expect("a router"),
        shared,
    }
}

fn client(text: serde_json::Value) -> GrpcInferenceServiceClient<Inside> {
    GrpcInferenceServiceClient::new(inside(text))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn one_row(model: &str) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "42".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![0.5_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

#[test]
fn a_request_is_answered_raw_with_its_version_and_bundle() {
    let inside = inside(json!({}));
    let fake = Arc::clone(&inside.shared.service);
    let mut client = GrpcInferenceServiceClient::new(inside)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let reply = run(client.model_infer(one_row("echo")))
        .expect("a reply")
        .into_inner();
    assert_eq!(
        (
            reply.model_name.as_str(),
            reply.model_version.as_str(),
            reply.id.as_str()
        ),
        ("echo", "1", "42")
    );
    assert_eq!(
        reply.raw_output_contents,
        one_row("echo").raw_input_contents
    );
    assert_eq!(
        (
            reply.outputs[0].datatype.as_str(),
            &reply.outputs[0].shape[..]
        ),
        ("FP32", &[1][..])
    );
    assert!(reply.outputs[0].contents.is_none());
    let bundle = reply.parameters["bundle"].parameter_choice.clone();
    assert_eq!(
        bundle,
        Some(ParameterChoice::StringParam("sha256:ab".to_owned()))
    );
    assert_eq!(fake.encoded.load(Ordering::Relaxed), 1);
}

#[test]
fn models_are_told_of() {
    let mut client = client(json!({}));
    run(async {
        assert!(
            client
                .server_live(ServerLiveRequest {})
                .await
                .expect("a reply")
                .into_inner()
                .live
        );
        assert!(
            client
                .server_ready(ServerReadyRequest {})
                .await
                .expect("a reply")
                .into_inner()
                .ready
        );
        for (name, version, ready) in [
            ("echo", "", true),
            ("echo", "1", true),
            ("echo", "2", false),
            ("none", "", false),
        ] {
            let asked = ModelReadyRequest {
                name: name.to_owned(),
                version: version.to_owned(),
            };
            assert_eq!(
                client
                    .model_ready(asked)
                    .await
                    .expect("always OK")
                    .into_inner()
                    .ready,
                ready
            );
        }
        let asked = ModelMetadataRequest {
            name: "echo".to_owned(),
            ..Default::default()
        };
        let model = client
            .model_metadata(asked)
            .await
            .expect("a reply")
            .into_inner();
        assert_eq!((model.inputs.len(), model.mapped_inputs.len()), (2, 1));
        let asked = ModelConfigRequest {
            name: "echo".to_owned(),
            ..Default::default()
        };
        let config = client
            .model_config(asked)
            .await
            .expect("a reply")
            .into_inner()
            .config
            .expect("a config");
        assert_eq!(
            (config.input[0].data_type(), config.max_batch_size),
            (DataType::TypeString, 1000)
        );
        let asked = ModelStatisticsRequest::default();
        let statistics = client
            .model_statistics(asked)
            .await
            .expect("a reply")
            .into_inner()
            .model_stats;
        assert_eq!((statistics.len(), statistics[0].inference_count), (4, 3));
        let index = client
            .repository_index(RepositoryIndexRequest {
                ready: true,
                ..Default::default()
            })
            .await;
        assert_eq!(index.expect("a reply").into_inner().models.len(), 3);
        let asked = ModelMetadataRequest {
            name: "none".to_owned(),
            ..Default::default()
        };
        assert_eq!(code(client.model_metadata(asked).await), Code::NotFound);
    });
}

#[test]
fn faults_have_their_codes() {
    let mut client = client(json!({"limits": {"body_bytes": 5000}}));
    run(async {
        let mut mixed = one_row("echo");
        mixed.inputs[0].contents = Some(InferTensorContents {
            fp32_contents: vec![0.5],
            ..Default::default()
        });
        let status = client.model_infer(mixed).await.expect_err("mixed");
        assert!(
            status.code() == Code::InvalidArgument && status.message().contains("'x'"),
            "{status}"
        );
        assert_eq!(
            code(client.model_infer(one_row("none")).await),
            Code::NotFound
        );
        assert_eq!(
            code(client.model_infer(one_row("broken")).await),
            Code::Internal
        );
        let busy = client.model_infer(one_row("busy")).await.expect_err("busy");
        assert_eq!(busy.code(), Code::ResourceExhausted);
        assert_eq!(
            busy.metadata()
                .get("grpc-retry-pushback-ms")
                .map(|value| value.as_bytes()),
            Some(&b"3000"[..])
        );
        let mut late = tonic::Request::new(one_row("slow"));
        late.metadata_mut()
            .insert("grpc-timeout", "20m".parse().expect("ASCII"));
        assert_eq!(code(client.model_infer(late).await), Code::DeadlineExceeded);
        let mut wrong = tonic::Request::new(one_row("echo"));
        wrong
            .metadata_mut()
            .insert("grpc-timeout", "soon".parse().expect("ASCII"));
        assert_eq!(code(client.model_infer(wrong).await), Code::InvalidArgument);
        let mut large = one_row("echo");
        large.outputs.push(InferRequestedOutputTensor {
            name: "x".repeat(6000),
            ..Default::default()
        });
        assert_eq!(
            code(client.model_infer(large.clone()).await),
            Code::ResourceExhausted
        );
        let mut zipped = client.clone().send_compressed(CompressionEncoding::Gzip);
        assert_eq!(
            code(zipped.model_infer(large).await),
            Code::ResourceExhausted
        );
        assert_eq!(
            code(client.trace_setting(TraceSettingRequest::default()).await),
            Code::Unimplemented
        );
        let asked = SystemSharedMemoryStatusRequest::default();
        assert_eq!(
            code(client.system_shared_memory_status(asked).await),
            Code::Unimplemented
        );
        let stream = futures_util::stream::iter([one_row("echo")]);
        assert_eq!(
            code(client.model_stream_infer(stream).await),
            Code::Unimplemented
        );
        let load = RepositoryModelLoadRequest {
            model_name: "echo".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            code(client.repository_model_load(load).await),
            Code::PermissionDenied
        );
    });
}

#[test]
fn bodies_beyond_what_may_be_held_are_refused() {
    let mut client = client(json!({"held_bytes": 10}));
    assert_eq!(
        code(run(client.model_infer(one_row("echo")))),
        Code::ResourceExhausted
    );
}

#[test]
fn bytes_that_are_no_message_are_the_clients_fault() {
    let cases: [(&[u8], &[u8]); 4] = [
        (&[0, 0, 0, 0, 2, 0x2a, 9], b"3"),
        (&[0, 0, 0, 0, 3, 0x0a, 1, 0xff], b"3"),
        (&[1, 0, 0, 0, 2, 0x2a, 9], b"3"),
        (&[0, 255, 255, 255, 255], b"8"),
    ];
    for (bytes, expected) in cases {
        let mut inside = inside(json!({}));
        let request = Request::post("/inference.GRPCInferenceService/ModelInfer")
            .header("content-type", "application/grpc")
            .header("grpc-encoding", "gzip")
            .body(Body::new(http_body_util::Full::new(
                bytes::Bytes::from_static(bytes),
            )))
            .expect("a request");
        let Ok(response) = run(tower::Service::call(&mut inside, request));
        let status = response
            .headers()
            .get("grpc-status")
            .map(|value| value.as_bytes());
        assert_eq!(
            status,
            Some(expected),
            "{bytes:?}: {:?}",
            response.headers()
        );
        assert!(response.headers().contains_key("x-request-id"));
    }
}

#[test]
fn tokens_are_asked_for_but_by_probes() {
    let sha256 = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"; // of "ab"
    let token =
        json!({"name": "ops", "sha256": sha256, "scopes": ["admin", "infer"], "models": ["echo"]});
    let mut client = client(json!({"tokens": [token]}));
    fn with<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", "Bearer ab".parse().expect("ASCII"));
        request
    }
    run(async {
        assert!(client.server_ready(ServerReadyRequest {}).await.is_ok());
        assert_eq!(
            code(client.model_infer(one_row("echo")).await),
            Code::Unauthenticated
        );
        assert!(client.model_infer(with(one_row("echo"))).await.is_ok());
        assert_eq!(
            code(client.model_infer(with(one_row("slow"))).await),
            Code::PermissionDenied
        );
        let index = client
            .repository_index(with(RepositoryIndexRequest::default()))
            .await
            .expect("a reply");
        assert_eq!(index.into_inner().models.len(), 1);
        // As KServe's client sends it: the model's name in the first field.
        let load = RepositoryModelLoadRequest {
            repository_name: "echo".to_owned(),
            ..Default::default()
        };
        let loaded = client
            .repository_model_load(with(load))
            .await
            .expect("a reply")
            .into_inner();
        assert!(loaded.is_loaded && loaded.model_name == "echo");
        let parameters = [("config".to_owned(), ModelRepositoryParameter::default())].into();
        let load = RepositoryModelLoadRequest {
            model_name: "echo".to_owned(),
            parameters,
            ..Default::default()
        };
        assert_eq!(
            code(client.repository_model_load(with(load)).await),
            Code::InvalidArgument
        );
        let unload = RepositoryModelUnloadRequest {
            model_name: "slow".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            code(client.repository_model_unload(with(unload)).await),
            Code::PermissionDenied
        );
    });
}
