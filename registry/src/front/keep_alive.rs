//! Heartbeats on a stream: one request at a time in, its answer out, in order.
//!
//! There is no task and no queue: the transport pulls answers, and a request is read when the answer before it is taken.

use futures_util::{Stream, StreamExt, stream};
use mesh_api::registry::v1 as pb;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Place;
use super::grpc::beat;
use super::metrics::Metrics;
use crate::catalog::StreamId;
use crate::engine::{Closed, Engine};

/// Answers every request of a heartbeat stream. It ends when the requests do, with the first request that is none, and
/// when the link's `ends` is cancelled.
pub(super) fn answers<R>(link: Link, requests: R) -> impl Stream<Item = Result<pb::KeepAliveResponse, Status>> + Send
where
    R: Stream<Item = Result<pb::KeepAliveRequest, Status>> + Send + Unpin,
{
    stream::unfold(Some((link, requests)), |state| async {
        let (mut link, mut requests) = state?;
        let request = tokio::select! {
            biased;
            // The link sees the token too, and closes as ours.
            () = link.ends.cancelled() => return None,
            request = requests.next() => request?,
        };
        let answer = match request {
            Ok(request) => beat(&link.engine, request.beats, Some(link.stream)).await,
            // The connection broke, or what came is no message: either way the instance is not heard any more.
            Err(status) => return Some((Err(status), None)),
        };
        match answer {
            Ok((results, heartbeat_interval)) => {
                let response = pb::KeepAliveResponse { results, heartbeat_interval };
                Some((Ok(response), Some((link, requests))))
            }
            // Refused, not broken: that says nothing about the instance.
            Err(why) => {
                link.closed = Closed::ByUs;
                Some((Err(link.metrics.refusals.status(why)), None))
            }
        }
    })
}

/// An open stream, as the engine knows it. Dropping it closes it: when the peer is gone the transport drops the answers.
pub(super) struct Link {
    engine: Engine,
    stream: StreamId,
    leaving: CancellationToken,
    ends: CancellationToken,
    closed: Closed,
    metrics: Metrics,
    _place: Place,
}

impl Link {
    pub(super) fn open(
        engine: Engine,
        leaving: CancellationToken,
        ends: CancellationToken,
        metrics: Metrics,
        place: Place,
    ) -> Self {
        metrics.keep_alive_streams.inc();
        let stream = engine.stream_opened();
        Self { engine, stream, leaving, ends, closed: Closed::ByPeer, metrics, _place: place }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A stream that breaks while the registry leaves breaks because it leaves.
        let leaves = self.leaving.is_cancelled() || self.ends.is_cancelled();
        let closed = if leaves { Closed::ByUs } else { self.closed };
        self.engine.stream_closed(self.stream, closed);
        self.metrics.keep_alive_streams.dec();
    }
}
