//! What happens in the demo, in the order in which it happens.

use std::path::Path;
use std::time::Duration;

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::selector::By;
use mesh_api::registry::v1::{AdminState, Selector, SetAdminStateRequest};
use mesh_client::{ConnectivityState, EndpointHandle, Mesh, MeshChannel};
use mesh_runtime::clock;
use rustix::process::Signal;
use tokio::time::Instant;
use uuid::Uuid;

use super::report::{self, Kill, Timeline};
use super::rest::Reader;
use super::screen::Screen;
use crate::args::{DemoArgs, Program};
use crate::commands::watch::line;
use crate::commands::words::span;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::load::{Load, LoadPlan};
use crate::local::{Listen, LocalMesh, LocalMeshPlan, Member, Names};
use crate::registry_client::connect_to;
use crate::view::{Change, ServiceView};

/// TTL that the demo's registry grants. The default of 10 s would have people watch a clock.
const TTL: Duration = Duration::from_secs(3);

/// Longest wait for anything that the registry has to tell. The removal of a dead instance takes a TTL and a second.
const NEWS_MAX: Duration = Duration::from_secs(8);

/// How long the load runs before the first failure, so that there is something to compare with.
const CALM: Duration = Duration::from_secs(3);

/// How long the registry stays away.
const REGISTRY_AWAY: Duration = Duration::from_secs(1);

/// An instance that was picked no more for this long is out of the picks: at the least load it would have had a dozen calls.
const UNPICKED: Duration = Duration::from_millis(300);

/// Longest wait for a call to be in flight before an instance is killed.
const AMID_CALLS_MAX: Duration = Duration::from_secs(1);

/// How often it is looked for. A call is in flight for a few milliseconds, and a timer does not get finer than one; to look
/// all the time would take a core from the servers that are shown.
const AMID_CALLS_LOOK_EVERY: Duration = Duration::from_millis(1);

/// How often something that has no event of its own is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A demo that has taken longer than this leaves the last kill out: all of it has to end within 30 s.
const LAST_KILL_BEFORE: Duration = Duration::from_secs(19);

/// The mesh, those who look at it, and what has been done to it.
struct Stage {
    screen: Screen,
    began: Instant,
    mesh: LocalMesh,
    users: Cast,
    orders: Cast,
    gateway: Member,
    timeline: Timeline,
    kills: Vec<Kill>,
}

/// One service: who plays it, what the registry tells of it, and how a client gets to it.
struct Cast {
    members: Vec<Member>,
    news: Follower,
    channel: MeshChannel,
}

