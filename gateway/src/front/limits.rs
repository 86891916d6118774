//! What one client may ask for, and what one request may cost.

use std::time::Duration;

/// Limits of requests on the REST port; those of its connections are the shell's. Numbers `S..` are rows of the security
/// checklist that the figures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request, in bytes (S11); over it is 413.
    pub body_bytes: usize,
    /// Longest path with its query, in bytes (S11); over it is 414.
    pub target_bytes: usize,
    /// Longest time for which nothing of a body may come; then 408.
    pub body_pause: Duration,
    /// Longest time for a whole body; then 408. What a slow mobile line needs for the largest one.
    pub body_time: Duration,
    /// Largest message that a service may answer with, in bytes.
    pub message_bytes: usize,
    /// Most requests open at a time, streams included; one more is 503.
    pub requests: u32,
    /// Most of them of one client, by its address; one more is 429.
    pub requests_per_client: u32,
    /// How long a service may take when the request does not say.
    pub timeout: Duration,
    /// The longest that a request may say.
    pub timeout_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            target_bytes: 8 * 1024,
            body_pause: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            message_bytes: 4 * 1024 * 1024,
            requests: 8_192,
            requests_per_client: 2_048,
            timeout: Duration::from_secs(15),
            timeout_max: Duration::from_secs(60),
        }
    }
}
