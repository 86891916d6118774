//! Addresses in the list that nobody can be reached at.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mesh_client::ConnectivityState;
use socket2::{Domain, Socket, Type};

use super::Scene;
use crate::fleet::{Server, called};
use crate::harness::{nobody_there, until};
use crate::load::{Cast, RATE, Stage, endpoint};
use crate::report::{Finding, span};
use crate::wire::{Answer, Manners};

/// Two seconds of calls once an attempt to connect has failed: the next ones are among them.
const CALLS: usize = 2 * RATE as usize;

/// Two servers that are well, and one address that is not: nobody may be sent there.
async fn one_of_three(scene: Scene, bad: SocketAddr) -> Finding {
    let stage = Stage::set(scene.seed, Cast { others: vec![bad.into()], ..Cast::well(2).await }).await;
    let bad = endpoint(&stage.channel, bad.into());
    // Whoever never dials picks nobody, either.
    until("an attempt to connect to fail", || bad.state() == ConnectivityState::TransientFailure).await;
    stage.load.calls(CALLS).await;
    let (picks, state) = (bad.picks(), bad.state());
    let calls = stage.load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.converged(format!("{picks} picks"));
    finding.must(picks == 0, || format!("it was picked {picks} times"));
    let tried = matches!(state, ConnectivityState::TransientFailure | ConnectivityState::Connecting);
    finding.must(tried, || format!("it is {state} in the end, and should be tried again and again"));
    finding
}

pub(super) async fn refused(scene: Scene) -> Finding {
    one_of_three(scene, nobody_there()).await
}

pub(super) async fn mute(scene: Scene) -> Finding {
    let mute = Server::start(Manners::quick(Answer::Silence)).await;
    let mut finding = one_of_three(scene, mute.address()).await;
    let connected = mute.told().connected.len();
    finding.must(connected > 0, || "void: nobody ever connected to it".to_owned());
    finding
}

pub(super) async fn black_hole(scene: Scene) -> Finding {
    let hole = BlackHole::new();
    one_of_three(scene, hole.address).await
}

/// A listener with a full queue that nobody empties: the kernel drops every further SYN.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    /// The queue of `listen(1)` holds two connections, give or take one; more than this many it never holds.
    const QUEUE_MAX: usize = 16;

    fn new() -> BlackHole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be had");
        listener.bind(&nobody_there().into()).expect("the port is free");
        listener.listen(1).expect("a bound socket can listen");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        let mut queue = Vec::new();
        while let Ok(queued) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queue.push(queued);
            assert!(queue.len() <= Self::QUEUE_MAX, "void: the queue does not fill up");
        }
        BlackHole { address, _listener: listener, _queue: queue }
    }
}
