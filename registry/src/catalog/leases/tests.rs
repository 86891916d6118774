//! The liveness table and the mass expiry rules, one fact a test.

mod expiry;
mod liveness;
mod ownership;

use std::time::Duration;

use super::{Lapse, Leases};
use crate::catalog::kit::{Grant, World, asks, id, service};
use crate::catalog::{
    AdminState, LeaseId, Liveness, LoadReport, Register, RemovalHold, Selector, SoftState, StreamId, Timestamp, Ttl,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A world and its leases. Removals that are let go are written at once unless the store is said to refuse them.
struct Ward {
    world: World,
    leases: Leases,
    store_refuses: bool,
    /// Which instances went by silence, in order.
    gone: Vec<u128>,
}

impl Ward {
    fn new() -> Self {
        let leases = Leases::new(HOUR);
        Self { world: World::new(), leases, store_refuses: false, gone: Vec::new() }
    }

    /// So many instances of one service, registered now with a TTL of 10 s.
    fn of(instances: u128) -> (Self, Vec<Grant>) {
        let mut ward = Self::new();
        let grants = (1..=instances).map(|instance| ward.register(asks(instance))).collect();
        (ward, grants)
    }

    fn register(&mut self, request: Register) -> Grant {
        let grant = self.world.register(request).unwrap();
        self.follow();
        grant
    }

    fn restrain(&mut self, instance: u128, state: AdminState) {
        self.world.rule(Selector::Instance(id(instance)), state, None).unwrap();
        self.follow();
    }

    fn deregister(&mut self, grant: Grant) {
        self.world.deregister(grant).unwrap();
        self.follow();
    }

    fn follow(&mut self) {
        for change in &self.world.changes {
            self.leases.follow(change, self.world.now);
        }
    }

    fn beat(&mut self, grant: Grant) -> bool {
        self.leases.renew(grant.lease, grant.incarnation, None, None, self.world.now).is_some()
    }

    fn beat_on(&mut self, grant: Grant, stream: StreamId) {
        let beaten = self.leases.renew(grant.lease, grant.incarnation, Some(stream), None, self.world.now);
        assert!(beaten.is_some());
    }

    /// Lets time pass, looking at every deadline as it comes.
    fn wait(&mut self, duration: Duration) {
        let until = self.world.now.after(duration);
        while let Some(at) = self.leases.next_deadline().filter(|at| *at <= until) {
            self.world.now = self.world.now.max(at);
            self.conclude();
        }
        self.world.now = until;
        self.conclude();
    }

    fn conclude(&mut self) {
        for lapse in self.leases.advance(self.world.now) {
            self.remove(&lapse);
        }
    }

    fn remove(&mut self, lapse: &Lapse) {
        if self.store_refuses {
            return self.leases.stays(lapse, self.world.now);
        }
        let instance = lapse.identity.id.uuid().as_u128();
        let Lapse { identity, lease } = lapse.clone();
        self.world.command(&crate::catalog::Command::Expire { identity, lease }).unwrap();
        self.follow();
        self.gone.push(instance);
    }

    /// Keeps these alive while time passes, beating every 3 s.
    fn wait_beating(&mut self, duration: Duration, alive: &[Grant]) {
        let until = self.world.now.after(duration);
        while self.world.now < until {
            let step = Duration::from_secs(3).min(until.since(self.world.now));
            self.wait(step);
            for grant in alive {
                assert!(self.beat(*grant), "a live instance was removed");
            }
        }
    }

    fn soft(&self) -> SoftState {
        self.leases.soft_state(&service("user-svc"))
    }

    fn hold(&self) -> Option<RemovalHold> {
        self.soft().hold
    }

    fn liveness(&self, instance: u128) -> Option<Liveness> {
        let instance = self.world.instance(instance)?;
        Some(self.soft().liveness(instance))
    }

    fn count(&self, liveness: Liveness) -> usize {
        self.soft().instances.values().filter(|health| health.liveness == liveness).count()
    }

    fn now(&self) -> Timestamp {
        self.world.now
    }
}
