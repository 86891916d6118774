//! A server from two bound ports to the last answered call.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic_health::pb::health_server::HealthServer;

use crate::admin::{self, Admin};
use crate::app::App;
use crate::args::{Advertise, ServerArgs, nobody_dials};
use crate::drain::{Connections, Plan};
use crate::error::Error;
use crate::front::{Connection, Front};
use crate::hooks::Hooks;
use crate::lifecycle::{Lifecycle, Stage};
use crate::load::LoadMeter;
use crate::metrics::{self, Calls, Methods, Metrics};
use crate::program::Program;
use crate::server::{Ends, Limits, Server, Slots, accept, hardened_server};
use crate::{entropy, health, panics, reflection, signals};

/// Longest time for which `/readyz` waits for the first registration.
const READY_MAX: Duration = Duration::from_secs(5);

/// Both ports of a server, bound and not yet served.
pub struct Shell {
    program: Program,
    args: ServerArgs,
    main: TcpListener,
    admin: TcpListener,
    main_addr: SocketAddr,
    admin_addr: SocketAddr,
    advertised: SocketAddr,
    load: LoadMeter,
}

impl Shell {
    /// Binds both ports. Call it before anything is opened, written or told: what it refuses (a taken port, plaintext
    /// off loopback, a wildcard address that would be advertised) is refused with nothing to undo, every fault at once.
    ///
    /// `advertise` is `args.advertise` of a process that registers, [`Advertise::Nothing`] for one that does not.
    pub async fn bind(program: &Program, args: &ServerArgs, advertise: impl Into<Advertise>) -> Result<Self, Error> {
        let advertise = advertise.into();
        let mut faults = faults(args, advertise);
        let mut bind = async |address: SocketAddr| match TcpListener::bind(address).await {
            Ok(listener) => Some(listener),
            Err(error) => {
                faults.push(format!("cannot listen on {address}: {error}"));
                None
            }
        };
        let (Some(main), Some(admin)) = (bind(args.listen).await, bind(args.admin_listen).await) else {
            return Err(Error::Startup(faults.join("; ")));
        };
        if !faults.is_empty() {
            return Err(Error::Startup(faults.join("; ")));
        }
        let main_addr = main.local_addr().map_err(Error::startup)?;
        let admin_addr = admin.local_addr().map_err(Error::startup)?;
        let advertised = match advertise {
            Advertise::Nothing | Advertise::Bound => main_addr,
            Advertise::Address(address) if address.port() == 0 => SocketAddr::new(address.ip(), main_addr.port()),
            Advertise::Address(address) => address,
        };
        Ok(Self {
            program: *program,
            args: args.clone(),
            main,
            admin,
            main_addr,
            admin_addr,
            advertised,
            load: LoadMeter::start(),
        })
    }

    /// Where the main port is bound: gRPC, or whatever the program's [`Front`] speaks.
    #[must_use]
    pub fn main_addr(&self) -> SocketAddr {
        self.main_addr
    }

    /// Where the HTTP port of metrics and probes is bound.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Where others are told to dial the main port.
    #[must_use]
    pub fn advertised(&self) -> SocketAddr {
        self.advertised
    }

    /// Where others are told to find the HTTP port: where it is bound, or on a wildcard address, beside the main port.
    /// `None` where it is on loopback and the main port is not: whoever calls from elsewhere would find itself there, and
    /// a registry refuses such an address.
    #[must_use]
    pub fn http_advertised(&self) -> Option<SocketAddr> {
        let (bound, grpc) = (self.admin_addr.ip(), self.advertised.ip());
        let ip = match (bound.is_unspecified(), bound.is_loopback() && !grpc.is_loopback()) {
            (true, _) => grpc,
            (false, true) => return None,
            (false, false) => bound,
        };
        Some(SocketAddr::new(ip, self.admin_addr.port()))
    }

