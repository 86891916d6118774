//! Why calls go where they go: every endpoint of a service, with what the balancer sees of it and what follows from that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::Address;
use crate::endpoint::ConnectivityState;
use crate::policy::Policy;
use crate::resolver::Standing;

/// A channel at one moment: see [`MeshChannel::explain`](crate::MeshChannel::explain).
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The service that is called.
    pub service: String,
    /// Whether calls would be sent now.
    pub state: ConnectivityState,
    /// By which rules.
    pub policy: Policy,
    /// Calls that wait for an endpoint.
    pub waiting: usize,
    /// Calls between their pick and their trailers, over all endpoints; those on endpoints that are gone too.
    pub in_flight: u32,
    /// Every endpoint that is resolved.
    pub endpoints: Vec<EndpointExplanation>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointExplanation {
    /// The running process behind it.
    pub instance_id: Uuid,
    /// Where it answers.
    pub address: Address,
    /// Where it runs; empty is unknown.
    pub zone: Arc<str>,
    /// The share that it registered for, relative to its siblings.
    pub weight: u16,
    /// What the resolver says about it.
    pub standing: Standing,
    /// What its connections say about it.
    pub connectivity: ConnectivityState,
    /// How many connections there are.
    pub connections: usize,
    /// How long it takes until it begins to answer, as the balancer sees it now; absent until its first connection.
    pub latency: Option<Duration>,
    /// Calls between their pick and their trailers.
    pub in_flight: u32,
    /// Calls sent to it so far.
    pub picks: u64,
    /// Failures since its last other answer.
    pub failures_in_a_row: u32,
    /// Whether it gets calls, and why.
    pub verdict: Verdict,
}

/// Whether an endpoint gets calls, and why. Its `Display` is a sentence for people.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It gets its share.
    Picked,
    /// It gets less than its share for now, because it has just become READY.
    WarmingUp {
        /// What part of its share, in (0, 1).
        share: f32,
    },
    /// It is in another zone than the caller, and gets what the caller's own zone does not take.
    OtherZone {
        /// What part of all calls goes to other zones, in [0, 1].
        share: f32,
    },
    /// It would not be picked, but neither would most others: then all are.
    Panic {
        /// What is held against it.
        despite: Box<Verdict>,
    },
    /// It was ejected, and one call at a time may try it.
    OnTrial,
    /// It failed calls, and is left alone.
    Ejected {
        /// For how much longer.
        remaining: Duration,
    },
    /// It has as many streams open as it allows.
    Full,
    /// The registry doubts that it is alive, and it has not answered a PING lately.
    Doubted,
    /// It finishes what it has and gets nothing new.
    Draining,
    /// There is no connection to it.
    NotConnected {
        /// Why the last attempt or connection failed, if one did.
        error: Option<Arc<str>>,
        /// How long until the next attempt; absent while one is under way.
        next_attempt: Option<Duration>,
    },
    /// This caller connects to other endpoints of the service.
    OutsideSubset,
}

impl Verdict {
    /// Whether it gets any calls now.
    pub fn is_picked(&self) -> bool {
        match self {
            Self::Picked | Self::WarmingUp { .. } | Self::OtherZone { .. } | Self::Panic { .. } | Self::OnTrial => true,
            Self::Ejected { .. }
            | Self::Full
            | Self::Doubted
            | Self::Draining
            | Self::NotConnected { .. }
            | Self::OutsideSubset => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Picked => f.write_str("picked"),
            Self::WarmingUp { share } => write!(f, "picked with {:.0} % of its share while it warms up", share * 100.0),
            Self::OtherZone { share } if *share > 0.0 => {
                write!(f, "picked for the {:.0} % of calls that leave the own zone", share * 100.0)
            }
            Self::OtherZone { .. } => f.write_str("in another zone: picked only when nobody in the own one has room"),
            Self::Panic { despite } => write!(f, "picked all the same, because too few are fit: {despite}"),
            Self::OnTrial => f.write_str("on trial: one call at a time, and a success brings it back"),
            Self::Ejected { remaining } => write!(f, "ejected for failing calls, for another {}", Seconds(*remaining)),
            Self::Full => f.write_str("full: as many streams are open as it allows"),
            Self::Doubted => f.write_str("doubted by the registry, and silent to a ping"),
            Self::Draining => f.write_str("draining"),
            Self::NotConnected { error, next_attempt } => {
                f.write_str("not connected")?;
                if let Some(error) = error {
                    write!(f, ": {error}")?;
                }
                match next_attempt {
                    Some(next) => write!(f, "; next attempt in {}", Seconds(*next)),
                    None => f.write_str("; an attempt is under way"),
                }
            }
            Self::OutsideSubset => f.write_str("outside this caller's subset"),
        }
    }
}

/// A time to wait, as precise as anybody needs it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_sentences() {
        let remaining = Duration::from_millis(2340);
        let told = [
            (Verdict::Picked, "picked"),
            (Verdict::WarmingUp { share: 0.25 }, "picked with 25 % of its share while it warms up"),
            (Verdict::OtherZone { share: 0.3 }, "picked for the 30 % of calls that leave the own zone"),
            (Verdict::Ejected { remaining }, "ejected for failing calls, for another 2.3 s"),
            (
                Verdict::Panic { despite: Box::new(Verdict::Doubted) },
                "picked all the same, because too few are fit: doubted by the registry, and silent to a ping",
            ),
            (
                Verdict::NotConnected { error: Some("connection refused".into()), next_attempt: Some(remaining) },
                "not connected: connection refused; next attempt in 2.3 s",
            ),
            (Verdict::NotConnected { error: None, next_attempt: None }, "not connected; an attempt is under way"),
        ];
        for (verdict, words) in told {
            assert_eq!(verdict.to_string(), words);
        }
    }
}
