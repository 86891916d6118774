//! A socket in the folder of a running store, through which a backup can be had: `backup\n` in, `ok\n` and the backup out,
//! or `error` and why.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_runtime::clock;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::format::Writer;
use crate::storage::file::{FileStore, Head};

const SOCKET: &str = "control.sock";
/// Where the socket is made.
const PRIVATE: &str = "control";
const REQUEST: &str = "backup\n";

/// How long either side waits for the other's next byte.
const STALL: Duration = Duration::from_secs(10);

/// How long to wait before accepting again where that failed.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The socket of a running registry: one backup at a time, further callers wait in the system's queue.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Control {
    /// Listens in the folder of a store. Must be called inside a tokio runtime, by the process that has the folder.
    pub(crate) fn listen(dir: &Path, store: FileStore) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        let listener = bind(dir, &path)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, store, stop.clone()));
        Ok(Self { path, stop, task })
    }

    /// Ends it; a backup under way breaks off, and when this returns it has let go of the store's file.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds a socket that at no moment anybody but its owner can connect to, whoever may enter the folder of the store: it is
/// made in a folder for the owner alone and moved. What a process that was killed has left is removed: the store's
/// folder is ours, so nobody listens there.
fn bind(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    // Not longer than the socket's own path, whose length is bounded.
    let inner = dir.join(PRIVATE);
    match fs::remove_dir_all(&inner) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&inner)?;
    let made = inner.join("s");
    let listener = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    // Only after a failure something is left in it.
    fs::remove_dir_all(&inner)?;
    listener
}

async fn serve(listener: UnixListener, store: FileStore, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let answered = match accepted {
            Ok((stream, _)) => answer(stream, store.clone(), stop.clone()).await,
            Err(error) => {
                stop.run_until_cancelled(tokio::time::sleep(ACCEPT_AGAIN)).await;
                Err(error)
            }
        };
        match answered {
            Ok(bytes) => tracing::info!(bytes, "a backup was taken"),
            Err(error) => tracing::warn!(%error, "a backup was not taken"),
        }
    }
}

/// Answers one caller; how long the backup was. Ends with its thread, which has the store's file.
async fn answer(stream: UnixStream, store: FileStore, stop: CancellationToken) -> io::Result<u64> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    let line = stream.try_clone()?;
    let until = stop.clone();
    let mut answering = tokio::task::spawn_blocking(move || {
        let mut request = String::new();
        BufReader::new(&stream).take(REQUEST.len() as u64).read_line(&mut request)?;
        if request != REQUEST {
            (&stream).write_all(b"error only backups can be had here\n")?;
            return Err(io::Error::other("something else was asked for"));
        }
        stream_backup(&stream, &store, &stop)
    });
    let answered = tokio::select! {
        answered = &mut answering => answered,
        () = until.cancelled() => {
            // Whatever waits for the other side ends at once.
            let _ = line.shutdown(Shutdown::Both);
            answering.await
        }
    };
    answered.map_err(io::Error::other)?
}

fn stream_backup(stream: &StdStream, store: &FileStore, stop: &CancellationToken) -> io::Result<u64> {
    let tables = match store.tables() {
        Ok(tables) => tables,
        Err(fault) => {
            writeln!(&*stream, "error {fault}")?;
            return Err(fault.into());
        }
    };
    let mut out = BufWriter::with_capacity(64 * 1024, stream);
    out.write_all(b"ok\n")?;
    let begin = |head: &Head| Writer::begin(Counted { out, bytes: 0 }, &head.position, clock::wall());
    let written = tables.scan(begin, |writer, key, value| match stop.is_cancelled() {
        true => Err(io::Error::other("the registry is ending")),
        false => writer.record(key, value),
    })?;
    Ok(written.end()?.bytes)
}

/// Counts what it writes.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Asks the registry that has a folder open for a backup: the stream of it.
pub(super) fn ask(dir: &Path) -> Result<impl Read + use<>, String> {
    let path = dir.join(SOCKET);
    let asked = StdStream::connect(&path).and_then(|mut stream| {
        stream.set_read_timeout(Some(STALL))?;
        stream.write_all(REQUEST.as_bytes())?;
        Ok(BufReader::new(stream))
    });
    let mut answer = asked.map_err(|error| format!("{}: {error}", path.display()))?;
    let mut verdict = String::new();
    // A reason is short, whatever is at the other end.
    (&mut answer).take(1_024).read_line(&mut verdict).map_err(|error| error.to_string())?;
    match verdict.trim_end() {
        "ok" => Ok(answer),
        other => Err(other.strip_prefix("error ").unwrap_or("it does not answer like one").to_owned()),
    }
}

#[cfg(test)]
mod tests;
