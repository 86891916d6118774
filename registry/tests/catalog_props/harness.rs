//! The real catalog, driven by steps: a state, its leases, and a log of everything that was committed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use registry::catalog::{
    AdminState, Answer, CatalogError, Command, Committed, Context, Endpoint, Generation, IdentityKey, Incarnation,
    InstanceId, InstanceSpec, Lapse, LeaseId, Leases, Limits, NodeId, OpId, Overlay, Position, Presence, Protocol,
    Register, Report, Revision, RuleSet, Selector, ServiceKey, ServingStatus, StartNonce, State, StoreId, Timestamp,
    Ttl, Version, decide,
};
use uuid::Uuid;

use crate::model::{Model, Who};

/// How many ids, starts of each, and services there are: few, so that they meet.
const IDS: u8 = 5;
const STARTS: u8 = 4;
const SERVICES: u8 = 2;

/// How many nodes share the store.
const NODES: u8 = 3;

/// TTL of every lease.
pub(crate) const TTL: Duration = Duration::from_secs(10);

/// How long the last instance of a service is kept.
pub(crate) const LAST_INSTANCE_HOLD: Duration = Duration::from_secs(3_600);

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Register {
        id: u8,
        nonce: u8,
        service: u8,
        holds: Holds,
        changed: bool,
    },
    /// By the number of the grant, counted from the newest.
    Beat(usize),
    Report(usize, ServingStatus),
    Deregister(usize),
    Remove {
        id: u8,
        service: u8,
    },
    Rule {
        id: u8,
        service: u8,
        state: AdminState,
        expires: bool,
    },
    DeleteService(u8),
    /// The instance of a grant turns up at this node, by a stream.
    Claim(usize, u8),
    /// This node adopts everybody who belongs to another.
    Adopt(u8),
    /// From now on this node decides.
    Decide(u8),
    Wait(Duration),
}

/// What a registration says it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds {
    Nothing,
    /// What this start was granted last.
    Its,
    /// The same number, from another store.
    Foreign,
}

pub(crate) fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let holds = prop_oneof![3 => Just(Holds::Nothing), 3 => Just(Holds::Its), 1 => Just(Holds::Foreign)];
    let serving =
        prop_oneof![Just(ServingStatus::Serving), Just(ServingStatus::NotServing), Just(ServingStatus::Draining)];
    let admin = prop_oneof![Just(AdminState::Enabled), Just(AdminState::Draining), Just(AdminState::Disabled)];
    // Services mostly keep their ids apart; sometimes one turns up under the other.
    let register = (0..IDS, 0..STARTS, prop::bool::weighted(0.1), holds, prop::bool::weighted(0.2)).prop_map(
        |(id, nonce, astray, holds, changed)| Step::Register {
            id,
            nonce,
            service: (id + u8::from(astray)) % SERVICES,
            holds,
            changed,
        },
    );
    let wait = prop_oneof![
        4 => (0_u64..4_000).prop_map(Duration::from_millis),
        2 => (4_000_u64..15_000).prop_map(Duration::from_millis),
        1 => (100_u64..1_000).prop_map(Duration::from_secs),
    ];
    let step = prop_oneof![
        8 => register,
        8 => (0_usize..6).prop_map(Step::Beat),
        2 => (0_usize..3, serving).prop_map(|(grant, serving)| Step::Report(grant, serving)),
        2 => (0_usize..6).prop_map(Step::Deregister),
        1 => (0..IDS, 0..SERVICES).prop_map(|(id, service)| Step::Remove { id, service }),
        2 => (0..IDS, 0..SERVICES, admin, any::<bool>())
            .prop_map(|(id, service, state, expires)| Step::Rule { id, service, state, expires }),
        1 => (0..SERVICES).prop_map(Step::DeleteService),
        2 => (0_usize..6, 0..NODES).prop_map(|(grant, node)| Step::Claim(grant, node)),
        1 => (0..NODES).prop_map(Step::Adopt),
        1 => (0..NODES).prop_map(Step::Decide),
        5 => wait.prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..max)
}

/// A lease that was granted to somebody once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) who: Who,
    pub(crate) lease: LeaseId,
    pub(crate) incarnation: Incarnation,
}

pub(crate) struct Harness {
    pub(crate) state: State,
    pub(crate) log: Vec<Committed>,
    pub(crate) now: Timestamp,
    pub(crate) leases: Leases,
    /// Which node decides.
    node: NodeId,
    grants: Vec<Grant>,
    drawn: u128,
}

pub(crate) fn service(number: u8) -> ServiceKey {
    ServiceKey::parse("", ["user-svc", "order-svc"][usize::from(number)]).unwrap()
}

fn id(number: u8) -> InstanceId {
    InstanceId::new(Uuid::from_u128(u128::from(number) + 1)).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::new(Uuid::from_u128(u128::from(number)))
}

fn store(name: &str) -> StoreId {
    StoreId::parse(name).unwrap()
}

