//! `watch SERVICE`: what is there, then every change, until Ctrl-C.

use mesh_api::registry::v1::{Instance, WatchResponse};

use crate::args::{Format, Globals};
use crate::commands::words;
use crate::failure::Failure;
use crate::follow::{Followed, Heard, News, follow};
use crate::output::{json, note, print};
use crate::registry_client::RegistryClient;
use crate::signals::EndSignals;
use crate::view::{Change, Outlook, ServiceView, ViewError};

/// `meshctl watch SERVICE`. A registry that is away when it begins is an error; one that goes away later is waited for.
pub(crate) async fn watch(globals: &Globals, service: &str) -> Result<(), Failure> {
    RegistryClient::connect(globals).await?;
    let followed = Followed {
        registries: globals.registry.clone(),
        namespace: globals.namespace.clone(),
        service: service.to_owned(),
    };
    let mut signals = EndSignals::listen()?;
    let mut teller = Teller::new(service, globals.output);
    tokio::select! {
        failure = follow(&followed, |news| teller.hear(news)) => Err(failure),
        // Ctrl-C is how this ends when all is well.
        _ = signals.next() => Ok(()),
    }
}

/// Shows the news for as long as there is somebody to read them.
struct Teller {
    service: String,
    format: Format,
    view: ServiceView,
    /// Who answers the stream that is open.
    registry: String,
    /// Whether it was said that nothing is heard any more.
    said_lost: bool,
}

impl Teller {
    fn new(service: &str, format: Format) -> Teller {
        let view = ServiceView::default();
        Teller { service: service.to_owned(), format, view, registry: String::new(), said_lost: false }
    }

    fn hear(&mut self, news: News<'_>) -> Heard<Failure> {
        match news {
            News::Opened(registry) => {
                self.view.stream_opened();
                self.registry = registry.to_string();
                Heard::GoOn
            }
            News::Lost(why) => {
                if !std::mem::replace(&mut self.said_lost, true) {
                    note(&format!("{why}; waiting for it"));
                }
                Heard::GoOn
            }
            News::Answer(answer) => self.answer(answer),
        }
    }

    fn answer(&mut self, answer: &WatchResponse) -> Heard<Failure> {
        let changes = match self.view.apply(answer) {
            Ok(changes) => changes,
            Err(refused @ ViewError::Refused { outlook: Outlook::Lasting, .. }) => {
                return Heard::End(Failure::Failed(format!("{}: {refused}", self.service)));
            }
            // What was missed comes with the snapshot of a new stream.
            Err(passing @ (ViewError::Gap { .. } | ViewError::Refused { outlook: Outlook::Passing, .. })) => {
                return Heard::Reopen(passing.to_string());
            }
        };
        // Not when the stream was opened: a registry that is ending still opens some, only to refuse.
        if std::mem::take(&mut self.said_lost) {
            note(&format!("{}: here again", self.registry));
        }
        let shown = match self.format {
            Format::Json => json("mesh.registry.v1.WatchResponse", answer).and_then(|line| print(&line)),
            Format::Table => changes.iter().try_for_each(|change| print(&line(change, words::plain))),
        };
        shown.map_or_else(Heard::End, |()| Heard::GoOn)
    }
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
    format!("{what:9} {}  {}  {how}", name(&instance.instance_id), words::main_address(instance))
}

fn standing(instance: &Instance) -> String {
    format!("{}  {}", words::serving(instance.serving_status()), words::admin(instance.admin_state()))
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1::watch_response::Event;
    use mesh_api::registry::v1::{Delta, Position, ServiceError};
    use tonic::Code;

    use super::*;

    fn answer(event: Event) -> WatchResponse {
        let position = Some(Position { store_id: "s".to_owned(), generation: 0, revision: 9 });
        WatchResponse { service: "user-svc".to_owned(), position, event: Some(event), ..Default::default() }
    }

    fn refusal(code: Code, reason: &str) -> WatchResponse {
        let (reason, message) = (reason.to_owned(), "not you".to_owned());
        answer(Event::Error(ServiceError { code: code.into(), reason, message, retry_after: None }))
    }

    #[test]
    fn a_passing_refusal_is_waited_out_and_a_lasting_one_ends_it() {
        let mut teller = Teller::new("user-svc", Format::Table);
        for reason in ["SHUTTING_DOWN", "NODE_BEHIND"] {
            let heard = teller.hear(News::Answer(&refusal(Code::Unavailable, reason)));
            assert!(matches!(&heard, Heard::Reopen(why) if why.contains(reason)), "{heard:?}");
        }
        let heard = teller.hear(News::Answer(&refusal(Code::InvalidArgument, "FIELD_INVALID")));
        assert!(matches!(&heard, Heard::End(Failure::Failed(why)) if why.contains("FIELD_INVALID")), "{heard:?}");
    }

    #[test]
    fn a_gap_asks_for_another_stream() {
        let mut teller = Teller::new("user-svc", Format::Table);
        let delta = answer(Event::Delta(Delta { base_revision: 8, ..Default::default() }));
        assert!(matches!(teller.hear(News::Answer(&delta)), Heard::Reopen(_)));
    }

    #[test]
    fn a_registry_is_here_again_when_it_has_answered_and_not_when_it_lets_itself_be_called() {
        let mut teller = Teller::new("user-svc", Format::Table);
        let registry = "127.0.0.1:7400".parse().expect("it is an address");
        teller.hear(News::Lost("gone".to_owned()));
        teller.hear(News::Opened(&registry));
        teller.hear(News::Answer(&refusal(Code::Unavailable, "SHUTTING_DOWN")));
        assert!(teller.said_lost);
        teller.hear(News::Answer(&answer(Event::Bookmark(Default::default()))));
        assert!(!teller.said_lost);
    }
}
