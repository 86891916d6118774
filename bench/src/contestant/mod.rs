//! Those who are measured.

mod mesh;
mod raw_h2;
mod rule;
mod tonic_channel;
#[cfg(feature = "peers")]
mod xds;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::runtime::Runtime;

use crate::echo::Channel;
use crate::failure::Failure;

pub(crate) use rule::Rule;

/// Most endpoints that a contestant can be given: the server binds a port for each.
const ENDPOINTS_MAX: u16 = 1000;

/// Endpoints of the peers that balance.
pub(crate) const PEER_ENDPOINTS: u16 = 3;

/// A way to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// tonic's `Channel` to one endpoint: what everybody uses, and the yardstick.
    Channel,
    /// tonic's `Channel::balance_list`.
    BalanceList { endpoints: u16 },
    /// A `Channel` to an Envoy in front of three endpoints.
    Envoy,
    /// tonic-xds over three endpoints.
    Xds,
    /// Nothing but the h2 crate: the floor. One connection, no balancing, no deadline of its own.
    RawH2,
    /// The mesh with its default policy: everything is on.
    Mesh { endpoints: u16 },
    /// The mesh with one of its balancers and without hedging, so that what is seen is the balancer.
    MeshBy { endpoints: u16, rule: Rule },
}

impl Contestant {
    /// Those of every run.
    pub(crate) const ALL: [Self; 6] = [
        Self::Channel,
        Self::BalanceList { endpoints: 3 },
        Self::RawH2,
        Self::Mesh { endpoints: 1 },
        Self::Mesh { endpoints: 3 },
        Self::Mesh { endpoints: 100 },
    ];

    /// Those of every run, and the heavy peers that were built in.
    pub(crate) fn built_in() -> Vec<Self> {
        let peers = cfg!(feature = "peers").then_some(Self::Xds);
        Self::ALL.into_iter().chain(peers).collect()
    }

    /// What it is, in words.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Channel => "tonic channel".to_owned(),
            Self::BalanceList { endpoints } => format!("tonic balance_list of {endpoints}"),
            Self::Envoy => "tonic channel, Envoy, 3".to_owned(),
            Self::Xds => "tonic-xds, 3 endpoints".to_owned(),
            Self::RawH2 => "raw h2".to_owned(),
            Self::Mesh { endpoints: 1 } => "mesh, 1 endpoint".to_owned(),
            Self::Mesh { endpoints } => format!("mesh, {endpoints} endpoints"),
            Self::MeshBy { endpoints, rule } => format!("mesh, {endpoints} endpoints, {}", rule.title()),
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_mesh(self) -> bool {
        matches!(self, Self::Mesh { .. } | Self::MeshBy { .. })
    }

    /// How many endpoints it calls: so many ports of the server.
    pub(crate) fn endpoints(self) -> u16 {
        match self {
            Self::Channel | Self::RawH2 => 1,
            Self::Envoy | Self::Xds => PEER_ENDPOINTS,
            Self::BalanceList { endpoints } | Self::Mesh { endpoints } | Self::MeshBy { endpoints, .. } => endpoints,
        }
    }

    /// What names of figures say where there are not three endpoints, which is what budgets are about.
    pub(crate) fn endpoints_suffix(self) -> String {
        match self.endpoints() {
            3 => String::new(),
            endpoints => format!("_{endpoints}_endpoints"),
        }
    }

    /// What names of figures say about a peer that is not the usual one, a tonic channel.
    pub(crate) fn peer_suffix(self) -> String {
        match self {
            Self::Channel => String::new(),
            peer => format!("_over_{}", peer.to_string().replace('-', "_")),
        }
    }

