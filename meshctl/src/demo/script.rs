//! What happens in the demo, in the order in which it happens.

use std::path::Path;
use std::time::Duration;

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::selector::By;
use mesh_api::registry::v1::{AdminState, Selector, SetAdminStateRequest};
use mesh_client::{ConnectivityState, EndpointHandle, Mesh, MeshChannel};
use mesh_runtime::clock;
use tokio::time::Instant;
use uuid::Uuid;

use super::report::{self, Kill, Timeline};
use super::screen::Screen;
use crate::args::{DemoArgs, Program};
use crate::commands::watch::line;
use crate::commands::words::span;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::load::{Load, LoadPlan};
use crate::local::{Listen, LocalMesh, LocalMeshPlan, Member};
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

/// An instance that was picked no more for this long, at hundreds of calls a second, is out of the picks.
const UNPICKED: Duration = Duration::from_millis(300);

/// How often something that has no event of its own is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The last failure is left out where less time than this is left of the demo's 30 s.
const LAST_KILL_BEFORE: Duration = Duration::from_secs(19);

/// The mesh, the load on it, and what has been done to them.
struct Stage {
    screen: Screen,
    began: Instant,
    mesh: LocalMesh,
    users: Vec<Member>,
    orders: Vec<Member>,
    user_news: Follower,
    order_news: Follower,
    user_channel: MeshChannel,
    order_channel: MeshChannel,
    timeline: Timeline,
    kills: Vec<Kill>,
}

