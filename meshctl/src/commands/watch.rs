//! `watch SERVICE`: what is there, then every change, until Ctrl-C.

use std::ops::ControlFlow;

use mesh_api::registry::v1::Instance;

use crate::args::{Format, Globals};
use crate::commands::words;
use crate::failure::Failure;
use crate::follow::{Followed, News, follow};
use crate::output::{json, note, print};
use crate::registry_client::RegistryClient;
use crate::signals::EndSignals;
use crate::view::{Change, ServiceView, ViewError};

/// `meshctl watch SERVICE`. A registry that is away when it begins is an error; one that goes away later is waited for.
pub(crate) async fn watch(globals: &Globals, service: &str) -> Result<(), Failure> {
    RegistryClient::connect(globals).await?;
    let followed = Followed {
        registries: globals.registry.clone(),
        namespace: globals.namespace.clone(),
        service: service.to_owned(),
    };
    let mut signals = EndSignals::listen()?;
    tokio::select! {
        failure = show(&followed, globals.output) => Err(failure),
        // Ctrl-C is how this ends when all is well.
        _ = signals.next() => Ok(()),
    }
}

/// Shows the news for as long as there is somebody to read them.
async fn show(followed: &Followed, format: Format) -> Failure {
    let mut view = ServiceView::default();
    let mut was_lost = false;
    loop {
        let broken = follow(followed, |news| match news {
            News::Opened(registry) => {
                view.stream_opened();
                if std::mem::take(&mut was_lost) {
                    note(&format!("{registry}: here again"));
                }
                ControlFlow::Continue(())
            }
            News::Lost(why) => {
                if !std::mem::replace(&mut was_lost, true) {
                    note(&format!("{why}; waiting for it"));
                }
                ControlFlow::Continue(())
            }
            News::Answer(answer) => {
                let shown = match (view.apply(answer), format) {
                    (Err(error), _) => return ControlFlow::Break(Broken::View(error)),
                    (Ok(_), Format::Json) => {
                        json("mesh.registry.v1.WatchResponse", answer).and_then(|line| print(&line))
                    }
                    (Ok(changes), Format::Table) => {
                        changes.iter().try_for_each(|change| print(&line(change, words::plain)))
                    }
                };
                shown.map_or_else(|failure| ControlFlow::Break(Broken::Output(failure)), ControlFlow::Continue)
            }
        })
        .await;
        match broken {
            // What was missed comes with the snapshot of a new stream.
            Broken::View(ViewError::Gap { .. }) => {}
            Broken::View(refused @ ViewError::Refused { .. }) => {
                return Failure::Failed(format!("{}: {refused}", followed.service));
            }
            Broken::Output(failure) => return failure,
        }
    }
}

/// Why the news are shown no further.
enum Broken {
    View(ViewError),
    Output(Failure),
}

/// One change as a line: what happened, to whom, and how that one stands. `name` says what an id is called.
pub(crate) fn line(change: &Change, name: impl Fn(&str) -> String) -> String {
    let (what, instance, how) = match change {
        Change::Joined(instance) => ("joined", instance, standing(instance)),
        Change::Changed(instance) => ("changed", instance, standing(instance)),
        Change::Left { instance, reason } => ("left", instance, words::removal(*reason).to_owned()),
        Change::Liveness { instance, now } => ("liveness", instance, words::liveness(*now).to_owned()),
        Change::Hold(Some(hold)) => return format!("removals  held back: {}", words::hold(hold)),
        Change::Hold(None) => return "removals  no longer held back".to_owned(),
        Change::Presence(presence) => return format!("service   {}", words::presence(*presence)),
    };
    format!("{what:9} {}  {}  {how}", name(&instance.instance_id), words::grpc_address(instance))
}

fn standing(instance: &Instance) -> String {
    format!("{}  {}", words::serving(instance.serving_status()), words::admin(instance.admin_state()))
}
