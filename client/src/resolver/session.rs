//! What one Mesh follows, over the streams that come and go. PURE: commands, news and a time in; requests to send and
//! resolutions to publish out.
//!
//! A subscription is asked for on every new stream, with the position that was applied last. It is asked for again when
//! the news has a gap, at most once a second, and a while after the registry refused it. What is asked is not
//! queued but derived: a request holds whatever is due when the stream has room for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::known::Known;
use super::news::{Event, News, Position, Refusal, RefusalOutlook};
use super::service::{ServiceState, Verdict};
use super::{Resolution, ResolutionStatus};

/// A stream that was silent for this long is dead: three times the interval at which bookmarks come at the latest.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Subscriptions in one request; 256 names of 253 bytes with their positions stay below 128 KiB.
pub(super) const REQUEST_SUBSCRIPTIONS_MAX: usize = 256;

/// Shortest time between two subscriptions of one service on one stream, so that a registry whose news never fit is not
/// asked in a tight loop.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Time until a subscription that was refused for good is tried again all the same: the reason may have been a limit.
const REFUSED_INTERVAL: Duration = Duration::from_secs(30);

/// All subscriptions of one Mesh.
#[derive(Debug, Default)]
pub(super) struct Session {
    followed: BTreeMap<Arc<str>, Followed>,
    released: BTreeSet<Arc<str>>,
    /// Services of which a later process should know something else than it would.
    unsaved: BTreeSet<Arc<str>>,
    counters: Counters,
}

/// One subscription.
#[derive(Debug)]
struct Followed {
    state: ServiceState,
    ask: Ask,
    last_asked: Option<Instant>,
    refusal: Option<Arc<str>>,
    published: Arc<Resolution>,
}

/// Whether the registry has to be asked for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// From this time on.
    Due(Instant),
    /// It was, on this stream.
    Asked,
    /// It was, and it has answered: what it says from here on counts from there.
    Answered,
}

/// What to tell the registry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// Services to follow and where to resume.
    pub(super) subscribe: Vec<(Arc<str>, Option<Position>)>,
    /// Services to follow no more.
    pub(super) unsubscribe: Vec<Arc<str>>,
}

/// What was received and not taken, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Snapshots and deltas older than what was known.
    pub older_ignored: u64,
    /// Instances that could not be understood or contradicted what was known.
    pub entries_rejected: u64,
    /// News that built on something that never arrived.
    pub gaps: u64,
    /// Messages that said nothing that is known here.
    pub malformed: u64,
    /// Snapshots and deltas larger than any service may be.
    pub too_large: u64,
    /// Subscriptions that the registry refused.
    pub refused: u64,
}

/// A resolution that differs from the last one of its service.
pub(super) type Published = (Arc<str>, Arc<Resolution>);

impl Session {
    /// Follows a service; nothing changes where it is followed already.
    pub(super) fn follow(&mut self, service: Arc<str>, now: Instant) {
        self.released.remove(&service);
        self.followed.entry(service).or_insert_with(|| Followed {
            state: ServiceState::new(),
            ask: Ask::Due(now),
            last_asked: None,
            refusal: None,
            published: Arc::new(Resolution::unresolved()),
        });
    }

    /// Whether the service is followed.
    pub(super) fn follows(&self, service: &str) -> bool {
        self.followed.contains_key(service)
    }

    /// Whether nothing is followed.
    pub(super) fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// Follows a service no more.
    pub(super) fn release(&mut self, service: &Arc<str>) {
        if self.followed.remove(service).is_some() {
            self.released.insert(Arc::clone(service));
            self.unsaved.remove(service);
        }
    }

    /// A stream is open and nothing was asked on it yet.
    pub(super) fn opened(&mut self, now: Instant) {
        self.released.clear();
        for followed in self.followed.values_mut() {
            followed.state.forget_unfinished();
            followed.ask = Ask::Due(now);
            followed.last_asked = None;
        }
    }

    /// When there is something to ask; `None` is not before something else happens.
    pub(super) fn next_request_at(&self, now: Instant) -> Option<Instant> {
        if !self.released.is_empty() {
            return Some(now);
        }
        let due = |followed: &Followed| match followed.ask {
            Ask::Due(at) => Some(at),
            Ask::Asked | Ask::Answered => None,
        };
        self.followed.values().filter_map(due).min()
    }

