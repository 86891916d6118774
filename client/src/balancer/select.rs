//! Which endpoints are candidates at all.

use crate::policy::Percent;

/// How much of the callers of a zone its endpoints take while not all of them are fit: with 1.4, five of seven still take
/// everything. Envoy's overprovisioning factor.
const OVERPROVISIONING: f32 = 1.4;

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it can be picked.
    pub fitness: Fitness,
    /// Where it is.
    pub zone: Zone,
}

/// Whether an endpoint can be picked, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Connected, and nobody has anything against it.
    Fit,
    /// Connected, and out of an ejection as soon as a call succeeds: a candidate, whose load admits one call at a time.
    OnTrial,
    /// Connected, but somebody doubts that it is alive and it has not answered a PING since.
    Doubted,
    /// Connected, but ejected for failing calls.
    Ejected,
    /// Not connected.
    Absent,
    /// Going away: it finishes what it has and gets nothing new, whoever else is there.
    Draining,
}

/// Where an endpoint is, as seen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// In the caller's own zone.
    Own,
    /// Anywhere else; and everywhere, where the caller's zone is not known or makes no difference.
    Other,
}

/// The candidates, and how calls are split between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Indices of the candidates: those of the own zone first, each part in the order it came in.
    pub indices: Vec<usize>,
    /// The part of the calls that stays in the own zone, in [0, 1]; absent: the zone makes no difference.
    pub own_share: Option<f32>,
    /// Whether unfit endpoints are among the candidates.
    pub alarm: Alarm,
}

/// Whether the judgement on endpoints is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The candidates are the endpoints that are fit, or on trial.
    Calm,
    /// Too few are fit for that to be believed, or nobody is: whoever is connected is a candidate.
    Panic,
}

/// Says who is a candidate.
///
/// Whoever is fit or on trial is one. When nobody is fit, or less than `panic_threshold` of those who are connected, then
/// everybody connected is: it is more likely that the judgement is wrong than that most of a service is, and a doubted
/// endpoint is better than none. Endpoints that are not connected do not count here, because no judgement keeps them
/// away; and while the own zone alone can take every call there is no panic, whatever is said of the others.
///
/// Calls stay in the own zone while enough of it is fit: the part min(1, 1.4 × fit / known) of them, and the others go
/// elsewhere. In a panic, or without candidates on either side, the zone makes no difference.
#[must_use]
pub fn select(seen: &[Seen], panic_threshold: Percent) -> Selection {
    let count = |wanted: fn(&Seen) -> bool| seen.iter().filter(|seen| wanted(seen)).count();
    let fit = count(|seen| seen.fitness == Fitness::Fit);
    let connected = count(|seen| seen.fitness.is_connected());
    let own_fit = count(|seen| seen.zone == Zone::Own && seen.fitness == Fitness::Fit);
    let own_known = count(|seen| seen.zone == Zone::Own && seen.fitness != Fitness::Draining);
    let own_share = (OVERPROVISIONING * own_fit as f32 / own_known.max(1) as f32).min(1.0);

    let too_few = fit * 100 < usize::from(panic_threshold.get()) * connected;
    let alarm = if connected > 0 && (fit == 0 || (too_few && own_share < 1.0)) { Alarm::Panic } else { Alarm::Calm };
    let wanted = |fitness: Fitness| match alarm {
        Alarm::Calm => matches!(fitness, Fitness::Fit | Fitness::OnTrial),
        Alarm::Panic => fitness.is_connected(),
    };
    let in_zone = |zone: Zone| -> Vec<usize> {
        let indices = 0..seen.len();
        indices.filter(|index| seen[*index].zone == zone && wanted(seen[*index].fitness)).collect()
    };
    let (mut indices, other) = (in_zone(Zone::Own), in_zone(Zone::Other));
    let is_split = alarm == Alarm::Calm && !indices.is_empty() && !other.is_empty();
    indices.extend(other);
    Selection { own_share: is_split.then_some(own_share), indices, alarm }
}

impl Fitness {
    /// Connected, and not on its way out.
    fn is_connected(self) -> bool {
        match self {
            Self::Fit | Self::OnTrial | Self::Doubted | Self::Ejected => true,
            Self::Absent | Self::Draining => false,
        }
    }
}
