//! The floor: one HTTP/2 connection through the h2 crate and nothing else. No task, box or timer of its own; the future has
//! a name; the request's end goes with its only DATA frame. It sends the headers that the mesh sends, `grpc-timeout`
//! included, and does nothing about that deadline. Whatever a client adds to this is its own.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::{Body, Frame};
use tokio::net::TcpStream;
use tower::Service;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("grpc-rust-bench/", env!("CARGO_PKG_VERSION")));
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

// The settings of the mesh's connections, by the names that they have there, in client/src/conn/dial.rs.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
const SMALL_FRAMES_BYTES_MAX: usize = 1 << 30;
const RESETS_KNOWN_MAX: usize = 4_096;
const RESETS_KNOWN_FOR: Duration = Duration::from_secs(3);
const VIOLATIONS_MAX: usize = 65_536;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
const STREAMS_BEFORE_SETTINGS: usize = 100;

#[derive(Clone)]
pub(super) struct RawH2 {
    sender: SendRequest<Bytes>,
    authority: Authority,
}

impl RawH2 {
    pub(super) async fn connect(servers: &[SocketAddr]) -> Result<Self, String> {
        let server = servers.first().ok_or("no server")?;
        let io = TcpStream::connect(server).await.map_err(|error| error.to_string())?;
        io.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .data_frame_budget(SMALL_FRAMES_BYTES_MAX)
            .max_concurrent_reset_streams(RESETS_KNOWN_MAX)
            .reset_stream_duration(RESETS_KNOWN_FOR)
            .max_local_error_reset_streams(Some(VIOLATIONS_MAX))
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: Authority::from_static("echo") })
    }

    fn send(&mut self, request: Request<tonic::body::Body>) -> Result<ResponseFuture, h2::Error> {
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_2;
        parts.headers.insert(TE, TRAILERS);
        parts.headers.insert(USER_AGENT, AGENT);
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        parts.uri = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        let (answer, stream) = self.sender.send_request(Request::from_parts(parts, ()), false)?;
        upload(body, stream)?;
        Ok(answer)
    }
}

/// Sends a body that is there already, as a unary call's is: one frame, and a look at whether another one follows.
fn upload(body: tonic::body::Body, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut body = pin!(body);
    let mut cx = Context::from_waker(Waker::noop());
    let mut next = || match body.as_mut().poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    };
    let mut held = next();
    while let Some(data) = held {
        held = next();
        stream.send_data(data, held.is_none())?;
    }
    Ok(())
}

impl Service<Request<tonic::body::Body>> for RawH2 {
    type Response = Response<Answer>;
    type Error = h2::Error;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Call {
        match self.send(request) {
            Ok(answer) => Call::Sent(answer),
            Err(error) => Call::Failed(Some(error)),
        }
    }
}

/// A call until the head of its answer.
pub(super) enum Call {
    Sent(ResponseFuture),
    Failed(Option<h2::Error>),
}

impl Future for Call {
    type Output = Result<Response<Answer>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Sent(answer) => Pin::new(answer).poll(cx).map_ok(|response| response.map(Answer)),
            Self::Failed(error) => Poll::Ready(Err(error.take().expect("polled once"))),
        }
    }
}

/// The answer's body.
pub(super) struct Answer(RecvStream);

impl Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.0.poll_data(cx)) {
            let data = data?;
            let _ = self.0.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(ready!(self.0.poll_trailers(cx))?.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The lines that set something on an h2 builder, and those of the constants that they name.
    fn settings(source: &str) -> BTreeSet<&str> {
        let lines = source.lines().map(str::trim);
        let set = lines.clone().skip_while(|line| !line.ends_with("Builder::new()")).skip(1);
        let set: BTreeSet<&str> = set.take_while(|line| !line.starts_with(".handshake")).collect();
        let constants =
            lines.filter_map(|line| line.strip_prefix("pub(super) ").unwrap_or(line).strip_prefix("const "));
        let named = constants.filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            set.iter().any(|set| set.contains(&format!("({name})")) || set.contains(&format!("({name}))")))
        });
        named.chain(set.iter().copied()).collect()
    }

    #[test]
    fn the_floor_has_the_settings_of_the_meshs_connections() {
        let mesh = settings(include_str!("../../../client/src/conn/dial.rs"));
        assert_eq!(settings(include_str!("raw_h2.rs")), mesh);
        // Ten are set, nine of them by a constant: what is compared was found.
        assert_eq!(mesh.len(), 19, "{mesh:#?}");
    }
}
