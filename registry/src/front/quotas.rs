//! How much the doors let in: streams, followed names, registrations. What the catalog holds is
//! [`Limits`](crate::catalog::Limits).

/// How many of one kind of thing there may be at a time. The narrowest share that is used up refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of all callers together.
    pub in_all: u32,
    /// Of one address; with IPv6, of one /64 network.
    pub per_address: u32,
    /// Of one connection. Callers within the same process have none, and are bounded by the other two.
    pub per_connection: u32,
}

/// How often something may happen: steadily so often, and after a rest so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Steadily, at least 1.
    pub per_second: u32,
    /// At once, at least 1.
    pub burst: u32,
}

/// Quotas of the doors (S10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Watch streams. Each costs its subscriptions and at most a message.
    pub watch_streams: Share,
    /// Heartbeat streams. Each costs a connection's stream and no task.
    pub heartbeat_streams: Share,
    /// Services followed, summed over watch streams. Each costs about a KiB.
    pub watched_names: Share,
    /// Event streams of `ListEvents`. Each costs a task.
    pub event_streams: Share,
    /// Registrations of all callers together.
    pub registrations: Rate,
    /// Registrations of one address; with IPv6, of one /64 network.
    pub registrations_per_address: Rate,
}

impl Quotas {
    /// How long the bursts of [`Quotas::default`] last: so many seconds' worth of registrations come at once after a rest.
    pub const REGISTRATION_BURST_SECONDS: u32 = 5;
}

impl Default for Quotas {
    /// For a few thousand instances, many of them behind one address: ten thousand that come back together after an
    /// outage are let in at once (P13), whether from one address or from all.
    fn default() -> Self {
        let rate = |per_second| Rate { per_second, burst: per_second * Self::REGISTRATION_BURST_SECONDS };
        Self {
            // Two streams for each of the processes that the connections of one address serve: one to watch, one to beat.
            watch_streams: Share { in_all: 20_000, per_address: 1_024, per_connection: 100 },
            heartbeat_streams: Share { in_all: 50_000, per_address: 1_024, per_connection: 100 },
            watched_names: Share { in_all: 500_000, per_address: 50_000, per_connection: 5_000 },
            event_streams: Share { in_all: 256, per_address: 64, per_connection: 8 },
            registrations: rate(10_000),
            registrations_per_address: rate(2_000),
        }
    }
}
