//! A registry and the services around it, as the demo, `up` and the stories run them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use mesh_runtime::entropy;
use uuid::Uuid;

use crate::args::{Program, RegistryUrl};
use crate::follow::Followed;
use crate::local::keys::Keys;
use crate::local::process::{Launch, Launcher, Process, ProcessError};
use crate::operator::Operator;

/// How often a port is asked for again that was chosen beforehand, or was ours a moment ago. On loopback anybody's outgoing
/// connection may borrow it for a moment in between.
const RESTART_ATTEMPTS: u32 = 10;

/// Wait between two such attempts.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Free loopback ports.
    Free,
    /// The program's default ports.
    Default,
    /// These two.
    At {
        /// For gRPC.
        grpc: SocketAddr,
        /// For HTTP.
        http: SocketAddr,
    },
}

impl Listen {
    fn addresses(self, program: Program) -> (SocketAddr, SocketAddr) {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        match self {
            Listen::Free => (free, free),
            Listen::Default => program.default_ports(),
            Listen::At { grpc, http } => (grpc, http),
        }
    }
}

/// What a mesh is made from.
#[derive(Debug, Clone)]
pub struct LocalMeshPlan {
    /// A meshctl.
    pub binary: PathBuf,
    /// Folder of the databases and the registry's store, and of the logs and keys below it.
    pub data: PathBuf,
    /// Where the registry listens.
    pub registry: Listen,
    /// Flags of the registry besides its addresses.
    pub registry_flags: Vec<OsString>,
    /// Flags of every service besides what makes it an instance of this mesh.
    pub service_flags: Vec<OsString>,
    /// What everybody logs, in the words of `RUST_LOG`; none: what the variable says here.
    pub log_filter: Option<String>,
}

/// A registry, and what its services have in common. The services themselves belong to whoever had them join.
#[derive(Debug)]
pub struct LocalMesh {
    launcher: Launcher,
    plan: LocalMeshPlan,
    keys: Keys,
    registry: Option<Process>,
    /// How many of each program have been started, for their names.
    started: BTreeMap<Program, u32>,
    names: Names,
}

/// The names that the instances of a mesh have among people, by their ids. Clones see instances that join later.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<Mutex<BTreeMap<String, String>>>);

impl Names {
    /// The name of an instance; its id where it is not of this mesh.
    pub fn of(&self, instance_id: &str) -> String {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(instance_id).map_or_else(|| instance_id.to_owned(), Clone::clone)
    }

    fn add(&self, id: Uuid, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), name.to_owned());
    }
}

/// One instance of a service.
#[derive(Debug)]
pub struct Member {
    /// Its process.
    pub process: Process,
    /// The service.
    pub service: Program,
    /// Its id in the registry.
    pub id: Uuid,
}

impl LocalMesh {
    /// A mesh whose registry does not run yet; `plan.registry` must say where it will. Its keys are made where they are not
    /// there from the last time.
    pub fn without_registry(plan: LocalMeshPlan) -> io::Result<LocalMesh> {
        let launcher = Launcher::new(&plan.binary, plan.data.join("logs"))?.log_filter(plan.log_filter.clone());
        let keys = Keys::make(&plan.data).map_err(io::Error::other)?;
        Ok(LocalMesh { launcher, plan, keys, registry: None, started: BTreeMap::new(), names: Names::default() })
    }