    /// What measures how busy the server is. To be asked by one who tells others, at each beat.
    #[must_use]
    pub fn load(&self) -> LoadMeter {
        self.load.clone()
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once. Prints the ready line,
    /// the only thing that ever goes to stdout.
    pub async fn serve(self, app: App, hooks: Hooks) -> Result<(), Error> {
        let stop =
            signals::install().map_err(|error| Error::startup(format_args!("cannot handle signals: {error}")))?;
        let ready = self.program.ready_line(self.main_addr, self.admin_addr);
        self.run(app, hooks, stop, || say(&ready)).await
    }

    /// As [`serve`](Self::serve), with the first signal replaced by a token and no ready line: for tests, and for
    /// programs that hold several servers.
    pub async fn serve_until(self, app: App, hooks: Hooks, stop: CancellationToken) -> Result<(), Error> {
        self.run(app, hooks, stop, || {}).await
    }

    async fn run(self, app: App, hooks: Hooks, stop: CancellationToken, ready: impl FnOnce()) -> Result<(), Error> {
        panics::watch();
        let lifecycle = Lifecycle::starting();
        let registration = Arc::new(hooks.status);
        let mut metrics = Metrics::new(&self.program, Arc::clone(&registration), app.metrics);
        let connections = metrics::Connections::register(metrics.registry());
        let limits = self.args.limits();
        let port = match app.front {
            Some(front) => MainPort::Front { front, limits: Arc::new(limits) },
            None => {
                let served = Served::of(app.routes, app.services, app.descriptors, &lifecycle)?;
                let calls = Calls::register(served.methods, self.load.counts(), metrics.registry());
                let mut server = hardened_server(served.routes).limits(limits).calls(calls);
                if let Some((paths, at_once)) = app.lane {
                    server = server.lane(paths, at_once);
                }
                for name in app.authorities {
                    server = server.authority(name);
                }
                MainPort::Grpc(server)
            }
        };
        let admin = Admin { lifecycle: lifecycle.clone(), metrics: Arc::new(metrics), registration };
        let admin = admin.routes(app.admin);

        let (main_at, admin_at) = (self.advertised(), self.http_advertised());
        let open = Connections::default();
        let _ends_with_this = open.guard();
        let mut accepting = open.spawn(main_port(self.main, port, self.args.limits(), connections, open.clone()));
        // Probes and metrics answer until the very end, and end with this set.
        let mut probed = JoinSet::new();
        probed.spawn(admin_port(self.admin, admin));
        ready();
        let mut announcing = JoinSet::new();
        announcing.spawn(become_ready((hooks.ready)(main_at, admin_at), lifecycle.clone()));

        tokio::select! {
            () = stop.cancelled() => {}
            _ = &mut accepting => return Err(Error::failed("the main port stopped accepting")),
            _ = probed.join_next() => return Err(Error::failed("the admin port stopped accepting")),
        }
        let plan = Plan::within(self.args.drain_timeout);
        plan.drain(&lifecycle, &open, &app.ends_watches, hooks.draining, hooks.gone).await;
        Ok(())
    }
}

/// What is wrong with the addresses before anything is bound.
fn faults(args: &ServerArgs, advertise: Advertise) -> Vec<String> {
    let mut faults = Vec::new();
    for (flag, address) in [("--listen", args.listen), ("--admin-listen", args.admin_listen)] {
        if !address.ip().is_loopback() && !args.insecure_plaintext {
            faults.push(format!(
                "{flag} {address} is not a loopback address: without TLS that needs --insecure-plaintext"
            ));
        }
    }
    if advertise == Advertise::Bound && args.listen.ip().is_unspecified() {
        faults.push(format!("--listen {} is a wildcard address: --advertise must say which one to dial", args.listen));
    }
    if advertise == Advertise::Bound && !args.listen.ip().is_unspecified() && nobody_dials(args.listen.ip()) {
        faults.push(format!("--listen {}: nobody else can dial it, --advertise must say what to dial", args.listen));
    }
    if args.listen == args.admin_listen && args.listen.port() != 0 {
        faults.push(format!("--listen and --admin-listen are both {}", args.listen));
    }
    faults
}

/// The program's routes with the shell's own services, and what is known of them all.
struct Served {
    routes: Routes,
    methods: Methods,
}

impl Served {
    fn of(
        routes: Routes,
        mut services: Vec<String>,
        mut descriptors: Vec<&'static [u8]>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, Error> {
        let health = health::Serving::new(services.clone(), lifecycle.clone());
        services.push(health::SERVICE.to_owned());
        services.extend(reflection::SERVICES.map(str::to_owned));
        descriptors.extend(reflection::DESCRIPTORS);
        let methods = Methods::of(&services, &descriptors)?;
        let routes = routes.add_service(HealthServer::new(health));
        Ok(Self { routes: reflection::add(routes, &services, &descriptors, lifecycle)?, methods })
    }
}

/// The one line on stdout. Whoever started the process may have closed it; that is no reason to stop.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "nobody reads the ready line");
    }
}

/// Ready at the first registration, or without it after [`READY_MAX`]: a registry that is down makes nobody unready.
async fn become_ready(announcing: impl Future<Output = ()>, lifecycle: Lifecycle) {
    tokio::pin!(announcing);
    if timeout(READY_MAX, announcing.as_mut()).await.is_ok() {
        lifecycle.reach(Stage::Ready);
        return;
    }
    tracing::warn!(waited_s = READY_MAX.as_secs(), "not registered yet; serving all the same");
    lifecycle.reach(Stage::Ready);
    announcing.await;
}

/// Who serves the connections of the main port.
enum MainPort {
    /// The shell's own gRPC server.
    Grpc(Server),
    /// The program.
    Front { front: Arc<dyn Front>, limits: Arc<Limits> },
}

