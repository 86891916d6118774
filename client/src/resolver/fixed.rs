//! Endpoints known beforehand: a list given by the caller, or the registry's own addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::Address;

use super::{Resolution, ResolutionStatus, Resolutions, ResolvedEndpoint, Standing};

/// How long one look-up of a name may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How often names are looked up again while all of them are known; a common TTL of service records.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);
/// How often while one of them is not.
const LOOKUP_RETRY: Duration = Duration::from_secs(1);

/// A host, by name or by number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostPort {
    /// Nothing to look up.
    Address(SocketAddr),
    /// To be looked up, again and again.
    Name(Arc<str>, u16),
}

impl HostPort {
    /// A host as it stands in a URL: a name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Self::Address(SocketAddr::new(ip, port)),
            Err(_) => Self::Name(host.into(), port),
        }
    }
}

impl Resolution {
    /// Endpoints at fixed addresses, all alive, equal in weight, with ids that follow from the addresses.
    pub fn fixed(addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut endpoints: Vec<ResolvedEndpoint> = addresses
            .into_iter()
            .map(|address| ResolvedEndpoint {
                instance_id: id_of(&address),
                incarnation: 1,
                address,
                zone: "".into(),
                weight: 100,
                standing: Standing::Alive,
                load: None,
                methods: Arc::default(),
                descriptor_digest: None,
            })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.instance_id);
        endpoints.dedup_by_key(|endpoint| endpoint.instance_id);
        let status = if endpoints.is_empty() { ResolutionStatus::Empty } else { ResolutionStatus::Resolved };
        Self { endpoints, status }
    }
}

/// A resolution that never changes.
pub(crate) fn constant(resolution: Resolution) -> Resolutions {
    watch::channel(Arc::new(resolution)).1
}

/// Follows hosts: at once where all are addresses, else by look-ups on the current tokio runtime, until the last receiver
/// is gone. A name that cannot be looked up any more keeps its last addresses.
pub(crate) fn follow(hosts: Vec<HostPort>) -> Resolutions {
    let known: Vec<Vec<Address>> = hosts
        .iter()
        .map(|host| match host {
            HostPort::Address(address) => vec![Address::Tcp(*address)],
            HostPort::Name(..) => Vec::new(),
        })
        .collect();
    if known.iter().all(|addresses| !addresses.is_empty()) {
        return constant(Resolution::fixed(known.into_iter().flatten()));
    }
    let (sender, receiver) = watch::channel(Arc::new(Resolution::unresolved()));
    tokio::spawn(async move {
        tokio::select! {
            () = look_up(hosts, known, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn look_up(hosts: Vec<HostPort>, mut known: Vec<Vec<Address>>, sender: &watch::Sender<Arc<Resolution>>) {
    loop {
        let mut all_known = true;
        for (host, addresses) in hosts.iter().zip(&mut known) {
            let HostPort::Name(name, port) = host else { continue };
            match timeout(LOOKUP_MAX, lookup_host((&**name, *port))).await {
                Ok(Ok(found)) => *addresses = found.map(Address::Tcp).collect(),
                Ok(Err(error)) => tracing::debug!(host = %name, %error, "look-up failed"),
                Err(_) => tracing::debug!(host = %name, "look-up took too long"),
            }
            all_known &= !addresses.is_empty();
        }
        let mut next = Resolution::fixed(known.iter().flatten().cloned());
        if next.endpoints.is_empty() {
            next = Resolution::unresolved();
        }
        sender.send_if_modified(|current| {
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        sleep(if all_known { LOOKUP_INTERVAL } else { LOOKUP_RETRY }).await;
    }
}

/// An id that stands for an address, so that an address keeps its statistics from one list to the next.
fn id_of(address: &Address) -> Uuid {
    let digest = Sha256::digest(address.to_string());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_list_is_resolved_and_holds_each_address_once() {
        let address: Address = "127.0.0.1:7410".parse().unwrap();
        let other: Address = "127.0.0.1:7411".parse().unwrap();
        let resolution = Resolution::fixed([address.clone(), other.clone(), address.clone()]);
        assert_eq!(resolution.endpoints.len(), 2);
        assert_eq!(resolution.status, ResolutionStatus::Resolved);
        assert_eq!(Resolution::fixed([other, address]), resolution);
    }

    #[test]
    fn hosts_in_numbers_need_no_look_up() {
        assert_eq!(HostPort::new("[::1]", 7400), HostPort::Address("[::1]:7400".parse().unwrap()));
        assert_eq!(HostPort::new("localhost", 7400), HostPort::Name("localhost".into(), 7400));
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let mut resolutions = follow(vec![HostPort::new("localhost", 7400)]);
        let resolved = resolutions.wait_for(|now| now.status == ResolutionStatus::Resolved).await.unwrap();
        assert!(resolved.endpoints.iter().all(|endpoint| endpoint.address.tcp().unwrap().ip().is_loopback()));
    }
}
