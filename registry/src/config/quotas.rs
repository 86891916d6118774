//! The flags that bound what is held and let in: count or rate in the help, range checked as they are read.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use mesh_runtime::duration;

use crate::catalog::Limits;
use crate::front::{Quotas, Rate, Share};

/// Quotas: a refusal is RESOURCE_EXHAUSTED, tells when to come back, and touches nothing that is there already.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Quotas (past one of them: RESOURCE_EXHAUSTED and when to try again)")]
pub(super) struct QuotaArgs {
    /// Most services known, over all namespaces: 1 to 1000000
    #[arg(long, env = "MESH_MAX_SERVICES", value_name = "COUNT", default_value = "20000", value_parser = held())]
    max_services: usize,

    /// Most instances registered, over all services: 1 to 1000000; about 1 KiB of memory each
    #[arg(long, env = "MESH_MAX_INSTANCES", value_name = "COUNT", default_value = "200000", value_parser = held())]
    max_instances: usize,

    /// Most instances of one service: 1 to 1000000
    #[arg(long, env = "MESH_MAX_INSTANCES_PER_SERVICE", value_name = "COUNT", default_value = "1000", value_parser = held())]
    max_instances_per_service: usize,

    /// Most admin rules of one service: 1 to 10000
    #[arg(long, env = "MESH_MAX_RULES_PER_SERVICE", value_name = "COUNT", default_value = "256",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    max_rules_per_service: usize,

    /// Most watch streams open at a time: 1 to 1000000
    #[arg(long, env = "MESH_MAX_WATCH_STREAMS", value_name = "COUNT", default_value = "20000", value_parser = open())]
    max_watch_streams: u32,

    /// Most of them from one address (with IPv6 from one /64): 1 to 1000000
    #[arg(long, env = "MESH_MAX_WATCH_STREAMS_PER_IP", value_name = "COUNT", default_value = "1024", value_parser = open())]
    max_watch_streams_per_ip: u32,

    /// Most of them on one connection: 1 to 1000000
    #[arg(long, env = "MESH_MAX_WATCH_STREAMS_PER_CONNECTION", value_name = "COUNT", default_value = "100", value_parser = open())]
    max_watch_streams_per_connection: u32,

    /// Most services followed, summed over watch streams: 1 to 10000000; about 1 KiB of memory each. One stream follows at
    /// most 1000
    #[arg(long, env = "MESH_MAX_WATCHED_NAMES", value_name = "COUNT", default_value = "500000", value_parser = followed())]
    max_watched_names: u32,

    /// Most of them from one address (with IPv6 from one /64): 1 to 10000000
    #[arg(long, env = "MESH_MAX_WATCHED_NAMES_PER_IP", value_name = "COUNT", default_value = "50000", value_parser = followed())]
    max_watched_names_per_ip: u32,

    /// Most of them on one connection: 1 to 10000000
    #[arg(long, env = "MESH_MAX_WATCHED_NAMES_PER_CONNECTION", value_name = "COUNT", default_value = "5000", value_parser = followed())]
    max_watched_names_per_connection: u32,

    /// Most heartbeat streams open at a time: 1 to 1000000
    #[arg(long, env = "MESH_MAX_HEARTBEAT_STREAMS", value_name = "COUNT", default_value = "50000", value_parser = open())]
    max_heartbeat_streams: u32,

    /// Most of them from one address (with IPv6 from one /64): 1 to 1000000
    #[arg(long, env = "MESH_MAX_HEARTBEAT_STREAMS_PER_IP", value_name = "COUNT", default_value = "1024", value_parser = open())]
    max_heartbeat_streams_per_ip: u32,

    /// Most of them on one connection: 1 to 1000000
    #[arg(long, env = "MESH_MAX_HEARTBEAT_STREAMS_PER_CONNECTION", value_name = "COUNT", default_value = "100", value_parser = open())]
    max_heartbeat_streams_per_connection: u32,

    /// Registrations taken per second: 1 to 1000000
    #[arg(long, env = "MESH_MAX_REGISTRATIONS_PER_SECOND", value_name = "COUNT", default_value = "10000", value_parser = open())]
    max_registrations_per_second: u32,

