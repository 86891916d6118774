//! The HTTP port: metrics and probes, and whatever routes the program adds.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::hooks::Standing;
use crate::lifecycle::{Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::server::Unstuck;

/// Most connections of the HTTP port: a scraper, probes and some dashboards.
pub(crate) const CONNECTIONS_MAX: u32 = 512;
/// Most of them of one address: a page with its reloads, or every probe of a host, and an eighth of all.
pub(crate) const CONNECTIONS_PER_PEER_MAX: u32 = 64;
/// Longest time until the headers of the next request are there (S11).
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Longest time for which a peer may take nothing of its answer.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// What is buffered of one request's head, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What the probes look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registration: Arc<Standing>,
}

impl Admin {
    /// The shell's routes and the program's.
    pub(crate) fn routes(self, program: Option<Router>) -> Router {
        let own = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        match program {
            Some(program) => own.merge(program),
            None => own,
        }
    }
}

/// Serves one HTTP/1.1 connection until it ends.
pub(crate) async fn serve_connection<Io>(io: Io, routes: Router)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Unstuck::new(io, WRITE_MAX)), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "http connection ended");
    }
}

/// The process turns. It depends on nothing, so that nobody restarts a process for what a restart does not mend.
async fn livez() -> &'static str {
    "ok\n"
}

/// The process takes calls: bound, not draining, and known to the registry or done waiting for it.
async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let stage = admin.lifecycle.stage();
    let (code, word) = match stage {
        Stage::Ready => (StatusCode::OK, "ok"),
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Stage::Draining | Stage::Ending => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    let mut text = String::new();
    if verbose {
        let mark = |good| if good { '+' } else { '-' };
        let (state, detail) = (admin.registration)();
        // Registration is told and not judged: a registry outage never makes a process unready.
        let _ = writeln!(text, "[+]listening ok");
        let _ = writeln!(text, "[{}]serving {word}", mark(stage == Stage::Ready));
        let _ = writeln!(text, "[ ]registration {state}: {detail}");
    }
    let _ = writeln!(text, "{word}");
    (code, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_asks_ends_after_ten_seconds_and_so_does_an_idle_one() {
        for said in [&b""[..], b"GET / HTTP/1.1\r\nhost:", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let (mut client, io) = tokio::io::duplex(4096);
            let at = clock::now();
            let serving = tokio::spawn(serve_connection(io, Router::new()));
            client.write_all(said).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            serving.await.unwrap();
            assert_eq!((clock::now() - at).as_secs(), 10, "{said:?}");
        }
    }
}
