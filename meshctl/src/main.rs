//! `meshctl`: the program. Everything it does is in the library, so that the stories in `tests/` can use it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshctl::main(std::env::args_os().collect())
}
