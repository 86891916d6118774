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

/// Most instances on the page, 2 MiB of text; `Resolve` and `Watch` have all of them.
const INSTANCES_MAX: usize = 10_000;

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
        Ok(namespace) => render(&engine.view(), &namespace, INSTANCES_MAX).into_response(),
        Err(invalid) => (StatusCode::BAD_REQUEST, format!("{invalid}\n")).into_response(),
    }
}

/// One line per service, and below it one line per instance; at the end, what there is no room for.
fn render(view: &View, namespace: &Namespace, instances_max: usize) -> String {
    let position = view.position();
    let state = if view.complete() { "complete" } else { "warming" };
    let mut page = format!(
        "registry store={} generation={} revision={} {state}\nnamespace {namespace}\n",
        position.store, position.generation.0, position.revision
    );
    let mut room = instances_max;
    let mut left_out = 0;
    let mut services = view.services(namespace, None);
    for service in services.by_ref().take(SERVICES_MAX) {
        let pickable = service.instances().values().filter(|instance| service.pickable(instance)).count();
        let (name, presence, count) = (&service.key().name, presence(service.presence()), service.instances().len());
        line(&mut page, format_args!("{name} {presence} instances={count} pickable={pickable}"));
        for instance in service.instances().values().take(room) {
            render_instance(&mut page, &service, instance);
        }
        let shown = count.min(room);
        room -= shown;
        left_out += count - shown;
    }
    let services_left_out = services.count();
    if left_out > 0 || services_left_out > 0 {
        line(&mut page, format_args!("left out: {services_left_out} services and {left_out} instances of those shown"));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Settings;
    use crate::catalog::kit;
    use crate::engine::Metrics;
    use crate::storage::MemoryStore;

    #[tokio::test]
    async fn a_page_without_room_says_how_much_it_left_out() {
        let settings = Settings::of_process();
        let store = Arc::new(MemoryStore::new(settings.store_id));
        let (engine, _task) = Engine::start(settings.engine, store, Metrics::default()).await.expect("it loads");
        for instance in 1..=3 {
            engine.register(kit::asks(instance)).await.expect("registered");
        }
        let lines = |max| {
            let page = render(&engine.view(), &Namespace::parse("").expect("the default"), max);
            page.lines().skip(2).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines(3).len(), 4);
        let cut = lines(2);
        assert_eq!((cut.len(), cut[0].as_str()), (4, "user-svc populated instances=3 pickable=3"));
        assert_eq!(cut[3], "left out: 0 services and 1 instances of those shown");
    }
}
