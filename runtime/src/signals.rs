//! SIGTERM and SIGINT: the first asks for a drain, the second is obeyed at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a process that a signal ended answers with: 128 + its number, as shells have it.
const SIGNAL_EXIT: i32 = 128;

/// From here on signals no longer end the process by themselves: the first cancels the token that is returned, the next
/// ends the process wherever it is.
pub(crate) fn install() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first.as_raw_value(), "draining");
        asked.cancel();
        let second = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second.as_raw_value(), "a second signal: ending at once");
        std::process::exit(SIGNAL_EXIT + second.as_raw_value());
    });
    Ok(stop)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = interrupt.recv() => SignalKind::interrupt(),
    }
}
