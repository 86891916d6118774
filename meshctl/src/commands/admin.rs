//! `drain` and `enable`: what an operator wants of one instance.

use mesh_api::registry::v1::selector::By;
use mesh_api::registry::v1::{AdminState, Selector, SetAdminStateRequest};

use crate::args::{AdminArgs, EnableArgs, Format, Globals};
use crate::commands::words;
use crate::failure::Failure;
use crate::output::{json, print};
use crate::registry_client::RegistryClient;

/// `meshctl drain INSTANCE`.
pub(crate) async fn drain(globals: &Globals, args: &AdminArgs) -> Result<(), Failure> {
    let expires_in = match args.expires.map(prost_types::Duration::try_from) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(error)) => return Err(Failure::Usage(format!("--expires: {error}"))),
    };
    set(globals, &args.instance, AdminState::Draining, expires_in).await
}

/// `meshctl enable INSTANCE`.
pub(crate) async fn enable(globals: &Globals, args: &EnableArgs) -> Result<(), Failure> {
    set(globals, &args.instance, AdminState::Enabled, None).await
}

async fn set(
    globals: &Globals,
    instance: &str,
    state: AdminState,
    expires_in: Option<prost_types::Duration>,
) -> Result<(), Failure> {
    let registry = RegistryClient::connect(globals).await?;
    let instance = registry.find_instance(instance).await?;
    let ask = SetAdminStateRequest {
        namespace: registry.namespace().to_owned(),
        service: instance.service.clone(),
        selector: Some(Selector { by: Some(By::InstanceId(instance.instance_id.clone())) }),
        state: state.into(),
        expires_in,
    };
    let answer = registry.stubs().set_admin_state(registry.request(ask)).await?.into_inner();
    match globals.output {
        Format::Json => print(&json("mesh.registry.v1.SetAdminStateResponse", &answer)?),
        Format::Table => print(&format!(
            "{} {} at {} is {} now",
            instance.service,
            instance.instance_id,
            words::main_address(&instance),
            words::admin(state)
        )),
    }
}
