//! Logs: to stderr, because stdout is for what others read.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::LogFormat;

/// Sends every event to stderr, `RUST_LOG` deciding which (info and worse without it). Human lines on a terminal, JSON
/// otherwise, unless the flag says which. A second call changes nothing.
pub(crate) fn install(format: Option<LogFormat>) {
    let format = format.unwrap_or(if io::stderr().is_terminal() { LogFormat::Human } else { LogFormat::Json });
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The error is "there is one already": a test or an embedding program has its own, and keeps it.
    let _ = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
