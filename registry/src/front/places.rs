//! How much of a bounded thing is taken, in all and by each peer, so that no one address takes what is there for all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_runtime::{Refused, Slot, Slots};

/// Whose share something comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(IpAddr);

impl Peer {
    /// The peer of a connection; all pipes within this process are one.
    pub(crate) fn of(address: Option<SocketAddr>) -> Self {
        Self(address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip()))
    }
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of all peers together.
    InAll(u32),
    /// That of one address.
    OfPeer(u32),
}

impl fmt::Display for Full {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InAll(max) => write!(formatter, "{max}"),
            Self::OfPeer(max) => write!(formatter, "{max} of this address's"),
        }
    }
}

/// The places for one kind of thing. One is free again when its [`Slot`] is dropped.
#[derive(Debug)]
pub(crate) struct Places {
    slots: Slots,
    in_all_max: u32,
    per_peer_max: u32,
}

impl Places {
    /// So many places, and so many for each peer.
    pub(crate) fn new(in_all_max: u32, per_peer_max: u32) -> Self {
        Self { slots: Slots::new(in_all_max, per_peer_max), in_all_max, per_peer_max }
    }

    /// A place for this peer, or why there is none.
    pub(crate) fn take(&self, peer: Peer) -> Result<Slot, Full> {
        self.slots.take(peer.0).map_err(|refused| match refused {
            Refused::Total => Full::InAll(self.in_all_max),
            Refused::PerIp => Full::OfPeer(self.per_peer_max),
        })
    }
}
