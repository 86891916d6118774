//! The other side of the table: one server, in a process of its own.

mod echo;
mod middle;
mod registry;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::wire::News;

/// How long a call takes a server that is well: enough for several to be in flight at any moment.
pub(crate) const USUAL: Duration = Duration::from_millis(5);

/// Runs a server until its stdin ends: whoever started it is gone then. One that is stopped at that moment would not notice;
/// where there is Linux, it is killed. `words` are its kind, its address and its first
/// manners; each line on stdin is more of them.
pub(crate) async fn serve(words: Vec<String>) {
    let [kind, address, manners @ ..] = &words[..] else { panic!("{words:?} does not say what to serve, and where") };
    let address: SocketAddr = address.parse().expect("the second word is an address");
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("it is a signal");
    let listener = TcpListener::bind(address).await.expect("the port is free");
    tell(News::Listening(address));
    match kind.as_str() {
        "echo" => {
            let (behave, behaving) = watch::channel(manners.join(" ").parse().expect("the other words are manners"));
            tokio::spawn(echo::accept(listener, behaving));
            obey(|line| {
                behave.send_replace(line.parse().expect("a line is manners"));
            });
        }
        "middle" => {
            let [seed, next @ ..] = manners else { panic!("{words:?} does not say what to draw from") };
            let seed = seed.parse().expect("the first further word is a seed");
            let next = next.iter().map(|address| address.parse().expect("the others are addresses")).collect();
            tokio::spawn(middle::serve(listener, seed, next));
            obey(|line| panic!("{line:?} is nothing that it could do"));
        }
        "registry" => {
            let (push, pushed) = watch::channel(Vec::new());
            tokio::spawn(registry::serve(listener, pushed));
            obey(|line| push.send_modify(|all| all.push(line.parse().expect("a line is a push"))));
        }
        other => panic!("{other:?} cannot be served"),
    }
}

/// Takes what comes on stdin until it ends, and says so each time. It blocks: whatever else there is runs on other threads.
fn obey(mut take: impl FnMut(&str)) {
    tokio::task::block_in_place(|| {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            take(&line);
            tell(News::Behaves);
        }
    });
}

/// A line on stdout. It is written at once: the process may be gone at any moment.
fn tell(news: News) {
    // Whoever does not listen any more has gone, and this process ends in a moment.
    let _ = writeln!(std::io::stdout().lock(), "{news}");
}
