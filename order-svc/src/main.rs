//! The program `order-svc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    order_svc::main(std::env::args_os())
}
