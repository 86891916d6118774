//! A main port that the program serves itself: the shell gives each connection its place, and its end in the drain's order.

use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::{App, BoxFuture, Connection, Front, Hooks, Program, ServerArgs, Shell, Speaks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::get;

const PROGRAM: Program =
    Program { name: "door", version: "1", about: "Opens", speaks: Speaks::Http, main_port: 7490, admin_port: 7491 };

/// Answers each byte with itself, says what it is told, and ends only when it is cut.
struct Echo {
    told: mpsc::UnboundedSender<&'static str>,
    untold: Arc<tokio::sync::Notify>,
}

/// Dropped with the future that serves the connection.
struct Cut(mpsc::UnboundedSender<&'static str>);

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.send("cut");
    }
}

impl Front for Echo {
    fn serve(&self, connection: Connection) -> BoxFuture {
        let (told, heard) = (self.told.clone(), Arc::clone(&self.untold));
        Box::pin(async move {
            let Connection { mut io, leaving, goaway, untold, .. } = connection;
            let mut byte = [0];
            if io.read_exact(&mut byte).await.is_err() {
                return;
            }
            let _cut = Cut(told.clone());
            io.write_all(&byte).await.unwrap();
            leaving.cancelled().await;
            told.send("leaving").unwrap();
            io.read_exact(&mut byte).await.unwrap();
            io.write_all(&byte).await.unwrap();
            goaway.cancelled().await;
            told.send("goaway").unwrap();
            drop(untold);
            heard.notify_one();
            std::future::pending::<()>().await;
        })
    }
}

#[tokio::test]
async fn a_front_is_told_of_the_drain_goes_on_answering_and_is_cut_at_its_deadline() {
    let args = ServerArgs { drain_timeout: Duration::from_secs(3), ..ServerArgs::loopback() };
    let shell = Shell::bind(&PROGRAM, &args, None).await.unwrap();
    let (main, admin) = (shell.main_addr(), shell.admin_addr());
    let (told, mut heard) = mpsc::unbounded_channel();
    let untold = Arc::new(tokio::sync::Notify::new());
    let (stop, ends) = (CancellationToken::new(), CancellationToken::new());
    let app = App::of_front(Echo { told, untold: untold.clone() }).ends_watches(ends.clone());
    let served = tokio::spawn(shell.serve_until(app, Hooks::none(), stop.clone()));

    let mut client = TcpStream::connect(main).await.unwrap();
    let mut answer = [0];
    client.write_all(b"a").await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    let (_, metrics) = get(admin, "/metrics").await;
    assert!(metrics.contains("mesh_server_connections 1\n"), "{metrics}");

    stop.cancel();
    assert_eq!(heard.recv().await, Some("leaving"));
    assert_eq!(get(admin, "/readyz").await, (503, "draining\n".to_owned()));
    client.write_all(b"b").await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"b", "what is on its way is still answered");
    let late = TcpStream::connect(main).await;
    assert!(late.is_ok(), "and so is who comes late");
    drop(late);

    let mut said = Vec::new();
    while let Some(word) = heard.recv().await {
        said.push(word);
        if word == "goaway" {
            untold.notified().await;
            assert!(TcpStream::connect(main).await.is_err(), "nobody is taken any more");
        }
    }
    assert_eq!(said.iter().filter(|word| **word == "goaway").count(), 1, "{said:?}");
    assert_eq!(said.last(), Some(&"cut"), "{said:?}");
    assert!(ends.is_cancelled());
    served.await.unwrap().unwrap();
}
