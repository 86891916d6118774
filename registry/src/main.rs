//! The `registry` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::main(std::env::args_os())
}
