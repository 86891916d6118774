//! Registry URLs.

use http::uri::{Authority, Uri};

use super::ConfigError;
use crate::resolver::HostPort;

/// Said of a URL without a port, in the words of the command line.
const PORT_MISSING: &str = "expected HOST:PORT or http://HOST:PORT, the port is missing";

/// One registry as it was given: `http://` or nothing in front, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegistryAddress {
    /// Where it is.
    pub(super) host: HostPort,
    /// What calls to it say in `:authority`: a host with its port, which no server takes for a mesh name.
    pub(super) authority: Authority,
}

impl RegistryAddress {
    /// Reads one URL.
    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        let fault = |reason: &'static str| ConfigError::RegistryUrl { url: url.to_owned(), reason };
        let bare = match url.trim().split_once("://") {
            None => url.trim(),
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(fault("TLS to the registry is not supported")),
            Some(_) => return Err(fault("the scheme is not http")),
        };
        let uri: Uri = format!("http://{bare}").parse().map_err(|_| fault("not a host and port"))?;
        let given = uri.authority().ok_or_else(|| fault("the host is missing"))?;
        if uri.path() != "/" || uri.query().is_some() || given.as_str().contains('@') {
            return Err(fault("more than a host and port"));
        }
        let port = match (given.as_str()[given.host().len()..].strip_prefix(':'), given.port_u16()) {
            (None | Some(""), _) => return Err(fault(PORT_MISSING)),
            (Some(_), Some(port)) if port > 0 => port,
            (Some(_), _) => return Err(fault("the port is not in 1 to 65535")),
        };
        let authority = format!("{}:{port}", given.host()).parse().map_err(|_| fault("not a host and port"))?;
        Ok(Self { host: HostPort::new(given.host(), port), authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (HostPort, String) {
        let RegistryAddress { host, authority } = RegistryAddress::parse(url).unwrap();
        (host, authority.to_string())
    }

    #[test]
    fn urls_come_with_and_without_scheme() {
        let local = (HostPort::Address("127.0.0.1:7400".parse().unwrap()), "127.0.0.1:7400".to_owned());
        for url in ["127.0.0.1:7400", "http://127.0.0.1:7400", "http://127.0.0.1:7400/", " 127.0.0.1:7400 "] {
            assert_eq!(parsed(url), local, "{url}");
        }
        assert_eq!(parsed("registry:7500").0, HostPort::Name("registry".into(), 7500));
        assert_eq!(parsed("http://[::1]:7400").1, "[::1]:7400");
    }

    #[test]
    fn what_is_no_url_of_a_registry_is_refused() {
        for url in ["", "http://", "https://registry", "ftp://registry", "registry:0", "registry:99999", "a b", "h/x"] {
            assert!(RegistryAddress::parse(url).is_err(), "{url:?}");
        }
        for url in ["registry", "http://127.0.0.1", "[::1]", "[::1]:", "registry:"] {
            let refused = RegistryAddress::parse(url).unwrap_err().to_string();
            assert!(refused.ends_with("expected HOST:PORT or http://HOST:PORT, the port is missing"), "{refused}");
        }
    }
}
