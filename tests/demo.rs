//! The demo ends by itself, well, and leaves nothing behind; nor does it when it is interrupted or killed.

mod harness;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{LONG, folder, until};
use mesh_runtime::{clock, entropy};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// One demo at a time: each is a whole mesh under load, and two cores carry one.
static STAGE: Mutex<()> = Mutex::const_new(());

/// Name of an environment variable that every process of one demo has, and nobody else.
const MARK: &str = "MARK_OF_A_DEMO";

/// A demo that keeps its files in `folder`, with settings around it that are not meant for its children.
fn demo(folder: &Path, mark: &str) -> Command {
    let mut command = harness::command();
    command
        .arg("demo")
        .env("TMPDIR", folder)
        .env(MARK, mark)
        .env("MESH_LISTEN", "this is no address")
        .env("MESH_INSTANCE_ID", "nor is this an id")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ids of the processes that carry the mark.
#[cfg(target_os = "linux")]
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    std::fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(Result::ok)
        .filter(|entry| {
            // A zombie has no environment; whoever is one is dead, but was not collected.
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|setting| setting == wanted.as_bytes()))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn marked(_mark: &str) -> Vec<String> {
    Vec::new()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("it is there").next().is_none()
}

/// Reads the story until the load runs.
async fn on_stage(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("it prints text") {
            if line.contains("load: ") {
                return;
            }
        }
        panic!("the demo ended before its load began");
    };
    tokio::time::timeout(LONG, reading).await.expect("the load begins");
    // What follows is of no interest, but somebody has to take it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well_within_30_s_and_leaves_nothing_behind() {
    let _alone = STAGE.lock().await;
    let (folder, mark) = (folder(), entropy::uuid_v4().to_string());
    let began = clock::now();
    let output = demo(folder.path(), &mark).output().await.expect("it runs");
    let took = began.elapsed();
    let (story, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{story}\n{said}");

    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    assert!(
        story.contains("was killed with SIGKILL")
            && story.contains("it lists everybody, and nobody had to register again")
    );
    for method in ["UserService/CreateUser", "OrderService/CancelOrder"] {
        assert!(story.contains(method), "the table lists every method");
    }
    assert!(story.contains("\n0 of "), "it says that no call failed");
    assert!(story.contains(" requests over REST failed;"), "and how it went over REST");
    assert_eq!(marked(&mark), [""; 0], "no process is left");
    assert!(is_empty(folder.path()), "no file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_nothing_behind() {
    let _alone = STAGE.lock().await;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (folder, mark) = (folder(), entropy::uuid_v4().to_string());
        let mut child = demo(folder.path(), &mark).spawn().expect("it starts");
        on_stage(&mut child).await;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).expect("it runs");
        kill_process(pid, signal).expect("it is ours");
        let status = tokio::time::timeout(LONG, child.wait()).await.expect("it ends").expect("it is our child");

        assert_eq!(status.code(), Some(code));
        assert_eq!(marked(&mark), [""; 0], "no process is left");
        assert!(is_empty(folder.path()), "no file is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_end_when_their_parent_is_killed() {
    let _alone = STAGE.lock().await;
    let (folder, mark) = (folder(), entropy::uuid_v4().to_string());
    let mut child = demo(folder.path(), &mark).spawn().expect("it starts");
    let mut stderr = child.stderr.take().expect("it was asked for");
    on_stage(&mut child).await;
    child.kill().await.expect("it is ours");

    until("its servers to end", || marked(&mark).is_empty()).await;
    let mut said = String::new();
    stderr.read_to_string(&mut said).await.expect("it prints text");
    assert!(!said.contains("panicked"), "{said}");
}
