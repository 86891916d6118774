//! Commands that make no sense.

use std::process::Command;

#[test]
fn an_envoy_is_not_profiled() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(["client", "--profile", "envoy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("profile channel"), "{said}");
}
