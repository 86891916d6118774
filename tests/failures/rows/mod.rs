//! The rows of the table.

mod chain;
mod deadline;
mod degraded;
mod killed;
mod leaving;
mod outage;
mod registry;
mod shop;
mod stalled;
mod storm;
mod unreachable;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::args::Length;
use crate::report::Finding;

pub(crate) use shop::AWAY_FULL;

/// How long everything is down in the full form (T35).
const OUTAGE_FULL: Duration = Duration::from_secs(30);

/// How long it is down otherwise: longer than the longest pause between two attempts to connect.
const OUTAGE_SHORT: Duration = Duration::from_secs(8);

/// What a row begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// Of payloads, picks and jitter.
    pub(crate) seed: u64,
    /// How long outages last.
    pub(crate) length: Length,
    /// Calls per second during the rolling restart, where somebody asks for another number than usual.
    pub(crate) rate: Option<u32>,
}

impl Scene {
    fn outage(self) -> Duration {
        match self.length {
            Length::Short => OUTAGE_SHORT,
            Length::Full => OUTAGE_FULL,
        }
    }
}

type Telling = Pin<Box<dyn Future<Output = Finding> + Send>>;

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// In words; beside it, every row promises its share of attempts.
    pub(crate) promise: &'static str,
    pub(crate) run: fn(Scene) -> Telling,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! rows {
    ($($name:literal: $promise:literal => $run:expr;)*) => {
        &[$(Row { name: $name, promise: $promise, run: |scene| Box::pin($run(scene)) }),*]
    };
}

/// All of them, in the order of the table.
pub(crate) const ROWS: &[Row] = rows![
    "killed_one_of_three": "0 failed; at most 10 picks of it after the kill" => killed::one_of_three;
    "killed_one_of_three_writes": "lost is what the dead had by their own word, and two each under way; no call is sent twice"
        => killed::one_of_three_writes;
    "half_killed_at_once": "0 failed; at most 20 picks of both after the kill" => killed::half_at_once;
    "stopped_one_of_three": "0 failed; at most 30 picks of it after SIGSTOP; it serves again after SIGCONT"
        => killed::stopped_one_of_three;
    "swallowed_one_of_three": "0 failed; at most 30 picks of who gets no byte through, and 1 % of the calls after four seconds"
        => killed::swallowed_one_of_three;
    "stalled_caller": "no connection is given up for it; only what was due until it had caught up may run out of time"
        => stalled::caller;
    "refused_one": "0 failed; 0 picks of it" => unreachable::refused;
    "mute_one": "0 failed; 0 picks of who accepts and never speaks" => unreachable::mute;
    "black_hole_one": "0 failed; 0 picks of who drops every SYN" => unreachable::black_hole;
    "slow_one_of_three": "0 failed; ten times slower, it gets at most 5 % of the calls" => degraded::slow;
    "unavailable_one_of_three": "0 failed; at most 8 quick answers of it in four seconds" => degraded::unavailable;
    "internal_one_of_three": "0 failed; at most 8 quick answers of it in four seconds" => degraded::internal;
    "reset_one_of_three": "0 failed; at most 8 quick resets of it in four seconds" => degraded::reset;
    "ejected_one_of_three": "0 failed by turns, either; out after at most 8 answers, and back when it is well"
        => degraded::ejected;
    "majority_bad": "at most 1 % fail while three of five flap" => degraded::majority;
    "goaway_1000_times": "0 failed, repeatable or not; every call is served once" => leaving::goaway;
    "one_stream_each": "0 failed at 24 calls at once; every call is served once" => leaving::one_stream;
    "all_down_and_back": "failed only while down; 95 % of the 10 s after the return go well, and all after that"
        => outage::all_down;
    "all_unavailable": "1.2 attempts per call; 95 % of the 10 s after the return go well, and all after that"
        => outage::all_unavailable;
    "unavailable_two_hops_away": "1.44 attempts at the last hop per call" => chain::unavailable;
    "connect_storm": "500 channels come back, at most 15 % of them try in any 100 ms" => storm::storm;
    "deadline_and_cancel": "taken back within 100 ms; at most 1 % is worked on past its deadline; expired work is refused"
        => deadline::deadline_and_cancel;
    "empty_push": "0 failed; nobody goes for an empty, a short or an old snapshot" => registry::empty_push;
    "hostile_push": "0 failed; nobody goes for lists that are null, blank, doubled, huge, of no port, or of another time"
        => registry::hostile_push;
    "registry_down": "0 failed, and everybody stays ready, for a minute; in full for ten minutes" => shop::registry_down;
    "connection_age": "0 failed on connections that live for 2 s" => shop::connection_age;
    "rolling_restart": "0 failed, repeatable or not, while every process is replaced twice; optimised, at 400 calls/s"
        => shop::rolling_restart;
];
