//! The signals that ask a command to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGINT, SIGTERM and SIGHUP, listened to from the moment this exists: none that comes later is missed, or ends the
/// process before it has put things away.
#[derive(Debug)]
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    pub(crate) fn listen() -> io::Result<EndSignals> {
        Ok(EndSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one; answers how a command that it ends has failed.
    pub(crate) async fn next(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::Signalled(SignalKind::interrupt()),
            _ = self.terminate.recv() => Failure::Signalled(SignalKind::terminate()),
            _ = self.hang_up.recv() => Failure::Signalled(SignalKind::hangup()),
        }
    }
}
