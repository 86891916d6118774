//! A service of its own: compiled from its proto file when the test runs, so that nothing of it is in any program.

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::{App, Error, Program, ServerArgs, Shell, Speaks};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

#[derive(Clone, PartialEq, prost::Message)]
struct GetTeaRequest {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint32, tag = "2")]
    strength: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetTeaResponse {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint32, tag = "2")]
    minutes_brewed: u32,
    #[prost(string, tag = "3")]
    made_by: String,
}

/// What serves it, for the service of this name.
#[derive(Clone)]
struct TeaServer(&'static str);

impl NamedService for TeaServer {
    const NAME: &'static str = "tea.v1.TeaService";
}

impl tower::Service<http::Request<Body>> for TeaServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let made_by = self.0.to_owned();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<GetTeaResponse, GetTeaRequest>::default());
            let handler = service_fn(move |ask: Request<GetTeaRequest>| {
                let GetTeaRequest { kind, strength } = ask.into_inner();
                let tea = GetTeaResponse { kind, minutes_brewed: 2 + strength, made_by: made_by.clone() };
                ready(Ok::<_, Status>(Response::new(tea)))
            });
            Ok(grpc.unary(handler, request).await)
        })
    }
}

/// A running instance of it, in this process.
pub(crate) struct Tea {
    stop: CancellationToken,
    served: JoinHandle<Result<(), Error>>,
}

impl Tea {
    /// Starts one under this name.
    pub(crate) async fn start(service: &'static str, registry: String) -> Tea {
        let program = Program {
            name: service,
            version: "1",
            about: "Makes tea",
            speaks: Speaks::Grpc,
            main_port: 0,
            admin_port: 0,
        };
        let shell = Shell::bind(&program, &ServerArgs::loopback(), None).await.expect("there are free ports");
        let mesh = Mesh::new([registry]).expect("the registry's URL is one");
        // A program has its descriptors for as long as it runs, and this one is a part of the test.
        let descriptors: &'static [u8] = Vec::leak(compiled());
        let app = App::new(Routes::new(TeaServer(service)))
            .authority(service)
            .grpc_service(TeaServer::NAME)
            .descriptors(descriptors);
        let registrar = mesh.registrar(InstanceSpec {
            descriptors,
            grpc_services: vec![TeaServer::NAME.to_owned()],
            ..InstanceSpec::new(service)
        });
        let stop = CancellationToken::new();
        let served = tokio::spawn(shell.serve_until(app, registrar.hooks().into(), stop.clone()));
        Tea { stop, served }
    }

    /// Drains it; deregistered when this returns.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.served.await.expect("it does not panic").expect("it drains");
    }
}

/// The descriptor set of the proto file beside this file, with what it imports.
fn compiled() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut compiler =
        protox::Compiler::new([root.join("tests/gateway"), root.join("proto")]).expect("both folders are there");
    compiler.include_imports(true).open_file("tea.proto").expect("it is a proto file");
    compiler.encode_file_descriptor_set()
}
