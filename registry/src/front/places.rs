//! How much of a bounded thing is taken: in all, by each address and by each connection, so that no one caller takes what
//! is there for all.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_runtime::{Refused, Slot, Slots};
use parking_lot::Mutex;

use super::quotas::Share;

/// Whose share something comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    address: IpAddr,
    /// The far end of its connection, which no other connection has at the same time. A pipe within this process has none.
    connection: Option<SocketAddr>,
}

impl Peer {
    /// The peer of a connection; all pipes within this process are one.
    pub(crate) fn of(address: Option<SocketAddr>) -> Self {
        let ip = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        Self { address: ip, connection: address }
    }

    /// The address that it calls from.
    pub(crate) fn address(self) -> IpAddr {
        self.address
    }
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of all peers together.
    InAll(u32),
    /// That of one address.
    OfAddress(u32),
    /// That of one connection.
    OfConnection(u32),
}

impl fmt::Display for Full {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InAll(max) => write!(formatter, "{max}"),
            Self::OfAddress(max) => write!(formatter, "{max} of this address's"),
            Self::OfConnection(max) => write!(formatter, "{max} of this connection's"),
        }
    }
}

/// The places for one kind of thing. One is free again when its [`Place`] is dropped. Never more entries than places taken.
#[derive(Debug)]
pub(crate) struct Places {
    share: Share,
    slots: Slots,
    connections: Arc<Mutex<HashMap<SocketAddr, u32>>>,
}

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _slot: Slot,
    connection: Option<SocketAddr>,
    connections: Arc<Mutex<HashMap<SocketAddr, u32>>>,
}

impl Places {
    /// So many places.
    pub(crate) fn new(share: Share) -> Self {
        Self { share, slots: Slots::new(share.in_all, share.per_address), connections: Arc::default() }
    }

    /// A place for this peer, or why there is none.
    pub(crate) fn take(&self, peer: Peer) -> Result<Place, Full> {
        let slot = self.slots.take(peer.address).map_err(|refused| match refused {
            Refused::Total => Full::InAll(self.share.in_all),
            Refused::PerIp => Full::OfAddress(self.share.per_address),
        })?;
        if let Some(connection) = peer.connection {
            let mut connections = self.connections.lock();
            let held = connections.entry(connection).or_default();
            if *held >= self.share.per_connection {
                return Err(Full::OfConnection(self.share.per_connection));
            }
            *held += 1;
        }
        Ok(Place { _slot: slot, connection: peer.connection, connections: Arc::clone(&self.connections) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(connection) = self.connection else { return };
        let mut connections = self.connections.lock();
        if let Some(held) = connections.get_mut(&connection) {
            *held -= 1;
            if *held == 0 {
                connections.remove(&connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::of(Some(text.parse().expect("an address")))
    }

    #[test]
    fn a_connection_an_address_and_all_have_their_shares() {
        let places = Places::new(Share { in_all: 4, per_address: 3, per_connection: 2 });
        let mut taken = vec![places.take(peer("10.0.0.1:1")), places.take(peer("10.0.0.1:1"))];
        assert_eq!(places.take(peer("10.0.0.1:1")).err(), Some(Full::OfConnection(2)));
        taken.push(places.take(peer("10.0.0.1:2")));
        assert_eq!(places.take(peer("10.0.0.1:2")).err(), Some(Full::OfAddress(3)));
        taken.push(places.take(peer("10.0.0.2:1")));
        assert_eq!(places.take(peer("10.0.0.3:1")).err(), Some(Full::InAll(4)));
        assert!(taken.iter().all(Result::is_ok));
        // What was refused took nothing with it.
        drop(taken.remove(0));
        assert!(places.take(peer("10.0.0.1:1")).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_connections_that_left() {
        let places = Places::new(Share { in_all: 100, per_address: 100, per_connection: 1 });
        for port in 1..=100 {
            drop(places.take(peer(&format!("10.0.0.1:{port}"))));
        }
        assert!(places.connections.lock().is_empty());
    }

    #[test]
    fn callers_within_the_process_have_no_connection_of_their_own() {
        let places = Places::new(Share { in_all: 3, per_address: 2, per_connection: 1 });
        let _taken = [places.take(Peer::of(None)).expect("one"), places.take(Peer::of(None)).expect("another")];
        assert_eq!(places.take(Peer::of(None)).err(), Some(Full::OfAddress(2)));
    }
}
