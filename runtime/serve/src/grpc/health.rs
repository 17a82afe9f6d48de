//! `grpc.health.v1`: what Kubernetes' gRPC probes and load balancers ask.
//!
//! The service without a name, and the one of the protocol, are ready when every model is;
//! a model's name is a service of its own. `wick.live` serves as long as the process
//! answers, for liveness probes: a server that loads its models is not to be restarted.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::INFERENCE;
use crate::repository::Repository;
use crate::respond::Failure;

/// The service that serves for as long as the process answers. No model has a dot in its
/// name.
const LIVE: &str = "wick.live";

/// How often a watched state is looked at: sooner than a load balancer reacts.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Health of the repository's models.
pub(super) struct Health {
    repository: Repository,
}

// === impl Health ===

impl Health {
    pub fn new(repository: Repository) -> Self {
        Self { repository }
    }
}

/// A service's state; none for one that is not known.
fn status(repository: &Repository, service: &str) -> Option<ServingStatus> {
    let serving = match service {
        LIVE => true,
        "" | INFERENCE => repository.is_ready(),
        model => match repository.get(model, None) {
            Ok(_) => true,
            Err(Failure::UnknownModel { .. }) => return None,
            Err(_) => false,
        },
    };
    Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn response(status: Option<ServingStatus>) -> HealthCheckResponse {
    HealthCheckResponse { status: status.unwrap_or(ServingStatus::ServiceUnknown).into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.repository, &service) {
            None => {
                let known = self.repository.get(&service, None).map(drop);
                Err(known.map_or_else(|failure| failure.to_status(), |()| Status::unknown("")))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// Tells the state, and each change of it. It ends when the server shuts down, which
    /// waits for calls in work.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (repository, service) = (self.repository.clone(), request.into_inner().service);
        let states = futures::stream::unfold(None, move |told: Option<HealthCheckResponse>| {
            let (repository, service) = (repository.clone(), service.clone());
            async move {
                loop {
                    let draining = repository.is_draining();
                    let now = response(status(&repository, &service));
                    if told.as_ref() != Some(&now) {
                        return Some((Ok(now), Some(now)));
                    }
                    if draining {
                        return None;
                    }
                    // Both lose nothing when dropped.
                    tokio::select! {
                        () = tokio::time::sleep(WATCH_INTERVAL) => {}
                        () = repository.drained() => {}
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(states)))
    }
}
