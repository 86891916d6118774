//! What a call sees of its target: one immutable value, replaced whole.

use std::sync::Arc;

use super::subchannel::Subchannel;
use crate::balancer::{Candidates, Load};
use crate::conn::Conn;
use crate::endpoint::{ConnectivityState, Endpoint};

/// The target at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The READY endpoints to pick from.
    pub(super) candidates: Box<[Candidate]>,
    /// Every endpoint that is resolved.
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    pub(super) state: ConnectivityState,
    /// Why nobody can be picked, where that is so.
    pub(super) outlook: Outlook,
}

/// A READY endpoint with what a balancer weighs.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) subchannel: Arc<Subchannel>,
    pub(super) weight: u16,
    /// How often its peer had changed how many streams it allows when the snapshot was made.
    pub(super) limits: u32,
}

impl Candidate {
    fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subchannel, &other.subchannel) && (self.weight, self.limits) == (other.weight, other.limits)
    }
}

/// What a call without a candidate can hope for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// The resolver has not answered yet.
    Unresolved,
    /// Connections are being made.
    Connecting,
    /// The last attempts failed; this was the latest error.
    Failing(Arc<str>),
    /// The service has no instances, and that is certain.
    Empty,
    /// The service cannot be resolved, for this reason.
    Refused(Arc<str>),
}

impl Outlook {
    /// Whether waiting is pointless: nothing that is under way will change it.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Unresolved | Self::Connecting | Self::Failing(_) => false,
            // The next instance may be on its way: the only one of a service that is restarted leaves it empty too.
            Self::Empty => false,
            Self::Refused(_) => true,
        }
    }
}

impl std::fmt::Display for Outlook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unresolved => f.write_str("not resolved yet"),
            Self::Connecting => f.write_str("no endpoint is ready yet"),
            Self::Failing(error) => write!(f, "no endpoint is ready; the last attempt failed: {error}"),
            Self::Empty => f.write_str("no instances"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl Snapshot {
    /// Before the manager has run for the first time.
    pub(super) fn unresolved() -> Self {
        Self {
            candidates: Box::default(),
            endpoints: Box::default(),
            state: ConnectivityState::Idle,
            outlook: Outlook::Unresolved,
        }
    }

    /// Whether a call that could not be placed on `former` may fare differently on this one: other candidates, more room
    /// on one of them, or something else to hope for.
    pub(super) fn is_news_after(&self, former: &Self) -> bool {
        let same = |ours: &[Candidate], theirs: &[Candidate]| {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.is_as(theirs))
        };
        self.outlook != former.outlook || !same(&self.candidates, &former.candidates)
    }
}

/// The candidates of a first attempt: whoever has room.
pub(super) struct All<'a>(pub(super) &'a Snapshot);

impl Candidates for All<'_> {
    fn count(&self) -> usize {
        self.0.candidates.len()
    }

    fn load(&self, index: usize) -> Option<Load> {
        let candidate = &self.0.candidates[index];
        let subchannel = &candidate.subchannel;
        let load = Load { in_flight: subchannel.endpoint.in_flight(), weight: candidate.weight };
        subchannel.conn.vitals().has_room().then_some(load)
    }

    fn latency(&self, index: usize) -> f32 {
        let _ = index;
        1.0
    }

    fn warmth(&self, index: usize) -> f32 {
        let _ = index;
        1.0
    }

    fn in_flight(&self) -> u32 {
        self.0.candidates.iter().map(|candidate| candidate.subchannel.endpoint.in_flight()).sum()
    }

    fn turn(&self) -> u64 {
        0
    }

    fn draw(&self) -> u64 {
        0
    }
}

/// The candidates of a later attempt: whoever has room and was not tried.
pub(super) struct Untried<'a>(pub(super) &'a Snapshot, pub(super) &'a [Arc<Endpoint>]);

impl Candidates for Untried<'_> {
    fn count(&self) -> usize {
        self.0.candidates.len()
    }

    fn load(&self, index: usize) -> Option<Load> {
        let endpoint = &self.0.candidates[index].subchannel.endpoint;
        let tried = self.1.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
        if tried { None } else { All(self.0).load(index) }
    }

    fn latency(&self, index: usize) -> f32 {
        All(self.0).latency(index)
    }

    fn warmth(&self, index: usize) -> f32 {
        All(self.0).warmth(index)
    }

    fn in_flight(&self) -> u32 {
        All(self.0).in_flight()
    }

    fn turn(&self) -> u64 {
        All(self.0).turn()
    }

    fn draw(&self) -> u64 {
        All(self.0).draw()
    }
}
