//! What a server cannot have processed goes elsewhere and never surfaces.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Semaphore;
use tonic::Code;
use tonic_types::StatusExt;

use crate::rig::{CREATE, Net, Rig, Server, call, eventually, fail, finish, ok, refuse, request, send, wrong_service};
use crate::{ConnectivityState, WaitForReady, clock};

#[tokio::test(start_paused = true)]
async fn a_call_is_answered() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    assert_eq!(call(&rig.channel, CREATE).await.unwrap(), crate::rig::MESSAGE);

    let head = &server.heads()[0];
    assert_eq!(head["te"], "trailers");
    assert!(head["user-agent"].to_str().unwrap().starts_with("grpc-rust-meshwork/"));
    let handle = &rig.handles()[&1];
    assert_eq!((handle.picks(), handle.in_flight(), handle.state()), (1, 0, ConnectivityState::Ready));
}

/// Each round: a call is open when the server says GOAWAY; it finishes, and the next call, which may not be repeated, is
/// made at once.
#[tokio::test(start_paused = true)]
async fn a_goaway_with_a_stream_open_loses_nothing() {
    let net = Net::default();
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::start(&net, 1, {
        let gate = gate.clone();
        move |request, reply| {
            let gate = gate.clone();
            async move {
                if request.uri().path() == "/slow" {
                    gate.acquire().await.unwrap().forget();
                }
                ok(request, reply).await;
            }
        }
    });
    let rig = Rig::new(&net, [1]);
    for round in 1..=200 {
        let open = tokio::spawn({
            let channel = rig.channel.clone();
            async move { call(&channel, "/slow").await }
        });
        eventually(|| server.seen() == 2 * round - 1).await;
        server.go_away();
        call(&rig.channel, CREATE).await.unwrap();
        gate.add_permits(1);
        open.await.unwrap().unwrap();
        assert_eq!(server.seen(), 2 * round);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_dialled_before_anybody_calls() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    server.go_away();
    eventually(|| net.connects() == 2 && rig.handles()[&1].state() == ConnectivityState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_goes_to_another_endpoint() {
    let net = Net::default();
    let refusing = Server::start(&net, 1, refuse);
    let serving = Server::start(&net, 2, ok);
    // Left to choose, few calls would go to who refuses.
    let rig = Rig::with(&net, [1, 2], |config| config.policy.balancer = crate::Balancer::RoundRobin);
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..100 {
        call(&rig.channel, CREATE).await.unwrap();
    }
    assert_eq!(serving.seen(), 100);
    assert!(refusing.seen() > 10);
    let head = &serving.heads()[99];
    assert!(!head.contains_key("grpc-previous-rpc-attempts"), "a re-pick is no retry");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_is_asked_again_for_the_failfast_time() {
    let net = Net::default();
    let refusing = Server::start(&net, 1, refuse);
    let rig = Rig::new(&net, [1]);
    let begun = clock::now();
    assert_eq!(call(&rig.channel, CREATE).await.unwrap_err().code(), Code::Unavailable);
    let took = clock::now() - begun;
    assert!((3_000..3_200).contains(&took.as_millis()), "{took:?}");
    // Some 50 ms apart once the pauses have grown: no tight loop.
    assert!((30..150).contains(&refusing.seen()), "{}", refusing.seen());
}

/// A server that is too full for a while: far longer than failfast.
#[tokio::test(start_paused = true)]
async fn a_refused_call_goes_on_until_its_deadline_or_for_ever_where_it_waits_for_ready() {
    let timed = HeaderValue::from_static("60S");
    for patient in [Patient::ByDeadline(timed), Patient::ByWish] {
        let net = Net::default();
        let opens = clock::now() + Duration::from_secs(20);
        let server = Server::start(&net, 1, move |request, reply| async move {
            if clock::now() < opens { refuse(request, reply).await } else { ok(request, reply).await }
        });
        let rig = Rig::new(&net, [1]);
        let mut request = request(CREATE);
        match patient {
            Patient::ByDeadline(timeout) => drop(request.headers_mut().insert("grpc-timeout", timeout)),
            Patient::ByWish => drop(request.extensions_mut().insert(WaitForReady)),
        }
        finish(send(&rig.channel, request).await.unwrap()).await.unwrap();
        assert!(clock::now() >= opens && server.seen() > 17);
    }
}

/// Why a call may be refused for long.
enum Patient {
    ByDeadline(HeaderValue),
    ByWish,
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_serves_another_service_is_left_and_its_calls_go_elsewhere() {
    let net = Net::default();
    let stranger = Server::start(&net, 1, |_, reply| fail(wrong_service("user-svc"), reply));
    let serving = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..50 {
        call(&rig.channel, CREATE).await.unwrap();
    }
    assert_eq!((serving.seen(), stranger.seen()), (50, 1));
    assert_eq!(rig.handles()[&1].state(), ConnectivityState::TransientFailure);
}

/// A handler that called somebody itself, and passes on what it was told.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_a_handler_passes_on_is_the_handlers_own_answer() {
    for asked in ["payment-svc", ""] {
        let net = Net::default();
        let server = Server::start(&net, 1, move |_, reply| fail(wrong_service(asked), reply));
        let rig = Rig::new(&net, [1]);
        let status = call(&rig.channel, CREATE).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "not mine"));
        assert_eq!((server.seen(), server.connections()), (1, 1), "it may have been processed");
        assert_eq!(rig.handles()[&1].state(), ConnectivityState::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_ends_the_call_is_told_in_words_that_nobody_takes_for_his_own() {
    let net = Net::default();
    let _stranger = Server::start(&net, 1, |_, reply| fail(wrong_service("user-svc"), reply));
    let rig = Rig::new(&net, [1]);
    // More than is kept for another attempt.
    let large = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 70 << 10]));
    let request = request(CREATE).map(|_| tonic::body::Body::new(large));
    let status = match send(&rig.channel, request).await {
        Ok(response) => tonic::Status::from_header_map(response.headers()).unwrap(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("10.0.0.1:1: it serves another service"), "{}", status.message());
    assert!(status.get_error_details().error_info().is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_and_never_speaks_is_never_picked() {
    let net = Net::default();
    net.mute(&crate::rig::address(1));
    let _serving = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    for _ in 0..100 {
        call(&rig.channel, CREATE).await.unwrap();
    }
    assert_eq!((rig.handles()[&1].picks(), rig.handles()[&2].picks()), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_refuse_or_swallow_connections_are_never_picked() {
    let net = Net::default();
    net.black_hole(&crate::rig::address(3));
    let _serving = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2, 3]);
    for _ in 0..100 {
        call(&rig.channel, CREATE).await.unwrap();
    }
    let picks: Vec<u64> = rig.handles().values().map(|handle| handle.picks()).collect();
    assert_eq!(picks, [0, 100, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_ends_with_its_trailers_and_not_before() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    let response = send(&rig.channel, request(CREATE)).await.unwrap();
    assert_eq!(rig.handles()[&1].in_flight(), 1);
    finish(response).await.unwrap();
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

/// The first server refuses the stream when half of the request is on its way; the second one gets all of it.
#[tokio::test(start_paused = true)]
async fn a_stream_of_messages_starts_anew_elsewhere() {
    let net = Net::default();
    let (refused, half) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let refusing = Server::start(&net, 1, {
        let half = half.clone();
        move |mut request, reply| {
            let half = half.clone();
            async move {
                while half.available_permits() == 0 {
                    request.body_mut().data().await.unwrap().unwrap();
                    half.add_permits(1);
                }
                refuse(request, reply).await;
            }
        }
    });
    let (heard, mut hearing) = tokio::sync::mpsc::channel(1);
    let _serving = Server::start(&net, 2, move |mut request, reply| {
        let heard = heard.clone();
        async move {
            let mut bytes = 0;
            while let Some(data) = request.body_mut().data().await {
                bytes += data.unwrap().len();
            }
            heard.send(bytes).await.unwrap();
            ok(request, reply).await;
        }
    });
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    let messages = futures_util::stream::unfold(0, {
        let refused = refused.clone();
        move |sent| {
            let refused = refused.clone();
            async move {
                if sent == 2 {
                    refused.acquire().await.unwrap().forget();
                }
                let message = http_body::Frame::data(bytes::Bytes::from_static(crate::rig::MESSAGE));
                (sent < 5).then_some((Ok::<_, tonic::Status>(message), sent + 1))
            }
        }
    });
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(messages));
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { finish(send(&channel, request(CREATE).map(|_| body)).await?).await }
    });
    eventually(|| half.available_permits() > 0).await;
    rig.resolve([crate::rig::endpoint(2)]);
    eventually(|| rig.handles().contains_key(&2)).await;
    refused.add_permits(1);
    open.await.unwrap().unwrap();
    assert_eq!(hearing.recv().await, Some(5 * crate::rig::MESSAGE.len()));
    assert!(refusing.seen() >= 1);
}
