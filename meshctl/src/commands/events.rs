//! `events [SERVICE]`: what has happened to instances lately, and with `--follow` what happens from there.

use std::collections::{HashMap, VecDeque};
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

/// Events remembered as told. A registry remembers 1 000, so that no other one tells the past further back than this.
const TOLD_MAX: usize = 4_096;

/// `meshctl events [SERVICE] [--follow]`.
pub(crate) async fn events(globals: &Globals, args: &EventsArgs) -> Result<(), Failure> {
    let registry = RegistryClient::connect(globals).await?;
    let ask = ListEventsRequest {
        namespace: globals.namespace.clone(),
        service: args.service.clone().unwrap_or_default(),
        limit: i32::from(args.limit),
        follow: args.follow,
    };
    let mut teller = Teller::new(globals.output);
    if !args.follow {
        let mut answers = registry.stubs().list_events(registry.request(ask)).await.map_err(explained)?.into_inner();
        while let Some(answer) = answers.message().await? {
            teller.tell(0, &answer)?;
        }
        if teller.last.is_empty() {
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
        for (door, registry) in globals.registry.iter().enumerate() {
            match listen(door, registry, globals.timeout, ask.clone(), teller, &mut said_lost).await {
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
    door: usize,
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
                if teller.turns_to(door) {
                    note(&format!("from {registry} now: what it saw, by its clock"));
                }
                if let Err(failure) = teller.tell(door, &answer) {
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

/// Prints each event once, also when a stream is opened again, or another registry's is, and tells the past once more.
struct Teller {
    format: Format,
    /// Time and number of the last event seen, by registry. Another life of a registry counts anew, and its clock goes on;
    /// those of two registries say nothing about each other.
    last: HashMap<usize, (i64, i32, u64)>,
    /// Which registry told what, at most [`TOLD_MAX`].
    told: HashMap<Same, usize>,
    /// The same, the latest last.
    order: VecDeque<Same>,
    /// Whose stream it was last.
    at: Option<usize>,
}

/// What two registries over one store say alike of one event: store, generation, revision, namespace, service, instance
/// and kind.
type Same = (String, u64, u64, String, String, String, i32);

fn same(event: &MembershipEvent) -> Same {
    let position = event.position.clone().unwrap_or_default();
    (
        position.store_id,
        position.generation,
        position.revision,
        event.namespace.clone(),
        event.service.clone(),
        event.instance_id.clone(),
        event.kind,
    )
}

impl Teller {
    fn new(format: Format) -> Self {
        Self { format, last: HashMap::new(), told: HashMap::new(), order: VecDeque::new(), at: None }
    }

    /// Whether what comes now is of another registry than what came before.
    fn turns_to(&mut self, door: usize) -> bool {
        self.at.replace(door).is_some_and(|before| before != door)
    }

    /// Whether an event of the registry at `door` was not told yet; it counts as told from here on.
    fn is_news(&mut self, door: usize, event: &MembershipEvent) -> bool {
        let time = event.time.unwrap_or_default();
        let stamp = (time.seconds, time.nanos, event.number);
        if self.last.get(&door).is_some_and(|last| stamp <= *last) {
            return false;
        }
        self.last.insert(door, stamp);
        let same = same(event);
        match self.told.get(&same) {
            // One registry may see the like of it twice, such as two refused starts.
            Some(teller) => *teller == door,
            None => {
                if self.order.len() >= TOLD_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.told.remove(&oldest);
                }
                self.order.push_back(same.clone());
                self.told.insert(same, door);
                true
            }
        }
    }

    fn tell(&mut self, door: usize, answer: &ListEventsResponse) -> Result<(), Failure> {
        if answer.missed > 0 {
            note(&format!("note: {} events were missed, of any service: they came too fast", answer.missed));
        }
        for event in &answer.events {
            if !self.is_news(door, event) {
                continue;
            }
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
        let mut teller = Teller::new(Format::Table);
        let mut news = |number, seconds| teller.is_news(0, &event(number, seconds));
        assert_eq!([news(1, 10), news(2, 10)], [true, true]);
        assert_eq!([news(1, 10), news(2, 10)], [false, false]);
        assert!(news(1, 11), "another life of the registry counts anew");
    }

    #[test]
    fn another_registry_has_its_own_clock_and_count_and_tells_only_what_is_new() {
        let at = |revision, number, seconds| MembershipEvent {
            position: Some(Position { store_id: "a".to_owned(), generation: 1, revision }),
            ..event(number, seconds)
        };
        let mut teller = Teller::new(Format::Table);
        let mut news = |door, revision, number, seconds| teller.is_news(door, &at(revision, number, seconds));
        assert_eq!([news(0, 1, 51, 100), news(0, 2, 52, 101)], [true, true]);
        // Its clock is ahead, then behind: neither repeats nor hides anything.
        assert_eq!([news(1, 2, 7, 500), news(1, 3, 8, 501)], [false, true]);
        assert_eq!([news(2, 3, 1, 20), news(2, 4, 2, 21)], [false, true]);
        assert_eq!([news(0, 2, 52, 101), news(0, 4, 53, 102), news(0, 5, 54, 103)], [false, false, true]);
        for revision in 6..10_000 {
            assert!(news(0, revision, revision + 100, 200));
        }
        assert_eq!((teller.told.len(), teller.order.len()), (TOLD_MAX, TOLD_MAX));
        assert_eq!([teller.turns_to(0), teller.turns_to(0), teller.turns_to(1)], [false, false, true]);
    }
}
