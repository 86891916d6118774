//! Who the client is: the peer of its connection, or who the trusted proxies in between say that it is.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Most entries of the list that are looked at, from its end: as many proxies as anybody has in a row.
const HOPS_MAX: usize = 32;

/// The proxies whose word on their own clients is taken.
///
/// `X-Forwarded-For` is a list to which every proxy adds the address that it was called from, so what stands at its end was
/// added by the one that called us. It is read from there, for as long as whoever added an entry is trusted; without a
/// trusted proxy it is not read at all, since any client can send one.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpAddr>);

impl FromIterator<IpAddr> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().map(|address| address.to_canonical()).collect())
    }
}

impl TrustedProxies {
    /// The client of a request that came from this peer.
    pub(super) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.ip().to_canonical();
        if !self.0.contains(&client) {
            return client;
        }
        let lists: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().map(|list| list.to_str().unwrap_or_default()).collect();
        for hop in lists.iter().rev().flat_map(|list| list.rsplit(',')).take(HOPS_MAX) {
            let Some(address) = address(hop.trim()) else { break };
            client = address;
            if !self.0.contains(&client) {
                break;
            }
        }
        client
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(trusted: &[&str], peer: &str, lists: &[&str]) -> String {
        let trusted: TrustedProxies = trusted.iter().map(|address| address.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(list).unwrap());
        }
        trusted.client(SocketAddr::new(peer.parse().unwrap(), 1), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        assert_eq!(client(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.2"], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&[], "::ffff:10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_chain_of_trusted_proxies_leads_to_the_client_and_no_further() {
        let trusted = ["10.0.0.1", "10.0.0.2"];
        assert_eq!(client(&trusted, "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, nonsense"]), "10.0.0.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client(&trusted, "10.0.0.1", &["1.2.3.4:99"]), "1.2.3.4");
    }
}
