//! The registry as a process: what it prints, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

fn registry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    // Flags come from the test alone.
    command.env_clear().env("MESH_STORE", "memory").stdin(Stdio::null());
    command
}

fn run(flags: &[&str]) -> Output {
    registry().args(flags).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Expects exit code 2, nothing on stdout and this one line on stderr.
fn expect_refusal(flags: &[&str], line: &str) {
    let output = run(flags);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert_eq!(stderr(&output), format!("{line}\n"));
}

#[test]
fn help_is_as_written_down() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("text");
    let golden = include_str!("golden/help.txt");
    assert!(help == golden, "the help text has changed; if that is meant, this is tests/golden/help.txt now:\n{help}");
}

#[test]
fn a_bad_flag_is_one_line_and_exit_code_2() {
    expect_refusal(&["--bogus"], "registry: unexpected argument '--bogus' found");
    expect_refusal(
        &["--store", "disk"],
        "registry: invalid value 'disk' for '--store <STORE>': expected memory, file:DIR or etcd:URL[,URL...]",
    );
}

#[test]
fn an_etcd_that_cannot_be_used_is_refused_before_anything_is_served() {
    let line = "registry: --store: etcd URL \"https://etcd:2379\": TLS to etcd is not supported, expected HOST:PORT or \
                http://HOST:PORT";
    expect_refusal(&["--store", "etcd:127.0.0.1:2379,https://etcd:2379"], line);
    let line = "registry: --advertise 10.0.0.1:7400: nobody looks for it with --store memory, only with etcd:URL";
    expect_refusal(&["--store", "memory", "--advertise", "10.0.0.1:7400"], line);

    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let begin = mesh_runtime::clock::now();
    let output = run(&[&free[..], &["--store", "etcd:127.0.0.1:9"]].concat());
    assert!(begin.elapsed() < std::time::Duration::from_secs(13), "it took {:?}", begin.elapsed());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let said = stderr(&output);
    let end = said.lines().last().expect("a line");
    assert!(end.starts_with("registry: the store cannot be read: no etcd answers within 10s: 127.0.0.1:9: "), "{said}");
}

#[test]
fn every_fault_is_reported_at_once() {
    expect_refusal(
        &["--default-ttl", "1s", "--last-instance-hold", "25h"],
        "registry: --default-ttl: ttl 1s is outside 2s to 300s; --last-instance-hold 90000s: must be at most 24h",
    );
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("file:{}", folder.path().join("registry").display());
    for flags in [
        ["--listen", &*address, "--admin-listen", "127.0.0.1:0", "--store", &store],
        ["--listen", "127.0.0.1:0", "--admin-listen", &*address, "--store", &store],
    ] {
        let output = run(&flags);
        assert!(!folder.path().join("registry").exists(), "nothing was written");
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = stderr(&output);
        assert!(said.starts_with(&format!("registry: cannot listen on {address}: ")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Ends the process if the test does not.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_ready_registry_says_so_in_one_line_and_ends_well_on_sigterm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("file:{}", folder.path().join("registry").display());
    let flags =
        ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain-timeout", "2s", "--store", &store];
    let child = registry().args(flags).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut running = Running(child.expect("the program starts"));
    let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
    let mut ready = String::new();
    stdout.read_line(&mut ready).expect("a line");
    let words: Vec<&str> = ready.split_whitespace().collect();
    let ["ready", "registry", grpc, http] = words[..] else { panic!("{ready:?}") };
    for (address, kind) in [(grpc, "grpc="), (http, "http=")] {
        let address = address.strip_prefix(kind).expect("its kind");
        std::net::TcpStream::connect(address).expect("it listens where it says");
    }

    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "", "nothing follows the ready line");
}
