//! What the tests of this module share: short names for values, and a world of one state that commits at once.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{
    Answer, CatalogError, Command, Committed, Context, Endpoint, Generation, GrpcService, IdentityKey, Incarnation,
    Instance, InstanceId, InstanceSpec, LeaseId, Limits, NodeId, OpId, Overlay, Position, Presence, Protocol, Register,
    Report, Revision, RuleSet, Selector, ServiceChange, ServiceKey, ServingStatus, StartNonce, State, StoreId,
    Timestamp, Ttl, Version, Write, Zone, decide,
};

pub(crate) fn service(name: &str) -> ServiceKey {
    ServiceKey::parse("", name).unwrap()
}

pub(crate) fn id(number: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(number)).unwrap()
}

pub(crate) fn identity(number: u128) -> IdentityKey {
    IdentityKey { namespace: service("any").namespace, id: id(number) }
}

pub(crate) fn node(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(number))
}

pub(crate) fn nonce(number: u8) -> StartNonce {
    StartNonce::new([number; 16])
}

pub(crate) fn store(name: &str) -> StoreId {
    StoreId::parse(name).unwrap()
}

pub(crate) fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

pub(crate) fn spec() -> InstanceSpec {
    let grpc = Endpoint::new("grpc", Protocol::Grpc, IpAddr::V4(Ipv4Addr::LOCALHOST), 7_410).unwrap();
    let users = GrpcService::new("shop.user.v1.UserService", Vec::new(), ServingStatus::Serving).unwrap();
    InstanceSpec::new(vec![grpc]).unwrap().with_grpc_services(vec![users]).unwrap()
}

pub(crate) fn in_zone(zone: &str, version: &str) -> InstanceSpec {
    let mut spec = spec();
    spec.zone = Zone::parse(zone).unwrap();
    spec.version = Version::parse(version).unwrap();
    spec
}

/// A registration of `user-svc` by the first start of an instance that holds nothing.
pub(crate) fn asks(instance: u128) -> Register {
    Register {
        service: service("user-svc"),
        id: id(instance),
        nonce: nonce(1),
        held: None,
        serving: ServingStatus::Serving,
        ttl: None,
        spec: spec(),
    }
}

/// A lease as it was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    pub(crate) lease: LeaseId,
    pub(crate) incarnation: Incarnation,
    pub(crate) ttl: Ttl,
}

/// A state whose commands are decided and committed one by one.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) limits: Limits,
    /// Which node decides from now on.
    pub(crate) node: Option<NodeId>,
    /// What the last command changed.
    pub(crate) changes: Vec<ServiceChange>,
    /// What the last command wrote.
    pub(crate) writes: Vec<Write>,
    drawn: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        let position = Position { store: store("memory-1"), generation: Generation(1), revision: Revision::ZERO };
        Self {
            state: State::empty(position),
            now: Timestamp::since_epoch(Duration::from_secs(1_000_000)),
            limits: Limits::default(),
            node: None,
            changes: Vec::new(),
            writes: Vec::new(),
            drawn: 0,
        }
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        self.drawn.to_be_bytes()
    }

    pub(crate) fn context(&mut self) -> Context {
        let op = OpId(self.draw());
        Context { now: self.now, op, limits: self.limits, default_ttl: Ttl::DEFAULT, node: self.node }
    }

    /// Decides, and commits what comes out.
    pub(crate) fn command(&mut self, command: &Command) -> Result<Answer, CatalogError> {
        self.changes.clear();
        self.writes.clear();
        let context = self.context();
        let decision = decide(&Overlay::new(&self.state), command, context)?;
        if let Some(proposal) = decision.proposal {
            let revision = self.state.position().revision.next();
            self.writes.clone_from(&proposal.writes);
            self.changes = self.state.apply(&Committed { revision, op: proposal.op, writes: proposal.writes });
        }
        Ok(decision.answer)
    }

    pub(crate) fn register(&mut self, request: Register) -> Result<Grant, CatalogError> {
        let fresh = LeaseId::new(self.draw());
        match self.command(&Command::Register { request, fresh })? {
            Answer::Granted { lease, incarnation, ttl } => Ok(Grant { lease, incarnation, ttl }),
            other => panic!("a registration is granted or refused, not {other:?}"),
        }
    }

    pub(crate) fn deregister(&mut self, grant: Grant) -> Result<Answer, CatalogError> {
        self.command(&Command::Deregister { lease: grant.lease, incarnation: grant.incarnation })
    }

    pub(crate) fn expire(&mut self, instance: u128, grant: Grant) {
        self.command(&Command::Expire { identity: identity(instance), lease: grant.lease }).unwrap();
    }

    pub(crate) fn report(&mut self, instance: u128, grant: Grant, serving: ServingStatus) {
        let services = BTreeMap::new();
        let report = Report { identity: identity(instance), lease: grant.lease, serving: Some(serving), services };
        self.command(&Command::Report(report)).unwrap();
    }

    pub(crate) fn rule(
        &mut self,
        selector: Selector,
        state: super::AdminState,
        expires_in: Option<Duration>,
    ) -> Result<usize, CatalogError> {
        let rule = RuleSet { service: service("user-svc"), selector, state, expires_in };
        match self.command(&Command::SetRule(rule))? {
            Answer::Selected(count) => Ok(count),
            other => panic!("a rule selects, and is not {other:?}"),
        }
    }

    /// Does what time alone asks for.
    pub(crate) fn housekeeping(&mut self) {
        for command in self.state.ended(self.now, usize::MAX) {
            self.command(&command).unwrap();
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state.position().revision.get()
    }

    pub(crate) fn instance(&self, number: u128) -> Option<&Arc<Instance>> {
        self.state.instance(&service("user-svc"), id(number))
    }

    pub(crate) fn presence(&self, name: &str) -> Presence {
        self.state.view(&service(name)).presence()
    }
}
