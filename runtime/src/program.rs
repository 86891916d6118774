//! A program from its first argument to its exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::error::Error;
use crate::parse::{Parsed, one_line, parse};
use crate::{logs, open_files, panics};

/// Who a program is.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, as in the ready line and in `--help`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Port of `--listen` on loopback, unless the flag says otherwise.
    pub grpc_port: u16,
    /// Port of `--admin-listen` on loopback, unless the flag says otherwise.
    pub http_port: u16,
}

/// What is left running in threads that cannot be cancelled may finish for this long after the program is done.
const THREADS_MAX: Duration = Duration::from_secs(1);

/// Runs a program: parses flags and environment, installs the logs, starts the tokio runtime, runs `run`.
///
/// Exit code 0: `run` ended well, or `--help` or `--version` was asked for. 2: a bad flag or an [`Error::Startup`]. 1:
/// an [`Error::Failed`]. Every failure is one line on stderr. The first of `args` is the program's name, as in
/// [`std::env::args_os`].
pub fn main<A, F, Fut>(program: Program, args: impl IntoIterator<Item = OsString>, run: F) -> ExitCode
where
    A: Args,
    F: FnOnce(A) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let (flags, log_format) = match parse::<A>(&program, args) {
        Parsed::Flags { flags, log_format } => (flags, log_format),
        Parsed::Shown(text) => {
            // Nothing is left to do about a closed stdout.
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
        Parsed::Faults(faults) => return end(&program, &Error::Startup(faults.join("; "))),
    };
    logs::install(log_format);
    panics::watch();
    open_files::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&program, &Error::startup(format_args!("cannot start threads: {error}"))),
    };
    let outcome = runtime.block_on(run(flags));
    runtime.shutdown_timeout(THREADS_MAX);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&program, &error),
    }
}

fn end(program: &Program, error: &Error) -> ExitCode {
    complain(program.name, error);
    ExitCode::from(error.exit_code())
}

/// One line on stderr; a closed stderr is nobody's loss.
fn complain(program: &str, what: impl Display) {
    let _ = writeln!(std::io::stderr(), "{program}: {}", one_line(&what.to_string()));
}
