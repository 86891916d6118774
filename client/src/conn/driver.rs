//! The task that moves one connection's bytes, watches it, and tells the manager when it changes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use tokio::time::{Instant, Sleep, sleep_until};

use super::hygiene::in_words;
use super::orders::Orders;
use super::silence::{Next, Seen, Silence};
use super::traffic::{Counted, Traffic};
use super::vitals::{Ending, Vitals};
use crate::clock;

/// Bytes of a PING frame, and of the PONG that answers it (RFC 9113 section 6.7).
const PING_BYTES: u64 = 9 + 8;
/// What a server adds to ENHANCE_YOUR_CALM when it was pinged too often (gRFC A8).
const TOO_MANY_PINGS: &str = "too_many_pings";

/// Runs a connection to its end. Dropping it breaks the connection: open streams fail as lost.
///
/// It is polled with everything that comes and goes, twice for a call that is alone: what it does each time is paid by
/// every call.
pub(super) struct Driver {
    connection: Connection<Counted, Bytes>,
    pings: Pings,
    /// Whether the manager waits for a sign of life.
    probed: bool,
    /// Asked for the peer's GOAWAY, which the connection itself does not tell while streams are open. Given up with the
    /// connection's retirement: h2 ends a connection only when no handle is left.
    sender: Option<SendRequest<Bytes>>,
    orders: Arc<Orders>,
    vitals: Arc<Vitals>,
    traffic: Traffic,
    /// Bytes read when the driver looked last.
    read: u64,
    /// When they had come.
    heard: Instant,
    silence: Silence,
    alarm: Alarm,
}

impl Driver {
    pub(super) fn new(
        connection: Connection<Counted, Bytes>,
        pings: Pings,
        sender: SendRequest<Bytes>,
        orders: Arc<Orders>,
        vitals: Arc<Vitals>,
        traffic: Traffic,
        silence: Silence,
    ) -> Self {
        let sender = Some(sender);
        let (heard, alarm) = (clock::now(), Alarm::new());
        Self { connection, pings, probed: false, sender, orders, vitals, traffic, read: 0, heard, silence, alarm }
    }

    fn follow_orders(&mut self, cx: &Context<'_>) {
        self.orders.listen(cx.waker());
        if self.orders.take_probe() {
            self.probed = true;
            self.silence.asked(clock::now());
            self.pings.send();
        }
        if self.orders.is_released() {
            self.vitals.retire(Ending::Released);
        }
    }

    /// Takes note of bytes that came: a sign of life, and perhaps a GOAWAY or another stream limit among them.
    fn take_note(&mut self, cx: &mut Context<'_>) {
        let read = self.traffic.read();
        if read == self.read {
            return;
        }
        self.read = read;
        self.heard = clock::now();
        self.vitals.set_limit(self.connection.max_concurrent_send_streams());
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(error)) = sender.poll_ready(cx)
        {
            self.hear_out(&error);
            self.vitals.retire(if is_go_away(&error) { Ending::GoAway } else { Ending::Closed(in_words(&error)) });
        }
        self.pings.take_pong(cx);
        if std::mem::take(&mut self.probed) {
            self.vitals.hear(self.heard);
        }
    }

    /// Remembers what the peer complained about when it left. Servers say ENHANCE_YOUR_CALM about other things too, too many
    /// resets for one; h2 shows the words that come with it in its own text only.
    fn hear_out(&self, error: &h2::Error) {
        let calm = is_go_away(error) && error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
        if calm && error.to_string().contains(TOO_MANY_PINGS) {
            self.silence.complained();
        }
    }

    /// Ready when the connection has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nearly always: whatever comes and goes meanwhile, the look when the alarm rings is early enough.
        if self.silence.is_at_ease() && self.alarm.is_set() {
            return Poll::Pending;
        }
        loop {
            let now = clock::now();
            let seen = Seen {
                busy: self.vitals.is_busy() || self.vitals.is_owed(self.heard),
                heard: self.heard,
                moved: self.pings.left_out(self.traffic.read() + self.traffic.written()),
                now,
            };
            match self.silence.next(seen) {
                Next::Rest => return Poll::Pending,
                Next::Dead => return Poll::Ready(()),
                Next::Ask => self.pings.send(),
                Next::Look(at) => std::task::ready!(self.alarm.poll(cx, at, now)),
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        driver.follow_orders(cx);
        if driver.vitals.ending().is_some() {
            driver.sender = None;
        }
        if let Poll::Ready(ended) = Pin::new(&mut driver.connection).poll(cx) {
            if let Err(error) = &ended
                && driver.sender.is_some()
            {
                // Not heard yet: it said why and closed in one go.
                driver.hear_out(error);
            }
            driver.vitals.retire(Ending::Closed(match ended {
                Ok(()) => "by the server".to_owned(),
                Err(error) => in_words(&error),
            }));
            return Poll::Ready(());
        }
        driver.take_note(cx);
        if driver.poll_silence(cx).is_ready() {
            driver.vitals.retire(Ending::Silent);
            return Poll::Ready(());
        }
        if driver.sender.is_some() && driver.vitals.ending().is_some() {
            // Retired just now: give up the handle and let the connection see it.
            driver.sender = None;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// However it ended: a panic and the end of its runtime leave no connection that calls are still sent to.
    fn drop(&mut self) {
        if self.vitals.ending().is_none() {
            self.vitals.retire(Ending::Closed("its task ended".to_owned()));
        }
    }
}

/// Whether the peer said GOAWAY, as against this side, which ends a connection the same way when the peer breaks the protocol.
fn is_go_away(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote()
}

/// The PINGs of this side: one under way at a time.
pub(super) struct Pings {
    pings: PingPong,
    under_way: bool,
    /// How many came back.
    answered: u64,
}

impl Pings {
    /// Goes on after the PING that proved the connection.
    pub(super) fn after_first(pings: PingPong) -> Self {
        Self { pings, under_way: false, answered: 1 }
    }

    /// Sends a PING unless one is under way, which does as well.
    fn send(&mut self) {
        // The only other error is a closed connection, which shows when it is polled.
        self.under_way |= self.pings.send_ping(Ping::opaque()).is_ok();
    }

    /// Takes a PONG that came.
    fn take_pong(&mut self, cx: &mut Context<'_>) {
        // PONGs are read by the connection that this very task polls, so nobody has to be woken for one.
        if self.under_way && matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
            self.under_way = false;
            self.answered += 1;
        }
    }

    /// What is left of `bytes` without PINGs and PONGs; `None` while a PING is under way.
    fn left_out(&self, bytes: u64) -> Option<u64> {
        // A peer that answers before it was asked makes it too little for a moment.
        (!self.under_way).then(|| bytes.saturating_sub(2 * PING_BYTES * self.answered))
    }
}

/// A timer that may ring too early and never too late. Moving it with every byte would cost every call; a look that was not
/// needed costs one every half second.
struct Alarm {
    timer: Pin<Box<Sleep>>,
    set: Option<Instant>,
}

impl Alarm {
    fn new() -> Self {
        Self { timer: Box::pin(sleep_until(clock::now())), set: None }
    }

    /// Whether it will ring.
    fn is_set(&self) -> bool {
        self.set.is_some() && !self.timer.is_elapsed()
    }

    /// Ready at `at`. Pending, it wakes the task then, or before.
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant, now: Instant) -> Poll<()> {
        if self.set.is_some_and(|set| now < set && set <= at) {
            return Poll::Pending;
        }
        self.timer.as_mut().reset(at);
        self.set = Some(at);
        self.timer.as_mut().poll(cx)
    }
}
