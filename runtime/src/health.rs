//! `grpc.health.v1`: the same answer for the server and for each of its services, and a Watch that ends with the drain.
//!
//! tonic-health's own service is not used because its watches never end, and a drain would wait for them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::lifecycle::{Lifecycle, Stage};

/// Name of the service, as reflection and metrics know it.
pub(crate) const SERVICE: &str = "grpc.health.v1.Health";

/// The health of a server whose services are well exactly as long as it takes calls.
pub(crate) struct Serving {
    services: Vec<String>,
    lifecycle: Lifecycle,
}

impl Serving {
    pub(crate) fn new(services: Vec<String>, lifecycle: Lifecycle) -> Self {
        Self { services, lifecycle }
    }

    /// The empty name is the whole server.
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.iter().any(|known| known == service)
    }
}

fn status_at(stage: Stage) -> ServingStatus {
    match stage {
        Stage::Starting | Stage::Ready => ServingStatus::Serving,
        Stage::Draining | Stage::Ending => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Serving {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(status_at(self.lifecycle.stage()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let watch = Watch::Open { known, stages: self.lifecycle.follow(), sent: None };
        Ok(Response::new(stream::unfold(watch, Watch::next).boxed()))
    }
}

/// One watcher. It hears what is, then every change, and at the end UNAVAILABLE, so that it asks elsewhere.
enum Watch {
    Open { known: bool, stages: watch::Receiver<Stage>, sent: Option<ServingStatus> },
    Ended,
}

impl Watch {
    async fn next(self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let Self::Open { known, mut stages, sent } = self else { return None };
        let status = |stage| if known { status_at(stage) } else { ServingStatus::ServiceUnknown };
        let news = stages.wait_for(|&stage| stage == Stage::Ending || Some(status(stage)) != sent).await;
        // No writer left is an end too.
        let stage = news.map_or(Stage::Ending, |stage| *stage);
        if stage == Stage::Ending {
            return Some((Err(Status::unavailable("the server is ending")), Self::Ended));
        }
        let status = status(stage);
        Some((Ok(response(status)), Self::Open { known, stages, sent: Some(status) }))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn about(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn check_follows_the_stages_and_knows_only_what_is_served() {
        let lifecycle = Lifecycle::starting();
        let health = Serving::new(vec!["shop.user.v1.UserService".to_owned()], lifecycle.clone());
        for known in ["", "shop.user.v1.UserService"] {
            let answer = health.check(about(known)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
        assert_eq!(health.check(about("nobody")).await.unwrap_err().code(), Code::NotFound);
        lifecycle.reach(Stage::Draining);
        assert_eq!(health.check(about("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    }

    #[tokio::test]
    async fn a_watch_hears_the_drain_and_ends_with_it() {
        let lifecycle = Lifecycle::starting();
        let health = Serving::new(Vec::new(), lifecycle.clone());
        let mut watch = health.watch(about("")).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
        lifecycle.reach(Stage::Ready);
        lifecycle.reach(Stage::Draining);
        assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        lifecycle.reach(Stage::Ending);
        assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_says_so_and_stays_open_until_the_drain() {
        let lifecycle = Lifecycle::starting();
        let health = Serving::new(Vec::new(), lifecycle.clone());
        let mut watch = health.watch(about("nobody")).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        lifecycle.reach(Stage::Ending);
        assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}
