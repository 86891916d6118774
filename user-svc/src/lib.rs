//! user-svc: accounts and their logins, in a database of their own.
//!
//! | module | job |
//! |---|---|
//! | `service` | the front door: decode, ask, encode |
//! | `accounts` | what can be done with accounts, each mutating call once |
//! | `logins` | what can be done with logins: begin, go on, end |
//! | `user` | what an account is made of, valid by construction |
//! | `password` | argon2id hashes on a bounded pool |
//! | `limits` | how often a password may be guessed |
//! | `refresh` | refresh tokens, and the one that comes after another |
//! | `keys` | the key of this instance, and the public keys of all |
//! | `store` | the queries |
//! | `error` | refusals and their statuses |
//! | `clock` | the time, for tests to move |
//!
//! What must stay true: a password leaves the request only towards its hash, and a hash never leaves the database; an
//! email address belongs to one account; an account and the ledger entry of the call that changed it are written
//! together. Of a refresh token only a digest is stored, and of its family's the last alone goes on; an access token is made
//! after the write that lists its key for longer than it lives. Nothing that is answered before a password was right
//! tells whether there is such an account; another's account is answered as none, by the query itself.

mod accounts;
mod clock;
mod error;
mod keys;
mod limits;
mod logins;
mod password;
mod refresh;
mod service;
mod store;
mod user;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::FILE_DESCRIPTOR_SET;
use mesh_api::access::Access;
use mesh_api::shop::user::v1::user_service_server::{SERVICE_NAME, UserServiceServer};
use mesh_client::context::ContextLayer;
use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::auth::{AccessLayer, AuthArgs, KeySource};
use mesh_runtime::database::{Database, DatabaseUrl};
use mesh_runtime::{App, Error, ProcessArgs, Program, Shell, Speaks};
use tonic::service::{LayerExt as _, Routes};

use accounts::Accounts;
use clock::Clock;
use keys::Keys;
use limits::Limits;
use logins::Logins;
use password::Passwords;
use service::Users;

const PROGRAM: Program = Program {
    name: "user-svc",
    version: env!("CARGO_PKG_VERSION"),
    about: "Users: accounts and logins in a database of their own",
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

    #[command(flatten)]
    auth: AuthArgs,

    /// The key that this instance signs access tokens with, made if missing, for its owner only; each instance has its own
    /// [default: the first in the folder PATH.keys that no other instance on this machine uses]
    #[arg(long, env = "MESH_SIGNING_KEY", value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

/// Runs user-svc; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(Args { process, database, auth, signing_key }: Args) -> Result<(), Error> {
    let shell = Shell::bind(&PROGRAM, &process.server, process.advertise).await?; // first: a taken port creates no file
    let mesh = Mesh::builder().registry(&process.registry).zone(&process.zone).state_dir(process.state_dir);
    let mesh = mesh.build().map_err(Error::startup)?; // does not wait: the registry may be down
    let clock = Clock::start();
    let database_path = database.path().to_owned();
    let database = Database::open(&database, &store::SCHEMA).await.map_err(Error::startup)?;
    let keys = match signing_key {
        Some(file) => Keys::of_file(&file, clock.clone()),
        None => Keys::beside(&database_path, clock.clone()),
    };
    let keys = keys.map_err(Error::startup)?;
    keys.renew(&database).await; // before it is asked for
    let (listed, kept) = (database.clone(), keys.clone());
    let users = KeySource::new(move || {
        let (keys, database) = (kept.clone(), listed.clone());
        async move { keys.list(&database).await }
    });
    let verifier = auth.verifier(PROGRAM.name, process.server.listen, users)?;

    let passwords = Passwords::new();
    let limits = Limits::new(clock.clone());
    let users = UserServiceServer::new(Users {
        accounts: Accounts::new(database.clone(), passwords.clone(), limits.clone()),
        logins: Logins::new(database.clone(), passwords, keys.clone(), limits, clock),
        verifier: verifier.clone(),
    });
    let users = AccessLayer::new(Access::of, verifier).named_layer(users.max_decoding_message_size(REQUEST_BYTES_MAX));
    let users = ContextLayer::new().named_layer(users);
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

    let served = tokio::select! {
        served = shell.serve(app, registrar.hooks().into()) => served, // ready, registered, drained, gone
        () = keys.keep_listed(&database) => Err(Error::failed("the signing key is listed no more")),
    };
    database.close().await;
    served
}

#[cfg(test)]
mod tests;
