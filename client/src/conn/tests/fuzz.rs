//! The response path against a hostile server. Whatever comes after a sound beginning, nothing panics, no call outlasts its
//! deadline, no call stays counted, and the channel works again as soon as a sound server stands at the address.
//!
//! A failing story is printed with `BOLERO_RANDOM_SEED=…`, which replays it. More of them:
//! `BOLERO_RANDOM_TEST_TIME_MS=600000 BOLERO_RANDOM_ITERATIONS=100000 cargo test -p mesh-client hostile`.

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use bolero::{TypeGenerator, produce};
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::StreamBody;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use crate::policy::{decode_timeout, encode_timeout};
use crate::rig::{CREATE, Frame, GET, MESSAGE, Net, Peer, Rig, Server, address, call, eventually, field, finish, ok};
use crate::rig::{request, send, wire};
use crate::{ConnectivityState, clock};

/// Some 5 s in a debug build.
const STORIES: usize = 500;
/// However busy the machine is.
const TEST_TIME: Duration = Duration::from_secs(8);
/// Connections of one story; the address then accepts and says nothing.
const CONNECTIONS_MAX: usize = 4;
/// How long a call may last; the longest pause of a story is shorter, and silence is noticed sooner.
const DEADLINE: Duration = Duration::from_secs(4);

/// What a server does on each connection after it has become READY and got the calls.
#[derive(Debug, TypeGenerator)]
struct Story {
    #[generator(produce::<Vec<Step>>().with().len(0_usize..16))]
    steps: Vec<Step>,
    temper: Temper,
    /// Whether all of it comes in one piece.
    at_once: bool,
    answers_pings: bool,
    /// The stream of bytes ends here, and the connection with it.
    cut: Option<u16>,
}

/// How far from HTTP/2 it goes. Most that is against the framing ends the connection at once: stories of nothing else would
/// never get to what is against gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TypeGenerator)]
enum Temper {
    /// Frames that a connection survives, as a rule.
    Tame,
    /// The same, answers first.
    Eager,
    Wild,
}

