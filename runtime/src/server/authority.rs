//! Whose name a call is for. Addresses are reused: a caller with an old list can reach a process that took the port
//! over, and must hear that it is the wrong one before anything is done.

use std::net::IpAddr;

/// The mesh names that a process answers to; without any, every name passes.
#[derive(Debug, Clone, Default)]
pub(super) struct Authorities(Vec<String>);

impl Authorities {
    pub(super) fn add(&mut self, name: String) {
        self.0.push(name);
    }

    /// The stranger that a call with this `:authority` was meant for, if it is not us.
    ///
    /// Only a bare mesh name says so: 1 to 253 bytes of letters, digits, `.` and `-`, and no port. Addresses,
    /// `localhost` and `host:port` are what people and proxies put there, and they know where they dialled.
    pub(super) fn stranger<'a>(&self, authority: Option<&'a str>) -> Option<&'a str> {
        const BYTES_MAX: usize = 253;
        let name = authority?;
        if self.0.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let bare = (1..=BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        let ours = self.0.iter().any(|own| own.eq_ignore_ascii_case(name));
        (bare && !ours).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_mesh_name_that_is_not_ours_is_a_stranger() {
        let ours = Authorities(vec!["user-svc".to_owned(), "users".to_owned()]);
        for (authority, passes) in [
            (None, true),
            (Some("user-svc"), true),
            (Some("User-Svc"), true),
            (Some("users"), true),
            (Some("127.0.0.1"), true),
            (Some("127.0.0.1:7410"), true),
            (Some("::1"), true),
            (Some("[::1]"), true),
            (Some("[::1]:7410"), true),
            (Some("localhost"), true),
            (Some("LOCALHOST"), true),
            (Some("localhost:7410"), true),
            (Some("user-svc:7410"), true),
            (Some("order-svc:7410"), true),
            (Some("someone@order-svc"), true),
            (Some(""), true),
            (Some("order-svc"), false),
            (Some("Order-Svc"), false),
            (Some("user-svc.prod"), false),
            (Some("user-svc2"), false),
            (Some("users.example.com"), false),
            (Some("1.2.3"), false),
        ] {
            assert_eq!(ours.stranger(authority).is_none(), passes, "{authority:?}");
        }
        let nobody = Authorities::default();
        assert_eq!(nobody.stranger(Some("order-svc")), None, "without a name of its own a server takes any");
    }
}
