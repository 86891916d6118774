//! `events [SERVICE]`: what has happened to instances lately, and with `--follow` what happens from there.

use std::time::Duration;

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{EventKind, ListEventsRequest, ListEventsResponse, MembershipEvent};
use tonic::Code;

use crate::args::{EventsArgs, Format, Globals, RegistryUrl};
use crate::commands::words;
use crate::failure::Failure;
use crate::output::{json, note, print};
use crate::registry_client::{RegistryClient, connect_to};
use crate::signals::EndSignals;

/// Wait before a broken stream is opened again: enough not to spin.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// `meshctl events [SERVICE] [--follow]`.
pub(crate) async fn events(globals: &Globals, args: &EventsArgs) -> Result<(), Failure> {
    let registry = RegistryClient::connect(globals).await?;
    let ask = ListEventsRequest {
        namespace: globals.namespace.clone(),
        service: args.service.clone().unwrap_or_default(),
        limit: i32::from(args.limit),
        follow: args.follow,
    };
    let mut teller = Teller { format: globals.output, last: None };
    if !args.follow {
        let mut answers = registry.stubs().list_events(registry.request(ask)).await.map_err(explained)?.into_inner();
        while let Some(answer) = answers.message().await? {
            teller.tell(&answer)?;
        }
        if teller.last.is_none() {
            note("nothing has happened since this registry started");
        }
        return Ok(());
    }
    let mut signals = EndSignals::listen()?;
    tokio::select! {
        failure = follow(globals, ask, &mut teller) => Err(failure),
        // Ctrl-C is how this ends when all is well.
        _ = signals.next() => Ok(()),
    }
}

/// Follows for as long as somebody wants to know; a registry that goes away is waited for.
async fn follow(globals: &Globals, ask: ListEventsRequest, teller: &mut Teller) -> Failure {
    let mut said_lost = false;
    loop {
        for registry in &globals.registry {
            match listen(registry, globals.timeout, ask.clone(), teller, &mut said_lost).await {
                Lost::For(why) => {
                    if !std::mem::replace(&mut said_lost, true) {
                        note(&format!("{registry}: {why}; waiting for it"));
                    }
                }
                Lost::Ended(failure) => return failure,
            }
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

/// Why a stream is no more.
enum Lost {
    /// It broke; another one may be had.
    For(String),
    /// No other one would be better.
    Ended(Failure),
}

async fn listen(
    registry: &RegistryUrl,
    limit: Duration,
    ask: ListEventsRequest,
    teller: &mut Teller,
    said_lost: &mut bool,
) -> Lost {
    let channel = match connect_to(registry, limit).await {
        Ok(channel) => channel,
        Err(why) => return Lost::For(why),
    };
    let mut answers = match RegistryServiceClient::new(channel).list_events(ask).await {
        Ok(answers) => answers.into_inner(),
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) => {
            return Lost::Ended(explained(status));
        }
        Err(status) => return Lost::For(status.message().to_owned()),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if std::mem::take(said_lost) {
                    note(&format!("{registry}: here again"));
                }
                if let Err(failure) = teller.tell(&answer) {
                    return Lost::Ended(failure);
                }
            }
            Ok(None) => return Lost::For("the registry ended the stream".to_owned()),
            Err(status) => return Lost::For(status.message().to_owned()),
        }
    }
}

/// A registry that has never heard of events says so in words that mean nothing to people.
fn explained(status: tonic::Status) -> Failure {
    match status.code() {
        Code::Unimplemented => Failure::Failed("this registry is too old to tell events".to_owned()),
        _ => status.into(),
    }
}

/// Prints each event once, also when a stream is opened again and tells the past once more.
struct Teller {
    format: Format,
    /// Time and number of the last event told. Another registry, or another life of it, counts anew, and its clock goes on.
    last: Option<(i64, i32, u64)>,
}

