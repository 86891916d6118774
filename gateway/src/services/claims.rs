//! In which order services claim routes, and what is told of them. PURE.
//!
//! A service claims its routes when it is read for the first time, and keeps its place when it is read again. Services that
//! are there when the gateway starts claim together, in the order of their names: the registry does not say who came first, and
//! so every gateway that starts tells the same story.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::published::Known;
use crate::transcode::{Conflict, RouteTable, ServiceRoutes};

/// What is known of each service, at most as many as are followed.
#[derive(Debug, Default)]
pub(super) struct Claims {
    services: BTreeMap<Arc<str>, Claim>,
    turns: u64,
    reserved: RouteTable,
}

#[derive(Debug, Default)]
struct Claim {
    /// The place in the order; none until the service was read.
    turn: Option<u64>,
    read: Option<(Arc<ServiceRoutes>, String)>,
    fault: Option<String>,
}

impl Claims {
    /// Claims beside what is reserved.
    pub(super) fn beside(reserved: RouteTable) -> Self {
        Self { reserved, ..Self::default() }
    }

    /// A service was read by these descriptors.
    pub(super) fn read(&mut self, service: &Arc<str>, routes: Arc<ServiceRoutes>, descriptors: String) {
        let claim = self.services.entry(Arc::clone(service)).or_default();
        claim.read = Some((routes, descriptors));
        claim.fault = None;
    }

    /// A service could not be read; what was read before stays.
    pub(super) fn failed(&mut self, service: &Arc<str>, fault: String) {
        self.services.entry(Arc::clone(service)).or_default().fault = Some(fault);
    }

    /// A service is gone, and its routes are free.
    pub(super) fn gone(&mut self, service: &str) {
        self.services.remove(service);
    }

    /// Whether anything was heard of a service.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// Every service that has routes.
    pub(super) fn readable(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.iter().filter(|(_, claim)| claim.read.is_some()).map(|(service, _)| service)
    }

    /// The table of all claims, what of them is refused, and what is shown of each service. Whoever was read since the last
    /// time takes its turn now.
    pub(super) fn settle(&mut self) -> (RouteTable, Vec<Conflict>, Vec<Known>) {
        for claim in self.services.values_mut().filter(|claim| claim.read.is_some() && claim.turn.is_none()) {
            claim.turn = Some(self.turns);
            self.turns += 1;
        }
        let mut in_turn: Vec<_> = self.services.iter().collect();
        in_turn.sort_by_key(|(_, claim)| claim.turn.unwrap_or(u64::MAX));
        let routes = in_turn.iter().filter_map(|(_, claim)| claim.read.as_ref()).map(|(routes, _)| Arc::clone(routes));
        let (table, refused) = RouteTable::build_beside(&self.reserved, routes);
        let known = in_turn.iter().map(|(service, claim)| claim.known(service)).collect();
        (table, refused, known)
    }
}

impl Claim {
    fn known(&self, service: &str) -> Known {
        let (refused, descriptors) = match &self.read {
            Some((routes, descriptors)) => (routes.refused(), descriptors.clone()),
            None => (&[][..], String::new()),
        };
        let faults = self.fault.iter().cloned().chain(refused.iter().map(ToString::to_string)).collect();
        Known { service: service.to_owned(), descriptors, faults }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    /// What user-svc offers, as another service would.
    fn users(as_service: &str) -> Arc<ServiceRoutes> {
        let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
        let routes = ServiceRoutes::compile(as_service, pool, &["shop.user.v1.UserService".to_owned()]);
        Arc::new(routes.expect("its rules are those that the services use"))
    }

    fn holders(conflicts: &[Conflict]) -> Vec<(&str, &str)> {
        let mut holders: Vec<_> = conflicts.iter().map(|conflict| (&*conflict.holder, &*conflict.refused)).collect();
        holders.dedup();
        holders
    }

    #[test]
    fn who_came_first_keeps_its_routes_until_it_is_gone() {
        let (early, late): (Arc<str>, Arc<str>) = ("z-early".into(), "a-late".into());
        let mut claims = Claims::default();
        claims.read(&early, users(&early), "1".into());
        assert!(claims.settle().1.is_empty());
        claims.read(&late, users(&late), "1".into());
        assert_eq!(holders(&claims.settle().1), [("z-early", "a-late")]);
        claims.read(&early, users(&early), "2".into());
        let (_, refused, known) = claims.settle();
        assert_eq!(holders(&refused), [("z-early", "a-late")], "read again, it keeps its place");
        assert_eq!(known.iter().map(|known| &*known.service).collect::<Vec<_>>(), ["z-early", "a-late"]);
        claims.gone(&early);
        let (table, refused, _) = claims.settle();
        assert!(refused.is_empty() && table.routes().iter().all(|listed| listed.route.service() == "a-late"));
        claims.read(&early, users(&early), "2".into());
        assert_eq!(holders(&claims.settle().1), [("a-late", "z-early")], "who comes back comes late");
    }

    #[test]
    fn a_service_that_cannot_be_read_again_keeps_what_it_had_and_its_fault_is_shown() {
        let service: Arc<str> = "user-svc".into();
        let mut claims = Claims::default();
        claims.failed(&service, "it does not answer".into());
        let (table, _, known) = claims.settle();
        assert!(table.routes().is_empty());
        assert_eq!((known[0].faults.len(), &*known[0].descriptors), (1, ""));
        claims.read(&service, users(&service), "1".into());
        claims.failed(&service, "it does not answer".into());
        let (table, _, known) = claims.settle();
        assert!(!table.routes().is_empty());
        assert!(known[0].faults.contains(&"it does not answer".to_owned()) && known[0].descriptors == "1");
    }
}
