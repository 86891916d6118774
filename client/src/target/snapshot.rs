//! What a call sees of its target: one immutable value, replaced whole.

use std::iter;
use std::mem::discriminant;
use std::sync::Arc;

use tokio::time::Instant;

use super::Outage;
use super::subchannel::Subchannel;
use crate::balancer::{Picker, Zone};
use crate::clock::Stamp;
use crate::conn::Conn;
use crate::endpoint::{ConnectivityState, Endpoint};
use crate::policy::Balancer;
use crate::resolver::Standing;

/// The target at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Who may be picked.
    pub(super) candidates: Box<[Candidate]>,
    /// Which of them are on trial, by index.
    pub(super) trials: Box<[usize]>,
    /// How one of them is chosen.
    pub(super) picker: Arc<Picker>,
    /// The part of the calls that stays in the caller's zone, where the zone makes a difference.
    pub(super) own_share: Option<f32>,
    /// Every endpoint that is resolved.
    pub(super) members: Box<[Member]>,
    pub(super) state: ConnectivityState,
    /// Why nobody can be picked, where that is so.
    pub(super) outlook: Outlook,
}

/// A READY endpoint with what a balancer weighs.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The oldest connection, and mostly the only one.
    pub(super) first: Arc<Subchannel>,
    /// Further ones, oldest first.
    pub(super) more: Box<[Arc<Subchannel>]>,
    pub(super) weight: u16,
    /// How often its peers had changed how many streams they allow when the snapshot was made.
    pub(super) limits: u32,
    pub(super) growth: Growth,
    pub(super) probation: Probation,
    /// Since when it warms up, while it does.
    pub(super) warming: Option<Stamp>,
}

/// Whether another connection may be opened where those there are are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Possible,
    Over,
}

/// Whether an endpoint takes calls one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probation {
    None,
    OnTrial,
    /// It would be on trial, but there is a panic: it takes whatever comes, and a call that goes well is enough.
    Waived,
}

impl Candidate {
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.first.endpoint
    }

    /// Oldest first: that one is filled before the next is used, so that the last ones fall idle when they are not needed.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Arc<Subchannel>> {
        iter::once(&self.first).chain(&self.more)
    }

    pub(super) fn has_room(&self) -> bool {
        self.first.conn.vitals().has_room() || self.more.iter().any(|further| further.conn.vitals().has_room())
    }

    fn is_as(&self, other: &Self) -> bool {
        let same = |(ours, theirs): (&Arc<Subchannel>, &Arc<Subchannel>)| Arc::ptr_eq(ours, theirs);
        let what = |candidate: &Self| (candidate.weight, candidate.limits, candidate.probation, candidate.more.len());
        what(self) == what(other) && self.connections().zip(other.connections()).all(same)
    }
}

/// An endpoint that is resolved, and how the manager saw it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) zone: Arc<str>,
    pub(super) side: Zone,
    pub(super) weight: u16,
    pub(super) standing: Standing,
    pub(super) connections: usize,
    pub(super) place: Place,
    /// Where it is among the candidates, if it is one.
    pub(super) candidate: Option<usize>,
}

/// What the manager has to say about an endpoint.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// READY, and nobody has anything against it.
    Fit,
    /// Not connected to, because the subset is elsewhere.
    Outside,
    /// Not connected.
    Absent {
        /// Why the last attempt or connection failed.
        error: Option<Arc<str>>,
        /// When the next attempt begins; absent while one is under way.
        next: Option<Instant>,
    },
    Draining,
    Doubted,
    Ejected {
        until: Instant,
    },
    OnTrial,
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
    /// Whether waiting is pointless: nothing that is under way will change it, or nothing that is to be waited for.
    pub(crate) fn is_settled(&self, outage: Outage) -> bool {
        match self {
            Self::Unresolved | Self::Connecting => false,
            Self::Failing(_) => outage == Outage::Told,
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
    pub(super) fn unresolved(balancer: &Balancer) -> Self {
        Self {
            candidates: Box::default(),
            trials: Box::default(),
            picker: Arc::new(Picker::new(balancer, &[], &[], None)),
            own_share: None,
            members: Box::default(),
            state: ConnectivityState::Idle,
            outlook: Outlook::Unresolved,
        }
    }

    /// Whether a call that could not be placed on `former` may fare differently on this one: other candidates, more room
    /// on one of them, or something else to hope for. The last error in other words is no reason to look: with a hundred
    /// endpoints down, and each dial telling its own, ten thousand calls would do nothing else.
    pub(super) fn is_news_after(&self, former: &Self) -> bool {
        let same = |ours: &[Candidate], theirs: &[Candidate]| {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.is_as(theirs))
        };
        let hope = |snapshot: &Self| discriminant(&snapshot.outlook);
        hope(self) != hope(former) || !same(&self.candidates, &former.candidates)
    }
}
