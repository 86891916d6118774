//! The server's side: tonic's own server on as many ports as there are endpoints to call, in one thread.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io::Write;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http_body::Body;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::codegen::StdError;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{EchoRequest, EchoResponse, SERVICE};
use crate::args::ServeArgs;
use crate::failure::Failure;

/// Serves until stdin ends, so that it does not outlive who started it. Its addresses are one line on stdout.
pub(crate) async fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let mut addresses = Vec::new();
    for port in 1..=args.ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Failure::io("bind"))?;
        addresses.push(listener.local_addr().map_err(Failure::io("bind"))?.to_string());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let echo = EchoServer { station: Station::new(args, port).map(Arc::new) };
        tokio::spawn(Server::builder().add_service(echo).serve_with_incoming(incoming));
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", addresses.join(",")).and_then(|()| stdout.flush()).map_err(Failure::io("stdout"))?;
    // Nothing is ever written there; what ends the wait is the end of whoever holds the other side.
    let _ = tokio::io::stdin().read_u8().await;
    Ok(())
}

/// A port that takes its time, and works on so many calls at once; what it cannot take yet waits.
struct Station {
    number: u32,
    places: Semaphore,
    time: Duration,
}

impl Station {
    /// `None`: the port only echoes.
    fn new(args: &ServeArgs, port: u16) -> Option<Self> {
        let slower = if port == 1 { args.first_slower } else { 1 };
        let time = Duration::from_micros(args.service_us) * slower;
        (!time.is_zero()).then(|| Self { number: port.into(), places: Semaphore::new(args.places), time })
    }

    async fn work(&self) {
        let _place = self.places.acquire().await.expect("it is never closed");
        tokio::time::sleep(self.time).await;
    }
}

#[derive(Clone)]
struct EchoServer {
    station: Option<Arc<Station>>,
}

impl NamedService for EchoServer {
    const NAME: &'static str = SERVICE;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<B> Service<http::Request<B>> for EchoServer
where
    B: Body<Error: Into<StdError> + Send> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let echo = Echo { station: self.station.clone() };
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(echo, request).await) })
    }
}

/// The one method.
struct Echo {
    station: Option<Arc<Station>>,
}

impl Service<Request<EchoRequest>> for Echo {
    type Response = Response<EchoResponse>;
    type Error = Status;
    type Future = Either<Ready<Result<Self::Response, Status>>, BoxFuture<Result<Self::Response, Status>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let payload = request.into_inner().payload;
        let Some(station) = self.station.clone() else {
            return Either::Left(ready(Ok(Response::new(EchoResponse { payload, served_by: 0 }))));
        };
        Either::Right(Box::pin(async move {
            station.work().await;
            Ok(Response::new(EchoResponse { payload, served_by: station.number }))
        }))
    }
}
