//! A response that many watchers share until the transport needs its own copy.

use std::sync::Arc;

use mesh_api::registry::v1::WatchResponse;
use prost::Message as _;

/// One response, built and measured once.
#[derive(Debug, Clone)]
pub(super) struct Message {
    response: Arc<WatchResponse>,
    bytes: usize,
}

impl Message {
    pub(super) fn new(response: WatchResponse) -> Self {
        let bytes = response.encoded_len();
        Self { response: Arc::new(response), bytes }
    }

    /// Length on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The response itself; the last holder does not copy it.
    pub(super) fn into_response(self) -> WatchResponse {
        Arc::unwrap_or_clone(self.response)
    }

    #[cfg(test)]
    pub(super) fn response(&self) -> &WatchResponse {
        &self.response
    }
}
