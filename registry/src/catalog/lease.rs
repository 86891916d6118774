//! What a registration is granted, and what proves that it was.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Invalid;

/// 16 opaque, unguessable bytes that name a lease. The engine draws them; the catalog only compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId([u8; 16]);

impl LeaseId {
    /// A lease id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Takes the bytes of a message; `None` where they cannot be an id, which is answered like an unknown lease.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Shows the first two bytes only: whoever reads a log should not be able to renew a lease.
impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// 16 random bytes drawn once per process start; tells a restart from a repeat. As secret as a lease id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartNonce([u8; 16]);

impl StartNonce {
    /// A nonce of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Takes the bytes of a message.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, Invalid> {
        bytes.try_into().map(Self).map_err(|_| Invalid::Length {
            field: "start_nonce",
            bytes: bytes.len(),
            rule: "exactly 16 bytes",
        })
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for StartNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartNonce({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// Issued by the registry: of two starts under one id the higher one is the live one. Never 0, which on the wire means
/// "none held". Taken from the store's revision, so that it rises even past a forgotten tombstone; gaps are normal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation of this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Its number, 1 or more.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a lease lives without a heartbeat, 2 s to 5 min.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ttl(
    /// In nanoseconds: half of a `Duration`, and every lease holds two of them.
    u64,
);

impl Ttl {
    /// What may be asked for. Below 2 s a paused virtual machine looks dead; above 5 min a dead one looks alive.
    pub const RANGE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(300);
    /// What is granted to who asks for nothing, unless the registry is told otherwise.
    pub const DEFAULT: Self = Self(10_000_000_000);

    /// Takes a TTL within [`Self::RANGE`].
    pub fn new(asked: Duration) -> Result<Self, Invalid> {
        match u64::try_from(asked.as_nanos()) {
            Ok(nanos) if Self::RANGE.contains(&asked) => Ok(Self(nanos)),
            _ => Err(Invalid::TtlOutOfRange { asked }),
        }
    }

    /// The time itself.
    #[must_use]
    pub const fn get(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How often to beat: a third, so that two beats in a row may be lost.
    #[must_use]
    pub fn heartbeat_interval(self) -> Duration {
        Duration::from_nanos(self.0 / 3)
    }

    /// How long after the last renewal a beat counts as late: one interval and a half.
    #[must_use]
    pub fn late_after(self) -> Duration {
        Duration::from_nanos(self.0 / 2)
    }
}

/// One heartbeat stream, numbered by the engine and never reused. It says where beats came from, not whose they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u64);

impl StreamId {
    /// The stream of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}
