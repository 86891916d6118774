//! `explain SERVICE`: where a caller's next call would go, and why nowhere else.

use std::time::Duration;

use mesh_client::{
    Balancer, ConnectivityState, EndpointExplanation, Explanation, MeshChannel, Policy, Standing, Verdict,
};
use mesh_runtime::{clock, code_name};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::args::{ExplainArgs, Format, Globals};
use crate::commands::caller::{Caller, caller};
use crate::commands::words;
use crate::failure::Failure;
use crate::output::{columns, note, print, trimmed};

/// How often the channel is looked at until it has tried every endpoint.
const LOOK: Duration = Duration::from_millis(10);

/// `meshctl explain SERVICE`. Being a caller is the only way to know: which endpoints answer this machine is not the
/// registry's to say. All of it has one deadline; what is not known by then is shown as it is.
pub(crate) async fn explain(globals: &Globals, args: &ExplainArgs) -> Result<(), Failure> {
    let deadline = clock::now() + globals.timeout;
    let Caller { mesh, known } = caller(globals, &args.caller, &args.service, deadline).await?;
    if let Some(known) = known
        && known.instances.is_empty()
    {
        note(&format!("{} is known and has no instances ({})", args.service, words::presence(known.presence())));
        return Ok(());
    }

    let seen = settled(&mesh.channel(&args.service), deadline).await;
    let Explanation { endpoints, .. } = &seen;
    if endpoints.is_empty() {
        return Err(Failure::Failed(format!("{} has not been resolved within {:?}", args.service, globals.timeout)));
    }
    if !endpoints.iter().all(is_settled) {
        note(&format!("note: not every endpoint has answered or failed within {:?}", globals.timeout));
    }
    match globals.output {
        Format::Json => print_json(&seen),
        Format::Table => print_table(&seen),
    }
}

/// Waits until every endpoint is connected or has failed once, or the deadline has come.
async fn settled(channel: &MeshChannel, deadline: Instant) -> Explanation {
    loop {
        let seen = channel.explain();
        let complete = !seen.endpoints.is_empty() && seen.endpoints.iter().all(is_settled);
        if complete || clock::now() >= deadline {
            return seen;
        }
        sleep(LOOK).await;
    }
}

fn is_settled(endpoint: &EndpointExplanation) -> bool {
    match endpoint.verdict {
        // Nobody connects to these.
        Verdict::OutsideSubset | Verdict::Draining => true,
        _ => matches!(endpoint.connectivity, ConnectivityState::Ready | ConnectivityState::TransientFailure),
    }
}

fn print_table(seen: &Explanation) -> Result<(), Failure> {
    let picked = seen.endpoints.iter().filter(|endpoint| endpoint.verdict.is_picked()).count();
    print(&format!(
        "{} is {} to this caller: {picked} of {} endpoints picked\n",
        seen.service,
        seen.state,
        seen.endpoints.len(),
    ))?;
    let rules = rules(&seen.policy).map(|(about, words)| format!("  {about:10}{words}\n"));
    print(&format!("{}\n", rules.concat()))?;
    let header = ["INSTANCE", "ADDRESS", "ZONE", "WEIGHT", "STATE", "LATENCY", "IN FLIGHT", "PICKED", "WHY"];
    let mut table = columns(&header);
    for endpoint in &seen.endpoints {
        table.add_row([
            endpoint.instance_id.to_string(),
            words::plain(&endpoint.address.to_string()),
            words::plain(&endpoint.zone),
            endpoint.weight.to_string(),
            endpoint.connectivity.to_string(),
            endpoint.latency.map_or_else(|| "-".to_owned(), latency_words),
            endpoint.in_flight.to_string(),
            if endpoint.verdict.is_picked() { "yes" } else { "no" }.to_owned(),
            match &endpoint.verdict {
                Verdict::Picked => "-".to_owned(),
                verdict => words::plain(&verdict.to_string()),
            },
        ]);
    }
    print(&trimmed(&table))
}

/// The service, then its endpoints, an object a line.
fn print_json(seen: &Explanation) -> Result<(), Failure> {
    let rules: serde_json::Map<_, _> =
        rules(&seen.policy).into_iter().map(|(about, words)| (about.to_owned(), words.into())).collect();
    let service = json!({
        "service": seen.service,
        "state": seen.state.to_string(),
        "policy": rules,
        "endpoints": seen.endpoints.len(),
        "waiting": seen.waiting,
        "inFlight": seen.in_flight,
    });
    print(&service.to_string())?;
    for endpoint in &seen.endpoints {
        let line = json!({
            "service": seen.service,
            "instanceId": endpoint.instance_id.to_string(),
            "address": endpoint.address.to_string(),
            "zone": *endpoint.zone,
            "weight": endpoint.weight,
            "standing": standing_label(endpoint.standing),
            "state": endpoint.connectivity.to_string(),
            "connections": endpoint.connections,
            "latencySeconds": endpoint.latency.map(|latency| latency.as_secs_f64()),
            "inFlight": endpoint.in_flight,
            "failuresInARow": endpoint.failures_in_a_row,
            "picked": endpoint.verdict.is_picked(),
            "verdict": verdict_label(&endpoint.verdict),
            "reason": endpoint.verdict.to_string(),
        });
        print(&line.to_string())?;
    }
    Ok(())
}

