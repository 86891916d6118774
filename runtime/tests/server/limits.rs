//! What one peer may do to a server, asked by a client that does all of it.

use std::time::Duration;

use mesh_runtime::{Hooks, Limits, Server, ServerArgs, clock, hardened_server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{self, Client, Probe, ended, request};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn server() -> Server {
    hardened_server(Probe::new().0.routes())
}

/// The client's end of a pipe that nobody speaks on yet, and how the connection ends.
fn pipe(server: Server) -> (DuplexStream, tokio::task::JoinHandle<String>) {
    let (client, io) = tokio::io::duplex(64 * 1024);
    let serving =
        tokio::spawn(async move { ended(server.serve_connection(io, None, &CancellationToken::new()).await) });
    (client, serving)
}

/// Frame types of RFC 9113.
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

async fn frame(io: &mut DuplexStream) -> Option<Frame> {
    frame_of(io).await
}

async fn frame_of(io: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    io.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind: head[3], payload })
}

#[tokio::test]
async fn the_settings_on_the_wire_are_the_limits() {
    let (mut io, _serving) = pipe(server());
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    let settings = frame(&mut io).await.unwrap();
    assert_eq!(settings.kind, SETTINGS);
    let mut announced: Vec<(u16, u32)> = settings
        .payload
        .chunks(6)
        .map(|setting| {
            (
                u16::from_be_bytes([setting[0], setting[1]]),
                u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]),
            )
        })
        .collect();
    announced.sort_unstable();
    let limits = Limits::default();
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_FRAME_SIZE: u16 = 5;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    assert_eq!(
        announced,
        [
            (MAX_CONCURRENT_STREAMS, 256),
            (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (MAX_FRAME_SIZE, 16 * 1024),
            (MAX_HEADER_LIST_SIZE, 16 * 1024),
        ]
    );
}

#[tokio::test]
async fn a_header_list_over_the_limit_costs_its_call_and_not_the_connection() {
    let (mut client, _serving) = Client::piped(&server(), &CancellationToken::new()).await;
    let bomb = request("Echo").header("x-bomb", "b".repeat(20 * 1024)).body(()).unwrap();
    assert_eq!(client.call(bomb).await.unwrap().http, 431);
    let answer = client.call(request("Echo").body(()).unwrap()).await.unwrap();
    assert_eq!(answer.code, Some(Code::Ok));
}

#[tokio::test]
async fn endless_continuation_frames_end_the_connection_and_nothing_else() {
    let server = server();
    let (mut io, serving) = pipe(server.clone());
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    // A HEADERS frame without END_HEADERS, then CONTINUATION frames that never say it either.
    io.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 1]).await.unwrap();
    // A literal field, not indexed, of one byte each; the same again and again.
    let field = [0x00, 0x01, b'x', 0x01, b'y'];
    let block = field.repeat(1_000);
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let continuation = [&length[1..], &[9, 0, 0, 0, 0, 1], &block].concat();
    let flooding = async { while io.write_all(&continuation).await.is_ok() {} };
    let (ended, ()) = tokio::join!(serving, flooding);
    assert_ne!(ended.unwrap(), "well");
    let (mut client, _serving) = Client::piped(&server, &CancellationToken::new()).await;
    let answer = client.call(request("Echo").body(()).unwrap()).await.unwrap();
    assert_eq!(answer.code, Some(Code::Ok));
}

