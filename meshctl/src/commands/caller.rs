//! Being a caller in the mesh, as `call` and `explain` are.

use std::time::Duration;

use mesh_api::registry::v1::ResolveResponse;
use mesh_client::Mesh;
use tokio::time::{Instant, timeout_at};

use crate::args::{CallerArgs, Globals};
use crate::failure::Failure;
use crate::output::note;
use crate::registry_client::RegistryClient;

/// How long before the deadline a registry is given up that is not needed.
const ENOUGH: Duration = Duration::from_secs(1);

/// A caller's mesh, and what the registry says of the service that it wants; absent where it says nothing.
pub(crate) struct Caller {
    /// The mesh.
    pub(crate) mesh: Mesh,
    /// What the registry says.
    pub(crate) known: Option<ResolveResponse>,
}

/// Becomes a caller of a service. The registry is asked first, for the sake of the answer: a registry that is away and a
/// name that nobody has are told apart at once. With a state folder, one that is away is no obstacle.
pub(crate) async fn caller(
    globals: &Globals,
    args: &CallerArgs,
    service: &str,
    deadline: Instant,
) -> Result<Caller, Failure> {
    let mesh = Mesh::builder()
        .registry(globals.registry.iter().map(ToString::to_string))
        .namespace(&globals.namespace)
        .zone(&args.zone)
        .state_dir(args.state_dir.clone());
    let mesh = mesh.build().map_err(|error| Failure::Usage(error.to_string()))?;

    let asked_until = match args.state_dir {
        Some(_) => deadline - ENOUGH.min(globals.timeout / 2),
        None => deadline,
    };
    let late = |_| Failure::Failed(format!("no registry has answered within {:?}", globals.timeout));
    let registry = timeout_at(asked_until, RegistryClient::connect(globals)).await.map_err(late).flatten();
    let known = match (registry, &args.state_dir) {
        (Ok(registry), _) => Some(timeout_at(deadline, registry.resolve(service)).await.map_err(late)??),
        (Err(away), Some(folder)) => {
            note(&format!("note: {away}; what {} holds is used instead", folder.display()));
            None
        }
        (Err(away), None) => return Err(away),
    };
    Ok(Caller { mesh, known })
}
