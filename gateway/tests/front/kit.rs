//! A front behind a pipe, and a client of few words that says exactly what it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gateway::Published;
use gateway::front::{Config, Edge, Front, Limits, TrustedProxies};
use mesh_runtime::{ConnectionError, Ends};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Happened, routes};

/// What a pipe holds. Small, so that an answer that nobody reads stops soon.
const PIPE: usize = 16 * 1024;

/// Where the clients of a test are.
pub(crate) const PEER: &str = "10.1.2.3:4567";

/// A gateway without its ports.
pub(crate) struct Rig {
    pub(crate) front: Front,
    pub(crate) published: Arc<ArcSwap<Published>>,
    pub(crate) leaving: CancellationToken,
    pub(crate) goaway: CancellationToken,
    pub(crate) ends_streams: CancellationToken,
    backend: Option<Backend>,
}

/// What a front has where a test does not say otherwise: default limits, and nobody is asked for a token.
pub(crate) fn config() -> Config {
    Config {
        limits: Limits::default(),
        edge: Edge::new(None, |_| None),
        identity: None,
        proxies: TrustedProxies::default(),
        origins: Vec::new(),
        ends_streams: CancellationToken::new(),
    }
}

impl Rig {
    /// A gateway with a service behind it.
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let backend = Backend::start().await;
        Self { backend: Some(backend), ..Self::of(config, Published::default()) }.publish_backend()
    }

    /// A gateway that knows of a service and cannot reach it: for what ends before a call, under a clock that jumps.
    pub(crate) fn deaf(config: Config) -> Self {
        Self::of(config, routes())
    }

    fn of(config: Config, published: Published) -> Self {
        let ends_streams = config.ends_streams.clone();
        let published = Arc::new(ArcSwap::from_pointee(published));
        let front = Front::new(config, Arc::clone(&published));
        let (leaving, goaway) = (CancellationToken::new(), CancellationToken::new());
        Self { front, published, leaving, goaway, ends_streams, backend: None }
    }

    fn publish_backend(self) -> Self {
        let backend = self.backend.as_ref().unwrap();
        self.published.store(Arc::new(backend.published()));
        self
    }

    pub(crate) fn happened(&self) -> &Happened {
        &self.backend.as_ref().unwrap().happened
    }

    /// A connection, and the task that serves it.
    pub(crate) fn pipe(&self) -> (DuplexStream, JoinHandle<Result<(), ConnectionError>>) {
        let (client, io) = tokio::io::duplex(PIPE);
        let (front, leaving, goaway) = (self.front.clone(), self.leaving.clone(), self.goaway.clone());
        let serving = tokio::spawn(async move {
            let peer: SocketAddr = PEER.parse().unwrap();
            let ends = Ends { goaway: &goaway, age: None };
            front.serve_connection(io, peer, &mesh_runtime::Limits::default(), leaving, ends, || {}).await
        });
        (client, serving)
    }

    pub(crate) fn client(&self) -> Client {
        Client { io: self.pipe().0, heard: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.client().ask(method, target, headers, body).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "").await
    }

    /// The metrics as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::default();
        self.front.register_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Client {
    pub(crate) io: DuplexStream,
    heard: Vec<u8>,
}

/// An answer with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.io.write_all(text.as_ref()).await.unwrap();
    }

    /// A request, with a `Content-Length` where it has a body.
    pub(crate) async fn begin(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: gateway\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.say(format!("{request}\r\n{body}")).await;
    }

    pub(crate) async fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.begin(method, target, headers, body).await;
        self.answer(method == "HEAD").await
    }

    /// The next answer. One to HEAD has no body, whatever it says.
    pub(crate) async fn answer(&mut self, is_head: bool) -> Answer {
        let head = self.head().await;
        let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: String::new() };
        if is_head || matches!(answer.status, 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                answer.body.push_str(&chunk);
            }
        } else {
            let length = answer.header("content-length").unwrap().parse().unwrap();
            answer.body = self.take(length).await;
        }
        answer
    }

    /// The head of an answer.
    pub(crate) async fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    /// The next piece of a body that comes in pieces.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let line = self.until(b"\r\n").await;
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let chunk = self.take(length).await;
        assert_eq!(self.take(2).await, "\r\n");
        (length > 0).then_some(chunk)
    }

    /// Whatever else comes until the connection is closed.
    pub(crate) async fn rest(self) -> String {
        String::from_utf8(self.rest_bytes().await).unwrap()
    }

    pub(crate) async fn rest_bytes(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.heard);
        let _ = self.io.read_to_end(&mut rest).await;
        rest
    }

    async fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.heard.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len()).await;
            }
            self.hear().await;
        }
    }

    async fn take(&mut self, length: usize) -> String {
        while self.heard.len() < length {
            self.hear().await;
        }
        String::from_utf8(self.heard.drain(..length).collect()).unwrap()
    }

    async fn hear(&mut self) {
        let read = self.io.read_buf(&mut self.heard).await.unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.heard));
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// `ErrorInfo.reason` of a failure, once it was looked at: a `google.rpc.Status` whose code fits.
    pub(crate) fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let status = self.json();
        assert!(status["code"].as_u64().is_some_and(|code| code > 0), "{status}");
        assert!(status["message"].is_string(), "{status}");
        let details = status["details"].as_array().unwrap();
        let info = details.iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
        info.unwrap_or_else(|| panic!("{status}"))["reason"].as_str().unwrap().to_owned()
    }
}
