//! The numbers of one target, as its calls write them.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use super::buckets::{BYTES, Histogram, NANOS, REPEATS, TRANSPARENT};
use super::methods::{MethodIndex, Methods};
use super::recent::Recent;
use crate::clock::Stamp;

/// gRPC has the codes 0 to 16.
const CODES: usize = 17;

/// Everything that is measured of the calls to one target. Writing takes no lock, no allocation and no label, but for the
/// first call of a method and its first end with a code.
///
/// Memory: 11 KiB for the target, 0.3 KiB for each method that is called, and 1 KiB for each status that it ends with. With
/// 256 methods, and all 17 statuses for each of them, that is 4.1 MiB.
#[derive(Debug)]
pub(crate) struct CallStats {
    methods: Methods<Method>,
    recent: Recent,
}

/// One method.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) started: AtomicU64,
    /// By code; made when the first attempt or call ends with it.
    ended: [OnceLock<Box<Ended>>; CODES],
    /// Made when the first call is repeated.
    pub(super) repeats: OnceLock<Box<Repeated>>,
}

/// What ended with one status.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) attempt: Histogram<41>,
    pub(super) sent: Histogram<14>,
    pub(super) received: Histogram<14>,
    pub(super) call: Histogram<41>,
}

/// How calls were repeated; those that were not are not in here (A96).
#[derive(Debug, Default)]
pub(super) struct Repeated {
    pub(super) retries: Histogram<5>,
    pub(super) transparent: Histogram<6>,
    pub(super) hedges: Histogram<5>,
}

/// What one call took beyond its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeats {
    /// Attempts after one that may have been processed.
    pub(crate) retries: u32,
    /// Attempts after one that was provably not processed.
    pub(crate) transparent: u32,
    /// Attempts beside another one.
    pub(crate) hedges: u32,
}

impl Default for Method {
    fn default() -> Self {
        Self { started: AtomicU64::new(0), ended: array::from_fn(|_| OnceLock::new()), repeats: OnceLock::new() }
    }
}

impl Method {
    fn ended_with(&self, code: Code) -> &Ended {
        let number = usize::try_from(i32::from(code)).unwrap_or_default().min(CODES - 1);
        self.ended[number].get_or_init(Box::default)
    }

    /// By the status they ended with.
    pub(super) fn ended(&self) -> impl Iterator<Item = (Code, &Ended)> {
        let codes = (0_i32..).map(Code::from);
        codes.zip(&self.ended).filter_map(|(code, ended)| Some((code, &**ended.get()?)))
    }
}

impl CallStats {
    pub(crate) fn new() -> Self {
        Self { methods: Methods::new(), recent: Recent::new() }
    }

    /// Every method that was called and `other`, each by its label.
    pub(super) fn methods(&self) -> impl Iterator<Item = (&str, &Method)> {
        self.methods.iter()
    }

    /// The method with this path, `/package.Service/Method`: looked up once for each call.
    pub(crate) fn method(&self, path: &str) -> MethodIndex {
        self.methods.find(path)
    }

