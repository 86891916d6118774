//! `meshctl demo`: a whole mesh under load, and the failures that nobody notices.

mod report;
mod rest;
mod screen;
mod script;

use std::time::Duration;

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::signals::EndSignals;

/// The demo ends by itself within 30 s; this is what it may take before it gives up.
const DEMO_MAX: Duration = Duration::from_secs(29);

/// Runs the demo in a folder that goes when it ends: at its end, at a signal, and at a panic.
pub(crate) async fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let mut signals = EndSignals::listen()?;
    let folder = tempfile::Builder::new().prefix("meshctl-demo-").tempdir()?;
    // The processes are dropped, and with that killed, with the future that is not chosen; the folder goes after them.
    let done = tokio::select! {
        done = tokio::time::timeout(DEMO_MAX, script::play(args, folder.path())) => match done {
            Ok(done) => done,
            Err(_) => Err(Failure::Failed(format!("the demo has not come to its end within {} s", DEMO_MAX.as_secs()))),
        },
        ended = signals.next() => Err(ended),
    };
    folder.close()?;
    done
}