#[derive(Debug, TypeGenerator)]
enum Step {
    Answer(Stream),
    Head {
        stream: Stream,
        fields: Fields,
        end: bool,
        split: Option<u8>,
    },
    Data {
        stream: Stream,
        end: bool,
        message: Message,
    },
    Reset {
        stream: Stream,
        code: Code,
    },
    GoAway {
        last: Stream,
        code: Code,
    },
    Settings {
        setting: Setting,
        value: Number,
    },
    SettingsAck,
    WindowUpdate {
        stream: Stream,
        increment: Number,
    },
    PushPromise {
        stream: Stream,
        promised: Stream,
        fields: Fields,
    },
    Ping {
        ack: bool,
        own: bool,
        count: u8,
    },
    Frame {
        kind: u8,
        flags: u8,
        stream: Stream,
        #[generator(produce::<Vec<u8>>().with().len(0_usize..64))]
        payload: Vec<u8>,
    },
    /// A frame that says it is longer or shorter than it is.
    Misframed {
        length: u16,
        kind: u8,
        flags: u8,
        stream: Stream,
        #[generator(produce::<Vec<u8>>().with().len(0_usize..64))]
        payload: Vec<u8>,
    },
    Garbage(#[generator(produce::<Vec<u8>>().with().len(0_usize..64))] Vec<u8>),
    Pause {
        tenths: u8,
    },
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Stream {
    Connection,
    /// One of the calls'.
    Call(#[generator(0_u8..4)] u8),
    Any(u32),
}

impl Stream {
    fn id(self, temper: Temper) -> u32 {
        match self {
            Self::Call(index) => 1 + 2 * u32::from(index),
            Self::Any(id) if temper != Temper::Wild => 1 + 2 * (id % 4),
            Self::Connection if temper != Temper::Wild => 1,
            Self::Connection => 0,
            Self::Any(id) => id,
        }
    }
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Code {
    Known(#[generator(0_u8..14)] u8),
    Any(u32),
}

impl Code {
    fn number(self) -> u32 {
        match self {
            Self::Known(code) => code.into(),
            Self::Any(code) => code,
        }
    }
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Number {
    Zero,
    One,
    Small(u8),
    /// 2^31 - 1, the largest window.
    Window,
    Max,
    Any(u32),
}

impl Number {
    fn get(self) -> u32 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Small(number) => number.into(),
            Self::Window => (1 << 31) - 1,
            Self::Max => u32::MAX,
            Self::Any(number) => number,
        }
    }
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Setting {
    Known(#[generator(1_u8..9)] u8),
    Any(u16),
}

impl Setting {
    fn id(self, temper: Temper) -> u16 {
        match self {
            // Of the others, most values are against the protocol.
            _ if temper != Temper::Wild => wire::MAX_CONCURRENT_STREAMS,
            Self::Known(id) => id.into(),
            Self::Any(id) => id,
        }
    }
}

/// The payload of a DATA frame.
#[derive(Debug, TypeGenerator)]
enum Message {
    Sound,
    Empty,
    /// The length in front says something else.
    Mislabelled {
        compressed: u8,
        length: u32,
    },
    Large(#[generator(0_u16..16_384)] u16),
    Any(#[generator(produce::<Vec<u8>>().with().len(0_usize..64))] Vec<u8>),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Sound => MESSAGE.to_vec(),
            Self::Empty => Vec::new(),
            Self::Mislabelled { compressed, length } => [&[*compressed][..], &length.to_be_bytes(), b"hi"].concat(),
            Self::Large(length) => vec![7; usize::from(*length)],
            Self::Any(bytes) => bytes.clone(),
        }
    }
}

/// A header block.
#[derive(Debug, TypeGenerator)]
struct Fields {
    status: HttpStatus,
    grpc_status: GrpcStatus,
    message: Option<Text>,
    pushback: Option<Text>,
    details: Option<Text>,
    content_type: bool,
    repeated: u8,
    #[generator(produce::<Option<Vec<u8>>>())]
    raw: Option<Vec<u8>>,
}

#[derive(Debug, TypeGenerator)]
enum HttpStatus {
    Ok,
    Informational,
    Unavailable,
    Nonsense,
    Absent,
}

#[derive(Debug, TypeGenerator)]
enum GrpcStatus {
    Absent,
    Known(#[generator(0_u8..17)] u8),
    Text(Text),
}

/// The value of a header.
#[derive(Debug, TypeGenerator)]
enum Text {
    Number(i64),
    Huge,
    Percent,
    Base64,
    Bytes(#[generator(produce::<Vec<u8>>().with().len(0_usize..24))] Vec<u8>),
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Huge => vec![b'9'; 100],
            Self::Percent => b"%zz%f%41%".to_vec(),
            Self::Base64 => b"CAESA2hleQ==!".to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A header field whose value need not be text.
fn any_field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = field(name, "");
    *bytes.last_mut().unwrap() = u8::try_from(value.len()).unwrap();
    bytes.extend(value);
    bytes
}

impl Fields {
    fn block(&self, temper: Temper) -> Vec<u8> {
        if let Some(raw) = &self.raw
            && temper == Temper::Wild
        {
            return raw.clone();
        }
        let mut block = match self.status {
            HttpStatus::Ok => vec![0x88],
            HttpStatus::Informational => field(":status", "103"),
            HttpStatus::Unavailable => field(":status", "503"),
            HttpStatus::Nonsense => field(":status", "2x"),
            HttpStatus::Absent => Vec::new(),
        };
        if self.content_type {
            block.extend(field("content-type", "application/grpc"));
        }
        match &self.grpc_status {
            GrpcStatus::Absent => {}
            GrpcStatus::Known(code) => block.extend(field("grpc-status", &code.to_string())),
            GrpcStatus::Text(text) => block.extend(any_field("grpc-status", &text.bytes())),
        }
        let texts = [
            ("grpc-message", &self.message),
            ("grpc-retry-pushback-ms", &self.pushback),
            ("grpc-status-details-bin", &self.details),
        ];
        for (name, text) in texts {
            block.extend(text.iter().flat_map(|text| any_field(name, &text.bytes())));
        }
        block.extend(field("x-repeated", "0123456789").repeat(self.repeated.into()));
        block
    }
}

impl Step {
    fn bytes(&self, temper: Temper) -> Vec<u8> {
        match self {
            Self::SettingsAck
            | Self::PushPromise { .. }
            | Self::Frame { .. }
            | Self::Misframed { .. }
            | Self::Garbage(_)
                if temper != Temper::Wild =>
            {
                Vec::new()
            }
            Self::Answer(stream) => [
                Frame::head(stream.id(temper)).encode(),
                Frame::data(stream.id(temper), 0, MESSAGE).encode(),
                Frame::trailers(stream.id(temper), "0").encode(),
            ]
            .concat(),
            Self::Head { stream, fields, end, split } => {
                let (block, end) = (fields.block(temper), if *end { wire::END_STREAM } else { 0 });
                let Some(split) = split else {
                    return Frame::new(wire::HEADERS, end | wire::END_HEADERS, stream.id(temper), block).encode();
                };
                let (first, rest) = block.split_at(block.len().min((*split).into()));
                [
                    Frame::new(wire::HEADERS, end, stream.id(temper), first).encode(),
                    Frame::new(wire::CONTINUATION, wire::END_HEADERS, stream.id(temper), rest).encode(),
                ]
                .concat()
            }
            Self::Data { stream, end, message } => {
                Frame::data(stream.id(temper), if *end { wire::END_STREAM } else { 0 }, message.bytes()).encode()
            }
            Self::Reset { stream, code } => Frame::reset(stream.id(temper), code.number()).encode(),
            Self::GoAway { last, code } => Frame::go_away(last.id(temper), code.number(), b"why not").encode(),
            Self::Settings { setting, value } => Frame::settings(&[(setting.id(temper), value.get())]).encode(),
            Self::SettingsAck => Frame::new(wire::SETTINGS, wire::ACK, 0, []).encode(),
            Self::WindowUpdate { stream, increment } => {
                Frame::window_update(stream.id(temper), increment.get()).encode()
            }
            Self::PushPromise { stream, promised, fields } => {
                let payload = [&promised.id(temper).to_be_bytes()[..], &fields.block(temper)].concat();
                Frame::new(wire::PUSH_PROMISE, wire::END_HEADERS, stream.id(temper), payload).encode()
            }
            Self::Ping { ack, own, count } => {
                // h2 marks the PINGs of its user with this payload.
                let payload = if *own { [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4] } else { [7; 8] };
                Frame::new(wire::PING, if *ack { wire::ACK } else { 0 }, 0, payload).encode().repeat((*count).into())
            }
            Self::Frame { kind, flags, stream, payload } => {
                Frame::new(*kind, *flags, stream.id(temper), payload.clone()).encode()
            }
            Self::Misframed { length, kind, flags, stream, payload } => {
                let mut bytes = Frame::new(*kind, *flags, stream.id(temper), payload.clone()).encode();
                bytes[1..3].copy_from_slice(&length.to_be_bytes());
                bytes
            }
            Self::Garbage(bytes) => bytes.clone(),
            Self::Pause { .. } => Vec::new(),
        }
    }
}

impl Story {
    /// Plays on each connection that comes.
    async fn play(&self, mut connections: mpsc::UnboundedReceiver<DuplexStream>) {
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(self.play_once(&mut connections).await);
        }
        std::future::pending().await
    }

    async fn play_once(&self, connections: &mut mpsc::UnboundedReceiver<DuplexStream>) -> Option<Peer> {
        let mut peer = Peer::ready(connections, &[]).await;
        let stream = peer.request().await;
        if self.temper == Temper::Eager {
            peer.send(Frame::head(stream)).await;
        }
        let mut left = self.cut.map_or(usize::MAX, usize::from);
        let mut together = Vec::new();
        for step in &self.steps {
            let bytes = step.bytes(self.temper);
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            if self.at_once {
                together.extend(bytes);
            } else {
                peer.say(bytes).await;
            }
            if let Step::Pause { tenths } = step {
                let pause = Duration::from_millis(100) * u32::from(tenths % 30);
                let _ = timeout(pause, self.listen(&mut peer)).await;
            }
        }
        peer.say(&together).await;
        if left == 0 {
            return None;
        }
        self.listen(&mut peer).await;
        Some(peer)
    }

    /// Takes what comes until the client closes.
    async fn listen(&self, peer: &mut Peer) {
        while let Some(frame) = peer.next().await {
            if frame.kind == wire::PING && !frame.has(wire::ACK) && self.answers_pings {
                peer.send(Frame { flags: wire::ACK, ..frame }).await;
            }
        }
    }
}

thread_local! {
    /// A panic in a task is the task's own affair otherwise.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            report(panic);
        }));
    });
}

fn with_deadline(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("grpc-timeout", encode_timeout(DEADLINE));
    request
}

/// A stream of messages that goes on for ever: one every 300 ms.
fn endless() -> Body {
    let messages = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Some((Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(MESSAGE))), ()))
    });
    Body::new(StreamBody::new(messages))
}

