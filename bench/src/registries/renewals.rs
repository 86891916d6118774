//! What a renewal costs by itself, from a thousand leases to a million: it must not grow with them.
//!
//! The leases are those of the registry, in this process, with nothing around them. Time is an argument there, so it is
//! told to pass as it would: each lease is renewed once a third of its TTL, by messages of [`MESSAGE`] leases, and after each
//! message what fell due is looked at, as the engine does. So what it takes to look at deadlines that have moved is in it.

use std::fs;
use std::io::{self, BufRead, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry::catalog::{
    Committed, Endpoint, Generation, Identity, IdentityKey, Incarnation, InstanceId, InstanceSpec, Key, LeaseId,
    Leases, OpId, Position, Protocol, Record as Stored, Registration, Revision, ServiceKey, ServingStatus, StartNonce,
    State, StoreId, StreamId, Timestamp, Ttl, Write,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use uuid::Uuid;

use super::payload::INSTANCES_PER_SERVICE;
use crate::args::RenewArgs;
use crate::clock;
use crate::counting;
use crate::failure::Failure;
use crate::instructions::collected;
use crate::machine::{self, Cpus};
use crate::report::{self, Record};
use crate::{child, gate};

/// How many leases.
const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Renewals of a run at least: where there are fewer leases they come round again.
const RENEWALS_MIN: u32 = 100_000;
/// Leases in a message.
const MESSAGE: usize = 100;
/// Most that a renewal among the most leases may cost beside one among the fewest.
const GROWTH_MAX: f64 = 1.10;

/// What the measured renewals took together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Renewed {
    pub(crate) nanos: u64,
    pub(crate) renewals: u64,
    pub(crate) allocations: u64,
}

/// Tables, records and the verdict.
pub(super) struct Results {
    pub(super) table: String,
    pub(super) records: Vec<Record>,
    /// Whether instructions a renewal grow with the leases; `None` where they were not counted.
    pub(super) growth: Option<gate::Verdict>,
}

/// Every size: instructions where valgrind is, and the time.
pub(super) async fn measure(cpus: Cpus, out: &Path) -> Result<Results, Failure> {
    let counts = machine::has("valgrind") && machine::has("callgrind_control");
    let (mut rows, mut records, mut instructions) = (Vec::new(), Vec::new(), Vec::new());
    for leases in SIZES {
        eprintln!("renewals of {} leases ...", report::grouped(leases.into()));
        let args = RenewArgs { leases, waits: false };
        let timed: Renewed = child::renew(&args, cpus).await?;
        let each = |total: u64| total as f64 / timed.renewals as f64;
        let rate = 1e9 / each(timed.nanos);
        let counted = if counts {
            let profile = out.join("renew.callgrind");
            let renewed = child::renew_under_callgrind(&RenewArgs { leases, waits: true }, &profile).await?;
            let counted = collected(&profile)? as f64 / renewed.renewals as f64;
            fs::remove_file(&profile).map_err(Failure::io(format!("remove {}", profile.display())))?;
            instructions.push(counted);
            report::grouped(counted)
        } else {
            String::new()
        };
        rows.push(vec![
            report::grouped(leases.into()),
            counted,
            format!("{:.2}", each(timed.allocations)),
            format!("{:.0}", each(timed.nanos)),
            report::grouped(rate),
        ]);
        records.push(Record::alone(format!("renewal_rate_{leases}"), "renewals/s", rate));
    }
    let growth = match &instructions[..] {
        [few, .., many] => {
            let peer = format!("{} leases", SIZES[0]);
            records.push(Record::new("renewal_growth", "instructions", *many, *few, peer));
            Some(verdict(*few, *many))
        }
        _ => None,
    };
    let header = ["leases", "instructions each", "allocations each", "ns each", "renewals/s, one core"];
    Ok(Results { table: report::table("Renewals in process", &header, rows), records, growth })
}

/// Whether many leases cost what few do.
fn verdict(few: f64, many: f64) -> gate::Verdict {
    gate::Verdict {
        who: "a renewal",
        what: "of the instructions, 1 M leases for 1 k",
        figure: format!("{:.3}", many / few),
        budget: format!("{GROWTH_MAX:.3}"),
        is_kept: many <= few * GROWTH_MAX,
    }
}

/// The child's side: grants the leases, renews them, and prints [`Renewed`] on stdout. Under callgrind it waits in between
/// until it is told on stdin that instructions are counted now: granting a million would take minutes if they were.
pub(crate) fn renew(args: &RenewArgs) -> Result<(), Failure> {
    let mut held = Held::grant(args.leases);
    let rounds = RENEWALS_MIN.div_ceil(args.leases);
    // Until deadlines have been looked at again once, none is where it will be later.
    held.pass(3 + u32::from(args.leases < RENEWALS_MIN));
    if args.waits {
        println!("granted");
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(io::stdin().lock().read_line(&mut String::new()).is_ok()));
        // Whoever switches the count on is heard while instructions are executed, and not in a long sleep.
        while tells.try_recv().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let counted = counting::start();
    let begin = clock::now();
    measured(&mut held, rounds);
    let nanos = u64::try_from((clock::now() - begin).as_nanos()).unwrap_or(u64::MAX);
    let allocations = (counting::counted() - counted).allocations;
    let renewed = Renewed { nanos, renewals: u64::from(rounds) * u64::from(args.leases), allocations };
    println!("{}", serde_json::to_string(&renewed).expect("numbers are JSON"));
    io::stdout().flush().map_err(Failure::io("stdout"))
}

/// What callgrind collects, by its name.
#[inline(never)]
fn measured(held: &mut Held, rounds: u32) {
    held.pass(rounds);
}

/// Leases, in the order in which they are beaten for.
struct Held {
    leases: Leases,
    order: Vec<(LeaseId, Incarnation, StreamId)>,
    now: Timestamp,
}

impl Held {
    /// Grants so many, a service of [`INSTANCES_PER_SERVICE`] at a time.
    fn grant(count: u32) -> Self {
        let mut held = Self {
            leases: Leases::new(Duration::from_secs(3600)),
            order: Vec::new(),
            now: Timestamp::since_epoch(Duration::from_secs(1_000_000)),
        };
        let per_service = INSTANCES_PER_SERVICE as u32;
        for first in (0..count).step_by(INSTANCES_PER_SERVICE as usize) {
            held.grant_service(first, per_service.min(count - first));
        }
        // As instances come: in no order that has to do with where their leases lie.
        held.order.sort_by_key(|(lease, ..)| *lease);
        held
    }

    fn grant_service(&mut self, first: u32, count: u32) {
        let service = ServiceKey::parse("", &format!("svc-{first}")).expect("a name");
        let endpoint =
            Endpoint::new("grpc", Protocol::Grpc, IpAddr::V4(Ipv4Addr::LOCALHOST), 7410).expect("an endpoint");
        let spec = InstanceSpec::new(vec![endpoint]).expect("one endpoint is enough");
        let incarnation = Incarnation::new(1).expect("not zero");
        let writes = (first..first + count).map(|number| {
            let lease = LeaseId::new(scattered(u64::from(number)));
            self.order.push((lease, incarnation, StreamId::new(u64::from(number))));
            let id = InstanceId::new(Uuid::from_u128(u128::from(number) + 1)).expect("not nil");
            let registration = Registration {
                service: service.clone(),
                incarnation,
                nonce: StartNonce::new([7; 16]),
                lease,
                owner: None,
                ttl: Ttl::DEFAULT,
                serving: ServingStatus::Serving,
                spec: spec.clone(),
            };
            let identity = Identity { live: Some(Arc::new(registration)), ..Identity::default() };
            Write::Put(
                Key::Identity(IdentityKey { namespace: service.namespace.clone(), id }),
                Stored::Identity(identity),
            )
        });
        let committed = Committed { revision: Revision::new(1), op: OpId([0; 16]), writes: writes.collect() };
        let store = StoreId::parse("bench").expect("a store id");
        let position = Position { store, generation: Generation(1), revision: Revision::ZERO };
        for change in State::empty(position).apply(&committed) {
            self.leases.follow(&change, self.now);
        }
    }

    /// Lets so many thirds of a TTL pass, in each of which every lease is renewed once.
    fn pass(&mut self, thirds: u32) {
        let messages = self.order.len().div_ceil(MESSAGE) as u32;
        let step = Ttl::DEFAULT.heartbeat_interval() / messages;
        for _third in 0..thirds {
            for message in self.order.chunks(MESSAGE) {
                self.now = self.now.after(step);
                for &(lease, incarnation, stream) in message {
                    let renewal = self.leases.renew(lease, incarnation, Some(stream), None, self.now);
                    assert!(renewal.is_some(), "a lease that is beaten for in time lives");
                }
                if self.leases.next_deadline().is_some_and(|at| at <= self.now) {
                    let lapses = self.leases.advance(self.now);
                    assert!(lapses.is_empty(), "nobody is late");
                }
            }
        }
    }
}

/// Bytes that look drawn, and are the same in each run.
fn scattered(number: u64) -> [u8; 16] {
    // The finaliser of SplitMix64.
    let mix = |mut bits: u64| {
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    bytes[8..].copy_from_slice(&mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lease_lives_on_for_ten_ttls() {
        let mut held = Held::grant(250);
        held.pass(30);
        assert_eq!(held.leases.len(), 250);
    }

    #[test]
    fn growth_past_a_tenth_is_missed() {
        assert!(verdict(300.0, 329.0).is_kept);
        assert!(!verdict(300.0, 331.0).is_kept);
    }
}
