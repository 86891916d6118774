//! When a quiet connection is asked whether it is alive, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::ConnSettings;
use super::calm::Calm;

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing is awaited.
    Rest,
    /// Look again then.
    Look(Instant),
    /// Send a PING, and look again.
    Ask,
    /// Give the connection up.
    Dead,
}

/// What the driver knows when it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Whether calls are in flight, or were given up since the last byte came. Else nobody waits for a sign of the peer, and
    /// nothing is asked (gRFC A8).
    pub(super) busy: bool,
    /// When the last byte came.
    pub(super) heard: Instant,
    /// Bytes that went over the connection in either direction, PINGs of this side and their PONGs left out. Absent while a
    /// PING is under way: it cannot be told which of the bytes are its.
    pub(super) moved: Option<u64>,
    pub(super) now: Instant,
}

/// Watches one connection. Any byte is a sign of life: a PONG behind a long answer must not be mistaken for silence.
///
/// A stream may be open and idle for hours. A peer that answers PINGs and has nothing else to say is asked half as often each
/// time, down to `silence_max`. As soon as anything else moves, a new request for one, it is asked as promptly as before: the
/// calls that are waited for are guarded by the short span, those that merely are open by the long one.
#[derive(Debug)]
pub(super) struct Silence {
    settings: ConnSettings,
    calm: Calm,
    /// Since when calls are in flight without a break, as far as the driver saw.
    busy_since: Option<Instant>,
    /// When a PING went out that no byte has followed yet.
    asked: Option<Instant>,
    /// PINGs in a row after which nothing but PONGs came.
    doublings: u32,
    /// When something else moved after such PINGs: the span starts there.
    stirred: Option<Instant>,
    moved: u64,
}

impl Silence {
    pub(super) fn new(settings: ConnSettings, calm: Calm) -> Self {
        Self { settings, calm, busy_since: None, asked: None, doublings: 0, stirred: None, moved: 0 }
    }

    /// Whether nothing is asked and nothing doubled: then a look at the time that [`Next::Look`] gave is all that is needed.
    pub(super) fn is_at_ease(&self) -> bool {
        self.asked.is_none() && self.doublings == 0
    }

    /// A PING went out for another reason; its answer is awaited all the same.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// The server does not want to be asked this often.
    pub(super) fn complained(&self) {
        self.calm.complained();
    }

    /// What to do.
    pub(super) fn next(&mut self, seen: Seen) -> Next {
        if self.asked.is_some_and(|asked| seen.heard >= asked) {
            self.asked = None;
        }
        if let Some(asked) = self.asked {
            let until = asked + self.settings.pong_timeout;
            return if seen.now >= until { Next::Dead } else { Next::Look(until) };
        }
        self.take_note(seen);
        if !seen.busy {
            self.busy_since = None;
            return Next::Rest;
        }
        let busy_since = *self.busy_since.get_or_insert(seen.now);
        let since = seen.heard.max(busy_since).max(self.stirred.unwrap_or(busy_since));
        let until = since + self.span();
        if seen.now < until {
            return Next::Look(until);
        }
        self.asked = Some(seen.now);
        self.doublings += 1;
        Next::Ask
    }

    /// Starts over when more than PINGs moved. A PING still under way after a byte came means that the byte was none of its
    /// PONG's.
    fn take_note(&mut self, seen: Seen) {
        if seen.moved == Some(self.moved) {
            return;
        }
        self.moved = seen.moved.unwrap_or(self.moved);
        if self.doublings > 0 {
            self.doublings = 0;
            self.stirred = Some(seen.now);
        }
    }

