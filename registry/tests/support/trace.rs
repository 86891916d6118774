//! What a simulation did, line by line.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What happened, in virtual time: the same seed gives the same lines.
#[derive(Clone)]
pub(crate) struct Trace {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { began: mesh_runtime::clock::now(), lines: Arc::default() }
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = mesh_runtime::clock::now().duration_since(self.began);
        self.lines.lock().push(format!("{:>9.3} {}", at.as_secs_f64(), what.as_ref()));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}