/// The rules of a service: what each is about, and what it says.
fn rules(policy: &Policy) -> [(&'static str, String); 5] {
    let mut picks = vec![balancer_words(&policy.balancer)];
    if policy.zone_first {
        picks.push("own zone first".to_owned());
    }
    if let Some(most) = policy.subset_max {
        picks.push(format!("of {most} endpoints at most"));
    }
    if let Some(slow) = policy.slow_start {
        let (from, window) = (slow.share_min.get(), words::span(slow.window));
        picks.push(format!("slow start from {from} % over {window}"));
    }
    if policy.panic_threshold.get() > 0 {
        picks.push(format!("of all when fewer than {} % are fit", policy.panic_threshold.get()));
    }
    let ejection = match policy.ejection {
        Some(rule) => format!("after {} failures in a row, for {} at first", rule.failures, words::span(rule.base)),
        None => "never".to_owned(),
    };
    let retries = match policy.retry.attempts_max {
        ..=1 => "none".to_owned(),
        most => {
            let codes: Vec<_> = policy.retry.codes.iter().map(|code| code_name(*code)).collect();
            format!("up to {most} attempts where repeating is safe, on {}", codes.join(" and "))
        }
    };
    let hedging = match policy.hedging {
        Some(rule) => format!("after the 95th percentile of latencies, {} at least", words::span(rule.delay_min)),
        None => "never".to_owned(),
    };
    let failfast = format!("after {} without a READY endpoint", words::span(policy.failfast));
    [
        ("picks", picks.join("; ")),
        ("ejection", ejection),
        ("retries", retries),
        ("hedging", hedging),
        ("failfast", failfast),
    ]
}

fn balancer_words(balancer: &Balancer) -> String {
    match balancer {
        Balancer::PeakEwma => "the faster of two, by peak EWMA".to_owned(),
        Balancer::LeastRequest => "the less busy of two".to_owned(),
        Balancer::RoundRobin => "round robin".to_owned(),
        Balancer::WeightedRoundRobin => "round robin by weight".to_owned(),
        Balancer::Random => "random by weight".to_owned(),
        Balancer::RingHash(ring) => match &ring.key_header {
            Some(header) => format!("ring hash of {header}"),
            None => "ring hash".to_owned(),
        },
    }
}

/// "240us", "1.2ms", "3.4s".
fn latency_words(latency: Duration) -> String {
    match latency.as_micros() {
        micros @ 0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{:.1}ms", latency.as_secs_f64() * 1e3),
        _ => format!("{:.1}s", latency.as_secs_f64()),
    }
}

fn standing_label(standing: Standing) -> &'static str {
    match standing {
        Standing::Alive => "ALIVE",
        Standing::Suspect => "SUSPECT",
        Standing::Stale => "STALE",
        Standing::Lapsed => "LAPSED",
        Standing::Draining => "DRAINING",
    }
}

fn verdict_label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Picked => "PICKED",
        Verdict::WarmingUp { .. } => "WARMING_UP",
        Verdict::OtherZone { .. } => "OTHER_ZONE",
        Verdict::Panic { .. } => "PANIC",
        Verdict::OnTrial => "ON_TRIAL",
        Verdict::Ejected { .. } => "EJECTED",
        Verdict::Full => "FULL",
        Verdict::Doubted => "DOUBTED",
        Verdict::Draining => "DRAINING",
        Verdict::NotConnected { .. } => "NOT_CONNECTED",
        Verdict::OutsideSubset => "OUTSIDE_SUBSET",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_words() {
        let told = rules(&Policy::default()).map(|(_, words)| words);
        assert_eq!(
            told,
            [
                "the faster of two, by peak EWMA; own zone first; of 100 endpoints at most; of all when fewer than 50 % are fit",
                "after 5 failures in a row, for 5.0s at first",
                "up to 3 attempts where repeating is safe, on UNAVAILABLE and INTERNAL",
                "after the 95th percentile of latencies, 50ms at least",
                "after 3.0s without a READY endpoint",
            ]
        );
    }

    #[test]
    fn latencies_keep_what_matters() {
        let latencies = [240, 1_240, 3_400_000].map(|micros| latency_words(Duration::from_micros(micros)));
        assert_eq!(latencies, ["240us", "1.2ms", "3.4s"]);
    }
}