    fn span(&self) -> Duration {
        let doubled = self.settings.silence.saturating_mul(1 << self.doublings.min(16));
        self.calm.stretch(doubled.min(self.settings.silence_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A connection told of in milliseconds since it was made.
    struct Story {
        start: Instant,
        silence: Silence,
        calm: Calm,
        busy: bool,
        heard: u64,
        moved: u64,
    }

    impl Story {
        fn new() -> Self {
            let calm = Calm::default();
            let silence = Silence::new(ConnSettings::default(), calm.clone());
            Self { start: clock::now(), silence, calm, busy: true, heard: 0, moved: 0 }
        }

        fn look(&mut self, at: u64) -> Next {
            let (heard, now) = (self.start + ms(self.heard), self.start + ms(at));
            self.silence.next(Seen { busy: self.busy, heard, moved: Some(self.moved), now })
        }

        fn until(&self, at: u64) -> Next {
            Next::Look(self.start + ms(at))
        }

        /// When the next `count` PINGs go out, each answered at once, and nothing else said.
        fn asks(&mut self, mut at: u64, count: usize) -> Vec<u64> {
            let mut asks = Vec::new();
            while asks.len() < count {
                match self.look(at) {
                    Next::Look(next) => at = u64::try_from((next - self.start).as_millis()).unwrap(),
                    Next::Ask => {
                        asks.push(at);
                        self.heard = at;
                    }
                    other => panic!("{other:?} at {at}"),
                }
            }
            asks
        }
    }

    #[test]
    fn an_idle_connection_is_left_alone() {
        let mut story = Story::new();
        story.busy = false;
        assert_eq!(story.look(60_000), Next::Rest);
    }

    #[test]
    fn half_a_second_of_silence_asks_and_one_more_without_a_byte_gives_up() {
        let mut story = Story::new();
        // The connection was idle for a minute: the silence counts from the call.
        assert_eq!(story.look(60_000), story.until(60_500));
        assert_eq!(story.look(60_500), Next::Ask);
        assert_eq!(story.look(60_501), story.until(61_500));
        assert_eq!(story.look(61_500), Next::Dead);
    }

    #[test]
    fn any_byte_after_the_ping_is_a_sign_of_life() {
        let mut story = Story::new();
        story.look(0);
        assert_eq!(story.look(500), Next::Ask);
        (story.heard, story.moved) = (700, 100);
        assert_eq!(story.look(700), story.until(1_200));
        assert_eq!(story.look(1_200), Next::Ask);
        (story.heard, story.moved) = (1_201, 200);
        assert_eq!(story.look(1_201), story.until(1_701));
    }

    #[test]
    fn a_probe_of_an_idle_connection_is_awaited_too() {
        let mut story = Story::new();
        story.busy = false;
        story.silence.asked(story.start + ms(10));
        assert_eq!(story.look(11), story.until(1_010));
        assert_eq!(story.look(1_010), Next::Dead);
    }

    #[test]
    fn a_peer_that_only_answers_pings_is_asked_ever_more_rarely() {
        let mut story = Story::new();
        assert_eq!(story.asks(0, 8), [500, 1_500, 3_500, 7_500, 15_500, 25_500, 35_500, 45_500]);
    }

    #[test]
    fn a_new_request_on_a_long_idle_connection_is_guarded_like_the_first() {
        let mut story = Story::new();
        story.asks(0, 6);
        // A request is written five seconds after the last PONG, and the peer has frozen.
        story.moved += 100;
        assert_eq!(story.look(30_500), story.until(31_000));
        assert_eq!(story.look(31_000), Next::Ask);
        assert_eq!(story.look(32_000), Next::Dead);
    }

    #[test]
    fn messages_between_the_pings_keep_the_span_short() {
        let mut story = Story::new();
        for round in 0..10 {
            let at = round * 600;
            (story.heard, story.moved) = (at, round);
            assert_eq!(story.look(at), story.until(at + 500));
            assert_eq!(story.look(at + 500), Next::Ask);
            story.heard = at + 501;
        }
    }

    #[test]
    fn a_complaint_doubles_every_span_for_good() {
        let mut story = Story::new();
        story.calm.complained();
        assert_eq!(story.asks(0, 7), [1_000, 3_000, 7_000, 15_000, 31_000, 51_000, 71_000]);
        story.moved += 100;
        assert_eq!(story.look(80_000), story.until(81_000));
    }
}
