//! What a server that was pinged too often has asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How much rarer the server behind an endpoint wants its PINGs: each complaint doubles the silence that makes this side ask,
/// for good. It belongs to the endpoint and not to a connection, since a complaint ends the connection: every dial to the
/// endpoint is given the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calm {
    complaints: Arc<AtomicU32>,
}

/// 500 ms doubled ten times is more than eight minutes: beyond what any server's policy asks for (grpc-go's default is five).
const COMPLAINTS_MAX: u32 = 10;

impl Calm {
    /// The server has complained once more.
    pub(super) fn complained(&self) {
        let more = |complaints: u32| (complaints < COMPLAINTS_MAX).then_some(complaints + 1);
        // It fails when there are enough already.
        let _ = self.complaints.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The span after which this server may be asked, where another one would be after `span`.
    pub(super) fn stretch(&self, span: Duration) -> Duration {
        span.saturating_mul(1 << self.complaints.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_complaint_doubles_the_span_for_all_who_share_it() {
        let (calm, span) = (Calm::default(), Duration::from_millis(500));
        let shared = calm.clone();
        assert_eq!(shared.stretch(span), span);
        calm.complained();
        calm.complained();
        assert_eq!(shared.stretch(span), span * 4);
        (0..100).for_each(|_| calm.complained());
        assert_eq!(shared.stretch(span), span * 1024);
    }
}
