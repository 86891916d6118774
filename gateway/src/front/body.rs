//! The body of a request, whole: as large as it may be, and in the time that it may take (S11).

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{timeout, timeout_at};

use super::fault::Fault;
use super::limits::Limits;
use mesh_runtime::clock;

/// Reads it all. What announces itself as too large is not read at all.
pub(super) async fn read<B>(headers: &HeaderMap, body: B, limits: &Limits) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let max = limits.body_bytes;
    if announced(headers, &body).is_some_and(|bytes| bytes > max as u64) {
        return Err(Fault::BodyTooLarge { max });
    }
    let mut body = pin!(body);
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

fn announced(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    said.or_else(|| body.size_hint().exact())
}