    /// An attempt has been given to an endpoint.
    pub(crate) fn attempt_started(&self, method: MethodIndex) {
        self.methods.at(method).started.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt is over: its trailers were read, or it failed, or was given up. Message bytes, without framing.
    pub(crate) fn attempt_ended(
        &self,
        method: MethodIndex,
        code: Code,
        took_nanos: u64,
        sent_bytes: u64,
        received_bytes: u64,
    ) {
        let ended = self.methods.at(method).ended_with(code);
        ended.attempt.observe(&NANOS, took_nanos);
        ended.sent.observe(&BYTES, sent_bytes);
        ended.received.observe(&BYTES, received_bytes);
    }

    /// A call is over, all its attempts with it: the time began when the caller made it.
    pub(crate) fn call_ended(&self, method: MethodIndex, code: Code, took_nanos: u64) {
        self.methods.at(method).ended_with(code).call.observe(&NANOS, took_nanos);
    }

    /// Told once at the end of a call that was repeated; one that was not need not be told.
    pub(crate) fn call_repeated(&self, method: MethodIndex, repeats: Repeats) {
        if repeats == Repeats::default() {
            return;
        }
        let repeated = self.methods.at(method).repeats.get_or_init(Box::default);
        // None is not reported (A96).
        if repeats.retries > 0 {
            repeated.retries.observe(&REPEATS, u64::from(repeats.retries));
        }
        if repeats.transparent > 0 {
            repeated.transparent.observe(&TRANSPARENT, u64::from(repeats.transparent));
        }
        if repeats.hedges > 0 {
            repeated.hedges.observe(&REPEATS, u64::from(repeats.hedges));
        }
    }

    /// The head of an answer has come, this long after its attempt began: a sample of [`CallStats::p95`].
    pub(crate) fn answered(&self, took_nanos: u64, now: Stamp) {
        self.recent.record(took_nanos, now);
    }

    /// An attempt was given up after this long, and nothing of an answer had come. Longer than most answers take, that is
    /// a sample too: the slow attempts that hedges overtake would be missing otherwise, and each hedge would bring the next
    /// one forward. Shorter, it says nothing.
    pub(crate) fn waited(&self, took_nanos: u64, now: Stamp) {
        if self.recent.p95(now).is_some_and(|p95| Duration::from_nanos(took_nanos) >= p95) {
            self.answered(took_nanos, now);
        }
    }

    /// The time within which nineteen of twenty answers began lately; `None` below a hundred samples in the last half
    /// minute. Worked out once a second; otherwise it is read.
    pub(crate) fn p95(&self, now: Stamp) -> Option<Duration> {
        self.recent.p95(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_late_counts_and_what_was_given_up_early_does_not() {
        let origin = crate::clock::now();
        let at = |millis| Stamp::new(origin, origin + Duration::from_millis(millis));
        const MILLI_NANOS: u64 = 1_000_000;
        let stats = CallStats::new();
        // A hundred calls a second. One in ten takes long, and a hedge overtakes it after 60 ms.
        for call in 0..1_000 {
            let now = at(10 * call);
            if call % 10 == 0 {
                stats.waited(60 * MILLI_NANOS, now);
            } else {
                stats.answered(10 * MILLI_NANOS, now);
            }
        }
        let p95 = stats.p95(at(10_000)).unwrap();
        assert!(p95 >= Duration::from_millis(60), "{p95:?}");

        for _ in 0..10_000 {
            stats.waited(MILLI_NANOS, at(10_000));
        }
        assert_eq!(stats.p95(at(11_000)), Some(p95));
    }

    /// What the heap holds of one target in which `methods` methods have ended with `statuses` statuses each.
    fn bytes(methods: usize, statuses: usize) -> usize {
        let stats = CallStats::new();
        let codes = (0..).map(Code::from).take(statuses);
        for number in 0..methods {
            let method = stats.method(&format!("/a.B/Method{number}"));
            codes.clone().for_each(|code| stats.call_ended(method, code, 0));
            stats.call_repeated(method, Repeats { retries: 1, transparent: 1, hedges: 1 });
        }
        let of_method = |(name, method): (&str, &Method)| {
            let repeats = method.repeats.get().map_or(0, |_| size_of::<Repeated>());
            size_of::<Method>() + name.len() + method.ended().count() * size_of::<Ended>() + repeats
        };
        size_of::<CallStats>() + Methods::<Method>::TABLE_BYTES + stats.methods().map(of_method).sum::<usize>()
    }

    #[test]
    fn memory_is_what_the_docs_say() {
        let kib = |bytes: usize| bytes.div_ceil(1 << 10);
        let empty = bytes(0, 0);
        assert_eq!(kib(empty), 11);
        assert_eq!(kib(bytes(1, 1) - empty), 2);
        assert_eq!(kib(bytes(256, CODES)), 4_144);
        assert_eq!(bytes(10_000, CODES) - bytes(256, CODES), 17 * size_of::<Ended>() + size_of::<Repeated>(), "other");
    }
}
