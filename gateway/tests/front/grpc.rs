//! gRPC-Web from a browser over HTTP/1.1, and gRPC itself over HTTP/2.

use bytes::Bytes;
use prost::Message;

use crate::backend::{GetThingRequest, Thing, WatchThingsRequest};
use crate::kit::Rig;

const GET: &str = "/test.front.v1.Things/GetThing";
const WATCH: &str = "/test.front.v1.Things/WatchThings";

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

/// The frames of a gRPC-Web body: messages, and what the trailers say.
fn frames(mut body: &[u8]) -> (Vec<Thing>, String) {
    let (mut things, mut trailers) = (Vec::new(), String::new());
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let (frame, rest) = rest.split_at(length);
        match prefix[0] {
            0 => things.push(Thing::decode(frame).unwrap()),
            0x80 => trailers.push_str(std::str::from_utf8(frame).unwrap()),
            other => panic!("a frame of kind {other}"),
        }
        body = rest;
    }
    (things, trailers)
}

/// One gRPC-Web call over HTTP/1.1: the head of its answer and the body.
async fn call(rig: &Rig, path: &str, message: &impl Message, headers: &str) -> (String, Vec<u8>) {
    let body = framed(message);
    let mut client = rig.client();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/grpc-web+proto\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    client.say([head.as_bytes(), &body].concat()).await;
    let head = client.head().await;
    let mut rest = client.rest_bytes().await;
    if head.contains("transfer-encoding: chunked") {
        rest = unchunked(&rest);
    }
    (head, rest)
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

fn thing(id: &str) -> GetThingRequest {
    GetThingRequest { id: id.to_owned() }
}

#[tokio::test]
async fn a_browser_calls_and_streams() {
    let rig = Rig::start().await;
    let (head, body) = call(&rig, GET, &thing("a"), "x-user-id: root\r\nx-own: mine\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/grpc-web+proto"), "{head}");
    let (things, trailers) = frames(&body);
    assert_eq!((things.len(), things[0].id.as_str()), (1, "a"));
    assert!(trailers.contains("grpc-status:0"), "{trailers:?}");
    let seen = &things[0].seen;
    assert_eq!((seen.get("x-own").map(String::as_str), seen.get("x-user-id")), (Some("mine"), None), "{seen:?}");
    assert_eq!(seen["x-mesh-client-address"], "10.1.2.3");

    let request = WatchThingsRequest { count: 3, then: "fail".to_owned() };
    let (things, trailers) = frames(&call(&rig, WATCH, &request, "").await.1);
    assert_eq!(things.len(), 3);
    assert!(trailers.contains("grpc-status:13") && !trailers.contains("10.9.8.7"), "{trailers:?}");
}

#[tokio::test]
async fn what_fails_is_told_as_grpc_has_it() {
    let rig = Rig::start().await;
    for (path, request, status) in [
        (GET, thing("status-5"), "grpc-status: 5"),
        (GET, thing("status-14"), "grpc-status: 14"),
        ("/test.front.v1.Things/Unknown", thing("a"), "grpc-status: 12"),
    ] {
        let (head, _) = call(&rig, path, &request, "").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(status), "{head}");
        assert_eq!(head.contains("10.9.8.7"), status.ends_with(" 5"), "{head}");
    }
}

#[tokio::test]
async fn grpc_itself_passes_over_http_2() {
    let rig = Rig::start().await;
    let (io, _serving) = rig.pipe();
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::post(format!("http://gateway{GET}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").header("grpc-timeout", "5S").body(()).unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    stream.send_data(Bytes::from(framed(&thing("a"))), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let (things, _) = frames(&body.data().await.unwrap().unwrap());
    assert_eq!(things[0].id, "a");
    assert!(things[0].seen.contains_key("grpc-timeout"));
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    driving.abort();
}

#[tokio::test]
async fn a_timeout_that_cannot_be_read_is_refused() {
    let rig = Rig::start().await;
    for timeout in ["soon", "123456789S", "5"] {
        let (head, _) = call(&rig, GET, &thing("a"), &format!("grpc-timeout: {timeout}\r\n")).await;
        assert!(head.contains("grpc-status: 3"), "{timeout}: {head}");
    }
}