    /// Starts the registry: at the place planned, or where it was before.
    pub async fn start_registry(&mut self) -> Result<(), ProcessError> {
        let (grpc, http) = self.plan.registry.addresses(Program::Registry);
        let mut flags = listen_flags(grpc, http);
        if !self.plan.registry_flags.iter().any(|flag| flag == "--store") {
            let mut store = OsString::from("file:");
            store.push(self.plan.data.join("registry"));
            flags.extend(["--store".into(), store]);
        }
        flags.extend(self.plan.registry_flags.iter().cloned());
        let launch = Launch { name: Program::Registry.name().to_owned(), program: Program::Registry, flags };
        let mut attempt = 1;
        let registry = loop {
            match self.launcher.start(launch.clone()).await {
                Err(ProcessError::EndedEarly { .. }) if self.has_its_place() && attempt < RESTART_ATTEMPTS => {
                    attempt += 1
                }
                outcome => break outcome?,
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        };
        self.plan.registry = Listen::At { grpc: registry.grpc(), http: registry.http() };
        self.started.insert(Program::Registry, 1);
        self.registry = Some(registry);
        Ok(())
    }

    /// Whether others look for the registry at two addresses of its own: no other ones will do.
    fn has_its_place(&self) -> bool {
        matches!(self.plan.registry, Listen::At { .. })
    }

    /// The registry, while it runs.
    pub fn registry(&mut self) -> Option<&mut Process> {
        self.registry.as_mut()
    }

    /// SIGKILL to the registry; nothing where it does not run.
    pub async fn kill_registry(&mut self) {
        if let Some(mut registry) = self.registry.take() {
            registry.kill().await;
        }
    }

    /// Ends the registry as an operator would: SIGTERM.
    pub async fn drain_registry(&mut self) -> Result<(), ProcessError> {
        match self.registry.take() {
            Some(mut registry) => registry.drain().await,
            None => Ok(()),
        }
    }

    /// Where the registry is, was, or will be.
    pub fn registry_url(&self) -> RegistryUrl {
        self.plan.registry.addresses(Program::Registry).0.into()
    }

    /// Whoever runs this mesh, as its services know them.
    pub fn operator(&self) -> Operator {
        self.keys.operator().clone()
    }

    /// The file of their key, which `meshctl token --key` takes.
    pub fn operator_key(&self) -> PathBuf {
        self.keys.operator_file()
    }

    /// What the instances are called.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// A service of this mesh, to follow.
    pub fn followed(&self, service: Program) -> Followed {
        let service = service.name().to_owned();
        Followed { registries: vec![self.registry_url()], namespace: "default".to_owned(), service }
    }

    /// Starts one instance of a service.
    pub async fn join(&mut self, service: Program, listen: Listen) -> Result<Member, ProcessError> {
        let launch = self.launch(service, listen);
        self.begin(service, launch).await
    }

    /// Starts several instances at once.
    pub async fn join_all(&mut self, wanted: &[(Program, Listen)]) -> Result<Vec<Member>, ProcessError> {
        let launches: Vec<_> =
            wanted.iter().map(|&(service, listen)| (service, self.launch(service, listen))).collect();
        try_join_all(launches.into_iter().map(|(service, launch)| self.begin(service, launch))).await
    }

    /// Starts a member that has ended once more: another process with another id, at the same address.
    pub async fn rejoin(&mut self, ended: Member) -> Result<Member, ProcessError> {
        let listen = Listen::At { grpc: ended.process.grpc(), http: ended.process.http() };
        let service = ended.service;
        drop(ended);
        let mut attempt = 1;
        loop {
            match self.join(service, listen).await {
                Err(ProcessError::EndedEarly { .. }) if attempt < RESTART_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn begin(&self, service: Program, (id, launch): (Uuid, Launch)) -> Result<Member, ProcessError> {
        let process = self.launcher.start(launch).await?;
        Ok(Member { process, service, id })
    }

    fn launch(&mut self, program: Program, listen: Listen) -> (Uuid, Launch) {
        let number = self.started.entry(program).and_modify(|number| *number += 1).or_insert(1);
        let name = format!("{program}-{number}");
        let id = entropy::uuid_v7();
        self.names.add(id, &name);
        let (grpc, http) = listen.addresses(program);
        let mut flags = listen_flags(grpc, http);
        flags.extend(["--registry".into(), self.registry_url().to_string().into()]);
        flags.extend(["--instance-id".into(), id.to_string().into()]);
        if matches!(program, Program::UserSvc | Program::OrderSvc) {
            let mut database = OsString::from("sqlite:");
            database.push(self.plan.data.join(format!("{}.db", program.name().trim_end_matches("-svc"))));
            flags.extend(["--database".into(), database]);
        }
        if !self.plan.service_flags.iter().any(|flag| flag == "--auth") {
            flags.extend(self.keys.flags(program));
        }
        flags.extend(self.plan.service_flags.iter().cloned());
        (id, Launch { name, program, flags })
    }
}

fn listen_flags(grpc: SocketAddr, http: SocketAddr) -> Vec<OsString> {
    ["--listen".to_owned(), grpc.to_string(), "--admin-listen".to_owned(), http.to_string()].map(OsString::from).into()
}
