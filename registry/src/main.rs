//! The `registry` program; everything is in the library.

use std::process::ExitCode;

// Of the program alone: whoever takes the library has an allocator of its own.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    registry::main(std::env::args_os())
}
