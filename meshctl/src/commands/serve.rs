//! `meshctl serve PROGRAM`: this binary as one of the servers.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::ExitCode;

use clap::ValueEnum;
use rustix::process::{Signal, getpid, kill_process};

use crate::args::{Program, ServeArgs};
use crate::failure::Failure;

/// Between `serve` and the program: end, and end hard, when stdin does. A supervisor holds the other end of that pipe, so
/// its children end even when it is killed itself. Not for people, and so not in the help.
pub(crate) const END_WITH_PARENT: &str = "--end-with-parent";

/// A server to run, read off the command line before clap is asked: everything behind the program's name is the
/// program's own, `--registry` and `--help` included.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    program: Program,
    /// First the program's name, then its flags, as its own command line would be.
    args: Vec<OsString>,
    parent: Parent,
}

/// What becomes of the server when its parent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    Outlived,
    EndsWith,
}

impl Serve {
    /// Reads `meshctl serve [--end-with-parent] PROGRAM ...`; none for any other command line.
    pub(crate) fn read(args: &[OsString]) -> Option<Serve> {
        let (verb, mut rest) = args.get(1..)?.split_first()?;
        if verb != "serve" {
            return None;
        }
        let parent = if rest.first().is_some_and(|flag| flag == OsStr::new(END_WITH_PARENT)) {
            rest = &rest[1..];
            Parent::EndsWith
        } else {
            Parent::Outlived
        };
        let program = Program::from_str(rest.first()?.to_str()?, false).ok()?;
        Some(Serve { program, args: rest.to_vec(), parent })
    }

    /// Runs until the server ends.
    pub(crate) fn run(self) -> ExitCode {
        if self.parent == Parent::EndsWith {
            std::thread::spawn(end_with_stdin);
        }
        match self.program {
            Program::Registry => registry::main(self.args),
            Program::UserSvc => user_svc::main(self.args),
            Program::OrderSvc => order_svc::main(self.args),
            Program::Gateway => gateway::main(self.args),
        }
    }
}

/// Says where the flags of a server belong. clap gets to see `serve PROGRAM` only behind a flag of meshctl's own, which
/// the server would not hear of.
pub(crate) fn misplaced(args: &ServeArgs) -> Failure {
    let flags: String = args.flags.iter().map(|flag| format!(" {}", flag.to_string_lossy())).collect();
    Failure::Usage(format!(
        "a server has its own flags, and they come after its name: `meshctl serve {}{flags}`, with nothing before it; \
         `meshctl serve {} --help` lists them",
        args.program, args.program
    ))
}

/// Waits for the end of stdin, then ends this process with a signal that nothing can delay.
fn end_with_stdin() {
    let mut stdin = std::io::stdin().lock();
    let mut ignored = [0; 64];
    loop {
        match stdin.read(&mut ignored) {
            Ok(0) => break,
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => break,
            _ => {}
        }
    }
    let _ = kill_process(getpid(), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Serve> {
        Serve::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn everything_behind_the_program_is_its_own() {
        let serve = read("meshctl serve user-svc --registry a:1 --help").expect("this is a server");
        assert_eq!(serve.program, Program::UserSvc);
        assert_eq!(serve.args, ["user-svc", "--registry", "a:1", "--help"]);
        assert_eq!(serve.parent, Parent::Outlived);
        assert_eq!(read("meshctl serve --end-with-parent registry").map(|serve| serve.parent), Some(Parent::EndsWith));
    }

    #[test]
    fn anything_else_is_left_to_clap() {
        for line in
            ["meshctl", "meshctl serve", "meshctl serve --help", "meshctl serve cat", "meshctl -o json serve registry"]
        {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
