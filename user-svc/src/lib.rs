//! user-svc: accounts, in a database of their own.
//!
//! | module | job |
//! |---|---|
//! | `service` | the front door: decode, ask, encode |
//! | `accounts` | what can be done with accounts, each mutating call once |
//! | `user` | what an account is made of, valid by construction |
//! | `password` | argon2id hashes on a bounded pool |
//! | `store` | the queries |
//! | `error` | refusals and their statuses |
//!
//! What must stay true: a password leaves the request only towards its hash, and a hash never leaves the database; an
//! email address belongs to one account; an account and the ledger entry of the call that changed it are written
//! together.

mod accounts;
mod error;
mod password;
mod service;
mod store;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

use mesh_api::FILE_DESCRIPTOR_SET;
use mesh_api::shop::user::v1::user_service_server::{SERVICE_NAME, UserServiceServer};
use mesh_client::context::ContextLayer;
use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::database::{Database, DatabaseUrl};
use mesh_runtime::{App, Error, ProcessArgs, Program, Shell, Speaks};
use tonic::service::{LayerExt as _, Routes};

use accounts::Accounts;
use password::Passwords;
use service::Users;

const PROGRAM: Program = Program {
    name: "user-svc",
    version: env!("CARGO_PKG_VERSION"),
    about: "Users: accounts in a database of their own",
    speaks: Speaks::Grpc,
    main_port: 7410,
    admin_port: 7411,
};

/// Largest request, in bytes; the fields of the largest valid one add up to some 1 KiB.
const REQUEST_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, clap::Args)]
struct Args {
    #[command(flatten)]
    process: ProcessArgs,

    /// Where the accounts are; every instance on this machine may use the same file
    #[arg(long, env = "MESH_DATABASE", value_name = "sqlite:PATH", default_value = "sqlite:mesh-data/user.db")]
    database: DatabaseUrl,
}

/// Runs user-svc; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(Args { process, database }: Args) -> Result<(), Error> {
    let shell = Shell::bind(&PROGRAM, &process.server, process.advertise).await?; // first: a taken port creates no file
    let mesh = Mesh::builder().registry(&process.registry).zone(&process.zone).state_dir(process.state_dir);
    let mesh = mesh.build().map_err(Error::startup)?; // does not wait: the registry may be down
    let database = Database::open(&database, &store::SCHEMA).await.map_err(Error::startup)?;

    let users = UserServiceServer::new(Users(Accounts::new(database.clone(), Passwords::new())));
    let users = ContextLayer::new().named_layer(users.max_decoding_message_size(REQUEST_BYTES_MAX));
    let app = App::new(Routes::new(users))
        .authority(PROGRAM.name)
        .grpc_service(SERVICE_NAME)
        .descriptors(FILE_DESCRIPTOR_SET)
        .collector(mesh.metrics());
    let registrar = mesh.registrar(InstanceSpec {
        instance_id: process.instance_id,
        zone: process.zone,
        weight: process.weight,
        version: PROGRAM.version.to_owned(),
        descriptors: FILE_DESCRIPTOR_SET,
        grpc_services: vec![SERVICE_NAME.to_owned()],
        ..InstanceSpec::new(PROGRAM.name)
    });
    registrar.report_load(shell.load().hook());

    let served = shell.serve(app, registrar.hooks().into()).await; // ready, registered, drained, gone
    database.close().await;
    served
}

#[cfg(test)]
mod tests;
