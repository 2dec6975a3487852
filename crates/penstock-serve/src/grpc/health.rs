//! grpc.health.v1: the readiness of the server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::door::Shared;
use crate::service::Service;

/// How often a watched status is looked at.
const WATCH: Duration = Duration::from_secs(1);

pub(super) struct Health<S>(pub(super) Arc<Shared<S>>);

impl<S: Service> Health<S> {
    /// None: no such service.
    fn status(shared: &Shared<S>, service: &str) -> Option<ServingStatus> {
        let ready = match service {
            "" | "inference.GRPCInferenceService" => shared.ready(),
            _ => return None,
        };
        Some(if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl<S: Service> health_server::Health for Health<S> {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let status = Health::status(&self.0, &service)
            .ok_or_else(|| Status::not_found(format!("no service '{service}' here")))?;
        Ok(Response::new(response(status)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let begin = (Arc::clone(&self.0), None);
        let changes = stream::unfold(begin, move |(shared, told)| {
            let service = service.clone();
            async move {
                loop {
                    let now =
                        Health::status(&shared, &service).unwrap_or(ServingStatus::ServiceUnknown);
                    if told != Some(now) {
                        return Some((Ok(response(now)), (shared, Some(now))));
                    }
                    tokio::time::sleep(WATCH).await;
                }
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}
