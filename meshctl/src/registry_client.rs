//! Talking to a registry: which one answers, and what is said when none does.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{
    Instance, ListServicesRequest, ListServicesResponse, ResolveRequest, ResolveResponse, ServiceSummary,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::args::{Globals, RegistryUrl};
use crate::failure::Failure;

/// Largest page that `ListServices` gives.
const PAGE_SIZE: i32 = 1000;

/// Most pages read of one listing: a million services. More is a registry that repeats itself.
const PAGES_MAX: usize = 1000;

/// How long one registry is waited for before the next one is asked beside it.
const ANSWER_SOON: Duration = Duration::from_secs(1);

/// A registry that has answered, and the namespace that is asked about.
#[derive(Debug, Clone)]
pub(crate) struct RegistryClient {
    stubs: RegistryServiceClient<Channel>,
    namespace: String,
    timeout: Duration,
}

impl RegistryClient {
    /// Connects to the first registry that answers. This is one plain connection on purpose: a command that looks at a
    /// registry should say at once that it is not there, which is what the mesh client is built to hide.
    pub(crate) async fn connect(globals: &Globals) -> Result<RegistryClient, Failure> {
        let several = globals.registry.len() > 1;
        let mut untried = globals.registry.iter();
        let mut trying = FuturesUnordered::new();
        let mut faults = Vec::new();
        loop {
            if let Some(registry) = untried.next() {
                trying.push(async move {
                    let channel = connect_to(registry, globals.timeout).await.map_err(|fault| (registry, fault))?;
                    // One that stands still takes connections all the same; where there is another it has to answer.
                    if several {
                        answers(channel.clone(), globals).await.map_err(|fault| (registry, fault))?;
                    }
                    Ok::<_, (&RegistryUrl, String)>(channel)
                });
            }
            let patience = async {
                match untried.len() {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(ANSWER_SOON).await,
                }
            };
            tokio::select! {
                tried = trying.next() => match tried {
                    Some(Ok(channel)) => {
                        let stubs = RegistryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
                        let namespace = globals.namespace.clone();
                        return Ok(RegistryClient { stubs, namespace, timeout: globals.timeout });
                    }
                    Some(Err((registry, fault))) => faults.push(format!("{registry} ({fault})")),
                    None => break,
                },
                () = patience => {}
            }
        }
        Err(Failure::Failed(format!(
            "no registry answers at {}; start one with `meshctl up`, or name another with --registry or MESH_REGISTRY",
            faults.join(", ")
        )))
    }

    /// The stubs, for what has no function of its own here.
    pub(crate) fn stubs(&self) -> RegistryServiceClient<Channel> {
        self.stubs.clone()
    }

    /// The namespace that is asked about.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `message` as a request that ends in time.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Every service, page by page, in the order of their names.
    pub(crate) async fn services(&self) -> Result<Listing, Failure> {
        let mut listing = Listing { services: Vec::new(), complete: true, stale_for: None };
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let ask = ListServicesRequest { namespace: self.namespace.clone(), page_size: PAGE_SIZE, page_token };
            let page: ListServicesResponse = self.stubs().list_services(self.request(ask)).await?.into_inner();
            listing.services.extend(page.services);
            listing.complete &= page.complete;
            listing.stale_for = page.stale_for.or(listing.stale_for);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listing);
            }
        }
        Err(Failure::Failed(format!("the registry's list of services does not end after {PAGES_MAX} pages")))
    }

    /// One service as it is now; a name nobody has registered under is an error that names the ones there are.
    pub(crate) async fn resolve(&self, service: &str) -> Result<ResolveResponse, Failure> {
        let ask = ResolveRequest { namespace: self.namespace.clone(), service: service.to_owned(), at_least: None };
        match self.stubs().resolve(self.request(ask)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == Code::NotFound => Err(self.unknown(service).await),
            Err(status) => Err(status.into()),
        }
    }

    async fn unknown(&self, service: &str) -> Failure {
        let known = match self.services().await {
            Ok(listing) => listing.services,
            Err(failure) => return failure,
        };
        let known: Vec<_> = known.iter().take(20).map(|summary| summary.service.as_str()).collect();
        let known = match known.as_slice() {
            [] => "it knows no service at all yet".to_owned(),
            names => format!("it knows {}", names.join(", ")),
        };
        Failure::Failed(format!("the registry knows no service {service:?} in namespace {:?}; {known}", self.namespace))
    }

    /// The one instance whose id begins with `prefix`, of whatever service.
    pub(crate) async fn find_instance(&self, prefix: &str) -> Result<Instance, Failure> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix.is_empty() || !prefix.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return Err(Failure::Usage(format!("{prefix:?} is not an instance id, nor the beginning of one")));
        }
        let mut found: Vec<Instance> = Vec::new();
        for summary in self.services().await?.services {
            let ask = ResolveRequest { namespace: self.namespace.clone(), service: summary.service, at_least: None };
            match self.stubs().resolve(self.request(ask)).await {
                Ok(answer) => found.extend(
                    answer.into_inner().instances.into_iter().filter(|held| held.instance_id.starts_with(&prefix)),
                ),
                // Deleted since it was listed.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status.into()),
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::Failed(format!(
                "no instance has an id that begins with {prefix}; `meshctl instances SERVICE` lists them"
            ))),
            several => Err(Failure::Usage(format!(
                "{several} instances have an id that begins with {prefix}: {}",
                found.iter().take(5).map(|held| held.instance_id.as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}

/// The services of a namespace.
pub(crate) struct Listing {
    /// In the order of their names.
    pub(crate) services: Vec<ServiceSummary>,
    /// Whether the registry knows all there is; false for one TTL after it began with nothing.
    pub(crate) complete: bool,
    /// For how long the registry has not reached the store that it shares with others; absent while it does.
    pub(crate) stale_for: Option<prost_types::Duration>,
}

/// Whether the registry at the other end answers, whatever that is.
async fn answers(channel: Channel, globals: &Globals) -> Result<(), String> {
    let glance = ListServicesRequest { namespace: globals.namespace.clone(), page_size: 1, ..Default::default() };
    let mut stubs = RegistryServiceClient::new(channel);
    match tokio::time::timeout(globals.timeout, stubs.list_services(glance)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if status.code() == Code::Unavailable => Err(status.message().to_owned()),
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(format!("no answer within {:?}", globals.timeout)),
    }
}

/// Opens a connection, or says in a few words why not.
pub(crate) async fn connect_to(registry: &RegistryUrl, limit: Duration) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(registry.url())
        .map_err(|error| error.to_string())?
        .connect_timeout(limit)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3));
    match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(root_cause(&error)),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// The innermost cause: "connection refused" says more than "transport error".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::TimedOut) => "no answer".to_owned(),
        _ => cause.to_string(),
    }
}
