//! A program from its first argument to its exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
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
    /// What its main port speaks.
    pub speaks: Speaks,
    /// Port of `--listen` on loopback, unless the flag says otherwise.
    pub main_port: u16,
    /// Port of `--admin-listen` on loopback, unless the flag says otherwise.
    pub admin_port: u16,
}

/// What the main port of a program speaks, and what people call its two ports therefore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC, by the shell's own server. The other port is the HTTP port.
    Grpc,
    /// HTTP for anybody, by the program's [`Front`](crate::Front). The other port is the admin port.
    Http,
}

impl Program {
    /// What the ready line says.
    pub(crate) fn ready_line(&self, main: SocketAddr, admin: SocketAddr) -> String {
        let (main_name, admin_name) = match self.speaks {
            Speaks::Grpc => ("grpc", "http"),
            Speaks::Http => ("http", "admin"),
        };
        format!("ready {} {main_name}={main} {admin_name}={admin}", self.name)
    }
}

impl Speaks {
    /// A text that is about a gRPC port and an HTTP port, about the ports of such a program.
    pub(crate) fn told(self, text: &str) -> String {
        match self {
            Self::Grpc => text.to_owned(),
            Self::Http => text.replace("HTTP port", "admin port").replace("gRPC port", "HTTP port"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ports_are_called_by_what_they_speak() {
        let of = |speaks| Program { name: "x", version: "1", about: "", speaks, main_port: 0, admin_port: 0 };
        let (main, admin) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        assert_eq!(of(Speaks::Grpc).ready_line(main, admin), "ready x grpc=127.0.0.1:1 http=127.0.0.1:2");
        assert_eq!(of(Speaks::Http).ready_line(main, admin), "ready x http=127.0.0.1:1 admin=127.0.0.1:2");
        let help = "not the HTTP port but the gRPC port";
        assert_eq!(Speaks::Grpc.told(help), help);
        assert_eq!(Speaks::Http.told(help), "not the admin port but the HTTP port");
    }
}
