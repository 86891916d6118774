//! Nobody works for those who have gone.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use mesh_runtime::clock;
use meshctl::{Listen, LocalMesh, Program};
use tokio::net::TcpStream;

use super::Scene;
use crate::fleet::Server;
use crate::harness::{folder, http_get, nobody_there_yet, plan};
use crate::load::{Call, REPEATABLE, SERVICE, echo, static_mesh};
use crate::report::{Finding, span};
use crate::wire::Manners;

/// How long the handler takes.
const SLOW: Duration = Duration::from_millis(500);

/// Deadline of those who wait for it, and fail.
const DEADLINE: Duration = Duration::from_millis(100);

/// Calls that are taken back, and calls that are begun too late.
const CALLS: usize = 40;

/// Calls whose deadline passes, so many that 1 % is some; as many of them at a time as are taken back.
const LATE: usize = 200;

/// From the moment that a caller turns away to the end of the handler (P30); half of them are to be faster.
const SEEN_WITHIN: Duration = Duration::from_millis(100);

pub(super) async fn deadline_and_cancel(scene: Scene) -> Finding {
    let server = Server::start(Manners::echo(SLOW)).await;
    let mesh = static_mesh(scene.seed, vec![server.address().into()]).build().expect("the configuration is one");
    let channel = mesh.channel(SERVICE);
    let one = |text: String, deadline| echo(channel.clone(), REPEATABLE, text, deadline);
    one("first".to_owned(), 20 * SLOW).await.expect("void: a call with time enough goes well");

    // Their callers turn away while the server works for them.
    let mut noticed = Vec::with_capacity(CALLS);
    for number in 0..CALLS as u64 {
        let calling = tokio::spawn(one(format!("cancelled {number}"), 20 * SLOW));
        server.until("the call", |told| told.called >= number + 2).await;
        calling.abort();
        let turned_away = clock::now();
        server.until("its end", |told| told.dropped > number).await;
        noticed.push(turned_away.elapsed());
    }
    noticed.sort_unstable();
    let (half, slowest) = (noticed[CALLS / 2], noticed[CALLS - 1]);

    // Their deadline passes.
    let too_late = async |number: usize| {
        let due = clock::now();
        let answer = one(format!("late {number}"), DEADLINE).await;
        let took = due.elapsed();
        // For these, that is the right answer.
        let outcome = match answer {
            Err(text) if text.starts_with("DEADLINE_EXCEEDED") && took >= DEADLINE => Ok(()),
            Err(text) => Err(text),
            Ok(()) => Err("answered after its deadline".to_owned()),
        };
        Call { due, took, outcome }
    };
    let mut late = Vec::with_capacity(LATE);
    for first in (0..LATE).step_by(CALLS) {
        late.extend(join_all((first..first + CALLS).map(too_late)).await);
    }
    let told = server.until("the end of all of them", |told| told.answered + told.dropped >= told.called).await;
    let worked_on = told.answered - 1;

    let mut finding = Finding::nobody_noticed(&late);
    finding.attempts(told.called - 1 - CALLS as u64, span(&late));
    finding.converged(format!(
        "{half:.0?} to be taken back, at most {slowest:.0?}; {worked_on} worked on past the deadline"
    ));
    finding.must(half <= SEEN_WITHIN, || format!("it took {half:?} to take a call back"));
    finding
        .must(worked_on * 100 <= LATE as u64, || format!("{worked_on} of {LATE} were worked on past their deadline"));
    let refused = expired_work_is_refused().await;
    finding.must(refused == CALLS, || format!("{refused} of {CALLS} expired calls were refused without being begun"));
    finding
}

/// Calls a real service with a nanosecond to go; answers how many it never began.
async fn expired_work_is_refused() -> usize {
    let folder = folder();
    let mut plan = plan(folder.path());
    plan.registry = nobody_there_yet();
    let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
    let member = mesh.join(Program::UserSvc, Listen::Free).await.expect("it gets ready without a registry");

    let socket = TcpStream::connect(member.process.grpc()).await.expect("it accepts connections");
    let (send, connection) = h2::client::handshake(socket).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    for _ in 0..CALLS {
        let request = Request::post(format!("http://{}/shop.user.v1.UserService/ListUsers", member.process.grpc()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "1n")
            .body(())
            .expect("it is a request");
        let mut send = send.clone().ready().await.expect("it takes streams");
        let (answer, mut body) = send.send_request(request, false).expect("it takes this one");
        body.send_data(Bytes::from_static(&[0; 5]), true).expect("it takes an empty message");
        let answer = answer.await.expect("it answers");
        assert_eq!(answer.headers().get("grpc-status").map(http::HeaderValue::as_bytes), Some(b"4".as_slice()));
    }
    let (_, metrics) = http_get(member.process.http(), "/metrics").await.expect("it answers");
    let counted = metrics.lines().find_map(|line| line.strip_prefix("mesh_server_calls_expired_unbegun_total "));
    counted.and_then(|count| count.trim().parse().ok()).expect("it counts them")
}
