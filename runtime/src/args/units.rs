//! Values that people type: durations with a unit, registry addresses, names.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

/// Reads `30s`, `500ms`, `2m` or `1h`; a bare number is seconds. The value parser of every flag that is a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number and a unit, such as 30s or 500ms".to_owned())?;
    let millis_each = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => return Err(format!("unknown unit {other:?}, expected ms, s, m or h")),
    };
    number.checked_mul(millis_each).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// Reads a duration between a second and a day.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    const ALLOWED: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    let age = duration(text)?;
    if ALLOWED.contains(&age) { Ok(age) } else { Err("expected 1s to 24h".to_owned()) }
}

/// Reads a drain deadline: nothing to an hour.
pub(super) fn drain(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout <= Duration::from_secs(60 * 60) { Ok(timeout) } else { Err("expected at most 1h".to_owned()) }
}

/// Reads `HOST:PORT` or `http://HOST:PORT` and gives it back without the scheme. Names are looked up when a connection
/// is made, so a registry that is not there yet is no fault.
pub(super) fn registry(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with("https://") {
        return Err("https is not supported yet, expected HOST:PORT or http://HOST:PORT".to_owned());
    }
    let authority = text.strip_prefix("http://").unwrap_or(text);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.parse::<SocketAddr>().is_ok() {
        return Ok(authority.to_owned());
    }
    let (host, port) =
        authority.rsplit_once(':').ok_or("expected HOST:PORT or http://HOST:PORT, the port is missing")?;
    let hostlike = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(hostlike) {
        return Err("expected HOST:PORT or http://HOST:PORT".to_owned());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(authority.to_owned()),
        Ok(0) | Err(_) => Err(format!("{port:?} is not a port, expected 1 to 65535")),
    }
}

/// Reads an address that others can dial. Port 0 stands for the port that was bound.
pub fn advertised(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected IP:PORT".to_owned())?;
    let ip = address.ip();
    if nobody_dials(ip) {
        return Err(format!("nobody can dial {ip}"));
    }
    Ok(address)
}

/// Whether an address means nothing, many, or something else on every link: what a registry refuses too.
pub(crate) fn nobody_dials(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let kind = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    kind || ip.is_unspecified() || ip.is_multicast()
}

/// Reads the identity of a process: any UUID but the nil one, which is what a forgotten value looks like.
pub(super) fn instance_id(text: &str) -> Result<Uuid, String> {
    let id: Uuid = text.parse().map_err(|_| "expected a UUID".to_owned())?;
    if id.is_nil() { Err("the nil UUID names nobody".to_owned()) } else { Ok(id) }
}

/// Reads the name of a zone: at most 63 bytes of letters, digits, `.`, `_` and `-`; empty is unknown.
pub(super) fn zone(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 63;
    let namelike = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() > BYTES_MAX || !text.chars().all(namelike) {
        return Err(format!("expected at most {BYTES_MAX} letters, digits, '.', '_' and '-'"));
    }
    Ok(text.to_owned())
}

/// Reads the name of a folder; the empty one is what a forgotten variable looks like.
pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a folder".to_owned()) } else { Ok(PathBuf::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "-1s", "1.5s", "1d", "10 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(age("0s").is_err() && age("25h").is_err() && age("24h").is_ok());
        assert!(drain("0s").is_ok() && drain("2h").is_err());
    }

    #[test]
    fn a_registry_is_named_with_or_without_its_scheme() {
        for (text, authority) in [
            ("127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://registry.internal:7400/", "registry.internal:7400"),
            ("[::1]:7400", "[::1]:7400"),
        ] {
            assert_eq!(registry(text).as_deref(), Ok(authority));
        }
        for wrong in
            ["", "registry", "http://", ":7400", "a b:1", "registry:0", "registry:70000", "https://r:1", "u@h:1"]
        {
            assert!(registry(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_an_address_that_can_be_dialled_is_advertised() {
        assert!(advertised("10.0.0.5:7410").is_ok());
        assert!(advertised("[fd00::5]:0").is_ok());
        for wrong in [
            "0.0.0.0:7410",
            "[::]:7410",
            "[::ffff:0.0.0.0]:7410",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "169.254.1.1:1",
            "[fe80::1]:1",
            "host:7410",
            "10.0.0.5",
        ] {
            assert!(advertised(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_nil_uuid_names_nobody() {
        assert!(instance_id("00000000-0000-7000-8000-000000000001").is_ok());
        assert!(instance_id("00000000-0000-0000-0000-000000000000").is_err() && instance_id("one").is_err());
    }

    #[test]
    fn a_zone_is_a_short_plain_name() {
        assert!(zone("eu-1a").is_ok() && zone("").is_ok());
        assert!(zone("eu 1").is_err() && zone(&"z".repeat(64)).is_err());
    }
}
