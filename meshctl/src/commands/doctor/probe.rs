//! Who answers at an advertised address.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_api::registry::v1::ServingStatus;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus as Health;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::finding::Finding;
use super::look::Registered;
use crate::registry_client::root_cause;

/// Longest wait for a connection, and again for the answer on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// Somebody who may well be it, and who takes calls or does not say.
    Well,
    /// It is there and asks callers to stay away.
    NotServing,
    /// Somebody else.
    Stranger,
    /// Somebody who does not speak gRPC, or not as it should.
    Strange(String),
    /// Nobody.
    Nobody(String),
}

/// Connects to an address as a caller of the service would, and asks for its health.
pub(super) async fn probe(registered: &Registered, at: SocketAddr, limit: Duration) -> Option<Finding> {
    finding(registered, at, ask(&registered.instance.service, at, limit).await)
}

async fn ask(service: &str, at: SocketAddr, limit: Duration) -> Answer {
    // The service's name is the :authority, which is how a process knows that it is not meant.
    let (Ok(endpoint), Ok(origin)) =
        (Endpoint::from_shared(format!("http://{at}")), format!("http://{service}").parse::<http::Uri>())
    else {
        return Answer::Nobody("this is no address".to_owned());
    };
    let endpoint = endpoint.origin(origin).connect_timeout(limit).tcp_nodelay(true);
    let channel = match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Answer::Nobody(root_cause(&error)),
        Err(_) => return Answer::Nobody(format!("no answer within {limit:?}")),
    };
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    request.set_timeout(limit);
    match tokio::time::timeout(limit, HealthClient::new(channel).check(request)).await {
        Ok(Ok(answer)) if answer.get_ref().status == health(Health::Serving) => Answer::Well,
        Ok(Ok(_)) => Answer::NotServing,
        Ok(Err(status)) => of_status(&status),
        Err(_) => Answer::Strange(format!("it took the connection and did not answer within {limit:?}")),
    }
}

fn health(status: Health) -> i32 {
    tonic_health::pb::health_check_response::ServingStatus::from(status).into()
}

fn of_status(status: &Status) -> Answer {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    match (status.code(), reason.as_deref()) {
        (Code::Unavailable, Some("WRONG_SERVICE")) => Answer::Stranger,
        // It speaks gRPC and has no health service; nobody said that it must.
        (Code::Unimplemented, _) => Answer::Well,
        _ => Answer::Strange(format!("{}: {}", mesh_runtime::code_name(status.code()), status.message())),
    }
}

fn finding(registered: &Registered, at: SocketAddr, answer: Answer) -> Option<Finding> {
    let place = format!("{} at {at}", registered.place());
    match answer {
        Answer::Well => None,
        // Who says so at the registry too is on its way out, or means it.
        Answer::NotServing if registered.instance.serving_status() != ServingStatus::Serving => None,
        Answer::NotServing => Some(Finding::warning(
            "not_serving",
            place,
            "its health check says NOT_SERVING, the registry has it as SERVING".to_owned(),
            "look again soon: it tells the registry with its next heartbeat",
        )),
        Answer::Stranger => Some(Finding::error(
            "wrong_service",
            place,
            format!("the process that answers is not {}", registered.instance.service),
            "the address was reused: callers drop it by themselves; check --advertise, or remove the instance if it is gone",
        )),
        Answer::Strange(why) => Some(Finding::error(
            "no_grpc",
            place,
            format!("somebody takes the connection, but the health check failed: {why}"),
            "check that --advertise is the gRPC port and that the process is not stuck",
        )),
        Answer::Nobody(why) => Some(Finding::error(
            "no_answer",
            place,
            format!("nobody answers: {why}"),
            "if the process is gone its lease ends by itself; else check --advertise, and the network between",
        )),
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1::Instance;
    use tokio::net::TcpListener;

    use super::*;

    fn registered(status: ServingStatus) -> Registered {
        let instance =
            Instance { service: "user-svc".to_owned(), serving_status: status.into(), ..Instance::default() };
        Registered { store: "a".to_owned(), instance }
    }

    fn check(status: ServingStatus, answer: Answer) -> Option<&'static str> {
        let at = SocketAddr::from(([10, 0, 0, 1], 7410));
        finding(&registered(status), at, answer).map(|finding| finding.check)
    }

    #[test]
    fn not_serving_is_news_only_to_a_registry_that_thinks_otherwise() {
        assert_eq!(check(ServingStatus::Serving, Answer::NotServing), Some("not_serving"));
        assert_eq!(check(ServingStatus::Draining, Answer::NotServing), None);
        assert_eq!(check(ServingStatus::Serving, Answer::Well), None);
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_and_one_that_never_answers_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let at = listener.local_addr().expect("it is bound");
        let limit = Duration::from_millis(300);
        assert!(matches!(ask("user-svc", at, limit).await, Answer::Strange(_) | Answer::Nobody(_)), "it is silent");
        drop(listener);
        assert_eq!(ask("user-svc", at, limit).await, Answer::Nobody("connection refused".to_owned()));
    }
}
