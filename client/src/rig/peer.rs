//! A server that speaks HTTP/2 frame by frame: for what a well-behaved one never says.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// What begins every client's connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types, flags and settings (RFC 9113 sections 6 and 6.5.2).
pub(crate) mod wire {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;

    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;

    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// The head of an answer with messages to come.
    pub(crate) fn head(stream: u32) -> Self {
        let block = [&[0x88][..], &field("content-type", "application/grpc")].concat();
        Self::new(wire::HEADERS, wire::END_HEADERS, stream, block)
    }

    /// The trailers of an answer.
    pub(crate) fn trailers(stream: u32, grpc_status: &str) -> Self {
        let flags = wire::END_HEADERS | wire::END_STREAM;
        Self::new(wire::HEADERS, flags, stream, field("grpc-status", grpc_status))
    }

    pub(crate) fn data(stream: u32, flags: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self::new(wire::DATA, flags, stream, payload)
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(wire::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub(crate) fn settings(settings: &[(u16, u32)]) -> Self {
        let bytes = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        Self::new(wire::SETTINGS, 0, 0, settings.iter().flat_map(bytes).collect::<Vec<u8>>())
    }

    pub(crate) fn go_away(last_stream: u32, code: u32, debug: &[u8]) -> Self {
        let payload = [&last_stream.to_be_bytes()[..], &code.to_be_bytes(), debug].concat();
        Self::new(wire::GOAWAY, 0, 0, payload)
    }

    pub(crate) fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(wire::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number that a RST_STREAM or a WINDOW_UPDATE consists of.
    pub(crate) fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = u32::try_from(self.payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// A header field as a literal that is not indexed (RFC 7541 section 6.2.2); both parts shorter than 127 bytes.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], part(name), part(value)].concat()
}

/// The server's end of one connection. Dropping it closes the connection.
pub(crate) struct Peer {
    io: DuplexStream,
}

impl Peer {
    /// Takes the next connection as far as the client's preface.
    pub(crate) async fn accept(connections: &mut mpsc::UnboundedReceiver<DuplexStream>) -> Self {
        let mut io = connections.recv().await.unwrap();
        let mut preface = [0; PREFACE.len()];
        io.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        Self { io }
    }

    /// Takes the next connection and makes it READY.
    pub(crate) async fn ready(
        connections: &mut mpsc::UnboundedReceiver<DuplexStream>,
        settings: &[(u16, u32)],
    ) -> Self {
        let mut peer = Self::accept(connections).await;
        peer.send(Frame::settings(settings)).await;
        // What the client allows holds from here.
        peer.send(Frame::new(wire::SETTINGS, wire::ACK, 0, [])).await;
        peer.pong().await;
        peer
    }

    /// Waits for a PING and answers it.
    pub(crate) async fn pong(&mut self) {
        let ping = self.until(wire::PING).await;
        self.send(Frame { flags: wire::ACK, ..ping }).await;
    }

    pub(crate) async fn send(&mut self, frame: Frame) {
        self.say(&frame.encode()).await;
    }

    /// Sends bytes, frames or not. It does not matter whether anybody takes them.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    /// The next frame; `None` when the client has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        self.io.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this type, which must come; others are passed over.
    pub(crate) async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The stream of the next request.
    pub(crate) async fn request(&mut self) -> u32 {
        self.until(wire::HEADERS).await.stream
    }

    /// Answers a call with one message and OK.
    pub(crate) async fn answer(&mut self, stream: u32) {
        self.send(Frame::head(stream)).await;
        self.send(Frame::data(stream, 0, super::MESSAGE)).await;
        self.send(Frame::trailers(stream, "0")).await;
    }
}
