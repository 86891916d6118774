//! When a quiet connection is asked whether it is alive, and when it is given up.

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

/// Watches one connection. Any byte is a sign of life: a PONG behind a long answer must not be mistaken for silence.
#[derive(Debug)]
pub(super) struct Silence {
    settings: ConnSettings,
    calm: Calm,
    /// Since when calls are in flight without a break, as far as the driver saw.
    busy_since: Option<Instant>,
    /// When a PING went out that no byte has followed yet.
    asked: Option<Instant>,
}

impl Silence {
    pub(super) fn new(settings: ConnSettings, calm: Calm) -> Self {
        Self { settings, calm, busy_since: None, asked: None }
    }

    /// A PING went out for another reason; its answer is awaited all the same.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// What to do at `now`, with the last byte `heard` and calls in flight or not.
    pub(super) fn next(&mut self, busy: bool, heard: Instant, now: Instant) -> Next {
        if self.asked.is_some_and(|asked| heard >= asked) {
            self.asked = None;
        }
        if let Some(asked) = self.asked {
            let until = asked + self.settings.pong_timeout;
            return if now >= until { Next::Dead } else { Next::Look(until) };
        }
        if !busy {
            self.busy_since = None;
            return Next::Rest;
        }
        let since = heard.max(*self.busy_since.get_or_insert(now));
        let until = since + self.calm.stretch(self.settings.silence);
        if now < until {
            return Next::Look(until);
        }
        self.asked = Some(now);
        Next::Ask
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_idle_connection_is_left_alone() {
        let start = clock::now();
        let mut silence = Silence::new(ConnSettings::default(), Calm::default());
        assert_eq!(silence.next(false, start, start + ms(60_000)), Next::Rest);
    }

    #[test]
    fn half_a_second_of_silence_asks_and_one_more_without_a_byte_gives_up() {
        let start = clock::now();
        let mut silence = Silence::new(ConnSettings::default(), Calm::default());
        // The connection was idle for a minute: the silence counts from the call.
        let called = start + ms(60_000);
        assert_eq!(silence.next(true, start, called), Next::Look(called + ms(500)));
        assert_eq!(silence.next(true, start, called + ms(500)), Next::Ask);
        assert_eq!(silence.next(true, start, called + ms(501)), Next::Look(called + ms(1500)));
        assert_eq!(silence.next(true, start, called + ms(1500)), Next::Dead);
    }

    #[test]
    fn any_byte_after_the_ping_is_a_sign_of_life() {
        let start = clock::now();
        let mut silence = Silence::new(ConnSettings::default(), Calm::default());
        silence.next(true, start, start);
        assert_eq!(silence.next(true, start, start + ms(500)), Next::Ask);
        let heard = start + ms(700);
        assert_eq!(silence.next(true, heard, start + ms(1500)), Next::Ask);
        let heard = start + ms(1501);
        assert_eq!(silence.next(true, heard, start + ms(1501)), Next::Look(start + ms(2001)));
    }

    #[test]
    fn a_probe_of_an_idle_connection_is_awaited_too() {
        let start = clock::now();
        let mut silence = Silence::new(ConnSettings::default(), Calm::default());
        silence.asked(start + ms(10));
        assert_eq!(silence.next(false, start, start + ms(11)), Next::Look(start + ms(1010)));
        assert_eq!(silence.next(false, start, start + ms(1010)), Next::Dead);
    }
}
