//! The task that moves one connection's bytes, watches it, and tells the manager when it changes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};

use super::h2::Probe;
use super::heard::{Heard, Reads};
use super::silence::{Next, Silence};
use super::vitals::{Ending, Vitals};
use crate::clock;

/// Runs a connection to its end. Dropping it breaks the connection: open streams fail as lost.
pub(super) struct Driver {
    connection: Connection<Heard, Bytes>,
    ping: PingPong,
    /// Asked for the peer's GOAWAY, which the connection itself does not tell while streams are open. Given up with the
    /// connection's retirement: h2 ends a connection only when no handle is left.
    sender: Option<SendRequest<Bytes>>,
    /// Probes asked for. It closes when the last handle is dropped; that alone would not wake a parked connection.
    probes: mpsc::Receiver<Probe>,
    /// Whether the manager waits for the next PONG.
    probed: bool,
    vitals: Arc<Vitals>,
    reads: Reads,
    reads_seen: u64,
    silence: Silence,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    pub(super) fn new(
        connection: Connection<Heard, Bytes>,
        ping: PingPong,
        sender: SendRequest<Bytes>,
        probes: mpsc::Receiver<Probe>,
        vitals: Arc<Vitals>,
        reads: Reads,
        silence: Silence,
    ) -> Self {
        Self {
            connection,
            ping,
            sender: Some(sender),
            probes,
            probed: false,
            vitals,
            reads,
            reads_seen: 0,
            silence,
            timer: Box::pin(sleep_until(clock::now())),
        }
    }

    /// Takes note of bytes that came: a sign of life, and perhaps a GOAWAY or another stream limit among them.
    fn take_note(&mut self, cx: &mut Context<'_>) {
        let reads = self.reads.count();
        if reads == self.reads_seen {
            return;
        }
        self.reads_seen = reads;
        self.vitals.hear(clock::now());
        self.vitals.set_limit(self.connection.max_concurrent_send_streams());
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(_)) = sender.poll_ready(cx)
        {
            self.vitals.retire(Ending::GoAway);
        }
    }

    /// Sends a PING unless one is under way, which does as well.
    fn send_ping(&mut self) {
        // The only other error is a closed connection, which shows when it is polled.
        let _ = self.ping.send_ping(Ping::opaque());
    }

    fn poll_probes(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(asked) = self.probes.poll_recv(cx) {
            match asked {
                Some(Probe) => {
                    self.probed = true;
                    self.silence.asked(clock::now());
                    self.send_ping();
                }
                None => {
                    self.vitals.retire(Ending::Released);
                    return;
                }
            }
        }
    }

    /// Takes PONGs, and has the manager look if it waits for one.
    fn poll_pongs(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Ok(_pong)) = self.ping.poll_pong(cx) {
            if std::mem::take(&mut self.probed) {
                self.vitals.ring();
            }
        }
    }

    /// Ready when the connection has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.silence.next(self.vitals.is_busy(), self.vitals.heard(), clock::now()) {
                Next::Rest => return Poll::Pending,
                Next::Dead => return Poll::Ready(()),
                Next::Ask => self.send_ping(),
                Next::Look(at) => {
                    if self.timer.deadline() != at {
                        self.timer.as_mut().reset(at);
                    }
                    std::task::ready!(self.timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        driver.poll_probes(cx);
        if driver.vitals.ending().is_some() {
            driver.sender = None;
        }
        if let Poll::Ready(ended) = Pin::new(&mut driver.connection).poll(cx) {
            driver.vitals.retire(Ending::Closed(match ended {
                Ok(()) => "by the server".to_owned(),
                Err(error) => error.to_string(),
            }));
            return Poll::Ready(());
        }
        driver.take_note(cx);
        driver.poll_pongs(cx);
        let silent = driver.poll_silence(cx);
        if silent.is_ready() {
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
