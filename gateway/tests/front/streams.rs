//! Streams: lines and events, what goes wrong in the middle, clients that go away or do not read, and the end of the gateway.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::kit::{Client, Rig};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

/// A stream that has begun.
async fn watch(rig: &Rig, query: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = rig.client();
    client.begin("GET", &format!("/v1/things:watch?{query}"), headers, "").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client
}

async fn all(mut client: Client) -> String {
    let mut text = String::new();
    while let Some(chunk) = client.chunk().await {
        text.push_str(&chunk);
    }
    text
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_is_a_line_for_each_message() {
    let rig = Rig::start().await;
    let told = lines(&all(watch(&rig, "count=3", &[]).await).await);
    assert_eq!(told.iter().map(|thing| thing["id"].as_str().unwrap()).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(all(watch(&rig, "count=0", &[]).await).await, "");
}

#[tokio::test]
async fn who_asks_for_events_by_name_gets_events() {
    let rig = Rig::start().await;
    let told = rig.ask("GET", "/v1/things:watch?count=2", &[EVENTS], "").await;
    assert_eq!(told.header("content-type"), Some("text/event-stream"));
    assert_eq!(told.body.matches("data: {").count(), 2, "{told:?}");
    assert!(told.body.ends_with("\n\n"));
    let lines = rig.ask("GET", "/v1/things:watch?count=2", &[("accept", "application/json")], "").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(rig.ask("GET", "/v1/things:watch?count=2", &[("accept", "image/png")], "").await.status, 406);
}

#[tokio::test]
async fn a_failure_in_the_middle_is_the_last_word() {
    let rig = Rig::start().await;
    let told = lines(&all(watch(&rig, "count=2&then=fail", &[]).await).await);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[2]["error"]["code"], 13);
    assert_eq!(told[2]["error"]["message"], "internal error", "what is inside stays inside");
    let events = all(watch(&rig, "count=1&then=fail", &[EVENTS]).await).await;
    let (event, data) = events.trim_end().rsplit_once('\n').unwrap();
    assert!(event.ends_with("event: error"), "{events}");
    let status: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(status["code"], 13);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_call() {
    let rig = Rig::start().await;
    let mut client = watch(&rig, "count=1&then=wait", &[]).await;
    client.chunk().await.unwrap();
    drop(client);
    rig.happened().until(|happened| happened.given_up.load(Ordering::SeqCst) == 1).await;
}

/// 16 MiB are asked for and not read: what is taken off the service is what fits into windows, buffers and the pipe.
#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_service_and_not_the_memory() {
    let rig = Rig::start().await;
    let mut client = watch(&rig, "count=1024", &[]).await;
    client.chunk().await.unwrap();
    let streamed = || rig.happened().streamed.load(Ordering::SeqCst);
    let mut before = 0;
    // It stands still once nothing more fits.
    while before != streamed() {
        before = streamed();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < 512, "{before} of 1024 were taken");
    assert_eq!(lines(&format!("{}\n", all(client).await.trim_end_matches('\n'))).len(), 1023);
}

#[tokio::test]
async fn streams_end_with_the_gateway_and_say_so() {
    let rig = Rig::start().await;
    let mut client = watch(&rig, "count=1&then=wait", &[]).await;
    client.chunk().await.unwrap();
    rig.ends_streams.cancel();
    let last = lines(&all(client).await);
    assert_eq!((last.len(), &last[0]["error"]["code"]), (1, &14.into()), "{last:?}");
    assert!(last[0].to_string().contains("DRAINING"), "{last:?}");
    rig.happened().until(|happened| happened.given_up.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_stream_may_be_bounded_in_time() {
    let rig = Rig::start().await;
    let told = lines(&all(watch(&rig, "count=1&then=wait", &[("request-timeout", "0.1")]).await).await);
    assert_eq!((told.len(), &told[1]["error"]["code"]), (2, &4.into()), "{told:?}");
}