async fn survive(story: &Story) {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let hostile = net.listen(&address(1));
    let requests = [
        request(GET),
        request(CREATE),
        request(CREATE).map(|_| endless()),
        Request::get(GET).body(Body::empty()).unwrap(),
    ];
    let calls = futures_util::future::join_all(requests.map(|request| async {
        let begun = clock::now();
        let outcome = async { finish(send(&rig.channel, with_deadline(request)).await?).await }.await;
        let took = clock::now() - begun;
        assert!(took <= DEADLINE + Duration::from_millis(2), "{took:?}: {outcome:?}");
    }));
    tokio::select! {
        _ = calls => {}
        () = story.play(hostile) => {}
    }
    eventually(|| rig.handles()[&1].in_flight() == 0).await;

    let sound = Server::start(&net, 1, ok);
    eventually(|| sound.connections() == 1 && rig.handles()[&1].state() == ConnectivityState::Ready).await;
    call(&rig.channel, GET).await.unwrap();
    assert_eq!(rig.handles()[&1].in_flight(), 0);
    let panics = PANICS.take();
    assert!(panics.is_empty(), "{panics:?}");
}

#[test]
fn a_hostile_server_breaks_nothing() {
    bolero::check!().with_type::<Story>().with_iterations(STORIES).with_test_time(TEST_TIME).for_each(|story| {
        note_panics();
        PANICS.take();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(survive(story));
    });
}

#[test]
fn any_bytes_in_a_timeout_header_are_read_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(20_000).for_each(|bytes| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        if let Some(timeout) = decode_timeout(&value) {
            assert!(decode_timeout(&encode_timeout(timeout)).unwrap() >= timeout.min(DEADLINE));
        }
    });
}
