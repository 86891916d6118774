//! What registries say, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{
    Instance, ListServicesRequest, Liveness, Position, Protocol, ResolveRequest, ServiceSummary,
};
use mesh_runtime::clock;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::finding::Finding;
use crate::args::RegistryUrl;
use crate::commands::words;
use crate::registry_client::connect_to;

/// Clocks that differ by more than this are a finding. Liveness does not care, it goes by monotonic time; ends of rules and
/// tombstones, and people who compare logs, do.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// Most pages read of one listing, of a thousand services each.
const PAGES_MAX: usize = 1000;

/// One registry and what came of asking it.
pub(super) struct Looked {
    pub(super) registry: RegistryUrl,
    pub(super) answer: Result<Seen, String>,
}

impl Looked {
    pub(super) fn seen(&self) -> Option<&Seen> {
        self.answer.as_ref().ok()
    }
}

/// A registry that answers.
pub(super) struct Seen {
    stubs: Option<RegistryServiceClient<Channel>>,
    version: String,
    clock: Option<ClockDifference>,
    position: Position,
    complete: bool,
    /// How long it has not been sure that what it tells is what the store holds; `None` while it is.
    stale_for: Option<Duration>,
    pub(super) services: Vec<ServiceSummary>,
}

/// How far its clock is before ours; negative is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ClockDifference {
    ahead_s: f64,
    /// Half of what the question took: it may have been read at any moment of it.
    unsure_s: f64,
}

impl ClockDifference {
    fn between(asked: SystemTime, theirs: SystemTime, answered: SystemTime) -> ClockDifference {
        let seconds = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        let (asked, theirs, answered) = (seconds(asked), seconds(theirs), seconds(answered));
        ClockDifference { ahead_s: theirs - (asked + answered) / 2.0, unsure_s: ((answered - asked) / 2.0).max(0.0) }
    }

    fn is_apart(self) -> bool {
        self.ahead_s.abs() - self.unsure_s > CLOCKS_APART.as_secs_f64()
    }
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.ahead_s < 0.0 { "behind" } else { "ahead" };
        write!(f, "{:.3} s {which} (give or take {:.3} s)", self.ahead_s.abs(), self.unsure_s)
    }
}

impl Seen {
    pub(super) fn store(&self) -> &str {
        &self.position.store_id
    }

    pub(super) fn in_words(&self) -> String {
        let instances: u32 = self.services.iter().map(|summary| summary.instances).sum();
        let clock = self.clock.map_or_else(|| "not told".to_owned(), |clock| clock.to_string());
        format!(
            "version {}, store {}, revision {}, clock {clock}, {} services, {instances} instances",
            words::plain(&self.version),
            words::plain(self.store()),
            self.position.revision,
            self.services.len()
        )
    }

    pub(super) fn json(&self, registry: &RegistryUrl) -> Value {
        json!({
            "address": registry.to_string(),
            "version": self.version,
            "storeId": self.store(),
            "generation": self.position.generation,
            "revision": self.position.revision,
            "complete": self.complete,
            "staleForSeconds": self.stale_for.map(|time| time.as_secs_f64()),
            "clockAheadSeconds": self.clock.map(|clock| clock.ahead_s),
            "clockUnsureSeconds": self.clock.map(|clock| clock.unsure_s),
            "services": self.services.len(),
        })
    }
}

/// Asks one registry what it knows.
pub(super) async fn look(registry: &RegistryUrl, namespace: &str, limit: Duration) -> Looked {
    let answer = match connect_to(registry, limit).await {
        Ok(channel) => seen(RegistryServiceClient::new(channel), namespace, limit).await,
        Err(why) => Err(why),
    };
    Looked { registry: registry.clone(), answer }
}

