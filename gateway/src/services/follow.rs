//! One service from the moment it is listed until it is gone: which descriptors it is to be read by, and reading them.

use std::sync::Arc;
use std::time::Duration;

use mesh_client::{Address, Mesh, Resolutions};
use mesh_runtime::clock;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::reflection::{self, ReflectionFault};
use super::schema::{Schema, Wanted};
use crate::transcode::{RouteFault, ServiceRoutes};

/// How long a service may be empty before its routes go. Whoever is alone and is restarted says goodbye first: for so long its
/// callers wait for its successor rather than to hear that there is no such thing.
const EMPTY_MAX: Duration = Duration::from_secs(1);

/// Longest time that one instance has to describe itself.
const DESCRIBE_MAX: Duration = Duration::from_secs(5);

/// Longest time that compiling one service's descriptors holds its place among those that are read.
const COMPILE_MAX: Duration = Duration::from_secs(5);

/// How many instances are asked, one after the other, before it is tried again later.
const ASKED_MAX: usize = 3;

/// First pause after a service could not be read; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause. New descriptors are read at once, whatever became of the ones before.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What became of a service.
#[derive(Debug)]
pub(super) enum News {
    /// Its routes, to be used from here on.
    Read {
        /// The routes.
        routes: Arc<ServiceRoutes>,
        /// By which descriptors.
        schema: Schema,
    },
    /// It could not be read; what was known stays good.
    Fault(ReadFault),
    /// There is nobody any more. It is followed no longer.
    Gone,
}

/// Why a service could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// It cannot be asked at all.
    #[error("it cannot be called: {0}")]
    Mesh(#[from] mesh_client::ConfigError),
    /// It does not say what it serves.
    #[error(transparent)]
    Reflection(#[from] ReflectionFault),
    /// What it says cannot be served over HTTP.
    #[error(transparent)]
    Routes(#[from] Box<RouteFault>),
    /// Compiling takes too long. The thread ends by itself: the work is bounded.
    #[error("its descriptors take longer than {COMPILE_MAX:?} to compile")]
    Slow,
    /// Reading it panicked.
    #[error("its descriptors cannot be compiled")]
    Panicked,
}

/// Whom to tell, and of whom.
pub(super) struct Follow {
    pub(super) service: Arc<str>,
    pub(super) known: Resolutions,
    /// How many services are read at a time.
    pub(super) places: Arc<Semaphore>,
    pub(super) told: mpsc::Sender<(Arc<str>, News)>,
}

/// What has been read, and what is to be tried again.
#[derive(Debug)]
enum Held {
    Nothing,
    Read(Schema),
    Failed { schema: Schema, again: Instant, pause: Duration },
}

impl Follow {
    /// Follows the service until it is gone or nobody listens.
    pub(super) async fn run(mut self) {
        let mut held = Held::Nothing;
        loop {
            let wanted = Wanted::of(&self.known.borrow_and_update());
            match wanted {
                Wanted::Gone => {
                    if self.stays_empty().await {
                        let _ = self.told.send((self.service, News::Gone)).await;
                        return;
                    }
                    continue;
                }
                Wanted::Read { schema, at } if held.asks_for(schema) => {
                    let news = match self.read(&at).await {
                        Ok(routes) => {
                            held = Held::Read(schema);
                            News::Read { routes: Arc::new(routes), schema }
                        }
                        Err(fault) => {
                            held = held.failed(schema);
                            News::Fault(fault)
                        }
                    };
                    if self.told.send((Arc::clone(&self.service), news)).await.is_err() {
                        return;
                    }
                }
                Wanted::Read { .. } | Wanted::Nothing => {}
            }
            let again = async {
                match held {
                    Held::Failed { again, .. } => sleep_until(again).await,
                    Held::Nothing | Held::Read(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.known.changed() => {
                    if changed.is_err() {
                        // No news will come; the last good stays.
                        std::future::pending::<()>().await;
                    }
                }
                () = again => {}
            }
        }
    }

    /// Whether nobody comes back in time.
    async fn stays_empty(&mut self) -> bool {
        let comes_back = self.known.wait_for(|known| Wanted::of(known) != Wanted::Gone);
        // Where no news will come, nobody will either.
        !matches!(timeout(EMPTY_MAX, comes_back).await, Ok(Ok(_)))
    }

    async fn read(&self, at: &[Address]) -> Result<ServiceRoutes, ReadFault> {
        let _place = self.places.acquire().await;
        let mut last = None;
        for address in at.iter().take(ASKED_MAX) {
            match read_from(&self.service, address).await {
                Ok(routes) => return Ok(routes),
                // Its siblings say the same.
                Err(fault @ (ReadFault::Routes(_) | ReadFault::Panicked | ReadFault::Slow | ReadFault::Mesh(_))) => {
                    return Err(fault);
                }
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or(ReadFault::Panicked))
    }
}

/// Reads a service off one of its instances: over a connection of its own, since a channel of the service would ask any, and
/// in a rolling upgrade one with other descriptors.
async fn read_from(service: &Arc<str>, at: &Address) -> Result<ServiceRoutes, ReadFault> {
    let instance = Mesh::builder().static_service(&**service, [at.clone()]).build()?;
    let described = timeout(DESCRIBE_MAX, reflection::describe(instance.channel(service), DESCRIBE_MAX)).await;
    let described = described.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("it took too long").into()))?;
    let service = Arc::clone(service);
    let compiled = tokio::task::spawn_blocking(move || {
        let services = described.services.clone();
        Ok(ServiceRoutes::compile(&service, described.pool()?, &services)?)
    });
    match timeout(COMPILE_MAX, compiled).await {
        Ok(compiled) => compiled.unwrap_or(Err(ReadFault::Panicked)),
        Err(_) => Err(ReadFault::Slow),
    }
}

impl Held {
    fn asks_for(&self, wanted: Schema) -> bool {
        match self {
            Self::Nothing => true,
            Self::Read(schema) => *schema != wanted,
            Self::Failed { schema, again, .. } => *schema != wanted || clock::now() >= *again,
        }
    }

    fn failed(&self, wanted: Schema) -> Self {
        let pause = match self {
            Self::Failed { schema, pause, .. } if *schema == wanted => (*pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        Self::Failed { schema: wanted, again: clock::now() + pause, pause }
    }
}
