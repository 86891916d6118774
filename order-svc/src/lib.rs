//! order-svc: what was bought, for how much, and how far it has come; in a database of its own.
//!
//! | module | job |
//! |---|---|
//! | `service`, `convert` | the front door: decode, ask, encode |
//! | `orders` | what can be done with orders, each mutating call once |
//! | `order` | what an order is made of, valid by construction, and its status machine |
//! | `money` | exact amounts |
//! | `directory` | whether a user exists: a question to user-svc |
//! | `store` | the queries |
//! | `error` | refusals and their statuses |
//!
//! What must stay true: a total is what its items say, exactly; a status moves along the arrows of the machine alone; an
//! order and the ledger entry of the call that changed it are written together; a user's call finds that user's orders, and
//! another's are to it as if they were not.

mod convert;
mod directory;
mod error;
mod money;
mod order;
mod orders;
mod service;
mod store;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mesh_api::FILE_DESCRIPTOR_SET;
use mesh_api::shop::order::v1::order_service_server::{OrderServiceServer, SERVICE_NAME};
use mesh_client::context::ContextLayer;
use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::auth::{
    Access, AccessLayer, AuthArgs, AuthMode, Credentialed, KeySource, ServiceCredential, SigningKey,
};
use mesh_runtime::database::{Database, DatabaseUrl};
use mesh_runtime::{App, Error, ProcessArgs, Program, Shell, Speaks};
use tonic::service::{LayerExt as _, Routes};

use directory::UserService;
use orders::Orders;
use service::FrontDoor;

const PROGRAM: Program = Program {
    name: "order-svc",
    version: env!("CARGO_PKG_VERSION"),
    about: "Orders: line items, money and a status machine; asks user-svc through the mesh",
    speaks: Speaks::Grpc,
    main_port: 7420,
    admin_port: 7421,
};

/// The service that knows the users.
const USERS: &str = "user-svc";
/// Largest request, in bytes; a valid one of a hundred lines has some 10 KiB.
const REQUEST_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, clap::Args)]
struct Args {
    #[command(flatten)]
    process: ProcessArgs,

    /// Where the orders are; every instance on this machine may use the same file
    #[arg(long, env = "MESH_DATABASE", value_name = "sqlite:PATH", default_value = "sqlite:mesh-data/order.db")]
    database: DatabaseUrl,

    #[command(flatten)]
    auth: AuthArgs,

    /// Private key that this program shows itself to user-svc with, made by `meshctl key new`; user-svc must trust it, for
    /// the issuer "order-svc" and the role "service" [default: none, which does where user-svc asks nobody who calls]
    #[arg(long, env = "MESH_SERVICE_KEY", value_name = "FILE")]
    service_key: Option<PathBuf>,
}

/// Runs order-svc; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(Args { process, database, auth, service_key }: Args) -> Result<(), Error> {
    let shell = Shell::bind(&PROGRAM, &process.server, process.advertise).await?; // first: a taken port creates no file
    let mesh = Mesh::builder()
        .registry(&process.registry)
        .zone(&process.zone)
        .state_dir(process.state_dir)
        .descriptors(FILE_DESCRIPTOR_SET);
    let mesh = mesh.build().map_err(Error::startup)?; // does not wait: the registry may be down
    let database = Database::open(&database, &store::SCHEMA).await.map_err(Error::startup)?;

    let users = mesh.channel(USERS);
    let verifier = auth.verifier(PROGRAM.name, process.server.listen, KeySource::user_service(users.clone()))?;
    let users = UserService::new(Credentialed::new(users, credential(service_key.as_deref(), auth.auth)?));
    let orders = OrderServiceServer::new(FrontDoor(Orders::new(database.clone(), users)));
    let orders = orders.max_decoding_message_size(REQUEST_BYTES_MAX);
    let orders = AccessLayer::new(Access::of, verifier).named_layer(orders);
    let orders = ContextLayer::new().named_layer(orders);
    let app = App::new(Routes::new(orders))
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

/// What user-svc is shown, if there is something to show.
fn credential(key: Option<&Path>, mode: AuthMode) -> Result<Option<ServiceCredential>, Error> {
    let Some(path) = key else {
        if mode == AuthMode::Jwt {
            tracing::warn!(
                "no --service-key: a user-svc that asks who calls will not say whether a user exists, and no order can be placed"
            );
        }
        return Ok(None);
    };
    let key = SigningKey::open(path).map_err(Error::startup)?;
    Ok(Some(ServiceCredential::new(key, PROGRAM.name, USERS)))
}

#[cfg(test)]
mod tests;
