//! What a program brings to the shell.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::front::Front;

/// A program's own part of a server: its gRPC services, and what the shell has to know about them.
///
/// Health and reflection, `/metrics`, `/livez` and `/readyz` are the shell's; nobody adds them.
#[derive(Default)]
pub struct App {
    pub(crate) routes: Routes,
    pub(crate) front: Option<Arc<dyn Front>>,
    pub(crate) authorities: Vec<String>,
    pub(crate) services: Vec<String>,
    pub(crate) descriptors: Vec<&'static [u8]>,
    pub(crate) admin: Option<axum::Router>,
    pub(crate) metrics: Option<Registry>,
    pub(crate) ends_watches: CancellationToken,
    pub(crate) lane: Option<(Vec<String>, usize)>,
}

impl App {
    /// An app of these gRPC services. Message size limits are set on each service, where the sizes are known.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self { routes, ..Self::default() }
    }

    /// An app whose main port the program serves itself, connection by connection: for a [`Program`](crate::Program) that
    /// [`Speaks::Http`](crate::Speaks::Http). What is said of gRPC services here has no meaning then.
    #[must_use]
    pub fn of_front(front: impl Front) -> Self {
        Self { front: Some(Arc::new(front)), ..Self::default() }
    }

    /// Adds a mesh name that this process answers to. As soon as there is one, a call whose `:authority` is another
    /// bare mesh name is refused as unprocessed (UNAVAILABLE, `WRONG_SERVICE`): an address that was reused never
    /// serves a stranger. Addresses, `localhost` and `host:port` pass, and so does everything if this is never called.
    #[must_use]
    pub fn authority(mut self, name: impl Into<String>) -> Self {
        self.authorities.push(name.into());
        self
    }

    /// Lets calls of these paths, such as `/shop.user.v1.UserService/ListUsers`, wait for each other: `at_once` of them are
    /// ready to run at a time, so that a storm of them does not stand before every other call. A call that has begun and
    /// waits for something else keeps nobody waiting.
    #[must_use]
    pub fn lane(mut self, paths: impl IntoIterator<Item = impl Into<String>>, at_once: usize) -> Self {
        self.lane = Some((paths.into_iter().map(Into::into).collect(), at_once));
        self
    }

    /// Names a gRPC service among the routes, such as `shop.user.v1.UserService`: health knows it, reflection lists
    /// it, and its methods are labels of the metrics (the methods of a service not named here are `other`).
    #[must_use]
    pub fn grpc_service(mut self, name: impl Into<String>) -> Self {
        self.services.push(name.into());
        self
    }

    /// Adds an encoded `FileDescriptorSet`. It may describe more than is served: only what
    /// [`grpc_service`](Self::grpc_service) names is listed.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// Adds routes to the HTTP port, beside the shell's own.
    #[must_use]
    pub fn admin(mut self, routes: axum::Router) -> Self {
        self.admin = Some(match self.admin {
            Some(earlier) => earlier.merge(routes),
            None => routes,
        });
        self
    }

    /// The program's own metric families, in place of any there were; `/metrics` shows them after the shell's.
    #[must_use]
    pub fn metrics(mut self, registry: Registry) -> Self {
        self.metrics = Some(registry);
        self
    }

    /// Adds what is asked at each scrape to the program's own families.
    #[must_use]
    pub fn collector(mut self, collector: impl Collector) -> Self {
        self.metrics.get_or_insert_default().register_collector(Box::new(collector));
        self
    }

    /// A token that the drain cancels once no new stream can begin: streams that would never end by themselves end then.
    #[must_use]
    pub fn ends_watches(mut self, token: CancellationToken) -> Self {
        self.ends_watches = token;
        self
    }
}