impl Teller {
    fn tell(&mut self, answer: &ListEventsResponse) -> Result<(), Failure> {
        if answer.missed > 0 {
            note(&format!("note: {} events were missed, of any service: they came too fast", answer.missed));
        }
        for event in &answer.events {
            let time = event.time.unwrap_or_default();
            let stamp = (time.seconds, time.nanos, event.number);
            if self.last.is_some_and(|last| stamp <= last) {
                continue;
            }
            self.last = Some(stamp);
            print(&match self.format {
                Format::Json => json("mesh.registry.v1.MembershipEvent", event)?,
                Format::Table => line(event),
            })?;
        }
        Ok(())
    }
}

/// One event as a line: when, what, to whom, why, and the revision.
fn line(event: &MembershipEvent) -> String {
    let mut whom = words::plain(&event.service);
    for part in [&event.instance_id, &event.address].into_iter().filter(|part| !part.is_empty()) {
        whom.push_str("  ");
        whom.push_str(&words::plain(part));
    }
    let why = if event.detail.is_empty() { String::new() } else { format!("  {}", words::plain(&event.detail)) };
    let revision = event.position.as_ref().map_or(0, |position| position.revision);
    format!("{}  {:11} {whom}{why}  (revision {revision})", moment(event), kind(event.kind()))
}

/// The time to the millisecond, in UTC.
fn moment(event: &MembershipEvent) -> String {
    const NANOS_PER_MILLI: i32 = 1_000_000;
    let mut time = event.time.unwrap_or_default();
    time.nanos -= time.nanos.rem_euclid(NANOS_PER_MILLI);
    time.to_string()
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "-",
        EventKind::Registered => "registered",
        EventKind::TakenOver => "taken over",
        EventKind::Updated => "updated",
        EventKind::Serving => "serving",
        EventKind::Admin => "admin",
        EventKind::Removed => "removed",
        EventKind::HeldBack => "held back",
        EventKind::Released => "released",
        EventKind::Fenced => "fenced",
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1::Position;

    use super::*;

    fn event(number: u64, seconds: i64) -> MembershipEvent {
        MembershipEvent {
            number,
            time: Some(prost_types::Timestamp { seconds, nanos: 123_456_789 }),
            kind: EventKind::Removed.into(),
            service: "user-svc".to_owned(),
            instance_id: "0190a7b2-0000-7000-8000-000000000001".to_owned(),
            address: "10.0.0.1:7410".to_owned(),
            detail: "it said goodbye".to_owned(),
            position: Some(Position { revision: 7, ..Position::default() }),
            ..MembershipEvent::default()
        }
    }

    #[test]
    fn a_line_tells_when_what_to_whom_why_and_at_which_revision() {
        assert_eq!(
            line(&event(1, 1_750_000_000)),
            "2025-06-15T15:06:40.123Z  removed     user-svc  0190a7b2-0000-7000-8000-000000000001  10.0.0.1:7410  \
             it said goodbye  (revision 7)"
        );
        let hold = MembershipEvent { instance_id: String::new(), address: String::new(), ..event(1, 0) };
        assert!(line(&hold).ends_with("removed     user-svc  it said goodbye  (revision 7)"), "{}", line(&hold));
    }

    #[test]
    fn what_was_told_is_not_told_again_when_the_stream_is_opened_again() {
        let mut teller = Teller { format: Format::Table, last: None };
        let answer = |events| ListEventsResponse { events, missed: 0 };
        teller.tell(&answer(vec![event(1, 10), event(2, 10)])).expect("stdout takes it");
        teller.tell(&answer(vec![event(1, 10), event(2, 10)])).expect("stdout takes it");
        assert_eq!(teller.last, Some((10, 123_456_789, 2)));
        teller.tell(&answer(vec![event(1, 11)])).expect("stdout takes it");
        assert_eq!(teller.last, Some((11, 123_456_789, 1)), "another life of the registry counts anew");
    }
}
