//! A program of somebody else's that ends with this run: `bench keep PROGRAM ...`.
//!
//! Our own processes end when their stdin does. One that does not watch its stdin is started by one of ours that does it in
//! its place; so nothing stays behind, however the run ends.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::args::KeepArgs;
use crate::failure::Failure;

/// Starts the program, writes its process id as a line on stdout, and ends it when stdin ends.
pub(crate) async fn keep(args: &KeepArgs) -> Result<(), Failure> {
    let (said, complained) = match &args.log {
        None => (Stdio::null(), Stdio::inherit()),
        Some(path) => {
            let log = File::create(path).map_err(Failure::io(format!("make {}", path.display())))?;
            (log.try_clone().map_err(Failure::io("share the log"))?.into(), log.into())
        }
    };
    let mut program = Command::new(&args.program)
        .args(&args.args)
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(complained)
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::io(format!("start {}", args.program.display())))?;
    let pid = program.id().ok_or_else(|| Failure::Child("the program has ended".to_owned()))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{pid}").and_then(|()| stdout.flush()).map_err(Failure::io("stdout"))?;
    // Nothing is ever written there; what ends the wait is the end of whoever holds the other side.
    let _ = tokio::io::stdin().read_u8().await;
    // It fails only if the program has ended by itself.
    let _ = program.kill().await;
    Ok(())
}
