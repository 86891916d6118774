//! Those who are measured.

mod mesh;
mod raw_h2;
mod tonic_channel;

use std::net::SocketAddr;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::echo::Channel;
use crate::failure::Failure;

/// A way to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contestant {
    /// tonic's `Channel` to one endpoint: what everybody uses, and the yardstick.
    Channel,
    /// tonic's `Channel::balance_list` over three endpoints.
    #[value(name = "balance-list-3")]
    BalanceList3,
    /// Nothing but the h2 crate: the floor. One connection, no balancing, no deadline of its own.
    #[value(name = "raw-h2")]
    RawH2,
    /// The mesh with one endpoint.
    #[value(name = "mesh-1")]
    Mesh1,
    /// The mesh with three.
    #[value(name = "mesh-3")]
    Mesh3,
    /// The mesh with a hundred.
    #[value(name = "mesh-100")]
    Mesh100,
}

impl Contestant {
    /// Those of every run.
    pub(crate) const ALL: [Self; 6] =
        [Self::Channel, Self::BalanceList3, Self::RawH2, Self::Mesh1, Self::Mesh3, Self::Mesh100];

    /// As flags, tables and files call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::BalanceList3 => "balance-list-3",
            Self::RawH2 => "raw-h2",
            Self::Mesh1 => "mesh-1",
            Self::Mesh3 => "mesh-3",
            Self::Mesh100 => "mesh-100",
        }
    }

    /// What it is, in words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Channel => "tonic channel",
            Self::BalanceList3 => "tonic balance_list of 3",
            Self::RawH2 => "raw h2",
            Self::Mesh1 => "mesh, 1 endpoint",
            Self::Mesh3 => "mesh, 3 endpoints",
            Self::Mesh100 => "mesh, 100 endpoints",
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_mesh(self) -> bool {
        matches!(self, Self::Mesh1 | Self::Mesh3 | Self::Mesh100)
    }

    /// How many endpoints it calls: so many ports of the server.
    pub(crate) fn endpoints(self) -> u16 {
        match self {
            Self::Channel | Self::RawH2 | Self::Mesh1 => 1,
            Self::BalanceList3 | Self::Mesh3 => 3,
            Self::Mesh100 => 100,
        }
    }

    /// What names of figures say where there are not three endpoints, which is what budgets are about.
    pub(crate) fn endpoints_suffix(self) -> String {
        match self.endpoints() {
            3 => String::new(),
            endpoints => format!("_{endpoints}_endpoints"),
        }
    }

    /// Connects to `servers`, and does `work` over what came of it once every endpoint is there.
    pub(crate) fn compete<W: Work>(
        self,
        runtime: &Runtime,
        servers: &[SocketAddr],
        work: W,
    ) -> Result<W::Output, Failure> {
        let setup = |reason: String| Failure::Setup { contestant: self.name(), reason };
        // Some of them want to be made within a runtime.
        let _within = runtime.enter();
        Ok(match self {
            Self::Channel => work.over(runtime, runtime.block_on(tonic_channel::channel(servers)).map_err(setup)?),
            Self::BalanceList3 => work.over(runtime, tonic_channel::balance_list(servers).map_err(setup)?),
            Self::RawH2 => work.over(runtime, runtime.block_on(raw_h2::RawH2::connect(servers)).map_err(setup)?),
            Self::Mesh1 | Self::Mesh3 | Self::Mesh100 => {
                work.over(runtime, runtime.block_on(mesh::connect(servers)).map_err(setup)?)
            }
        })
    }
}

/// What is done over a contestant. Generic, as a stub over its channel is: no contestant pays for being exchangeable.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Self::Output;
}