fn spec(changed: bool) -> InstanceSpec {
    let grpc = Endpoint::new("grpc", Protocol::Grpc, IpAddr::V4(Ipv4Addr::LOCALHOST), 7_410).unwrap();
    let mut spec = InstanceSpec::new(vec![grpc]).unwrap();
    spec.version = Version::parse(if changed { "2" } else { "1" }).unwrap();
    spec
}

impl Harness {
    pub(crate) fn new() -> Self {
        let position = Position { store: store("here"), generation: Generation(1), revision: Revision::ZERO };
        Self {
            state: State::empty(position),
            log: Vec::new(),
            now: Timestamp::since_epoch(Duration::from_secs(1_000_000)),
            leases: Leases::new(LAST_INSTANCE_HOLD),
            node: node(0),
            grants: Vec::new(),
            drawn: 0,
        }
    }

    /// The harness after these steps, with nobody to compare it with.
    pub(crate) fn after(steps: Vec<Step>) -> Self {
        let mut harness = Self::new();
        for step in steps {
            harness.take(&step, &mut Model::deaf());
        }
        harness
    }

    /// Takes a step, tells the model, and says in a word what came of it.
    pub(crate) fn take(&mut self, step: &Step, model: &mut Model) -> &'static str {
        match *step {
            Step::Register { id, nonce, service, holds, changed } => {
                let who = Who { id, nonce, service };
                self.register(who, holds, changed, model)
            }
            Step::Beat(back) => match self.granted(back) {
                Some(grant) => self.beat(grant, model),
                None => "nothing",
            },
            Step::Report(back, serving) => {
                let Some(grant) = self.granted(back) else { return "nothing" };
                let identity = identity(grant.who);
                let report = Report { identity, lease: grant.lease, serving: Some(serving), services: BTreeMap::new() };
                self.command(&Command::Report(report)).expect("a report is never refused");
                "done"
            }
            Step::Deregister(back) => {
                let Some(grant) = self.granted(back) else { return "nothing" };
                let command = Command::Deregister { lease: grant.lease, incarnation: grant.incarnation };
                let answer = self.command(&command);
                model.deregistered(grant, &answer, self.now);
                if answer.is_ok() { "done" } else { "fenced" }
            }
            Step::Remove { id: instance, service: name } => {
                let command = Command::Remove { service: service(name), id: id(instance) };
                self.command(&command).expect("an operator is not refused");
                model.removed(instance, name, self.now);
                "done"
            }
            Step::Rule { id: instance, service: name, state, expires } => {
                let expires_in = expires.then_some(Duration::from_secs(60));
                let selector = Selector::Instance(id(instance));
                let rule = RuleSet { service: service(name), selector, state, expires_in };
                let answer = self.command(&Command::SetRule(rule));
                model.ruled(instance, name, &answer);
                "selected"
            }
            Step::DeleteService(name) => {
                let answer = self.command(&Command::DeleteService { service: service(name) });
                model.deleted(name, &answer);
                if answer.is_ok() { "deleted" } else { "in use" }
            }
            Step::Claim(back, at) => {
                let Some(grant) = self.granted(back) else { return "nothing" };
                self.node = node(at);
                let claim = Command::Claim { identity: identity(grant.who), lease: grant.lease };
                self.command(&claim).expect("a claim is never refused");
                "done"
            }
            Step::Adopt(by) => {
                self.node = node(by);
                let of_others = self.state.instances().filter(|instance| instance.owner() != Some(self.node));
                let adoption = Command::Adopt(of_others.map(|instance| instance.as_orphan()).collect());
                self.command(&adoption).expect("an adoption is never refused");
                assert!(self.state.instances().all(|instance| instance.owner() == Some(self.node)));
                "adopted"
            }
            Step::Decide(by) => {
                self.node = node(by);
                "nothing"
            }
            Step::Wait(duration) => self.wait(duration, model),
        }
    }

    /// Who is live under which incarnation, by id.
    pub(crate) fn members(&self) -> BTreeMap<u8, (u8, u64)> {
        let live = self.state.instances().map(|instance| {
            let number = u8::try_from(instance.id().uuid().as_u128() - 1).unwrap();
            let service = u8::from(*instance.service() == service(1));
            (number, (service, instance.incarnation().get()))
        });
        live.collect()
    }

    pub(crate) fn presences(&self) -> [Presence; SERVICES as usize] {
        [0, 1].map(|number| self.state.view(&service(number)).presence())
    }

    fn granted(&self, back: usize) -> Option<Grant> {
        self.grants.iter().rev().nth(back).copied()
    }

    fn register(&mut self, who: Who, holds: Holds, changed: bool, model: &mut Model) -> &'static str {
        let last = self.grants.iter().rev().find(|grant| grant.who.id == who.id && grant.who.nonce == who.nonce);
        let held = last.map(|grant| grant.incarnation);
        let (held, counted) = match holds {
            Holds::Nothing => (None, None),
            Holds::Its => (held.map(|incarnation| (incarnation, store("here"))), held),
            Holds::Foreign => (held.map(|incarnation| (incarnation, store("elsewhere"))), None),
        };
        let request = Register {
            service: service(who.service),
            id: id(who.id),
            nonce: StartNonce::new([who.nonce; 16]),
            held,
            serving: ServingStatus::Serving,
            ttl: None,
            spec: spec(changed),
        };
        let fresh = LeaseId::new(self.draw());
        let answer = self.command(&Command::Register { request, fresh });
        model.registered(who, counted, &answer, self.now);
        match answer {
            Ok(Answer::Granted { lease, incarnation, .. }) => {
                let repeated = lease != fresh;
                self.leases.renew(lease, incarnation, None, None, self.now).expect("what is granted is renewed");
                self.grants.push(Grant { who, lease, incarnation });
                if repeated { "repeated" } else { "granted" }
            }
            Err(CatalogError::Fenced { .. }) => "fenced",
            Err(CatalogError::Departed { .. }) => "departed",
            other => panic!("a registration is not answered with {other:?}"),
        }
    }

    fn beat(&mut self, grant: Grant, model: &mut Model) -> &'static str {
        let renewed = self.leases.renew(grant.lease, grant.incarnation, None, None, self.now).is_some();
        let fenced = !renewed && self.state.is_fenced(grant.lease);
        model.beaten(grant, renewed, fenced, self.now);
        match (renewed, fenced) {
            (true, _) => "renewed",
            (false, true) => "fenced beat",
            (false, false) => "unknown lease",
        }
    }

    /// Lets time pass, looking at every deadline as it comes.
    fn wait(&mut self, duration: Duration, model: &mut Model) -> &'static str {
        let until = self.now.after(duration);
        let mut came = "nothing";
        loop {
            let next = [self.leases.next_deadline(), self.state.next_end()].into_iter().flatten().min();
            self.now = next.map_or(until, |next| next.max(self.now).min(until));
            for lapse in self.leases.advance(self.now) {
                let instance = u8::try_from(lapse.identity.id.uuid().as_u128() - 1).unwrap();
                model.lapsed(instance, self.now);
                self.expire(lapse);
                came = "lapsed";
            }
            self.housekeeping();
            if self.now == until {
                return came;
            }
        }
    }

    pub(crate) fn expire(&mut self, lapse: Lapse) {
        let command = Command::Expire { identity: lapse.identity.clone(), lease: lapse.lease };
        let owner = self.owner(&lapse.identity);
        // Only its owner is believed.
        for number in (0..NODES).map(node).filter(|number| *number != owner) {
            let commits = self.log.len();
            self.node = number;
            self.command(&command).expect("a lapse is not refused");
            assert_eq!(self.log.len(), commits, "another node let it expire");
        }
        self.node = owner;
        self.command(&command).expect("a lapse is not refused");
    }

    fn owner(&self, of: &IdentityKey) -> NodeId {
        let mut orphans = self.state.instances().map(|instance| instance.as_orphan());
        let orphan = orphans.find(|orphan| orphan.identity == *of);
        orphan.and_then(|orphan| orphan.of).expect("who runs out is live, and every instance has an owner here")
    }

    /// Does what time alone asks for.
    pub(crate) fn housekeeping(&mut self) {
        for command in self.state.ended(self.now, usize::MAX) {
            self.command(&command).expect("what time asks for is not refused");
        }
    }

    /// Starts an instance of the first service anew.
    pub(crate) fn start(&mut self, id: u8, nonce: u8) -> Grant {
        let who = Who { id, nonce, service: 0 };
        self.register(who, Holds::Nothing, false, &mut Model::deaf());
        *self.grants.last().expect("a start that nobody has seen before is granted")
    }

    /// Lets an instance leave.
    pub(crate) fn goodbye(&mut self, grant: Grant) {
        let command = Command::Deregister { lease: grant.lease, incarnation: grant.incarnation };
        self.command(&command).expect("the holder may leave");
    }

    fn command(&mut self, command: &Command) -> Result<Answer, CatalogError> {
        let op = OpId(self.draw());
        let default_ttl = Ttl::new(TTL).unwrap();
        let context = Context { now: self.now, op, limits: Limits::default(), default_ttl, node: Some(self.node) };
        let decision = decide(&Overlay::new(&self.state), command, context)?;
        if let Some(proposal) = decision.proposal {
            let revision = self.state.position().revision.next();
            let committed = Committed { revision, op: proposal.op, writes: proposal.writes };
            for change in self.state.apply(&committed) {
                self.leases.follow(&change, self.now);
            }
            self.log.push(committed);
        }
        Ok(decision.answer)
    }

    fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        self.drawn.to_be_bytes()
    }
}

fn identity(who: Who) -> IdentityKey {
    IdentityKey { namespace: service(0).namespace, id: id(who.id) }
}
