//! Who is left alone for a while because its calls fail, and how it comes back.
//!
//! Failures in a row eject (Envoy's and linkerd2-proxy's consecutive failures): unlike the success rates of gRFC A50 that works
//! with two replicas, and within a few calls. Time ends an ejection only so far that one call may try; that call decides.
//!
//! Times are spans since an origin of the caller's choice, the same for every question.

use std::time::Duration;

use crate::policy::Ejection;

/// How an endpoint is treated for what its calls came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// As all others.
    Trusted,
    /// It gets no calls until then.
    Ejected {
        /// When one may try.
        until: Duration,
    },
    /// It gets one call at a time, and that one decides.
    OnTrial {
        /// Since when.
        since: Duration,
    },
}

/// What is remembered about one endpoint's ejections. It outlives connections, and the endpoint's absence from a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    conduct: Conduct,
    /// Ejections in a row: the next one lasts `base` doubled this often.
    row: u32,
    /// How long the last ejection was, and since when the endpoint is trusted again.
    returned: Option<(Duration, Duration)>,
}

impl Default for Record {
    fn default() -> Self {
        Self { conduct: Conduct::Trusted, row: 0, returned: None }
    }
}

impl Record {
    /// How the endpoint is treated.
    pub fn conduct(&self) -> Conduct {
        self.conduct
    }

    /// Ejects it: its failures have reached the rule's number, or its trial failed. Twice as long as the last time, unless
    /// it was well since then for at least as long as it had been away.
    pub fn eject(&mut self, rule: &Ejection, now: Duration) {
        if let Some((away, since)) = self.returned.take()
            && now.saturating_sub(since) >= away
        {
            self.row = 0;
        }
        self.conduct = Conduct::Ejected { until: now.saturating_add(length(rule, self.row)) };
        self.row = self.row.saturating_add(1);
    }

    /// Moves on to `now`: an ejection that is over becomes a trial. Returns when to ask again, if time alone will change
    /// anything.
    pub fn advance(&mut self, now: Duration) -> Option<Duration> {
        match self.conduct {
            Conduct::Ejected { until } if until <= now => {
                self.conduct = Conduct::OnTrial { since: now };
                None
            }
            Conduct::Ejected { until } => Some(until),
            Conduct::Trusted | Conduct::OnTrial { .. } => None,
        }
    }

    /// Its trial went well: it is trusted again.
    pub fn acquit(&mut self, rule: &Ejection, now: Duration) {
        self.conduct = Conduct::Trusted;
        self.returned = Some((length(rule, self.row.saturating_sub(1)), now));
    }

    /// There may be another process behind the endpoint than the one that failed: a first ejection ends here, by a trial. One
    /// that failed its trial waits its time all the same, or whoever breaks every connection would get a call with each.
    pub fn reconsider(&mut self, now: Duration) {
        if let Conduct::Ejected { .. } = self.conduct
            && self.row <= 1
        {
            self.conduct = Conduct::OnTrial { since: now };
        }
    }

    /// Whether there is anything to remember at `now`.
    pub fn is_clean(&self, now: Duration) -> bool {
        let forgiven = |(away, since): (Duration, Duration)| now.saturating_sub(since) >= away;
        self.conduct == Conduct::Trusted && self.returned.is_none_or(forgiven)
    }
}

/// How long the ejection after `row` others in a row lasts.
fn length(rule: &Ejection, row: u32) -> Duration {
    let longest = rule.max.max(rule.base);
    rule.base.checked_mul(1 << row.min(31)).unwrap_or(longest).min(longest)
}

/// Whether one more of `members` connected endpoints may be ejected, with `ejected` of them out already and `others` more that
/// take calls: never the last one; the first one always; further ones within the rule's share.
pub fn may_eject(rule: &Ejection, members: usize, ejected: usize, others: usize) -> bool {
    let within_share = (ejected + 1) * 100 <= members * usize::from(rule.share_max.get());
    others > 0 && (ejected == 0 || within_share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Percent;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn until(record: &Record) -> Duration {
        let Conduct::Ejected { until } = record.conduct() else { panic!("not ejected: {record:?}") };
        until
    }

    #[test]
    fn an_ejection_ends_with_a_trial_and_not_by_itself() {
        let (rule, mut record) = (Ejection::default(), Record::default());
        record.eject(&rule, s(100));
        assert_eq!(record.advance(s(104)), Some(s(105)));
        assert_eq!(record.advance(s(105)), None);
        assert_eq!(record.conduct(), Conduct::OnTrial { since: s(105) });
        record.advance(s(10_000));
        assert_eq!(record.conduct(), Conduct::OnTrial { since: s(105) });
        record.acquit(&rule, s(10_000));
        assert_eq!(record.conduct(), Conduct::Trusted);
    }

    #[test]
    fn failed_trials_double_the_length_up_to_the_longest() {
        let (rule, mut record) = (Ejection::default(), Record::default());
        let mut now = s(0);
        let mut lengths = Vec::new();
        for _ in 0..6 {
            record.eject(&rule, now);
            lengths.push((until(&record) - now).as_secs());
            now = until(&record);
            record.advance(now);
        }
        assert_eq!(lengths, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn the_row_is_forgotten_by_who_was_well_for_as_long_as_it_was_away() {
        let rule = Ejection::default();
        let again_after = |well: Duration| {
            let mut record = Record::default();
            record.eject(&rule, s(0));
            record.advance(s(5));
            record.acquit(&rule, s(5));
            record.eject(&rule, s(5) + well);
            until(&record) - s(5) - well
        };
        assert_eq!(again_after(s(4)), s(10));
        assert_eq!(again_after(s(5)), s(5));
    }

    #[test]
    fn another_process_ends_the_first_ejection_and_no_later_one() {
        let (rule, mut record) = (Ejection::default(), Record::default());
        record.eject(&rule, s(0));
        record.reconsider(s(1));
        assert_eq!(record.conduct(), Conduct::OnTrial { since: s(1) });
        record.eject(&rule, s(2));
        record.reconsider(s(3));
        assert_eq!(until(&record), s(12));
    }

    #[test]
    fn nothing_is_remembered_of_who_has_been_well_for_long() {
        let (rule, mut record) = (Ejection::default(), Record::default());
        assert!(record.is_clean(s(0)));
        record.eject(&rule, s(0));
        assert!(!record.is_clean(s(1000)));
        record.advance(s(5));
        record.acquit(&rule, s(5));
        assert!(!record.is_clean(s(9)) && record.is_clean(s(10)));
    }

    #[test]
    fn the_last_one_stays_the_first_may_go_and_the_rest_is_a_share() {
        let rule = Ejection::default();
        assert!(!may_eject(&rule, 1, 0, 0), "alone");
        assert!(may_eject(&rule, 2, 0, 1), "one of two");
        assert!(!may_eject(&rule, 2, 1, 0), "the other of two");
        assert!(!may_eject(&rule, 3, 1, 1), "two of three are more than half");
        assert!(may_eject(&rule, 4, 1, 2), "half");
        assert!(!may_eject(&rule, 4, 2, 1), "more than half");
        let timid = Ejection { share_max: Percent::new(0).unwrap(), ..rule };
        assert!(may_eject(&timid, 10, 0, 9) && !may_eject(&timid, 10, 1, 8));
    }

    #[test]
    fn no_rule_makes_the_length_overflow() {
        let rule = Ejection { base: Duration::MAX, max: s(1), ..Ejection::default() };
        assert_eq!(length(&rule, u32::MAX), Duration::MAX);
    }
}
