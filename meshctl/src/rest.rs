//! A client of gateways over HTTP/1.1, as a load balancer in front of them is one: it keeps connections open, takes the
//! gateways in turn, and goes on to the next where one takes no connection. A request of which nothing was sent is sent
//! elsewhere; any other failure is its caller's to see.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::bearer::Bearer;

/// Connections kept while nobody uses them.
const IDLE_MAX: usize = 64;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How often a request of which nothing was sent is sent again: every connection that is kept may have been closed meanwhile.
const UNSENT_MAX: usize = 2 * IDLE_MAX;

type Sender = SendRequest<Full<Bytes>>;

/// Calls over REST. Shared by reference.
#[derive(Debug)]
pub struct RestClient {
    gateways: Vec<SocketAddr>,
    token: Option<Bearer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose turn it is.
    turn: usize,
    idle: Vec<(SocketAddr, Sender)>,
}

/// What came back.
#[derive(Debug)]
pub struct RestAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum RestError {
    /// No gateway takes a connection.
    #[error("no gateway takes a connection: {0}")]
    Nobody(String),
    /// The connection broke under the request.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The request is none.
    #[error("{0}")]
    Request(#[from] http::Error),
}

impl RestAnswer {
    /// Its body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl RestClient {
    /// A client of these gateways, which shows this token with every request.
    #[must_use]
    pub fn new(gateways: Vec<SocketAddr>, token: Option<Bearer>) -> Self {
        Self { gateways, token, state: Mutex::default() }
    }

    /// Sends one request, and reads its answer to the end.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RestAnswer, RestError> {
        let mut request = Request::builder().method(method).uri(path).body(Full::default())?;
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Full::new(body.to_string().into());
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.header());
        }
        for _ in 0..UNSENT_MAX {
            let (at, mut sender) = self.connection().await?;
            request.headers_mut().insert(HOST, at.to_string().parse().map_err(http::Error::from)?);
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                    let body = body.map_err(|error| RestError::Broken(error.to_string()))?.to_bytes();
                    let stays = parts.headers.get(CONNECTION).is_none_or(|value| value != "close");
                    if stays && sender.ready().await.is_ok() {
                        self.keep(at, sender);
                    }
                    return Ok(RestAnswer { status: parts.status, headers: parts.headers, body });
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(RestError::Broken(error.into_error().to_string())),
                },
            }
        }
        Err(RestError::Nobody("every connection was closed".to_owned()))
    }

    /// A connection that is kept to the gateway whose turn it is, or a new one to the first that takes one.
    async fn connection(&self) -> Result<(SocketAddr, Sender), RestError> {
        let (turn, kept) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.turn = (state.turn + 1) % self.gateways.len().max(1);
            state.idle.retain(|(_, sender)| !sender.is_closed());
            let turn = state.turn;
            let wanted = self.gateways.get(turn);
            let kept = state.idle.iter().rposition(|(at, _)| Some(at) == wanted);
            (turn, kept.map(|kept| state.idle.swap_remove(kept)))
        };
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let mut refused = String::from("there is none");
        for at in self.gateways.iter().cycle().skip(turn).take(self.gateways.len()) {
            match connect(*at).await {
                Ok(sender) => return Ok((*at, sender)),
                Err(error) => refused = format!("{at}: {error}"),
            }
        }
        Err(RestError::Nobody(refused))
    }

    fn keep(&self, at: SocketAddr, sender: Sender) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.idle.len() < IDLE_MAX {
            state.idle.push((at, sender));
        }
    }
}

async fn connect(at: SocketAddr) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender, or with the gateway.
    tokio::spawn(connection);
    Ok(sender)
}