    /// Registrations taken per second from one address (with IPv6 from one /64): 1 to 1000000
    #[arg(long, env = "MESH_MAX_REGISTRATIONS_PER_SECOND_PER_IP", value_name = "COUNT", default_value = "2000", value_parser = open())]
    max_registrations_per_second_per_ip: u32,

    /// After a rest, registrations of so much time are taken at once: 1s to 10m
    #[arg(long, env = "MESH_REGISTRATION_BURST", value_name = "DURATION", default_value = "5s", value_parser = burst)]
    registration_burst: Duration,
}

impl QuotaArgs {
    /// How much the catalog holds.
    pub(super) fn limits(&self) -> Limits {
        let defaults = Limits::default();
        Limits {
            instances_per_service: self.max_instances_per_service,
            instances: self.max_instances,
            services: self.max_services,
            rules_per_service: self.max_rules_per_service,
            // Room for as many goodbyes as there can be instances, twice over where they all are of one service.
            tombstones_per_service: defaults.tombstones_per_service.max(2 * self.max_instances_per_service),
            tombstones: defaults.tombstones.max(self.max_instances),
        }
    }

    /// What the doors let in.
    pub(super) fn quotas(&self) -> Quotas {
        let rate = |per_second: u32| {
            // At most 600 s, and at most a million a second.
            let burst = u128::from(per_second) * self.registration_burst.as_millis() / 1_000;
            Rate { per_second, burst: u32::try_from(burst).unwrap_or(u32::MAX) }
        };
        Quotas {
            watch_streams: Share {
                in_all: self.max_watch_streams,
                per_address: self.max_watch_streams_per_ip,
                per_connection: self.max_watch_streams_per_connection,
            },
            heartbeat_streams: Share {
                in_all: self.max_heartbeat_streams,
                per_address: self.max_heartbeat_streams_per_ip,
                per_connection: self.max_heartbeat_streams_per_connection,
            },
            watched_names: Share {
                in_all: self.max_watched_names,
                per_address: self.max_watched_names_per_ip,
                per_connection: self.max_watched_names_per_connection,
            },
            registrations: rate(self.max_registrations_per_second),
            registrations_per_address: rate(self.max_registrations_per_second_per_ip),
            ..Quotas::default()
        }
    }
}

/// What the catalog holds.
fn held() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// What the doors keep open or let in.
fn open() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// What watchers follow.
fn followed() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=10_000_000)
}

fn burst(text: &str) -> Result<Duration, String> {
    let burst = duration(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(600);
    if allowed.contains(&burst) { Ok(burst) } else { Err("expected 1s to 10m".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parse(args: &[&str]) -> Result<QuotaArgs, clap::Error> {
        let command = QuotaArgs::augment_args(Command::new("registry"));
        let matches = command.try_get_matches_from([&["registry"], args].concat())?;
        QuotaArgs::from_arg_matches(&matches)
    }

    #[test]
    fn without_flags_the_defaults_of_the_types_hold() {
        let args = parse(&[]).expect("no flag is needed");
        assert_eq!((args.limits(), args.quotas()), (Limits::default(), Quotas::default()));
    }

    #[test]
    fn a_million_instances_are_a_flag_away_and_their_goodbyes_are_remembered() {
        let limits = parse(&["--max-instances", "1000000"]).expect("it is allowed").limits();
        assert_eq!((limits.instances, limits.tombstones), (1_000_000, 1_000_000));
        assert!(parse(&["--max-instances", "1000001"]).is_err());
    }

    #[test]
    fn every_flag_has_a_range_and_nothing_is_unlimited() {
        let command = QuotaArgs::augment_args(Command::new("registry"));
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            let long = format!("--{flag}");
            for wrong in ["0", "-1", "", "many", "99999999999", "0s", "11m"] {
                assert!(parse(&[&long, wrong]).is_err(), "{long} {wrong}");
            }
        }
    }

    #[test]
    fn the_largest_burst_of_the_fastest_pace_is_a_number() {
        let args = parse(&["--max-registrations-per-second", "1000000", "--registration-burst", "10m"]);
        assert_eq!(args.expect("both are allowed").quotas().registrations.burst, 600_000_000);
    }
}
