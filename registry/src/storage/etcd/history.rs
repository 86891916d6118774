//! What the head was: every commit has put its op id there.

use mesh_api::etcd::etcdserverpb::WatchCreateRequest;
use tonic::Status;

use super::Inner;
use super::transaction::{number, revision};
use super::watch::Watching;
use crate::catalog::{OpId, Revision};

/// Whether a proposal is among the commits of a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Search {
    /// It was committed at this revision.
    Found(Revision),
    /// It was not.
    Nowhere,
    /// That cannot be told now: etcd does not answer, or has compacted what it would be told from.
    Unfinished,
}

/// Looks for a proposal among the commits after one revision up to another that the head is known to have had.
pub(super) async fn search(inner: &Inner, op: OpId, after: Revision, until: Revision) -> Search {
    match look(inner, op, after, until).await {
        Ok(found) => found,
        Err(status) => {
            tracing::debug!(?op, %status, "the history cannot be read");
            Search::Unfinished
        }
    }
}

async fn look(inner: &Inner, op: OpId, after: Revision, until: Revision) -> Result<Search, Status> {
    if until <= after {
        return Ok(Search::Nowhere);
    }
    let create = WatchCreateRequest {
        key: inner.layout.head(),
        start_revision: number(after.get() + 1),
        ..WatchCreateRequest::default()
    };
    let mut watching = Watching::open(&inner.link, create).await?;
    loop {
        let Some(answer) = watching.next().await? else { return Ok(Search::Unfinished) };
        if answer.canceled {
            return Ok(Search::Unfinished);
        }
        for head in answer.events.into_iter().filter_map(|event| event.kv) {
            if *head.value == op.0 {
                return Ok(Search::Found(revision(head.mod_revision)));
            }
            if revision(head.mod_revision) >= until {
                return Ok(Search::Nowhere);
            }
        }
    }
}
