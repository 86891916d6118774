//! A process that puts one side under each load in turn, and says on stdout what it cost.
//!
//! One thread, whatever it is that it asks; so what it takes of a CPU bounds what it can ask for, and stands beside what
//! the server took.

mod as_it_is;
mod batched;
mod etcd;
mod figures;
mod loads;
mod ours;
mod side;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tonic::Status;

use crate::failure::Failure;

pub(crate) use figures::Figures;
pub(crate) use loads::IN_FLIGHT;

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Who {
    Ours,
    Etcd,
}

impl Who {
    /// In words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "registry",
            Self::Etcd => "etcd",
        }
    }
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// Registrations, each under a lease of its own.
    Register,
    /// Heartbeats, one lease a message.
    Heartbeat,
    /// Heartbeats, a thousand leases a message. Ours alone: etcd has no such message.
    RenewBatched,
    /// A service of a hundred instances, asked for by a plain call.
    Resolve,
    /// The same where etcd is asked for whatever the node knows.
    ResolveLocal,
    /// Changes of one service, one after the other, each told to every watcher.
    Watch,
}

impl Load {
    /// Every one, in the order in which they are put on.
    pub(crate) const ALL: [Self; 6] =
        [Self::Register, Self::Heartbeat, Self::RenewBatched, Self::Resolve, Self::ResolveLocal, Self::Watch];

    /// What figures are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Heartbeat => "heartbeat",
            Self::RenewBatched => "renew_batched",
            Self::Resolve => "resolve",
            Self::ResolveLocal => "resolve_serializable",
            Self::Watch => "watch",
        }
    }

    /// One operation, in words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Register => "register with a lease",
            Self::Heartbeat => "heartbeat, one lease a message",
            Self::RenewBatched => "heartbeat, 1 000 leases a message",
            Self::Resolve => "resolve 100 instances",
            Self::ResolveLocal => "the same, serializable",
            Self::Watch => "change told to one of 1 000 watchers",
        }
    }
}

/// How much of each load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Depth {
    /// Registrations that are measured. As many as a tenth of them go before.
    pub(crate) registrations: u64,
    /// How long a load that goes on for a time goes on before it is measured, and while it is.
    pub(crate) warm_up_ms: u64,
    pub(crate) millis: u64,
    /// Connections that the loads but the watchers share.
    pub(crate) connections: usize,
    pub(crate) watchers: u32,
    /// Connections that the watchers share.
    pub(crate) watch_connections: usize,
    pub(crate) changes: u32,
}

/// Everything that a process like this is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) who: Who,
    pub(crate) server: SocketAddr,
    /// The server's process.
    pub(crate) pid: u32,
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Each of these loads; answered by [`Measured`]s.
    Loads(Vec<Load>, Depth),
    /// So many instances, by number; answered by nothing.
    Fill { first: u64, count: u64 },
}

/// What one load came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) load: Load,
    pub(crate) figures: Figures,
}

/// Does what the order says, and prints the answer on stdout.
pub(crate) fn load(runtime: &Runtime, order: &str) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order).map_err(|error| Failure::Child(format!("the order: {error}")))?;
    let done = runtime.block_on(async {
        match order.who {
            Who::Ours => loads::run::<ours::Ours>(&order).await,
            Who::Etcd => loads::run::<etcd::Etcd>(&order).await,
        }
    })?;
    println!("{}", serde_json::to_string(&done).expect("numbers are JSON"));
    Ok(())
}

/// The other side does not listen any more.
fn closed<T>(_unsent: T) -> Status {
    Status::cancelled("the stream is closed")
}

/// The other side has ended a stream that should go on.
fn ended() -> Status {
    Status::cancelled("the stream has ended")
}
