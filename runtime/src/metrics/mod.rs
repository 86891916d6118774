//! What `/metrics` shows: the server's calls, its connections, the process, and the program's own families.

mod calls;
mod connections;
mod message_bytes;
mod methods;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

pub use calls::code_name;
pub(crate) use calls::{Calls, Measured};
pub(crate) use connections::Connections;
pub use connections::Refused;
pub(crate) use message_bytes::MessageBytes;
pub(crate) use methods::Methods;

use crate::clock;
use crate::hooks::Standing;
use crate::program::Program;

/// Every metric of a server, ready to be scraped.
pub(crate) struct Metrics {
    shell: Registry,
    program: Option<Registry>,
}

impl Metrics {
    /// The content type of what [`Metrics::encode`] writes.
    pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Starts with what is known of the process; `program` holds the families of its own.
    pub(crate) fn new(who: &Program, status: Arc<Standing>, program: Option<Registry>) -> Self {
        let mut shell = Registry::default();
        let process = process::Process { program: who.name, version: who.version, started: clock::wall() };
        shell.register_collector(Box::new(process));
        shell.register_collector(Box::new(process::Registration(status)));
        Self { shell, program }
    }

    /// Where the shell's own families go.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.shell
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.shell)?;
        if let Some(program) = &self.program {
            encode_registry(&mut text, program)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}
