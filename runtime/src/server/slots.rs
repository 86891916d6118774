//! How many of something are there, in all and for each peer: the connections of a port, the streams of a program.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Refused;

/// The places of one port, or for one kind of thing. Never more entries than places taken.
#[derive(Debug, Clone)]
pub struct Slots {
    total_max: u32,
    per_peer_max: u32,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: u32,
    by_peer: HashMap<IpAddr, u32>,
}

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    peer: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Slots {
    /// So many places, and so many for one peer: an IPv4 address, or a /64 network with IPv6.
    #[must_use]
    pub fn new(total_max: u32, per_peer_max: u32) -> Self {
        Self { total_max, per_peer_max, taken: Arc::default() }
    }

    /// A place for a peer at `ip`, or why there is none.
    pub fn take(&self, ip: IpAddr) -> Result<Slot, Refused> {
        let peer = peer_network(ip);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.total_max {
            return Err(Refused::Total);
        }
        let held = taken.by_peer.entry(peer).or_default();
        if *held >= self.per_peer_max {
            return Err(Refused::PerIp);
        }
        *held += 1;
        taken.total += 1;
        Ok(Slot { peer, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(held) = taken.by_peer.get_mut(&self.peer) {
            *held -= 1;
            if *held == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

/// Whom an address counts for: an IPv4 address for itself, an IPv6 address for its /64, which is what one host is given.
#[must_use]
pub fn peer_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            const HOST_BITS: u32 = 64;
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> HOST_BITS << HOST_BITS))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_gets_its_share_and_no_more_until_one_is_given_back() {
        let slots = Slots::new(3, 2);
        let first = slots.take(ip("10.0.0.1")).unwrap();
        let _second = slots.take(ip("10.0.0.1")).unwrap();
        assert_eq!(slots.take(ip("10.0.0.1")).unwrap_err(), Refused::PerIp);
        let _other = slots.take(ip("10.0.0.2")).unwrap();
        assert_eq!(slots.take(ip("10.0.0.3")).unwrap_err(), Refused::Total);
        drop(first);
        assert!(slots.take(ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_peers_that_left() {
        let slots = Slots::new(10, 10);
        for host in 1..=100 {
            drop(slots.take(ip(&format!("10.0.0.{host}"))).unwrap());
        }
        assert!(slots.taken.lock().unwrap().by_peer.is_empty());
        assert_eq!(slots.taken.lock().unwrap().total, 0);
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_a_mapped_address_is_its_ipv4_one() {
        let slots = Slots::new(10, 1);
        let _one = slots.take(ip("fd00::1")).unwrap();
        assert_eq!(slots.take(ip("fd00::2")).unwrap_err(), Refused::PerIp);
        assert!(slots.take(ip("fd00:0:0:1::2")).is_ok());
        let _four = slots.take(ip("10.0.0.1")).unwrap();
        assert_eq!(slots.take(ip("::ffff:10.0.0.1")).unwrap_err(), Refused::PerIp);
    }
}