async fn main_port(
    listener: TcpListener,
    port: MainPort,
    limits: Limits,
    metrics: metrics::Connections,
    open: Connections,
) {
    let slots = Slots::new(limits.connections, limits.connections_per_ip);
    let mut ages = entropy::rng(entropy::seed());
    accept(listener, slots, metrics.clone(), open.no_more(), |io, peer, slot| {
        let held = (slot, metrics.opened());
        let age = limits.draw_age(&mut ages);
        match &port {
            MainPort::Grpc(server) => {
                let server = server.clone();
                let (goaway, untold) = open.goodbye();
                open.spawn(async move {
                    let _held = held;
                    let info = TcpConnectInfo { local_addr: io.local_addr().ok(), remote_addr: Some(peer) };
                    let ends = Ends { goaway: &goaway, age };
                    if let Err(error) = server.serve(io, info, ends, || drop(untold)).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
            MainPort::Front { front, limits } => {
                let (goaway, untold) = open.goodbye();
                let (leaving, limits) = (open.leaving(), Arc::clone(limits));
                let serving = front.serve(Connection { io, peer, limits, age, leaving, goaway, untold });
                open.spawn(async move {
                    let _held = held;
                    serving.await;
                });
            }
        }
    })
    .await;
}

async fn admin_port(listener: TcpListener, routes: axum::Router) {
    let slots = Slots::new(admin::CONNECTIONS_MAX, admin::CONNECTIONS_PER_PEER_MAX);
    let mut connections = JoinSet::new();
    accept(listener, slots, metrics::Connections::default(), CancellationToken::new(), |io, _, slot| {
        // Those that have ended make room before one is added, so the set holds about as many as are open.
        while connections.try_join_next().is_some() {}
        let routes = routes.clone();
        connections.spawn(async move {
            admin::serve_connection(io, routes).await;
            drop(slot);
        });
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::program::Speaks;

    #[tokio::test(start_paused = true)]
    async fn readiness_waits_five_seconds_for_a_registry_that_is_down() {
        let lifecycle = Lifecycle::starting();
        let begun = clock::now();
        let announcing = tokio::spawn(become_ready(std::future::pending(), lifecycle.clone()));
        let mut stages = lifecycle.follow();
        stages.wait_for(|stage| *stage == Stage::Ready).await.unwrap();
        assert_eq!(clock::now() - begun, READY_MAX);
        assert!(!announcing.is_finished(), "it goes on trying");
        announcing.abort();
    }

    #[test]
    fn every_fault_of_the_addresses_is_found() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let args = |listen: &str, admin_listen: &str, insecure_plaintext| ServerArgs {
            listen: address(listen),
            admin_listen: address(admin_listen),
            insecure_plaintext,
            ..ServerArgs::loopback()
        };
        let elsewhere = Advertise::Address(address("10.0.0.5:7410"));
        for (args, advertise, expected) in [
            (args("127.0.0.1:0", "127.0.0.1:0", false), Advertise::Bound, 0),
            (args("[::1]:0", "[::1]:0", false), Advertise::Bound, 0),
            (args("10.0.0.5:1", "127.0.0.1:2", false), Advertise::Bound, 1),
            (args("10.0.0.5:1", "10.0.0.5:2", true), Advertise::Bound, 0),
            (args("0.0.0.0:1", "127.0.0.1:2", true), Advertise::Bound, 1),
            (args("0.0.0.0:1", "127.0.0.1:2", true), elsewhere, 0),
            (args("[::]:1", "127.0.0.1:2", true), Advertise::Nothing, 0),
            (args("169.254.0.5:1", "127.0.0.1:2", true), Advertise::Bound, 1),
            (args("169.254.0.5:1", "127.0.0.1:2", true), elsewhere, 0),
            (args("127.0.0.1:1", "127.0.0.1:1", false), Advertise::Nothing, 1),
            (args("0.0.0.0:1", "0.0.0.0:1", false), Advertise::Bound, 4),
        ] {
            let faults = faults(&args, advertise);
            assert_eq!(faults.len(), expected, "{} {} {advertise:?}: {faults:?}", args.listen, args.admin_listen);
        }
    }

    #[tokio::test]
    async fn a_loopback_http_port_is_not_advertised_beside_a_grpc_port_for_others() {
        let program =
            Program { name: "probe", version: "0", about: "", speaks: Speaks::Grpc, main_port: 0, admin_port: 0 };
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let args = ServerArgs { listen: any, insecure_plaintext: true, ..ServerArgs::loopback() };
        let elsewhere = SocketAddr::from(([10, 0, 0, 5], 7410));
        let shell = Shell::bind(&program, &args, Some(elsewhere)).await.unwrap();
        assert_eq!((shell.advertised(), shell.http_advertised()), (elsewhere, None));
    }

    #[tokio::test]
    async fn what_is_advertised_can_be_dialled() {
        let program =
            Program { name: "probe", version: "0", about: "", speaks: Speaks::Grpc, main_port: 0, admin_port: 0 };
        let loopback = ServerArgs::loopback();
        let shell = Shell::bind(&program, &loopback, None).await.unwrap();
        assert_eq!((shell.advertised(), shell.http_advertised()), (shell.main_addr(), Some(shell.admin_addr())));

        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let wildcard = ServerArgs { listen: any, admin_listen: any, insecure_plaintext: true, ..loopback };
        let flag = SocketAddr::from(([127, 0, 0, 9], 0));
        let shell = Shell::bind(&program, &wildcard, Some(flag)).await.unwrap();
        assert_eq!(shell.advertised(), SocketAddr::new(flag.ip(), shell.main_addr().port()));
        assert_eq!(shell.http_advertised(), Some(SocketAddr::new(flag.ip(), shell.admin_addr().port())));
    }
}
