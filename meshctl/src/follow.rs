//! Following a service: one Watch that is opened again whenever it breaks, for as long as somebody wants the news.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{Subscription, WatchRequest, WatchResponse};
use mesh_runtime::clock;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::args::RegistryUrl;
use crate::registry_client::connect_to;
use crate::view::{Change, ServiceView};

/// A stream that is silent for this long is dead: bookmarks come every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Longest that connecting to a registry may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Wait before a broken stream is opened again. A watcher at a terminal is no herd: it needs no backoff, only not to spin.
const REOPEN_AFTER: Duration = Duration::from_millis(100);

/// What to follow, and where.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Registries over one store, tried in this order.
    pub registries: Vec<RegistryUrl>,
    /// Namespace of the service.
    pub namespace: String,
    /// Its name.
    pub service: String,
}

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// The stream is open; what follows begins with a snapshot.
    Opened(&'a RegistryUrl),
    /// One answer, as it came.
    Answer(&'a WatchResponse),
    /// The stream broke, could not be opened, or was of no use any more. It is tried again in a moment.
    Lost(String),
}

/// What a follower wants after the news it heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<E> {
    /// More.
    GoOn,
    /// Another stream, which begins with a snapshot, and why.
    Reopen(String),
    /// Nothing more.
    End(E),
}

/// Follows until `hear` wants it to end. Never ends by itself: a registry that is away comes back.
pub(crate) async fn follow<E>(followed: &Followed, mut hear: impl FnMut(News<'_>) -> Heard<E>) -> E {
    loop {
        for registry in &followed.registries {
            let lost = match listen(followed, registry, &mut hear).await {
                Ok(end) => return end,
                Err(lost) => lost,
            };
            // Lost already: there is no stream to give up.
            if let Heard::End(end) = hear(News::Lost(format!("{registry}: {lost}"))) {
                return end;
            }
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

/// One stream from its beginning to its end; `Err` says why it ended.
async fn listen<E>(
    followed: &Followed,
    registry: &RegistryUrl,
    hear: &mut impl FnMut(News<'_>) -> Heard<E>,
) -> Result<E, String> {
    let channel = connect_to(registry, CONNECT_MAX).await?;
    let mut stubs = RegistryServiceClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
    let subscription =
        Subscription { namespace: followed.namespace.clone(), service: followed.service.clone(), after: None };
    // Half-closing at once is allowed: the subscription stays.
    let requests = tokio_stream::once(WatchRequest { subscribe: vec![subscription], unsubscribe: vec![] });
    let mut answers = stubs.watch(requests).await.map_err(|status| status.message().to_owned())?.into_inner();
    let mut heard = hear(News::Opened(registry));
    loop {
        match heard {
            Heard::GoOn => {}
            Heard::Reopen(why) => return Err(why),
            Heard::End(end) => return Ok(end),
        }
        heard = match tokio::time::timeout(SILENCE_MAX, answers.message()).await {
            Ok(Ok(Some(answer))) => hear(News::Answer(&answer)),
            Ok(Ok(None)) => return Err("the registry ended the stream".to_owned()),
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err(format!("silent for {} s", SILENCE_MAX.as_secs())),
        };
    }
}

/// Follows a service in the background and keeps its latest state at hand.
#[derive(Debug)]
pub struct Follower {
    service: String,
    latest: watch::Receiver<Arc<ServiceView>>,
    task: AbortHandle,
}

/// Something that was waited for did not come.
#[derive(Debug, Error)]
#[error("{service}: waited {limit:?} for {what}, in vain; listed are {listed}")]
pub struct NeverCame {
    service: String,
    what: String,
    limit: Duration,
    listed: String,
}

impl Follower {
    /// Starts to follow; `tell` hears every change the moment it is known.
    pub fn start(followed: Followed, mut tell: impl FnMut(&Change) + Send + 'static) -> Follower {
        let (publish, latest) = watch::channel(Arc::new(ServiceView::default()));
        let service = followed.service.clone();
        let task = tokio::spawn(async move {
            let mut view = ServiceView::default();
            follow::<Infallible>(&followed, |news| {
                let answer = match news {
                    News::Opened(_) => {
                        view.stream_opened();
                        return Heard::GoOn;
                    }
                    News::Lost(_) => return Heard::GoOn,
                    News::Answer(answer) => answer,
                };
                match view.apply(answer) {
                    Ok(changes) => {
                        changes.iter().for_each(&mut tell);
                        publish.send_replace(Arc::new(view.clone()));
                        Heard::GoOn
                    }
                    // Also what would be refused for good: whoever waits for news gives up in time of their own.
                    Err(error) => Heard::Reopen(error.to_string()),
                }
            })
            .await
        });
        Follower { service, latest, task: task.abort_handle() }
    }

    /// The state as last heard.
    pub fn view(&self) -> Arc<ServiceView> {
        self.latest.borrow().clone()
    }

    /// Waits until the state is such that `holds`; answers when that was heard.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&ServiceView) -> bool,
    ) -> Result<Instant, NeverCame> {
        let waiting = self.latest.wait_for(|view| holds(view));
        let came = tokio::time::timeout(limit, waiting).await.is_ok_and(|latest| latest.is_ok());
        if came {
            return Ok(clock::now());
        }
        let view = self.view();
        let listed: Vec<_> = view.instances().keys().map(|id| format!("{id} {:?}", view.liveness(id))).collect();
        let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        Err(NeverCame { service: self.service.clone(), what: what.to_owned(), limit, listed })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}
