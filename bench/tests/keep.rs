//! What a run starts ends with it.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn a_kept_program_ends_when_the_other_side_of_stdin_is_gone() {
    let mut keep = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["keep", "sleep", "600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(keep.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let process = PathBuf::from("/proc").join(pid.trim());
    assert!(!pid.trim().is_empty() && process.exists(), "{pid:?}");
    // As it is when whoever holds it is killed.
    drop(keep.stdin.take());
    assert!(keep.wait().unwrap().success());
    assert!(!process.exists());
}
