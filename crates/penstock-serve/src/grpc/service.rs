//! The protocol's gRPC service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream;
use http::HeaderMap;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{documents, status};
use crate::auth::{Grant, Scope};
use crate::door::{self, Echo, Shared};
use crate::error::{Fault, Kind};
use crate::http::models::{EXTENSIONS, check_load_parameter};
use crate::service::{Service, State};
use crate::wire::proto::{self, message::*};

pub(super) struct Inference<S>(pub(super) Arc<Shared<S>>);

type Answer<T> = Result<Response<T>, Status>;

/// Larger requests are read off the threads that read, which others' requests wait for.
const LARGE_BYTES: usize = 256 << 10;

/// What the door found the caller to be, before the call came here.
fn grant<T>(request: &Request<T>) -> Result<Grant, Status> {
    let found = request.extensions().get::<Grant>().cloned();
    found.ok_or_else(|| status::of(Fault::internal("a call came past the door's guard")))
}

/// Empty: traffic decides.
fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn unserved<T>(what: &str) -> Answer<T> {
    Err(status::of(Fault::new(
        Kind::Unsupported,
        format!("{what} not served here"),
    )))
}

/// `grpc-timeout`: up to eight digits and a unit.
fn patience(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parse = || {
        let (digits, unit) = value
            .to_str()
            .ok()?
            .split_at_checked(value.len().checked_sub(1)?)?;
        let amount = u64::from(digits.parse::<u32>().ok()?);
        Some(match unit {
            "H" => Duration::from_secs(amount * 3600),
            "M" => Duration::from_secs(amount * 60),
            "S" => Duration::from_secs(amount),
            "m" => Duration::from_millis(amount),
            "u" => Duration::from_micros(amount),
            "n" => Duration::from_nanos(amount),
            _ => return None,
        })
    };
    let wrong = || {
        Fault::invalid(format!(
            "grpc-timeout {value:?} is not up to eight digits and one of H M S m u n"
        ))
    };
    parse().map(Some).ok_or_else(wrong)
}

impl<S: Service> Inference<S> {
    async fn infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<ModelInferResponse, Fault> {
        let arrived = Instant::now();
        let (metadata, extensions, mut message) = request.into_parts();
        let headers = metadata.into_headers();
        let grant = extensions.get::<Grant>();
        grant
            .ok_or_else(|| Fault::internal("a call came past the door's guard"))?
            .may(Scope::Infer, Some(&message.model_name))?;
        let waits = patience(&headers)?;
        let limits = self.0.limits;
        let (mut message, mut call) = if message.encoded_len() > LARGE_BYTES {
            let task = tokio::task::spawn_blocking(move || {
                let call = proto::request(&mut message, &limits)?;
                Ok((message, call))
            });
            task.await
                .map_err(|_| Fault::internal("the server failed to decode this request"))??
        } else {
            let call = proto::request(&mut message, &limits)?;
            (message, call)
        };
        let model = std::mem::take(&mut message.model_name);
        let version = version(&message.model_version).map(str::to_owned);
        let echo = extensions
            .get::<Echo>()
            .cloned()
            .unwrap_or_else(|| Echo::of(&headers));
        let request = door::request(model, version, &mut call, echo.trace(), arrived, waits);
        let reply = self.0.ask(request).await?;
        let began = Instant::now();
        let message = proto::reply(&reply, call.id);
        self.0.service.encoded(&reply, began.elapsed());
        Ok(message)
    }

    /// The model that a load or unload is about. KServe's clients put its name where Triton's have the repository's.
    fn administered(grant: &Grant, repository: String, model: String) -> Result<String, Fault> {
        let model = if model.is_empty() { repository } else { model };
        grant.may(Scope::Admin, Some(&model))?;
        Ok(model)
    }
}

#[tonic::async_trait]
impl<S: Service> grpc_inference_service_server::GrpcInferenceService for Inference<S> {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse {
            ready: self.0.ready(),
        }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Answer<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "penstock".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        grant.look(&asked.name).map_err(status::of)?;
        let ready = self
            .0
            .service
            .model_ready(&asked.name, version(&asked.version));
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answer<ModelMetadataResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        grant.look(&asked.name).map_err(status::of)?;
        let found = self
            .0
            .service
            .describe(&asked.name, version(&asked.version));
        Ok(Response::new(documents::description(
            found.map_err(status::of)?,
        )))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Answer<ModelConfigResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        grant.look(&asked.name).map_err(status::of)?;
        let found = self.0.service.config(&asked.name, version(&asked.version));
        let config = Some(documents::config(found.map_err(status::of)?));
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answer<ModelStatisticsResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        let model = version(&asked.name);
        if let Some(model) = model {
            grant.look(model).map_err(status::of)?;
        }
        let mut found = self
            .0
            .service
            .statistics(model, version(&asked.version))
            .map_err(status::of)?;
        found.retain(|statistics| grant.sees(&statistics.name));
        let model_stats = found.into_iter().map(documents::statistics).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        self.infer(request)
            .await
            .map(Response::new)
            .map_err(status::of)
    }

    type ModelStreamInferStream = stream::Pending<Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        unserved("streams are")
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        let grant = grant(&request)?;
        let ready = request.into_inner().ready;
        let mut models = self.0.service.index();
        models.retain(|entry| grant.sees(&entry.name) && (!ready || entry.state == State::Ready));
        let models = models.into_iter().map(documents::entry).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        let model = Self::administered(&grant, asked.repository_name, asked.model_name)
            .map_err(status::of)?;
        asked
            .parameters
            .keys()
            .try_for_each(|name| check_load_parameter(name))
            .map_err(status::of)?;
        self.0.service.load(&model).await.map_err(status::of)?;
        Ok(Response::new(RepositoryModelLoadResponse {
            model_name: model,
            is_loaded: true,
        }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let grant = grant(&request)?;
        let asked = request.into_inner();
        let model = Self::administered(&grant, asked.repository_name, asked.model_name)
            .map_err(status::of)?;
        self.0.service.unload(&model).await.map_err(status::of)?;
        Ok(Response::new(RepositoryModelUnloadResponse {
            model_name: model,
            is_unloaded: true,
        }))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        unserved("shared memory is")
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        unserved("shared memory is")
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        unserved("shared memory is")
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        unserved("shared memory is")
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        unserved("shared memory is")
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        unserved("shared memory is")
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Answer<TraceSettingResponse> {
        unserved("trace settings are")
    }

    async fn log_settings(&self, _: Request<LogSettingsRequest>) -> Answer<LogSettingsResponse> {
        unserved("log settings are")
    }
}
