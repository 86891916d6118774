//! One etcd watch on a stream of its own, and the signs that it is alive.

use std::time::Duration;

use mesh_api::etcd::etcdserverpb::watch_request::RequestUnion;
use mesh_api::etcd::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::{Link, led};

/// How long a watch may take to open: an election and a half.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// After so much silence etcd is asked how far it is.
const QUIET: Duration = Duration::from_secs(1);

/// After so much more without any answer the watch is dead, whatever the connection says.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// An open watch. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    asked: bool,
}

impl Watching {
    /// Opens a watch on a member that has a leader.
    pub(crate) async fn open(link: &Link, create: WatchCreateRequest) -> Result<Self, Status> {
        // The creation, and one question at a time.
        let (requests, outgoing) = mpsc::channel(2);
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).map_err(|_| Status::internal("a new queue has room"))?;
        let mut client = link.watch();
        let opening = client.watch(led(ReceiverStream::new(outgoing)));
        let answers = timeout(OPEN_MAX, opening).await.map_err(|_| silent(OPEN_MAX))??.into_inner();
        Ok(Self { requests, answers, asked: false })
    }

    /// The next answer; `None` where etcd has ended the stream. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        loop {
            let patience = if self.asked { ANSWER_MAX } else { QUIET };
            match timeout(patience, self.answers.message()).await {
                Ok(answer) => {
                    self.asked = false;
                    return answer;
                }
                Err(_) if self.asked => return Err(silent(QUIET + ANSWER_MAX)),
                Err(_) => {
                    let ask =
                        WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
                    // Full or closed: then no answer will come either.
                    let _ = self.requests.try_send(ask);
                    self.asked = true;
                }
            }
        }
    }
}

fn silent(time: Duration) -> Status {
    Status::deadline_exceeded(format!("the watch was silent for {time:?}"))
}
