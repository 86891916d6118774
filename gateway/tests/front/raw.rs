//! Requests that no library would send: lengths in doubt, lines folded, heads too large or too slow. Each is refused, and its
//! connection closed, so that nothing behind it is taken for a request of its own.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::kit::{Rig, config};

/// What comes behind a request, as a smuggler would have it.
const SMUGGLED: &str = "GET /v1/things/smuggled HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// The status of each answer on one connection to a request and what is smuggled behind it.
async fn statuses(rig: &Rig, request: &str) -> Vec<u16> {
    let mut client = rig.client();
    // Who is refused early is not listened to any more.
    let _ = client.io.write_all(format!("{request}{SMUGGLED}").as_bytes()).await;
    let heard = client.rest().await;
    heard.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

#[tokio::test]
async fn a_request_whose_length_is_in_doubt_is_the_last_one_of_its_connection() {
    let rig = Rig::start().await;
    for request in [
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "GET /v1/things/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\n{}",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-length: 2, 4\r\n\r\n{}",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-length: -2\r\n\r\n{}",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /v1/things HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET /v1/things/a HTTP/1.1\r\nhost: x\r\nx-folded: a\r\n b\r\n\r\n",
        "GET /v1/things/a HTTP/1.1\nhost: x\n\n",
        "GET /v1/things/a HTTP/1.1\r\nhost: x\nx: y\r\n\r\n",
        "GET /v1/things/a HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        "GET /v1/things/a\tb HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v1/things/a HTTP/9.9\r\nhost: x\r\n\r\n",
    ] {
        assert_eq!(statuses(&rig, request).await, [400], "{request:?}");
    }
    assert_eq!(statuses(&rig, "").await, [200], "the client itself is sane");
}

#[tokio::test]
async fn what_two_readers_read_alike_is_served() {
    let rig = Rig::start().await;
    let json = "host: x\r\ncontent-type: application/json\r\n";
    for request in [
        format!("POST /v1/things HTTP/1.1\r\n{json}content-length: 2\r\n\r\n{{}}"),
        format!(
            "POST /v1/things HTTP/1.1\r\n{json}transfer-encoding: chunked\r\n\r\n2;a=b\r\n{{}}\r\n0\r\nx: y\r\n\r\n"
        ),
        format!("\r\nPOST /v1/things HTTP/1.1\r\n{json}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}"),
    ] {
        assert_eq!(statuses(&rig, &request).await, [200, 200], "{request:?}");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let rig = Rig::start().await;
    let large = format!("GET /v1/things/a HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(17 * 1024));
    assert_eq!(statuses(&rig, &large).await, [431]);
    let many = format!("GET /v1/things/a HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(statuses(&rig, &many).await, [431]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_after_ten_seconds() {
    let rig = Rig::deaf(config());
    let (client, serving) = rig.pipe();
    let (_reader, mut writer) = tokio::io::split(client);
    let at = mesh_runtime::clock::now();
    let trickle = async {
        let text = format!("GET /v1/things/a HTTP/1.1\r\n{}", "x: y\r\n".repeat(100));
        for byte in text.bytes() {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let (served, ()) = tokio::join!(serving, trickle);
    assert!(served.unwrap().is_err());
    let lasted = mesh_runtime::clock::now() - at;
    assert!(lasted <= Duration::from_secs(11), "{lasted:?}");
}
