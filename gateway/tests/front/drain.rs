//! The end: what is open is finished, what would never end is ended, and clients are told to go.

use std::sync::atomic::Ordering;

use crate::kit::Rig;

#[tokio::test]
async fn answers_say_close_from_the_moment_of_leaving_and_the_connection_closes() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    assert_eq!(client.ask("GET", "/v1/things/a", &[], "").await.header("connection"), None);
    rig.leaving.cancel();
    let last = client.ask("GET", "/v1/things/a", &[], "").await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_goodbye_finishes_what_is_open() {
    let rig = Rig::start().await;
    let (io, serving) = rig.pipe();
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    let driving = tokio::spawn(connection);
    let get = |id: &str| http::Request::get(format!("http://gateway/v1/things/{id}")).body(()).unwrap();
    let (first, _) = sender.send_request(get("a"), true).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    let timed = http::Request::get("http://gateway/v1/things/wait-for-ever").header("request-timeout", "0.5");
    let (open, _) = sender.send_request(timed.body(()).unwrap(), true).unwrap();
    rig.happened().until(|happened| happened.begun.load(Ordering::SeqCst) == 2).await;
    rig.goaway.cancel();
    assert_eq!(open.await.unwrap().status(), 504, "it had its time");
    drop(sender);
    driving.await.unwrap().unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_goodbye_closes_an_http_1_connection_after_its_answer() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    client.begin("GET", "/v1/things/wait-for-ever", &[("request-timeout", "0.3")], "").await;
    rig.happened().until(|happened| happened.begun.load(Ordering::SeqCst) == 1).await;
    rig.goaway.cancel();
    let last = client.answer(false).await;
    assert_eq!((last.status, last.header("connection")), (504, Some("close")));
    assert_eq!(client.rest().await, "");
}
