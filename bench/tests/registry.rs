//! The rows that need no peer, against a registry that keeps nothing: that a run goes through, and what it leaves behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

#[test]
fn a_run_without_a_peer_says_so_and_writes_ours_alone() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["registry", "--quick", "--store", "memory", "--only", "heartbeat,renew-batched,resolve"])
        .args(["--etcd", "no-such-etcd", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("etcd is left out: there is no no-such-etcd"), "{said}");
    assert!(said.contains("durability: none"), "{said}");
    let json = fs::read_to_string(out.path().join("registry.json")).unwrap();
    let records: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> = records.iter().filter_map(|record| record["name"].as_str()).collect();
    assert!(
        names.contains(&"heartbeat_cpu") && names.contains(&"resolve_cpu") && names.contains(&"renew_batched_rate"),
        "{names:?}"
    );
    assert!(records.iter().all(|record| record["peer"].is_null() && record["ours"].as_f64() > Some(0.0)), "{json}");
    // The servers' folders are gone with them.
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}