    /// Connects to `servers`, and does `work` over what came of it once every endpoint is there.
    pub(crate) fn compete<W: Work>(
        self,
        runtime: &Runtime,
        servers: &[SocketAddr],
        work: W,
    ) -> Result<W::Output, Failure> {
        let setup = |reason: String| Failure::Setup { contestant: self.to_string(), reason };
        // Some of them want to be made within a runtime.
        let _within = runtime.enter();
        Ok(match self {
            Self::Channel | Self::Envoy => {
                work.over(runtime, runtime.block_on(tonic_channel::channel(servers)).map_err(setup)?)
            }
            Self::BalanceList { .. } => work.over(runtime, tonic_channel::balance_list(servers).map_err(setup)?),
            #[cfg(feature = "peers")]
            Self::Xds => work.over(runtime, runtime.block_on(xds::connect(servers)).map_err(setup)?),
            #[cfg(not(feature = "peers"))]
            Self::Xds => return Err(setup("it was built without the feature `peers`".to_owned())),
            Self::RawH2 => work.over(runtime, runtime.block_on(raw_h2::RawH2::connect(servers)).map_err(setup)?),
            Self::Mesh { .. } => work.over(runtime, runtime.block_on(mesh::connect(servers, None)).map_err(setup)?),
            Self::MeshBy { rule, .. } => {
                work.over(runtime, runtime.block_on(mesh::connect(servers, Some(rule))).map_err(setup)?)
            }
        })
    }
}

/// As flags and files call it: "channel", "raw-h2", "balance-list-3", "mesh-3", "mesh-8-round-robin".
impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("channel"),
            Self::BalanceList { endpoints } => write!(f, "balance-list-{endpoints}"),
            Self::RawH2 => f.write_str("raw-h2"),
            Self::Envoy => f.write_str("envoy"),
            Self::Xds => f.write_str("xds"),
            Self::Mesh { endpoints } => write!(f, "mesh-{endpoints}"),
            Self::MeshBy { endpoints, rule } => write!(f, "mesh-{endpoints}-{}", rule.name()),
        }
    }
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            let rules: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
            format!(
                "one of channel, raw-h2, xds, envoy, balance-list-N, mesh-N and mesh-N-BALANCER is taken, with 1 to {ENDPOINTS_MAX} for N \
                 and one of {} for BALANCER",
                rules.join(", ")
            )
        };
        let endpoints = |digits: &str| {
            digits.parse().ok().filter(|endpoints| (1..=ENDPOINTS_MAX).contains(endpoints)).ok_or_else(unknown)
        };
        match text {
            "channel" => return Ok(Self::Channel),
            "raw-h2" => return Ok(Self::RawH2),
            "envoy" => return Ok(Self::Envoy),
            "xds" => return Ok(Self::Xds),
            _ => {}
        }
        if let Some(digits) = text.strip_prefix("balance-list-") {
            return Ok(Self::BalanceList { endpoints: endpoints(digits)? });
        }
        let rest = text.strip_prefix("mesh-").ok_or_else(unknown)?;
        match rest.split_once('-') {
            None => Ok(Self::Mesh { endpoints: endpoints(rest)? }),
            Some((digits, rule)) => {
                let rule = Rule::ALL.into_iter().find(|known| known.name() == rule).ok_or_else(unknown)?;
                Ok(Self::MeshBy { endpoints: endpoints(digits)?, rule })
            }
        }
    }
}

/// What is done over a contestant. Generic, as a stub over its channel is: no contestant pays for being exchangeable.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contestant_is_read_as_it_is_written() {
        let others = [
            Contestant::Envoy,
            Contestant::Xds,
            Contestant::BalanceList { endpoints: 8 },
            Contestant::MeshBy { endpoints: 8, rule: Rule::RoundRobin },
            Contestant::MeshBy { endpoints: 8, rule: Rule::PeakEwma },
        ];
        for contestant in Contestant::ALL.into_iter().chain(others) {
            assert_eq!(contestant.to_string().parse(), Ok(contestant));
        }
    }

    #[test]
    fn what_is_no_contestant_is_refused_with_all_there_are() {
        for text in ["", "mesh", "mesh-0", "mesh-1001", "mesh-3-", "mesh-3-best", "balance-list-x", "envoy?"] {
            let refused = text.parse::<Contestant>().unwrap_err();
            assert!(refused.contains("balance-list-N") && refused.contains("ring-hash"), "{text}: {refused}");
        }
    }
}
