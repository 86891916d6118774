//! REST requests: routes, bodies, answers, failures.

use std::time::Duration;

use gateway::Published;
use gateway::front::{Config, Limits};

use crate::kit::{Rig, config};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_request_becomes_a_call_and_its_answer_json() {
    let rig = Rig::start().await;
    let got = rig.get("/v1/things/a%20b").await;
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")), "{got:?}");
    assert_eq!(got.json()["id"], "a b");
    let made = rig.ask("POST", "/things", &[JSON], r#"{"id":"new"}"#).await;
    assert_eq!((made.status, &made.json()["id"]), (200, &"new".into()), "the path without its version, too");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    for id in ["one", "two", "three"] {
        assert_eq!(client.ask("GET", &format!("/v1/things/{id}"), &[], "").await.json()["id"], id);
    }
}

#[tokio::test]
async fn every_answer_names_its_request_and_is_safe_to_show() {
    let rig = Rig::start().await;
    for (target, sent, kept) in
        [("/v1/things/a", "my-id:7", true), ("/nowhere", "my-id:7", true), ("/v1/things/a", "<b>", false)]
    {
        let got = rig.ask("GET", target, &[("x-request-id", sent)], "").await;
        let id = got.header("x-request-id").unwrap();
        assert_eq!(id == sent, kept, "{id}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
        assert!(got.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert_eq!(got.header("access-control-allow-origin"), None);
    }
    let seen = rig.ask("GET", "/v1/things/a", &[("x-request-id", "my-id:7")], "").await;
    assert_eq!(seen.json()["seen"]["x-request-id"], "my-id:7", "and it is passed on");
}

#[tokio::test]
async fn what_a_client_may_not_say_never_reaches_a_service() {
    let rig = Rig::start().await;
    let got = rig
        .ask(
            "GET",
            "/v1/things/a",
            &[
                ("x-user-id", "root"),
                ("x-mesh-client-address", "1.2.3.4"),
                ("x-mesh-service-authorization", "Bearer forged"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-client-cert", "Subject=admin"),
                ("grpc-timeout", "1n"),
                ("grpc-previous-rpc-attempts", "7"),
                ("cookie", "a=b"),
                ("x-other", "c"),
                ("connection", "keep-alive, x-hop"),
                ("x-hop", "d"),
                ("authorization", "Bearer mine"),
                ("accept-language", "de"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ],
            "",
        )
        .await;
    assert_eq!(got.status, 200, "{got:?}");
    let seen = got.json()["seen"].clone();
    let mut names: Vec<String> = seen.as_object().unwrap().keys().cloned().collect();
    names.sort();
    let expected =
        ["accept-language", "authorization", "traceparent", "user-agent", "x-mesh-client-address", "x-request-id"];
    names.retain(|name| !["grpc-timeout", "te", "content-type"].contains(&name.as_str()));
    assert_eq!(names, expected, "{seen}");
    assert_eq!((&seen["x-mesh-client-address"], &seen["authorization"]), (&"10.1.2.3".into(), &"Bearer mine".into()));
    let trace = seen["traceparent"].as_str().unwrap();
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !trace.contains("b7ad6b7169203331"),
        "{trace}"
    );
}

#[tokio::test]
async fn the_word_of_a_trusted_proxy_counts() {
    let proxies = ["10.1.2.3".parse().unwrap()].into_iter().collect();
    let rig = Rig::with(Config { proxies, ..config() }).await;
    let got = rig.ask("GET", "/v1/things/a", &[("x-forwarded-for", "6.6.6.6, 9.8.7.6")], "").await;
    assert_eq!(got.json()["seen"]["x-mesh-client-address"], "9.8.7.6");
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let rig = Rig::start().await;
    let nowhere = rig.get("/v1/nothing/there").await;
    assert_eq!((nowhere.status, nowhere.reason().as_str()), (404, "ROUTE_UNKNOWN"));
    for method in ["DELETE", "PUT", "TRACE", "MADEUP"] {
        let other = rig.ask(method, "/v1/things/a", &[], "").await;
        assert_eq!((other.status, other.reason().as_str()), (405, "METHOD_NOT_ALLOWED"), "{method}");
        assert_eq!(other.header("allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
    let asked = rig.ask("OPTIONS", "/v1/things", &[], "").await;
    assert_eq!((asked.status, asked.header("allow")), (204, Some("POST, OPTIONS")));
    rig.published.store(Published::default().into());
    let early = rig.get("/v1/things/a").await;
    assert_eq!((early.status, early.reason().as_str()), (503, "SERVICES_UNKNOWN"), "nobody knows yet");
    assert_eq!(early.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    let page = client.ask("GET", "/docs", &[], "").await;
    let head = client.ask("HEAD", "/docs", &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));
    let head = client.ask("HEAD", "/v1/things/large-1000", &[], "").await;
    assert!(head.status == 200 && head.header("content-length").unwrap().parse::<usize>().unwrap() > 1000, "{head:?}");
    assert_eq!(client.ask("HEAD", "/v1/nothing", &[], "").await.status, 404, "and nothing is left between them");
}

#[tokio::test]
async fn a_body_is_json_and_says_so() {
    let rig = Rig::start().await;
    let post = async |headers: &[(&str, &str)], body: &str| rig.ask("POST", "/v1/things", headers, body).await;
    for good in ["application/json", "application/json; charset=utf-8"] {
        assert_eq!(post(&[("content-type", good)], "{}").await.status, 200, "{good}");
    }
    for bad in [&[("content-type", "text/plain")][..], &[("content-type", "application/x-www-form-urlencoded")], &[]] {
        let refused = post(bad, "{}").await;
        assert_eq!((refused.status, refused.reason().as_str()), (415, "CONTENT_TYPE_UNSUPPORTED"), "{bad:?}");
    }
    assert_eq!(post(&[JSON, ("content-encoding", "gzip")], "{}").await.status, 415);
    assert_eq!(post(&[], "").await.status, 200, "no body has no type");
    let malformed = post(&[JSON], r#"{"id": 7, "nothing": 1}"#).await;
    assert_eq!((malformed.status, malformed.reason().as_str()), (400, "INVALID_REQUEST"));
    assert!(malformed.body.contains("google.rpc.BadRequest"), "{malformed:?}");
    let refused = rig.ask("GET", "/v1/things/a", &[("accept", "text/html")], "").await;
    assert_eq!((refused.status, refused.reason().as_str()), (406, "NOT_ACCEPTABLE"));
}

#[tokio::test]
async fn nothing_is_larger_than_it_may_be() {
    let rig = Rig::start().await;
    let body = |bytes: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(bytes - 9));
    let largest = rig.ask("POST", "/v1/things", &[JSON], &body(1024 * 1024)).await;
    assert_eq!(largest.status, 200, "{}", &largest.body[..200]);
    let mut client = rig.client();
    client
        .say("POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1048577\r\n\r\n")
        .await;
    let announced = client.answer(false).await;
    assert_eq!((announced.status, announced.reason().as_str()), (413, "BODY_TOO_LARGE"), "before it is sent");
    let mut client = rig.client();
    client.say("POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("20000\r\n{}\r\n", "x".repeat(0x20000));
    for _ in 0..8 {
        client.say(&chunk).await;
    }
    client.say("1\r\nx\r\n").await;
    assert_eq!(client.answer(false).await.status, 413, "as it comes");

    let target = |bytes: usize| format!("/v1/things/{}", "a".repeat(bytes - "/v1/things/".len()));
    assert_eq!(rig.get(&target(8192)).await.status, 200);
    let long = rig.get(&target(8193)).await;
    assert_eq!((long.status, long.reason().as_str()), (414, "TARGET_TOO_LONG"));
    let answer = rig.get("/v1/things/large-4194305").await;
    assert_eq!((answer.status, answer.reason().as_str()), (500, "ANSWER_MALFORMED"));
}

#[tokio::test]
async fn a_refusal_is_heard_while_the_body_still_comes_and_the_connection_goes_on() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    for (target, status) in [("/nowhere", 404), ("/v1/things", 413)] {
        let length = 2 * 1024 * 1024;
        client.say(format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")).await;
        client.say(vec![b'x'; 1000]).await;
        assert_eq!(client.answer(false).await.status, status, "before the body is there");
        client.say(vec![b'x'; length - 1000]).await;
        assert_eq!(client.ask("GET", "/v1/things/a", &[], "").await.status, 200, "behind it");
    }
    client.say("POST /nowhere HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 404, "and nobody is told to go on");
    assert_eq!(client.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let rig = Rig::deaf(config());
    let limits = Limits::default();
    let begin = "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let mut client = rig.client();
    let at = mesh_runtime::clock::now();
    client.say(begin).await;
    let slow = client.answer(false).await;
    assert_eq!((slow.status, slow.reason().as_str()), (408, "BODY_SLOW"));
    assert_eq!(mesh_runtime::clock::now() - at, limits.body_pause);

    let mut client = rig.client();
    let at = mesh_runtime::clock::now();
    client.say(begin).await;
    let mut trickle = 0;
    while mesh_runtime::clock::now() - at < limits.body_time - Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.say(" ").await;
        trickle += 1;
    }
    assert_eq!(client.answer(false).await.status, 408, "after {trickle} bytes");
    assert_eq!(mesh_runtime::clock::now() - at, limits.body_time);
}

#[tokio::test]
async fn a_request_may_say_how_long_it_waits() {
    let rig = Rig::start().await;
    let seen =
        async |headers: &[(&str, &str)]| rig.ask("GET", "/v1/things/a", headers, "").await.json()["seen"].clone();
    let timeout = |seen: &serde_json::Value| {
        let text = seen["grpc-timeout"].as_str().unwrap().to_owned();
        let (digits, unit) = text.split_at(text.len() - 1);
        let number: f64 = digits.parse().unwrap();
        number
            * match unit {
                "m" => 1e-3,
                "u" => 1e-6,
                "n" => 1e-9,
                _ => 1.0,
            }
    };
    let default = timeout(&seen(&[]).await);
    assert!((14.0..=15.0).contains(&default), "{default}");
    let asked = timeout(&seen(&[("request-timeout", "7.5")]).await);
    assert!((6.5..=7.5).contains(&asked), "{asked}");
    for bad in ["61", "0", "soon", "1s"] {
        let refused = rig.ask("GET", "/v1/things/a", &[("request-timeout", bad)], "").await;
        assert_eq!((refused.status, refused.reason().as_str()), (400, "TIMEOUT_MALFORMED"), "{bad}");
    }
    let late = rig.ask("GET", "/v1/things/wait-for-ever", &[("request-timeout", "0.05")], "").await;
    assert_eq!((late.status, late.reason().as_str()), (504, "DEADLINE_EXCEEDED"), "{late:?}");
    assert!(!late.body.contains("127.0.0.1"), "where it was sent is nobody's business: {late:?}");
}

#[tokio::test]
async fn a_failure_is_told_in_http_and_what_is_inside_stays_inside() {
    let rig = Rig::start().await;
    for (code, status, told) in [
        (3, 400, true),
        (5, 404, true),
        (6, 409, true),
        (7, 403, true),
        (8, 429, true),
        (9, 400, true),
        (10, 409, true),
        (16, 401, true),
        (2, 500, false),
        (12, 501, false),
        (13, 500, false),
        (14, 503, false),
        (15, 500, false),
    ] {
        let got = rig.ask("GET", &format!("/v1/things/status-{code}"), &[("x-request-id", "the-id")], "").await;
        assert_eq!((got.status, got.json()["code"].as_i64()), (status, Some(code)), "{got:?}");
        assert_eq!(got.reason(), "SOME_REASON");
        assert_eq!(got.body.contains("said at 10.9.8.7:1"), told, "{got:?}");
        assert_eq!(got.body.contains("the-id"), !told, "{got:?}");
        assert!(!got.body.contains("main.rs") && !got.body.contains("inside"), "{got:?}");
        let later = match code {
            8 => Some("3"),
            14 => Some("1"),
            _ => None,
        };
        assert_eq!(got.header("retry-after"), later, "{code}");
        assert_eq!(got.header("www-authenticate").is_some(), code == 16);
    }
}

#[tokio::test]
async fn a_gateway_that_is_full_says_when_to_come_back() {
    for (limits, status, reason) in [
        (Limits { requests: 1, ..Limits::default() }, 503, "OVERLOADED"),
        (Limits { requests_per_client: 1, ..Limits::default() }, 429, "TOO_MANY_REQUESTS"),
    ] {
        let rig = Rig::with(Config { limits, ..config() }).await;
        let mut busy = rig.client();
        busy.begin("GET", "/v1/things/wait-for-ever", &[], "").await;
        rig.happened().until(|happened| happened.begun.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
        let refused = rig.get("/v1/things/a").await;
        assert_eq!((refused.status, refused.reason().as_str()), (status, reason));
        assert_eq!(refused.header("retry-after"), Some("1"));
        drop(busy);
        rig.happened().until(|happened| happened.given_up.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
        while rig.get("/v1/things/a").await.status != 200 {}
    }
}

#[tokio::test]
async fn what_is_measured_has_few_names() {
    let rig = Rig::start().await;
    rig.get("/v1/things/one").await;
    rig.get("/v1/things/two").await;
    rig.get("/made/up").await;
    rig.ask("MADEUP", "/v1/things/one", &[], "").await;
    let metrics = rig.metrics();
    for line in [
        r#"gateway_http_requests_total{route="/v1/things/{id}",method="GET",status="200"} 2"#,
        r#"gateway_http_requests_total{route="other",method="GET",status="404"} 1"#,
        r#"gateway_http_requests_total{route="other",method="other",status="405"} 1"#,
        r#"gateway_http_request_duration_seconds_count{route="/v1/things/{id}",method="GET"} 2"#,
        "gateway_http_requests_in_flight 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing:\n{metrics}");
    }
    assert!(!metrics.contains("made/up") && !metrics.contains("MADEUP"), "{metrics}");
}
