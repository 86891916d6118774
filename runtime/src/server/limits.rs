//! What one peer may cost. Every figure is set: tonic's defaults leave most of them open.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::calm::Allowance;

/// Limits of a gRPC port. Numbers `S..` are rows of the security checklist that the figures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at a time; a further one is closed as soon as it is accepted, so that its caller can go
    /// elsewhere at once instead of waiting in a backlog (S07).
    pub connections: u32,
    /// Most connections at a time from one IPv4 address or one IPv6 /64 (S07).
    pub connections_per_ip: u32,
    /// Most streams that a peer may have open on one connection; announced in SETTINGS (S02).
    pub concurrent_streams: u32,
    /// Streams that the peer opened and reset before we took them up; one more ends the connection (S04, rapid reset). As many
    /// as may be open, and not the 20 of S04: a caller takes all of its calls back at once when this server stands still for
    /// longer than it takes to hedge them, for which 100 ms are enough, or than their deadlines; and its other calls on the
    /// connection are not to be lost for it. Never fewer than those 20.
    pub pending_accept_reset_streams: usize,
    /// Streams that we had to reset because of the peer's errors; one more ends the connection (S03, MadeYouReset).
    pub local_error_reset_streams: usize,
    /// Largest header list of a request, in bytes uncompressed; announced in SETTINGS. Over it the stream is answered
    /// 431 and the connection lives (S05).
    pub header_list_bytes: u32,
    /// What a peer may send ahead on one stream, in bytes. Smaller than the connection's window, so that one handler
    /// that does not read cannot stop its neighbours.
    pub stream_window_bytes: u32,
    /// What a peer may send ahead on one connection, in bytes.
    pub connection_window_bytes: u32,
    /// What is buffered for one stream whose peer does not read, in bytes; hyper's default is 400 KiB.
    pub send_buffer_bytes: usize,
    /// A connection that was silent this long is asked for a sign of life (S06).
    pub keepalive_interval: Duration,
    /// And closed when none came within this time (S06).
    pub keepalive_timeout: Duration,
    /// Longest time for which a peer may take nothing of what is written to it, the keepalive's PING included.
    pub write_timeout: Duration,
    /// Longest time from accept to a complete HTTP/2 preface (S07).
    pub preface_timeout: Duration,
    /// Age at which a connection gets a GOAWAY, give or take [`Limits::AGE_JITTER`], so that callers spread over what
    /// was added since. Open streams finish in their own time: they are bounded by their deadlines and by the
    /// keepalive. `None` is never.
    pub connection_age: Option<Duration>,
    /// A connection that had no call open for so long gets a GOAWAY (S06). `None` is never.
    pub connection_idle: Option<Duration>,
    /// PING and SETTINGS frames that a peer may send, beside one for each frame of ours that answers a call; one more ends
    /// the connection with ENHANCE_YOUR_CALM (S06).
    pub control_frames: Allowance,
}

impl Limits {
    /// The default of `connection_age`.
    pub const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
    /// The default of `connection_idle`.
    pub const CONNECTION_IDLE: Duration = Duration::from_secs(10 * 60);
    /// Fewest `pending_accept_reset_streams`, where hardly any stream may be open.
    pub(crate) const PENDING_ACCEPT_RESETS_MIN: usize = 20;
    /// Share of the age by which connections differ, so that those made together do not end together.
    pub const AGE_JITTER: f64 = 0.2;

    /// The age at which the next connection is asked to go.
    pub(crate) fn draw_age(&self, rng: &mut StdRng) -> Option<Duration> {
        let jitter = Self::AGE_JITTER;
        self.connection_age.map(|age| age.mul_f64(rng.random_range(1.0 - jitter..=1.0 + jitter)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            connections_per_ip: 2_048,
            concurrent_streams: 256,
            pending_accept_reset_streams: 256,
            local_error_reset_streams: 256,
            header_list_bytes: 16 * 1024,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            preface_timeout: Duration::from_secs(5),
            connection_age: Some(Self::CONNECTION_AGE),
            connection_idle: Some(Self::CONNECTION_IDLE),
            control_frames: Allowance { per_second: 10, burst: 1_000 },
        }
    }
}
