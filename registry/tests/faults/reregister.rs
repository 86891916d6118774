//! Everybody registers at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_client::{Address, Connecting, Connector, InstanceSpec, Io, Mesh};
use tokio::net::TcpSocket;

use crate::crowd::Crowd;
use crate::many_files;
use crate::process::{Process, nobody_there, now, quantile, until};

/// Registrars, each with a connection and a heartbeat stream of its own.
const REGISTRARS: usize = 2_000;

/// Long enough that nobody's lease runs out because this program, which is all of their processes, is not scheduled.
const REGISTRAR_TTL: Duration = Duration::from_secs(60);

/// Connections from several loopback addresses in turn: of one, a registry takes only so many.
#[derive(Debug, Default)]
struct FromMany {
    turn: AtomicUsize,
}

impl Connector for FromMany {
    fn connect(&self, address: &Address) -> Connecting {
        let host = 10 + (self.turn.fetch_add(1, Ordering::Relaxed) % 20) as u8;
        let to = address.tcp();
        Box::pin(async move {
            let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// T13 `reregister_10k` at CI size (P13): two thousand registrars wait for a registry; it starts with nothing, and they all
/// come. Instances that beat meanwhile lose no beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reregister_2k() {
    many_files();
    let (grpc, http) = nobody_there();
    let mut registrars = Vec::new();
    for number in 0..REGISTRARS {
        let mesh = Mesh::builder()
            .registry([grpc.to_string()])
            .connector(Arc::new(FromMany { turn: AtomicUsize::new(number) }));
        let mesh = mesh.build().expect("the configuration is one");
        // A service holds a thousand.
        let ttl = Some(REGISTRAR_TTL);
        let registrar = mesh.registrar(InstanceSpec { ttl, ..InstanceSpec::new(format!("crowd-{}-svc", number % 4)) });
        let registering = registrar.clone();
        let at = SocketAddr::from(([127, 0, 0, 1], 30_000 + number as u16));
        tokio::spawn(async move { registering.register(at, None).await });
        registrars.push(registrar);
    }
    // Some of their waits have grown to what they are after a long outage.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let ready = now();
    let registry = Process::start(Some((grpc, http)), &["--store", "memory"]);
    let ttl = Duration::from_secs(10);
    let veterans = Crowd::enter(grpc, "veteran-svc", 50, ttl, Duration::from_millis(100)).await;
    let registered = || registrars.iter().filter(|registrar| registrar.status().incarnation.is_some()).count();
    until("everybody to be registered", || registered() == REGISTRARS).await;
    let all = ready.elapsed();
    let metrics = registry.metrics();
    let count = |name| crate::process::sum_of(&metrics, name);
    let mut took = veterans.answers.took.lock().clone();
    let (beats, others) = (took.len(), veterans.others());
    println!(
        "T13: {REGISTRARS} registrars on an empty registry: all registered {all:?} after its start (10 s are promised, and \
         judged on a machine of its own); {beats} messages of beats \
         meanwhile, p99 {:?}, {others} beats refused; {} registrations, {} heartbeat overloads; the registry used {:?} of processor time",
        quantile(&mut took, 0.99),
        count("registry_registrations_total"),
        count("registry_heartbeat_overloads_total"),
        registry.cpu(),
    );
    assert_eq!((others, count("registry_heartbeat_overloads_total")), (0, 0), "no heartbeat is lost to the crowd");
    assert!(beats > 0);
    assert_eq!(count("registry_instances"), REGISTRARS as u64 + 50);
    assert_eq!(count("registry_removals_total"), 0);
    veterans.leave().await;
}