/// A client's first bytes: so many streams, each opened and reset at once.
fn opened_and_reset(streams: u32) -> Vec<u8> {
    let mut flood = [PREFACE, EMPTY_SETTINGS].concat();
    // HPACK: POST, http, path /, authority from the static table with a literal value.
    let block = [0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
    for stream in (1..2 * streams).step_by(2) {
        let id = stream.to_be_bytes();
        const END_STREAM_END_HEADERS: u8 = 0x5;
        flood.extend([0, 0, 6, 1, END_STREAM_END_HEADERS]);
        flood.extend(id);
        flood.extend(block);
        flood.extend([0, 0, 4, RST_STREAM, 0]);
        flood.extend(id);
        flood.extend(8_u32.to_be_bytes()); // CANCEL
    }
    flood
}

/// The server stood still for a moment, and all the calls that may be open on one connection were given up meanwhile, by their
/// deadlines or since hedges won: no attack, and other calls on the connection go on.
#[tokio::test]
async fn as_many_resets_as_streams_may_be_open_cost_nobody_else_anything() {
    let (mut io, _serving) = pipe(server());
    io.write_all(&opened_and_reset(Limits::default().concurrent_streams)).await.unwrap();
    io.write_all(&[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    loop {
        let frame = frame(&mut io).await.unwrap();
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == PING {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_resets_what_it_opens_is_cut() {
    let server = server();
    let (io, serving) = pipe(server.clone());
    let flood = opened_and_reset(1_000);
    let (mut reading, mut writing) = tokio::io::split(io);
    let flooding = async {
        // The end of the connection is the end of the flood.
        let _ = writing.write_all(&flood).await;
    };
    let reading = async {
        let mut heard = Vec::new();
        let _ = reading.read_to_end(&mut heard).await;
        heard
    };
    let (ended, (), heard) = tokio::join!(serving, flooding, reading);
    assert_ne!(ended.unwrap(), "well");
    const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
    assert!(heard.windows(4).any(|window| window == ENHANCE_YOUR_CALM), "told why");
    let (mut client, _serving) = Client::piped(&server, &CancellationToken::new()).await;
    let answer = client.call(request("Echo").body(()).unwrap()).await.unwrap();
    assert_eq!(answer.code, Some(Code::Ok));
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_rest_goes_on() {
    let (probe, mut log) = Probe::new();
    let server = hardened_server(probe.routes()).limits(Limits { concurrent_streams: 2, ..Limits::default() });
    let (mut io, _serving) = pipe(server);
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    // A client that does not wait for SETTINGS: three calls of a method that does not answer.
    let path = b"/test.v1.Probe/Wait";
    for stream in [1_u32, 3, 5] {
        let mut block = vec![0x83, 0x86, 0x41, 0x01, b'x', 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path);
        let mut headers = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 0x5];
        headers.extend(stream.to_be_bytes());
        headers.extend(block);
        io.write_all(&headers).await.unwrap();
    }
    let refused = loop {
        let frame = frame(&mut io).await.unwrap();
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    assert_eq!(refused.payload, REFUSED_STREAM, "the caller may send it again, to anybody");
    for _ in 0..2 {
        assert_eq!(log.recv().await.unwrap(), "begun Wait");
    }
    assert!(log.try_recv().is_err(), "the third never reached the handler");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_speaks_ends_after_five_seconds() {
    for begun in [&b""[..], &PREFACE[..23]] {
        let at = clock::now();
        let (mut io, serving) = pipe(server());
        io.write_all(begun).await.unwrap();
        assert_eq!(serving.await.unwrap(), "no HTTP/2 preface within 5s");
        assert_eq!((clock::now() - at).as_secs(), 5);
        let mut heard = Vec::new();
        io.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty(), "closed without a word");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_answering_is_dropped_after_thirty_seconds() {
    let at = clock::now();
    let (mut io, serving) = pipe(server());
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    while let Some(frame) = frame(&mut io).await {
        if frame.kind == PING {
            assert_eq!((clock::now() - at).as_secs(), 20, "asked for a sign of life");
        }
    }
    serving.await.unwrap();
    assert_eq!((clock::now() - at).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_dropped_too() {
    let at = clock::now();
    // A pipe that is full before the SETTINGS are through.
    let (mut client, io) = tokio::io::duplex(24);
    let server = server();
    let serving =
        tokio::spawn(async move { ended(server.serve_connection(io, None, &CancellationToken::new()).await) });
    client.write_all(PREFACE).await.unwrap();
    serving.await.unwrap();
    assert_eq!((clock::now() - at).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_asked_to_go_and_finishes_its_calls() {
    let (probe, mut log) = Probe::new();
    let age = Duration::from_secs(60);
    let server = hardened_server(probe.routes()).limits(Limits { connection_age: Some(age), ..Limits::default() });
    let at = clock::now();
    let (mut client, serving) = Client::piped(&server, &CancellationToken::new()).await;
    let waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    assert_eq!(log.recv().await.unwrap(), "begun Wait");
    // The GOAWAY shows as a client that is not ready for a new stream.
    let refused = loop {
        match client.call(request("Echo").body(()).unwrap()).await {
            Ok(answer) => assert_eq!(answer.code, Some(Code::Ok)),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(refused.is_go_away() || refused.is_io() || refused.is_reset(), "{refused}");
    assert!((60..63).contains(&(clock::now() - at).as_secs()));
    probe.release.cancel();
    assert_eq!(support::read(waiting).await.unwrap().code, Some(Code::Ok));
    assert_eq!(serving.await.unwrap(), "well");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once_and_counted() {
    let args = ServerArgs { max_connections_per_ip: 1, ..ServerArgs::loopback() };
    let mut running = support::run(args, Hooks::none()).await;
    let mut first = Client::dial(running.grpc).await;
    assert_eq!(first.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));

    let mut second = tokio::net::TcpStream::connect(running.grpc).await.unwrap();
    // Closed or reset, depending on what the kernel saw first.
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let (_, metrics) = support::get(running.http, "/metrics").await;
    assert!(metrics.contains("mesh_server_connections_refused_total{reason=\"per_ip\"} 1"), "{metrics}");
    assert!(metrics.contains("mesh_server_connections 1"), "{metrics}");

    drop(first);
    assert_eq!(running.log.recv().await.unwrap(), "begun Echo");
    // The place is free again once the server has seen the end of the first.
    while support::echo(running.grpc).await.is_err() {}
}

/// How many of the calls of a storm begin before one other call that came after them all.
async fn begun_before(in_their_lane: impl FnOnce(Server) -> Server) -> usize {
    const CONNECTIONS: usize = 20;
    const CALLS: usize = 40;
    let (probe, mut log) = Probe::new();
    let server = in_their_lane(hardened_server(probe.routes()));
    let goaway = CancellationToken::new();
    let mut clients = Vec::new();
    for _ in 0..=CONNECTIONS {
        let (mut client, serving) = Client::piped(&server, &goaway).await;
        // Its SETTINGS are there: from here on nothing is waited for.
        assert_eq!(client.call(request("Peer").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
        clients.push((client, serving));
    }
    let (mut last, _serving) = clients.pop().unwrap();
    while log.try_recv().is_ok() {}
    let mut answers = Vec::new();
    for (client, _) in &mut clients {
        for _ in 0..CALLS {
            answers.push(client.start(request("Echo").body(()).unwrap()).await.unwrap());
        }
    }
    // The storm is on its way, and what comes now comes after it.
    tokio::task::yield_now().await;
    assert_eq!(last.call(request("Peer").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    let mut begun = 0;
    loop {
        match log.recv().await.unwrap().as_str() {
            "begun Peer" => break,
            "begun Echo" => begun += 1,
            _ => {}
        }
    }
    for answer in answers {
        assert_eq!(support::read(answer).await.unwrap().code, Some(Code::Ok), "it is served in the end");
    }
    begun
}

/// One thread, so that what runs before what is the order of the queue and no chance.
#[tokio::test]
async fn a_storm_in_a_lane_does_not_stand_before_the_calls_of_others() {
    let without = begun_before(|server| server).await;
    let with = begun_before(|server| server.lane(["/test.v1.Probe/Echo"], 8)).await;
    println!("of 800 calls {without} run first without a lane, {with} with one");
    assert!(without >= 600, "this is what a lane is for: {without}");
    assert!(with <= 100, "{with}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_something_else_keeps_nobody_waiting_and_one_that_waits_has_its_deadline() {
    let (probe, _log) = Probe::new();
    let server = hardened_server(probe.routes()).lane(["/test.v1.Probe/Wait", "/test.v1.Probe/Echo"], 1);
    let (mut client, _serving) = Client::piped(&server, &CancellationToken::new()).await;
    let waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    let late = request("Wait").header("grpc-timeout", "1S").body(()).unwrap();
    assert_eq!(client.call(late).await.unwrap().code, Some(Code::DeadlineExceeded));
    assert_eq!(client.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    probe.release.cancel();
    assert_eq!(support::read(waiting).await.unwrap().code, Some(Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_calls_is_asked_to_go_and_one_with_some_is_not() {
    let begun = clock::now();
    let (mut client, serving) = Client::piped(&server(), &CancellationToken::new()).await;
    tokio::time::sleep(Limits::CONNECTION_IDLE - Duration::from_secs(1)).await;
    assert_eq!(client.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    // Well, or with an error of a client that hangs up before the goodbye is complete.
    serving.await.unwrap();
    let after = clock::now() - begun;
    let (least, most) = (2 * Limits::CONNECTION_IDLE - Duration::from_secs(1), 3 * Limits::CONNECTION_IDLE);
    assert!((least..most).contains(&after), "the call begins the time anew: {after:?}");

    let (mut client, serving) = Client::piped(&server(), &CancellationToken::new()).await;
    let _waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    tokio::time::sleep(2 * Limits::CONNECTION_IDLE).await;
    assert!(!serving.is_finished(), "a stream that is open is no idleness");
}

const PING_FRAME: &[u8] = &[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Sends so many frames at once; what came back after them, and how the connection ended if it did.
async fn after_a_flood(frame: &[u8], count: u32) -> (Vec<Frame>, Option<String>) {
    let (mut io, serving) = pipe(server());
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    let flood = frame.repeat(usize::try_from(count).unwrap());
    let (mut reading, mut writing) = tokio::io::split(io);
    let read = async {
        let mut frames = Vec::new();
        let quiet = Duration::from_millis(300);
        while let Ok(Some(frame)) = tokio::time::timeout(quiet, frame_of(&mut reading)).await {
            frames.push(frame);
        }
        frames
    };
    let (frames, _) = tokio::join!(read, async { writing.write_all(&flood).await });
    let ended = if serving.is_finished() { Some(serving.await.unwrap()) } else { None };
    (frames, ended)
}

#[tokio::test]
async fn a_peer_that_floods_pings_or_settings_is_told_to_be_calm_and_cut() {
    let Limits { control_frames, .. } = Limits::default();
    for flood in [PING_FRAME, EMPTY_SETTINGS] {
        // The first SETTINGS of the connection are one of them.
        let (frames, ended) = after_a_flood(flood, control_frames.burst - 1).await;
        assert_eq!(ended, None, "so many are answered");
        let answers = frames.iter().filter(|frame| frame.kind == flood[3]).count();
        assert!(answers >= usize::try_from(control_frames.burst - 1).unwrap(), "{answers} answers");

        let (frames, ended) = after_a_flood(flood, control_frames.burst + 100).await;
        assert!(ended.is_some_and(|how| how != "well"), "one more ends it");
        let goodbye = frames.iter().find(|frame| frame.kind == GOAWAY).expect("it is told why");
        const ENHANCE_YOUR_CALM: u8 = 0xb;
        assert_eq!(goodbye.payload[7], ENHANCE_YOUR_CALM);
        assert_eq!(&goodbye.payload[8..], b"too_many_pings");
    }
}
