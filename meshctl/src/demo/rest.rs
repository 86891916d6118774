//! What somebody sees who calls over REST all the while: a request every so often through the gateway, whatever happens behind.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use mesh_runtime::clock;

use super::screen::{Screen, millis};
use crate::failure::Failure;
use crate::operator::Operator;
use crate::rest::RestClient;

/// Requests per second: enough to be there whenever something happens.
const RATE: u32 = 20;

/// Longest wait for an answer, as the calls of the load have it.
const DEADLINE: Duration = Duration::from_secs(1);

/// What is asked for in turn.
const PATHS: [&str; 3] = ["/v1/users?pageSize=5", "/users?pageSize=5", "/v1/jwks"];

/// Somebody who reads over REST.
pub(super) struct Reader {
    client: RestClient,
    /// Held for moments only.
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    requests: u64,
    failed: u64,
    slowest: Duration,
    first_failure: Option<String>,
}

impl Reader {
    /// Through this gateway, as whoever runs the mesh.
    pub(super) fn new(gateway: std::net::SocketAddr, operator: &Operator) -> Self {
        Self { client: RestClient::new(vec![gateway], Some(operator.bearer())), counted: Mutex::default() }
    }

    /// Reads until it is dropped. One request at a time: a slow one shows in the time that it took.
    pub(super) async fn read(&self) -> Infallible {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        for path in PATHS.iter().cycle() {
            ticks.tick().await;
            let began = clock::now();
            let answer = tokio::time::timeout(DEADLINE, self.client.send(Method::GET, path, None)).await;
            let fault = match answer {
                Ok(Ok(answer)) if answer.status == StatusCode::OK => None,
                Ok(Ok(answer)) => Some(format!("{}: {}", answer.status, answer.json())),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_elapsed) => Some(format!("no answer within {} s", DEADLINE.as_secs())),
            };
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.requests += 1;
            counted.slowest = counted.slowest.max(began.elapsed());
            if let Some(fault) = fault {
                counted.failed += 1;
                counted.first_failure.get_or_insert(format!("GET {path}: {fault}"));
            }
        }
        std::future::pending().await
    }

    /// Says how it went, and fails if any request did.
    pub(super) fn close(&self, screen: &Screen) -> Result<(), Failure> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { requests, failed, slowest, first_failure } = &*counted;
        screen.print(&format!(
            "{failed} of {requests} requests over REST failed; the slowest took {}\n",
            millis(*slowest)
        ));
        match first_failure {
            None => Ok(()),
            Some(fault) => Err(Failure::Failed(format!("{failed} of {requests} requests over REST failed: {fault}"))),
        }
    }
}
