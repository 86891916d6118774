//! etcd, as it is used as a registry: a lease for each instance, its record under that lease, and a watch on a prefix.

use bytes::Bytes;
use http::uri::PathAndQuery;
use mesh_api::etcd::etcdserverpb as pb;
use mesh_api::registry::v1::RegisterRequest;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use prost::{DecodeError, Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::as_it_is;
use super::side::{Beats, Read, Side, Watch};
use crate::registries::payload::{Instance, Service, TTL_SECONDS, change_of};

#[derive(Clone)]
pub(super) struct Etcd(Channel);

impl Etcd {
    async fn put(&self, instance: Instance, lease: i64, change: u32) -> Result<(), Status> {
        let request = pb::PutRequest {
            key: instance.key().into_bytes().into(),
            value: instance.record(change).into(),
            lease,
            ..Default::default()
        };
        KvClient::new(self.0.clone()).put(request).await.map(drop)
    }
}

impl Side for Etcd {
    type Lease = i64;
    type Beats = EtcdBeats;
    type Watch = EtcdWatch;

    fn over(channel: Channel) -> Self {
        Self(channel)
    }

    async fn register(&self, instance: Instance) -> Result<i64, Status> {
        let request = pb::LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
        let granted = LeaseClient::new(self.0.clone()).lease_grant(request).await?.into_inner();
        self.put(instance, granted.id, 0).await?;
        Ok(granted.id)
    }

    async fn is_complete(&self, _service: Service) -> Result<bool, Status> {
        Ok(true)
    }

    async fn change(&self, instance: Instance, lease: &i64, change: u32) -> Result<(), Status> {
        self.put(instance, *lease, change).await
    }

    async fn beats(&self, first: &i64) -> Result<EtcdBeats, Status> {
        let (asks, requests) = mpsc::channel(1);
        asks.try_send(pb::LeaseKeepAliveRequest { id: *first }).map_err(super::closed)?;
        let mut client = LeaseClient::new(self.0.clone());
        let answers = client.lease_keep_alive(ReceiverStream::new(requests)).await?.into_inner();
        let mut beats = EtcdBeats { asks, answers };
        beats.answer().await?;
        Ok(beats)
    }

    async fn resolve(&self, service: Service, read: Read) -> Result<Bytes, Status> {
        const PATH: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let request = pb::RangeRequest {
            key: service.prefix().into_bytes().into(),
            range_end: service.prefix_end().into_bytes().into(),
            serializable: read == Read::Local,
            ..Default::default()
        };
        as_it_is::call(&self.0, PATH, request).await
    }

    fn instances(answer: Bytes) -> Result<usize, DecodeError> {
        pb::RangeResponse::decode(answer).map(|answer| answer.kvs.len())
    }

    async fn watch(&self, service: Service) -> Result<EtcdWatch, Status> {
        let (asks, requests) = mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: service.prefix().into_bytes().into(),
            range_end: service.prefix_end().into_bytes().into(),
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        asks.try_send(request).map_err(super::closed)?;
        let mut client = WatchClient::new(self.0.clone());
        let mut answers = client.watch(ReceiverStream::new(requests)).await?.into_inner();
        let created = answers.message().await?.ok_or_else(super::ended)?.created;
        if created {
            Ok(EtcdWatch { answers, _asks: asks })
        } else {
            Err(Status::data_loss("a watch that does not begin with its creation"))
        }
    }
}

pub(super) struct EtcdBeats {
    asks: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl EtcdBeats {
    async fn answer(&mut self) -> Result<(), Status> {
        let answer = self.answers.message().await?.ok_or_else(super::ended)?;
        // No TTL: there is no such lease.
        if answer.ttl > 0 { Ok(()) } else { Err(Status::data_loss("a lease was not renewed")) }
    }
}

impl Beats for EtcdBeats {
    type Lease = i64;

    async fn beat(&mut self, lease: &i64) -> Result<(), Status> {
        self.asks.send(pb::LeaseKeepAliveRequest { id: *lease }).await.map_err(super::closed)?;
        self.answer().await
    }
}

pub(super) struct EtcdWatch {
    answers: Streaming<pb::WatchResponse>,
    /// The stream is open for as long as this is held.
    _asks: mpsc::Sender<pb::WatchRequest>,
}

impl Watch for EtcdWatch {
    async fn next(&mut self, changes: &mut Vec<u32>) -> Result<(), Status> {
        let answer = self.answers.message().await?.ok_or_else(super::ended)?;
        if answer.canceled {
            return Err(Status::data_loss(answer.cancel_reason));
        }
        for event in answer.events {
            let record = event.kv.map(|kv| RegisterRequest::decode(&*kv.value));
            let record = record.ok_or_else(|| Status::data_loss("an event without a key"))?;
            let record = record.map_err(|error| Status::data_loss(error.to_string()))?;
            changes.push(change_of(record.weight));
        }
        Ok(())
    }
}
