//! A process that asks: so many requests in flight, each on a connection of its own, the next one when one is answered.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mesh_api::shop::order::v1::GetOrderRequest;
use mesh_api::shop::order::v1::order_service_client::OrderServiceClient;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::backend::{NAME, ORDER_ID, creation, creation_json};
use super::order::{Operation, Order, Way};
use crate::clock;
use crate::drive::{Recorder, Span, Times};
use crate::failure::Failure;

/// Asks as it is told, and prints on stdout what that took.
pub(crate) fn ask(runtime: &Runtime, order: &str) -> Result<(), Failure> {
    let order: Order =
        serde_json::from_str(order).map_err(|error| Failure::Child(format!("this is no order: {error}")))?;
    let times = runtime.block_on(async {
        let lanes = connect(&order).await?;
        let lanes = keep_up(&order, lanes, order.warm_up_ms).await?.0;
        keep_up(&order, lanes, order.millis).await.map(|(_, times)| times)
    })?;
    println!("{}", serde_json::to_string(&times).expect("numbers are JSON"));
    Ok(())
}

/// A connection on which one request is in flight at a time.
enum Lane {
    Grpc(OrderServiceClient<Channel>),
    Http(SendRequest<Full<Bytes>>),
}

async fn connect(order: &Order) -> Result<Vec<Lane>, Failure> {
    let mut lanes = Vec::new();
    for _ in 0..order.in_flight {
        lanes.push(match order.way {
            Way::Direct => Lane::Grpc(grpc(order).await?),
            Way::Gateway | Way::Envoy => Lane::Http(http1(order).await?),
        });
    }
    Ok(lanes)
}

async fn grpc(order: &Order) -> Result<OrderServiceClient<Channel>, Failure> {
    let failed = |error: tonic::transport::Error| Failure::Child(format!("connect to {}: {error}", order.server));
    let endpoint = Endpoint::from_shared(format!("http://{}", order.server)).map_err(failed)?;
    Ok(OrderServiceClient::new(endpoint.connect().await.map_err(failed)?))
}

async fn http1(order: &Order) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(order.server).await.map_err(Failure::io(format!("connect to {}", order.server)))?;
    stream.set_nodelay(true).map_err(Failure::io("set TCP_NODELAY"))?;
    let (requests, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Child(format!("connect to {}: {error}", order.server)))?;
    // It ends when its requests do; what ends it early shows in them.
    tokio::spawn(connection);
    Ok(requests)
}

/// Lets every lane ask until the time is up, and returns them.
async fn keep_up(order: &Order, lanes: Vec<Lane>, millis: u64) -> Result<(Vec<Lane>, Times), Failure> {
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let pids = [order.pid];
    let span = Span::begin(&pids);
    let end = span.at() + Duration::from_millis(millis);
    let json = Bytes::from(creation_json());
    let mut asking = JoinSet::new();
    for mut lane in lanes {
        let (operation, json, recorder) = (order.operation, json.clone(), Arc::clone(&recorder));
        asking.spawn(async move {
            let mut now = clock::now();
            while now < end {
                let begun = now;
                let answered = lane.ask(operation, &json).await;
                now = clock::now();
                let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
                if answered { recorder.answered(now - begun, 0) } else { recorder.failed() }
            }
            lane
        });
    }
    let lanes = asking.join_all().await;
    let recorder = std::mem::replace(&mut *recorder.lock().unwrap_or_else(PoisonError::into_inner), Recorder::new());
    Ok((lanes, recorder.finish(&span)))
}

impl Lane {
    /// Whether a whole answer came back.
    async fn ask(&mut self, operation: Operation, json: &Bytes) -> bool {
        match self {
            Self::Grpc(orders) => match operation {
                Operation::Get => {
                    let question = GetOrderRequest { order_id: ORDER_ID.to_owned() };
                    whole(orders.get_order(question), |answer| answer.order.is_some()).await
                }
                Operation::Create => whole(orders.create_order(creation()), |answer| answer.order.is_some()).await,
            },
            Self::Http(requests) => over_http(requests, operation, json).await.unwrap_or(false),
        }
    }
}

async fn whole<M>(
    answer: impl Future<Output = Result<tonic::Response<M>, tonic::Status>>,
    has: impl Fn(&M) -> bool,
) -> bool {
    answer.await.is_ok_and(|answer| has(answer.get_ref()))
}

/// `Host` names the backend: Envoy passes it on, and the backend is no other.
async fn over_http(
    requests: &mut SendRequest<Full<Bytes>>,
    operation: Operation,
    json: &Bytes,
) -> Result<bool, hyper::Error> {
    let request = match operation {
        Operation::Get => {
            Request::builder().uri(format!("/v1/orders/{ORDER_ID}")).header(header::HOST, NAME).body(Full::default())
        }
        Operation::Create => Request::builder()
            .method(Method::POST)
            .uri("/v1/orders")
            .header(header::HOST, NAME)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(json.clone())),
    };
    let request = request.expect("these are a path and headers");
    requests.ready().await?;
    let answer = requests.send_request(request).await?;
    let is_ok = answer.status().is_success();
    let body = answer.into_body().collect().await?.to_bytes();
    // The id stands in every whole answer.
    Ok(is_ok && body.windows(ORDER_ID.len()).any(|window| window == ORDER_ID.as_bytes()))
}
