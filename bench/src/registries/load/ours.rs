//! Our registry.

use bytes::Bytes;
use http::uri::PathAndQuery;
use mesh_api::registry::v1 as pb;
use pb::registry_service_client::RegistryServiceClient;
use pb::watch_response::Event;
use prost::{DecodeError, Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::as_it_is;
use super::side::{Beats, Read, Side, Watch};
use crate::registries::payload::{Instance, Service, change_of};

#[derive(Clone)]
pub(super) struct Ours {
    client: RegistryServiceClient<Channel>,
    channel: Channel,
}

/// What is beaten for.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: Bytes,
    pub(super) incarnation: u64,
}

impl Lease {
    /// A heartbeat.
    pub(super) fn beat(&self) -> pb::Beat {
        pb::Beat { lease_id: self.id.clone(), incarnation: self.incarnation, ..Default::default() }
    }
}

impl Side for Ours {
    type Lease = Lease;
    type Beats = OurBeats;
    type Watch = OurWatch;

    fn over(channel: Channel) -> Self {
        Self { client: RegistryServiceClient::new(channel.clone()), channel }
    }

    async fn register(&self, instance: Instance) -> Result<Lease, Status> {
        let granted = self.client.clone().register(instance.registration(0)).await?.into_inner();
        Ok(Lease { id: granted.lease_id, incarnation: granted.incarnation })
    }

    async fn is_complete(&self, service: Service) -> Result<bool, Status> {
        let request = pb::ResolveRequest { service: service.name(), ..Default::default() };
        Ok(self.client.clone().resolve(request).await?.into_inner().complete)
    }

    async fn change(&self, instance: Instance, _lease: &Lease, change: u32) -> Result<(), Status> {
        self.client.clone().register(instance.registration(change)).await.map(drop)
    }

    async fn beats(&self, first: &Lease) -> Result<OurBeats, Status> {
        let (asks, requests) = mpsc::channel(1);
        asks.try_send(pb::KeepAliveRequest { beats: vec![first.beat()] }).map_err(super::closed)?;
        let answers = self.client.clone().keep_alive(ReceiverStream::new(requests)).await?.into_inner();
        let mut beats = OurBeats { asks, answers };
        beats.answer().await?;
        Ok(beats)
    }

    async fn resolve(&self, service: Service, _read: Read) -> Result<Bytes, Status> {
        const PATH: PathAndQuery = PathAndQuery::from_static("/mesh.registry.v1.RegistryService/Resolve");
        let request = pb::ResolveRequest { service: service.name(), ..Default::default() };
        as_it_is::call(&self.channel, PATH, request).await
    }

    fn instances(answer: Bytes) -> Result<usize, DecodeError> {
        pb::ResolveResponse::decode(answer).map(|answer| answer.instances.len())
    }

    async fn watch(&self, service: Service) -> Result<OurWatch, Status> {
        let (asks, requests) = mpsc::channel(1);
        let subscription = pb::Subscription { service: service.name(), ..Default::default() };
        let request = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
        asks.try_send(request).map_err(super::closed)?;
        let mut answers = self.client.clone().watch(ReceiverStream::new(requests)).await?.into_inner();
        loop {
            let answer = answers.message().await?.ok_or_else(super::ended)?;
            match answer.event {
                // A store that has just begun is WARMING, and its end is told by another whole snapshot.
                Some(Event::Snapshot(chunk)) if chunk.last && answer.complete => {
                    return Ok(OurWatch { answers, _asks: asks });
                }
                Some(Event::Error(error)) => return Err(Status::unknown(error.message)),
                _ => {}
            }
        }
    }
}

pub(super) struct OurBeats {
    asks: mpsc::Sender<pb::KeepAliveRequest>,
    answers: Streaming<pb::KeepAliveResponse>,
}

impl OurBeats {
    async fn answer(&mut self) -> Result<(), Status> {
        let answer = self.answers.message().await?.ok_or_else(super::ended)?;
        let renewed = |result: &pb::BeatResult| result.outcome() == pb::BeatOutcome::Renewed;
        if answer.results.len() == 1 && answer.results.iter().all(renewed) {
            Ok(())
        } else {
            Err(Status::data_loss("a lease was not renewed"))
        }
    }
}

impl Beats for OurBeats {
    type Lease = Lease;

    async fn beat(&mut self, lease: &Lease) -> Result<(), Status> {
        self.asks.send(pb::KeepAliveRequest { beats: vec![lease.beat()] }).await.map_err(super::closed)?;
        self.answer().await
    }
}

pub(super) struct OurWatch {
    answers: Streaming<pb::WatchResponse>,
    /// The stream is open for as long as this is held.
    _asks: mpsc::Sender<pb::WatchRequest>,
}

impl Watch for OurWatch {
    async fn next(&mut self, changes: &mut Vec<u32>) -> Result<(), Status> {
        match self.answers.message().await?.ok_or_else(super::ended)?.event {
            Some(Event::Delta(delta)) => {
                changes.extend(delta.upserts.iter().map(|instance| change_of(instance.weight)));
                Ok(())
            }
            Some(Event::Snapshot(_)) => Err(Status::data_loss("a snapshot where a change was due")),
            Some(Event::Error(error)) => Err(Status::unknown(error.message)),
            Some(Event::SoftState(_) | Event::Bookmark(_)) | None => Ok(()),
        }
    }
}
