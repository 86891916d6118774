//! The balancers of the mesh, by their names.

use clap::ValueEnum;
use mesh_client::{Balancer, RingHash};

/// A balancer with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rule {
    PeakEwma,
    LeastRequest,
    RoundRobin,
    WeightedRoundRobin,
    Random,
    RingHash,
}

impl Rule {
    /// Every one.
    pub(crate) const ALL: [Self; 6] =
        [Self::PeakEwma, Self::LeastRequest, Self::RoundRobin, Self::WeightedRoundRobin, Self::Random, Self::RingHash];

    /// As flags and files call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PeakEwma => "peak-ewma",
            Self::LeastRequest => "least-request",
            Self::RoundRobin => "round-robin",
            Self::WeightedRoundRobin => "weighted-round-robin",
            Self::Random => "random",
            Self::RingHash => "ring-hash",
        }
    }

    /// In words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PeakEwma => "p2c peak EWMA",
            Self::LeastRequest => "p2c least request",
            Self::RoundRobin => "round robin",
            Self::WeightedRoundRobin => "weighted round robin",
            Self::Random => "random",
            Self::RingHash => "ring hash, bounded",
        }
    }

    /// As the mesh takes it.
    pub(crate) fn balancer(self) -> Balancer {
        match self {
            Self::PeakEwma => Balancer::PeakEwma,
            Self::LeastRequest => Balancer::LeastRequest,
            Self::RoundRobin => Balancer::RoundRobin,
            Self::WeightedRoundRobin => Balancer::WeightedRoundRobin,
            Self::Random => Balancer::Random,
            Self::RingHash => Balancer::RingHash(RingHash::default()),
        }
    }
}
