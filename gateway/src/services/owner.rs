//! The task that owns what is known of the services: hears the lister and those that follow, and publishes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_client::{Mesh, MeshChannel};
use mesh_runtime::clock;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::SERVICES_MAX;
use super::claims::Claims;
use super::follow::{Follow, News};
use super::house;
use super::list::{self, Listed};
use super::metrics::Metrics;
use super::schema::Schema;
use crate::published::{Known, Published};
use crate::transcode::Conflict;

/// Services that are read at the same time: a gateway that starts in a large house asks for the descriptors of all of them.
const READS_AT_ONCE: usize = 8;

/// How long the services of the first list have to be read before those that were are served without the others.
const FIRST_MAX: Duration = Duration::from_secs(2);

/// News that wait; whoever has more waits itself.
const NEWS_WAITING_MAX: usize = 64;

/// How far the services are that were there before this gateway. They claim together, so that nobody gets a route for having
/// been read a moment sooner.
#[derive(Debug)]
enum First {
    /// The registry has not been heard.
    Unheard,
    /// Nothing was heard of these yet.
    Awaited { services: HashSet<Arc<str>>, until: Instant },
    /// They have claimed what they claim.
    Settled,
}

pub(super) struct Owner {
    mesh: Mesh,
    own: String,
    metrics: Metrics,
    published: Arc<ArcSwap<Published>>,
    settled: watch::Sender<bool>,
    /// At most [`SERVICES_MAX`]; each has a task until it is gone.
    followed: BTreeSet<Arc<str>>,
    /// Listed and not followed, for there are too many.
    left_out: BTreeSet<String>,
    claims: Claims,
    channels: HashMap<Arc<str>, MeshChannel>,
    first: First,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    told: mpsc::Sender<(Arc<str>, News)>,
    news: mpsc::Receiver<(Arc<str>, News)>,
}

impl Owner {
    pub(super) fn new(
        mesh: Mesh,
        own: &str,
        metrics: Metrics,
        published: Arc<ArcSwap<Published>>,
        settled: watch::Sender<bool>,
    ) -> Self {
        let (told, news) = mpsc::channel(NEWS_WAITING_MAX);
        Self {
            mesh,
            own: own.to_owned(),
            metrics,
            published,
            settled,
            followed: BTreeSet::new(),
            left_out: BTreeSet::new(),
            claims: Claims::beside(house::reserved()),
            channels: HashMap::new(),
            first: First::Unheard,
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(READS_AT_ONCE)),
            told,
            news,
        }
    }

    /// Runs until it is stopped; what it has started ends with it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (lists, mut listed) = mpsc::channel(1);
        self.tasks.spawn(list::run(self.mesh.clone(), lists));
        loop {
            let overdue = match self.first {
                First::Awaited { until, .. } => Some(until),
                First::Unheard | First::Settled => None,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(listed) = listed.recv() => self.listed(listed),
                Some((service, news)) = self.news.recv() => {
                    self.heard(&service, news);
                    // What else has come by now is published together.
                    while let Ok((service, news)) = self.news.try_recv() {
                        self.heard(&service, news);
                    }
                    self.publish();
                }
                () = sleep_until(overdue.unwrap_or_else(clock::now)), if overdue.is_some() => {
                    self.first = First::Settled;
                    self.publish();
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Follows whoever is new. Who is not listed any more is gone when those who follow it say so: they know who emptied it.
    fn listed(&mut self, listed: Listed) {
        let mut left_out = BTreeSet::new();
        for service in listed {
            if service == self.own || self.followed.contains(&*service) {
                continue;
            }
            if self.followed.len() >= SERVICES_MAX {
                left_out.insert(service);
                continue;
            }
            let service: Arc<str> = service.into();
            let follow = Follow {
                service: Arc::clone(&service),
                known: self.mesh.resolutions(&service),
                places: Arc::clone(&self.places),
                told: self.told.clone(),
            };
            self.tasks.spawn(follow.run());
            self.followed.insert(service);
        }
        let mut news = left_out != self.left_out;
        if !left_out.is_empty() && news {
            tracing::error!(SERVICES_MAX, ?left_out, "more services than are served; these are left out");
        }
        self.left_out = left_out;
        if matches!(self.first, First::Unheard) {
            let services = self.followed.iter().cloned().collect();
            self.first = First::Awaited { services, until: clock::now() + FIRST_MAX };
            news = true;
        }
        if news {
            self.publish();
        }
    }

    fn heard(&mut self, service: &Arc<str>, news: News) {
        if !self.followed.contains(service) {
            return;
        }
        if let First::Awaited { services, .. } = &mut self.first {
            services.remove(service);
        }
        match news {
            News::Read { routes, schema } => {
                self.metrics.read(true);
                tracing::info!(
                    service = &**service,
                    descriptors = %schema,
                    routes = routes.routes().len(),
                    again = self.claims.knows(service),
                    "service read"
                );
                for fault in routes.refused() {
                    tracing::warn!(service = &**service, %fault, "a rule of this service is not served");
                }
                self.claims.read(service, routes, schema.to_string());
            }
            News::Fault(fault) => {
                self.metrics.read(false);
                tracing::warn!(service = &**service, %fault, "a service cannot be read; it is tried again");
                self.claims.failed(service, fault.to_string());
            }
            News::Gone => {
                tracing::info!(service = &**service, "service gone");
                self.claims.gone(service);
                self.followed.remove(service);
            }
        }
    }

    /// Makes everything that is known what requests go by, once the first services have claimed together.
    fn publish(&mut self) {
        match &self.first {
            First::Unheard => return,
            First::Awaited { services, .. } if !services.is_empty() => return,
            First::Awaited { .. } | First::Settled => self.first = First::Settled,
        }
        let (table, refused, mut services) = self.claims.settle();
        tell_conflicts(&refused, &self.published.load().refused);
        let before = std::mem::take(&mut self.channels);
        let channel = |service: &Arc<str>| before.get(service).cloned().unwrap_or_else(|| self.mesh.channel(service));
        self.channels = self.claims.readable().map(|service| (Arc::clone(service), channel(service))).collect();
        services.extend(self.left_out.iter().map(|service| Known {
            service: service.clone(),
            descriptors: String::new(),
            faults: vec![format!("left out: {SERVICES_MAX} services are served already")],
        }));
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.services.set(count(self.channels.len()));
        self.metrics.routes.set(count(table.routes().len()));
        self.metrics.refused.set(count(refused.len()));
        let channels = self.channels.clone();
        self.published.store(Arc::new(Published { table, channels, services, refused, heard: true }));
        self.settled.send_replace(true);
    }
}

/// Tells of each refused claim once.
fn tell_conflicts(now: &[Conflict], before: &[Conflict]) {
    for conflict in now.iter().filter(|conflict| !before.contains(conflict)) {
        tracing::warn!(
            claim = conflict.claim,
            holder = conflict.holder,
            refused = conflict.refused,
            "a claim is refused: another service had it first"
        );
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
            Self::Start(instance, incarnation) => write!(f, "{instance}/{incarnation}"),
        }
    }
}
