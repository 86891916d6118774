//! A thousand renewals a message, as fast as they are taken. Messages are encoded once and sent again and again, and an
//! answer is read once: the next one to the same message must be the same bytes. So the generator costs little beside what
//! is measured.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::uri::PathAndQuery;
use mesh_api::registry::v1 as pb;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::as_it_is::AsItIs;
use super::figures::{Figures, Times};
use super::ours::Lease;
use crate::clock;
use crate::drive::Span;

/// Leases in one message: the most that a message may have.
pub(crate) const BATCH: usize = 1_000;
const PATH: PathAndQuery = PathAndQuery::from_static("/mesh.registry.v1.RegistryService/KeepAlive");

/// Renews all leases over and over, a stream on each of the channels. The streams come back, still open.
pub(super) async fn renew(
    channels: &[Channel],
    leases: &[Lease],
    warm_up: Duration,
    length: Duration,
    pid: u32,
) -> Result<(Figures, Vec<Stream>), Status> {
    let mut shares: Vec<Vec<Bytes>> = vec![Vec::new(); channels.len()];
    for (index, batch) in leases.chunks_exact(BATCH).enumerate() {
        let request = pb::KeepAliveRequest { beats: batch.iter().map(Lease::beat).collect() };
        shares[index % channels.len()].push(request.encode_to_vec().into());
    }
    let streams = channels.iter().zip(shares).filter(|(_, share)| !share.is_empty());
    let mut streams = try_join_all(streams.map(|(channel, share)| Stream::open(channel.clone(), share))).await?;
    for (length, measured) in [(warm_up, false), (length, true)] {
        let pids = [pid];
        let span = Span::begin(&pids);
        let end = span.at() + length;
        let times = try_join_all(streams.iter_mut().map(|stream| stream.renew_until(end))).await?;
        let spent = span.spent();
        if measured {
            let mut all = Times::new();
            times.into_iter().flatten().for_each(|time| all.took(time));
            return Ok((all.over(all.count() * BATCH as u64, 0, &spent), streams));
        }
    }
    Err(Status::internal("nothing was measured"))
}

/// One stream with messages of its own.
pub(super) struct Stream {
    asks: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
    messages: Vec<Bytes>,
    /// What was answered to each of them.
    expected: Vec<Bytes>,
}

impl Stream {
    async fn open(channel: Channel, messages: Vec<Bytes>) -> Result<Self, Status> {
        let (asks, requests) = mpsc::channel(1);
        asks.try_send(messages[0].clone()).map_err(super::closed)?;
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answers = client.streaming(Request::new(ReceiverStream::new(requests)), PATH, AsItIs).await?.into_inner();
        let mut stream = Self { asks, answers, expected: Vec::new(), messages };
        let mut answer = stream.answer().await?;
        for index in 0..stream.messages.len() {
            if index > 0 {
                answer = stream.ask(index).await?;
            }
            let results =
                pb::KeepAliveResponse::decode(&*answer).map_err(|error| Status::data_loss(error.to_string()))?;
            let renewed = |result: &pb::BeatResult| result.outcome() == pb::BeatOutcome::Renewed;
            if results.results.len() != BATCH || !results.results.iter().all(renewed) {
                return Err(Status::data_loss("a lease was not renewed"));
            }
            stream.expected.push(answer.clone());
        }
        Ok(stream)
    }

    async fn answer(&mut self) -> Result<Bytes, Status> {
        self.answers.message().await?.ok_or_else(super::ended)
    }

    async fn ask(&mut self, index: usize) -> Result<Bytes, Status> {
        self.asks.send(self.messages[index].clone()).await.map_err(super::closed)?;
        self.answer().await
    }

    /// Message after message, until the time is up; how long each took.
    async fn renew_until(&mut self, end: std::time::Instant) -> Result<Vec<Duration>, Status> {
        let mut times = Vec::new();
        let mut now = clock::now();
        for index in (0..self.messages.len()).cycle() {
            if now >= end {
                break;
            }
            let start = now;
            if self.ask(index).await? != self.expected[index] {
                return Err(Status::data_loss("a lease was not renewed"));
            }
            now = clock::now();
            times.push(now - start);
        }
        Ok(times)
    }
}