/// Plays the whole demo with its data in `folder`.
pub(super) async fn play(args: &DemoArgs, folder: &Path) -> Result<(), Failure> {
    let mut stage = Stage::set(folder).await?;
    let (users, orders) = (stage.users.channel.clone(), stage.orders.channel.clone());
    let plan = LoadPlan::new(users, orders, stage.mesh.operator(), args.rate);
    let seed = plan.seed;
    let load = Load::start(plan).await?;
    stage.everybody_connected().await?;
    stage.screen.say(format!("load: {} calls/s, deadline 1 s, not one retry of its own (seed {seed})", args.rate));

    let reader = Reader::new(stage.gateway.process.rest(), &stage.mesh.operator());
    stage.screen.say(format!("and somebody reads over REST at http://{}", stage.gateway.process.rest()));

    let screen = stage.screen.clone();
    let acts = async {
        tokio::time::sleep(CALM).await;
        stage.kill_one(Program::UserSvc).await?;
        stage.replace_it().await?;
        stage.drain_another().await?;
        stage.restart_the_registry().await?;
        if stage.began.elapsed() < LAST_KILL_BEFORE {
            stage.kill_one(Program::OrderSvc).await?;
        } else {
            stage.screen.say("no order-svc is killed: all of this has to end within 30 s, and it took long so far");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<(), Failure>(())
    };
    let acted = tokio::select! {
        acted = acts => acted,
        never = screen.follow(|| load.so_far()) => match never {},
        never = reader.read() => match never {},
    };
    let report = load.stop().await.map_err(|error| Failure::Failed(format!("the load broke down: {error}")))?;
    stage.screen.rest();
    let closed = report::close(&stage.screen, &report, &stage.timeline, &stage.kills);
    acted.and(closed).and(reader.close(&stage.screen))
}

impl Stage {
    /// A registry, three user-svc, two order-svc, a gateway, a client, and somebody who watches them.
    async fn set(folder: &Path) -> Result<Stage, Failure> {
        let (screen, began) = (Screen::new(), clock::now());
        let plan = LocalMeshPlan {
            binary: std::env::current_exe()?,
            data: folder.to_owned(),
            registry: Listen::Free,
            registry_flags: vec!["--default-ttl".into(), format!("{}s", TTL.as_secs()).into()],
            service_flags: Vec::new(),
            log_filter: None,
        };
        let mut mesh = LocalMesh::without_registry(plan)?;
        mesh.start_registry().await.map_err(failed)?;
        screen.say(format!(
            "registry at {}; a lease lasts {} here instead of 10 s, to be brief",
            mesh.registry_url(),
            span(TTL)
        ));

        let client = Mesh::new([mesh.registry_url().to_string()]).map_err(failed)?;
        let cast = |service: Program| Cast {
            members: Vec::new(),
            news: Follower::start(mesh.followed(service), tell(screen.clone(), mesh.names())),
            channel: client.channel(service.name()),
        };
        let (mut users, mut orders) = (cast(Program::UserSvc), cast(Program::OrderSvc));
        let wanted =
            [[(Program::UserSvc, Listen::Free); 3].as_slice(), &[(Program::OrderSvc, Listen::Free); 2]].concat();
        let members = mesh.join_all(&wanted).await.map_err(failed)?;
        (users.members, orders.members) = members.into_iter().partition(|member| member.service == Program::UserSvc);

        let gateway = mesh.join(Program::Gateway, Listen::Free).await.map_err(failed)?;

        let (timeline, kills) = (Timeline::default(), Vec::new());
        let mut stage = Stage { screen, began, mesh, users, orders, gateway, timeline, kills };
        for cast in [&mut stage.users, &mut stage.orders] {
            cast.until("everybody to register", are_listed).await?;
        }
        Ok(stage)
    }

    fn cast(&mut self, service: Program) -> &mut Cast {
        match service {
            Program::OrderSvc => &mut self.orders,
            Program::Registry | Program::UserSvc | Program::Gateway => &mut self.users,
        }
    }

    /// Says what has just been done to the mesh, and notes when.
    fn mark(&mut self, what: String) {
        self.screen.say(&what);
        self.timeline.add(clock::now(), what);
    }

    /// Waits until the client has a connection to every instance.
    async fn everybody_connected(&self) -> Result<(), Failure> {
        let connected = |cast: &Cast| {
            let ready = |endpoint: &EndpointHandle| endpoint.state() == ConnectivityState::Ready;
            cast.channel.endpoints().iter().filter(|endpoint| ready(endpoint)).count() >= cast.members.len()
        };
        look_until("the client to connect to everybody", || connected(&self.users) && connected(&self.orders)).await
    }

    /// SIGKILL: no goodbye, no closing of anything. The registry tells when the lease has run out.
    async fn kill_one(&mut self, service: Program) -> Result<(), Failure> {
        let cast = self.cast(service);
        let mut victim = cast.members.remove(1);
        let endpoint = cast.endpoint(victim.id)?;
        let name = victim.process.name().to_owned();
        amid_calls(&endpoint).await;
        let killed = clock::now();
        victim.process.signal(Signal::KILL);
        self.timeline.add(killed, format!("{name} was killed"));
        self.screen
            .say(format!("{name} was killed with SIGKILL (our calls in flight there: {})", endpoint.in_flight()));
        victim.process.kill().await;
        let id = victim.id.to_string();
        let removed = self.cast(service).until("the dead instance to be removed", |_, view| !view.lists(&id)).await?;
        let last_pick = endpoint.last_pick().unwrap_or(killed);
        self.kills.push(Kill {
            name,
            to_last_pick: last_pick.saturating_duration_since(killed),
            to_removal: removed.saturating_duration_since(killed),
        });
        Ok(())
    }

    async fn replace_it(&mut self) -> Result<(), Failure> {
        let replacement = self.mesh.join(Program::UserSvc, Listen::Free).await.map_err(failed)?;
        let id = replacement.id;
        self.mark(format!("{} was started as its replacement", replacement.process.name()));
        self.users.members.push(replacement);
        let users = &self.users;
        look_until("the replacement to be picked", || users.endpoint(id).is_ok_and(|endpoint| endpoint.picks() > 0))
            .await
    }

    /// As an operator would: first out of the picks, and when nobody comes any more, SIGTERM.
    async fn drain_another(&mut self) -> Result<(), Failure> {
        let mut leaving = self.users.members.remove(0);
        let (id, name) = (leaving.id.to_string(), leaving.process.name().to_owned());
        let endpoint = self.users.endpoint(leaving.id)?;
        self.mark(format!("{name} was set to drain"));
        self.set_draining(&id).await?;
        let draining = |_: &[Member], view: &ServiceView| view.admin_state(&id) == AdminState::Draining;
        self.users.until("the drain to be told", draining).await?;
        let idle =
            || endpoint.last_pick().is_none_or(|picked| picked.elapsed() >= UNPICKED) && endpoint.in_flight() == 0;
        look_until("picks of the draining instance to stop", idle).await?;
        self.mark(format!("{name} is picked no more and was asked to end"));
        leaving.process.drain().await.map_err(failed)?;
        self.screen.say(format!("{name} has drained and ended with 0"));
        self.users.until("the drained instance to leave", |_, view| !view.lists(&id)).await?;
        Ok(())
    }

    async fn set_draining(&self, instance_id: &str) -> Result<(), Failure> {
        let channel = connect_to(&self.mesh.registry_url(), NEWS_MAX).await.map_err(failed)?;
        let ask = SetAdminStateRequest {
            namespace: String::new(),
            service: Program::UserSvc.name().to_owned(),
            selector: Some(Selector { by: Some(By::InstanceId(instance_id.to_owned())) }),
            state: AdminState::Draining.into(),
            expires_in: None,
        };
        RegistryServiceClient::new(channel).set_admin_state(ask).await?;
        Ok(())
    }

    /// The registry keeps its records in a file: it comes back knowing everybody, and callers go on where they were.
    async fn restart_the_registry(&mut self) -> Result<(), Failure> {
        let streams = [&self.users, &self.orders].map(|cast| cast.news.view().streams());
        self.mesh.kill_registry().await;
        self.mark("the registry was killed with SIGKILL".to_owned());
        tokio::time::sleep(REGISTRY_AWAY).await;
        self.mesh.start_registry().await.map_err(failed)?;
        self.mark("the registry was started again on its file".to_owned());
        for (cast, before) in [&mut self.users, &mut self.orders].into_iter().zip(streams) {
            let anew = |members: &[Member], view: &ServiceView| {
                view.streams() > before && view.complete() && are_listed(members, view)
            };
            cast.until("the registry to list everybody again", anew).await?;
        }
        self.screen.say("it lists everybody, and nobody had to register again");
        Ok(())
    }
}

impl Cast {
    /// Waits until the registry tells something; answers when it did.
    async fn until(&mut self, what: &str, holds: impl Fn(&[Member], &ServiceView) -> bool) -> Result<Instant, Failure> {
        let Cast { members, news, .. } = self;
        news.until(what, NEWS_MAX, |view| holds(members, view)).await.map_err(failed)
    }

    fn endpoint(&self, id: Uuid) -> Result<EndpointHandle, Failure> {
        let found = self.channel.endpoints().into_iter().find(|endpoint| endpoint.instance_id() == id);
        found.ok_or_else(|| {
            Failure::Failed(format!("the client of {} does not know instance {id}", self.channel.service()))
        })
    }
}

fn are_listed(members: &[Member], view: &ServiceView) -> bool {
    members.iter().all(|member| view.lists(&member.id.to_string()))
}

/// Shows every change of a service the moment it is known.
fn tell(screen: Screen, names: Names) -> impl FnMut(&Change) + Send + 'static {
    move |change| match change {
        Change::Presence(_) => {}
        change => screen.say(format!("  watch: {}", line(change, |id| format!("{:11}", names.of(id))))),
    }
}

/// Waits for a moment at which the instance is in the middle of calls: what a kill would cost then is what the demo is
/// about. Looks again and again, for such moments are short; where none comes, any other is as good.
async fn amid_calls(endpoint: &EndpointHandle) {
    let looking = async {
        while endpoint.in_flight() == 0 {
            tokio::time::sleep(AMID_CALLS_LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(AMID_CALLS_MAX, looking).await;
}

/// Waits for something that can only be looked at.
async fn look_until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let looking = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let waited = tokio::time::timeout(NEWS_MAX, looking).await;
    waited.map_err(|_| Failure::Failed(format!("waited {} for {what}, in vain", span(NEWS_MAX))))
}

fn failed(error: impl ToString) -> Failure {
    Failure::Failed(error.to_string())
}