    /// What is to be asked now, up to the size of one request.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<Request> {
        let mut request = Request::default();
        while request.unsubscribe.len() < REQUEST_SUBSCRIPTIONS_MAX
            && let Some(service) = self.released.pop_first()
        {
            request.unsubscribe.push(service);
        }
        let due = |followed: &Followed| matches!(followed.ask, Ask::Due(at) if at <= now);
        let due = self.followed.iter_mut().filter(|(_, followed)| due(followed));
        for (service, followed) in due.take(REQUEST_SUBSCRIPTIONS_MAX) {
            followed.ask = Ask::Asked;
            followed.last_asked = Some(now);
            request.subscribe.push((Arc::clone(service), followed.state.position().cloned()));
        }
        (request != Request::default()).then_some(request)
    }

    /// A message that could not be decoded.
    pub(super) fn malformed(&mut self) {
        self.counters.malformed += 1;
    }

    /// Takes a piece of news and says what is different for callers now.
    pub(super) fn received(&mut self, news: News, now: Instant) -> Vec<Published> {
        let News { position, completeness, event } = news;
        let service = match event {
            Event::Bookmark => {
                for (service, followed) in &mut self.followed {
                    if followed.state.bookmark(&position, completeness, now) {
                        self.unsaved.insert(Arc::clone(service));
                    }
                    // One that was sent before the registry knew of the subscription says nothing about it.
                    if followed.ask == Ask::Answered {
                        followed.state.is_current_up_to(&position);
                    }
                }
                return self.followed.iter_mut().filter_map(|(service, followed)| followed.publish(service)).collect();
            }
            Event::Snapshot(ref service, _)
            | Event::Delta(ref service, _)
            | Event::Soft(ref service, _)
            | Event::Refused(ref service, _) => Arc::clone(service),
        };
        // News of a service that was just released may still be under way.
        let Some(followed) = self.followed.get_mut(&service) else { return Vec::new() };
        let verdict = match event {
            Event::Snapshot(_, chunk) => followed.state.chunk(&position, completeness, chunk, now),
            Event::Delta(_, delta) => followed.state.delta(&position, completeness, delta, now),
            Event::Soft(_, entries) => {
                // The whole answer where nothing has changed since the position that was asked for.
                if followed.ask == Ask::Asked {
                    followed.ask = Ask::Answered;
                    followed.refusal = None;
                }
                followed.state.soft(&position, entries, now)
            }
            Event::Refused(_, Refusal { reason, outlook }) => {
                self.counters.refused += 1;
                followed.refusal = Some(reason);
                followed.ask = Ask::Due(match outlook {
                    RefusalOutlook::Passing => now + RESYNC_INTERVAL,
                    RefusalOutlook::Lasting => now + REFUSED_INTERVAL,
                });
                return followed.publish(&service).into_iter().collect();
            }
            Event::Bookmark => Verdict::Kept,
        };
        followed.judge(verdict, &mut self.counters, now);
        if matches!(verdict, Verdict::Applied { .. }) {
            self.unsaved.insert(Arc::clone(&service));
        }
        followed.publish(&service).into_iter().collect()
    }

    /// Takes what an earlier process knew of a service.
    pub(super) fn recall(&mut self, service: &Arc<str>, known: Vec<Known>, now: Instant) -> Option<Published> {
        let followed = self.followed.get_mut(service)?;
        followed.state.recall(known, now);
        followed.publish(service)
    }

    /// What a later process should know of a service; `None` while the registry does not know everything itself.
    pub(super) fn known(&self, service: &str) -> Option<(Position, Vec<Known>)> {
        self.followed.get(service)?.state.known()
    }

    /// The services of which that has changed since this was asked last.
    pub(super) fn take_unsaved(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.unsaved)
    }

    /// The services that this stream has told everything about: the registry vouches for them.
    pub(super) fn vouched_for(&self) -> impl Iterator<Item = &Arc<str>> {
        let vouched = |followed: &Followed| followed.ask == Ask::Answered && followed.refusal.is_none();
        self.followed.iter().filter(move |(_, followed)| vouched(followed)).map(|(service, _)| service)
    }

    /// What was received and not taken.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}

impl Followed {
    fn judge(&mut self, verdict: Verdict, counters: &mut Counters, now: Instant) {
        match verdict {
            Verdict::Applied { entries_rejected } => {
                counters.entries_rejected += entries_rejected as u64;
                self.refusal = None;
                self.ask = Ask::Answered;
            }
            Verdict::Kept => {}
            Verdict::Older => counters.older_ignored += 1,
            Verdict::Gap => {
                counters.gaps += 1;
                if matches!(self.ask, Ask::Asked | Ask::Answered) {
                    let earliest = self.last_asked.map(|asked| asked + RESYNC_INTERVAL);
                    self.ask = Ask::Due(earliest.map_or(now, |earliest| earliest.max(now)));
                }
            }
            Verdict::TooLarge => {
                counters.too_large += 1;
                self.ask = Ask::Due(now + REFUSED_INTERVAL);
            }
        }
    }

    fn publish(&mut self, service: &Arc<str>) -> Option<Published> {
        let mut resolution = self.state.resolution();
        if let (ResolutionStatus::Unresolved, Some(reason)) = (&resolution.status, &self.refusal) {
            resolution.status = ResolutionStatus::Refused(Arc::clone(reason));
        }
        if resolution == *self.published {
            return None;
        }
        self.published = Arc::new(resolution);
        Some((Arc::clone(service), Arc::clone(&self.published)))
    }
}

#[cfg(test)]
mod tests;
