//! What the store says was committed, without end: a feed that broke is taken up again, one that fell behind is loaded
//! anew.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;

use crate::catalog::{Committed, Revision};
use crate::storage::{FollowError, Loaded, Store, StoreError};

/// How long to wait before a broken feed is taken up again, or a failed load is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// One piece of news from the store.
#[derive(Debug)]
pub(super) enum News {
    /// The next commit.
    Committed(Arc<Committed>),
    /// Commits are missing: this is everything as it is now.
    Reloaded(Loaded),
}

/// The store's commits from one revision on.
pub(super) struct Feed {
    store: Arc<dyn Store>,
    after: Revision,
    source: Source,
}

enum Source {
    Following(BoxStream<'static, Result<Arc<Committed>, FollowError>>),
    Pausing(Pin<Box<tokio::time::Sleep>>, Then),
    Loading(BoxFuture<'static, Result<Loaded, StoreError>>),
}

/// What a pause is followed by.
#[derive(Clone, Copy)]
enum Then {
    Follow,
    Load,
}

impl Feed {
    pub(super) fn new(store: Arc<dyn Store>, after: Revision) -> Self {
        let source = Source::Following(store.follow(after));
        Self { store, after, source }
    }

    /// The next piece of news. Nothing is lost when the future is dropped before it is ready.
    pub(super) async fn next(&mut self) -> News {
        loop {
            match &mut self.source {
                Source::Following(stream) => match stream.next().await {
                    // A store may repeat itself after a reconnect; it must not be believed twice.
                    Some(Ok(committed)) if committed.revision <= self.after => {}
                    Some(Ok(committed)) => {
                        self.after = committed.revision;
                        return News::Committed(committed);
                    }
                    Some(Err(error @ FollowError::Compacted { .. })) => {
                        tracing::warn!(%error, revision = self.after.get(), "loading the state anew");
                        self.source = Source::Loading(load(self.store.clone()));
                    }
                    Some(Err(error @ FollowError::Broken { .. })) => {
                        tracing::warn!(%error, revision = self.after.get(), "following the store again");
                        self.source = pause(Then::Follow);
                    }
                    None => self.source = pause(Then::Follow),
                },
                Source::Pausing(sleep, then) => {
                    sleep.await;
                    self.source = match then {
                        Then::Follow => Source::Following(self.store.follow(self.after)),
                        Then::Load => Source::Loading(load(self.store.clone())),
                    };
                }
                Source::Loading(loading) => match loading.await {
                    Ok(loaded) => {
                        self.after = loaded.position.revision;
                        self.source = Source::Following(self.store.follow(self.after));
                        return News::Reloaded(loaded);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "loading the state again soon");
                        self.source = pause(Then::Load);
                    }
                },
            }
        }
    }

    /// The next piece of news if it is there already.
    pub(super) fn try_next(&mut self) -> Option<News> {
        self.next().now_or_never()
    }
}

fn load(store: Arc<dyn Store>) -> BoxFuture<'static, Result<Loaded, StoreError>> {
    async move { store.load().await }.boxed()
}

fn pause(then: Then) -> Source {
    Source::Pausing(Box::pin(tokio::time::sleep(RETRY)), then)
}
