//! A program as its caller meets it: exit codes, the one line on stdout, the one line on stderr, signals.
//!
//! This file has no test harness: started with `program` as its first argument it is the program under test, otherwise it
//! runs the cases below, each against child processes of itself.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Output, Stdio};

use mesh_runtime::{App, Error, Hooks, ProcessArgs, Program, Shell, Speaks};
use rustix::process::{Pid, Signal, kill_process};
use tonic::service::Routes;

const PROGRAM: Program = Program {
    name: "hello",
    version: "1.2.3",
    about: "Says hello",
    speaks: Speaks::Grpc,
    main_port: 7490,
    admin_port: 7491,
};

/// Given as `--zone`, makes the program do something after it has bound its ports.
const FAILS: &str = "fails";
/// Makes the end of the program hang for as long as it may.
const HANGS: &str = "hangs";

async fn run(args: ProcessArgs) -> Result<(), Error> {
    let shell = Shell::bind(&PROGRAM, &args.server, args.advertise).await?;
    let hooks = match args.zone.as_str() {
        FAILS => return Err(Error::failed("the store\nis gone")),
        HANGS => Hooks { gone: Box::new(|| Box::pin(std::future::pending())), ..Hooks::none() },
        _ => Hooks::none(),
    };
    shell.serve(App::new(Routes::default()), hooks).await
}

fn main() -> ExitCode {
    let mut args = env::args_os();
    if args.nth(1).is_some_and(|first| first == "program") {
        return mesh_runtime::main(PROGRAM, [OsString::from(PROGRAM.name)].into_iter().chain(args), run);
    }
    let wanted = env::args().nth(1).filter(|filter| !filter.starts_with('-')).unwrap_or_default();
    type Case = (&'static str, fn());
    let cases: [Case; 11] = [
        ("help_is_what_the_golden_file_says", help_is_what_the_golden_file_says),
        ("version_is_one_line", version_is_one_line),
        ("every_bad_flag_is_named_in_one_line", every_bad_flag_is_named_in_one_line),
        ("an_unknown_flag_is_one_line", an_unknown_flag_is_one_line),
        ("a_flag_is_an_environment_variable_too", a_flag_is_an_environment_variable_too),
        ("a_taken_port_is_exit_2_and_no_ready_line", a_taken_port_is_exit_2_and_no_ready_line),
        ("unsafe_addresses_are_refused_all_at_once", unsafe_addresses_are_refused_all_at_once),
        ("a_failure_after_the_start_is_exit_1", a_failure_after_the_start_is_exit_1),
        ("either_signal_drains_and_exits_0", either_signal_drains_and_exits_0),
        ("a_second_signal_ends_at_once", a_second_signal_ends_at_once),
        ("log_lines_are_json_and_never_on_stdout", log_lines_are_json_and_never_on_stdout),
    ];
    for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        case();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg("program").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("MESH_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

fn ends(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

/// The exit code, and the only line on stderr; nothing is on stdout.
fn refused(args: &[&str]) -> (i32, String) {
    let output = ends(args);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing on stdout");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    (output.status.code().unwrap(), stderr.trim_end().to_owned())
}

/// A running program and the ready line it printed.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
    ready: String,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = program(&[&FREE, args].concat()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        Self { child, stdout, log, ready }
    }

    /// The address behind `name=` in the ready line.
    fn address(&self, name: &str) -> SocketAddr {
        let word = self.ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads the log up to the line that says this.
    fn hear(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ended without {what:?}");
        }
    }

    /// Exit code, what else was on stdout, and the log.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut more, mut log) = (String::new(), String::new());
        self.log.read_to_string(&mut log).unwrap();
        self.stdout.read_to_string(&mut more).unwrap();
        (self.child.wait().unwrap().code(), more, log)
    }
}

fn help_is_what_the_golden_file_says() {
    let output = program(&["--help"]).env("COLUMNS", "120").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/help.txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &help).unwrap();
    }
    assert_eq!(help, include_str!("help.txt"), "set UPDATE_GOLDEN=1 to take the new text");
}