/// Plays the whole demo with its data in `folder`.
pub(super) async fn play(args: &DemoArgs, folder: &Path) -> Result<(), Failure> {
    let mut stage = Stage::set(folder).await?;
    let plan = LoadPlan::new(stage.user_channel.clone(), stage.order_channel.clone(), args.rate);
    let seed = plan.seed;
    let load = Load::start(plan).await?;
    stage.channels_ready().await?;
    stage.say(format!("load: {} calls/s, deadline 1 s, not one retry of its own (seed {seed})", args.rate));

    let screen = stage.screen.clone();
    let acts = async {
        tokio::time::sleep(CALM).await;
        stage.kill_a_user_service().await?;
        stage.replace_it().await?;
        stage.drain_another().await?;
        stage.restart_the_registry().await?;
        if stage.began.elapsed() < LAST_KILL_BEFORE {
            stage.kill_an_order_service().await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<(), Failure>(())
    };
    let acted = tokio::select! {
        acted = acts => acted,
        never = screen.follow(|| load.so_far()) => match never {},
    };
    let report = load.stop().await.map_err(|error| Failure::Failed(format!("the load broke down: {error}")))?;
    let closed = report::close(&stage.screen, &report, &stage.timeline, &stage.kills);
    acted.and(closed)
}

impl Stage {
    /// A registry, three user-svc, two order-svc, and somebody who watches them.
    async fn set(folder: &Path) -> Result<Stage, Failure> {
        let (screen, began) = (Screen::new(), clock::now());
        let plan = LocalMeshPlan {
            binary: std::env::current_exe()?,
            data: folder.to_owned(),
            registry: Listen::Free,
            registry_flags: vec!["--default-ttl".into(), format!("{}s", TTL.as_secs()).into()],
        };
        let mut mesh = LocalMesh::without_registry(plan)?;
        mesh.start_registry().await.map_err(failed)?;
        let ttl = span(TTL);
        screen.say(format!("registry at {}; leases last {ttl} here instead of 10 s, to be brief", mesh.registry_url()));

        let user_news = Follower::start(mesh.followed(Program::UserSvc), tell(screen.clone(), Program::UserSvc));
        let order_news = Follower::start(mesh.followed(Program::OrderSvc), tell(screen.clone(), Program::OrderSvc));
        let wanted =
            [[(Program::UserSvc, Listen::Free); 3].as_slice(), &[(Program::OrderSvc, Listen::Free); 2]].concat();
        let (users, orders) = mesh
            .join_all(&wanted)
            .await
            .map_err(failed)?
            .into_iter()
            .partition(|member| member.service == Program::UserSvc);

        let clients = Mesh::new([mesh.registry_url().to_string()]).map_err(failed)?;
        let (user_channel, order_channel) = (clients.channel("user-svc"), clients.channel("order-svc"));
        let mut stage = Stage {
            screen,
            began,
            mesh,
            users,
            orders,
            user_news,
            order_news,
            user_channel,
            order_channel,
            timeline: Timeline::default(),
            kills: Vec::new(),
        };
        stage.everybody_listed().await?;
        Ok(stage)
    }

    fn say(&self, line: String) {
        self.screen.say(line);
    }

    /// Says what is done to the mesh, and notes when.
    fn mark(&mut self, at: Instant, what: String) {
        self.screen.say(&what);
        self.timeline.add(at, what);
    }

    async fn everybody_listed(&mut self) -> Result<(), Failure> {
        for (news, members) in [(&mut self.user_news, &self.users), (&mut self.order_news, &self.orders)] {
            let all_there = |view: &ServiceView| members.iter().all(|member| view.lists(&member.id.to_string()));
            news.until("all instances to register", NEWS_MAX, all_there).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Waits until the client has a connection to every instance.
    async fn channels_ready(&self) -> Result<(), Failure> {
        let ready = |channel: &MeshChannel| {
            channel.endpoints().iter().filter(|endpoint| endpoint.state() == ConnectivityState::Ready).count()
        };
        let all = || ready(&self.user_channel) >= self.users.len() && ready(&self.order_channel) >= self.orders.len();
        look_until("the client to connect to every instance", all).await
    }

    async fn kill_a_user_service(&mut self) -> Result<(), Failure> {
        let mut victim = self.users.remove(1);
        let endpoint = endpoint_of(&self.user_channel, victim.id)?;
        let at = clock::now();
        victim.process.signal(rustix::process::Signal::KILL);
        self.mark(at, format!("{} was killed with SIGKILL", victim.process.name()));
        victim.process.kill().await;
        let kill = removal_of(&mut self.user_news, &victim, &endpoint, at).await?;
        self.kills.push(kill);
        Ok(())
    }

    async fn kill_an_order_service(&mut self) -> Result<(), Failure> {
        let mut victim = self.orders.remove(0);
        let endpoint = endpoint_of(&self.order_channel, victim.id)?;
        let at = clock::now();
        victim.process.signal(rustix::process::Signal::KILL);
        self.mark(at, format!("{} was killed with SIGKILL", victim.process.name()));
        victim.process.kill().await;
        let kill = removal_of(&mut self.order_news, &victim, &endpoint, at).await?;
        self.kills.push(kill);
        Ok(())
    }

    async fn replace_it(&mut self) -> Result<(), Failure> {
        let replacement = self.mesh.join(Program::UserSvc, Listen::Free).await.map_err(failed)?;
        let id = replacement.id;
        self.mark(clock::now(), format!("{} was started as its replacement", replacement.process.name()));
        self.users.push(replacement);
        look_until("the replacement to be picked", || {
            endpoint_of(&self.user_channel, id).is_ok_and(|endpoint| endpoint.picks() > 0)
        })
        .await
    }

    /// As an operator would: first out of the picks, and when nobody comes any more, SIGTERM.
    async fn drain_another(&mut self) -> Result<(), Failure> {
        let mut leaving = self.users.remove(0);
        let id = leaving.id.to_string();
        let endpoint = endpoint_of(&self.user_channel, leaving.id)?;
        self.mark(clock::now(), format!("{} was set to drain", leaving.process.name()));
        self.set_draining(&id).await?;
        let draining = |view: &ServiceView| view.admin_state(&id) == AdminState::Draining;
        self.user_news.until("the drain to be told", NEWS_MAX, draining).await.map_err(failed)?;
        let idle =
            || endpoint.last_pick().is_none_or(|picked| picked.elapsed() >= UNPICKED) && endpoint.in_flight() == 0;
        look_until("picks of the draining instance to stop", idle).await?;
        self.mark(clock::now(), format!("{} is picked no more and was asked to end", leaving.process.name()));
        leaving.process.drain().await.map_err(failed)?;
        self.say(format!("{} has drained and ended with 0", leaving.process.name()));
        self.user_news
            .until("the drained instance to leave", NEWS_MAX, |view| !view.lists(&id))
            .await
            .map_err(failed)?;
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

    /// The registry keeps its records in memory: it comes back knowing nothing, and everybody registers again.
    async fn restart_the_registry(&mut self) -> Result<(), Failure> {
        let store_before = self.user_news.view().store_id().to_owned();
        self.mesh.kill_registry().await;
        self.mark(clock::now(), "the registry was killed with SIGKILL".to_owned());
        tokio::time::sleep(REGISTRY_AWAY).await;
        self.mesh.start_registry().await.map_err(failed)?;
        self.mark(clock::now(), "the registry was started again, with nothing in its memory".to_owned());
        for (news, members) in [(&mut self.user_news, &self.users), (&mut self.order_news, &self.orders)] {
            let anew = |view: &ServiceView| {
                let all_there = members.iter().all(|member| view.lists(&member.id.to_string()));
                view.store_id() != store_before && view.complete() && all_there
            };
            news.until("everybody to register again", NEWS_MAX, anew).await.map_err(failed)?;
        }
        self.say("everybody has registered again".to_owned());
        Ok(())
    }
}

/// Waits until the registry has told that a killed instance is gone.
async fn removal_of(
    news: &mut Follower,
    victim: &Member,
    endpoint: &EndpointHandle,
    killed: Instant,
) -> Result<Kill, Failure> {
    let id = victim.id.to_string();
    let removed =
        news.until("the dead instance to be removed", NEWS_MAX, |view| !view.lists(&id)).await.map_err(failed)?;
    let last_pick = endpoint.last_pick().unwrap_or(killed);
    Ok(Kill {
        name: victim.process.name().to_owned(),
        to_last_pick: last_pick.saturating_duration_since(killed),
        to_removal: removed.saturating_duration_since(killed),
    })
}

/// Shows every change of a service the moment it is known.
fn tell(screen: Screen, service: Program) -> impl FnMut(&Change) + Send + 'static {
    move |change| match change {
        Change::Presence(_) => {}
        change => screen.say(format!("  watch {service:9} {}", line(change))),
    }
}

fn endpoint_of(channel: &MeshChannel, id: Uuid) -> Result<EndpointHandle, Failure> {
    let found = channel.endpoints().into_iter().find(|endpoint| endpoint.instance_id() == id);
    found.ok_or_else(|| Failure::Failed(format!("the client of {} does not know instance {id}", channel.service())))
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
