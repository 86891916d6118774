//! The flags of the gateway, beside those of every server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use http::HeaderValue;
use mesh_runtime::auth::AuthArgs;
use mesh_runtime::{ProcessArgs, duration};

use crate::front::{Limits, origin};

/// The flags of the gateway.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,

    #[command(flatten)]
    pub(crate) auth: AuthArgs,

    /// Service that tells the keys that users' tokens are signed with
    #[arg(long, env = "MESH_JWKS_SERVICE", value_name = "NAME", default_value = "user-svc")]
    pub(crate) jwks_service: String,

    /// Private key that the gateway shows itself to services with, made by `meshctl key new`; services that trust it, for
    /// the issuer "gateway" and the role "service", believe what it says of its clients' addresses [default: none]
    #[arg(long, env = "MESH_SERVICE_KEY", value_name = "FILE")]
    pub(crate) service_key: Option<PathBuf>,

    /// Origins whose pages may call from a browser, such as `https://shop.example`; several are separated by commas [default:
    /// none]
    #[arg(long, env = "MESH_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub(crate) cors_origin: Vec<HeaderValue>,

    /// Addresses of the proxies in front, whose X-Forwarded-For is believed; several are separated by commas [default: none]
    #[arg(long, env = "MESH_TRUSTED_PROXY", value_name = "IP", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<IpAddr>,

    #[command(flatten)]
    pub(crate) request: RequestArgs,
}

/// What one request and one client may cost.
#[derive(Debug, Clone, Args)]
pub(crate) struct RequestArgs {
    /// Largest body of a request, in KiB
    #[arg(long, env = "MESH_MAX_BODY_KIB", value_name = "KIB", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_body_kib: u32,

    /// Largest message that a service may answer with, in KiB
    #[arg(long, env = "MESH_MAX_ANSWER_KIB", value_name = "KIB", default_value = "4096",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_answer_kib: u32,

    /// Most requests open at a time, streams included
    #[arg(long, env = "MESH_MAX_REQUESTS", value_name = "COUNT", default_value = "8192", value_parser = requests())]
    max_requests: u32,

    /// Most requests open at a time of one client address (of one /64 network with IPv6)
    #[arg(long, env = "MESH_MAX_REQUESTS_PER_CLIENT", value_name = "COUNT", default_value = "2048",
          value_parser = requests())]
    max_requests_per_client: u32,

    /// Longest time that a service may take where the request does not say
    #[arg(long, env = "MESH_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "15s", value_parser = patience)]
    request_timeout: Duration,

    /// Longest time that a request may ask for
    #[arg(long, env = "MESH_MAX_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = patience)]
    max_request_timeout: Duration,
}

impl RequestArgs {
    /// The limits of requests; what is wrong with them together otherwise.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        if self.request_timeout > self.max_request_timeout {
            return Err(format!(
                "--request-timeout {:?} is longer than --max-request-timeout {:?}",
                self.request_timeout, self.max_request_timeout
            ));
        }
        Ok(Limits {
            body_bytes: bytes(self.max_body_kib),
            message_bytes: bytes(self.max_answer_kib),
            requests: self.max_requests,
            requests_per_client: self.max_requests_per_client,
            timeout: self.request_timeout,
            timeout_max: self.max_request_timeout,
            ..Limits::default()
        })
    }
}

fn bytes(kib: u32) -> usize {
    usize::try_from(kib).unwrap_or(usize::MAX).saturating_mul(1024)
}

fn requests() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// Reads a duration between 10 milliseconds and an hour.
fn patience(text: &str) -> Result<Duration, String> {
    const ALLOWED: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60 * 60);
    let patience = duration(text)?;
    if ALLOWED.contains(&patience) { Ok(patience) } else { Err("expected 10ms to 1h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parsed(flags: &[&str]) -> RequestArgs {
        let command = RequestArgs::augment_args(Command::new("gateway"));
        let matches = command.try_get_matches_from([&["gateway"], flags].concat()).expect("the flags are fine");
        RequestArgs::from_arg_matches(&matches).expect("they have values")
    }

    #[test]
    fn without_flags_the_limits_are_the_defaults() {
        assert_eq!(parsed(&[]).limits(), Ok(Limits::default()));
    }

    #[test]
    fn a_timeout_beyond_the_longest_one_is_refused() {
        let args = parsed(&["--request-timeout", "2m"]);
        let refused = args.limits().expect_err("2 m are longer than 60 s");
        assert!(refused.contains("--max-request-timeout"), "{refused}");
    }
}
