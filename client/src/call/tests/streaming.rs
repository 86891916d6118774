//! All four kinds of calls, by generated-style tonic stubs against a tonic server.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use http::Request as HttpRequest;
use http::uri::PathAndQuery;
use mesh_api::registry::v1::ResolveRequest;
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::rig::{Net, Rig, address, eventually};

type Codec = ProstCodec<String, String>;
type Replies = Pin<Box<dyn futures_util::Stream<Item = Result<String, Status>> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

/// Says back what it hears, in four ways.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<HttpRequest<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<tonic::body::Body>) -> Answer {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.Echo/Unary" => grpc.unary(service_fn(unary), request).await,
                "/test.Echo/Gather" => grpc.client_streaming(service_fn(gather), request).await,
                "/test.Echo/Scatter" => grpc.server_streaming(service_fn(scatter), request).await,
                "/test.Echo/Talk" => grpc.streaming(service_fn(talk), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

async fn unary(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(request.into_inner()))
}

async fn gather(request: Request<Streaming<String>>) -> Result<Response<String>, Status> {
    let mut words = request.into_inner();
    let mut sentence = Vec::new();
    while let Some(word) = words.message().await? {
        sentence.push(word);
    }
    Ok(Response::new(sentence.join(" ")))
}

async fn scatter(request: Request<String>) -> Result<Response<Replies>, Status> {
    let words: Vec<_> = request.into_inner().split(' ').map(|word| Ok(word.to_owned())).collect();
    Ok(Response::new(Box::pin(futures_util::stream::iter(words))))
}

async fn talk(request: Request<Streaming<String>>) -> Result<Response<Replies>, Status> {
    Ok(Response::new(Box::pin(request.into_inner().map(|word| word.map(|word| word.to_uppercase())))))
}

fn serve(net: &Net, port: u16) {
    let connections = UnboundedReceiverStream::new(net.listen(&address(port))).map(Ok::<_, Infallible>);
    tokio::spawn(Server::builder().add_service(Echo).serve_with_incoming(connections));
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

fn stub(rig: &Rig) -> tonic::client::Grpc<crate::MeshChannel> {
    tonic::client::Grpc::new(rig.channel.clone())
}

#[tokio::test]
async fn a_unary_call() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let answer: Response<String> =
        stub(&rig).unary(Request::new("hello".to_owned()), path("/test.Echo/Unary"), Codec::default()).await.unwrap();
    assert_eq!(answer.into_inner(), "hello");
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test]
async fn a_client_stream_longer_than_every_window() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    // 4 MB in all: the server's window and what is kept for another attempt are both far smaller.
    let word = "x".repeat(40_000);
    let words = futures_util::stream::iter(std::iter::repeat_n(word, 100));
    let answer: Response<String> = stub(&rig)
        .max_decoding_message_size(16 << 20)
        .client_streaming(Request::new(words), path("/test.Echo/Gather"), Codec::default())
        .await
        .unwrap();
    assert_eq!(answer.into_inner().len(), 40_001 * 100 - 1);
}

#[tokio::test]
async fn a_client_stream_whose_messages_come_one_by_one() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let (say, words) = mpsc::channel(1);
    tokio::spawn(async move {
        for word in ["one", "two", "three"] {
            say.send(word.to_owned()).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let answer: Response<String> = stub(&rig)
        .client_streaming(Request::new(ReceiverStream::new(words)), path("/test.Echo/Gather"), Codec::default())
        .await
        .unwrap();
    assert_eq!(answer.into_inner(), "one two three");
}

#[tokio::test]
async fn a_server_stream() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let words = (0..2000).map(|word| word.to_string()).collect::<Vec<_>>();
    let mut answers: Streaming<String> = stub(&rig)
        .server_streaming(Request::new(words.join(" ")), path("/test.Echo/Scatter"), Codec::default())
        .await
        .unwrap()
        .into_inner();
    let mut heard = Vec::new();
    while let Some(word) = answers.message().await.unwrap() {
        heard.push(word);
    }
    assert_eq!(heard, words);
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test]
async fn a_conversation() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let (say, words) = mpsc::channel(1);
    let mut answers: Streaming<String> = stub(&rig)
        .streaming(Request::new(ReceiverStream::new(words)), path("/test.Echo/Talk"), Codec::default())
        .await
        .unwrap()
        .into_inner();
    for word in ["one", "two", "three"] {
        say.send(word.to_owned()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), word.to_uppercase());
    }
    assert_eq!(rig.handles()[&1].in_flight(), 1);
    drop(say);
    assert_eq!(answers.message().await.unwrap(), None);
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test]
async fn a_conversation_that_is_dropped_ends_at_both_ends() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let (say, words) = mpsc::channel::<String>(1);
    let answers: Response<Streaming<String>> = stub(&rig)
        .streaming(Request::new(ReceiverStream::new(words)), path("/test.Echo/Talk"), Codec::default())
        .await
        .unwrap();
    drop(answers);
    assert_eq!(rig.handles()[&1].in_flight(), 0);
    // The task that sent the rest of the request is gone, and the caller's stream with it.
    tokio::time::timeout(Duration::from_secs(5), say.closed()).await.unwrap();
}

#[tokio::test]
async fn a_generated_stub_takes_the_channel() {
    let net = Net::default();
    serve(&net, 1);
    let rig = Rig::new(&net, [1]);
    let mut stub = RegistryServiceClient::new(rig.channel.clone());
    let status = stub.resolve(ResolveRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    eventually(|| rig.handles()[&1].in_flight() == 0).await;
}
