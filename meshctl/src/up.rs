//! `meshctl up`: a whole mesh, left running until Ctrl-C.

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use crate::args::{Program, UpArgs};
use crate::failure::Failure;
use crate::local::{Listen, LocalMesh, LocalMeshPlan, Member, Process, ProcessError};
use crate::output::{note, print};
use crate::signals::EndSignals;

/// Who runs, and where: the first of each service at its default address.
const MEMBERS: [(Program, Listen); 6] = [
    (Program::UserSvc, Listen::Default),
    (Program::UserSvc, Listen::Free),
    (Program::UserSvc, Listen::Free),
    (Program::OrderSvc, Listen::Default),
    (Program::OrderSvc, Listen::Free),
    (Program::Gateway, Listen::Default),
];

/// Runs until a signal, then drains everybody. A second signal ends it at once.
pub(crate) async fn up(args: &UpArgs) -> Result<(), Failure> {
    let mut signals = EndSignals::listen()?;
    let plan = LocalMeshPlan {
        binary: std::env::current_exe()?,
        data: args.data_dir.clone(),
        registry: Listen::Default,
        registry_flags: Vec::new(),
        service_flags: Vec::new(),
        log_filter: None,
    };
    let mut mesh = LocalMesh::without_registry(plan)
        .map_err(|error| Failure::Usage(format!("--data-dir {}: {error}", args.data_dir.display())))?;
    let mut members = tokio::select! {
        started = start(&mut mesh) => started.map_err(explain)?,
        ended = signals.next() => return Err(ended),
    };
    print(&welcome(args, &mut mesh, &members))?;

    tokio::select! {
        () = report_deaths(&mut mesh, &mut members) => {
            return Err(Failure::Failed("nobody is left running".to_owned()));
        }
        _ = signals.next() => note("draining; Ctrl-C again ends everything at once"),
    }
    tokio::select! {
        drained = drain(&mut mesh, &mut members) => drained,
        ended = signals.next() => Err(ended),
    }
}

async fn start(mesh: &mut LocalMesh) -> Result<Vec<Member>, ProcessError> {
    mesh.start_registry().await?;
    mesh.join_all(&MEMBERS).await
}

/// A server that refuses to start with exit code 2 was told something that cannot be: most often, a port that is taken.
fn explain(error: ProcessError) -> Failure {
    match &error {
        ProcessError::EndedEarly { status, last_words, .. } if status.code() == Some(2) => {
            Failure::Usage(last_words.clone())
        }
        _ => Failure::Failed(error.to_string()),
    }
}

/// Who runs where, and what to try.
fn welcome(args: &UpArgs, mesh: &mut LocalMesh, members: &[Member]) -> String {
    let mut text = String::new();
    for process in
        mesh.registry().map(|registry| &*registry).into_iter().chain(members.iter().map(|member| &member.process))
    {
        let (main, admin) = process.program().ports();
        text.push_str(&format!(
            "{:12} {main:4} {:21} {admin:5} {}\n",
            process.name(),
            process.grpc().to_string(),
            process.http()
        ));
    }
    let registry = mesh.registry_url();
    let (data, key) = (args.data_dir.display(), mesh.operator_key());
    let key = key.display();
    text.push_str(&format!(
        "\ndata, keys and logs are in {data}; Ctrl-C drains everybody and ends\n\n\
         try:\n\
         \x20 meshctl services\n\
         \x20 meshctl instances user-svc\n\
         \x20 grpcurl -plaintext {registry} list\n\
         \x20 grpcurl -plaintext {registry} mesh.registry.v1.RegistryService/ListServices\n\
         \x20 grpcurl -plaintext -d '{{\"service\":\"user-svc\"}}' {registry} mesh.registry.v1.RegistryService/Resolve\n\n\
         the services want to know who calls. An account is open to everybody, and its login gives a token:\n\
         \x20 meshctl call user-svc CreateUser '{{\"request_id\":\"my-first-request-1\",\"email\":\"ada@example.com\",\
         \"display_name\":\"Ada\",\"password\":\"correct horse\"}}'\n\
         \x20 meshctl call user-svc Login '{{\"email\":\"ada@example.com\",\"password\":\"correct horse\"}}'\n\n\
         you run all this, so you can make yourself a token that may do everything, for 15 minutes:\n\
         \x20 export MESH_TOKEN=$(meshctl token --key {key})\n\
         \x20 meshctl call user-svc ListUsers\n"
    ));
    if let Some(user) = members.iter().find(|member| member.service == Program::UserSvc) {
        text.push_str(&format!(
            "\x20 grpcurl -plaintext -H \"authorization: Bearer $MESH_TOKEN\" {} shop.user.v1.UserService/ListUsers\n",
            user.process.grpc()
        ));
    }
    if let Some(gateway) = members.iter().find(|member| member.service == Program::Gateway) {
        let rest = gateway.process.rest();
        text.push_str(&format!(
            "\nthe same over HTTP, and what there is at http://{rest}/docs:\n\
             \x20 curl -H \"authorization: Bearer $MESH_TOKEN\" http://{rest}/v1/users\n"
        ));
    }
    if let Some(gateway) = members.iter().find(|member| member.service == Program::Gateway) {
        let rest = gateway.process.rest();
        text.push_str(&format!(
            "\nall of it over REST; http://{rest}/docs describes every route:\n\
             \x20 curl -s -H \"authorization: Bearer $MESH_TOKEN\" {rest}/v1/users\n"
        ));
    }
    text
}

fn everybody<'a>(mesh: &'a mut LocalMesh, members: &'a mut [Member]) -> impl Iterator<Item = &'a mut Process> {
    mesh.registry().into_iter().chain(members.iter_mut().map(|member| &mut member.process))
}

/// Says who died, for as long as somebody lives. Nobody is started again: whoever runs this wants to see what happens.
async fn report_deaths(mesh: &mut LocalMesh, members: &mut [Member]) {
    let mut ends: FuturesUnordered<_> = everybody(mesh, members)
        .map(|process| async move {
            let status = process.ended().await;
            (status, process)
        })
        .collect();
    while let Some((status, process)) = ends.next().await {
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        note(&format!("{} has ended by itself ({how}): {}", process.name(), process.last_words()));
    }
}

/// Services first, so that they can say goodbye to the registry.
async fn drain(mesh: &mut LocalMesh, members: &mut [Member]) -> Result<(), Failure> {
    let running = members.iter_mut().filter(|member| member.process.id().is_some());
    let mut faults: Vec<ProcessError> =
        join_all(running.map(|member| member.process.drain())).await.into_iter().filter_map(Result::err).collect();
    if mesh.registry().is_some_and(|registry| registry.id().is_some()) {
        faults.extend(mesh.drain_registry().await.err());
    }
    match faults.first() {
        None => Ok(()),
        Some(fault) => Err(Failure::Failed(fault.to_string())),
    }
}
