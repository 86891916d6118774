//! A server in the middle: whatever it is asked, it asks the next service, as any service of the mesh would.

use std::convert::Infallible;
use std::task::{Context, Poll};

use mesh_client::context::ContextLayer;
use mesh_client::{Address, MeshChannel};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::tell;
use crate::load::{self, REPEATABLE, SERVICE, static_mesh};
use crate::wire::News;

/// Serves for whoever asks, with what the servers at `next` answer.
pub(super) async fn serve(listener: TcpListener, seed: u64, next: Vec<Address>) {
    let mesh = static_mesh(seed, next).build().expect("the configuration is one");
    let middle = Middle { next: mesh.channel(SERVICE) };
    let serving = Server::builder().layer(ContextLayer::new()).add_service(middle);
    serving.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves until it is killed");
}

#[derive(Debug, Clone)]
struct Middle {
    next: MeshChannel,
}

impl NamedService for Middle {
    const NAME: &str = "story.v1.EchoService";
}

impl Service<http::Request<Body>> for Middle {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        tell(News::Called);
        let middle = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(middle, request).await) })
    }
}

impl UnaryService<String> for Middle {
    type Response = String;
    type Future = BoxFuture<Response<String>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        // How long there is, the context says.
        Box::pin(load::ask(self.next.clone(), REPEATABLE, Request::new(request.into_inner())))
    }
}
