//! Wire values as people read them.

use std::net::IpAddr;
use std::time::Duration;

use mesh_api::registry::v1::{
    AdminState, Instance, Liveness, Protocol, RemovalHold, RemovalHoldReason, RemovalReason, ServicePresence,
    ServingStatus,
};

pub(crate) fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Unspecified => "-",
        Liveness::Alive => "ALIVE",
        Liveness::Suspect => "SUSPECT",
        Liveness::Stale => "STALE",
    }
}

pub(crate) fn serving(status: ServingStatus) -> &'static str {
    match status {
        ServingStatus::Unspecified => "-",
        ServingStatus::Serving => "SERVING",
        ServingStatus::NotServing => "NOT_SERVING",
        ServingStatus::Draining => "DRAINING",
    }
}

pub(crate) fn admin(state: AdminState) -> &'static str {
    match state {
        AdminState::Unspecified => "-",
        AdminState::Enabled => "ENABLED",
        AdminState::Draining => "DRAINING",
        AdminState::Disabled => "DISABLED",
    }
}

pub(crate) fn presence(presence: ServicePresence) -> &'static str {
    match presence {
        ServicePresence::Unspecified => "-",
        ServicePresence::Unknown => "UNKNOWN",
        ServicePresence::Populated => "POPULATED",
        ServicePresence::Emptied => "EMPTIED",
        ServicePresence::Lapsed => "LAPSED",
    }
}

pub(crate) fn removal(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Unspecified => "not listed any more",
        RemovalReason::Deregistered => "deregistered",
        RemovalReason::Expired => "expired",
        RemovalReason::Superseded => "superseded by a newer start",
        RemovalReason::Operator => "removed by an operator",
    }
}

/// Why removals by silence are held back, and for how long yet.
pub(crate) fn hold(hold: &RemovalHold) -> String {
    let reason = match hold.reason() {
        RemovalHoldReason::Unspecified => "held back",
        RemovalHoldReason::Rate => "RATE: this window's share of removals is used up",
        RemovalHoldReason::LastInstance => "LAST_INSTANCE: silence alone does not remove the last one",
        RemovalHoldReason::MajoritySilent => "MAJORITY_SILENT: more than half fell silent together",
    };
    let remaining = hold.remaining.and_then(|remaining| Duration::try_from(remaining).ok()).unwrap_or_default();
    let held = hold.instances_held;
    format!("{reason}; {held} kept as STALE for at most {}", span(remaining))
}

/// A time for people: "950ms", "3.2s", "9m50s", "1h0m".
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Where an instance is called: where it answers gRPC, of several such endpoints at the first; of one that has none, such as a
/// gateway, the first of all.
pub(crate) fn main_address(instance: &Instance) -> String {
    let grpc = instance.endpoints.iter().find(|endpoint| endpoint.protocol() == Protocol::Grpc);
    match grpc.or_else(|| instance.endpoints.first()) {
        None => "-".to_owned(),
        Some(endpoint) => match endpoint.ip.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", endpoint.port),
            _ => format!("{}:{}", endpoint.ip, endpoint.port),
        },
    }
}

/// Text that a registry handed through from elsewhere: an instance may call its zone an escape sequence, and a terminal
/// would obey.
pub(crate) fn plain(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_tells_why_and_how_long() {
        let held = RemovalHold {
            reason: RemovalHoldReason::LastInstance.into(),
            remaining: Some(prost_types::Duration { seconds: 3599, nanos: 0 }),
            instances_held: 1,
        };
        assert_eq!(
            hold(&held),
            "LAST_INSTANCE: silence alone does not remove the last one; 1 kept as STALE for at most 59m59s"
        );
    }

    #[test]
    fn spans_keep_what_matters() {
        let spans = [950, 3_210, 590_000, 3_600_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["950ms", "3.2s", "9m50s", "1h0m"]);
    }

    #[test]
    fn a_terminal_is_not_commanded_by_a_zone() {
        assert_eq!(plain("eu\u{1b}[2J"), "eu\u{fffd}[2J");
    }
}
