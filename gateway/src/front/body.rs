//! The body of a request, whole: as large as it may be, and in the time that it may take (S11).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_runtime::clock;
use tokio::time::{timeout, timeout_at};

use super::fault::Fault;
use super::limits::Limits;

/// How much is read of a body that nobody wants, in bytes, so that its client gets to read why.
const UNWANTED_MAX: usize = 8 * 1024 * 1024;
/// And for how long.
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// Reads it all. What announces itself as too large is not read at all.
pub(super) async fn read(headers: &HeaderMap, body: &mut Incoming, limits: &Limits) -> Result<Bytes, Fault> {
    let max = limits.body_bytes;
    if announced(headers, body).is_some_and(|bytes| bytes > max as u64) {
        return Err(Fault::BodyTooLarge { max });
    }
    let end = clock::now() + limits.body_time;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let next = match timeout_at(end, timeout(limits.body_pause, body.frame())).await {
            Ok(Ok(next)) => next,
            _ => return Err(Fault::BodySlow),
        };
        let Some(frame) = next else { break };
        let frame = frame.map_err(|error| Fault::BodyBroken(error.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        if first.len() + rest.len() + piece.len() > max {
            return Err(Fault::BodyTooLarge { max });
        }
        // Most bodies are one piece, and are not copied.
        if first.is_empty() && rest.is_empty() {
            first = piece;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&piece);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Lets go of a body whose request was refused before all of it had come.
///
/// Over HTTP/1 the connection would be closed while its client still sends, and what it is sent back then is a reset, which
/// takes our answer with it. So some more is read and thrown away, beside the answer; a client that waits for "100 Continue" has
/// not begun and will not. HTTP/2 has a word for it.
pub(super) fn let_go(parts: &Parts, mut body: Incoming) {
    if parts.version >= Version::HTTP_2 || body.is_end_stream() || parts.headers.contains_key(EXPECT) {
        return;
    }
    // Ends by itself; there is one at most for each connection.
    tokio::spawn(timeout(UNWANTED_TIME, async move {
        let mut left = UNWANTED_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let piece = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(piece) else { return };
            left = less;
        }
    }));
}

fn announced(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    said.or_else(|| body.size_hint().exact())
}
