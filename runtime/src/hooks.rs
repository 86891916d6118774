//! The seam to whoever tells others about this process. The runtime knows nothing of discovery, and the registrar
//! nothing of the runtime: they meet in closures over std types.

use std::net::SocketAddr;
use std::pin::Pin;

/// A future that somebody else runs.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Told where the process can be reached: first the gRPC address, then the HTTP one, where others reach that at all.
pub type Ready = Box<dyn FnOnce(SocketAddr, Option<SocketAddr>) -> BoxFuture + Send>;
/// Told that one step of the end begins.
pub type Step = Box<dyn FnOnce() -> BoxFuture + Send>;
/// Asked how things stand: a state of few possible values for the metric, a sentence for people.
pub type Standing = Box<dyn Fn() -> (&'static str, String) + Send + Sync>;

/// What is called on the way through a process's life, in this order.
pub struct Hooks {
    /// Both ports are bound and served. Resolves at the first success; `/readyz` waits for that for at most 5 s, the
    /// future itself is left running until the process ends.
    pub ready: Ready,
    /// The drain has begun: no new work, please. Runs beside the two seconds in which everything is still answered.
    pub draining: Step,
    /// Everything is answered or cut; the process ends when this resolves, at the latest after [`GONE_MAX`].
    ///
    /// [`GONE_MAX`]: crate::GONE_MAX
    pub gone: Step,
    /// Asked at each scrape and at each `/readyz?verbose`; must answer at once.
    pub status: Standing,
}

impl Hooks {
    /// For a process that nobody has to be told about, such as the registry itself.
    #[must_use]
    pub fn none() -> Self {
        Self {
            ready: Box::new(|_, _| Box::pin(async {})),
            draining: Box::new(|| Box::pin(async {})),
            gone: Box::new(|| Box::pin(async {})),
            status: Box::new(|| ("none", "this process does not register".to_owned())),
        }
    }
}

impl From<(Ready, Step, Step, Standing)> for Hooks {
    fn from((ready, draining, gone, status): (Ready, Step, Step, Standing)) -> Self {
        Self { ready, draining, gone, status }
    }
}