async fn seen(stubs: RegistryServiceClient<Channel>, namespace: &str, limit: Duration) -> Result<Seen, String> {
    let stubs = stubs.max_decoding_message_size(64 * 1024 * 1024);
    let mut seen = Seen {
        stubs: Some(stubs.clone()),
        version: String::new(),
        clock: None,
        position: Position::default(),
        complete: true,
        stale_for: None,
        services: Vec::new(),
    };
    let mut page_token = String::new();
    for number in 0..PAGES_MAX {
        let ask = ListServicesRequest { namespace: namespace.to_owned(), page_size: 1000, page_token };
        let asked = clock::wall();
        let page =
            stubs.clone().list_services(timed(ask, limit)).await.map_err(|status| in_words(&status))?.into_inner();
        let answered = clock::wall();
        if number == 0 {
            if let Some(process) = page.process {
                seen.version = process.version;
                let theirs = process.now.and_then(|now| SystemTime::try_from(now).ok());
                seen.clock = theirs.map(|theirs| ClockDifference::between(asked, theirs, answered));
            }
            seen.position = page.position.unwrap_or_default();
            let stale_for = || page.stale_for.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default();
            seen.stale_for = page.stale.then(stale_for);
        }
        seen.complete &= page.complete;
        seen.services.extend(page.services);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(seen)
}

fn timed<M>(message: M, limit: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn in_words(status: &Status) -> String {
    format!("{}: {}", mesh_runtime::code_name(status.code()), status.message())
}

/// What is wrong with what the registries say of themselves and of their services.
pub(super) fn findings(looked: &[Looked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Looked { registry, answer } in looked {
        let place = format!("registry {registry}");
        let seen = match answer {
            Ok(seen) => seen,
            Err(why) => {
                findings.push(Finding::error(
                    "unreachable",
                    place,
                    format!("no registry answers: {why}"),
                    "start it, or name another with --registry; services keep calling whom they knew, new ones find nobody",
                ));
                continue;
            }
        };
        if let Some(clock) = seen.clock.filter(|clock| clock.is_apart()) {
            findings.push(Finding::warning(
                "clock",
                place.clone(),
                format!("its clock is {clock}, compared with this machine's"),
                "synchronise both clocks; a registry reads its own when it starts, so restart it after that",
            ));
        }
        if let Some(time) = seen.stale_for {
            findings.push(Finding::error(
                "cut_off",
                place.clone(),
                format!("it has not heard from its store for {}: what it tells may be old", words::span(time)),
                "look at the store (etcd) and at the way there; callers go on with what they know, changes are refused",
            ));
        }
        if !seen.complete {
            findings.push(Finding::warning(
                "warming",
                place,
                "it started without its former state and does not know everybody yet".to_owned(),
                "wait for one TTL: instances register again by themselves",
            ));
        }
    }
    let seen = || looked.iter().filter_map(|looked| Some((&looked.registry, looked.seen()?)));
    let stores: BTreeSet<&str> = seen().map(|(_, seen)| seen.store()).collect();
    if stores.len() > 1 {
        let at = |store: &&str| {
            let there = seen().filter(|(_, seen)| seen.store() == *store);
            let there: Vec<String> = there.map(|(registry, _)| registry.to_string()).collect();
            format!("{store} at {}", there.join(" and "))
        };
        findings.push(Finding::error(
            "store_id",
            "these registries".to_owned(),
            format!("they do not share one store: {}", stores.iter().map(at).collect::<Vec<_>>().join(", ")),
            "give every process URLs of one store only: callers never mix two, so some find nobody",
        ));
    }
    let versions: BTreeSet<&str> = seen().map(|(_, seen)| seen.version.as_str()).collect();
    if versions.len() > 1 {
        let what = format!("their versions differ: {}", versions.into_iter().collect::<Vec<_>>().join(", "));
        let advice = "fine for as long as an upgrade takes; finish it";
        findings.push(Finding::warning("version", "these registries".to_owned(), what, advice));
    }
    let mut told = BTreeSet::new();
    for (_, seen) in seen() {
        for summary in &seen.services {
            let Some(hold) = &summary.removal_hold else { continue };
            if told.insert((seen.store(), &summary.service)) {
                findings.push(Finding::warning(
                    "removals_held",
                    words::plain(&summary.service),
                    format!("removals by silence are held back: {}", words::hold(hold)),
                    "find out why they are silent; remove those that are gone for good, or wait",
                ));
            }
        }
    }
    findings
}

/// Which nodes do not reach the position of the one that is furthest, within the second that a node waits for it.
pub(super) async fn behind(looked: &[Looked], limit: Duration) -> Vec<Finding> {
    let mut furthest: BTreeMap<&str, &Position> = BTreeMap::new();
    for seen in looked.iter().filter_map(Looked::seen) {
        let best = furthest.entry(seen.store()).or_insert(&seen.position);
        let ahead = |position: &Position| (position.generation, position.revision);
        if ahead(&seen.position) > ahead(best) {
            *best = &seen.position;
        }
    }
    let mut findings = Vec::new();
    for Looked { registry, answer } in looked {
        let Ok(seen) = answer else { continue };
        let Some(asked) = furthest.get(seen.store()).filter(|asked| ***asked != seen.position) else { continue };
        let Some(mut stubs) = seen.stubs.clone() else { continue };
        // What is known of the name does not matter: a node answers only once it has reached the position.
        let ask = ResolveRequest {
            service: "registry".to_owned(),
            at_least: Some((*asked).clone()),
            ..ResolveRequest::default()
        };
        let Err(status) = stubs.resolve(timed(ask, limit)).await else { continue };
        if status.get_error_details().error_info().is_some_and(|info| info.reason == "NODE_BEHIND") {
            findings.push(Finding::error(
                "behind",
                format!("registry {registry}"),
                format!("it is at revision {} and does not reach {}", seen.position.revision, asked.revision),
                "look at its log and at its way to the store; what it tells is old",
            ));
        }
    }
    findings
}

/// An instance, as one of the stores has it.
pub(super) struct Registered {
    pub(super) store: String,
    pub(super) instance: Instance,
}

impl Registered {
    /// The instance as a place.
    pub(super) fn place(&self) -> String {
        let Instance { service, instance_id, .. } = &self.instance;
        format!("{} {}", words::plain(service), words::plain(instance_id))
    }

    /// Where it says that it answers gRPC.
    pub(super) fn grpc_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let grpc = self.instance.endpoints.iter().filter(|endpoint| endpoint.protocol() == Protocol::Grpc);
        grpc.filter_map(|endpoint| {
            Some(SocketAddr::new(endpoint.ip.parse::<IpAddr>().ok()?, u16::try_from(endpoint.port).ok()?))
        })
    }
}

/// The instances of a service, or why they cannot be told. One that was deleted since it was listed has none.
pub(super) async fn instances(
    seen: &Seen,
    namespace: &str,
    service: &str,
    limit: Duration,
) -> Result<Vec<Registered>, Box<Finding>> {
    let Some(mut stubs) = seen.stubs.clone() else { return Ok(Vec::new()) };
    let ask = ResolveRequest { namespace: namespace.to_owned(), service: service.to_owned(), at_least: None };
    match stubs.resolve(timed(ask, limit)).await {
        Ok(answer) => {
            let store = seen.store();
            let of = |instance| Registered { store: store.to_owned(), instance };
            Ok(answer.into_inner().instances.into_iter().map(of).collect())
        }
        Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
        Err(status) => Err(Box::new(Finding::warning(
            "unlisted",
            words::plain(service),
            format!("its instances were not looked at: {}", in_words(&status)),
            "`meshctl watch` shows a service that is too large for one answer",
        ))),
    }
}

/// What its heartbeats say.
pub(super) fn liveness(registered: &Registered) -> Option<Finding> {
    let place = registered.place();
    match registered.instance.liveness() {
        Liveness::Suspect => Some(Finding::warning(
            "suspect",
            place,
            "it is SUSPECT: its heartbeats stopped a moment ago".to_owned(),
            "look again soon; if it stays so, look at the process and its way to the registry",
        )),
        Liveness::Stale => Some(Finding::warning(
            "stale",
            place,
            "it is STALE: silent for longer than its lease, and kept because its removal is held back".to_owned(),
            "start it again, or remove it if it is gone for good",
        )),
        Liveness::Unspecified | Liveness::Alive => None,
    }
}

/// Addresses that several instances advertise: at most one of them can be right.
pub(super) fn shared_addresses(registered: &[Registered]) -> Vec<Finding> {
    let mut by_address: BTreeMap<(&str, SocketAddr), Vec<&Registered>> = BTreeMap::new();
    for instance in registered {
        for address in instance.grpc_addresses() {
            by_address.entry((&instance.store, address)).or_default().push(instance);
        }
    }
    let shared = by_address.into_iter().filter(|(_, instances)| instances.len() > 1);
    let finding = |((_, address), instances): ((&str, SocketAddr), Vec<&Registered>)| {
        let who: Vec<String> = instances.iter().map(|instance| instance.place()).collect();
        Finding::warning(
            "shared_address",
            address.to_string(),
            format!("{} instances advertise it: {}", who.len(), who.join(", ")),
            "one of them is left over from before and goes when its lease ends, or has a wrong --advertise",
        )
    };
    shared.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1::{Endpoint, RemovalHold, RemovalHoldReason};

    use super::*;

    fn seen(store: &str, revision: u64) -> Seen {
        Seen {
            stubs: None,
            version: "0.1.0".to_owned(),
            clock: None,
            position: Position { store_id: store.to_owned(), generation: 0, revision },
            complete: true,
            stale_for: None,
            services: Vec::new(),
        }
    }

    fn looked(port: u16, answer: Result<Seen, String>) -> Looked {
        Looked { registry: SocketAddr::from(([127, 0, 0, 1], port)).into(), answer }
    }

    fn checks(looked: &[Looked]) -> Vec<&'static str> {
        findings(looked).iter().map(|finding| finding.check).collect()
    }

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_000.0 + seconds)
    }

    #[test]
    fn registries_of_one_store_that_agree_are_fine() {
        assert_eq!(checks(&[looked(1, Ok(seen("a", 7))), looked(2, Ok(seen("a", 8)))]), [""; 0]);
    }

    #[test]
    fn two_stores_behind_one_list_are_an_error_that_names_both() {
        let all = [looked(1, Ok(seen("a", 7))), looked(2, Ok(seen("b", 7))), looked(3, Ok(seen("a", 7)))];
        let found = findings(&all);
        assert_eq!(found.iter().map(|found| found.check).collect::<Vec<_>>(), ["store_id"]);
        assert!(found[0].what.contains("a at 127.0.0.1:1 and 127.0.0.1:3, b at 127.0.0.1:2"), "{}", found[0].what);
    }

    #[test]
    fn what_a_registry_says_of_itself_is_looked_at() {
        let old = Seen { version: "0.0.9".to_owned(), ..seen("a", 7) };
        let warming = Seen { complete: false, ..seen("a", 7) };
        let cut_off = Seen { stale_for: Some(Duration::from_secs(9)), ..seen("a", 7) };
        let down = looked(3, Err("connection refused".to_owned()));
        let all = [looked(1, Ok(old)), looked(2, Ok(warming)), down, looked(4, Ok(cut_off))];
        assert_eq!(checks(&all), ["warming", "unreachable", "cut_off", "version"]);
    }

    #[test]
    fn a_hold_is_told_once_for_each_store() {
        let holding = || {
            let hold = RemovalHold { reason: RemovalHoldReason::LastInstance.into(), ..RemovalHold::default() };
            let summary =
                ServiceSummary { service: "user-svc".to_owned(), removal_hold: Some(hold), ..Default::default() };
            Seen { services: vec![summary], ..seen("a", 7) }
        };
        assert_eq!(checks(&[looked(1, Ok(holding())), looked(2, Ok(holding()))]), ["removals_held"]);
    }

    #[test]
    fn clocks_are_apart_only_when_that_cannot_be_the_way_there() {
        let clock = ClockDifference::between(at(0.0), at(3.0), at(1.0));
        assert_eq!((clock.ahead_s, clock.unsure_s), (2.5, 0.5));
        assert!(!clock.is_apart());
        assert!(ClockDifference::between(at(0.0), at(3.1), at(1.0)).is_apart());
        assert!(ClockDifference::between(at(0.0), at(-2.5), at(0.1)).is_apart());
        let seen = Seen { clock: Some(ClockDifference::between(at(0.0), at(-5.0), at(0.0))), ..seen("a", 1) };
        let found = findings(&[looked(1, Ok(seen))]);
        assert!(found[0].what.contains("5.000 s behind"), "{}", found[0].what);
    }

    #[test]
    fn one_address_of_two_instances_is_found() {
        let endpoint =
            Endpoint { protocol: Protocol::Grpc.into(), ip: "10.0.0.1".to_owned(), port: 7410, ..Endpoint::default() };
        let registered = |id: &str, store: &str| Registered {
            store: store.to_owned(),
            instance: Instance {
                instance_id: id.to_owned(),
                service: "user-svc".to_owned(),
                endpoints: vec![endpoint.clone()],
                ..Instance::default()
            },
        };
        let found = shared_addresses(&[registered("1", "a"), registered("2", "a"), registered("3", "b")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "2 instances advertise it: user-svc 1, user-svc 2");
    }
}
