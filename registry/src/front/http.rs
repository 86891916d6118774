//! The HTTP door: what is registered, as text for people and `grep`.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::catalog::{
    AdminState, Emptiness, Instance, Liveness, Namespace, Presence, Protocol, ServiceView, ServingStatus,
};
use crate::engine::{Engine, View};

/// Most services on the page; `ListServices` has all of them.
const SERVICES_MAX: usize = 1000;

/// The routes of the registry's own page.
pub(crate) fn page(engine: Engine) -> Router {
    Router::new().route("/", get(services)).with_state(engine)
}

/// What the page is asked for.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    namespace: String,
}

async fn services(State(engine): State<Engine>, Query(asked): Query<Asked>) -> Response {
    match Namespace::parse(&asked.namespace) {
        Ok(namespace) => render(&engine.view(), &namespace).into_response(),
        Err(invalid) => (StatusCode::BAD_REQUEST, format!("{invalid}\n")).into_response(),
    }
}

/// One line per service, and below it one line per instance.
fn render(view: &View, namespace: &Namespace) -> String {
    let position = view.position();
    let state = if view.complete() { "complete" } else { "warming" };
    let mut page = format!(
        "registry store={} generation={} revision={} {state}\nnamespace {namespace}\n",
        position.store, position.generation.0, position.revision
    );
    for service in view.services(namespace, None).take(SERVICES_MAX) {
        let pickable = service.instances().values().filter(|instance| service.pickable(instance)).count();
        let (name, presence, count) = (&service.key().name, presence(service.presence()), service.instances().len());
        line(&mut page, format_args!("{name} {presence} instances={count} pickable={pickable}"));
        for instance in service.instances().values() {
            render_instance(&mut page, &service, instance);
        }
    }
    page
}

fn render_instance(page: &mut String, service: &ServiceView, instance: &Instance) {
    let spec = instance.spec();
    let grpc = spec.endpoints().iter().find(|endpoint| endpoint.protocol() == Protocol::Grpc);
    let address = grpc.map(|endpoint| endpoint.address().to_string()).unwrap_or_default();
    let (liveness, serving, admin) =
        (liveness(service.liveness(instance)), serving_status(instance.serving()), admin_state(instance.admin()));
    line(
        page,
        format_args!(
            "  {} incarnation={} {address} {liveness} {serving} {admin} zone={} weight={} version={:?}",
            instance.id(),
            instance.incarnation(),
            spec.zone.as_str(),
            spec.weight.get(),
            spec.version.as_str(),
        ),
    );
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a string never fails");
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Unknown => "unknown",
        Presence::Populated => "populated",
        Presence::Empty(Emptiness::Emptied) => "emptied",
        Presence::Empty(Emptiness::Lapsed) => "lapsed",
    }
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Stale => "stale",
    }
}

fn serving_status(status: ServingStatus) -> &'static str {
    match status {
        ServingStatus::Serving => "serving",
        ServingStatus::NotServing => "not-serving",
        ServingStatus::Draining => "draining",
    }
}

fn admin_state(state: AdminState) -> &'static str {
    match state {
        AdminState::Enabled => "enabled",
        AdminState::Draining => "admin-draining",
        AdminState::Disabled => "disabled",
    }
}
