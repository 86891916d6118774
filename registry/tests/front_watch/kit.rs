//! One watch stream, a registry to open it on, and what is registered there.

use std::time::Duration;

use mesh_api::registry::v1 as pb;
use pb::deregister_request::Target;
use pb::watch_response::Event;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::{Client, Door, Held, lease_of, registration};

/// One watch stream.
pub(crate) struct Watch {
    pub(crate) requests: mpsc::Sender<pb::WatchRequest>,
    pub(crate) responses: Streaming<pb::WatchResponse>,
}

pub(crate) fn subscribe(service: &str, after: Option<pb::Position>) -> pb::WatchRequest {
    let subscription = pb::Subscription { service: service.to_owned(), after, ..pb::Subscription::default() };
    pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() }
}

impl Watch {
    pub(crate) async fn open(client: &mut Client, first: pb::WatchRequest) -> Self {
        let (requests, inbound) = mpsc::channel(8);
        requests.send(first).await.expect("there is room");
        let responses = client.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner();
        Self { requests, responses }
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.expect("open").expect("a message")
    }

    /// The next message that is no bookmark.
    pub(crate) async fn news(&mut self) -> pb::WatchResponse {
        loop {
            let response = self.next().await;
            if !matches!(response.event, Some(Event::Bookmark(_))) {
                return response;
            }
        }
    }

    pub(crate) async fn delta(&mut self) -> pb::Delta {
        match self.news().await.event {
            Some(Event::Delta(delta)) => delta,
            other => panic!("a delta is due, not {other:?}"),
        }
    }

    /// The snapshot and the soft state that a subscription begins with.
    pub(crate) async fn beginning(&mut self) -> Held {
        let mut held = Held::default();
        let snapshot = self.news().await;
        assert!(matches!(snapshot.event, Some(Event::Snapshot(_))), "{snapshot:?}");
        held.apply(snapshot);
        let soft = self.news().await;
        assert!(matches!(soft.event, Some(Event::SoftState(_))), "{soft:?}");
        held.apply(soft);
        held
    }

    /// Nothing but bookmarks comes for so long.
    pub(crate) async fn expect_silence(&mut self, time: Duration) {
        let news = timeout(time, self.news()).await;
        assert!(news.is_err(), "{news:?}");
    }
}

/// A registry whose state is whole: its default TTL has passed.
pub(crate) async fn whole() -> (Door, Client) {
    let door = Door::open().await;
    let mut client = door.client().await;
    sleep(Duration::from_secs(11)).await;
    let all = client.list_services(pb::ListServicesRequest::default()).await.expect("a page");
    assert!(all.into_inner().complete);
    (door, client)
}

pub(crate) async fn deregister(client: &mut Client, granted: &pb::RegisterResponse) {
    let target = Some(Target::Lease(lease_of(granted)));
    client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
}

/// A registration with a TTL that outlasts any test.
pub(crate) fn lasting(number: u8) -> pb::RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    pb::RegisterRequest { ttl, ..registration(number) }
}

pub(crate) fn changed(number: u8, version: usize) -> pb::RegisterRequest {
    pb::RegisterRequest { version: version.to_string(), ..lasting(number) }
}
