//! The program `user-svc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    user_svc::main(std::env::args_os())
}
