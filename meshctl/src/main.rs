//! `meshctl`: the program. Everything it does is in the library, so that the stories in `tests/` can use it too.

use std::process::ExitCode;

// Of the program alone: whoever takes the library has an allocator of its own.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshctl::main(std::env::args_os().collect())
}