fn version_is_one_line() {
    let output = ends(&["--version"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"hello 1.2.3\n"[..]));
}

fn every_bad_flag_is_named_in_one_line() {
    let nil = "00000000-0000-0000-0000-000000000000";
    let (code, line) = refused(
        &[
            &["--weight", "0", "--drain-timeout", "soon", "--registry", "nowhere", "--zone", "a b"][..],
            &["--instance-id", nil, "--advertise", "169.254.1.1:7410"],
        ]
        .concat(),
    );
    assert_eq!(code, 2);
    assert!(line.starts_with("hello: "), "{line}");
    for flag in ["--weight", "--drain-timeout", "--registry", "--zone", "--instance-id", "--advertise"] {
        assert!(line.contains(flag), "{flag} is missing: {line}");
    }
}

fn an_unknown_flag_is_one_line() {
    let (code, line) = refused(&["--wieght", "3", "--weight"]);
    assert_eq!(code, 2);
    assert!(line.starts_with("hello: unexpected argument '--wieght' found"), "{line}");
    let (code, line) = refused(&["--weight"]);
    assert_eq!((code, line.as_str()), (2, "hello: a value is required for '--weight <N>' but none was supplied"));
}

fn a_flag_is_an_environment_variable_too() {
    let output = program(&[]).env("MESH_WEIGHT", "0").env("MESH_LISTEN", "here").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("--weight") && stderr.contains("--listen"), "{stderr}");

    let open = ["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"];
    let output = program(&open).env("MESH_INSECURE_PLAINTEXT", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("--advertise must say") && !stderr.contains("loopback"), "{stderr}");
}

fn a_taken_port_is_exit_2_and_no_ready_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flags in [
        ["--listen", &address, "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &address],
    ] {
        let (code, line) = refused(&flags);
        assert_eq!(code, 2);
        assert!(line.starts_with(&format!("hello: cannot listen on {address}: ")), "{line}");
    }
}

fn unsafe_addresses_are_refused_all_at_once() {
    let (code, line) = refused(&["--listen", "0.0.0.0:0", "--admin-listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    for part in ["--listen 0.0.0.0:0 is not", "--admin-listen 0.0.0.0:0 is not", "--insecure-plaintext", "--advertise"]
    {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    let wildcard = ["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0", "--insecure-plaintext"];
    let (code, line) = refused(&wildcard);
    assert_eq!(code, 2);
    assert!(line.starts_with("hello: --listen 0.0.0.0:0 is a wildcard address: --advertise must say"), "{line}");
}

fn a_failure_after_the_start_is_exit_1() {
    let (code, line) = refused(&[&FREE[..], &["--zone", FAILS]].concat());
    assert_eq!((code, line.as_str()), (1, "hello: the store is gone"));
}

fn either_signal_drains_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::start(&["--drain-timeout", "200ms"]);
        let (grpc, http) = (running.address("grpc"), running.address("http"));
        assert_eq!(running.ready, format!("ready hello grpc={grpc} http={http}\n"));
        // A connection that never speaks.
        let _silent = TcpStream::connect(grpc).unwrap();
        let mut probe = TcpStream::connect(http).unwrap();
        probe.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        running.signal(signal);
        let (code, more, log) = running.end();
        assert_eq!((code, more.as_str()), (Some(0), ""), "{log}");
    }
}

fn a_second_signal_ends_at_once() {
    let mut running = Running::start(&["--drain-timeout", "1h", "--zone", HANGS]);
    running.signal(Signal::TERM);
    running.hear("draining");
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(128 + Signal::INT.as_raw()));
}

fn log_lines_are_json_and_never_on_stdout() {
    let running = Running::start(&["--drain-timeout", "0s"]);
    running.signal(Signal::TERM);
    let (_, more, log) = running.end();
    assert_eq!(more, "");
    assert!(!log.is_empty());
    for line in log.lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"level\":"), "{line}");
    }
}
